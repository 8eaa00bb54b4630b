#include "daemons/gatewayd/discovery.h"

#include <sys/random.h>

#include "daemons/gatewayd/shell.h"
#include "proto/op.h"
#include "proto/outcome.h"

enum {
    SIZE_DEFAULT = 3,
    TOKEN_BYTES = 16,
    TOKEN_DIGITS = 2 * TOKEN_BYTES,
};

static const char registry_path[] = "/_etcd/registry/";
static const char size_path[] = "/_config/size";

unsigned discovery_size_of(struct span query)
{
    static const struct span name = { (const uint8_t *)"size=", 5 };
    size_t at = 0;

    while (at < query.bytes) {
        const uint8_t *end = memchr(query.data + at, '&', query.bytes - at);
        size_t bytes = end == NULL ? query.bytes - at : (size_t)(end - query.data) - at;
        struct span pair = span_of(query.data + at, bytes);
        if (span_starts_with(pair, name) || span_eq(pair, SPAN_LIT("size"))) {
            bool is_digit = bytes == name.bytes + 1 && pair.data[name.bytes] >= '1' &&
                            pair.data[name.bytes] <= '9';
            return is_digit ? (unsigned)(pair.data[name.bytes] - '0') : 0;
        }
        at += bytes + 1;
    }
    return SIZE_DEFAULT;
}

bool discovery_is_token(struct span path)
{
    if (path.bytes != TOKEN_DIGITS + 1 || path.data[0] != '/') {
        return false;
    }
    for (size_t i = 1; i < path.bytes; i++) {
        uint8_t digit = path.data[i];
        if (!((digit >= '0' && digit <= '9') || (digit >= 'a' && digit <= 'f'))) {
            return false;
        }
    }
    return true;
}

static void serve_token(struct gatewayd *gw, struct http_request *request, struct span path)
{
    CLEANUP(buf_fini) struct buf key = BUF_INIT;
    struct call *call = call_new(gw, request, CALL_READ);

    buf_append_str(&key, registry_path);
    buf_append(&key, path.data + 1, path.bytes - 1);
    call->key = buf_span(&key);
    call_own_key(call);
    call->serve = reads_serve_key;
    reads_add(gw, call);
}

static void append_token(struct buf *out)
{
    uint8_t bytes[TOKEN_BYTES];

    /* So few bytes come whole or not at all, and not at all is a kernel without random numbers. */
    INVARIANT(getrandom(bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++) {
        buf_appendf(out, "%02x", bytes[i]);
    }
}

static void make_registry(struct gatewayd *gw, struct http_request *request, unsigned size)
{
    CLEANUP(buf_fini) struct buf key = BUF_INIT;
    struct call *call = call_new(gw, request, CALL_DISCOVERY);
    uint8_t digit = (uint8_t)('0' + size);
    struct op op = { .kind = OP_CREATE, .value = span_of(&digit, 1) };

    buf_append_str(&key, registry_path);
    append_token(&key);
    buf_append_str(&key, size_path);
    call->key = buf_span(&key);
    call_own_key(call); /* the answer names it */
    op.path = call->key;
    SET(&op, op_tag_path);
    SET(&op, op_tag_value);
    ring_add_op(gw, call, &op);
}

bool discovery_on_request(struct gatewayd *gw, struct http_request *request, struct span path)
{
    bool is_new = span_eq(path, SPAN_LIT("/new"));

    if (!gw->conf->enable_discovery || (!is_new && !discovery_is_token(path))) {
        return false;
    }
    if (request->method != HTTP_GET) {
        answer_not_allowed(gw, request, "GET", false);
        return true;
    }
    if (is_new && gw->conf->advertise_client_urls.count == 0) {
        answer_text(gw, request, 500, "no URL to name: this server needs -advertise-client-urls\n");
        return true;
    }
    unsigned size = discovery_size_of(request->query);
    if (!is_new) {
        serve_token(gw, request, path);
    } else if (size == 0) {
        answer_text(gw, request, 400, "bad size: ask for 1 to 9 members, as in /new?size=3\n");
    } else {
        make_registry(gw, request, size);
    }
    return true;
}

void discovery_on_outcome(struct gatewayd *gw, struct call *call, const struct outcome *outcome)
{
    CLEANUP(buf_fini) struct buf url = BUF_INIT;

    if (outcome->error_code != 0) {
        call_fail(gw, call, "etcdserver: the registry could not be written");
        return;
    }
    if (call->http != NULL) {
        buf_appendf(&url, "%s/v2/keys", gw->conf->advertise_client_urls.items[0]);
        buf_append(&url, call->key.data, call->key.bytes - (sizeof size_path - 1));
        answer_plain(gw, call->http, buf_span(&url));
    }
    call_free(gw, call);
}
