#include "daemons/raftd/applier.h"

#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/conf.h"
#include "common/log.h"
#include "common/strangers.h"
#include "proto/hello.h"
#include "proto/limits.h"
#include "proto/link.h"

enum {
    STALL_MS = 1000,
    LOAD_STALL_MS = 600 * 1000
};

/* Encoded entries that wait to be sent: bytes, and where each ends. */
struct gathered {
    struct buf bytes;
    size_t *ends;
    size_t count;
    size_t capacity;
    uint64_t last_index;
    uint64_t last_term;
};

struct applier {
    const struct applier_events *events;
    void *user;
    struct link_hub *hub;
    struct link *link; /* NULL: stored is away */
    bool going;        /* after applier_go, or when a load is done */
    bool loading;
    struct gathered gathered;
    uint64_t sent_index; /* the last entry sent; with nothing sent: where stored is */
    uint64_t sent_term;
    uint64_t applied_index;
    uint64_t moved_at_ms; /* when something was last sent with nothing under way, or was applied */
    struct codec_scratch scratch;
    struct span *items;
    size_t item_capacity;
    struct buf out;
};

static void forget_gathered(struct applier *applier)
{
    buf_clear(&applier->gathered.bytes);
    applier->gathered.count = 0;
}

static int on_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct applier *applier = user;

    if (!span_eq(peer->component, SPAN_LIT("stored"))) {
        return err_set(err, -EPROTO, "apply.ipc is for stored, not for %.*s",
                (int)peer->component.bytes, (const char *)peer->component.data);
    }
    if (applier->link != NULL) {
        return err_set(err, -EBUSY, "another stored is connected");
    }
    applier->link = link;
    applier->going = false;
    applier->loading = false;
    forget_gathered(applier);
    log_info("raftd.stored.up", "pid=%" PRIu64 " applied_index=%" PRIu64 " applied_term=%" PRIu64,
            peer->pid, peer->applied_index, peer->applied_term);
    applier->events->on_up(applier->user, peer);
    return 0;
}

static void on_down(void *user, struct link *link)
{
    struct applier *applier = user;

    if (applier->link == link) {
        applier->link = NULL;
        applier->going = false;
        applier->loading = false;
        forget_gathered(applier);
        log_info("raftd.stored.down", "applied_index=%" PRIu64, applier->applied_index);
        applier->events->on_down(applier->user);
    }
}

static void on_done(struct applier *applier, struct span body)
{
    struct apply_done done;
    struct err err = { 0 };

    if (apply_done_decode(body, &done, &applier->scratch, &err) < 0) {
        log_warning_err(&err, "raftd.stored.malformed", "action=dropped");
        return;
    }
    applier->applied_index = done.index;
    applier->moved_at_ms = clock_monotonic_ms();
    if (applier->loading || done.refused) {
        if (done.refused) {
            log_warning("raftd.stored.refused", "applied_index=%" PRIu64 " sent_index=%" PRIu64,
                    done.index, applier->sent_index);
        }
        applier->loading = false;
        applier->going = true;
        forget_gathered(applier);
        applier->sent_index = done.index;
        applier->sent_term = done.term;
        applier->events->on_resume(applier->user, done.index, done.term);
    }
    applier->events->on_done(applier->user, &done);
}

static void on_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct applier *applier = user;
    struct snapshot_made made;
    struct snapshot_bad bad;

    (void)link;
    codec_scratch_reset(&applier->scratch);
    switch (type) {
    case apply_done_type:
        on_done(applier, body);
        break;
    case snapshot_made_type:
        if (snapshot_made_decode(body, &made, &applier->scratch, NULL) == 0) {
            applier->events->on_snapshot_made(applier->user, &made);
        }
        break;
    case snapshot_bad_type:
        if (snapshot_bad_decode(body, &bad, &applier->scratch, NULL) == 0) {
            applier->loading = false;
            applier->events->on_snapshot_bad(applier->user, &bad);
        }
        break;
    default:
        log_debug("raftd.stored.unknown_message", "type=%u", type);
    }
}

static void fill_hello(void *user, struct hello *ret_hello)
{
    struct applier *applier = user;
    applier->events->fill_hello(applier->user, ret_hello);
}

static const struct link_events link_handlers = {
    .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .on_stranger = strangers_tell,
    .fill_hello = fill_hello,
};

int applier_open(struct loop *loop, const char *path, const struct conf_uids *uids,
        const struct applier_events *events, void *user, struct applier **ret_applier,
        struct err *err)
{
    struct applier *applier = xcalloc(1, sizeof *applier);

    applier->events = events;
    applier->user = user;
    struct link_config config = {
        .pattern = LINK_PAIR,
        .listen = true,
        .path = path,
        .peer_uids = uids->items,
        .peer_uid_count = uids->count,
        .events = &link_handlers,
        .user = applier,
    };
    int result = link_hub_open(loop, &config, &applier->hub, err);
    if (result < 0) {
        (void)applier_close(applier);
        return result;
    }
    *ret_applier = applier;
    return 0;
}

struct applier *applier_close(struct applier *applier)
{
    if (applier == NULL) {
        return NULL;
    }
    applier->hub = link_hub_close(applier->hub);
    buf_fini(&applier->gathered.bytes);
    free(applier->gathered.ends);
    codec_scratch_fini(&applier->scratch);
    free(applier->items);
    buf_fini(&applier->out);
    free(applier);
    return NULL;
}

bool applier_is_up(const struct applier *applier)
{
    return applier->link != NULL;
}

/* Control messages never outrun the window: at most a few are under way. A lost one is a link that stands still. */
static void send_control(struct applier *applier, unsigned type)
{
    if (applier->link != NULL && link_send(applier->link, type, &applier->out) < 0) {
        log_warning("raftd.stored.congested", "type=%u action=drop_link", type);
        link_drop(applier->link);
    }
    buf_clear(&applier->out);
}

void applier_go(struct applier *applier, uint64_t cluster_id, uint64_t member_id, uint64_t index,
        uint64_t term)
{
    struct state_go message = { .cluster_id = cluster_id, .member_id = member_id };

    applier->going = true;
    applier->loading = false;
    applier->sent_index = index;
    applier->sent_term = term;
    applier->applied_index = index;
    state_go_encode(&message, &applier->out);
    send_control(applier, state_go_type);
}

void applier_load(struct applier *applier, uint64_t index, uint64_t term, uint64_t complete_at)
{
    struct snapshot_load message = { .index = index, .term = term, .complete_at = complete_at };

    SET(&message, snapshot_load_tag_complete_at);

    applier->going = false;
    applier->loading = true;
    applier->moved_at_ms = clock_monotonic_ms();
    forget_gathered(applier);
    snapshot_load_encode(&message, &applier->out);
    send_control(applier, snapshot_load_type);
}

void applier_snapshot_recorded(struct applier *applier, uint64_t index, uint64_t term)
{
    struct snapshot_recorded message = { .index = index, .term = term };

    if (applier->link != NULL) {
        snapshot_recorded_encode(&message, &applier->out);
        send_control(applier, snapshot_recorded_type);
    }
}

void applier_add(struct applier *applier, struct raft_entry_span entries)
{
    struct gathered *gathered = &applier->gathered;

    if (!applier->going || entries.count == 0) {
        return;
    }
    if (gathered->count + entries.count > gathered->capacity) {
        gathered->capacity = MAX(gathered->capacity * 2, gathered->count + entries.count);
        gathered->ends = xrealloc(gathered->ends, gathered->capacity * sizeof *gathered->ends);
    }
    for (size_t i = 0; i < entries.count; i++) {
        const struct raft_entry *item = &entries.items[i];
        struct entry encoded = {
            .index = item->index,
            .term = item->term,
            .time_ns = item->time_ns,
            .kind = (uint64_t)item->kind,
            .data = item->data,
        };
        if (item->data.bytes > 0) {
            SET(&encoded, entry_tag_data);
        }
        entry_encode(&encoded, &gathered->bytes);
        gathered->ends[gathered->count++] = gathered->bytes.bytes;
    }
    gathered->last_index = entries.items[entries.count - 1].index;
    gathered->last_term = entries.items[entries.count - 1].term;
}

/* How many gathered entries make up the next message: all, or as many as fit. */
static size_t message_entries(const struct gathered *gathered)
{
    if (gathered->bytes.bytes <= BATCH_BYTES_MAX) {
        return gathered->count;
    }
    size_t count = 1;
    while (count < gathered->count && gathered->ends[count] <= BATCH_BYTES_MAX) {
        count++;
    }
    return count;
}

/* Decodes index and term of a gathered entry: only needed where a message ends in the middle of what has gathered. */
static void read_position(
        struct applier *applier, size_t position, uint64_t *ret_index, uint64_t *ret_term)
{
    struct gathered *gathered = &applier->gathered;
    size_t start = position == 0 ? 0 : gathered->ends[position - 1];
    struct entry decoded;

    codec_scratch_reset(&applier->scratch);
    int result =
            entry_decode(span_of(gathered->bytes.data + start, gathered->ends[position] - start),
                    &decoded, &applier->scratch, NULL);
    INVARIANT(result == 0); /* we encoded it */
    *ret_index = decoded.index;
    *ret_term = decoded.term;
}

static bool send_batch(struct applier *applier, uint64_t log_bytes)
{
    struct gathered *gathered = &applier->gathered;
    size_t count = message_entries(gathered);
    uint64_t last_index = gathered->last_index;
    uint64_t last_term = gathered->last_term;

    if (count < gathered->count) {
        read_position(applier, count - 1, &last_index, &last_term);
    }
    if (count > applier->item_capacity) {
        applier->item_capacity = count * 2;
        applier->items = xrealloc(applier->items, applier->item_capacity * sizeof *applier->items);
    }
    for (size_t i = 0, start = 0; i < count; start = gathered->ends[i], i++) {
        applier->items[i] = span_of(gathered->bytes.data + start, gathered->ends[i] - start);
    }
    struct apply message = {
        .prev_index = applier->sent_index,
        .prev_term = applier->sent_term,
        .entries = { applier->items, count },
        .log_bytes = log_bytes,
    };
    SET(&message, apply_tag_log_bytes);
    buf_clear(&applier->out);
    apply_encode(&message, &applier->out);
    if (link_send(applier->link, apply_type, &applier->out) < 0) {
        return false;
    }
    if (applier->sent_index == applier->applied_index) {
        applier->moved_at_ms = clock_monotonic_ms();
    }
    applier->sent_index = last_index;
    applier->sent_term = last_term;
    size_t sent_bytes = gathered->ends[count - 1];
    buf_drop_front(&gathered->bytes, sent_bytes);
    gathered->count -= count;
    for (size_t i = 0; i < gathered->count; i++) {
        gathered->ends[i] = gathered->ends[count + i] - sent_bytes;
    }
    return true;
}

void applier_flush(struct applier *applier, uint64_t log_bytes)
{
    if (applier->link == NULL || !applier->going) {
        return;
    }
    while (applier->gathered.count > 0) {
        uint64_t unapplied = applier->sent_index - applier->applied_index;
        bool full = applier->gathered.bytes.bytes >= BATCH_BYTES_MAX;
        if ((unapplied > 0 && applier->gathered.count < unapplied && !full) ||
                !link_can_send(applier->link) || !send_batch(applier, log_bytes)) {
            return;
        }
    }
}

void applier_check(struct applier *applier, uint64_t now_ms)
{
    uint64_t limit_ms = applier->loading ? (uint64_t)LOAD_STALL_MS : (uint64_t)STALL_MS;
    bool waiting =
            applier->loading || (applier->going && applier->sent_index > applier->applied_index);

    if (applier->link != NULL && waiting && now_ms > applier->moved_at_ms + limit_ms) {
        log_warning("raftd.stored.stalled",
                "applied_index=%" PRIu64 " sent_index=%" PRIu64 " action=drop_link",
                applier->applied_index, applier->sent_index);
        applier->moved_at_ms = now_ms;
        link_drop(applier->link);
    }
}
