/* test_keyspace_bounds.c: no entry does unbounded work, however much there is to do: rows touched are counted, not time. */
#include <stdio.h>
#include <stdlib.h>

#include "daemons/stored/keyspace.h"
#include "tests/unit/stored/machine.h"

enum {
    CHUNK = 1000
};

/* A million only where time is no object. */
static unsigned many(void)
{
    return getenv("QUORATE_FULL") != NULL ? 1000000 : 50000;
}

static int set_up(void **state)
{
    *state = machine_new();
    return 0;
}

static int tear_down(void **state)
{
    *state = machine_free(*state);
    return 0;
}

/* many() keys, ten thousand to a directory: /many/<n>/<n>. */
static void fill(struct machine *machine, uint64_t ttl_s)
{
    struct buf bytes = BUF_INIT;
    size_t ends[CHUNK];
    struct span entries[CHUNK];

    for (unsigned key = 0; key < many();) {
        buf_clear(&bytes);
        for (size_t i = 0; i < CHUNK; i++, key++) {
            char path[64];
            (void)snprintf(path, sizeof path, "/many/%03u/%07u", key / 10000, key);
            struct op op = { .kind = OP_SET, .path = span_str(path), .value = SPAN_LIT("v") };
            if (ttl_s != 0) {
                op.ttl_s = ttl_s;
                SET(&op, op_tag_ttl_s);
            }
            machine_encode(
                    op, machine->index + i + 1, machine->time_s * UINT64_C(1000000000), &bytes);
            ends[i] = bytes.bytes;
        }
        for (size_t i = 0, start = 0; i < CHUNK; start = ends[i], i++) {
            entries[i] = span_of(bytes.data + start, ends[i] - start);
        }
        machine_apply(machine, entries, CHUNK);
    }
    buf_fini(&bytes);
}

static void a_recursive_delete_is_one_event_and_frees_in_steps(void **state)
{
    struct machine *m = *state;

    fill(m, 0);
    uint64_t nodes = machine_rows(m, SCHEMA_NODES);
    assert_true(nodes > many());
    (void)DO(m, OP_DELETE, PATH("/many"), .recursive = true);
    assert_int_equal(m->etcd_index, many() + 1);
    assert_int_equal(m->result.next_deadline_ns, m->time_s * UINT64_C(1000000000));

    unsigned steps = 0;
    while (machine_rows(m, SCHEMA_TRASH) > 0) {
        bool sync = steps % 2 == 0;
        uint64_t before = machine_rows(m, SCHEMA_NODES);
        assert_int_equal(m->result.next_deadline_ns, m->time_s * UINT64_C(1000000000));
        if (sync) {
            (void)DO(m, OP_SYNC, PATH(""));
        } else {
            (void)DO(m, OP_SET, PATH("/other"), VALUE("v"));
        }
        /* A directory that is freed takes its self record along, uncounted: twice the number at most. */
        uint64_t freed = before - MIN(before, machine_rows(m, SCHEMA_NODES));
        assert_true(freed <= (sync ? 2 * KEYSPACE_SYNC_TRASH_MAX : 2 * KEYSPACE_TRASH_MAX));
        assert_true(++steps < 4 * many() / KEYSPACE_SYNC_TRASH_MAX + 100);
    }
    assert_int_equal(m->result.next_deadline_ns, 0);
    assert_int_equal(machine_rows(m, SCHEMA_NODES), 1);
}

static void keys_of_one_deadline_expire_in_steps(void **state)
{
    struct machine *m = *state;

    fill(m, 50);
    m->time_s += 60;
    uint64_t left = machine_rows(m, SCHEMA_EXPIRY);
    assert_int_equal(left, many());
    for (unsigned steps = 0; left > 0; steps++) {
        bool sync = steps % 2 == 0;
        uint64_t index = m->etcd_index;
        if (sync) {
            (void)DO(m, OP_SYNC, PATH(""));
        } else {
            (void)machine_empty(m);
        }
        uint64_t now = machine_rows(m, SCHEMA_EXPIRY);
        uint64_t most = sync ? KEYSPACE_SYNC_EXPIRY_MAX : KEYSPACE_EXPIRY_MAX;
        assert_int_equal(left - now, MIN(left, most));
        assert_true(steps == 0 || m->etcd_index - index == left - now);
        left = now;
        if (left > 0) {
            assert_int_equal(m->result.next_deadline_ns, m->time_s * UINT64_C(1000000000));
        }
    }
    assert_int_equal(m->etcd_index, 2 * many());
    assert_false(m->result.has_ttl_keys);
}

static void large_values_expire_a_few_at_a_time(void **state)
{
    struct machine *m = *state;
    struct buf value = BUF_INIT;

    memset(buf_reserve(&value, 1 << 20), 'v', 1 << 20);
    value.bytes = 1 << 20;
    for (unsigned i = 0; i < 12; i++) {
        char path[16];
        (void)snprintf(path, sizeof path, "/k%02u", i);
        (void)machine_do(m, (struct op){ .kind = OP_SET,
                                    .path = span_str(path),
                                    .value = buf_span(&value),
                                    TTL(5) });
    }
    m->time_s += 5;
    (void)DO(m, OP_SYNC, PATH(""));
    assert_int_equal(machine_rows(m, SCHEMA_EXPIRY), 8);
    (void)DO(m, OP_SYNC, PATH(""));
    (void)DO(m, OP_SYNC, PATH(""));
    assert_int_equal(machine_rows(m, SCHEMA_EXPIRY), 0);
    buf_fini(&value);
}

static void a_detached_key_expires_without_an_event(void **state)
{
    struct machine *m = *state;

    for (unsigned i = 0; i < 100; i++) {
        char path[32];
        (void)snprintf(path, sizeof path, "/d/a/b/%02u", i);
        (void)machine_do(m, (struct op){ .kind = OP_SET, .path = span_str(path), TTL(5) });
    }
    m->time_s += 5;
    /* The entry expires sixteen, then unlinks; what it frees of the rest are thirty-two. */
    (void)DO(m, OP_DELETE, PATH("/d"), .recursive = true);
    assert_int_equal(m->etcd_index, 100 + KEYSPACE_EXPIRY_MAX + 1);
    (void)DO(m, OP_SYNC, PATH(""));
    assert_string_equal((const char *)m->others.data, "");
    assert_int_equal(m->etcd_index, 100 + KEYSPACE_EXPIRY_MAX + 1);
    assert_int_equal(machine_rows(m, SCHEMA_EXPIRY), 0);
    assert_int_equal(machine_rows(m, SCHEMA_NODES), 0);
}

static void the_history_is_pruned_to_its_limits(void **state)
{
    struct machine *m = *state;
    const struct schema_meta *meta = NULL;

    m->history = (struct state_history_limits){ .window = 100, .count = 1000, .bytes = 1 << 30 };
    machine_reopen(m);
    for (unsigned i = 0; i < 5000; i++) {
        (void)DO(m, OP_SET, PATH("/k"), VALUE("v"));
    }
    meta = replica_meta(m->replica);
    assert_in_range(meta->event_count, 1000, 1000 + 64);
    assert_int_equal(meta->event_count, machine_rows(m, SCHEMA_EVENTS));
    assert_int_equal(meta->first_event_index, 5000 - meta->event_count + 1);

    m->history.bytes = 1; /* far too small: the window stays all the same */
    machine_reopen(m);
    for (unsigned i = 0; i < 1000; i++) {
        (void)DO(m, OP_SET, PATH("/k"), VALUE("v"));
    }
    meta = replica_meta(m->replica);
    assert_in_range(meta->event_count, 100, 100 + 64);
}

static void a_batch_of_large_outcomes_becomes_several_transactions(void **state)
{
    struct machine *m = *state;
    struct buf value = BUF_INIT;
    struct buf bytes[6] = { { 0 } };
    struct span entries[6];
    struct replica_result result;

    memset(buf_reserve(&value, 3 << 20), 'v', 3 << 20);
    value.bytes = 3 << 20;
    for (unsigned i = 0; i < 6; i++) {
        struct op op = { .kind = OP_SET, .path = SPAN_LIT("/k"), .value = buf_span(&value) };
        machine_encode(op, i + 1, 1, &bytes[i]);
        entries[i] = buf_span(&bytes[i]);
    }
    struct apply batch = { .entries = { entries, 6 } };
    unsigned transactions = 0;
    do {
        assert_int_equal(replica_apply(m->replica, &batch, 1, &result, NULL), 0);
        assert_true(replica_publication(m->replica).bytes < 32 << 20);
        transactions++;
    } while (result.more);
    assert_in_range(transactions, 3, 5);
    assert_int_equal(replica_meta(m->replica)->etcd_index, 6);
    for (unsigned i = 0; i < 6; i++) {
        buf_fini(&bytes[i]);
    }
    buf_fini(&value);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_recursive_delete_is_one_event_and_frees_in_steps),
        TEST(keys_of_one_deadline_expire_in_steps),
        TEST(large_values_expire_a_few_at_a_time),
        TEST(a_detached_key_expires_without_an_event),
        TEST(the_history_is_pruned_to_its_limits),
        TEST(a_batch_of_large_outcomes_becomes_several_transactions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
