/* request.c: a request as the handler sees it, cut out of the bytes that the parser passed. */
#include "common/http/internal.h"

enum {
    EXCESS_BYTES_MAX = 256 << 10
};

static enum http_method method_of(struct span text)
{
    static const struct {
        const char *name;
        enum http_method method;
    } methods[] = {
        { "GET", HTTP_GET },
        { "PUT", HTTP_PUT },
        { "POST", HTTP_POST },
        { "DELETE", HTTP_DELETE },
        { "HEAD", HTTP_HEAD },
        { "OPTIONS", HTTP_OPTIONS },
        { "CONNECT", HTTP_CONNECT },
    };

    for (size_t i = 0; i < ARRAY_COUNT(methods); i++) {
        if (span_eq(text, span_str(methods[i].name))) {
            return methods[i].method;
        }
    }
    return HTTP_OTHER;
}

/* The part before the first of `stops`; `*rest` becomes what follows, that byte included. */
static struct span take_until(struct span *rest, const char *stops)
{
    size_t bytes = 0;

    while (bytes < rest->bytes && strchr(stops, rest->data[bytes]) == NULL) {
        bytes++;
    }
    struct span part = span_of(rest->data, bytes);
    *rest = span_from(*rest, bytes);
    return part;
}

/* Cuts "http://user@host/path?query", "/path?query", "*" or CONNECT's "host:port". The parser has
 * checked the form. */
static void cut_target(struct http_request *request)
{
    struct span rest = request->target;

    if (rest.data[0] != '/' && rest.data[0] != '*') {
        if (request->method != HTTP_CONNECT) {
            (void)take_until(&rest, ":");
            rest = span_from(rest, MIN(rest.bytes, (size_t)3));
        }
        struct span authority = take_until(&rest, "/?");
        const uint8_t *at = memrchr(authority.data, '@', authority.bytes);
        request->host =
                at == NULL ? authority : span_from(authority, (size_t)(at + 1 - authority.data));
    }
    const uint8_t *mark = rest.bytes == 0 ? NULL : memchr(rest.data, '?', rest.bytes);
    if (mark == NULL) {
        request->path = rest;
        request->query = SPAN_NONE;
        return;
    }
    request->path = span_of(rest.data, (size_t)(mark - rest.data));
    request->query = span_of(mark + 1, rest.bytes - request->path.bytes - 1);
}

static struct span part_of(const struct http_conn *conn, struct http_part part)
{
    return span_of(conn->in.data + conn->in_start + part.offset, part.bytes);
}

void http_request_fill(struct http_conn *conn)
{
    const struct http_parser *parser = &conn->parser;
    struct http_request *request = &conn->request;

    request->conn = conn;
    request->method_text = part_of(conn, parser->method);
    request->method = method_of(request->method_text);
    request->target = part_of(conn, parser->target);
    request->host = part_of(conn, parser->host);
    request->body = part_of(conn, parser->body);
    request->body_too_large = parser->is_body_too_large;
    request->minor = parser->minor;
    /* Go too reads no further than this behind what it took of a body, and then has to close. */
    uint64_t kept_bytes_max = conn->server->config.body_bytes_max + EXCESS_BYTES_MAX;
    request->keep_alive = parser->is_keep_alive && parser->body_seen <= kept_bytes_max;
    request->user = NULL;
    request->user_mark = 0;
    cut_target(request);
}

struct span http_header(const struct http_request *request, const char *name)
{
    const struct http_conn *conn = request->conn;

    if (conn->parser.headers.bytes == 0) {
        return SPAN_NONE;
    }
    return http_headers_find(part_of(conn, conn->parser.headers), span_str(name));
}
