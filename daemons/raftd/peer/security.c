#include "daemons/raftd/peer/security.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file_stamp.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/tls/tls.h"
#include "common/url.h"
#include "daemons/raftd/peer/address.h"
#include "daemons/raftd/peer/seal.h"
#include "proto/peer.h"
#include "proto/wire_guard.h"

enum {
    LOOK_MS = 1000,
    NOTES_EACH_MS = 24 * 3600 * 1000,
    BAD_LOOKS_TOLD = 2, /* files that are being replaced may not fit together for a moment */
    KEY_FILE_BYTES_MAX = 1024,
};

/* What files have come to since they were read last. */
struct watched {
    const char *event;
    unsigned bad_looks;
    char told[ERR_TEXT_BYTES];
};

struct security {
    const struct conf *conf;
    struct tls_context *tls; /* made when first needed */
    struct seal_keys seal_keys;
    struct file_stamp key_stamp;
    struct loop_timer *timer;
    uint64_t notes_at_ms;
    struct watched tls_files;
    struct watched key_file;
    security_fn on_trust_changed;
    void *user;
};

/* ---- Guards ---- */

struct tls_guard {
    struct wire_guard base;
    struct tls_session *session;
};

static int tls_guard_receive(struct wire_guard *base, struct span bytes, struct buf *plain,
        struct buf *out, struct err *err)
{
    return tls_session_receive(
            CONTAINER_OF(base, struct tls_guard, base)->session, bytes, plain, out, err);
}

static bool tls_guard_is_ready(struct wire_guard *base)
{
    return tls_session_is_ready(CONTAINER_OF(base, struct tls_guard, base)->session);
}

static int tls_guard_send(
        struct wire_guard *base, struct span plain, struct buf *out, struct err *err)
{
    return tls_session_send(CONTAINER_OF(base, struct tls_guard, base)->session, plain, out, err);
}

static struct wire_guard *tls_guard_free(struct wire_guard *base)
{
    struct tls_guard *guard = CONTAINER_OF(base, struct tls_guard, base);

    guard->session = tls_session_free(guard->session);
    free(guard);
    return NULL;
}

static struct wire_guard *make_tls_guard(const struct wire_guard_source *source, bool listens)
{
    static const struct wire_guard_ops ops = { tls_guard_receive, tls_guard_is_ready,
        tls_guard_send, tls_guard_free };
    const struct security *security = source->user;
    struct tls_guard *guard = xcalloc(1, sizeof *guard);

    guard->base.ops = &ops;
    guard->session =
            tls_session_new(security->tls, listens ? TLS_SERVER : TLS_CLIENT, source->host);
    return &guard->base;
}

struct seal_guard {
    struct wire_guard base;
    struct seal *seal;
};

static int seal_guard_receive(struct wire_guard *base, struct span bytes, struct buf *plain,
        struct buf *out, struct err *err)
{
    return seal_receive(CONTAINER_OF(base, struct seal_guard, base)->seal, bytes, plain, out, err);
}

static bool seal_guard_is_ready(struct wire_guard *base)
{
    return seal_is_ready(CONTAINER_OF(base, struct seal_guard, base)->seal);
}

static int seal_guard_send(
        struct wire_guard *base, struct span plain, struct buf *out, struct err *err)
{
    return seal_send(CONTAINER_OF(base, struct seal_guard, base)->seal, plain, out, err);
}

static struct wire_guard *seal_guard_free(struct wire_guard *base)
{
    struct seal_guard *guard = CONTAINER_OF(base, struct seal_guard, base);

    guard->seal = seal_free(guard->seal);
    free(guard);
    return NULL;
}

static struct wire_guard *make_seal_guard(const struct wire_guard_source *source, bool listens)
{
    static const struct wire_guard_ops ops = { seal_guard_receive, seal_guard_is_ready,
        seal_guard_send, seal_guard_free };
    const struct security *security = source->user;
    struct seal_guard *guard = xcalloc(1, sizeof *guard);

    guard->base.ops = &ops;
    guard->seal = seal_new(&security->seal_keys, listens);
    return &guard->base;
}

/* ---- Files ---- */

static void tell_notes(struct security *security)
{
    const struct conf_list *urls = &security->conf->initial_advertise_peer_urls;
    char notes[TLS_NOTES_MAX][TLS_NOTE_BYTES];
    struct url *parsed = xcalloc(urls->count, sizeof *parsed);
    const char **hosts = xcalloc(urls->count, sizeof *hosts);
    size_t host_count = 0;

    for (size_t i = 0; i < urls->count; i++) {
        if (url_parse(urls->items[i], URL_KIND_TCP, &parsed[i], NULL) == 0 &&
                url_is_tls(&parsed[i])) {
            hosts[host_count++] = parsed[i].host;
        }
    }
    size_t count = tls_context_notes(
            security->tls, hosts, host_count, true, clock_wall_ns() / 1000000000U, notes);
    for (size_t i = 0; i < count; i++) {
        log_warning("raftd.tls.note", "note=\"%s\"", notes[i]);
    }
    security->notes_at_ms = clock_monotonic_ms();
    free(parsed);
    free((void *)hosts);
}

static int need_tls(struct security *security, struct err *err)
{
    const struct conf *conf = security->conf;
    const struct conf_tls *tls = &conf->peer_tls;
    struct tls_config config = { .cert_file = tls->cert_file,
        .key_file = tls->key_file,
        .trusted_ca_file = tls->trusted_ca_file,
        .crl_file = tls->crl_file,
        .allowed_cn = tls->allowed_cn,
        .allowed_hostname = tls->allowed_hostname,
        .client_cert_auth = tls->client_cert_auth,
        .auto_tls = tls->auto_tls,
        .cipher_suites = conf->cipher_suites.items,
        .cipher_suite_count = conf->cipher_suites.count,
        .flag_prefix = "peer-" };

    if (security->tls != NULL) {
        return 0;
    }
    TRY(tls_context_new(&config, &security->tls, err));
    tell_notes(security);
    return 0;
}

static int read_key_file(
        const char *path, struct seal_keys *ret_keys, struct file_stamp *ret_stamp, struct err *err)
{
    char text[KEY_FILE_BYTES_MAX];
    struct stat stat;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t bytes = fd < 0 || fstat(fd, &stat) < 0 ? -1 : read(fd, text, sizeof text);
    int reason = errno;

    if (fd >= 0) {
        (void)close(fd);
    }
    if (bytes < 0) {
        char said[128];
        return err_set(err, -EINVAL,
                "open %s: %s; put the cluster's key there (openssl rand -hex 32 > FILE, made "
                "once and copied to every member), or correct -cluster-key-file",
                path, strerror_r(reason, said, sizeof said));
    }
    int result = seal_keys_parse(span_of(text, (size_t)bytes), path, ret_keys, err);
    sodium_memzero(text, sizeof text);
    if (result == 0) {
        *ret_stamp = file_stamp_of(&stat);
    }
    if (result == 0 && (stat.st_mode & S_IROTH) != 0) {
        log_warning("raftd.seal.readable",
                "file=%s note=\"everybody on this host can read it; chmod o= it\"", path);
    }
    return result;
}

int security_new(const struct conf *conf, struct security **ret_security, struct err *err)
{
    struct security *security = xcalloc(1, sizeof *security);
    int result = sodium_init() < 0 ? err_set(err, -EIO, "no random numbers") : 0;

    security->conf = conf;
    security->tls_files.event = "raftd.tls.unusable";
    security->key_file.event = "raftd.seal.unusable";
    if (result == 0 && url_any_is_tls(conf->listen_peer_urls.items, conf->listen_peer_urls.count)) {
        result = need_tls(security, err);
    }
    if (result == 0 && conf->cluster_key_file[0] != '\0') {
        result = read_key_file(
                conf->cluster_key_file, &security->seal_keys, &security->key_stamp, err);
    }
    if (result < 0) {
        (void)security_free(security);
        return result;
    }
    *ret_security = security;
    return 0;
}

struct security *security_free(struct security *security)
{
    if (security != NULL) {
        security->timer = loop_timer_free(security->timer);
        security->tls = tls_context_free(security->tls);
        sodium_memzero(security, sizeof *security);
        free(security);
    }
    return NULL;
}

/* ---- Wires ---- */

/* By etcd's rule: members found by SRV records and judged by the system's authorities answer for the domain. */
static const char *expected_host(const struct conf *conf, const struct url *url)
{
    bool is_domain = conf->discovery_srv[0] != '\0' && conf->peer_tls.trusted_ca_file[0] == '\0';
    return is_domain ? conf->discovery_srv : url->host;
}

int security_open_wire(struct security *security, struct loop *loop, const char *text, bool listen,
        const struct wire_handler *handler, struct link_wire **ret_wire, struct err *err)
{
    struct wire_guard_source source = { .user = security };
    char address[ADDRESS_BYTES];
    struct link_config config = { .pattern = LINK_REQREP,
        .listen = listen,
        .path = address,
        .frame_bytes_max = PEER_FRAME_BYTES_MAX };
    struct url url;

    TRY(url_parse(text, URL_KIND_TCP, &url, err));
    TRY(address_of_url(text, address, err));
    if (url_is_tls(&url)) {
        TRY(need_tls(security, err));
        (void)snprintf(source.host, sizeof source.host, "%s", expected_host(security->conf, &url));
        source.make = make_tls_guard;
    } else if (security->seal_keys.count > 0) {
        source.make = make_seal_guard;
    }
    config.guards = &source;
    return wire_open(loop, &config, handler, ret_wire, err);
}

/* ---- Changes ---- */

/* A finding that lasts is told once. */
static void on_bad_look(struct watched *watched, const struct err *err)
{
    watched->bad_looks++;
    if (watched->bad_looks >= BAD_LOOKS_TOLD && strcmp(watched->told, err->text) != 0) {
        memcpy(watched->told, err->text, sizeof watched->told);
        log_warning_err(err, watched->event, "action=keep_what_was_read_before");
    }
}

static void look_at_tls(struct security *security, bool force)
{
    struct err err = { 0 };
    int changes = security->tls == NULL ? 0 : tls_context_reload(security->tls, force, &err);

    if (changes < 0) {
        on_bad_look(&security->tls_files, &err);
        return;
    }
    security->tls_files.bad_looks = 0;
    security->tls_files.told[0] = '\0';
    if (changes == 0) {
        return;
    }
    log_notice("raftd.tls.reloaded", "certificate=%d trust=%d", (changes & TLS_CHANGED_KEYS) != 0,
            (changes & TLS_CHANGED_TRUST) != 0);
    tell_notes(security);
    if ((changes & TLS_CHANGED_TRUST) != 0) {
        security->on_trust_changed(security->user, true);
    }
}

static bool is_key_as_read(const struct security *security)
{
    struct stat now;

    if (stat(security->conf->cluster_key_file, &now) < 0) {
        return false;
    }
    struct file_stamp stamp = file_stamp_of(&now);
    return !file_stamps_differ(&stamp, &security->key_stamp);
}

static void look_at_key(struct security *security, bool force)
{
    const char *path = security->conf->cluster_key_file;
    struct seal_keys keys = { .count = 0 };
    struct err err = { 0 };

    if (path[0] == '\0' || (is_key_as_read(security) && !force)) {
        return;
    }
    if (read_key_file(path, &keys, &security->key_stamp, &err) < 0) {
        on_bad_look(&security->key_file, &err);
        return;
    }
    security->key_file.bad_looks = 0;
    security->key_file.told[0] = '\0';
    bool is_other = sodium_memcmp(&keys, &security->seal_keys, sizeof keys) != 0;
    security->seal_keys = keys;
    sodium_memzero(&keys, sizeof keys);
    if (is_other) {
        log_notice("raftd.seal.reloaded", "keys=%zu", security->seal_keys.count);
        security->on_trust_changed(security->user, false);
    }
}

static void on_timer(void *user)
{
    struct security *security = user;

    look_at_tls(security, false);
    look_at_key(security, false);
    if (security->tls != NULL && clock_monotonic_ms() - security->notes_at_ms > NOTES_EACH_MS) {
        tell_notes(security);
    }
}

void security_watch(
        struct security *security, struct loop *loop, security_fn on_trust_changed, void *user)
{
    security->on_trust_changed = on_trust_changed;
    security->user = user;
    security->timer = loop_timer_new(loop, on_timer, security);
    loop_timer_start(security->timer, LOOK_MS, LOOK_MS);
}

void security_reload(struct security *security)
{
    look_at_tls(security, true);
    look_at_key(security, true);
}
