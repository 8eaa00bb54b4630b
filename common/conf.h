/* conf.h: everything an operator can set, for every daemon and for quorate, read the same way.
 *
 * One table (conf_table.c) drives flags, ETCD_* variables, ranges, --help, --check and the page
 * docs/configuration.md. Reading has no side effects but on struct conf: argv and the environment in, values out;
 * what is worth telling the operator is gathered as notes. All paths are made absolute, so a daemon may change
 * into its run directory afterwards.
 *
 * A flag beats its variable, which beats the default. Exit statuses: 2 for what conf_load and conf_start refuse
 * (nothing was touched, starting again cannot help), 1 for what fails later, 3 for storage errors. */
#pragma once

#include <stdio.h>

#include "common/err.h"
#include "common/log.h"

enum {
    CONF_KEYS_MAX = 128,
    CONF_EXIT_FAILED = 1,
    CONF_EXIT_USAGE = 2,
    CONF_EXIT_STORAGE = 3,
    CONF_EXIT_NO_SPACE = 4, /* a daemon could not begin on a full disk */
};

/* raftd exits with it once its member was removed from the cluster; quorate turns it into 0 for the suite. */
enum {
    CONF_EXIT_REMOVED = 100
};

enum conf_who {
    CONF_RAFTD = 1,
    CONF_STORED = 2,
    CONF_GATEWAYD = 4,
    CONF_PROXYD = 8,
    CONF_QUORATE = 16,
    CONF_ALL = 31,
};

enum conf_origin {
    CONF_ORIGIN_DEFAULT,
    CONF_ORIGIN_FLAG,
    CONF_ORIGIN_ENVIRONMENT,
    CONF_ORIGIN_DERIVED, /* computed from other values, such as data-dir from name */
};

enum conf_action {
    CONF_ACTION_RUN,
    CONF_ACTION_HELP,
    CONF_ACTION_VERSION,
    CONF_ACTION_CHECK,
};

enum conf_cluster_state {
    CONF_CLUSTER_NEW,
    CONF_CLUSTER_EXISTING,
};

enum conf_proxy {
    CONF_PROXY_OFF,
    CONF_PROXY_READONLY,
    CONF_PROXY_ON,
};

enum conf_fallback {
    CONF_FALLBACK_EXIT,
    CONF_FALLBACK_PROXY,
};

/* Texts in the order of the flag; URL lists are sorted as strings, as etcd does. */
struct conf_list {
    char **items;
    size_t count;
};

/* One name=url of --initial-cluster; a member with several URLs has several pairs. Sorted by name, then URL. */
struct conf_peer {
    char *name;
    char *url;
};

struct conf_peers {
    struct conf_peer *items;
    size_t count;
};

/* Users as the kernel knows them. */
struct conf_uids {
    uint64_t *items;
    size_t count;
};

/* Key and trust of one side. Empty path: not given. */
struct conf_tls {
    char *cert_file;
    char *key_file;
    char *trusted_ca_file; /* --ca-file ends here too, with client_cert_auth set */
    char *crl_file;
    char *allowed_cn;
    char *allowed_hostname;
    bool client_cert_auth;
    bool auto_tls;
};

struct conf_note {
    const char *package; /* static */
    enum log_level level;
    char *text;
};

/* Strings are never NULL: what is not given is "". Owned by the conf. */
struct conf {
    enum conf_who who;
    enum conf_action action;

    /* member */
    char *name;
    char *data_dir; /* absolute */
    char *wal_dir;  /* absolute; default <data-dir>/member/wal */
    char *run_dir;  /* absolute; default <data-dir>/run */
    uint64_t heartbeat_interval_ms;
    uint64_t election_timeout_ms;
    uint64_t snapshot_count; /* never 0 */
    uint64_t max_snapshots;  /* 0: unlimited */
    uint64_t max_wals;       /* 0: unlimited */
    uint64_t event_history;  /* events that the API shows */
    uint64_t gateways;       /* gatewayds that quorate starts */
    struct conf_list listen_client_urls;
    struct conf_list listen_peer_urls;
    struct conf_list listen_metrics_urls;
    struct conf_list cors; /* empty: none; "*" alone: all */
    struct conf_list host_whitelist;
    struct conf_list ipc_users;
    struct conf_uids ipc_uids; /* ipc_users, root and our own */

    /* clustering */
    struct conf_list initial_advertise_peer_urls;
    struct conf_list advertise_client_urls;
    struct conf_peers initial_cluster;
    enum conf_cluster_state initial_cluster_state;
    char *initial_cluster_token;
    char *discovery;
    enum conf_fallback discovery_fallback;
    char *discovery_proxy;
    char *discovery_srv;
    char *discovery_srv_name;
    bool strict_reconfig_check;
    bool pre_vote;
    bool linearizable_reads; /* a plain GET answers as quorum=true does */
    bool lease_reads;        /* a quorum read costs no round of heartbeats */
    bool initial_election_tick_advance;
    bool force_new_cluster;
    bool enable_v2;
    bool enable_discovery;

    /* proxy */
    enum conf_proxy proxy;
    uint64_t proxy_failure_wait_ms;
    uint64_t proxy_refresh_interval_ms;
    uint64_t proxy_dial_timeout_ms;
    uint64_t proxy_write_timeout_ms;
    uint64_t proxy_read_timeout_ms; /* 0: none */

    /* security */
    struct conf_tls client_tls;
    struct conf_tls peer_tls;
    struct conf_list cipher_suites;
    char *ca_file; /* as given; see conf_tls.trusted_ca_file */
    char *peer_ca_file;
    char *cluster_key_file; /* seals http peer URLs; empty: they are plain */

    /* 0.4 names, merged into the ones above by conf_load */
    char *addr;
    char *bind_addr;
    char *peer_addr;
    char *peer_bind_addr;

    /* logging, profiling */
    bool debug;
    unsigned log_level_choice; /* as given with --log-level; see log_level */
    enum log_level log_level;  /* what to pass to log_init */
    char *log_package_levels;
    unsigned logger;
    char *log_outputs;
    unsigned metrics;
    bool enable_pprof;
    char *config_file;

    /* the request itself */
    bool help;
    bool version;
    bool check;
    char *backup_dir;     /* "": no backup is asked for */
    char *backup_wal_dir; /* "": in backup_dir */

    /* bookkeeping */
    uint8_t origins[CONF_KEYS_MAX]; /* enum conf_origin, by row of the table */
    char *texts[CONF_KEYS_MAX];     /* as given or as defaulted, by row of the table */
    struct conf_note *notes;
    size_t note_count;
};

/* Reads argv and the environment. 0, or negative with the one line to print; struct conf is to be zeroed before and
 * given to conf_fini after, whatever the result. action says what is asked for: only with CONF_ACTION_RUN and
 * CONF_ACTION_CHECK were the values checked against each other. */
int conf_load(struct conf *conf, enum conf_who who, int argc, char **argv, struct err *err);
void conf_fini(struct conf *conf);

/* The whole first step of a daemon: loads, prints what was refused or asked for (--help, --version, --check), starts
 * the log under the daemon's name and tells the notes (only where no quorate above it told them already).
 * -1: go on; else the status to exit with. */
int conf_start(struct conf *conf, enum conf_who who, int argc, char **argv);
/* The status to exit with after an error of the world's, where the daemon has none of its own for it. */
int conf_exit_status(int error);

enum conf_origin conf_origin_of(const struct conf *conf, const char *flag);
const char *conf_who_name(enum conf_who who);

void conf_print_usage(const struct conf *conf, FILE *out); /* one line */
void conf_print_help(const struct conf *conf, FILE *out);
void conf_print_version(FILE *out);
/* "flag = value  (origin)", one a line, in the table's order. */
void conf_print_effective(const struct conf *conf, FILE *out);

/* What only a first start asks for (operators may leave these flags on later ones): that this member is in
 * initial-cluster with its advertised URLs, that no URL stands twice, and that this release serves such a cluster.
 * May ask the resolver. For quorate and raftd, when the log is empty. */
int conf_check_bootstrap(const struct conf *conf, struct err *err);

/* Makes the data directory with member/, and the run directory with apply/, where they are missing: 0700. */
int conf_make_dirs(const struct conf *conf, struct err *err);
