/* wire.c: struct raft_message <-> peer_raft, struct raft_entry <-> entry. */
#include "daemons/raftd/raft/wire.h"

#include <assert.h>
#include <errno.h>

#include "daemons/raftd/raft/vec.h"
#include "proto/apply.h"
#include "proto/peer.h"
#include "proto/propose.h"

static_assert((int)RAFT_ENTRY_EMPTY == (int)ENTRY_EMPTY, "one set of numbers");
static_assert((int)RAFT_ENTRY_OP == (int)ENTRY_OP, "one set of numbers");
static_assert((int)RAFT_ENTRY_CONFIG == (int)ENTRY_CONFIG, "one set of numbers");
static_assert((int)RAFT_ROLE_LEADER == (int)RAFT_STATE_LEADER, "one set of numbers");

enum {
    ID_BYTES = 8
};

void raft_wire_fini(struct raft_wire *wire)
{
    buf_fini(&wire->bytes);
    free(wire->spans);
    free(wire->entries);
    free(wire->ids);
    codec_scratch_fini(&wire->scratch);
    codec_scratch_fini(&wire->entry_scratch);
    *wire = (struct raft_wire){ 0 };
}

/* ---- Encoding ------------------------------------------------------------------------------------------------- */

/* Sets a number and its bit unless it is 0. */
#define PUT(out, name, value)                                                                      \
    do {                                                                                           \
        (out)->name = (value);                                                                     \
        if ((out)->name) {                                                                         \
            SET((out), peer_raft_tag_##name);                                                      \
        }                                                                                          \
    } while (0)

/* Entries and ids are written into wire->bytes one after the other; their views are made once it no longer moves. */
static void encode_entries(struct raft_wire *wire, struct raft_entry_span entries)
{
    wire->spans =
            vec_reserve(wire->spans, &wire->span_capacity, entries.count, sizeof *wire->spans);
    for (size_t i = 0; i < entries.count; i++) {
        const struct raft_entry *from = &entries.items[i];
        struct entry to = { .index = from->index,
            .term = from->term,
            .time_ns = from->time_ns,
            .kind = (uint64_t)from->kind,
            .data = from->data };
        if (from->data.bytes > 0) {
            SET(&to, entry_tag_data);
        }
        size_t begin = wire->bytes.bytes;
        entry_encode(&to, &wire->bytes);
        wire->spans[i].bytes = wire->bytes.bytes - begin;
    }
}

static void encode_ids(struct raft_wire *wire, struct raft_ids ids)
{
    for (size_t i = 0; i < ids.count; i++) {
        for (int shift = 56; shift >= 0; shift -= 8) {
            buf_append_byte(&wire->bytes, (uint8_t)(ids.items[i] >> shift));
        }
    }
}

static struct span take_span(const uint8_t **cursor, size_t bytes)
{
    struct span span = span_of(*cursor, bytes);
    *cursor += bytes;
    return span;
}

void raft_wire_encode(struct raft_wire *wire, const struct raft_message *message, struct buf *out)
{
    const struct raft_members *members = &message->base.members;
    struct peer_raft to = { .kind = (uint64_t)message->kind,
        .from = message->from,
        .to = message->to,
        .term = message->term };
    PUT(&to, index, message->index);
    PUT(&to, log_term, message->log_term);
    PUT(&to, commit, message->commit);
    PUT(&to, reject, message->reject);
    PUT(&to, transfer, message->transfer);
    PUT(&to, reason, message->reason);
    PUT(&to, hint_index, message->hint_index);
    PUT(&to, hint_term, message->hint_term);
    PUT(&to, context, message->context);
    PUT(&to, time_ns, message->time_ns);
    PUT(&to, wall_ns, message->wall_ns);
    PUT(&to, base_index, message->base.index);
    PUT(&to, base_term, message->base.term);
    PUT(&to, base_time_ns, message->base.time_ns);

    buf_clear(&wire->bytes);
    encode_entries(wire, message->entries);
    encode_ids(wire, members->voters);
    encode_ids(wire, members->learners);
    encode_ids(wire, members->removed);
    const uint8_t *cursor = wire->bytes.data;
    if (message->entries.count > 0) {
        for (size_t i = 0; i < message->entries.count; i++) {
            wire->spans[i] = take_span(&cursor, wire->spans[i].bytes);
        }
        to.entries = (struct span_list){ wire->spans, message->entries.count };
        SET(&to, peer_raft_tag_entries);
    }
    if (members->voters.count > 0) {
        to.voters = take_span(&cursor, members->voters.count * ID_BYTES);
        SET(&to, peer_raft_tag_voters);
    }
    if (members->learners.count > 0) {
        to.learners = take_span(&cursor, members->learners.count * ID_BYTES);
        SET(&to, peer_raft_tag_learners);
    }
    if (members->removed.count > 0) {
        to.removed = take_span(&cursor, members->removed.count * ID_BYTES);
        SET(&to, peer_raft_tag_removed);
    }
    peer_raft_encode(&to, out);
}

/* ---- Decoding ------------------------------------------------------------------------------------------------- */

static int decode_entry(struct raft_wire *wire, struct span input, raft_wire_change_fn read_change,
        struct raft_entry *ret_entry, struct err *err)
{
    struct entry from;
    codec_scratch_reset(&wire->entry_scratch);
    TRY(entry_decode(input, &from, &wire->entry_scratch, err));
    if (from.kind > ENTRY_CONFIG) {
        return err_set(
                err, -EBADMSG, "entry %" PRIu64 ": unknown kind %" PRIu64, from.index, from.kind);
    }
    *ret_entry = (struct raft_entry){ .index = from.index,
        .term = from.term,
        .time_ns = from.time_ns,
        .kind = (enum raft_entry_kind)from.kind,
        .data = from.data };
    if (from.kind == ENTRY_CONFIG) {
        ret_entry->change = read_change(from.data);
    }
    return 0;
}

/* Ids are taken from wire->ids, which has room for all of the message's. */
static int decode_ids(
        struct span input, uint64_t **cursor, struct raft_ids *ret_ids, struct err *err)
{
    if (input.bytes % ID_BYTES != 0) {
        return err_set(err, -EBADMSG, "peer_raft: %zu bytes of member ids", input.bytes);
    }
    *ret_ids = (struct raft_ids){ *cursor, input.bytes / ID_BYTES };
    for (size_t i = 0; i < ret_ids->count; i++) {
        uint64_t id = 0;
        for (size_t j = 0; j < ID_BYTES; j++) {
            id = id << 8 | input.data[i * ID_BYTES + j];
        }
        *(*cursor)++ = id;
    }
    return 0;
}

static int decode_members(struct raft_wire *wire, const struct peer_raft *from,
        struct raft_members *ret_members, struct err *err)
{
    size_t count = (from->voters.bytes + from->learners.bytes + from->removed.bytes) / ID_BYTES;
    wire->ids = vec_reserve(wire->ids, &wire->id_capacity, count, sizeof *wire->ids);
    uint64_t *cursor = wire->ids;
    TRY(decode_ids(from->voters, &cursor, &ret_members->voters, err));
    TRY(decode_ids(from->learners, &cursor, &ret_members->learners, err));
    return decode_ids(from->removed, &cursor, &ret_members->removed, err);
}

int raft_wire_decode(struct raft_wire *wire, struct span input, raft_wire_change_fn read_change,
        struct raft_message *ret_message, struct err *err)
{
    struct peer_raft from;
    codec_scratch_reset(&wire->scratch);
    TRY(peer_raft_decode(input, &from, &wire->scratch, err));
    if (from.kind == 0 || from.kind >= RAFT_MESSAGE_KIND_END ||
            from.reason > RAFT_WIRE_REASON_MAX) {
        return err_set(err, -EBADMSG, "peer_raft: unknown kind %" PRIu64 " or reason %" PRIu64,
                from.kind, from.reason);
    }
    struct raft_message to = { .kind = (enum raft_message_kind)from.kind,
        .reject = from.reject,
        .transfer = from.transfer,
        .reason = (uint32_t)from.reason,
        .from = from.from,
        .to = from.to,
        .term = from.term,
        .index = from.index,
        .log_term = from.log_term,
        .commit = from.commit,
        .hint_index = from.hint_index,
        .hint_term = from.hint_term,
        .context = from.context,
        .time_ns = from.time_ns,
        .wall_ns = from.wall_ns,
        .base = {
                .index = from.base_index, .term = from.base_term, .time_ns = from.base_time_ns } };
    TRY(decode_members(wire, &from, &to.base.members, err));
    wire->entries = vec_reserve(
            wire->entries, &wire->entry_capacity, from.entries.count, sizeof *wire->entries);
    for (size_t i = 0; i < from.entries.count; i++) {
        TRY(decode_entry(wire, from.entries.items[i], read_change, &wire->entries[i], err));
    }
    to.entries = (struct raft_entry_span){ wire->entries, from.entries.count };
    *ret_message = to;
    return 0;
}
