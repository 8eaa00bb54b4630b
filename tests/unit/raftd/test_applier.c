/* test_applier.c: entries on their way to a stored that the test plays, over a real socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/conf.h"
#include "daemons/raftd/applier.h"
#include "proto/hello.h"
#include "tests/unit/proto/link_harness.h"

enum {
    STALL_MS = 1000,
    TERM = 7
};

struct bench {
    struct harness *harness;
    struct applier *applier;
    struct link_hub *stored;
    struct link *link; /* of stored; NULL: not up */
    unsigned ups;      /* as the applier told */
    unsigned downs;
    unsigned dones;
    uint64_t resumed_at; /* on_resume's index */

    /* what stored heard */
    unsigned orders; /* to go on */
    unsigned batches;
    uint64_t prev_index; /* of the last batch */
    uint64_t prev_term;
    uint64_t first_index;
    uint64_t last_index;
    unsigned expected; /* for the claims */
};

static struct bench *the_bench; /* for harness_run's claims */

/* ---- raftd's side ---- */

static void fill_hello(void *user UNUSED, struct hello *ret_hello)
{
    ret_hello->component = SPAN_LIT("raftd");
}

static void on_up(void *user, const struct hello *peer UNUSED)
{
    struct bench *bench = user;
    bench->ups++;
}

static void on_down(void *user)
{
    struct bench *bench = user;
    bench->downs++;
}

static void on_resume(void *user, uint64_t index, uint64_t term)
{
    struct bench *bench = user;
    assert_int_equal(term, TERM);
    bench->resumed_at = index;
}

static void on_done(void *user, const struct apply_done *done UNUSED)
{
    struct bench *bench = user;
    bench->dones++;
}

static void on_snapshot_made(void *user UNUSED, const struct snapshot_made *made UNUSED)
{
    fail();
}

static void on_snapshot_bad(void *user UNUSED, const struct snapshot_bad *bad UNUSED)
{
    fail();
}

static const struct applier_events events = {
    .fill_hello = fill_hello,
    .on_up = on_up,
    .on_down = on_down,
    .on_resume = on_resume,
    .on_done = on_done,
    .on_snapshot_made = on_snapshot_made,
    .on_snapshot_bad = on_snapshot_bad,
};

/* ---- stored's side ---- */

static int stored_up(
        void *user, struct link *link, const struct hello *peer UNUSED, struct err *err UNUSED)
{
    struct bench *bench = user;
    bench->link = link;
    return 0;
}

static void stored_down(void *user, struct link *link UNUSED)
{
    struct bench *bench = user;
    bench->link = NULL;
}

static void take_batch(struct bench *bench, struct span body)
{
    struct codec_scratch scratch = { 0 };
    struct codec_scratch inner = { 0 };
    struct apply apply;
    struct entry entry;

    assert_int_equal(apply_decode(body, &apply, &scratch, NULL), 0);
    assert_true(apply.entries.count > 0);
    assert_int_equal(entry_decode(apply.entries.items[0], &entry, &inner, NULL), 0);
    bench->batches++;
    bench->prev_index = apply.prev_index;
    bench->prev_term = apply.prev_term;
    bench->first_index = entry.index;
    bench->last_index = entry.index + apply.entries.count - 1;
    codec_scratch_fini(&scratch);
    codec_scratch_fini(&inner);
}

static void stored_message(void *user, struct link *link UNUSED, unsigned type, struct span body)
{
    struct bench *bench = user;

    bench->orders += type == (unsigned)state_go_type;
    if (type == (unsigned)apply_type) {
        take_batch(bench, body);
    }
}

static void fill_stored_hello(void *user UNUSED, struct hello *ret_hello)
{
    ret_hello->component = SPAN_LIT("stored");
}

static const struct link_events stored_handlers = {
    .on_up = stored_up,
    .on_down = stored_down,
    .on_message = stored_message,
    .fill_hello = fill_stored_hello,
};

/* ---- Claims and steps ---- */

static bool are_both_up(struct harness *harness UNUSED)
{
    return the_bench->link != NULL && the_bench->ups == the_bench->expected;
}

static bool is_heard(struct harness *harness UNUSED)
{
    return the_bench->batches == the_bench->expected;
}

static bool is_ordered(struct harness *harness UNUSED)
{
    return the_bench->orders == the_bench->expected;
}

static bool is_done(struct harness *harness UNUSED)
{
    return the_bench->dones == the_bench->expected;
}

static bool is_down(struct harness *harness UNUSED)
{
    return the_bench->downs == the_bench->expected;
}

static void await(struct bench *bench, bool (*claim)(struct harness *), unsigned count)
{
    bench->expected = count;
    harness_run(bench->harness, claim, "stored and raftd have heard each other");
}

static int set_up(void **state)
{
    static const struct conf_uids anybody;
    struct bench *bench = xcalloc(1, sizeof *bench);
    struct err err = { 0 };
    void *harness = NULL;

    if (harness_setup(&harness) != 0) {
        return -1;
    }
    bench->harness = harness;
    the_bench = bench;
    if (applier_open(bench->harness->loop, bench->harness->path, &anybody, &events, bench,
                &bench->applier, &err) < 0) {
        return -1;
    }
    struct link_config config = { .pattern = LINK_PAIR,
        .path = bench->harness->path,
        .events = &stored_handlers,
        .user = bench };
    if (link_hub_open(bench->harness->loop, &config, &bench->stored, &err) < 0) {
        return -1;
    }
    await(bench, are_both_up, 1);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    void *harness = bench->harness;

    bench->stored = link_hub_close(bench->stored);
    bench->applier = applier_close(bench->applier);
    free(bench);
    return harness_teardown(&harness);
}

/* Entries first to last are committed and durable. */
static void add(struct bench *bench, uint64_t first, uint64_t last)
{
    for (uint64_t index = first; index <= last; index++) {
        struct raft_entry entry = {
            .index = index, .term = TERM, .kind = RAFT_ENTRY_OP, .data = SPAN_LIT("an op")
        };
        applier_add(bench->applier, (struct raft_entry_span){ &entry, 1 });
    }
    applier_flush(bench->applier, 0);
}

static void answer(struct bench *bench, uint64_t index, bool refused)
{
    struct apply_done done = { .index = index, .term = TERM, .refused = refused };
    struct buf body = BUF_INIT;

    done.present = UINT64_MAX;
    apply_done_encode(&done, &body);
    assert_int_equal(link_send(bench->link, apply_done_type, &body), 0);
    await(bench, is_done, bench->dones + 1);
    applier_flush(bench->applier, 0);
}

static void go(struct bench *bench, uint64_t index)
{
    applier_go(bench->applier, 1, 2, index, index == 0 ? 0 : TERM);
    await(bench, is_ordered, bench->orders + 1);
}

/* ---- Tests ---- */

static void what_gathers_goes_once_it_is_as_much_as_is_under_way(void **state)
{
    struct bench *bench = *state;

    go(bench, 0);
    add(bench, 1, 3);
    await(bench, is_heard, 1);
    assert_int_equal(bench->prev_index, 0);
    assert_int_equal(bench->last_index, 3);
    add(bench, 4, 5); /* two, and three are under way */
    add(bench, 6, 6);
    await(bench, is_heard, 2);
    assert_int_equal(bench->prev_index, 3);
    assert_int_equal(bench->prev_term, TERM);
    assert_int_equal(bench->first_index, 4);
    assert_int_equal(bench->last_index, 6);
    add(bench, 7, 7);
    answer(bench, 6, false);
    await(bench, is_heard, 3);
    assert_int_equal(bench->first_index, 7);
}

static void who_refuses_is_sent_what_follows_its_own_position(void **state)
{
    struct bench *bench = *state;

    go(bench, 0);
    add(bench, 1, 4);
    await(bench, is_heard, 1);
    add(bench, 5, 6); /* gathered, and void with the refusal */
    answer(bench, 2, true);
    assert_int_equal(bench->resumed_at, 2);
    add(bench, 3, 6); /* handed out again */
    await(bench, is_heard, 2);
    assert_int_equal(bench->prev_index, 2);
    assert_int_equal(bench->prev_term, TERM);
    assert_int_equal(bench->first_index, 3);
    assert_int_equal(bench->last_index, 6);
}

static void nothing_outlives_its_link(void **state)
{
    struct bench *bench = *state;

    go(bench, 0);
    add(bench, 1, 3);
    await(bench, is_heard, 1);
    add(bench, 4, 5);
    link_drop(bench->link);
    await(bench, is_down, 1);
    await(bench, are_both_up, 2);
    add(bench, 6, 6); /* before the order: nobody's */
    go(bench, 1);
    add(bench, 2, 4);
    await(bench, is_heard, 2);
    assert_int_equal(bench->prev_index, 1);
    assert_int_equal(bench->first_index, 2);
    assert_int_equal(bench->last_index, 4);
}

/* Every frame is acknowledged, and nothing comes of it. */
static void a_link_on_which_nothing_is_applied_for_a_second_is_dropped(void **state)
{
    struct bench *bench = *state;

    go(bench, 0);
    applier_check(bench->applier, clock_monotonic_ms() + 10 * STALL_MS); /* idle: nothing is due */
    add(bench, 1, 3);
    await(bench, is_heard, 1);
    uint64_t latest_ms = clock_monotonic_ms(); /* by then it had been sent */
    answer(bench, 1, false);
    applier_check(bench->applier, latest_ms + STALL_MS); /* it has moved since */
    assert_int_equal(bench->downs, 0);
    assert_true(applier_is_up(bench->applier));
    applier_check(bench->applier, clock_monotonic_ms() + STALL_MS + 1);
    await(bench, is_down, 1);
    await(bench, are_both_up, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_gathers_goes_once_it_is_as_much_as_is_under_way),
        TEST(who_refuses_is_sent_what_follows_its_own_position),
        TEST(nothing_outlives_its_link),
        TEST(a_link_on_which_nothing_is_applied_for_a_second_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
