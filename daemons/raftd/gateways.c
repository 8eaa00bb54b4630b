#include "daemons/raftd/gateways.h"

#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/conf.h"
#include "common/list.h"
#include "common/log.h"
#include "common/strangers.h"
#include "proto/hello.h"
#include "proto/link.h"
#include "proto/op.h"

enum {
    WAITING_BYTES_MAX = 64 * 1024 * 1024,
    PASSED_BYTES_MAX =
            16 * 1024 * 1024, /* copies kept in case the leader refuses: then the oldest go */
    PASSED_MS_MAX = 2000,
};

/* One connected gatewayd. */
struct gateway {
    struct list node;
    struct link *link;
    uint64_t instance;
};

/* A propose message that could not go on yet, or that was passed on to the leader: a copy of its ops. */
struct waiting_ops {
    struct list node;
    uint64_t since_ms;
    uint64_t context;
    struct buf bytes;
    struct span_list ops; /* into bytes */
};

/* A read that has no index yet. */
struct waiting_read {
    struct list node;
    uint64_t since_ms;
    uint64_t context;
    uint64_t counter;
    uint64_t instance;
    bool asked; /* with raft now; else it waits for a leader */
};

/* A membership change under way: who wants to know. */
struct waiting_change {
    struct list node;
    uint64_t since_ms;
    uint64_t context;
    uint64_t counter;
    uint64_t instance;
};

struct gateways {
    const struct gateways_events *events;
    void *user;
    struct link_hub *hub;
    struct list gateways;
    struct list waiting_ops;
    size_t waiting_bytes;
    struct list passed_ops;
    size_t passed_bytes;
    struct list waiting_reads;
    struct list waiting_changes;
    uint64_t next_context;
    struct codec_scratch scratch;
};

static struct gateway *find_gateway(struct gateways *gateways, uint64_t instance)
{
    LIST_FOREACH (gateway, &gateways->gateways, struct gateway, node) {
        if (gateway->instance == instance) {
            return gateway;
        }
    }
    return NULL;
}

/* Sends or, with no credit left, drops: states come again, and a lost answer is a timeout at the client's end. */
static void send_message(struct gateway *gateway, unsigned type, struct buf *body)
{
    if (link_send(gateway->link, type, body) < 0) {
        log_warning("raftd.gateway.congested", "instance=%" PRIx64 " type=%u action=dropped",
                gateway->instance, type);
        buf_clear(body);
    }
}

static void tell_state_to(struct gateways *gateways, struct gateway *gateway)
{
    if (link_can_send(gateway->link)) {
        struct buf body = BUF_INIT;
        gateways->events->fill_state(gateways->user, &body);
        send_message(gateway, raft_state_type, &body);
        buf_fini(&body);
    }
}

void gateways_tell_state(struct gateways *gateways)
{
    LIST_FOREACH (gateway, &gateways->gateways, struct gateway, node) {
        tell_state_to(gateways, gateway);
    }
}

static struct waiting_ops *copy_ops(uint64_t context, const struct span *ops, size_t count)
{
    struct waiting_ops *waiting = xcalloc(1, sizeof *waiting);
    size_t bytes = 0;

    for (size_t i = 0; i < count; i++) {
        bytes += ops[i].bytes;
    }
    list_init(&waiting->node);
    waiting->since_ms = clock_monotonic_ms();
    waiting->context = context;
    (void)buf_reserve(&waiting->bytes, bytes);
    waiting->ops.items = xcalloc(count, sizeof *waiting->ops.items);
    waiting->ops.count = count;
    for (size_t i = 0; i < count; i++) {
        waiting->ops.items[i] = span_of(waiting->bytes.data + waiting->bytes.bytes, ops[i].bytes);
        buf_append_span(&waiting->bytes, ops[i]);
    }
    return waiting;
}

static void free_ops(struct waiting_ops *waiting)
{
    list_remove(&waiting->node);
    buf_fini(&waiting->bytes);
    free(waiting->ops.items);
    free(waiting);
}

static void keep_waiting(
        struct gateways *gateways, uint64_t context, const struct span *ops, size_t count)
{
    struct waiting_ops *waiting = copy_ops(context, ops, count);

    gateways->waiting_bytes += waiting->bytes.bytes;
    list_append(&gateways->waiting_ops, &waiting->node);
}

static void free_waiting(struct gateways *gateways, struct waiting_ops *waiting)
{
    gateways->waiting_bytes -= waiting->bytes.bytes;
    free_ops(waiting);
}

static void free_passed(struct gateways *gateways, struct waiting_ops *passed)
{
    gateways->passed_bytes -= passed->bytes.bytes;
    free_ops(passed);
}

static void keep_passed(
        struct gateways *gateways, uint64_t context, const struct span *ops, size_t count)
{
    struct waiting_ops *passed = copy_ops(context, ops, count);

    gateways->passed_bytes += passed->bytes.bytes;
    list_append(&gateways->passed_ops, &passed->node);
    while (gateways->passed_bytes > PASSED_BYTES_MAX) {
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): free_ops takes the freed one out of the list. */
        free_passed(gateways, CONTAINER_OF(gateways->passed_ops.next, struct waiting_ops, node));
    }
}

static struct waiting_ops *find_passed(struct gateways *gateways, uint64_t context)
{
    LIST_FOREACH (passed, &gateways->passed_ops, struct waiting_ops, node) {
        if (passed->context == context) {
            return passed;
        }
    }
    return NULL;
}

void gateways_proposal_again(struct gateways *gateways, uint64_t context)
{
    struct waiting_ops *passed = find_passed(gateways, context);

    if (passed != NULL) {
        gateways->passed_bytes -= passed->bytes.bytes;
        gateways->waiting_bytes += passed->bytes.bytes;
        list_remove(&passed->node);
        list_append(&gateways->waiting_ops, &passed->node);
    }
}

void gateways_proposal_refused(
        struct gateways *gateways, uint64_t context, enum refusal reason, const char *text)
{
    struct waiting_ops *passed = find_passed(gateways, context);

    if (passed != NULL) {
        gateways_refuse_ops(gateways, passed->ops.items, passed->ops.count, reason, text);
        free_passed(gateways, passed);
    }
}

static void on_propose(struct gateways *gateways, struct span body)
{
    struct propose message;
    struct err err = { 0 };

    if (propose_decode(body, &message, &gateways->scratch, &err) < 0) {
        log_warning_err(&err, "raftd.propose.malformed", "action=dropped");
        return;
    }
    if (message.ops.count == 0) {
        return;
    }
    uint64_t context = ++gateways->next_context;
    /* What waits already goes first: clients see their writes in the order in which they were sent. */
    enum gateways_fate fate = GATEWAYS_KEEP;
    if (list_is_empty(&gateways->waiting_ops)) {
        fate = gateways->events->propose(
                gateways->user, context, message.ops.items, message.ops.count);
    }
    if (fate == GATEWAYS_PASSED_ON) {
        keep_passed(gateways, context, message.ops.items, message.ops.count);
    }
    if (fate != GATEWAYS_KEEP) {
        return;
    }
    if (gateways->waiting_bytes + body.bytes > WAITING_BYTES_MAX) {
        gateways_refuse_ops(gateways, message.ops.items, message.ops.count, REFUSAL_OVERLOADED,
                REFUSAL_TOO_MANY_TEXT);
        return;
    }
    keep_waiting(gateways, context, message.ops.items, message.ops.count);
}

static void on_read_index(struct gateways *gateways, struct gateway *gateway, struct span body)
{
    struct read_index message;

    if (read_index_decode(body, &message, &gateways->scratch, NULL) < 0) {
        return;
    }
    struct waiting_read *read = xcalloc(1, sizeof *read);
    read->since_ms = clock_monotonic_ms();
    read->context = ++gateways->next_context;
    read->counter = message.counter;
    read->instance = gateway->instance;
    read->asked = true;
    list_append(&gateways->waiting_reads, &read->node);
    gateways->events->read_index(gateways->user, read->context);
}

static void on_member_change(struct gateways *gateways, struct gateway *gateway, struct span body)
{
    struct member_change message;
    struct op op;

    if (member_change_decode(body, &message, &gateways->scratch, NULL) < 0 ||
            op_decode(message.op, &op, &gateways->scratch, NULL) < 0) {
        return;
    }
    struct waiting_change *change = xcalloc(1, sizeof *change);
    change->since_ms = clock_monotonic_ms();
    change->context = ++gateways->next_context;
    change->counter = op.counter;
    change->instance = gateway->instance;
    list_append(&gateways->waiting_changes, &change->node);
    gateways->events->member_change(gateways->user, change->context, message.op);
}

static void on_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct gateways *gateways = user;
    struct gateway *gateway = link_get_user(link);

    codec_scratch_reset(&gateways->scratch);
    switch (type) {
    case propose_type:
        on_propose(gateways, body);
        break;
    case read_index_type:
        on_read_index(gateways, gateway, body);
        break;
    case member_change_type:
        on_member_change(gateways, gateway, body);
        break;
    default:
        log_debug("raftd.gateway.unknown_message", "type=%u", type);
    }
}

static int on_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct gateways *gateways = user;

    if (!span_eq(peer->component, SPAN_LIT("gatewayd"))) {
        return err_set(err, -EPROTO, "raftd.ipc is for gatewayd, not for %.*s",
                (int)peer->component.bytes, (const char *)peer->component.data);
    }
    struct gateway *gateway = xcalloc(1, sizeof *gateway);
    gateway->link = link;
    gateway->instance = peer->instance;
    link_set_user(link, gateway);
    list_append(&gateways->gateways, &gateway->node);
    log_info("raftd.gateway.up", "instance=%" PRIx64 " pid=%" PRIu64, peer->instance, peer->pid);
    tell_state_to(gateways, gateway);
    return 0;
}

static void on_down(void *user, struct link *link)
{
    struct gateway *gateway = link_get_user(link);

    (void)user;
    log_info("raftd.gateway.down", "instance=%" PRIx64, gateway->instance);
    list_remove(&gateway->node);
    free(gateway);
}

static void fill_hello(void *user, struct hello *ret_hello)
{
    struct gateways *gateways = user;
    gateways->events->fill_hello(gateways->user, ret_hello);
}

static const struct link_events link_handlers = {
    .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .on_stranger = strangers_tell,
    .fill_hello = fill_hello,
};

int gateways_open(struct loop *loop, const char *path, const struct conf_uids *uids,
        const struct gateways_events *events, void *user, struct gateways **ret_gateways,
        struct err *err)
{
    struct gateways *gateways = xcalloc(1, sizeof *gateways);

    gateways->events = events;
    gateways->user = user;
    list_init(&gateways->gateways);
    list_init(&gateways->waiting_ops);
    list_init(&gateways->passed_ops);
    list_init(&gateways->waiting_reads);
    list_init(&gateways->waiting_changes);
    struct link_config config = {
        .pattern = LINK_REQREP,
        .listen = true,
        .path = path,
        .peer_uids = uids->items,
        .peer_uid_count = uids->count,
        .events = &link_handlers,
        .user = gateways,
    };
    int result = link_hub_open(loop, &config, &gateways->hub, err);
    if (result < 0) {
        (void)gateways_close(gateways);
        return result;
    }
    *ret_gateways = gateways;
    return 0;
}

struct gateways *gateways_close(struct gateways *gateways)
{
    if (gateways == NULL) {
        return NULL;
    }
    gateways->hub = link_hub_close(gateways->hub);
    LIST_FOREACH (gateway, &gateways->gateways, struct gateway, node) {
        list_remove(&gateway->node);
        free(gateway);
    }
    LIST_FOREACH (waiting, &gateways->waiting_ops, struct waiting_ops, node) {
        free_waiting(gateways, waiting);
    }
    LIST_FOREACH (passed, &gateways->passed_ops, struct waiting_ops, node) {
        free_passed(gateways, passed);
    }
    LIST_FOREACH (read, &gateways->waiting_reads, struct waiting_read, node) {
        free(read);
    }
    LIST_FOREACH (change, &gateways->waiting_changes, struct waiting_change, node) {
        free(change);
    }
    codec_scratch_fini(&gateways->scratch);
    free(gateways);
    return NULL;
}

void gateways_retry(struct gateways *gateways)
{
    LIST_FOREACH (waiting, &gateways->waiting_ops, struct waiting_ops, node) {
        enum gateways_fate fate = gateways->events->propose(
                gateways->user, waiting->context, waiting->ops.items, waiting->ops.count);
        if (fate == GATEWAYS_KEEP) {
            return;
        }
        if (fate == GATEWAYS_PASSED_ON) {
            keep_passed(gateways, waiting->context, waiting->ops.items, waiting->ops.count);
        }
        free_waiting(gateways, waiting);
    }
    /* A refusal within the call only marks the read, so the list stays as it is but for grants, which remove the
     * current one. */
    LIST_FOREACH (read, &gateways->waiting_reads, struct waiting_read, node) {
        if (!read->asked) {
            read->asked = true;
            read->context = ++gateways->next_context;
            gateways->events->read_index(gateways->user, read->context);
        }
    }
}

void gateways_refuse_ops(struct gateways *gateways, const struct span *ops, size_t count,
        enum refusal reason, const char *text)
{
    struct codec_scratch scratch = { 0 };
    uint8_t *keys = xmalloc(count * 8);
    struct span *items = xcalloc(count, sizeof *items);
    size_t used = 0;
    uint64_t instance = 0;

    for (size_t i = 0; i < count; i++) {
        struct op op;
        if (op_decode(ops[i], &op, &scratch, NULL) == 0 && op.instance != 0) {
            instance = op.instance; /* a message's ops are all of one gatewayd */
            for (unsigned byte = 0; byte < 8; byte++) {
                keys[used * 8 + byte] = (uint8_t)(op.counter >> (56 - 8 * byte));
            }
            items[used] = span_of(keys + used * 8, 8);
            used++;
        }
    }
    struct gateway *gateway = find_gateway(gateways, instance);
    if (gateway != NULL && used > 0) {
        struct propose_refused refused = {
            .reason = reason, .counters = { items, used }, .text = span_str(text)
        };
        SET(&refused, propose_refused_tag_text);
        struct buf body = BUF_INIT;
        propose_refused_encode(&refused, &body);
        send_message(gateway, propose_refused_type, &body);
        buf_fini(&body);
    }
    codec_scratch_fini(&scratch);
    free(items);
    free(keys);
}

static struct waiting_read *find_read(struct gateways *gateways, uint64_t context)
{
    LIST_FOREACH (read, &gateways->waiting_reads, struct waiting_read, node) {
        if (read->context == context) {
            return read;
        }
    }
    return NULL;
}

void gateways_read_granted(struct gateways *gateways, uint64_t context, uint64_t index)
{
    struct waiting_read *read = find_read(gateways, context);

    if (read == NULL) {
        return;
    }
    struct gateway *gateway = find_gateway(gateways, read->instance);
    if (gateway != NULL) {
        struct read_index_granted granted = { .counter = read->counter, .index = index };
        struct buf body = BUF_INIT;
        read_index_granted_encode(&granted, &body);
        send_message(gateway, read_index_granted_type, &body);
        buf_fini(&body);
    }
    list_remove(&read->node);
    free(read);
}

void gateways_read_refused(struct gateways *gateways, uint64_t context)
{
    struct waiting_read *read = find_read(gateways, context);
    if (read != NULL) {
        read->asked = false;
    }
}

void gateways_member_result(
        struct gateways *gateways, uint64_t context, unsigned http_status, const char *text)
{
    LIST_FOREACH (change, &gateways->waiting_changes, struct waiting_change, node) {
        if (change->context != context) {
            continue;
        }
        struct gateway *gateway = find_gateway(gateways, change->instance);
        if (gateway != NULL) {
            struct member_result result = {
                .counter = change->counter, .http_status = http_status, .text = span_str(text)
            };
            SET(&result, member_result_tag_text);
            struct buf body = BUF_INIT;
            member_result_encode(&result, &body);
            send_message(gateway, member_result_type, &body);
            buf_fini(&body);
        }
        list_remove(&change->node);
        free(change);
        return;
    }
}

void gateways_expire(struct gateways *gateways, uint64_t now_ms, uint64_t wait_ms_max)
{
    LIST_FOREACH (waiting, &gateways->waiting_ops, struct waiting_ops, node) {
        if (now_ms - waiting->since_ms > wait_ms_max) {
            free_waiting(gateways, waiting);
        }
    }
    LIST_FOREACH (passed, &gateways->passed_ops, struct waiting_ops, node) {
        if (now_ms - passed->since_ms > PASSED_MS_MAX) {
            free_passed(gateways, passed);
        }
    }
    LIST_FOREACH (read, &gateways->waiting_reads, struct waiting_read, node) {
        if (now_ms - read->since_ms > wait_ms_max) {
            list_remove(&read->node);
            free(read);
        }
    }
    LIST_FOREACH (change, &gateways->waiting_changes, struct waiting_change, node) {
        if (now_ms - change->since_ms > wait_ms_max) {
            list_remove(&change->node);
            free(change);
        }
    }
}

size_t gateways_waiting(const struct gateways *gateways)
{
    size_t count = 0;
    for (const struct list *node = gateways->waiting_ops.next; node != &gateways->waiting_ops;
            node = node->next) {
        count++;
    }
    return count;
}
