/* auth.c: /v2/auth as it answers while nobody has enabled it. Users and roles are not kept yet: reads show what an untouched
 * cluster has, and changes are refused with a message. */
#include "daemons/gatewayd/shell.h"

#define ROOT_ROLE                                                                                  \
    "{\"role\":\"root\",\"permissions\":{\"kv\":{\"read\":[\"/*\"],\"write\":[\"/*\"]}}}"

static void not_kept(struct gatewayd *gw, struct http_request *request)
{
    answer_message(
            gw, request, 501, true, "auth: users and roles are not supported by this release");
}

static void on_enable(struct gatewayd *gw, struct http_request *request)
{
    if (request->method == HTTP_GET) {
        answer_json(gw, request, 200, true, SPAN_LIT("{\"enabled\":false}\n"));
    } else if (request->method == HTTP_PUT) {
        answer_message(gw, request, 409, true, "auth: No root user available, please create one");
    } else {
        answer_message(gw, request, 409, true, "auth: already disabled");
    }
}

static void missing(struct gatewayd *gw, struct http_request *request, const char *before,
        struct span name, const char *after)
{
    CLEANUP(buf_fini) struct buf text = BUF_INIT;

    buf_append_str(&text, before);
    buf_append_span(&text, name);
    buf_append_str(&text, after);
    buf_append_byte(&text, '\0');
    answer_message(gw, request, 404, true, (const char *)text.data);
}

static void on_user(struct gatewayd *gw, struct http_request *request, struct span name)
{
    if (request->method == HTTP_GET) {
        missing(gw, request, "auth: User ", name, " does not exist.");
    } else if (request->method == HTTP_DELETE) {
        missing(gw, request, "auth: User ", name, " does not exist");
    } else {
        not_kept(gw, request);
    }
}

static void on_role(struct gatewayd *gw, struct http_request *request, struct span name)
{
    bool is_root = span_eq(name, SPAN_LIT("root"));

    if (is_root && request->method == HTTP_GET) {
        answer_json(gw, request, 200, true, SPAN_LIT(ROOT_ROLE "\n"));
    } else if (is_root) {
        answer_message(gw, request, 403, true, "auth: Cannot modify role root: is root role.");
    } else if (request->method == HTTP_GET) {
        missing(gw, request, "auth: Role ", name, " does not exist.");
    } else if (request->method == HTTP_DELETE) {
        missing(gw, request, "auth: Role ", name, " doesn't exist.");
    } else {
        not_kept(gw, request);
    }
}

void auth_on_request(
        struct gatewayd *gw, struct http_request *request, enum route route, struct span path)
{
    /* "/v2/auth/users/NAME": both collections' names are five letters. */
    struct span name = span_from(path, MIN(sizeof "/v2/auth/users/" - 1, path.bytes));

    if (route == ROUTE_AUTH_ENABLE) {
        on_enable(gw, request);
        return;
    }
    if (name.bytes > 0 && name.data[name.bytes - 1] == '/') {
        name.bytes--;
    }
    if (name.bytes > 0 && memchr(name.data, '/', name.bytes) != NULL) {
        answer_message(gw, request, 400, false, "Invalid path");
    } else if (name.bytes == 0 && route == ROUTE_AUTH_USERS) {
        answer_json(gw, request, 200, true, SPAN_LIT("{\"users\":null}\n"));
    } else if (name.bytes == 0) {
        answer_json(gw, request, 200, true, SPAN_LIT("{\"roles\":[" ROOT_ROLE "]}\n"));
    } else if (route == ROUTE_AUTH_USERS) {
        on_user(gw, request, name);
    } else {
        on_role(gw, request, name);
    }
}
