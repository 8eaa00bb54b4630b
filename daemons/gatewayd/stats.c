/* stats.c: /v2/stats/{store,self,leader}. */
#include "daemons/gatewayd/shell.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/json.h"
#include "proto/outcome.h"
#include "proto/propose.h"

static const char *const store_names[] = {
    "getsSuccess",
    "getsFail",
    "setsSuccess",
    "setsFail",
    "deleteSuccess",
    "deleteFail",
    "updateSuccess",
    "updateFail",
    "createSuccess",
    "createFail",
    "compareAndSwapSuccess",
    "compareAndSwapFail",
    "compareAndDeleteSuccess",
    "compareAndDeleteFail",
    "expireCount",
    "watchers",
};

void stats_serve_store(struct gatewayd *gw, struct call *call)
{
    uint64_t values[COUNTER_COUNT];

    counters_sum(".", state_read_counters(gw->view.read), values);
    for (size_t i = 0; i < ARRAY_COUNT(store_names); i++) {
        buf_appendf(&gw->body, "%s\"%s\":%" PRIu64, i == 0 ? "{" : ",", store_names[i], values[i]);
    }
    buf_append_byte(&gw->body, '}');
    answer_json(gw, call->http, 200, false, buf_span(&gw->body));
    call_free(gw, call);
}

/* RFC 3339 with the server's own offset, nine digits of fraction with trailing zeros dropped. */
static void append_local_time(struct buf *out, uint64_t wall_ns)
{
    time_t seconds = (time_t)(wall_ns / 1000000000);
    unsigned fraction = (unsigned)(wall_ns % 1000000000);
    char text[64];
    struct tm local;

    (void)localtime_r(&seconds, &local);
    (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &local);
    buf_append_str(out, text);
    if (fraction > 0) {
        buf_appendf(out, ".%09u", fraction);
        while (out->data[out->bytes - 1] == '0') {
            out->bytes--;
        }
    }
    long offset = local.tm_gmtoff;
    if (offset == 0) {
        buf_append_byte(out, 'Z');
    } else {
        long minutes = labs(offset) / 60;
        buf_appendf(out, "%c%02ld:%02ld", offset < 0 ? '-' : '+', minutes / 60, minutes % 60);
    }
}

/* 5m30.616961825s, 145.2ms, 1h0m3s: what is left out is zero, but for what stands between two that are shown. */
static void append_duration(struct buf *out, uint64_t ns)
{
    uint64_t seconds = ns / 1000000000;

    if (ns == 0) {
        buf_append_str(out, "0s");
        return;
    }
    if (seconds == 0) {
        bool micro = ns < 1000000;
        bool nano = ns < 1000;
        double value = (double)ns / (nano ? 1.0 : micro ? 1e3 : 1e6);
        json_append_double(out, value);
        buf_append_str(out, nano ? "ns" : micro ? "\u00b5s" : "ms");
        return;
    }
    if (seconds >= 3600) {
        buf_appendf(out, "%" PRIu64 "h", seconds / 3600);
    }
    if (seconds >= 60) {
        buf_appendf(out, "%" PRIu64 "m", seconds / 60 % 60);
    }
    buf_append_u64_decimal(out, seconds % 60);
    if (ns % 1000000000 > 0) {
        buf_appendf(out, ".%09u", (unsigned)(ns % 1000000000));
        while (out->data[out->bytes - 1] == '0') {
            out->bytes--;
        }
    }
    buf_append_byte(out, 's');
}

const char *stats_role_name(uint64_t role)
{
    static const char *const names[] = {
        [RAFT_STATE_FOLLOWER] = "StateFollower",
        [RAFT_STATE_PRE_CANDIDATE] = "StatePreCandidate",
        [RAFT_STATE_CANDIDATE] = "StateCandidate",
        [RAFT_STATE_LEADER] = "StateLeader",
    };
    return role < ARRAY_COUNT(names) ? names[role] : names[RAFT_STATE_FOLLOWER];
}

/* Left out while there is none. */
static void append_rate(struct buf *out, const char *name, uint64_t per_second_milli)
{
    if (per_second_milli > 0) {
        buf_appendf(out, ",\"%s\":", name);
        json_append_double(out, (double)per_second_milli / 1000.0);
    }
}

void stats_serve_self(struct gatewayd *gw, struct call *call)
{
    const struct raft_view *raft = &gw->raft;
    uint64_t now_ns = clock_wall_ns();
    uint64_t since_ns = raft->leader_id == 0 ? 0 : raft->leader_since_wall_ns;
    struct buf *out = &gw->body;
    char id[IDS_TEXT_BYTES];
    char leader[IDS_TEXT_BYTES] = "";

    if (raft->leader_id != 0) {
        (void)ids_text(raft->leader_id, leader);
    }
    uint64_t self_id = raft->member_id != 0 ? raft->member_id : gw->view.meta.member_id;
    buf_append_str(out, "{\"name\":");
    json_append_string(out, span_str(gw->conf->name));
    buf_appendf(out, ",\"id\":\"%s\",\"state\":\"%s\",\"startTime\":\"", ids_text(self_id, id),
            stats_role_name(raft->role));
    append_local_time(out, gw->start_wall_ns);
    buf_appendf(out, "\",\"leaderInfo\":{\"leader\":\"%s\",\"uptime\":\"", leader);
    append_duration(out, since_ns == 0 || now_ns < since_ns ? 0 : now_ns - since_ns);
    buf_append_str(out, "\",\"startTime\":\"");
    if (since_ns == 0) {
        buf_append_str(out, "0001-01-01T00:00:00Z");
    } else {
        append_local_time(out, since_ns);
    }
    buf_appendf(out, "\"},\"recvAppendRequestCnt\":%" PRIu64, raft->received_appends);
    append_rate(out, "recvPkgRate", raft->received_messages_milli);
    append_rate(out, "recvBandwidthRate", raft->received_bytes_milli);
    buf_appendf(out, ",\"sendAppendRequestCnt\":%" PRIu64, raft->sent_appends);
    append_rate(out, "sendPkgRate", raft->sent_messages_milli);
    append_rate(out, "sendBandwidthRate", raft->sent_bytes_milli);
    buf_append_byte(out, '}');
    answer_json(gw, call->http, 200, false, buf_span(out));
    call_free(gw, call);
}

static uint64_t latency(const struct follower_state *follower, size_t which)
{
    uint64_t value = 0;

    if (which < follower->latency_us.count) {
        const struct span *item = &follower->latency_us.items[which];
        for (size_t i = 0; i < item->bytes; i++) {
            value = value << 8 | item->data[i];
        }
    }
    return value;
}

static void append_follower(struct buf *out, const struct follower_state *follower)
{
    static const char *const names[] = { "current", "average", "standardDeviation", "minimum",
        "maximum" };
    char id[IDS_TEXT_BYTES];
    bool never = follower->success_count == 0;

    buf_appendf(out, "\"%s\":{\"latency\":{", ids_text(follower->id, id));
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        buf_appendf(out, "%s\"%s\":", i == 0 ? "" : ",", names[i]);
        if (never && strcmp(names[i], "minimum") == 0) {
            json_append_double(out, 9223372036854775808.0);
        } else {
            json_append_double(out, (double)latency(follower, i) / 1000.0);
        }
    }
    buf_appendf(out, "},\"counts\":{\"fail\":%" PRIu64 ",\"success\":%" PRIu64 "}}",
            follower->fail_count, follower->success_count);
}

void stats_on_leader(struct gatewayd *gw, struct http_request *request)
{
    struct codec_scratch scratch = { 0 };
    struct follower_state follower;
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    char id[IDS_TEXT_BYTES];
    size_t count = 0;

    if (!gw->raft.up || gw->raft.role != RAFT_STATE_LEADER) {
        answer_message(gw, request, 403, false, "not current leader");
        return;
    }
    buf_appendf(&out, "{\"leader\":\"%s\",\"followers\":{", ids_text(gw->raft.member_id, id));
    for (size_t at = 0; ring_next_follower(gw, &at, &scratch, &follower);) {
        if (count++ > 0) {
            buf_append_byte(&out, ',');
        }
        append_follower(&out, &follower);
    }
    buf_append_str(&out, "}}");
    codec_scratch_fini(&scratch);
    answer_json(gw, request, 200, false, buf_span(&out));
}
