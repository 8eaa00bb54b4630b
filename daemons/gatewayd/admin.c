/* admin.c: the endpoints for operators: /health, /version, /debug/vars, /config/local/log, and the word to v3 clients. */
#include "daemons/gatewayd/shell.h"

#include <fcntl.h>
#include <jansson.h>
#include <malloc.h>
#include <strings.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/ids.h"
#include "common/json.h"
#include "common/log.h"
#include "proto/propose.h"
#include "version.h"

/* A granted read index, reached by the state, is health; but of a store that does nothing while nothing is written, too. Asked
 * only now: what came while this process stood still has been read by the time that raftd's answer has. */
static void serve_health(struct gatewayd *gw, struct call *call)
{
    admin_answer_health(gw, call, subscription_is_heard(gw->subscription, HEALTH_TIMEOUT_MS));
}

/* Whether one of the pairs of a query is this one, to the letter. */
static bool has_pair(struct span query, struct span pair)
{
    while (query.bytes > 0) {
        const uint8_t *end = memchr(query.data, '&', query.bytes);
        size_t bytes = end == NULL ? query.bytes : (size_t)(end - query.data);
        if (span_eq(span_of(query.data, bytes), pair)) {
            return true;
        }
        query = span_from(query, MIN(bytes + 1, query.bytes));
    }
    return false;
}

void admin_on_health(struct gatewayd *gw, struct http_request *request)
{
    struct call *call = call_new(gw, request, CALL_HEALTH);

    /* An active alarm would fail the check, too, unless the query excludes it; the only one is the full disk. */
    bool alarm = gw->raft.no_space && !has_pair(request->query, SPAN_LIT("exclude=NOSPACE"));
    /* A member is as healthy as the weakest of its daemons. */
    if (gw->raft.leader_id == 0 || !subscription_is_up(gw->subscription) || alarm) {
        admin_answer_health(gw, call, false);
        return;
    }
    call->serve = serve_health;
    if (call_set_pending(gw, call, HEALTH_TIMEOUT_MS)) {
        reads_add_quorum(gw, call);
    }
}

void admin_answer_health(struct gatewayd *gw, struct call *call, bool healthy)
{
    struct http_request *request = call->http;

    gw->values[healthy ? COUNTER_HEALTH_SUCCESS : COUNTER_HEALTH_FAIL]++;
    if (request != NULL && healthy) {
        answer_plain(gw, request, SPAN_LIT("{\"health\":\"true\"}"));
    } else if (request != NULL) {
        answer_text(gw, request, 503, "{\"health\":\"false\"}\n");
    }
    call_free(gw, call);
}

void admin_serve_version(struct gatewayd *gw, struct call *call)
{
    const char *cluster = gw->view.meta.cluster_version;

    buf_appendf(&gw->body, "{\"etcdserver\":\"%s\",\"etcdcluster\":\"%s\"}", ETCD_VERSION,
            cluster[0] == '\0' ? "not_decided" : cluster);
    answer_json(gw, call->http, 200, false, buf_span(&gw->body));
    call_free(gw, call);
}

static void append_cmdline(struct buf *out)
{
    char text[65536];
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd < 0 ? -1 : read(fd, text, sizeof text);

    if (fd >= 0) {
        (void)close(fd);
    }
    buf_append_byte(out, '[');
    for (ssize_t at = 0; at < bytes;) {
        size_t item_bytes = strnlen(text + at, (size_t)(bytes - at));
        if (at > 0) {
            buf_append_byte(out, ',');
        }
        json_append_string(out, span_of(text + at, item_bytes));
        at += (ssize_t)item_bytes + 1;
    }
    buf_append_byte(out, ']');
}

static void append_progress(struct gatewayd *gw, struct buf *out)
{
    static const char *const states[] = { "StateProbe", "StateReplicate", "StateSnapshot" };
    const struct raft_view *raft = &gw->raft;
    struct codec_scratch scratch = { 0 };
    struct follower_state follower;
    char id[IDS_TEXT_BYTES];

    if (raft->role != RAFT_STATE_LEADER || !raft->up) {
        return;
    }
    buf_appendf(out,
            "\"%s\":{\"match\":%" PRIu64 ",\"next\":%" PRIu64 ",\"state\":\"StateReplicate\"}",
            ids_text(raft->member_id, id), raft->commit_index, raft->commit_index + 1);
    for (size_t at = 0; ring_next_follower(gw, &at, &scratch, &follower);) {
        buf_appendf(out, ",\"%s\":{\"match\":%" PRIu64 ",\"next\":%" PRIu64 ",\"state\":\"%s\"}",
                ids_text(follower.id, id), follower.match_index, follower.next_index,
                states[MIN(follower.progress, (uint64_t)2)]);
    }
    codec_scratch_fini(&scratch);
}

void admin_on_debug_vars(struct gatewayd *gw, struct http_request *request)
{
    const struct raft_view *raft = &gw->raft;
    struct mallinfo2 memory = mallinfo2();
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    char id[IDS_TEXT_BYTES];
    struct rlimit files;

    (void)getrlimit(RLIMIT_NOFILE, &files);
    buf_append_str(&out, "{\n\"cmdline\": ");
    append_cmdline(&out);
    buf_appendf(&out, ",\n\"file_descriptor_limit\": %" PRIu64, (uint64_t)files.rlim_cur);
    buf_appendf(&out,
            ",\n\"memstats\": {\"Alloc\":%zu,\"Sys\":%zu,\"HeapAlloc\":%zu,\"HeapSys\":%zu,"
            "\"HeapIdle\":%zu,\"HeapInuse\":%zu}",
            memory.uordblks + memory.hblkhd, memory.arena + memory.hblkhd,
            memory.uordblks + memory.hblkhd, memory.arena + memory.hblkhd, memory.fordblks,
            memory.uordblks + memory.hblkhd);
    buf_appendf(&out, ",\n\"raft.status\": {\"id\":\"%s\",\"term\":%" PRIu64,
            ids_text(raft->member_id, id), raft->term);
    buf_appendf(&out, ",\"vote\":\"%s\",\"commit\":%" PRIu64, ids_text(raft->vote, id),
            raft->commit_index);
    buf_appendf(&out,
            ",\"lead\":\"%s\",\"raftState\":\"%s\",\"applied\":%" PRIu64 ",\"progress\":{",
            ids_text(raft->leader_id, id), stats_role_name(raft->role), gw->applied_index);
    append_progress(gw, &out);
    buf_append_str(&out, "},\"leadtransferee\":\"0\"}\n}\n");
    answer_begin(gw, request);
    buf_append_str(&gw->head, "Content-Type: application/json; charset=utf-8\r\n");
    http_respond_json(request, 200, buf_span(&gw->head), buf_span(&out));
}

static bool set_level(const char *name)
{
    static const struct {
        const char *name;
        enum log_level level;
    } levels[] = {
        { "CRITICAL", LOG_LEVEL_CRIT },
        { "ERROR", LOG_LEVEL_ERR },
        { "WARNING", LOG_LEVEL_WARNING },
        { "NOTICE", LOG_LEVEL_NOTICE },
        { "INFO", LOG_LEVEL_INFO },
        { "DEBUG", LOG_LEVEL_DEBUG },
        { "TRACE", LOG_LEVEL_DEBUG },
    };

    for (size_t i = 0; i < ARRAY_COUNT(levels); i++) {
        /* The reference takes the first letter alone, too. */
        bool letter =
                strncasecmp(name, levels[i].name, 1) == 0 && name[0] != '\0' && name[1] == '\0';
        if (letter || strcasecmp(name, levels[i].name) == 0) {
            log_set_level(levels[i].level);
            return true;
        }
    }
    return false;
}

void admin_on_log_level(struct gatewayd *gw, struct http_request *request)
{
    json_error_t problem;
    const char *level = "";
    const char *key;
    json_t *value;

    json_t *root = json_loadb((const char *)request->body.data, request->body.bytes,
            JSON_DISABLE_EOF_CHECK, &problem);
    if (root == NULL || !json_is_object(root)) {
        answer_message(gw, request, 400, false, "Invalid json body");
        json_decref(root);
        return;
    }
    json_object_foreach(root, key, value)
    {
        if (strcasecmp(key, "level") == 0) {
            level = json_is_string(value) ? json_string_value(value) : NULL;
        }
    }
    if (level == NULL) {
        answer_message(gw, request, 400, false, "Invalid json body");
    } else if (!set_level(level)) {
        CLEANUP(buf_fini) struct buf text = BUF_INIT;
        buf_appendf(&text, "Invalid log level %s", level);
        answer_message(gw, request, 400, false, (const char *)text.data);
    } else {
        log_notice("gatewayd.log.level", "level=%s", level);
        answer_no_content(gw, request, false);
    }
    json_decref(root);
}

/* In the shape in which v3's JSON gateway reports an unimplemented call. */
void admin_on_v3(struct gatewayd *gw, struct http_request *request)
{
#define V3_TEXT "the etcd v2 API is served here (/v2/keys); with etcdctl set ETCDCTL_API=2"
    answer_json(gw, request, 501, false,
            SPAN_LIT("{\"error\":\"" V3_TEXT "\",\"message\":\"" V3_TEXT "\",\"code\":12}\n"));
}
