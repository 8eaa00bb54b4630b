#include "daemons/stored/replica.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemons/stored/keyspace.h"
#include "proto/op.h"

enum {
    KEPT_BYTES = 1024 * 1024
};

struct replica {
    struct state_writer *writer;
    struct keyspace *keyspace;
    struct publication gathering;
    struct buf published; /* encoded batch of the last commit */
    struct buf encoding;  /* of the running one */
    struct codec_scratch entry_scratch;
    struct codec_scratch op_scratch;
    char boot_id[40];
};

/* The publication of the process before this one, which may have died before it was sent. */
static int load_publication(struct replica *replica, struct err *err)
{
    struct span record;

    TRY(state_writer_begin(replica->writer, err));
    int result = state_write_record_find(replica->writer, "publication", &record);
    if (result == 0) {
        buf_append_span(&replica->published, record);
    }
    state_writer_abort(replica->writer);
    return result == -ENOENT ? 0 : result;
}

int replica_open(const struct replica_config *config, struct replica **ret_replica, struct err *err)
{
    struct replica *replica = xcalloc(1, sizeof *replica);

    replica->keyspace = keyspace_new(&config->history);
    (void)snprintf(replica->boot_id, sizeof replica->boot_id, "%s", config->boot_id);
    int result = state_writer_open(
            config->dir, config->map_bytes, config->create, &replica->writer, err);
    if (result == 0) {
        result = load_publication(replica, err);
    }
    if (result < 0) {
        (void)replica_close(replica);
        return result;
    }
    *ret_replica = replica;
    return 0;
}

struct replica *replica_close(struct replica *replica)
{
    if (replica != NULL) {
        replica->writer = state_writer_close(replica->writer);
        replica->keyspace = keyspace_free(replica->keyspace);
        publication_fini(&replica->gathering);
        buf_fini(&replica->published);
        buf_fini(&replica->encoding);
        codec_scratch_fini(&replica->entry_scratch);
        codec_scratch_fini(&replica->op_scratch);
        free(replica);
    }
    return NULL;
}

struct state_writer *replica_writer(struct replica *replica)
{
    return replica->writer;
}

const struct schema_meta *replica_meta(const struct replica *replica)
{
    return state_writer_meta(replica->writer);
}

int replica_set_ids(
        struct replica *replica, uint64_t cluster_id, uint64_t member_id, struct err *err)
{
    TRY(state_writer_begin(replica->writer, err));
    struct schema_meta *meta = state_writer_meta(replica->writer);
    meta->cluster_id = cluster_id;
    meta->member_id = member_id;
    return state_writer_commit(replica->writer, err);
}

int replica_set_complete_at(struct replica *replica, uint64_t index, struct err *err)
{
    TRY(state_writer_begin(replica->writer, err));
    state_writer_meta(replica->writer)->complete_at = index;
    return state_writer_commit(replica->writer, err);
}

/* An op that cannot be read is applied as one that does nothing, as on every member. */
static const struct op *decode_op(struct replica *replica, const struct entry *entry, struct op *op)
{
    if (entry->data.bytes == 0) {
        return NULL;
    }
    codec_scratch_reset(&replica->op_scratch);
    if (op_decode(entry->data, op, &replica->op_scratch, NULL) < 0) {
        *op = (struct op){ .kind = 0 };
    }
    return op;
}

static int apply_entry(struct replica *replica, const struct entry *entry)
{
    struct op decoded;
    const struct op *op = decode_op(replica, entry, &decoded);

    return keyspace_apply(replica->keyspace, replica->writer, entry->index, entry->term,
            entry->time_ns, op, &replica->gathering);
}

/* 1: the entry was applied; 0: it is known already; -EPROTO: it does not continue the state. */
static int take_entry(
        struct replica *replica, struct span encoded, uint64_t *last_index, struct err *err)
{
    const struct schema_meta *meta = state_writer_meta(replica->writer);
    struct entry entry;

    codec_scratch_reset(&replica->entry_scratch);
    TRY(entry_decode(encoded, &entry, &replica->entry_scratch, err));
    if (entry.index != *last_index + 1) {
        return err_set(
                err, -EBADMSG, "entry %" PRIu64 " follows %" PRIu64, entry.index, *last_index);
    }
    *last_index = entry.index;
    if (entry.index < meta->applied_index) {
        return 0;
    }
    if (entry.index == meta->applied_index) {
        return entry.term == meta->applied_term ? 0 : -EPROTO;
    }
    int result = apply_entry(replica, &entry);
    if (result < 0) {
        return err_set(err, result, "apply entry %" PRIu64 ": %s", entry.index, strerror(-result));
    }
    return 1;
}

static int save_publication(struct replica *replica, uint64_t first_index, uint64_t now_boottime_ns)
{
    struct schema_meta *meta = state_writer_meta(replica->writer);
    struct batch batch = {
        .first_index = first_index,
        .last_index = meta->applied_index,
        .term = meta->applied_term,
        .etcd_index = meta->etcd_index,
        .time_ns = meta->time_ns,
        .boottime_ns = now_boottime_ns,
    };

    meta->boottime_ns = now_boottime_ns;
    memcpy(meta->boot_id, replica->boot_id, sizeof meta->boot_id);
    buf_clear(&replica->encoding);
    buf_trim(&replica->encoding, KEPT_BYTES);
    publication_encode(&replica->gathering, &batch, &replica->encoding);
    return state_write_record_put(replica->writer, "publication", buf_span(&replica->encoding));
}

/* Applies what fits one transaction; returns -EPROTO where the batch does not continue the state. */
static int apply_part(struct replica *replica, const struct apply *batch,
        struct replica_result *result, struct err *err)
{
    uint64_t last_index = batch->prev_index;

    for (size_t i = 0; i < batch->entries.count; i++) {
        if (replica->gathering.outcomes.bytes >= REPLICA_OUTCOME_BYTES_MAX) {
            result->more = true;
            break;
        }
        int taken = take_entry(replica, batch->entries.items[i], &last_index, err);
        TRY(taken);
        result->applied_count += (unsigned)taken;
    }
    return keyspace_next_deadline(
            replica->writer, &result->next_deadline_ns, &result->has_ttl_keys);
}

static bool continues(const struct schema_meta *meta, const struct apply *batch)
{
    if (batch->prev_index == meta->applied_index) {
        return batch->prev_term == meta->applied_term;
    }
    return batch->prev_index < meta->applied_index;
}

static int finish(struct replica *replica, uint64_t first_index, uint64_t now_boottime_ns,
        struct replica_result *result, struct err *err)
{
    if (result->applied_count == 0) {
        state_writer_abort(replica->writer);
        return 0;
    }
    int code = save_publication(replica, first_index, now_boottime_ns);
    if (code < 0) {
        return err_set(err, code, "save publication: %s", strerror(-code));
    }
    TRY(state_writer_commit(replica->writer, err));
    struct buf old = replica->published;
    replica->published = replica->encoding;
    replica->encoding = old;
    return 0;
}

int replica_apply(struct replica *replica, const struct apply *batch, uint64_t now_boottime_ns,
        struct replica_result *ret_result, struct err *err)
{
    struct replica_result result = { .refused = !continues(replica_meta(replica), batch) };
    uint64_t first_index = replica_meta(replica)->applied_index + 1;

    if (result.refused) {
        *ret_result = result;
        return 0;
    }
    publication_clear(&replica->gathering);
    TRY(state_writer_begin(replica->writer, err));
    int code = apply_part(replica, batch, &result, err);
    if (code == 0) {
        code = finish(replica, first_index, now_boottime_ns, &result, err);
    }
    if (code < 0) {
        state_writer_abort(replica->writer);
        keyspace_forget(replica->keyspace);
        if (code != -EPROTO) {
            return code;
        }
        result = (struct replica_result){ .refused = true };
    }
    *ret_result = result;
    return 0;
}

int replica_deadline(struct replica *replica, struct replica_result *ret_result, struct err *err)
{
    struct replica_result result = { .refused = false };

    TRY(state_writer_begin(replica->writer, err));
    int code =
            keyspace_next_deadline(replica->writer, &result.next_deadline_ns, &result.has_ttl_keys);
    state_writer_abort(replica->writer);
    if (code < 0) {
        return err_set(err, code, "read deadlines: %s", strerror(-code));
    }
    *ret_result = result;
    return 0;
}

struct span replica_publication(struct replica *replica)
{
    return buf_span(&replica->published);
}
