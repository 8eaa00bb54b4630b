/* discovery.c: the conversation with the registry, over libcurl. Registering is the only write; each answer is judged by
 * registry.c. Events of the watch are not trusted: each only says that it is time to list again, so a change of the
 * size or a key that expires is never taken for a member.
 *
 * A member that registered and was stopped while it waited would find its own key and take it for somebody else's. So
 * its id is noted in member/discovering from the registration until the members are known. */
#include "daemons/raftd/bootstrap/discovery.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/ids.h"
#include "common/log.h"
#include "common/url.h"
#include "daemons/raftd/bootstrap/registry.h"

enum {
    DIAL_S = 30,
    REQUEST_S = 5,
    RETRY_S_MAX = 256,
    REDIRECTS_MAX = 10,
    ANSWER_BYTES_MAX = 4 * 1024 * 1024,
    LIST_PAUSE_MS = 100, /* between listings, against a server whose watch returns at once */
};

struct discovery {
    const struct conf *conf;
    CURL *curl;
    char *shown_url; /* without the token */
    char id[IDS_TEXT_BYTES];
    unsigned failures;
    uint64_t size;
    struct registry registry;
    /* the last answer */
    long status;
    uint64_t index;
    struct buf body;
    char reason[CURL_ERROR_SIZE]; /* why there was none; empty: there was one */
    bool is_untrusted;            /* because of its certificate */
};

static void discovery_fini(struct discovery *discovery)
{
    curl_easy_cleanup(discovery->curl);
    registry_fini(&discovery->registry);
    buf_fini(&discovery->body);
    free(discovery->shown_url);
}

static void pause_ms(uint64_t ms)
{
    struct timespec left = { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };

    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

static size_t on_body(char *data, size_t size, size_t count, void *user)
{
    struct discovery *discovery = user;
    size_t bytes = size * count;

    if (discovery->body.bytes + bytes > ANSWER_BYTES_MAX) {
        return 0;
    }
    buf_append(&discovery->body, data, bytes);
    return bytes;
}

static void prepare(struct discovery *discovery, const char *url, long timeout_s)
{
    CURL *curl = discovery->curl;

    curl_easy_reset(curl); /* keeps connections */
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX);
    (void)curl_easy_setopt(curl, CURLOPT_POSTREDIR, (long)CURL_REDIR_POST_ALL);
    (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)DIAL_S);
    (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT, timeout_s);
    (void)curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L); /* a watch may last for days */
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    /* The proxy is what the flag says, none where it says nothing: http_proxy and no_proxy are not asked. */
    (void)curl_easy_setopt(curl, CURLOPT_PROXY, discovery->conf->discovery_proxy);
    (void)curl_easy_setopt(curl, CURLOPT_NOPROXY, "");
    /* As Go's programs, etcd among them: who is trusted beside the system's authorities. */
    const char *authorities = getenv("SSL_CERT_FILE");
    if (authorities != NULL && authorities[0] != '\0') {
        (void)curl_easy_setopt(curl, CURLOPT_CAINFO, authorities);
    }
    (void)curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    (void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, discovery->reason);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, discovery);
}

/* One request; the answer lies in discovery. False: there was none worth judging, so try again. */
static bool perform(struct discovery *discovery)
{
    struct curl_header *header;

    buf_clear(&discovery->body);
    discovery->status = 0;
    discovery->index = 0;
    discovery->reason[0] = '\0';
    CURLcode code = curl_easy_perform(discovery->curl);
    discovery->is_untrusted = code == CURLE_PEER_FAILED_VERIFICATION;
    if (code != CURLE_OK) {
        if (discovery->reason[0] == '\0') {
            (void)snprintf(
                    discovery->reason, sizeof discovery->reason, "%s", curl_easy_strerror(code));
        }
        return false;
    }
    (void)curl_easy_getinfo(discovery->curl, CURLINFO_RESPONSE_CODE, &discovery->status);
    if (curl_easy_header(discovery->curl, "X-Etcd-Index", 0, CURLH_HEADER, -1, &header) ==
            CURLHE_OK) {
        discovery->index = strtoull(header->value, NULL, 10);
    }
    return discovery->status < 500;
}

static bool get(struct discovery *discovery, const char *suffix, long timeout_s)
{
    CLEANUP(buf_fini) struct buf url = BUF_INIT;

    registry_url(discovery->conf->discovery, suffix, &url);
    prepare(discovery, (const char *)url.data, timeout_s);
    return perform(discovery);
}

/* Says that it will be tried again, and waits for twice as long as the last time. */
static void wait_to_retry(struct discovery *discovery)
{
    unsigned wait_s = RETRY_S_MAX;

    if (discovery->failures < 8) {
        wait_s = MIN(1U << ++discovery->failures, (unsigned)RETRY_S_MAX);
    }
    log_line(LOG_LEVEL_WARNING, "discovery",
            "cluster status check: error connecting to %s, retrying in %us; %s (%s)",
            discovery->shown_url, wait_s,
            discovery->is_untrusted ? "add its authority to the system's, or name a file of "
                                      "authorities in SSL_CERT_FILE"
                                    : "start what serves the discovery URL, or correct -discovery "
                                      "or -discovery-proxy",
            discovery->reason[0] != '\0' ? discovery->reason : "it answered with an error");
    pause_ms(wait_s * UINT64_C(1000));
}

static int judge_missing(const struct discovery *discovery, struct err *err)
{
    if (registry_error_code(buf_span(&discovery->body)) == REGISTRY_ERROR_NOT_FOUND) {
        return err_set(err, -EINVAL,
                "discovery: size key not found; put the number of members to _config/size under "
                "the discovery URL before any member starts, or make a new URL");
    }
    return err_set(err, -EINVAL,
            "discovery: bad discovery endpoint; %s answered with status %ld: check the URL of "
            "-discovery",
            discovery->shown_url, discovery->status);
}

/* Reads the size and the members, however long the registry cannot be reached. */
static int list(struct discovery *discovery, struct err *err)
{
    for (;;) {
        if (get(discovery, "_config/size", REQUEST_S)) {
            if (discovery->status != 200) {
                return judge_missing(discovery, err);
            }
            TRY(registry_parse_size(buf_span(&discovery->body), &discovery->size, err));
            if (get(discovery, "", REQUEST_S)) {
                break;
            }
        }
        wait_to_retry(discovery);
    }
    if (discovery->status != 200) {
        return judge_missing(discovery, err);
    }
    discovery->failures = 0;
    registry_fini(&discovery->registry);
    return registry_parse_listing(buf_span(&discovery->body), &discovery->registry, err);
}

static int refuse_full(const struct discovery *discovery, struct err *err)
{
    static const char mend[] = "make a new discovery URL with a larger size, or add this member to "
                               "the running cluster (member add)";

    if (discovery->conf->discovery_fallback == CONF_FALLBACK_PROXY) {
        return err_set(err, -EINVAL,
                "discovery cluster full, falling back to proxy; a proxy is not served by this "
                "version: %s",
                mend);
    }
    return err_set(err, -EINVAL,
            "failed to join discovery cluster (discovery: cluster is full); %s", mend);
}

static int check(struct discovery *discovery, struct err *err)
{
    TRY(list(discovery, err));
    return registry_is_full(&discovery->registry, discovery->id, discovery->size)
                   ? refuse_full(discovery, err)
                   : 0;
}

static void note_path(const struct discovery *discovery, struct buf *out)
{
    buf_appendf(out, "%s/member/discovering", discovery->conf->data_dir);
    buf_append_byte(out, '\0');
}

static int note_write(const struct discovery *discovery, struct err *err)
{
    CLEANUP(buf_fini) struct buf path = BUF_INIT;

    note_path(discovery, &path);
    const char *name = (const char *)path.data;
    size_t bytes = strlen(discovery->id);
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return err_errno(err, "create %s", name);
    }
    ssize_t written = write(fd, discovery->id, bytes);
    int result = written == (ssize_t)bytes ? 0 : err_errno(err, "write %s", name);
    (void)close(fd);
    return result;
}

static bool note_is_ours(const struct discovery *discovery)
{
    CLEANUP(buf_fini) struct buf path = BUF_INIT;
    char text[IDS_TEXT_BYTES] = "";

    note_path(discovery, &path);
    int fd = open((const char *)path.data, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t bytes = read(fd, text, sizeof text - 1);
    (void)close(fd);
    return bytes > 0 && strcmp(text, discovery->id) == 0;
}

static void note_remove(const struct discovery *discovery)
{
    CLEANUP(buf_fini) struct buf path = BUF_INIT;

    note_path(discovery, &path);
    (void)unlink((const char *)path.data);
}

static void put(struct discovery *discovery, bool *ret_answered)
{
    CLEANUP(buf_fini) struct buf url = BUF_INIT;
    CLEANUP(buf_fini) struct buf value = BUF_INIT;
    CLEANUP(buf_fini) struct buf form = BUF_INIT;
    char suffix[IDS_TEXT_BYTES + 32];

    (void)snprintf(suffix, sizeof suffix, "%s?prevExist=false", discovery->id);
    registry_url(discovery->conf->discovery, suffix, &url);
    registry_value(discovery->conf, &value);
    char *escaped = curl_easy_escape(discovery->curl, (const char *)value.data, 0);
    buf_appendf(&form, "value=%s", escaped == NULL ? "" : escaped);
    curl_free(escaped);
    prepare(discovery, (const char *)url.data, REQUEST_S);
    (void)curl_easy_setopt(discovery->curl, CURLOPT_POSTFIELDSIZE, (long)form.bytes);
    (void)curl_easy_setopt(discovery->curl, CURLOPT_COPYPOSTFIELDS, (const char *)form.data);
    (void)curl_easy_setopt(discovery->curl, CURLOPT_CUSTOMREQUEST, "PUT");
    *ret_answered = perform(discovery);
}

static int refuse_known(const struct discovery *discovery, struct err *err)
{
    return err_set(err, -EINVAL,
            "member \"%s\" has previously registered with discovery service token (%s); start it "
            "with the data directory it had then (this is %s), or, if that start failed, make a "
            "new discovery URL for all members",
            discovery->conf->name, discovery->shown_url, discovery->conf->data_dir);
}

/* Writes this member's key; whoever wrote it before must have been this very member. */
static int enter(struct discovery *discovery, struct err *err)
{
    bool is_ours = note_is_ours(discovery);
    bool answered;

    for (;;) {
        put(discovery, &answered);
        if (answered) {
            break;
        }
        is_ours = true; /* it may have been done all the same */
        wait_to_retry(discovery);
    }
    if (registry_error_code(buf_span(&discovery->body)) == REGISTRY_ERROR_EXISTS) {
        return is_ours ? 0 : refuse_known(discovery, err);
    }
    if (discovery->status != 200 && discovery->status != 201) {
        return err_set(err, -EINVAL,
                "discovery: bad discovery endpoint; %s refused the registration with status %ld: "
                "check that its key space may be written without a password",
                discovery->shown_url, discovery->status);
    }
    struct err note_err = { 0 };
    if (note_write(discovery, &note_err) < 0) {
        log_warning_err(&note_err, "raftd.discovery.unnoted",
                "consequence=\"a restart before the others are there needs a new discovery URL\"");
    }
    return 0;
}

/* Until the server asked has what was written through it. */
static void read_back(struct discovery *discovery)
{
    char suffix[IDS_TEXT_BYTES + 64];

    for (;;) {
        if (get(discovery, discovery->id, REQUEST_S) && discovery->status == 200) {
            return;
        }
        if (discovery->status == 404) {
            (void)snprintf(suffix, sizeof suffix, "%s?wait=true&waitIndex=%" PRIu64, discovery->id,
                    discovery->index + 1);
            (void)get(discovery, suffix, REQUEST_S);
        } else {
            wait_to_retry(discovery);
        }
    }
}

static int wait_for_all(struct discovery *discovery, struct err *err)
{
    char suffix[96];
    size_t told = 0;

    for (;;) {
        uint64_t index = discovery->index;
        if (discovery->registry.count >= discovery->size) {
            return 0;
        }
        if (told != discovery->registry.count) {
            told = discovery->registry.count;
            log_line(LOG_LEVEL_NOTICE, "discovery",
                    "found %zu peer(s), waiting for %" PRIu64 " more", told,
                    discovery->size - told);
        }
        (void)snprintf(
                suffix, sizeof suffix, "?wait=true&recursive=true&waitIndex=%" PRIu64, index + 1);
        if (!get(discovery, suffix, 0)) {
            wait_to_retry(discovery);
        } else {
            pause_ms(LIST_PAUSE_MS);
        }
        TRY(check(discovery, err));
    }
}

static int check_url(struct discovery *discovery, struct err *err)
{
    const char *url = discovery->conf->discovery;

    if ((strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) ||
            strpbrk(url, "?# ") != NULL) {
        return err_set(err, -EINVAL,
                "discovery: invalid URL; -discovery takes http://host:port/path or https://, and "
                "nothing behind the path");
    }
    return 0;
}

static int run(struct discovery *discovery, struct buf *out, struct err *err)
{
    const struct conf *conf = discovery->conf;

    TRY(check_url(discovery, err));
    TRY(check(discovery, err));
    TRY(enter(discovery, err));
    read_back(discovery);
    TRY(check(discovery, err));
    TRY(wait_for_all(discovery, err));
    TRY(registry_join(&discovery->registry, discovery->size, conf->discovery, out, err));
    note_remove(discovery);
    log_notice("raftd.discovery.complete", "registry=%s members=%" PRIu64, discovery->shown_url,
            discovery->size);
    return 0;
}

int discovery_run(const struct conf *conf, struct buf *out, struct err *err)
{
    CLEANUP(discovery_fini) struct discovery discovery = { .conf = conf };
    uint64_t id = ids_member((const char *const *)conf->initial_advertise_peer_urls.items,
            conf->initial_advertise_peer_urls.count, conf->discovery);

    (void)ids_text(id, discovery.id);
    discovery.shown_url = url_mask(conf->discovery);
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    discovery.curl = curl_easy_init();
    if (discovery.curl == NULL) {
        return err_set(err, -ENOMEM, "libcurl could not be started; give the process more memory");
    }
    return run(&discovery, out, err);
}
