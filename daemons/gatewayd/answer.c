/* answer.c: the headers and bodies that go out. Header names stand in byte order, as the reference writes them. */
#include "daemons/gatewayd/shell.h"

#include "common/ids.h"
#include "common/json.h"
#include "daemons/gatewayd/v2/path.h"

#define CORS_HEADERS "Access-Control-Allow-Headers: accept, content-type, authorization\r\n"
#define CORS_METHODS "Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE\r\n"
#define CORS_ORIGIN  "Access-Control-Allow-Origin: "
#define JSON_TYPE    "Content-Type: application/json\r\n"
#define TEXT_TYPE    "Content-Type: text/plain; charset=utf-8\r\n"
#define NO_SNIFF     "X-Content-Type-Options: nosniff\r\n"
#define CLUSTER_ID   "X-Etcd-Cluster-Id: "

static void append_cluster_id(struct buf *out, uint64_t cluster_id)
{
    char text[IDS_TEXT_BYTES];
    buf_appendf(out, CLUSTER_ID "%s\r\n", ids_text(cluster_id, text));
}

int answer_init(struct gatewayd *gw, struct err *err)
{
    const struct conf_list *origins = &gw->conf->cors;

    (void)err;
    for (size_t i = 0; i < origins->count; i++) {
        if (strcmp(origins->items[i], "*") == 0) {
            buf_append_str(&gw->cors, CORS_HEADERS CORS_METHODS CORS_ORIGIN "*\r\n");
            break;
        }
    }
    gw->cors_by_origin = gw->cors.bytes == 0 && origins->count > 0;
    answer_set_cluster_id(gw, 0);
    return 0;
}

void answer_set_cluster_id(struct gatewayd *gw, uint64_t cluster_id)
{
    gw->cluster_id = cluster_id;
    buf_clear(&gw->json_head);
    buf_append_span(&gw->json_head, buf_span(&gw->cors));
    buf_append_str(&gw->json_head, JSON_TYPE);
    buf_clear(&gw->keys_head);
    buf_append_span(&gw->keys_head, buf_span(&gw->json_head));
    append_cluster_id(&gw->keys_head, cluster_id);
    buf_append_str(&gw->keys_head, "X-Etcd-Index: ");
}

void answer_note_origin(struct gatewayd *gw, struct http_request *request)
{
    if (!gw->cors_by_origin) {
        return;
    }
    struct span origin = http_header(request, "origin");
    for (size_t i = 0; i < gw->conf->cors.count; i++) {
        if (origin.data != NULL && span_eq(origin, span_str(gw->conf->cors.items[i]))) {
            request->user_mark = (unsigned)i + 1;
            return;
        }
    }
}

static void append_cors_of_origin(
        struct gatewayd *gw, const struct http_request *request, struct buf *out)
{
    if (request->user_mark > 0) {
        buf_append_str(out, CORS_HEADERS CORS_METHODS CORS_ORIGIN);
        buf_append_str(out, gw->conf->cors.items[request->user_mark - 1]);
        buf_append_str(out, "\r\n");
    }
}

void answer_begin(struct gatewayd *gw, const struct http_request *request)
{
    buf_clear(&gw->head);
    if (gw->cors_by_origin) {
        append_cors_of_origin(gw, request, &gw->head);
    } else {
        buf_append_span(&gw->head, buf_span(&gw->cors));
    }
}

/* A prepared head, which begins with the CORS lines of every origin (or none, and then this request's come first). */
static void begin_prepared(
        struct gatewayd *gw, const struct http_request *request, const struct buf *prepared)
{
    buf_clear(&gw->head);
    if (gw->cors_by_origin) {
        append_cors_of_origin(gw, request, &gw->head);
    }
    buf_append_span(&gw->head, buf_span(prepared));
}

void answer_text(
        struct gatewayd *gw, struct http_request *request, unsigned status, const char *body)
{
    answer_begin(gw, request);
    buf_append_str(&gw->head, TEXT_TYPE NO_SNIFF);
    http_respond(request, status, buf_span(&gw->head), span_str(body));
}

void answer_not_allowed(
        struct gatewayd *gw, struct http_request *request, const char *allow, bool cluster_id)
{
    answer_begin(gw, request);
    if (allow != NULL) {
        buf_appendf(&gw->head, "Allow: %s\r\n", allow);
    }
    buf_append_str(&gw->head, TEXT_TYPE NO_SNIFF);
    if (cluster_id) {
        append_cluster_id(&gw->head, gw->cluster_id);
    }
    http_respond(request, 405, buf_span(&gw->head), SPAN_LIT("Method Not Allowed\n"));
}

void answer_json(struct gatewayd *gw, struct http_request *request, unsigned status,
        bool cluster_id, struct span body)
{
    begin_prepared(gw, request, &gw->json_head);
    if (cluster_id) {
        append_cluster_id(&gw->head, gw->cluster_id);
    }
    http_respond_json(request, status, buf_span(&gw->head), body);
}

void answer_message(struct gatewayd *gw, struct http_request *request, unsigned status,
        bool cluster_id, const char *text)
{
    CLEANUP(buf_fini) struct buf body = BUF_INIT;

    buf_append_str(&body, "{\"message\":");
    json_append_string(&body, span_str(text));
    buf_append_byte(&body, '}');
    answer_json(gw, request, status, cluster_id, buf_span(&body));
}

void answer_no_content(struct gatewayd *gw, struct http_request *request, bool cluster_id)
{
    answer_begin(gw, request);
    if (cluster_id) {
        append_cluster_id(&gw->head, gw->cluster_id);
    }
    http_respond(request, 204, buf_span(&gw->head), SPAN_NONE);
}

void answer_plain(struct gatewayd *gw, struct http_request *request, struct span body)
{
    answer_begin(gw, request);
    http_respond_late(request, 200, buf_span(&gw->head), SPAN_LIT(TEXT_TYPE), body);
}

static void append_number_line(struct buf *head, const char *name, uint64_t value)
{
    buf_append_str(head, name);
    buf_append_u64_decimal(head, value);
    buf_append(head, "\r\n", 2);
}

struct span answer_keys_head(struct gatewayd *gw, const struct http_request *request,
        uint64_t etcd_index, uint64_t raft_index, uint64_t term)
{
    begin_prepared(gw, request, &gw->keys_head);
    append_number_line(&gw->head, "", etcd_index);
    append_number_line(&gw->head, "X-Raft-Index: ", raft_index);
    append_number_line(&gw->head, "X-Raft-Term: ", term);
    return buf_span(&gw->head);
}

void answer_keys_error(
        struct gatewayd *gw, struct http_request *request, const struct api_error *error)
{
    CLEANUP(buf_fini) struct buf body = BUF_INIT;

    begin_prepared(gw, request, &gw->keys_head);
    append_number_line(&gw->head, "", error->index);
    api_error_append(&body, error);
    http_respond_json(request, api_error_status(error->code), buf_span(&gw->head), buf_span(&body));
}

void answer_redirect(struct gatewayd *gw, struct http_request *request, struct span clean)
{
    CLEANUP(buf_fini) struct buf body = BUF_INIT;

    answer_begin(gw, request);
    if (request->method == HTTP_GET || request->method == HTTP_HEAD) {
        buf_append_str(&gw->head, "Content-Type: text/html; charset=utf-8\r\n");
    }
    buf_append_str(&gw->head, "Location: ");
    path_append_location(&gw->head, clean, request->query);
    buf_append_str(&gw->head, "\r\n");
    if (request->method == HTTP_GET) {
        path_append_anchor(&body, clean, request->query);
    }
    http_respond(request, 301, buf_span(&gw->head), buf_span(&body));
}

void answer_misdirected(struct gatewayd *gw, struct http_request *request, struct span host)
{
    CLEANUP(buf_fini) struct buf body = BUF_INIT;

    buf_append_str(&body, "\nThis server does not answer to the name in the Host header: ");
    json_append_string(&body, host);
    buf_append_str(&body, "\n\nIt is not on the list of --host-whitelist, which guards against DNS "
                          "rebinding (CVE-2018-5702).\nAdd it there, or ask over TLS, where every "
                          "name is answered.\n");
    buf_clear(&gw->head);
    buf_append_str(&gw->head, TEXT_TYPE NO_SNIFF);
    http_respond(request, 421, buf_span(&gw->head), buf_span(&body));
}
