/* members.c: /v2/members and /v2/machines: the list from the state, and changes checked here by a state that
 * is no older than the request, then handed to raftd. The order of checks and all texts are part of the contract. */
#include "daemons/gatewayd/shell.h"

#include <errno.h>
#include <jansson.h>
#include <strings.h>

#include "common/clock.h"
#include "common/ids.h"
#include "common/json.h"
#include "common/url.h"
#include "proto/op.h"
#include "proto/outcome.h"

static void append_urls(struct buf *out, const char *name, const struct span_list *urls)
{
    buf_appendf(out, ",\"%s\":[", name);
    for (size_t i = 0; i < urls->count; i++) {
        if (i > 0) {
            buf_append_byte(out, ',');
        }
        json_append_string(out, urls->items[i]);
    }
    buf_append_byte(out, ']');
}

void members_append(struct buf *out, struct span encoded_member, struct codec_scratch *scratch)
{
    struct member member;
    char id[IDS_TEXT_BYTES];

    if (member_decode(encoded_member, &member, scratch, NULL) < 0) {
        return;
    }
    buf_appendf(out, "{\"id\":\"%s\",\"name\":", ids_text(member.id, id));
    json_append_string(out, member.name);
    append_urls(out, "peerURLs", &member.peer_urls);
    append_urls(out, "clientURLs", &member.client_urls);
    buf_append_byte(out, '}');
}

/* Walks the members with what most callers need. */
struct walk {
    struct gatewayd *gw;
    struct codec_scratch scratch;
    uint64_t wanted_id;
    bool found;
    bool removed;
    size_t count;
    json_t *urls; /* to be compared with others' */
    bool url_taken;
};

static bool append_listed(void *user, uint64_t id, struct span encoded)
{
    struct walk *walk = user;

    (void)id;
    if (walk->count++ > 0) {
        buf_append_byte(&walk->gw->body, ',');
    }
    members_append(&walk->gw->body, encoded, &walk->scratch);
    return true;
}

static bool append_wanted(void *user, uint64_t id, struct span encoded)
{
    struct walk *walk = user;

    if (id != walk->wanted_id) {
        return true;
    }
    members_append(&walk->gw->body, encoded, &walk->scratch);
    walk->found = true;
    return false;
}

static void serve_list(struct gatewayd *gw, struct call *call)
{
    struct walk walk = { .gw = gw };

    buf_append_str(&gw->body, "{\"members\":[");
    state_read_members(gw->view.read, false, append_listed, &walk);
    buf_append_str(&gw->body, "]}\n");
    codec_scratch_fini(&walk.scratch);
    answer_json(gw, call->http, 200, true, buf_span(&gw->body));
    call_free(gw, call);
}

static void serve_leader(struct gatewayd *gw, struct call *call)
{
    struct walk walk = { .gw = gw, .wanted_id = gw->raft.leader_id };

    if (gw->raft.leader_id != 0) {
        state_read_members(gw->view.read, false, append_wanted, &walk);
    }
    codec_scratch_fini(&walk.scratch);
    if (walk.found) {
        buf_append_byte(&gw->body, '\n');
        answer_json(gw, call->http, 200, true, buf_span(&gw->body));
    } else {
        answer_message(gw, call->http, 503, true, "During election");
    }
    call_free(gw, call);
}

static int compare_texts(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;
    return strcmp(*left, *right);
}

/* The client URLs of all started members, sorted, in one line. */
static bool gather_client_urls(void *user, uint64_t id, struct span encoded)
{
    struct walk *walk = user;
    struct member member;

    (void)id;
    if (member_decode(encoded, &member, &walk->scratch, NULL) == 0) {
        for (size_t i = 0; i < member.client_urls.count; i++) {
            struct span url = member.client_urls.items[i];
            (void)json_array_append_new(
                    walk->urls, json_stringn_nocheck((const char *)url.data, url.bytes));
        }
    }
    return true;
}

static const char **sorted_texts(json_t *array, size_t *ret_count)
{
    size_t count = json_array_size(array);
    const char **texts = xcalloc(count, sizeof texts[0]);

    for (size_t i = 0; i < count; i++) {
        texts[i] = json_string_value(json_array_get(array, i));
    }
    qsort((void *)texts, count, sizeof texts[0], compare_texts);
    *ret_count = count;
    return texts;
}

void members_serve_machines(struct gatewayd *gw, struct call *call)
{
    struct walk walk = { .gw = gw, .urls = json_array() };
    size_t count;

    state_read_members(gw->view.read, false, gather_client_urls, &walk);
    const char **texts = sorted_texts(walk.urls, &count);
    for (size_t i = 0; i < count; i++) {
        buf_appendf(&gw->body, "%s%s", i == 0 ? "" : ", ", texts[i]);
    }
    answer_plain(gw, call->http, buf_span(&gw->body));
    free((void *)texts);
    json_decref(walk.urls);
    codec_scratch_fini(&walk.scratch);
    call_free(gw, call);
}

/* What a change asks for. */
struct change {
    enum op_kind kind;
    uint64_t id;
    json_t *urls; /* sorted array of strings */
};

/* One to sixteen hex digits. */
static bool parse_id(struct span text, uint64_t *ret_id)
{
    char digits[20] = "";
    char *end;

    if (text.bytes == 0 || text.bytes > 16 ||
            strspn((const char *)text.data, "0123456789abcdefABCDEF") == 0) {
        return false;
    }
    memcpy(digits, text.data, text.bytes);
    if (strspn(digits, "0123456789abcdefABCDEF") != text.bytes) {
        return false;
    }
    *ret_id = strtoull(digits, &end, 16);
    return true;
}

static bool check_content_type(struct gatewayd *gw, struct http_request *request)
{
    struct span type = http_header(request, "content-type");
    const uint8_t *semicolon = type.bytes == 0 ? NULL : memchr(type.data, ';', type.bytes);
    CLEANUP(buf_fini) struct buf text = BUF_INIT;

    if (semicolon != NULL) {
        /* With parameters, case and space around do not count. */
        type.bytes = (size_t)(semicolon - type.data);
        while (type.bytes > 0 && type.data[type.bytes - 1] == ' ') {
            type.bytes--;
        }
    }
    for (size_t i = 0; i < type.bytes; i++) {
        uint8_t c = type.data[i];
        buf_append_byte(&text, semicolon != NULL && c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    if (span_eq(buf_span(&text), SPAN_LIT("application/json"))) {
        return true;
    }
    CLEANUP(buf_fini) struct buf message = BUF_INIT;
    buf_append_str(&message, "Bad Content-Type ");
    buf_append_span(&message, buf_span(&text));
    buf_append(&message, ", accept application/json", sizeof ", accept application/json");
    frontend_leave_body(request);
    answer_message(gw, request, 415, true, (const char *)message.data);
    return false;
}

/* The value of the last member whose name is `name` in any case. */
static json_t *find_any_case(json_t *object, const char *name)
{
    json_t *found = NULL;
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        if (strcasecmp(key, name) == 0) {
            found = value;
        }
    }
    return found;
}

/* As the flags say it, but for the schemes: the API names all four. */
static const char *url_refusal(const char *url, struct err *err)
{
    if (strncmp(err->text, "URL scheme", sizeof "URL scheme" - 1) == 0) {
        (void)err_set(err, -EINVAL, "URL scheme must be http, https, unix, or unixs: %s", url);
    }
    return err->text;
}

static const char *check_urls(json_t *urls, struct err *err)
{
    size_t count = json_array_size(urls);

    if (count == 0) {
        return "no valid URLs given";
    }
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(urls, i));
        struct url url;
        if (text == NULL) {
            return "json: cannot unmarshal into a list of strings";
        }
        if (url_parse(text, URL_KIND_TCP_OR_UNIX, &url, err) < 0) {
            return url_refusal(text, err);
        }
    }
    return NULL;
}

/* The peer URLs of the body, sorted; NULL: it was answered. */
static json_t *read_urls(struct gatewayd *gw, struct http_request *request)
{
    struct err err = { 0 };
    json_error_t problem;

    if (request->body_too_large) {
        answer_message(gw, request, 400, true, "http: request body too large");
        return NULL;
    }
    json_t *root = json_loadb(
            (const char *)request->body.data, request->body.bytes, JSON_DECODE_ANY, &problem);
    if (root == NULL) {
        bool cut = json_error_code(&problem) == json_error_premature_end_of_input ||
                   request->body.bytes == 0;
        answer_message(gw, request, 400, true, cut ? "unexpected end of JSON input" : problem.text);
        return NULL;
    }
    json_t *urls = json_is_object(root) ? find_any_case(root, "peerURLs") : NULL;
    const char *refusal = check_urls(urls, &err);
    json_t *sorted = NULL;
    if (refusal != NULL) {
        answer_message(gw, request, 400, true, refusal);
    } else {
        size_t count;
        const char **texts = sorted_texts(urls, &count);
        sorted = json_array();
        for (size_t i = 0; i < count; i++) {
            (void)json_array_append_new(sorted, json_string(texts[i]));
        }
        free((void *)texts);
    }
    json_decref(root);
    return sorted;
}

static bool compare_urls(struct walk *walk, const struct span_list *urls)
{
    for (size_t i = 0; i < urls->count; i++) {
        for (size_t j = 0; j < json_array_size(walk->urls); j++) {
            const char *url = json_string_value(json_array_get(walk->urls, j));
            if (span_eq(urls->items[i], span_str(url))) {
                return true;
            }
        }
    }
    return false;
}

static bool look_at_member(void *user, uint64_t id, struct span encoded)
{
    struct walk *walk = user;
    struct member member;

    if (member_decode(encoded, &member, &walk->scratch, NULL) < 0) {
        return true;
    }
    if (id == walk->wanted_id) {
        walk->found = true;
        walk->removed = member.removed;
    } else if (walk->urls != NULL && !member.removed && compare_urls(walk, &member.peer_urls)) {
        walk->url_taken = true;
    }
    return true;
}

/* The peer URLs as the ids and the op want them; they stay the list's. */
struct url_list {
    const char *texts[OP_URLS_MAX];
    struct span spans[OP_URLS_MAX];
    size_t count;
};

static void list_urls(const json_t *urls, struct url_list *ret_list)
{
    ret_list->count = MIN(json_array_size(urls), (size_t)OP_URLS_MAX);
    for (size_t i = 0; i < ret_list->count; i++) {
        ret_list->texts[i] = json_string_value(json_array_get(urls, i));
        ret_list->spans[i] = span_str(ret_list->texts[i]);
    }
}

static void send_change(
        struct gatewayd *gw, struct http_request *request, const struct change *change)
{
    struct op op = { .kind = change->kind, .member_id = change->id };
    struct url_list urls;

    list_urls(change->urls, &urls);
    if (change->kind == OP_MEMBER_ADD) {
        op.learner = true; /* until it has caught up */
        SET(&op, op_tag_learner);
    }
    if (change->kind != OP_MEMBER_REMOVE) {
        op.peer_urls = (struct span_list){ .items = urls.spans, .count = urls.count };
        SET(&op, op_tag_peer_urls);
    }
    SET(&op, op_tag_member_id);
    struct call *call = call_new(gw, request, CALL_MEMBER);
    ring_change_member(gw, call, &op);
}

static void refuse(struct gatewayd *gw, struct http_request *request, unsigned status,
        const char *format, uint64_t id)
{
    char id_text[IDS_TEXT_BYTES];
    char text[128];

    /* The formats are the three below; each takes the id. */
    (void)snprintf(text, sizeof text, "%s%s", format, ids_text(id, id_text));
    answer_message(gw, request, status, true, text);
}

static void look_at_members(struct gatewayd *gw, const struct change *change, struct walk *ret_walk)
{
    *ret_walk = (struct walk){ .gw = gw, .wanted_id = change->id, .urls = change->urls };
    state_read_members(gw->view.read, true, look_at_member, ret_walk);
    codec_scratch_fini(&ret_walk->scratch);
}

/* An id comes from the URLs and the second. One that was used before, by the same URLs added and removed within it, is never
 * used again: then the next second's. */
static void choose_id(struct gatewayd *gw, struct change *change, struct walk *ret_walk)
{
    uint64_t second = clock_wall_ns() / 1000000000;
    struct url_list urls;

    list_urls(change->urls, &urls);
    do {
        change->id = ids_member_added(urls.texts, urls.count, second++);
        look_at_members(gw, change, ret_walk);
    } while (ret_walk->found);
}

/* Is there such a member, is a URL taken? */
static void check_and_send(struct gatewayd *gw, struct http_request *request, struct change *change)
{
    struct walk walk;

    if (change->kind == OP_MEMBER_ADD) {
        choose_id(gw, change, &walk);
    } else {
        look_at_members(gw, change, &walk);
    }
    if (change->kind == OP_MEMBER_REMOVE && walk.removed) {
        refuse(gw, request, 410, "Member permanently removed: ", change->id);
    } else if (change->kind == OP_MEMBER_UPDATE && walk.removed) {
        answer_message(gw, request, 500, true, "Internal Server Error");
    } else if (change->kind != OP_MEMBER_ADD && !walk.found) {
        refuse(gw, request, 404, "No such member: ", change->id);
    } else if (walk.url_taken) {
        answer_message(gw, request, 409, true, "membership: peerURL exists");
    } else {
        send_change(gw, request, change);
    }
}

/* False: the body is no good, and was answered. */
static bool read_change(struct gatewayd *gw, struct http_request *request, struct change *change)
{
    if (change->kind != OP_MEMBER_REMOVE) {
        change->urls = check_content_type(gw, request) ? read_urls(gw, request) : NULL;
    }
    return change->kind == OP_MEMBER_REMOVE || change->urls != NULL;
}

static void serve_change(struct gatewayd *gw, struct call *call)
{
    struct http_request *request = call->http;
    struct change change = { .id = call->member_id, .kind = (enum op_kind)call->op_kind };

    call_free(gw, call);
    request->user = NULL;
    if (read_change(gw, request, &change)) {
        check_and_send(gw, request, &change);
    }
    json_decref(change.urls);
}

/* A bad body is answered at once. All else is judged by a state that has every change that was acknowledged before, by whichever
 * member: a client that adds here and removes there must not hear that there is no such member. */
static void queue_change(
        struct gatewayd *gw, struct http_request *request, enum op_kind kind, uint64_t id)
{
    struct change change = { .id = id, .kind = kind };

    if (!read_change(gw, request, &change)) {
        return;
    }
    json_decref(change.urls);
    struct call *call = call_new(gw, request, CALL_READ);
    call->serve = serve_change;
    call->op_kind = kind;
    call->member_id = id;
    reads_add_quorum(gw, call);
}

static void queue_read(struct gatewayd *gw, struct http_request *request, call_serve_fn serve)
{
    struct call *call = call_new(gw, request, CALL_READ);
    call->serve = serve;
    reads_add(gw, call);
}

void members_on_request(struct gatewayd *gw, struct http_request *request, struct span path)
{
    struct span name = span_from(path, MIN(SPAN_LIT("/v2/members/").bytes, path.bytes));
    uint64_t id;

    if (request->method == HTTP_GET || request->method == HTTP_DELETE) {
        frontend_leave_body(request);
    }
    if (request->method == HTTP_GET) {
        if (name.bytes == 0) {
            queue_read(gw, request, serve_list);
        } else if (span_eq(name, SPAN_LIT("leader"))) {
            queue_read(gw, request, serve_leader);
        } else {
            answer_message(gw, request, 404, true, "Not found");
        }
        return;
    }
    if (request->method == HTTP_POST) {
        queue_change(gw, request, OP_MEMBER_ADD, 0);
        return;
    }
    if (name.bytes == 0) {
        answer_not_allowed(gw, request, NULL, true);
        return;
    }
    if (!parse_id(name, &id)) {
        frontend_leave_body(request);
        CLEANUP(buf_fini) struct buf text = BUF_INIT;
        buf_append_str(&text, "No such member: ");
        buf_append_span(&text, name);
        buf_append_byte(&text, '\0');
        answer_message(gw, request, 404, true, (const char *)text.data);
        return;
    }
    queue_change(
            gw, request, request->method == HTTP_PUT ? OP_MEMBER_UPDATE : OP_MEMBER_REMOVE, id);
}

void members_on_result(struct gatewayd *gw, struct call *call, uint64_t status, struct span text)
{
    char message[1024];

    (void)snprintf(message, sizeof message, "%.*s", (int)MIN(text.bytes, sizeof message - 1),
            text.bytes > 0 ? (const char *)text.data : "");
    if (call->http != NULL && status == 204) {
        answer_no_content(gw, call->http, true);
    } else if (call->http != NULL) {
        answer_message(gw, call->http, status >= 400 && status < 600 ? (unsigned)status : 500, true,
                message[0] == '\0' ? "Internal Server Error" : message);
    }
    call_free(gw, call);
}

void members_on_outcome(struct gatewayd *gw, struct call *call, const struct outcome *outcome)
{
    struct codec_scratch scratch = { 0 };

    if (call->http == NULL) {
        call_free(gw, call);
        return;
    }
    if (outcome->error_code != 0) {
        answer_message(gw, call->http, 500, true, "Internal Server Error");
    } else if (call->op_kind == OP_MEMBER_ADD) {
        buf_clear(&gw->body);
        members_append(&gw->body, outcome->member, &scratch);
        buf_append_byte(&gw->body, '\n');
        answer_json(gw, call->http, 201, true, buf_span(&gw->body));
    } else {
        answer_no_content(gw, call->http, true);
    }
    codec_scratch_fini(&scratch);
    call_free(gw, call);
}
