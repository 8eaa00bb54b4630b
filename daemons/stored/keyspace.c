#include "daemons/stored/keyspace.h"

#include <errno.h>
#include <stdlib.h>

#include "daemons/stored/keyspace_internal.h"

enum {
    PRUNE_EVERY = 64, /* events; looked at by index, so that batches do not matter */
    PRUNE_EVENTS_MAX = 256,
    KEPT_BYTES = 64 * 1024,
};

struct keyspace *keyspace_new(const struct state_history_limits *limits)
{
    struct keyspace *keyspace = xcalloc(1, sizeof *keyspace);
    keyspace->limits = *limits;
    return keyspace;
}

struct keyspace *keyspace_free(struct keyspace *keyspace)
{
    if (keyspace != NULL) {
        buf_fini(&keyspace->cause);
        buf_fini(&keyspace->event);
        buf_fini(&keyspace->member);
        buf_fini(&keyspace->path);
        buf_fini(&keyspace->value);
        buf_fini(&keyspace->parent_path);
        codec_scratch_fini(&keyspace->scratch);
        free(keyspace);
    }
    return NULL;
}

void keyspace_forget(struct keyspace *keyspace)
{
    buf_clear(&keyspace->parent_path);
}

int keyspace_fail(struct keyspace *keyspace, unsigned code, struct span cause)
{
    keyspace->error_code = code;
    buf_clear(&keyspace->cause);
    buf_append_span(&keyspace->cause, cause);
    return 0;
}

int keyspace_event(struct keyspace *keyspace, struct event *event)
{
    struct schema_meta *meta = keyspace->meta;

    event->etcd_index = ++meta->etcd_index;
    event->time_ns = meta->time_ns;
    buf_clear(&keyspace->event);
    event_encode(event, &keyspace->event);
    TRY(state_write_event(keyspace->writer, meta->etcd_index, buf_span(&keyspace->event)));
    if (meta->etcd_index % PRUNE_EVERY == 0) {
        TRY(state_write_prune(keyspace->writer, &keyspace->limits, PRUNE_EVENTS_MAX));
    }
    return 0;
}

void keyspace_publish_event(struct keyspace *keyspace)
{
    struct outcome outcome = {
        .raft_index = keyspace->raft_index,
        .etcd_index = keyspace->meta->etcd_index,
        .event = buf_span(&keyspace->event),
    };
    SET(&outcome, outcome_tag_event);
    publication_add(keyspace->publication, &outcome);
    buf_clear(&keyspace->event);
}

/* Tells the asker, if there is one, and the subscribers, if something happened. */
static void publish_outcome(struct keyspace *keyspace, const struct op *op)
{
    struct outcome outcome = {
        .instance = op->instance,
        .counter = op->counter,
        .raft_index = keyspace->raft_index,
        .etcd_index = keyspace->meta->etcd_index,
    };

    if (op->instance == 0 && keyspace->event.bytes == 0) {
        return;
    }
    if (keyspace->error_code != 0) {
        outcome.error_code = keyspace->error_code;
        SET(&outcome, outcome_tag_error_code);
        if (keyspace->cause.bytes > 0) {
            outcome.cause = buf_span(&keyspace->cause);
            SET(&outcome, outcome_tag_cause);
        }
    }
    if (keyspace->event.bytes > 0) {
        outcome.event = buf_span(&keyspace->event);
        SET(&outcome, outcome_tag_event);
    }
    if (keyspace->member.bytes > 0) {
        outcome.member = buf_span(&keyspace->member);
        SET(&outcome, outcome_tag_member);
    }
    publication_add(keyspace->publication, &outcome);
}

static int apply_op(struct keyspace *keyspace, const struct op *op)
{
    switch (op->kind) {
    case OP_SYNC:
        return 0;
    case OP_SET:
    case OP_CREATE:
    case OP_CREATE_IN_ORDER:
    case OP_UPDATE:
    case OP_COMPARE_AND_SWAP:
    case OP_DELETE:
    case OP_COMPARE_AND_DELETE:
        return tree_apply(keyspace, op);
    case OP_MEMBER_ADD:
    case OP_MEMBER_UPDATE:
    case OP_MEMBER_REMOVE:
    case OP_MEMBER_PUBLISH:
    case OP_MEMBER_PROMOTE:
    case OP_CLUSTER_VERSION:
        return members_apply(keyspace, op);
    default:
        return keyspace_fail(keyspace, V2_INTERNAL, SPAN_LIT("unknown operation"));
    }
}

static void begin_entry(struct keyspace *keyspace)
{
    keyspace->error_code = 0;
    buf_clear(&keyspace->cause);
    buf_clear(&keyspace->event);
    buf_clear(&keyspace->member);
    buf_trim(&keyspace->event, KEPT_BYTES);
    codec_scratch_reset(&keyspace->scratch);
}

int keyspace_apply(struct keyspace *keyspace, struct state_writer *writer, uint64_t raft_index,
        uint64_t raft_term, uint64_t time_ns, const struct op *op, struct publication *publication)
{
    struct schema_meta *meta = state_writer_meta(writer);
    bool sync = op != NULL && op->kind == OP_SYNC;

    INVARIANT_EQ(raft_index, meta->applied_index + 1);
    keyspace->writer = writer;
    keyspace->publication = publication;
    keyspace->meta = meta;
    keyspace->raft_index = raft_index;
    meta->time_ns = MAX(meta->time_ns, time_ns); /* never back, whoever leads */

    begin_entry(keyspace);
    TRY(tree_expire(keyspace, sync ? KEYSPACE_SYNC_EXPIRY_MAX : KEYSPACE_EXPIRY_MAX));
    if (op != NULL) {
        TRY(apply_op(keyspace, op));
        publish_outcome(keyspace, op);
    }
    TRY(state_write_trash_free(writer, sync ? KEYSPACE_SYNC_TRASH_MAX : KEYSPACE_TRASH_MAX));
    meta->applied_index = raft_index;
    meta->applied_term = raft_term;
    return 0;
}

int keyspace_next_deadline(
        struct state_writer *writer, uint64_t *ret_deadline_ns, bool *ret_has_ttl_keys)
{
    uint64_t now_ns = state_writer_meta(writer)->time_ns;
    uint64_t first_ns = 0;

    TRY(state_write_expiry_first(writer, &first_ns));
    int empty = state_write_trash_is_empty(writer);
    TRY(empty);
    *ret_has_ttl_keys = first_ns != 0;
    /* What is left over is due at once: the time of the last entry has passed it already. */
    *ret_deadline_ns = empty == 0 || (first_ns != 0 && first_ns <= now_ns) ? now_ns : first_ns;
    return 0;
}
