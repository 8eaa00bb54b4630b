/* ring.c: the link to raftd: ops out, refusals, read indexes and raft's own state in.
 *
 * Ops gather over a turn and go out in one message. When nothing is in flight (sent, without outcome) they go at once;
 * otherwise when what has gathered is as many as what is in flight. So one client waits for nobody, and many share
 * messages, without a timer tuned; HOLD_MS only bounds the wait where outcomes stay away. Ops that were never
 * sent go out when the link is back; ops that were sent are never sent again, since they might be applied twice. */
#include "daemons/gatewayd/shell.h"

#include <errno.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/loop.h"
#include "proto/hello.h"
#include "proto/link.h"
#include "proto/op.h"
#include "proto/propose.h"

enum {
    HOLD_MS = 3,
    SLOW_SYNC_US = 500, /* from here on raftd's log waits for company */
    UNTAKEN_BYTES_MAX = 256 * 1024 * 1024,
    OWN_ABOVE_BYTES = 16 * 1024,
    OP_OTHER_BYTES = 256, /* of an encoded op, beside path and values */
};

struct gathered_op {
    uint64_t counter;
    size_t offset; /* in ring->data */
    size_t bytes;
    uint8_t *own; /* a large one's bytes, which are not in ring->data; NULL: a small one */
};

struct ring {
    struct gatewayd *gw;
    struct link_hub *hub;
    struct link *link; /* NULL: down */
    uint64_t session;  /* counts the links */
    struct loop_timer *hold_timer;
    struct loop_waker *next_turn;
    bool holding;
    bool hold_over;
    size_t held_count;       /* ops gathered when the last turn ended */
    bool is_disk_slow;       /* raftd gathers before it syncs: it should have all that there is */
    struct buf data;         /* encoded ops that are small, not yet sent */
    size_t own_bytes;        /* of the large ones */
    struct gathered_op *ops; /* of them the ones from op_first on */
    size_t op_first;
    size_t op_count;
    size_t op_capacity;
    size_t in_flight; /* ops sent on this link whose outcome is awaited */
    struct span *items;
    size_t item_capacity;
    struct codec_scratch scratch;
};

static void release_own(struct ring *ring, struct gathered_op *op)
{
    if (op->own != NULL) {
        ring->own_bytes -= op->bytes;
        free(op->own);
        op->own = NULL;
    }
}

/* Those up to `end`: they were sent, or nobody waits for them. */
static void release_owns(struct ring *ring, size_t first, size_t end)
{
    for (size_t i = first; i < end; i++) {
        release_own(ring, &ring->ops[i]);
    }
}

static void forget_gathered(struct ring *ring)
{
    release_owns(ring, ring->op_first, ring->op_count);
    buf_clear(&ring->data);
    buf_trim(&ring->data, BATCH_BYTES_MAX);
    ring->op_first = 0;
    ring->op_count = 0;
}

/* Large ops lie apart, each given back once it is sent; small ones go into one buf, which is given back when all are. */
static void gather(struct ring *ring, uint64_t counter, const struct op *op)
{
    size_t known_bytes = op->path.bytes + op->value.bytes + op->prev_value.bytes;
    struct gathered_op gathered = { .counter = counter, .offset = ring->data.bytes };

    if (ring->op_count == ring->op_capacity) {
        ring->op_capacity = MAX(ring->op_capacity * 2, (size_t)64);
        ring->ops = xrealloc(ring->ops, ring->op_capacity * sizeof ring->ops[0]);
    }
    if (known_bytes > OWN_ABOVE_BYTES) {
        struct buf own = BUF_INIT;
        (void)buf_reserve(&own, known_bytes + OP_OTHER_BYTES);
        op_encode(op, &own);
        buf_fit(&own);
        gathered.own = own.data;
        gathered.bytes = own.bytes;
        ring->own_bytes += own.bytes;
    } else {
        op_encode(op, &ring->data);
        gathered.bytes = ring->data.bytes - gathered.offset;
    }
    ring->ops[ring->op_count++] = gathered;
}

size_t ring_bytes(const struct gatewayd *gw)
{
    const struct ring *ring = gw->ring;
    size_t of_link = ring->link == NULL ? 0 : link_held_bytes(ring->link);

    return ring->data.bytes + ring->own_bytes + of_link;
}

void ring_add_op(struct gatewayd *gw, struct call *call, struct op *op)
{
    struct ring *ring = gw->ring;

    if (!call_set_pending(gw, call, gw->timeout_ms)) {
        return;
    }
    call->op_kind = op->kind;
    op->instance = gw->instance;
    op->counter = call->counter;
    if (ring_bytes(gw) > UNTAKEN_BYTES_MAX) {
        call_fail(gw, call, REFUSAL_TOO_MANY_TEXT);
        return;
    }
    gather(ring, call->counter, op);
    call_release_request(call);
    /* Not at the turn's end: a turn may bring hundreds of large ones. */
    http_server_set_other_bytes(gw->http, ring_bytes(gw));
}

void ring_forget(struct gatewayd *gw, struct call *call)
{
    if (call->flight != 0 && call->flight == gw->ring->session) {
        gw->ring->in_flight--;
    }
    call->flight = 0;
}

/* Fills ring->items with ops of one message, from op_first on; returns how many. Ops that nobody waits for any more
 * (timed out before they were sent) are left out: their clients were told that they failed. */
static size_t take_batch(struct ring *ring)
{
    size_t count = 0;
    size_t bytes = 0;

    if (ring->item_capacity < ring->op_count - ring->op_first) {
        ring->item_capacity = ring->op_count;
        ring->items = xrealloc(ring->items, ring->item_capacity * sizeof ring->items[0]);
    }
    for (; ring->op_first < ring->op_count; ring->op_first++) {
        const struct gathered_op *op = &ring->ops[ring->op_first];
        struct call *call = call_find(ring->gw, op->counter);
        if (call == NULL) {
            continue;
        }
        if (count > 0 && bytes + op->bytes > BATCH_BYTES_MAX) {
            break;
        }
        const uint8_t *data = op->own != NULL ? op->own : ring->data.data + op->offset;
        ring->items[count++] = span_of(data, op->bytes);
        bytes += op->bytes;
        call->flight = ring->session;
        ring->in_flight++;
    }
    return count;
}

/* The link is about to go: what was to be sent is as if it had never been taken. */
static void put_back(struct ring *ring, size_t op_first)
{
    for (size_t i = op_first; i < ring->op_first; i++) {
        struct call *call = call_find(ring->gw, ring->ops[i].counter);
        if (call != NULL) {
            ring_forget(ring->gw, call);
        }
    }
    ring->op_first = op_first;
}

/* Whether the op is still to be sent. A client that went away while nothing could be sent waits for nothing. */
static bool is_wanted(struct ring *ring, const struct gathered_op *op)
{
    const struct call *call = call_find(ring->gw, op->counter);
    bool is_stuck = ring->link == NULL || !link_can_send(ring->link);
    return call != NULL && (call->http != NULL || !is_stuck);
}

/* In place: there may be as much of it as we may hold. With is_compacting, small ones are moved together, too. */
static void keep_wanted(struct ring *ring, bool is_compacting)
{
    size_t count = 0;
    size_t bytes = 0;

    for (size_t i = ring->op_first; i < ring->op_count; i++) {
        struct gathered_op op = ring->ops[i];
        if (!is_wanted(ring, &op)) {
            release_own(ring, &op);
            continue;
        }
        if (is_compacting && op.own == NULL) {
            memmove(ring->data.data + bytes, ring->data.data + op.offset, op.bytes);
            op.offset = bytes;
            bytes += op.bytes;
        }
        ring->ops[count++] = op;
    }
    if (is_compacting) {
        ring->data.bytes = bytes;
        buf_fit(&ring->data);
    }
    ring->op_first = 0;
    ring->op_count = count;
}

void ring_drop_unwanted(struct gatewayd *gw)
{
    struct ring *ring = gw->ring;
    size_t wanted_small_bytes = 0;

    if (ring->op_first == ring->op_count) {
        return;
    }
    for (size_t i = ring->op_first; i < ring->op_count; i++) {
        const struct gathered_op *op = &ring->ops[i];
        wanted_small_bytes += op->own == NULL && is_wanted(ring, op) ? op->bytes : 0;
    }
    /* So no byte is moved for less than one that is given back. */
    keep_wanted(ring, wanted_small_bytes <= ring->data.bytes / 2);
    if (ring->op_count == 0) {
        forget_gathered(ring);
    }
}

void ring_get_stats(const struct gatewayd *gw, struct ring_stats *ret_stats)
{
    const struct ring *ring = gw->ring;

    *ret_stats = (struct ring_stats){ .gathered_ops = ring->op_count - ring->op_first,
        .gathered_bytes = ring->data.bytes + ring->own_bytes,
        .in_flight = ring->in_flight,
        .links = ring->session };
}

static void send_gathered(struct ring *ring)
{
    while (ring->op_first < ring->op_count && link_can_send(ring->link)) {
        CLEANUP(buf_fini) struct buf body = BUF_INIT;
        size_t op_first = ring->op_first;
        size_t count = take_batch(ring);
        if (count == 0) {
            release_owns(ring, op_first, ring->op_first);
            break;
        }
        struct propose propose = { .ops = { .items = ring->items, .count = count } };
        propose_encode(&propose, &body);
        if (link_send(ring->link, propose_type, &body) < 0) {
            put_back(ring, op_first);
            return;
        }
        release_owns(ring, op_first, ring->op_first);
    }
    if (ring->op_first == ring->op_count) {
        forget_gathered(ring);
    }
}

static void on_hold_over(void *user)
{
    struct ring *ring = user;
    ring->holding = false;
    ring->hold_over = true; /* the turn's end does the rest */
}

void ring_turn_end(struct gatewayd *gw)
{
    struct ring *ring = gw->ring;
    size_t gathered = ring->op_count - ring->op_first;

    if (gathered == 0 || ring->link == NULL) {
        return;
    }
    bool due = gathered >= ring->in_flight || ring->data.bytes + ring->own_bytes >= BATCH_BYTES_MAX;
    /* On a slow disk what stays here misses the next sync: it goes as soon as a turn has brought nothing more. */
    bool is_quiet = ring->is_disk_slow && gathered == ring->held_count;
    ring->held_count = gathered;
    if (due || is_quiet || ring->hold_over) {
        ring->held_count = 0;
        if (ring->holding) {
            loop_timer_stop(ring->hold_timer);
            ring->holding = false;
        }
        ring->hold_over = false;
        send_gathered(ring);
    } else if (!ring->holding) {
        loop_timer_start(ring->hold_timer, HOLD_MS, 0);
        ring->holding = true;
    }
    if (ring->is_disk_slow && ring->held_count > 0) {
        loop_waker_wake(ring->next_turn);
    }
}

/* Wakes the loop for another turn; what there is to do is done at its end. */
static void on_next_turn(void *user)
{
    (void)user;
}

bool ring_ask_read_index(struct gatewayd *gw, uint64_t counter)
{
    CLEANUP(buf_fini) struct buf body = BUF_INIT;
    struct read_index question = { .counter = counter };

    if (gw->ring->link == NULL) {
        return false;
    }
    read_index_encode(&question, &body);
    return link_send(gw->ring->link, read_index_type, &body) == 0;
}

void ring_change_member(struct gatewayd *gw, struct call *call, struct op *op)
{
    CLEANUP(buf_fini) struct buf encoded = BUF_INIT;
    CLEANUP(buf_fini) struct buf body = BUF_INIT;

    call->kind = CALL_MEMBER;
    if (!call_set_pending(gw, call, gw->timeout_ms)) {
        return;
    }
    call->op_kind = op->kind;
    op->instance = gw->instance;
    op->counter = call->counter;
    op_encode(op, &encoded);
    struct member_change change = { .op = buf_span(&encoded) };
    member_change_encode(&change, &body);
    /* Without a link the change is not made; its caller hears of it at the timeout. */
    if (gw->ring->link != NULL) {
        (void)link_send(gw->ring->link, member_change_type, &body);
    }
}

static void on_refused_ops(struct gatewayd *gw, struct span body)
{
    struct propose_refused refused;
    char text[256];

    if (propose_refused_decode(body, &refused, &gw->ring->scratch, NULL) < 0) {
        return;
    }
    (void)snprintf(text, sizeof text, "%.*s", (int)MIN(refused.text.bytes, sizeof text - 1),
            refused.text.bytes > 0 ? (const char *)refused.text.data : "");
    if (refused.reason == REFUSAL_NO_SPACE && strstr(text, "no space") == NULL) {
        (void)snprintf(text, sizeof text, "etcdserver: no space");
    } else if (refused.reason == REFUSAL_STOPPING) {
        (void)snprintf(text, sizeof text, "etcdserver: server stopped");
    } else if (text[0] == '\0') {
        (void)snprintf(text, sizeof text, "etcdserver: request cancelled");
    }
    for (size_t i = 0; i < refused.counters.count; i++) {
        uint64_t counter = 0;
        for (size_t byte = 0; byte < refused.counters.items[i].bytes; byte++) {
            counter = counter << 8 | refused.counters.items[i].data[byte];
        }
        struct call *call = call_find(gw, counter);
        if (call != NULL) {
            call_fail(gw, call, text);
        }
    }
}

bool ring_next_follower(const struct gatewayd *gw, size_t *at, struct codec_scratch *scratch,
        struct follower_state *ret_follower)
{
    const struct buf *followers = &gw->raft.followers;
    uint32_t bytes;

    while (*at + sizeof bytes <= followers->bytes) {
        memcpy(&bytes, followers->data + *at, sizeof bytes);
        struct span encoded = span_of(followers->data + *at + sizeof bytes, bytes);
        *at += sizeof bytes + bytes;
        if (follower_state_decode(encoded, ret_follower, scratch, NULL) == 0) {
            return true;
        }
    }
    return false;
}

static void keep_followers(struct gatewayd *gw, const struct span_list *followers)
{
    buf_clear(&gw->raft.followers);
    for (size_t i = 0; i < followers->count; i++) {
        uint32_t bytes = (uint32_t)followers->items[i].bytes;
        buf_append(&gw->raft.followers, &bytes, sizeof bytes);
        buf_append_span(&gw->raft.followers, followers->items[i]);
    }
}

static void on_raft_state(struct gatewayd *gw, struct span body)
{
    struct raft_view *raft = &gw->raft;
    struct raft_state state;

    if (raft_state_decode(body, &state, &gw->ring->scratch, NULL) < 0) {
        return;
    }
    gw->ring->is_disk_slow = state.wal_sync_us >= SLOW_SYNC_US;
    if (state.leader_id != 0 && raft->last_leader_id != state.leader_id) {
        raft->new_leader_at_ms = raft->last_leader_id == 0 ? 0 : gw_now_ns(gw) / 1000000;
        raft->last_leader_id = state.leader_id;
    }
    raft->up = true;
    raft->member_id = state.member_id;
    raft->cluster_id = state.cluster_id;
    raft->leader_id = state.leader_id;
    raft->term = state.term;
    raft->commit_index = state.commit_index;
    raft->role = state.role;
    raft->leader_since_wall_ns = state.leader_since_wall_ns;
    raft->no_space = state.no_space;
    raft->writes_wait = state.writes_wait;
    raft->vote = state.vote;
    raft->leader_changes = state.leader_changes;
    raft->sent_appends = state.sent_appends;
    raft->received_appends = state.received_appends;
    raft->sent_messages_milli = state.sent_messages_milli;
    raft->sent_bytes_milli = state.sent_bytes_milli;
    raft->received_messages_milli = state.received_messages_milli;
    raft->received_bytes_milli = state.received_bytes_milli;
    raft->connected_since_ms = state.connected_since_ms;
    raft->proposals_pending = state.proposals_pending;
    raft->proposals_failed = state.proposals_failed;
    raft->wal_syncs = state.wal_syncs;
    raft->wal_bytes = state.wal_bytes;
    keep_followers(gw, &state.followers);
    if (gw->cluster_id == 0 && state.cluster_id != 0) {
        answer_set_cluster_id(gw, state.cluster_id);
    }
    if (state.leader_id != 0) {
        gw_become_ready(gw);
    }
}

static void on_member_result(struct gatewayd *gw, struct span body)
{
    struct member_result result;

    if (member_result_decode(body, &result, &gw->ring->scratch, NULL) == 0) {
        struct call *call = call_find(gw, result.counter);
        if (call != NULL && call->kind == CALL_MEMBER) {
            members_on_result(gw, call, result.http_status, result.text);
        }
    }
}

static void on_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct gatewayd *gw = user;
    struct read_index_granted granted;

    (void)link;
    codec_scratch_reset(&gw->ring->scratch);
    if (type == (unsigned)raft_state_type) {
        on_raft_state(gw, body);
    } else if (type == (unsigned)read_index_granted_type) {
        if (read_index_granted_decode(body, &granted, &gw->ring->scratch, NULL) == 0) {
            reads_on_granted(gw, granted.counter, granted.index);
        }
    } else if (type == (unsigned)propose_refused_type) {
        on_refused_ops(gw, body);
    } else if (type == (unsigned)member_result_type) {
        on_member_result(gw, body);
    }
}

static int on_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct gatewayd *gw = user;

    (void)peer;
    (void)err;
    gw->ring->link = link;
    gw->ring->session++;
    gw->ring->in_flight = 0; /* what an earlier link carried may still come, from stored */
    log_info("gatewayd.raftd.connected", "instance=%016" PRIx64, gw->instance);
    return 0;
}

static void on_down(void *user, struct link *link)
{
    struct gatewayd *gw = user;

    (void)link;
    gw->ring->link = NULL;
    gw->raft.up = false;
    gw->raft.leader_id = 0;
    reads_on_raftd_down(gw);
    log_warning("gatewayd.raftd.lost", "action=reconnect writes=wait");
}

static void on_writable(void *user, struct link *link)
{
    struct gatewayd *gw = user;

    (void)link;
    gw->ring->hold_over = true; /* the turn's end goes on where the credit ended */
}

static void on_refused(void *user, const char *text)
{
    (void)user;
    log_error("gatewayd.raftd.refused", "text=\"%s\" action=retry", text);
}

static void fill_hello(void *user, struct hello *ret_hello)
{
    struct gatewayd *gw = user;

    ret_hello->component = SPAN_LIT("gatewayd");
    ret_hello->instance = gw->instance;
    SET(ret_hello, hello_tag_instance);
}

static const struct link_events ring_events = { .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .on_writable = on_writable,
    .on_refused = on_refused,
    .fill_hello = fill_hello };

int ring_open(struct gatewayd *gw, struct err *err)
{
    struct ring *ring = xcalloc(1, sizeof *ring);
    struct link_config config = {
        .pattern = LINK_REQREP, .path = "raftd.ipc", .events = &ring_events, .user = gw
    };

    ring->gw = gw;
    gw->ring = ring;
    ring->hold_timer = loop_timer_new(gw->loop, on_hold_over, ring);
    ring->next_turn = loop_waker_new(gw->loop, on_next_turn, ring);
    return link_hub_open(gw->loop, &config, &ring->hub, err);
}

struct ring *ring_close(struct ring *ring)
{
    if (ring != NULL) {
        ring->hub = link_hub_close(ring->hub);
        ring->hold_timer = loop_timer_free(ring->hold_timer);
        ring->next_turn = loop_waker_free(ring->next_turn);
        forget_gathered(ring);
        buf_fini(&ring->data);
        free(ring->ops);
        free(ring->items);
        codec_scratch_fini(&ring->scratch);
        free(ring);
    }
    return NULL;
}
