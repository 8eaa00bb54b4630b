#include "daemons/raftd/gateways.h"

#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/conf.h"
#include "common/list.h"
#include "common/log.h"
#include "common/strangers.h"
#include "daemons/raftd/passed.h"
#include "proto/hello.h"
#include "proto/link.h"
#include "proto/op.h"

enum {
    WAITING_BYTES_MAX = 64 * 1024 * 1024,
};

/* One connected gatewayd. */
struct gateway {
    struct list node;
    struct link *link;
    uint64_t instance;
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
    struct list waiting_ops; /* kept_ops that found no leader */
    size_t waiting_bytes;
    struct passed *passed; /* those that did */
    bool is_retrying;
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

static void keep_waiting(struct gateways *gateways, struct kept_ops *take_kept)
{
    gateways->waiting_bytes += take_kept->bytes.bytes;
    list_append(&gateways->waiting_ops, &take_kept->node);
}

static void free_waiting(struct gateways *gateways, struct kept_ops *kept)
{
    gateways->waiting_bytes -= kept->bytes.bytes;
    (void)kept_ops_free(kept);
}

static bool take_dead(struct gateways *gateways)
{
    struct kept_ops *kept;
    bool any = false;

    while ((kept = passed_take_dead(gateways->passed)) != NULL) {
        keep_waiting(gateways, kept);
        any = true;
    }
    return any;
}

bool gateways_on_entries(struct gateways *gateways, struct raft_entry_span entries)
{
    passed_on_entries(gateways->passed, entries);
    return take_dead(gateways);
}

void gateways_suspect(struct gateways *gateways)
{
    passed_suspect(gateways->passed);
}

bool gateways_ask_end(const struct gateways *gateways, uint64_t term, uint64_t *ret_seq)
{
    return passed_ask(gateways->passed, term, ret_seq);
}

void gateways_on_end(struct gateways *gateways, uint64_t term, uint64_t seq, uint64_t index)
{
    passed_on_end(gateways->passed, term, seq, index);
    if (take_dead(gateways)) {
        gateways_retry(gateways);
    }
}

uint64_t gateways_proposal_again(struct gateways *gateways, uint64_t context)
{
    struct kept_ops *kept = passed_take(gateways->passed, context);

    if (kept == NULL) {
        return 0;
    }
    keep_waiting(gateways, kept);
    return kept->term;
}

void gateways_proposal_refused(
        struct gateways *gateways, uint64_t context, enum refusal reason, const char *text)
{
    struct kept_ops *kept = passed_take(gateways->passed, context);

    if (kept != NULL) {
        gateways_refuse_ops(gateways, kept->ops.items, kept->ops.count, reason, text);
        (void)kept_ops_free(kept);
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
    uint64_t term = 0;
    /* What waits already goes first: clients see their writes in the order in which they were sent. */
    enum gateways_fate fate = GATEWAYS_KEEP;
    if (list_is_empty(&gateways->waiting_ops)) {
        fate = gateways->events->propose(
                gateways->user, context, message.ops.items, message.ops.count, &term);
    }
    if (fate == GATEWAYS_DONE) {
        return;
    }
    if (fate == GATEWAYS_KEEP && gateways->waiting_bytes + body.bytes > WAITING_BYTES_MAX) {
        gateways_refuse_ops(gateways, message.ops.items, message.ops.count, REFUSAL_OVERLOADED,
                REFUSAL_TOO_MANY_TEXT);
        return;
    }
    struct kept_ops *kept =
            kept_ops_new(context, clock_monotonic_ms(), message.ops.items, message.ops.count);
    if (fate == GATEWAYS_PROPOSED) {
        passed_add(gateways->passed, kept, term);
    } else {
        keep_waiting(gateways, kept);
    }
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
    gateways->passed = passed_new();
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
    LIST_FOREACH (waiting, &gateways->waiting_ops, struct kept_ops, node) {
        free_waiting(gateways, waiting);
    }
    gateways->passed = passed_free(gateways->passed);
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

/* False: there is still no leader. */
static bool retry_ops(struct gateways *gateways)
{
    while (!list_is_empty(&gateways->waiting_ops)) {
        struct kept_ops *kept = CONTAINER_OF(gateways->waiting_ops.next, struct kept_ops, node);
        uint64_t term = 0;
        /* Each time its own: a leader of before may still refuse it, late, and another one have it by then. */
        kept->context = ++gateways->next_context;
        enum gateways_fate fate = gateways->events->propose(
                gateways->user, kept->context, kept->ops.items, kept->ops.count, &term);
        if (fate == GATEWAYS_KEEP) {
            return false;
        }
        if (fate == GATEWAYS_DONE) {
            free_waiting(gateways, kept);
            continue;
        }
        gateways->waiting_bytes -= kept->bytes.bytes;
        passed_add(gateways->passed, kept, term);
    }
    return true;
}

static void retry_all(struct gateways *gateways)
{
    if (!retry_ops(gateways)) {
        return;
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

void gateways_retry(struct gateways *gateways)
{
    if (gateways->is_retrying) {
        return; /* what is offered again may change raft's state, and that leads here */
    }
    gateways->is_retrying = true;
    retry_all(gateways);
    gateways->is_retrying = false;
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
    LIST_FOREACH (waiting, &gateways->waiting_ops, struct kept_ops, node) {
        if (clock_passed(waiting->since_ms, now_ms) > wait_ms_max) {
            free_waiting(gateways, waiting);
        }
    }
    passed_expire(gateways->passed, now_ms, wait_ms_max);
    LIST_FOREACH (read, &gateways->waiting_reads, struct waiting_read, node) {
        if (clock_passed(read->since_ms, now_ms) > wait_ms_max) {
            list_remove(&read->node);
            free(read);
        }
    }
    LIST_FOREACH (change, &gateways->waiting_changes, struct waiting_change, node) {
        if (clock_passed(change->since_ms, now_ms) > wait_ms_max) {
            list_remove(&change->node);
            free(change);
        }
    }
}

static size_t count_nodes(const struct list *list)
{
    size_t count = 0;
    for (const struct list *node = list->next; node != list; node = node->next) {
        count++;
    }
    return count;
}

size_t gateways_waiting(const struct gateways *gateways)
{
    return count_nodes(&gateways->waiting_ops);
}

size_t gateways_count(const struct gateways *gateways)
{
    return count_nodes(&gateways->gateways);
}
