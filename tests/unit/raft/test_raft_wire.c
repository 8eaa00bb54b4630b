/* test_raft_wire.c: the core's messages as bytes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/raftd/raft/wire.h"
#include "tests/sim/rng.h"

static struct raft_change read_change(struct span data)
{
    struct raft_change change = { RAFT_CHANGE_NOTHING, 0 };
    if (data.bytes == 2) {
        change = (struct raft_change){ (enum raft_change_kind)data.data[0], data.data[1] };
    }
    return change;
}

static void assert_ids_equal(struct raft_ids a, struct raft_ids b)
{
    assert_int_equal(a.count, b.count);
    for (size_t i = 0; i < a.count; i++) {
        assert_int_equal(a.items[i], b.items[i]);
    }
}

static void assert_messages_equal(const struct raft_message *a, const struct raft_message *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->reject, b->reject);
    assert_int_equal(a->transfer, b->transfer);
    assert_int_equal(a->reason, b->reason);
    assert_int_equal(a->from, b->from);
    assert_int_equal(a->to, b->to);
    assert_int_equal(a->term, b->term);
    assert_int_equal(a->index, b->index);
    assert_int_equal(a->log_term, b->log_term);
    assert_int_equal(a->commit, b->commit);
    assert_int_equal(a->hint_index, b->hint_index);
    assert_int_equal(a->hint_term, b->hint_term);
    assert_int_equal(a->context, b->context);
    assert_int_equal(a->time_ns, b->time_ns);
    assert_int_equal(a->wall_ns, b->wall_ns);
    assert_int_equal(a->base.index, b->base.index);
    assert_int_equal(a->base.term, b->base.term);
    assert_int_equal(a->base.time_ns, b->base.time_ns);
    assert_ids_equal(a->base.members.voters, b->base.members.voters);
    assert_ids_equal(a->base.members.learners, b->base.members.learners);
    assert_ids_equal(a->base.members.removed, b->base.members.removed);
    assert_int_equal(a->entries.count, b->entries.count);
    for (size_t i = 0; i < a->entries.count; i++) {
        const struct raft_entry *x = &a->entries.items[i];
        const struct raft_entry *y = &b->entries.items[i];
        assert_int_equal(x->index, y->index);
        assert_int_equal(x->term, y->term);
        assert_int_equal(x->time_ns, y->time_ns);
        assert_int_equal(x->kind, y->kind);
        assert_true(span_eq(x->data, y->data));
        assert_int_equal(x->change.kind, y->change.kind);
        assert_int_equal(x->change.member_id, y->change.member_id);
    }
}

static uint64_t any(struct rng *rng)
{
    return rng_chance(rng, 400) ? 0 : rng_next(rng) >> rng_below(rng, 64);
}

static void every_message_comes_back_as_it_was(void **state)
{
    (void)state;
    struct raft_wire wire = { 0 };
    struct buf out = BUF_INIT;
    struct rng rng = { 1 };
    uint8_t data[5000] = { RAFT_CHANGE_PROMOTE, 9 };
    uint64_t ids[40];
    for (size_t i = 0; i < ARRAY_COUNT(ids); i++) {
        ids[i] = rng_next(&rng);
    }
    for (int i = 0; i < 3000; i++) {
        struct raft_entry entries[10] = { 0 };
        struct raft_message message = {
            .kind = (enum raft_message_kind)rng_between(&rng, 1, RAFT_MESSAGE_KIND_END - 1),
            .reject = rng_chance(&rng, 500),
            .transfer = rng_chance(&rng, 500),
            .reason = (uint32_t)rng_below(&rng, RAFT_REFUSAL_STOPPED + 1),
            .from = any(&rng),
            .to = any(&rng),
            .term = any(&rng),
            .index = any(&rng),
            .log_term = any(&rng),
            .commit = any(&rng),
            .hint_index = any(&rng),
            .hint_term = any(&rng),
            .context = any(&rng),
            .time_ns = any(&rng),
            .wall_ns = any(&rng),
            .entries = { entries, (size_t)rng_below(&rng, 10) },
            .base = { any(&rng), any(&rng), any(&rng),
                    { { ids, (size_t)rng_below(&rng, 40) }, { ids, (size_t)rng_below(&rng, 3) },
                            { ids, (size_t)rng_below(&rng, 3) } } },
        };
        for (size_t j = 0; j < message.entries.count; j++) {
            entries[j] = (struct raft_entry){ .index = any(&rng),
                .term = any(&rng),
                .time_ns = any(&rng),
                .kind = RAFT_ENTRY_OP,
                .data = span_of(data, rng_below(&rng, sizeof data)) };
            if (rng_chance(&rng, 200)) {
                entries[j].kind = RAFT_ENTRY_CONFIG;
                entries[j].data.bytes = 2;
                entries[j].change = (struct raft_change){ RAFT_CHANGE_PROMOTE, 9 };
            }
        }
        struct raft_message back;
        struct err err = { 0 };
        buf_clear(&out);
        raft_wire_encode(&wire, &message, &out);
        assert_int_equal(raft_wire_decode(&wire, buf_span(&out), read_change, &back, &err), 0);
        assert_messages_equal(&message, &back);
    }
    buf_fini(&out);
    raft_wire_fini(&wire);
}

/* These bytes have been on the wire: they decode for ever, and mean this. */
static void known_bytes_keep_their_meaning(void **state)
{
    (void)state;
    static const uint8_t golden[] = { 0x88, 0x01, 0x05, 0x02, 0x07, 0x03, 0x08, 0x04, 0x03, 0x05,
        0x09, 0x06, 0x02, 0x07, 0x04, 0x10, 0x91, 0xc4, 0x10, 0x85, 0x01, 0x0a, 0x02, 0x03, 0x03,
        0xcd, 0x03, 0xe8, 0x04, 0x01, 0x05, 0xc4, 0x02, 'h', 'i' };
    struct raft_wire wire = { 0 };
    struct buf out = BUF_INIT;
    struct raft_entry entry = {
        .index = 10, .term = 3, .time_ns = 1000, .kind = RAFT_ENTRY_OP, .data = SPAN_LIT("hi")
    };
    struct raft_message message = { .kind = RAFT_MESSAGE_APPEND,
        .from = 7,
        .to = 8,
        .term = 3,
        .index = 9,
        .log_term = 2,
        .commit = 4,
        .entries = { &entry, 1 } };
    struct raft_message back;
    raft_wire_encode(&wire, &message, &out);
    assert_int_equal(out.bytes, sizeof golden);
    assert_memory_equal(out.data, golden, sizeof golden);
    assert_int_equal(
            raft_wire_decode(&wire, span_of(golden, sizeof golden), read_change, &back, NULL), 0);
    assert_messages_equal(&message, &back);
    buf_fini(&out);
    raft_wire_fini(&wire);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct raft_wire wire = { 0 };
    struct buf out = BUF_INIT;
    uint64_t id = 5;
    struct raft_entry entry = { .index = 10, .term = 3, .data = SPAN_LIT("some data") };
    struct raft_message message = { .kind = RAFT_MESSAGE_APPEND,
        .from = 7,
        .to = 8,
        .term = 3,
        .entries = { &entry, 1 },
        .base = { .members = { .voters = { &id, 1 } } } };
    struct raft_message back;
    raft_wire_encode(&wire, &message, &out);
    for (size_t bytes = 0; bytes < out.bytes; bytes++) {
        assert_int_equal(
                raft_wire_decode(&wire, span_of(out.data, bytes), read_change, &back, NULL),
                -EBADMSG);
    }
    buf_fini(&out);
    raft_wire_fini(&wire);
}

static void flipped_bytes_never_hurt(void **state)
{
    (void)state;
    struct raft_wire wire = { 0 };
    struct buf out = BUF_INIT;
    struct rng rng = { 3 };
    uint64_t ids[] = { 5, 6, 7 };
    struct raft_entry entries[2] = { { .index = 10, .term = 3, .data = SPAN_LIT("some data") },
        { .index = 11, .term = 3, .kind = RAFT_ENTRY_CONFIG, .data = SPAN_LIT("ab") } };
    struct raft_message message = { .kind = RAFT_MESSAGE_SNAPSHOT,
        .from = 7,
        .to = 8,
        .term = 3,
        .entries = { entries, 2 },
        .base = { .index = 4, .term = 2, .members = { .voters = { ids, 3 } } } };
    raft_wire_encode(&wire, &message, &out);
    uint8_t *copy = xmalloc(out.bytes);
    for (int i = 0; i < 20000; i++) {
        struct raft_message back;
        memcpy(copy, out.data, out.bytes);
        for (uint64_t flips = rng_between(&rng, 1, 4); flips > 0; flips--) {
            copy[rng_below(&rng, out.bytes)] = (uint8_t)rng_next(&rng);
        }
        int result = raft_wire_decode(&wire, span_of(copy, out.bytes), read_change, &back, NULL);
        assert_true(result == 0 || result == -EBADMSG);
    }
    free(copy);
    buf_fini(&out);
    raft_wire_fini(&wire);
}

static void unknown_kinds_are_refused(void **state)
{
    (void)state;
    struct raft_wire wire = { 0 };
    struct buf out = BUF_INIT;
    struct raft_message back;
    static const uint64_t kinds[] = { 0, RAFT_MESSAGE_KIND_END, 1000 };
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        struct raft_message message = { .kind = (enum raft_message_kind)kinds[i], .from = 1 };
        buf_clear(&out);
        raft_wire_encode(&wire, &message, &out);
        assert_int_equal(
                raft_wire_decode(&wire, buf_span(&out), read_change, &back, NULL), -EBADMSG);
    }
    buf_fini(&out);
    raft_wire_fini(&wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back_as_it_was),
        cmocka_unit_test(known_bytes_keep_their_meaning),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(flipped_bytes_never_hurt),
        cmocka_unit_test(unknown_kinds_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
