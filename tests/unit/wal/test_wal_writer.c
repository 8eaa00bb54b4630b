/* test_wal_writer.c: batches, their syncs, and what comes back of them. */
#include "tests/unit/wal/writer_bench.h"

#include <errno.h>
#include <unistd.h>

static void what_queues_up_during_a_sync_becomes_one_batch_with_one_sync(void **state)
{
    struct bench *bench = *state;
    enum {
        COUNT = 20
    };
    bench_close_gate(bench);
    writer_submit(bench->writer, bench_item(bench, 0));
    bench_await_waiting_sync(bench);
    for (unsigned i = 1; i < COUNT; i++) {
        writer_submit(bench->writer, bench_item(bench, i));
    }
    assert_int_equal(bench->done_count, 0); /* nothing is promised before the sync */
    bench_open_gate(bench);
    bench_await_done(bench, COUNT);
    assert_int_equal(bench->batch_count, 2);
    assert_int_equal(bench->fault.sync_count, 2);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(bench->done_seqs[i], i);
        assert_int_equal(bench->done_results[i], 0);
    }
    bench_expect_recovered(bench, COUNT);
}

static void inline_writing_is_for_the_idle_and_otherwise_declined(void **state)
{
    struct bench *bench = *state;
    struct err err = { .code = 0 };
    assert_true(writer_is_idle(bench->writer));
    assert_int_equal(writer_write_inline(bench->writer, bench_item(bench, 0), &err), 0);
    assert_int_equal(bench->items[0].result, 0);
    assert_int_equal(bench->fault.sync_count, 1);
    assert_int_equal(bench->done_count, 0); /* the answer is the return value */

    bench_close_gate(bench);
    writer_submit(bench->writer, bench_item(bench, 1));
    bench_await_waiting_sync(bench);
    assert_false(writer_is_idle(bench->writer));
    assert_int_equal(writer_write_inline(bench->writer, bench_item(bench, 2), &err), -EAGAIN);
    writer_submit(bench->writer, bench_item(bench, 2));
    bench_open_gate(bench);
    bench_await_done(bench, 2);
    bench_expect_recovered(bench, 3);
}

static void a_moved_commit_index_needs_no_sync(void **state)
{
    struct bench *bench = *state;
    struct wal_hard_state hard = { 1, 0, 0 };
    struct writer_item *item = bench_item(bench, 0);
    item->write = (struct wal_write){ .hard = &hard };
    item->skip_sync = true;
    writer_submit(bench->writer, item);
    bench_await_done(bench, 1);
    assert_int_equal(bench->done_results[0], 0);
    assert_int_equal(bench->fault.sync_count, 0);
}

static void stopping_finishes_what_is_queued(void **state)
{
    struct bench *bench = *state;
    for (unsigned i = 0; i < ITEMS; i++) {
        writer_submit(bench->writer, bench_item(bench, i));
    }
    bench->writer = writer_stop(bench->writer);
    assert_int_equal(bench->done_count, ITEMS);
    bench_expect_recovered(bench, ITEMS);
}

static void a_sync_error_fails_the_batch_and_all_that_follow(void **state)
{
    struct bench *bench = *state;
    struct err err = { .code = 0 };
    bench_close_gate(bench);
    writer_submit(bench->writer, bench_item(bench, 0));
    bench_await_waiting_sync(bench);
    writer_submit(bench->writer, bench_item(bench, 1));
    bench_lock(bench);
    bench->fault.fails_sync = true;
    bench->fault.error = EIO;
    bench_unlock(bench);
    bench_open_gate(bench);
    bench_await_done(bench, 2);
    assert_int_equal(bench->done_results[0], -EIO);
    assert_int_equal(bench->done_results[1], -EIO);
    assert_int_equal(bench->last_code, -EIO);
    bench->writer = writer_stop(bench->writer); /* to look at the count without a race */
    assert_int_equal(bench->fault.sync_count, 1);
    assert_int_equal(writer_start(bench->wal, bench_on_done, bench, &bench->writer, &err), 0);
    assert_int_equal(writer_write_inline(bench->writer, bench_item(bench, 2), &err), -EIO);
}

/* The log's syncs are made slow until it finds that they may overlap: then several wait before the gate. */
static unsigned await_overlap(struct bench *bench)
{
    unsigned submitted = 0;
    for (bool has_overlapped = false; !has_overlapped;) {
        assert_true(submitted + WAL_SYNCS_MAX < ITEMS / 2);
        bench_close_gate(bench);
        for (unsigned i = 0; i < WAL_SYNCS_MAX; i++) {
            unsigned waiting_before = bench_waiting_now(bench);
            writer_submit(bench->writer, bench_item(bench, submitted++));
            bench_await_more_waiting(bench, waiting_before);
        }
        has_overlapped = bench_waiting_now(bench) == WAL_SYNCS_MAX;
        if (!has_overlapped) {
            bench_open_gate(bench);
            bench_await_done(bench, submitted);
        }
    }
    return submitted;
}

static void on_a_slow_disk_syncs_overlap_and_are_told_in_order(void **state)
{
    struct bench *bench = *state;
    unsigned submitted = await_overlap(bench);
    unsigned done = submitted - WAL_SYNCS_MAX;
    assert_int_equal(bench->done_count, done);
    bench_let_through(bench, WAL_SYNCS_MAX - 1); /* all but the first to come */
    (void)usleep(20000);
    assert_int_equal(bench_done_now(bench), done); /* durable, but not what lies before them */
    bench_open_gate(bench);
    bench_await_done(bench, submitted);
    for (unsigned i = 0; i < submitted; i++) {
        assert_int_equal(bench->done_seqs[i], i);
        assert_int_equal(bench->done_results[i], 0);
    }
    while (submitted < ITEMS) { /* over the ends of segments */
        writer_submit(bench->writer, bench_item(bench, submitted++));
    }
    bench_await_done(bench, ITEMS);
    bench_expect_recovered(bench, ITEMS);
}

/* Only the writer waits with a deadline, for company. While it is to be patient that deadline is far. */
static _Atomic bool is_patient;
static _Atomic unsigned company_awaited;
static _Atomic unsigned company_in_vain;

int pthread_cond_timedwait(
        pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until)
{
    struct timespec later = *until;
    later.tv_sec += is_patient ? 5 : 0;
    company_awaited++;
    int r = pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &later);
    company_in_vain += r == ETIMEDOUT;
    return r;
}

/* Item i writes `count` entries, the last of which is i + 1. */
static struct writer_item *item_of_several(struct bench *bench, unsigned i, unsigned count)
{
    for (unsigned j = i + 1 - count; j <= i; j++) {
        (void)bench_item(bench, j);
    }
    bench->items[i].write.entries = &bench->entries[i + 1 - count];
    bench->items[i].write.entry_count = count;
    return &bench->items[i];
}

static void company_that_has_come_is_not_waited_for(void **state)
{
    struct bench *bench = *state;
    bench_close_gate(bench);
    writer_submit(bench->writer, item_of_several(bench, 3, 4));
    bench_await_waiting_sync(bench);
    (void)usleep(2000); /* a slow disk, with four clients */
    bench_set_lingers(bench, true);
    bench_open_gate(bench);
    bench_await_done(bench, 1);
    is_patient = true;
    unsigned awaited_before = company_awaited;
    unsigned in_vain_before = company_in_vain;
    writer_submit(bench->writer,
            bench_item(
                    bench, 4)); /* one is back before the writer: it did not queue up meanwhile */
    bench_set_lingers(bench, false);
    while (company_awaited == awaited_before) {
        (void)usleep(100);
    }
    assert_int_equal(bench_done_now(bench), 1);
    writer_submit(bench->writer, bench_item(bench, 5));
    writer_submit(bench->writer, item_of_several(bench, 7, 2)); /* and here are all four */
    bench_await_done(bench, 4);
    is_patient = false;
    assert_int_equal(company_in_vain, in_vain_before);
    bench_expect_recovered(bench, 8);
}

/* Fewer descriptors than syncs that might overlap: who finds none waits for one, and everything gets done. */
static void without_descriptors_syncs_share_those_there_are(void **state)
{
    struct bench *bench = *state;
    bench_lock(bench);
    bench->opens_left = 2;
    bench_unlock(bench);
    unsigned submitted = 0;
    for (unsigned round = 0; round < 8; round++) {
        bench_close_gate(bench);
        for (unsigned i = 0; i < WAL_SYNCS_MAX; i++) {
            unsigned waiting_before = bench_waiting_now(bench);
            writer_submit(bench->writer, bench_item(bench, submitted++));
            bench_await_more_waiting(bench, waiting_before);
        }
        assert_true(bench_waiting_now(bench) <= 3);
        bench_open_gate(bench);
        bench_await_done(bench, submitted);
    }
    for (unsigned i = 0; i < submitted; i++) {
        assert_int_equal(bench->done_seqs[i], i);
        assert_int_equal(bench->done_results[i], 0);
    }
    bench_expect_recovered(bench, submitted);
}

static void behind_a_sync_that_failed_nothing_is_acknowledged(void **state)
{
    struct bench *bench = *state;
    unsigned submitted = await_overlap(bench);
    unsigned done = submitted - WAL_SYNCS_MAX;
    bench_lock(bench);
    bench->fails_first = true;
    bench_unlock(bench);
    bench_open_gate(bench);
    bench_await_done(bench, submitted);
    for (unsigned i = done; i < submitted; i++) {
        assert_int_equal(bench->done_results[i], -EIO);
    }
}

/* Large entries fill the disk in the middle of a batch. The vote behind them would find room, but then it would pass for
 * done, and all before it too: so it waits with them, and so does what comes later. */
static void on_a_full_disk_nothing_overtakes_what_was_refused(void **state)
{
    struct bench *bench = *state;
    static uint8_t large[6000];
    enum {
        COUNT = 5
    };
    bench_set_disk_full(bench, true);
    bench_close_gate(bench);
    writer_submit(bench->writer, bench_item(bench, 0));
    bench_await_waiting_sync(bench);
    for (unsigned i = 1; i < COUNT; i++) {
        struct writer_item *item = bench_item(bench, i);
        bench->entries[i].data = span_of(large, sizeof(large));
        writer_submit(bench->writer, item);
    }
    struct wal_hard_state vote = { 7, 2, 0 };
    struct writer_item *item = bench_item(bench, COUNT);
    item->write = (struct wal_write){ .hard = &vote };
    writer_submit(bench->writer, item);
    bench_open_gate(bench);
    bench_await_done(bench, COUNT + 1);
    int expected[COUNT + 1] = { 0, 0, 0, -ENOSPC, -ENOSPC, -ENOSPC };
    for (unsigned i = 0; i <= COUNT; i++) {
        assert_int_equal(bench->done_results[i], expected[i]);
    }
    assert_int_equal(wal_last_index(bench->wal), 3);
    struct err err = { .code = 0 };
    struct wal_hard_state later = { 8, 0, 0 };
    item->write.hard = &later;
    assert_int_equal(writer_write_inline(bench->writer, item, &err), -EAGAIN);
    writer_submit(bench->writer, item);
    bench_await_done(bench, COUNT + 2);
    assert_int_equal(bench->done_results[COUNT + 1], -ENOSPC);
    bench_set_disk_full(bench, false);
    writer_retry_space(bench->writer);
    writer_resume(bench->writer);
    writer_submit(bench->writer, bench_item(bench, 3));
    writer_submit(bench->writer, item);
    bench_await_done(bench, COUNT + 4);
    assert_int_equal(bench->done_results[COUNT + 2], 0);
    assert_int_equal(bench->done_results[COUNT + 3], 0);
}

static bool is_next_prepared(struct bench *bench)
{
    (void)pthread_mutex_lock(&bench->wal->mutex);
    bool is = bench->wal->spare.fd >= 0;
    (void)pthread_mutex_unlock(&bench->wal->mutex);
    return is;
}

/* The next segment is prepared, and then a batch comes that is larger than that. */
static void a_batch_larger_than_the_segment_that_was_prepared_gets_one_of_its_own(void **state)
{
    struct bench *bench = *state;
    static uint8_t large[3 * SEGMENT_BYTES];
    unsigned submitted = 0;
    while (!is_next_prepared(bench)) {
        writer_submit(bench->writer, bench_item(bench, submitted++));
        bench_await_done(bench, submitted);
    }
    struct writer_item *item = bench_item(bench, submitted++);
    bench->entries[submitted - 1].data = span_of(large, sizeof(large));
    writer_submit(bench->writer, item);
    bench_await_done(bench, submitted);
    assert_int_equal(bench->done_results[submitted - 1], 0);
}

static int check_entry(void *user UNUSED, const struct wal_entry *entry)
{
    assert_true(entry_is_right(entry));
    return 0;
}

static void entries_are_read_back_and_purged_while_others_are_written(void **state)
{
    struct bench *bench = *state;
    struct wal_base base = fixture_base;
    unsigned submitted = 0;
    while (submitted < ITEMS) {
        struct writer_item *item = bench_item(bench, submitted++);
        if (submitted % 50 == 0) {
            bench_await_done(bench, submitted - 1);
            base.index = submitted - 10;
            item->write.base = &base;
        }
        writer_submit(bench->writer, item);
        if (submitted % 50 == 0) {
            bench_await_done(bench, submitted);
            writer_purge_before(bench->writer, submitted - 10);
        }
        uint64_t first = wal_first_index(bench->wal);
        int r = wal_read_entries(bench->wal, first, UINT64_MAX, 2000, check_entry, NULL, NULL);
        assert_true(r >= 0 || r == -ENOENT); /* purged between the two */
    }
    bench_await_done(bench, ITEMS);
    bench->writer = writer_stop(bench->writer); /* keeps house before it goes */
    assert_true(wal_first_index(bench->wal) > 1);
    assert_true(wal_first_index(bench->wal) <= base.index + 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_setup, bench_teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_queues_up_during_a_sync_becomes_one_batch_with_one_sync),
        TEST(inline_writing_is_for_the_idle_and_otherwise_declined),
        TEST(a_moved_commit_index_needs_no_sync),
        TEST(stopping_finishes_what_is_queued),
        TEST(a_sync_error_fails_the_batch_and_all_that_follow),
        TEST(on_a_slow_disk_syncs_overlap_and_are_told_in_order),
        TEST(company_that_has_come_is_not_waited_for),
        TEST(without_descriptors_syncs_share_those_there_are),
        TEST(behind_a_sync_that_failed_nothing_is_acknowledged),
        TEST(on_a_full_disk_nothing_overtakes_what_was_refused),
        TEST(a_batch_larger_than_the_segment_that_was_prepared_gets_one_of_its_own),
        TEST(entries_are_read_back_and_purged_while_others_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
