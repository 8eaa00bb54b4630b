/* frontend.c: takes a request from its bytes to what serves it: host check, path, redirect, route, method, form. */
#include "daemons/gatewayd/shell.h"

#include <errno.h>

#include "daemons/gatewayd/discovery.h"
#include "daemons/gatewayd/v2/keys.h"
#include "daemons/gatewayd/v2/path.h"
#include "proto/op.h"

/* "host:port" or "[::1]:port" without the port, as the reference strips it. */
static struct span host_without_port(struct span host)
{
    const uint8_t *colon = host.bytes == 0 ? NULL : memrchr(host.data, ':', host.bytes);
    if (colon == NULL) {
        return host;
    }
    size_t bytes = (size_t)(colon - host.data);
    if (bytes > 1 && host.data[0] == '[' && host.data[bytes - 1] == ']') {
        return span_of(host.data + 1, bytes - 2);
    }
    /* A second colon without brackets is no host and port. */
    return memchr(host.data, ':', bytes) != NULL ? host : span_of(host.data, bytes);
}

static bool host_is_allowed(const struct gatewayd *gw, struct span host)
{
    const struct conf_list *allowed = &gw->conf->host_whitelist;

    for (size_t i = 0; i < allowed->count; i++) {
        struct span item = span_str(allowed->items[i]);
        if (span_eq(item, SPAN_LIT("*")) || span_eq(item, host)) {
            return true;
        }
    }
    return allowed->count == 0;
}

static enum counters_method counted_method(const struct http_request *request, bool quorum)
{
    switch (request->method) {
    case HTTP_HEAD:
        return COUNTERS_HEAD;
    case HTTP_PUT:
        return COUNTERS_PUT;
    case HTTP_POST:
        return COUNTERS_POST;
    case HTTP_DELETE:
        return COUNTERS_DELETE;
    case HTTP_GET:
    case HTTP_OPTIONS:
    case HTTP_CONNECT:
    case HTTP_OTHER:
        break;
    }
    return quorum ? COUNTERS_QGET : COUNTERS_GET;
}

/* Who sent "Expect: 100-continue" and a body that nobody reads cannot know whether it was taken: the reference then closes
 * the connection after its answer. */
void frontend_leave_body(struct http_request *request)
{
    bool body = request->body.bytes > 0 || request->body_too_large ||
                http_header(request, "transfer-encoding").bytes > 0;

    if (body && request->minor > 0 && http_header(request, "expect").bytes > 0) {
        request->keep_alive = false;
    }
}

static void leave_body_unless_form(struct http_request *request, struct span content_type)
{
    bool is_form;

    (void)form_check_media_type(content_type, &is_form);
    if (!is_form) {
        frontend_leave_body(request);
    }
}

static struct call *new_keys_call(struct gatewayd *gw, struct http_request *request,
        const struct form *form, enum keys_kind kind)
{
    struct call *call = call_new(gw, request, kind == KEYS_WRITE ? CALL_WRITE : CALL_READ);
    call->counted = kind != KEYS_WATCH;
    call->method = counted_method(request, form->quorum);
    if (call->counted) {
        gw->values[COUNTER_HTTP_RECEIVED + (unsigned)call->method]++;
    }
    call->recursive = form->recursive;
    call->stream = form->stream;
    call->no_value = form->no_value_on_success;
    call->wait_index = form->wait_index;
    return call;
}

static void on_keys(struct gatewayd *gw, struct http_request *request, struct span path)
{
    struct form_source source = { .method = request->method,
        .query = request->query,
        .body = request->body,
        .body_too_large = request->body_too_large };
    struct api_error error;
    struct form form;

    if (request->method == HTTP_PUT || request->method == HTTP_POST) {
        source.content_type = http_header(request, "content-type");
        leave_body_unless_form(request, source.content_type);
    } else {
        frontend_leave_body(request);
    }
    if (form_parse(&gw->arena, &source, &form, &error) < 0) {
        answer_keys_error(gw, request, &error);
        arena_rewind(&gw->arena, gw->request_mark);
        return;
    }
    enum keys_kind kind = keys_dispatch(request->method, &form);
    if (kind == KEYS_READ && gw->conf->linearizable_reads) {
        kind = KEYS_QUORUM_READ;
    }
    struct call *call = new_keys_call(gw, request, &form, kind);
    call->key = path_key(path);
    struct op op;
    switch (kind) {
    case KEYS_READ:
        call->serve = reads_serve_key;
        reads_add(gw, call);
        break;
    case KEYS_QUORUM_READ:
        call->serve = reads_serve_key;
        reads_add_quorum(gw, call);
        break;
    case KEYS_WATCH:
        call->serve = reads_serve_watch;
        reads_add(gw, call);
        break;
    case KEYS_WRITE:
        keys_make_op(request->method, &form, call->key, &op);
        call->key = SPAN_NONE; /* the op has it */
        ring_add_op(gw, call, &op);
        arena_rewind(&gw->arena, gw->request_mark); /* a turn may bring hundreds of large values */
        break;
    }
}

static void queue_read(struct gatewayd *gw, struct http_request *request, call_serve_fn serve)
{
    struct call *call = call_new(gw, request, CALL_READ);
    call->serve = serve;
    reads_add(gw, call);
}

static void dispatch(
        struct gatewayd *gw, struct http_request *request, enum route route, struct span path)
{
    switch (route) {
    case ROUTE_KEYS:
        on_keys(gw, request, path);
        break;
    case ROUTE_MEMBERS:
        members_on_request(gw, request, path);
        break;
    case ROUTE_MACHINES:
        queue_read(gw, request, members_serve_machines);
        break;
    case ROUTE_STATS_STORE:
        queue_read(gw, request, stats_serve_store);
        break;
    case ROUTE_STATS_SELF:
        queue_read(gw, request, stats_serve_self);
        break;
    case ROUTE_STATS_LEADER:
        stats_on_leader(gw, request);
        break;
    case ROUTE_AUTH_ROLES:
    case ROUTE_AUTH_USERS:
    case ROUTE_AUTH_ENABLE:
        auth_on_request(gw, request, route, path);
        break;
    case ROUTE_VERSION:
        queue_read(gw, request, admin_serve_version);
        break;
    case ROUTE_HEALTH:
        admin_on_health(gw, request);
        break;
    case ROUTE_DEBUG_VARS:
        admin_on_debug_vars(gw, request);
        break;
    case ROUTE_METRICS:
        queue_read(gw, request, metrics_serve);
        break;
    case ROUTE_LOG_LEVEL:
        admin_on_log_level(gw, request);
        break;
    case ROUTE_V3:
        admin_on_v3(gw, request);
        break;
    case ROUTE_NONE:
    case ROUTE_COUNT:
        if (!discovery_on_request(gw, request, path)) {
            answer_text(gw, request, 404, "404 page not found\n");
        }
        break;
    }
}

/* The answers that are the same for every route; false: it was answered. */
static bool pass_gate(struct gatewayd *gw, struct http_request *request)
{
    struct span host = host_without_port(request->host);

    if (!host_is_allowed(gw, host)) {
        frontend_leave_body(request);
        answer_misdirected(gw, request, host);
        return false;
    }
    if (request->method == HTTP_OPTIONS) {
        frontend_leave_body(request);
        answer_begin(gw, request);
        http_respond(request, 200, buf_span(&gw->head), SPAN_NONE);
        return false;
    }
    if (span_eq(request->target, SPAN_LIT("*"))) {
        answer_begin(gw, request);
        buf_append_str(
                &gw->head, "Connection: close\r\n"); /* set by the handler there: before Date */
        http_respond_close(request, 400, buf_span(&gw->head), SPAN_NONE);
        return false;
    }
    return true;
}

static void on_request(void *user, struct http_request *request)
{
    struct gatewayd *gw = user;
    const char *allow;
    struct span path;
    struct span bad;

    request->user = NULL;
    gw->request_mark = arena_mark(&gw->arena);
    answer_note_origin(gw, request);
    if (path_decode(&gw->arena, request->path, false, &path, &bad) < 0) {
        http_refuse(request, "400 Bad Request");
        return;
    }
    if (!pass_gate(gw, request)) {
        return;
    }
    if (request->method != HTTP_CONNECT && !path_is_clean(path)) {
        frontend_leave_body(request);
        answer_redirect(gw, request, path_clean(&gw->arena, path));
        return;
    }
    enum route route = route_find(path, request->method, &allow);
    bool reads_body = route == ROUTE_KEYS || route == ROUTE_MEMBERS || route == ROUTE_LOG_LEVEL;
    if (allow != NULL || !reads_body) {
        frontend_leave_body(request);
    }
    if (allow != NULL) {
        answer_not_allowed(gw, request, allow, false);
        return;
    }
    dispatch(gw, request, route, path);
}

static void on_cancel(void *user, struct http_request *request)
{
    struct gatewayd *gw = user;
    enum holder_kind *holder = request->user;

    if (holder == NULL) {
        return;
    }
    if (*holder == HOLDER_WATCH) {
        watches_on_cancel(gw, CONTAINER_OF(holder, struct watch, holder));
        return;
    }
    /* What was sent cannot be called back; what waits to be read is not worth reading. */
    struct call *call = CONTAINER_OF(holder, struct call, holder);
    call->http = NULL;
    if (call->kind == CALL_READ) {
        call_free(gw, call);
    }
}

static bool awaits(void *user)
{
    const struct gatewayd *gw = user;
    return calls_are_pending(gw->calls);
}

const struct http_events frontend_events = {
    .on_request = on_request,
    .on_cancel = on_cancel,
    .awaits = awaits,
};
