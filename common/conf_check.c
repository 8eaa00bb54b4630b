/* conf_check.c: what flags mean together: old names merged, what is left open derived, contradictions refused, and
 * what this release does not serve yet named, so that nothing that was asked for is silently missing. */
#include "common/conf_table.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/url.h"

enum {
    ELECTION_TIMEOUT_MS_MAX = 50000,
    SNAPSHOT_COUNT_DEFAULT = 10000
};

static bool is_set(const struct conf *conf, const char *flag)
{
    enum conf_origin origin = conf_origin_of(conf, flag);
    return origin == CONF_ORIGIN_FLAG || origin == CONF_ORIGIN_ENVIRONMENT;
}

PRINTF_LIKE(2, 3)
static int refuse(struct err *err, const char *format, ...)
{
    char reason[ERR_TEXT_BYTES / 2];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    return err_set(err, -EINVAL, "error verifying flags, %s. See 'quorate --help'.", reason);
}

/* Gives a row a value that follows from others. */
PRINTF_LIKE(4, 5)
static int derive(struct conf *conf, const char *flag, struct err *err, const char *format, ...)
{
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    int row = conf_find_key(flag, strlen(flag));
    char piece[ERR_TEXT_BYTES * 4];
    va_list args;

    INVARIANT(row >= 0);
    va_start(args, format);
    int bytes = vsnprintf(piece, sizeof piece, format, args);
    va_end(args);
    if (bytes < 0 || (size_t)bytes >= sizeof piece) {
        return refuse(err, "the value of -%s is too long", flag);
    }
    buf_append(&text, piece, (size_t)bytes + 1);
    TRY(conf_set_value(conf, (size_t)row, (const char *)text.data, err));
    conf->origins[row] = CONF_ORIGIN_DERIVED;
    return 0;
}

static int check_bootstrap_choice(const struct conf *conf, struct err *err)
{
    unsigned set_count = (unsigned)is_set(conf, "initial-cluster") +
                         (unsigned)is_set(conf, "discovery") +
                         (unsigned)is_set(conf, "discovery-srv");
    if (set_count > 1) {
        return refuse(err,
                "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", "
                "\"discovery\" or \"discovery-srv\"; leave the others out");
    }
    return 0;
}

/* One pair of 0.4 names: where to listen follows from what is advertised. */
struct old_name {
    const char *addr;
    const char *bind;
    const char *advertise;
    const char *listen;
};

static int merge_old_name(struct conf *conf, const struct old_name *old, const char *addr,
        const char *bind, bool tls, struct err *err)
{
    const char *scheme = tls ? "https" : "http";

    if (addr[0] != '\0') {
        if (is_set(conf, old->advertise)) {
            return refuse(err, "Set only one of flags -%s and -%s; drop -%s, the old name",
                    old->advertise, old->addr, old->addr);
        }
        TRY(derive(conf, old->advertise, err, "%s://%s", scheme, addr));
    }
    if (bind[0] != '\0' || addr[0] != '\0') {
        if (bind[0] != '\0' && is_set(conf, old->listen)) {
            return refuse(err, "Set only one of flags -%s and -%s; drop -%s, the old name",
                    old->listen, old->bind, old->bind);
        }
        if (bind[0] != '\0') {
            return derive(conf, old->listen, err, "%s://%s", scheme, bind);
        }
        if (!is_set(conf, old->listen)) {
            return derive(conf, old->listen, err, "%s://[::]%s", scheme, strrchr(addr, ':'));
        }
    }
    return 0;
}

static int merge_old_names(struct conf *conf, struct err *err)
{
    static const struct old_name client = { "addr", "bind-addr", "advertise-client-urls",
        "listen-client-urls" };
    static const struct old_name peer = { "peer-addr", "peer-bind-addr",
        "initial-advertise-peer-urls", "listen-peer-urls" };
    bool client_tls = conf->client_tls.cert_file[0] != '\0' && conf->client_tls.key_file[0] != '\0';
    bool peer_tls = conf->peer_tls.cert_file[0] != '\0' && conf->peer_tls.key_file[0] != '\0';

    TRY(merge_old_name(conf, &client, conf->addr, conf->bind_addr, client_tls, err));
    return merge_old_name(conf, &peer, conf->peer_addr, conf->peer_bind_addr, peer_tls, err);
}

static int check_advertised(const struct conf *conf, struct err *err)
{
    bool may_be_proxy =
            conf->proxy != CONF_PROXY_OFF ||
            (conf->discovery[0] != '\0' && conf->discovery_fallback == CONF_FALLBACK_PROXY);
    bool listens = is_set(conf, "listen-client-urls") || is_set(conf, "bind-addr");
    bool advertises = is_set(conf, "advertise-client-urls") || is_set(conf, "addr");

    if (listens && !advertises && !may_be_proxy) {
        return refuse(err,
                "-advertise-client-urls is required when -listen-client-urls is set explicitly; "
                "give it the URLs that clients are to use");
    }
    if (conf->listen_client_urls.count == 0) {
        return refuse(err, "-listen-client-urls must name at least one URL");
    }
    if (conf->listen_peer_urls.count == 0 || conf->initial_advertise_peer_urls.count == 0) {
        return refuse(err,
                "-listen-peer-urls and -initial-advertise-peer-urls must name at least one "
                "URL each");
    }
    return 0;
}

static int check_timers(const struct conf *conf, struct err *err)
{
    uint64_t heartbeat_ms = conf->heartbeat_interval_ms;
    uint64_t election_ms = conf->election_timeout_ms;
    uint64_t least_ms;

    if (heartbeat_ms == 0) {
        return refuse(err, "--heartbeat-interval must be >0 (set to 0ms); 100 suits most networks");
    }
    if (election_ms == 0) {
        return refuse(err, "--election-timeout must be >0 (set to 0ms); 1000 suits most networks");
    }
    if (__builtin_mul_overflow(heartbeat_ms, 5U, &least_ms) || least_ms > election_ms) {
        return refuse(err,
                "-election-timeout[%" PRIu64 "ms] should be at least as 5 times as "
                "-heartbeat-interval[%" PRIu64 "ms]; raise the first or lower the second",
                election_ms, heartbeat_ms);
    }
    if (election_ms > ELECTION_TIMEOUT_MS_MAX) {
        return refuse(err,
                "-election-timeout[%" PRIu64 "ms] is too long, and should be set less than %dms; "
                "ten times the round trip between members is enough",
                election_ms, ELECTION_TIMEOUT_MS_MAX);
    }
    return 0;
}

static int derive_cluster(struct conf *conf, struct err *err)
{
    CLEANUP(buf_fini) struct buf text = BUF_INIT;

    if (is_set(conf, "initial-cluster") || is_set(conf, "discovery") ||
            is_set(conf, "discovery-srv")) {
        return 0;
    }
    /* With its default name a member stands for the default cluster: whoever then advertises another URL has
     * forgotten one of the two flags, and is told so at the first start. */
    if (strcmp(conf->name, "default") == 0) {
        return derive(conf, "initial-cluster", err,
                "default=http://localhost:2380,default=http://localhost:7001");
    }
    for (size_t i = 0; i < conf->initial_advertise_peer_urls.count; i++) {
        buf_appendf(&text, "%s%s=%s", i == 0 ? "" : ",", conf->name,
                conf->initial_advertise_peer_urls.items[i]);
    }
    buf_append_byte(&text, '\0');
    return derive(conf, "initial-cluster", err, "%s", (const char *)text.data);
}

static int derive_dirs(struct conf *conf, struct err *err)
{
    if (conf->data_dir[0] == '\0') {
        TRY(derive(conf, "data-dir", err, "%s.etcd", conf->name));
        conf_note_add(conf, LOG_LEVEL_WARNING, "etcdmain",
                "no data-dir provided, using default data-dir ./%s.etcd", conf->name);
    }
    if (conf->wal_dir[0] == '\0') {
        TRY(derive(conf, "wal-dir", err, "%s/member/wal", conf->data_dir));
    }
    if (conf->run_dir[0] == '\0') {
        TRY(derive(conf, "run-dir", err, "%s/run", conf->data_dir));
    }
    return 0;
}

static void derive_log_level(struct conf *conf)
{
    /* In the order of the flag's choices. */
    static const enum log_level levels[] = { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_NOTICE,
        LOG_LEVEL_WARNING, LOG_LEVEL_ERR, LOG_LEVEL_CRIT, LOG_LEVEL_CRIT };
    static const char letters[] = "CEWNID";
    CLEANUP(conf_list_fini) struct conf_list pairs = { NULL, 0 };

    INVARIANT_LT(conf->log_level_choice, ARRAY_COUNT(levels));
    conf->log_level = conf->debug ? LOG_LEVEL_DEBUG : levels[conf->log_level_choice];
    conf_list_split(&pairs, conf->log_package_levels);
    for (size_t i = 0; i < pairs.count; i++) {
        const char *equals = strchr(pairs.items[i], '=');
        const char *letter = equals == NULL || equals[1] == '\0' ? NULL
                             : equals[1] == 'T'                  ? letters + LOG_LEVEL_DEBUG
                                                                 : strchr(letters, equals[1]);
        if (letter == NULL) {
            conf_note_add(conf, LOG_LEVEL_WARNING, "etcdmain",
                    "couldn't parse log level string: %s, continuing with default levels",
                    conf->log_package_levels);
            return;
        }
        conf->log_level = MAX(conf->log_level, (enum log_level)(letter - letters));
    }
}

/* One side's certificates against its URLs. */
static int check_tls(struct conf *conf, const struct conf_tls *tls, const struct conf_list *urls,
        const char *prefix, struct err *err)
{
    bool has_cert = tls->cert_file[0] != '\0';
    bool has_key = tls->key_file[0] != '\0';
    struct url url;

    if (has_cert != has_key) {
        return refuse(err,
                "KeyFile and CertFile must both be present[key: %s, cert: %s]; give both "
                "-%scert-file and -%skey-file, or neither",
                tls->key_file, tls->cert_file, prefix, prefix);
    }
    for (size_t i = 0; i < urls->count; i++) {
        TRY(url_parse(urls->items[i], URL_KIND_TCP_OR_UNIX, &url, err));
        if (url_is_tls(&url) && !has_cert && !tls->auto_tls) {
            return refuse(err,
                    "cannot listen on TLS for %s: KeyFile and CertFile are not presented; give "
                    "-%scert-file and -%skey-file, or a http URL",
                    urls->items[i], prefix, prefix);
        }
        if (url_is_tls(&url) && !has_cert && tls->client_cert_auth) {
            return refuse(err,
                    "-%sclient-cert-auth cannot be kept with -%sauto-tls: nobody has signed the "
                    "certificates that are made up; give -%scert-file and -%skey-file, or drop one "
                    "of the two",
                    prefix, prefix, prefix, prefix);
        }
        if (!url_is_tls(&url) && tls->client_cert_auth) {
            return refuse(err,
                    "-%sclient-cert-auth cannot be kept on %s; use https there, or drop the flag",
                    prefix, urls->items[i]);
        }
        if (!url_is_tls(&url) && has_cert) {
            conf_note_add(conf, LOG_LEVEL_WARNING, "etcdmain",
                    "The scheme of %s is http while %skey/cert files are presented. Ignored "
                    "key/cert files.",
                    urls->items[i], prefix[0] == '\0' ? "" : "peer ");
        }
    }
    return 0;
}

static int merge_ca_file(struct conf *conf, const char *ca_file, struct conf_tls *tls,
        const char *ca_flag, const char *auth_flag, struct err *err)
{
    if (ca_file[0] == '\0') {
        return 0;
    }
    if (tls->trusted_ca_file[0] == '\0') {
        TRY(derive(conf, ca_flag, err, "%s", ca_file));
    }
    return derive(conf, auth_flag, err, "true");
}

/* What is known, valid, and not served by this release. A row goes when its feature comes. */
static int check_served(const struct conf *conf, struct err *err)
{
    const struct {
        bool asked;
        const char *flag;
        const char *mend;
    } rows[] = {
        { url_any_is_tls(conf->listen_client_urls.items, conf->listen_client_urls.count),
                "-listen-client-urls with https", "use http URLs behind a TLS terminator" },
        { conf->client_tls.auto_tls, "-auto-tls", "leave it out" },
        { conf->proxy != CONF_PROXY_OFF, "-proxy", "leave it off and run a member" },
        { conf->enable_pprof, "-enable-pprof", "leave it out, and use perf on the daemons" },
        { conf->listen_metrics_urls.count > 0, "-listen-metrics-urls",
                "read /metrics from the client URLs" },
        { !conf->enable_v2, "-enable-v2=false", "the v2 API is what is served" },
        { conf->config_file[0] != '\0', "-config-file", "use flags or ETCD_ variables" },
        { strcmp(conf->log_outputs, "default") != 0 && strcmp(conf->log_outputs, "stderr") != 0,
                "-log-outputs other than stderr", "redirect stderr" },
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        if (rows[i].asked) {
            return err_set(err, -ENOTSUP, "%s is not served by this version; %s", rows[i].flag,
                    rows[i].mend);
        }
    }
    return 0;
}

/* A number, or a name that the host knows. */
static int find_user(const char *text, uint64_t *ret_uid, struct err *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);

    if (text[0] >= '0' && text[0] <= '9' && *end == '\0') {
        if (errno != 0 || number >= UINT32_MAX) { /* the highest means "none" */
            return refuse(err, "-ipc-users names the user %s, which no user can be", text);
        }
        *ret_uid = number;
        return 0;
    }
    const struct passwd *user = getpwnam(text); /* before there is a second thread */
    if (user == NULL) {
        return refuse(err,
                "-ipc-users names the user \"%s\", whom this host does not know: add the user, or "
                "leave the name out",
                text);
    }
    *ret_uid = user->pw_uid;
    return 0;
}

static int find_ipc_users(struct conf *conf, struct err *err)
{
    const struct conf_list *users = &conf->ipc_users;
    struct conf_uids *uids = &conf->ipc_uids;

    uids->items = xcalloc(users->count + 2, sizeof *uids->items);
    uids->items[uids->count++] = 0;
    uids->items[uids->count++] = geteuid();
    for (size_t i = 0; i < users->count; i++) {
        TRY(find_user(users->items[i], &uids->items[uids->count], err));
        uids->count++;
    }
    return 0;
}

int conf_resolve(struct conf *conf, struct err *err)
{
    TRY(check_bootstrap_choice(conf, err));
    TRY(merge_old_names(conf, err));
    TRY(check_advertised(conf, err));
    TRY(check_timers(conf, err));
    if (conf->name[0] == '\0' || strpbrk(conf->name, ",=/") != NULL) {
        return refuse(err, "-name must be a word without ',', '=' and '/'");
    }
    TRY(merge_ca_file(
            conf, conf->ca_file, &conf->client_tls, "trusted-ca-file", "client-cert-auth", err));
    TRY(merge_ca_file(conf, conf->peer_ca_file, &conf->peer_tls, "peer-trusted-ca-file",
            "peer-client-cert-auth", err));
    TRY(derive_cluster(conf, err));
    TRY(derive_dirs(conf, err));
    if (conf->snapshot_count == 0) {
        TRY(derive(conf, "snapshot-count", err, "%d", SNAPSHOT_COUNT_DEFAULT));
    }
    if (conf->discovery_proxy[0] != '\0' && strstr(conf->discovery_proxy, "://") == NULL) {
        CLEANUP(buf_fini) struct buf given = BUF_INIT;
        buf_append(&given, conf->discovery_proxy, strlen(conf->discovery_proxy) + 1);
        TRY(derive(conf, "discovery-proxy", err, "http://%s", (const char *)given.data));
    }
    derive_log_level(conf);
    TRY(find_ipc_users(conf, err));
    TRY(check_tls(conf, &conf->client_tls, &conf->listen_client_urls, "", err));
    TRY(check_tls(conf, &conf->peer_tls, &conf->listen_peer_urls, "peer-", err));
    return check_served(conf, err);
}

static const char *initial_cluster_text(const struct conf *conf)
{
    return conf->texts[conf_find_key("initial-cluster", strlen("initial-cluster"))];
}

/* Each advertised URL names the same place as one of its own in the list, and there are as many of both. */
static bool own_urls_match(const struct conf *conf)
{
    size_t own_count = 0;

    for (size_t i = 0; i < conf->initial_cluster.count; i++) {
        const struct conf_peer *peer = &conf->initial_cluster.items[i];
        bool found = false;
        if (strcmp(peer->name, conf->name) != 0) {
            continue;
        }
        own_count++;
        for (size_t j = 0; j < conf->initial_advertise_peer_urls.count && !found; j++) {
            found = url_equal(peer->url, conf->initial_advertise_peer_urls.items[j]);
        }
        if (!found) {
            return false;
        }
    }
    return own_count == conf->initial_advertise_peer_urls.count;
}

static int refuse_own_urls(const struct conf *conf, struct err *err)
{
    CLEANUP(buf_fini) struct buf wanted = BUF_INIT;
    const struct conf_list *urls = &conf->initial_advertise_peer_urls;

    for (size_t i = 0; i < urls->count; i++) {
        buf_appendf(&wanted, "%s%s=%s", i == 0 ? "" : ",", conf->name, urls->items[i]);
    }
    buf_append_str(&wanted, " given --initial-advertise-peer-urls=");
    for (size_t i = 0; i < urls->count; i++) {
        buf_appendf(&wanted, "%s%s", i == 0 ? "" : ",", urls->items[i]);
    }
    buf_append_byte(&wanted, '\0');
    const char *hint = conf->discovery_srv[0] != '\0'
                               ? "make --initial-advertise-peer-urls and the SRV records name the "
                                 "same scheme, host and port"
                       : !is_set(conf, "initial-cluster") ? "forgot to set --initial-cluster flag?"
                       : !is_set(conf, "initial-advertise-peer-urls")
                               ? "forgot to set --initial-advertise-peer-urls flag?"
                               : "make the two agree";
    return err_set(
            err, -EINVAL, "--initial-cluster must include %s; %s", (const char *)wanted.data, hint);
}

int conf_check_bootstrap(const struct conf *conf, struct err *err)
{
    const struct conf_peers *peers = &conf->initial_cluster;
    bool found_self = false;

    if (conf->discovery[0] != '\0' && conf->initial_cluster_state == CONF_CLUSTER_EXISTING) {
        return err_set(err, -EINVAL,
                "discovery URL should not be set when joining existing initial cluster; leave "
                "-discovery out and list the members with -initial-cluster");
    }
    if ((conf->discovery[0] != '\0' || conf->discovery_srv[0] != '\0') && peers->count == 0) {
        return 0; /* who they are is found later; this is called again then */
    }
    for (size_t i = 0; i < peers->count; i++) {
        bool is_self = strcmp(peers->items[i].name, conf->name) == 0;
        found_self = found_self || is_self;
        for (size_t j = i + 1; j < peers->count; j++) {
            if (strcmp(peers->items[i].url, peers->items[j].url) == 0) {
                return err_set(err, -EINVAL,
                        "initial cluster %s has duplicate url; %s stands there twice: give each "
                        "member URLs of its own in --initial-cluster",
                        initial_cluster_text(conf), peers->items[i].url);
            }
        }
    }
    if (!found_self) {
        return err_set(err, -EINVAL,
                "couldn't find local name \"%s\" in the initial cluster configuration; add %s=URL "
                "to --initial-cluster, or set --name to the name used there",
                conf->name, conf->name);
    }
    if (conf->initial_cluster_state == CONF_CLUSTER_NEW && !own_urls_match(conf)) {
        return refuse_own_urls(conf, err);
    }
    return 0;
}
