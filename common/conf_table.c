#include "common/conf_table.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MEMBER   "Member"
#define CLUSTER  "Clustering"
#define PROXY    "Proxy"
#define SECURITY "Security"
#define LOGGING  "Logging and profiling"
#define UNSAFE   "Unsafe"
#define OURS     "Quorate"
#define OLD      "Names of 0.4"
#define GONE     "No longer supported"
#define REQUEST  "Requests"

/* Short names of who acts on a value. */
enum {
    R = CONF_RAFTD,
    S = CONF_STORED,
    G = CONF_GATEWAYD,
    P = CONF_PROXYD,
    Q = CONF_QUORATE,
    ALL = CONF_ALL,
};

#define AT(field) .offset = offsetof(struct conf, field)

/* clang-format off: one row a flag, laid out by hand. */
static const struct conf_key keys[] = {
    { "name", CONF_TYPE_STRING, AT(name), "default", .group = MEMBER, .who = R | G | Q,
            .help = "label of this member; finds itself by it in --initial-cluster, and may change "
                    "on restart" },
    { "data-dir", CONF_TYPE_PATH, AT(data_dir), "", .derived = "${name}.etcd", .group = MEMBER,
            .who = ALL, .help = "folder that holds all data of this member (or proxy)" },
    { "wal-dir", CONF_TYPE_PATH, AT(wal_dir), "", .derived = "${data-dir}/member/wal",
            .group = MEMBER, .who = R | Q,
            .help = "folder of the log, for a disk of its own; to be repeated on every start" },
    { "snapshot-count", CONF_TYPE_U64, AT(snapshot_count), "10000", .max = UINT64_MAX,
            .group = MEMBER, .who = R | S,
            .help = "applied entries before a snapshot; 0 is the default" },
    { "heartbeat-interval", CONF_TYPE_MS, AT(heartbeat_interval_ms), "100", .max = UINT64_MAX,
            .group = MEMBER, .who = R | G,
            .help = "milliseconds between a leader's heartbeats; above 0" },
    { "election-timeout", CONF_TYPE_MS, AT(election_timeout_ms), "1000", .max = UINT64_MAX,
            .group = MEMBER, .who = R | G,
            .help = "milliseconds without a heartbeat before an election; 5 heartbeats at least, "
                    "50000 at most" },
    { "listen-peer-urls", CONF_TYPE_PEER_URLS, AT(listen_peer_urls),
            "http://localhost:2380,http://localhost:7001", .group = MEMBER, .who = R | Q,
            .help = "where to listen for other members" },
    { "listen-client-urls", CONF_TYPE_URLS, AT(listen_client_urls),
            "http://localhost:2379,http://localhost:4001", .group = MEMBER, .who = G | P | Q,
            .help = "where to listen for clients: http, https, unix; when set, "
                    "--advertise-client-urls must be too" },
    { "max-snapshots", CONF_TYPE_U64, AT(max_snapshots), "5", .max = UINT64_MAX, .group = MEMBER,
            .who = S, .help = "snapshot files to keep; 0: all" },
    { "max-wals", CONF_TYPE_U64, AT(max_wals), "5", .max = UINT64_MAX, .group = MEMBER, .who = R,
            .help = "known for compatibility; log files go as soon as no kept snapshot needs "
                    "them" },
    { "cors", CONF_TYPE_LIST, AT(cors), "*", .group = MEMBER, .who = G | P,
            .help = "origins that a browser may call from, comma separated; * is every one, empty "
                    "is none" },

    { "initial-advertise-peer-urls", CONF_TYPE_PEER_URLS, AT(initial_advertise_peer_urls),
            "http://localhost:2380,http://localhost:7001", .group = CLUSTER, .who = R,
            .help = "what other members are told to reach this one by; only read when the member "
                    "is first started" },
    { "initial-cluster", CONF_TYPE_PEERS, AT(initial_cluster), "",
            .derived = "default=<the two default URLs>; with another name, ${name}=<each of "
                       "initial-advertise-peer-urls>",
            .group = CLUSTER, .who = R | P,
            .help = "all members as name=url, comma separated; a name with several URLs is "
                    "repeated" },
    { "initial-cluster-state", CONF_TYPE_CHOICE, AT(initial_cluster_state), "new",
            .choices = "new|existing", .group = CLUSTER, .who = R,
            .help = "existing: this member was added to a cluster that runs" },
    { "initial-cluster-token", CONF_TYPE_STRING, AT(initial_cluster_token), "etcd-cluster",
            .group = CLUSTER, .who = R,
            .help = "goes into all ids, so that clusters with the same URLs differ" },
    { "advertise-client-urls", CONF_TYPE_URLS, AT(advertise_client_urls),
            "http://localhost:2379,http://localhost:4001", .group = CLUSTER, .who = R | G,
            .help = "what clients are told to reach this member by; published on every start" },
    { "discovery", CONF_TYPE_STRING, AT(discovery), "", .group = CLUSTER, .who = R | P,
            .help = "discovery URL to find the other members by" },
    { "discovery-fallback", CONF_TYPE_CHOICE, AT(discovery_fallback), "proxy",
            .choices = "exit|proxy", .group = CLUSTER, .who = R | Q,
            .help = "what to be when the discovered cluster is full" },
    { "discovery-proxy", CONF_TYPE_STRING, AT(discovery_proxy), "", .group = CLUSTER, .who = R | P,
            .help = "HTTP proxy for requests to the discovery URL" },
    { "discovery-srv", CONF_TYPE_STRING, AT(discovery_srv), "", .group = CLUSTER, .who = R | P,
            .help = "domain whose SRV records name the members" },
    { "discovery-srv-name", CONF_TYPE_STRING, AT(discovery_srv_name), "", .group = CLUSTER,
            .who = R | P, .help = "suffix of the SRV service names" },
    { "strict-reconfig-check", CONF_TYPE_BOOL, AT(strict_reconfig_check), "true", .group = CLUSTER,
            .who = R, .help = "refuse membership changes that would cost the quorum" },
    { "pre-vote", CONF_TYPE_BOOL, AT(pre_vote), "true", .group = CLUSTER, .who = R,
            .help = "ask before an election, so that a member that was cut off disturbs nobody" },
    { "initial-election-tick-advance", CONF_TYPE_BOOL, AT(initial_election_tick_advance), "true",
            .group = CLUSTER, .who = R,
            .help = "shorten the wait for the first election after a start" },

    { "proxy", CONF_TYPE_CHOICE, AT(proxy), "off", .choices = "off|readonly|on", .group = PROXY,
            .who = P | Q, .help = "be a proxy and no member" },
    { "proxy-failure-wait", CONF_TYPE_MS, AT(proxy_failure_wait_ms), "5000", .max = UINT64_MAX,
            .group = PROXY, .who = P,
            .help = "milliseconds before a failed endpoint is tried again" },
    { "proxy-refresh-interval", CONF_TYPE_MS, AT(proxy_refresh_interval_ms), "30000",
            .max = UINT64_MAX, .group = PROXY, .who = P,
            .help = "milliseconds between refreshes of the endpoint list" },
    { "proxy-dial-timeout", CONF_TYPE_MS, AT(proxy_dial_timeout_ms), "1000", .max = UINT64_MAX,
            .group = PROXY, .who = P,
            .help = "milliseconds to connect to an endpoint; 0: no limit" },
    { "proxy-write-timeout", CONF_TYPE_MS, AT(proxy_write_timeout_ms), "5000", .max = UINT64_MAX,
            .group = PROXY, .who = P, .help = "milliseconds to send to an endpoint; 0: no limit" },
    { "proxy-read-timeout", CONF_TYPE_MS, AT(proxy_read_timeout_ms), "0", .max = UINT64_MAX,
            .group = PROXY, .who = P,
            .help = "milliseconds to receive from an endpoint; 0: no limit" },

    { "cert-file", CONF_TYPE_PATH, AT(client_tls.cert_file), "", .group = SECURITY, .who = G | P,
            .help = "certificate for clients (PEM)" },
    { "key-file", CONF_TYPE_PATH, AT(client_tls.key_file), "", .group = SECURITY, .who = G | P,
            .help = "its key" },
    { "client-cert-auth", CONF_TYPE_BOOL, AT(client_tls.client_cert_auth), "false",
            .group = SECURITY, .who = G | P, .help = "demand a certificate of every client" },
    { "trusted-ca-file", CONF_TYPE_PATH, AT(client_tls.trusted_ca_file), "", .group = SECURITY,
            .who = G | P, .help = "authorities that client certificates are checked against" },
    { "client-crl-file", CONF_TYPE_PATH, AT(client_tls.crl_file), "", .group = SECURITY,
            .who = G | P, .help = "revoked client certificates" },
    { "client-cert-allowed-hostname", CONF_TYPE_STRING, AT(client_tls.allowed_hostname), "",
            .group = SECURITY, .who = G | P,
            .help = "the only name that a client certificate may bear" },
    { "ca-file", CONF_TYPE_PATH, AT(ca_file), "", .group = SECURITY, .who = G | P,
            .help = "old name: --trusted-ca-file together with --client-cert-auth" },
    { "auto-tls", CONF_TYPE_BOOL, AT(client_tls.auto_tls), "false", .group = SECURITY, .who = G,
            .help = "make a certificate for clients at start" },
    { "peer-cert-file", CONF_TYPE_PATH, AT(peer_tls.cert_file), "", .group = SECURITY, .who = R | P,
            .help = "certificate for other members (PEM)" },
    { "peer-key-file", CONF_TYPE_PATH, AT(peer_tls.key_file), "", .group = SECURITY, .who = R | P,
            .help = "its key" },
    { "peer-client-cert-auth", CONF_TYPE_BOOL, AT(peer_tls.client_cert_auth), "false",
            .group = SECURITY, .who = R | P, .help = "demand a certificate of every member" },
    { "peer-trusted-ca-file", CONF_TYPE_PATH, AT(peer_tls.trusted_ca_file), "", .group = SECURITY,
            .who = R | P, .help = "authorities that members' certificates are checked against" },
    { "peer-crl-file", CONF_TYPE_PATH, AT(peer_tls.crl_file), "", .group = SECURITY, .who = R | P,
            .help = "revoked certificates of members" },
    { "peer-cert-allowed-cn", CONF_TYPE_STRING, AT(peer_tls.allowed_cn), "", .group = SECURITY,
            .who = R, .help = "the only common name that a member's certificate may bear" },
    { "peer-cert-allowed-hostname", CONF_TYPE_STRING, AT(peer_tls.allowed_hostname), "",
            .group = SECURITY, .who = R,
            .help = "the only host name that a member's certificate may bear" },
    { "peer-ca-file", CONF_TYPE_PATH, AT(peer_ca_file), "", .group = SECURITY, .who = R | P,
            .help = "old name: --peer-trusted-ca-file together with --peer-client-cert-auth" },
    { "peer-auto-tls", CONF_TYPE_BOOL, AT(peer_tls.auto_tls), "false", .group = SECURITY, .who = R,
            .help = "make a certificate for other members at start" },
    { "cluster-key-file", CONF_TYPE_PATH, AT(cluster_key_file), "", .group = SECURITY, .who = R,
            .help = "key that seals connections between members over http peer URLs, the same file "
                    "on each: openssl rand -hex 32 > FILE" },
    { "cipher-suites", CONF_TYPE_LIST, AT(cipher_suites), "", .group = SECURITY, .who = R | G | P,
            .help = "cipher suites to offer, comma separated; empty: the library's choice" },
    { "host-whitelist", CONF_TYPE_LIST, AT(host_whitelist), "*", .group = SECURITY, .who = G,
            .help = "Host headers to accept over plain HTTP; * is every one" },

    { "debug", CONF_TYPE_BOOL, AT(debug), "false", .group = LOGGING, .who = ALL,
            .help = "log everything, as --log-level debug" },
    { "log-level", CONF_TYPE_CHOICE, AT(log_level_choice), "info",
            .choices = "debug|info|notice|warn|error|panic|fatal", .group = LOGGING, .who = ALL,
            .help = "the least that is logged" },
    { "log-package-levels", CONF_TYPE_STRING, AT(log_package_levels), "", .group = LOGGING,
            .who = ALL,
            .help = "levels by daemon or etcd package, as raftd=DEBUG,etcdserver=WARNING; the most "
                    "talkative one holds" },
    { "logger", CONF_TYPE_CHOICE, AT(logger), "capnslog", .choices = "capnslog|zap",
            .group = LOGGING, .who = ALL,
            .help = "known for compatibility; lines look the same with both" },
    { "log-outputs", CONF_TYPE_STRING, AT(log_outputs), "default", .group = LOGGING, .who = ALL,
            .help = "known for compatibility; default and stderr are served" },
    { "enable-pprof", CONF_TYPE_BOOL, AT(enable_pprof), "false", .group = LOGGING, .who = G,
            .help = "serve profiles under /debug/pprof on the client URLs" },
    { "listen-metrics-urls", CONF_TYPE_URLS, AT(listen_metrics_urls), "", .group = LOGGING,
            .who = G | Q, .help = "further URLs that serve /metrics and /health alone" },
    { "metrics", CONF_TYPE_CHOICE, AT(metrics), "basic", .choices = "basic|extensive",
            .group = LOGGING, .who = G,
            .help = "known for compatibility; /metrics is the same with both" },

    { "force-new-cluster", CONF_TYPE_BOOL, AT(force_new_cluster), "false", .group = UNSAFE,
            .who = R,
            .help = "make a cluster of one out of this member's data, and forget the others" },

    { "run-dir", CONF_TYPE_PATH, AT(run_dir), "", .derived = "${data-dir}/run", .group = OURS,
            .who = ALL, .help = "folder of the sockets between the daemons" },
    { "ipc-users", CONF_TYPE_LIST, AT(ipc_users), "", .group = OURS, .who = R | S | G,
            .help = "users, by name or number, whose processes may connect to those sockets; root "
                    "and the daemon's own user always may" },
    { "gateways", CONF_TYPE_U64, AT(gateways), "1", .min = 1, .max = 64, .group = OURS, .who = Q,
            .help = "gatewayd processes that share the client URLs" },
    { "event-history", CONF_TYPE_U64, AT(event_history), "1000", .min = 1, .max = 65536,
            .group = OURS, .who = S | G, .help = "events that a waitIndex may reach back" },
    { "linearizable-reads", CONF_TYPE_BOOL, AT(linearizable_reads), "false", .group = OURS,
            .who = G, .help = "every GET answers as with quorum=true" },
    { "lease-reads", CONF_TYPE_BOOL, AT(lease_reads), "false", .group = OURS, .who = R,
            .help = "quorum reads without a round of heartbeats, while a quorum of members with "
                    "this "
                    "flag has answered within an election timeout: as sure as their clocks" },
    { "enable-discovery", CONF_TYPE_BOOL, AT(enable_discovery), "false", .group = OURS, .who = G,
            .help = "serve /new, so that other clusters can find their members here" },
    { "enable-v2", CONF_TYPE_BOOL, AT(enable_v2), "true", .group = OURS, .who = G,
            .help = "known for compatibility; the v2 API is always served" },
    { "config-file", CONF_TYPE_PATH, AT(config_file), "", .group = OURS, .who = ALL,
            .help = "known for compatibility; flags and variables are the configuration" },

    { "addr", CONF_TYPE_ADDRESS, AT(addr), "", .group = OLD, .who = G,
            .help = "IP:port; now --advertise-client-urls" },
    { "bind-addr", CONF_TYPE_ADDRESS, AT(bind_addr), "", .group = OLD, .who = G | P | Q,
            .derived = "[::] with the port of addr, when that is given",
            .help = "IP:port; now --listen-client-urls" },
    { "peer-addr", CONF_TYPE_ADDRESS, AT(peer_addr), "", .group = OLD, .who = R,
            .help = "IP:port; now --initial-advertise-peer-urls" },
    { "peer-bind-addr", CONF_TYPE_ADDRESS, AT(peer_bind_addr), "", .group = OLD, .who = R | Q,
            .derived = "[::] with the port of peer-addr, when that is given",
            .help = "IP:port; now --listen-peer-urls" },

#define IGNORED(name)                                                                              \
    {                                                                                              \
        name, CONF_TYPE_IGNORED, .initial = "", .group = GONE, .who = Q,                           \
                                 .help = "warns and does nothing"                                  \
    }
#define REJECTED(name)                                                                             \
    {                                                                                              \
        name, CONF_TYPE_REJECTED, .initial = "", .group = GONE, .who = Q,                          \
                                  .help = "refused; now --initial-cluster"                         \
    }
    IGNORED("cluster-active-size"),
    IGNORED("cluster-remove-delay"),
    IGNORED("cluster-sync-interval"),
    IGNORED("config"),
    IGNORED("force"),
    IGNORED("max-result-buffer"),
    IGNORED("max-retry-attempts"),
    IGNORED("peer-heartbeat-interval"),
    IGNORED("peer-election-timeout"),
    IGNORED("retry-interval"),
    IGNORED("snapshot"),
    IGNORED("v"),
    IGNORED("vv"),
    REJECTED("peers"),
    REJECTED("peers-file"),

    { "check", CONF_TYPE_BOOL, AT(check), "false", .group = REQUEST, .who = ALL,
            .no_environment = true,
            .help = "check flags, variables and the data folder, print what would be used and why, "
                    "start nothing" },
    { "backup-dir", CONF_TYPE_PATH, AT(backup_dir), "", .group = REQUEST, .who = R | Q,
            .no_environment = true,
            .help = "copy the data of --data-dir, whose member may run, into this empty folder and "
                    "exit; the copy is started with --force-new-cluster" },
    { "backup-wal-dir", CONF_TYPE_PATH, AT(backup_wal_dir), "", .group = REQUEST, .who = R | Q,
            .no_environment = true,
            .help = "folder for the copy of the log, if not in --backup-dir" },
    { "help", CONF_TYPE_BOOL, AT(help), "false", .group = REQUEST, .who = ALL,
            .no_environment = true, .help = "print this and exit; also -h" },
    { "version", CONF_TYPE_BOOL, AT(version), "false", .group = REQUEST, .who = ALL,
            .no_environment = true, .help = "print the version and exit" },
};
/* clang-format on */

static_assert(ARRAY_COUNT(keys) <= CONF_KEYS_MAX, "struct conf has a place for each row");

const struct conf_key *conf_keys(size_t *ret_count)
{
    *ret_count = ARRAY_COUNT(keys);
    return keys;
}

int conf_find_key(const char *flag, size_t flag_bytes)
{
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
        if (strlen(keys[i].flag) == flag_bytes && memcmp(keys[i].flag, flag, flag_bytes) == 0) {
            return (int)i;
        }
    }
    return -1;
}

void conf_environment_name(const struct conf_key *key, char ret_name[CONF_ENVIRONMENT_NAME_BYTES])
{
    (void)snprintf(ret_name, CONF_ENVIRONMENT_NAME_BYTES, "ETCD_%s", key->flag);
    for (char *c = ret_name; *c != '\0'; c++) {
        if (*c == '-') {
            *c = '_';
        } else if (*c >= 'a' && *c <= 'z') {
            *c = (char)(*c - 'a' + 'A');
        }
    }
}
