/* test_fold.c: what gatewayds that are gone had counted, in the state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/counters.h"
#include "common/state/state.h"
#include "tests/unit/stored/ring.h"

/* A gatewayd that comes, counts so many sets, and is killed. */
static void live_and_die(struct ring *f, uint64_t id, uint64_t sets)
{
    struct counters *counters = NULL;
    struct err err = { 0 };

    assert_int_equal(counters_open(f->run, id, &counters, &err), 0);
    counters_values(counters)[COUNTER_SETS_SUCCESS] = sets;
    (void)counters_close(counters);
}

static bool no_page_is_left(struct ring *f)
{
    return !counters_has_dead(f->run);
}

/* What any gatewayd would answer. Reads the state of a stored that has ended, or one of its snapshots. */
static uint64_t sets_in(const struct ring *f, const char *state_name)
{
    char dir[STATE_PATH_BYTES_MAX];
    struct state *state = NULL;
    struct state_read *read_ = NULL;
    uint64_t values[COUNTER_COUNT];

    (void)snprintf(dir, sizeof dir, "%s/member/state/%s", f->data, state_name);
    assert_int_equal(state_open_readonly(dir, 64 << 20, &state, NULL), 0);
    assert_int_equal(state_read_new(state, &read_, NULL), 0);
    assert_int_equal(state_read_begin(read_, NULL), 0);
    counters_sum(f->run, state_read_counters(read_), values);
    state_read_end(read_);
    read_ = state_read_free(read_);
    state = state_close(state);
    return values[COUNTER_SETS_SUCCESS];
}

static void end_stored(struct ring *f)
{
    f->stored = stored_free(f->stored);
}

static void pages_of_the_dead_go_into_the_state(void **state)
{
    struct ring *f = *state;

    live_and_die(f, 1, 5);
    ring_go_and_apply(f, 3);
    live_and_die(f, 2, 20);
    ring_wait_quietly(f, no_page_is_left);
    end_stored(f);
    assert_int_equal(sets_in(f, "0000000000000001"), 25);
    ring_start_stored(f);
}

static void what_dies_last_is_folded_at_the_end(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, 3);
    live_and_die(f, 1, 7);
    end_stored(f);
    assert_false(no_page_is_left(f)); /* named in the record, and removed by the next life */
    assert_int_equal(sets_in(f, "0000000000000001"), 7);
    ring_start_stored(f);
    ring_wait_quietly(f, no_page_is_left);
    end_stored(f);
    assert_int_equal(sets_in(f, "0000000000000001"), 7);
    ring_start_stored(f);
}

static bool has_made_snapshot(struct ring *f)
{
    return f->made_index != 0;
}

static void snapshots_carry_them(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, 1);
    live_and_die(f, 1, 11);
    ring_wait_quietly(f, no_page_is_left);
    ring_send_batch(f, f->index, SNAPSHOT_COUNT + 1, 0);
    ring_wait(f, has_made_snapshot);
    f->dones = 0;
    ring_order_load(f, f->made_index); /* another generation */
    ring_wait(f, ring_is_applied);
    end_stored(f);
    assert_int_equal(sets_in(f, "0000000000000002"), 11);
    ring_start_stored(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ring_set_up, ring_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pages_of_the_dead_go_into_the_state),
        TEST(what_dies_last_is_folded_at_the_end),
        TEST(snapshots_carry_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
