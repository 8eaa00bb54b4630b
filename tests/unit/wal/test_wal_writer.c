#include "tests/unit/wal/wal_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "daemons/raftd/wal/writer.h"

enum {
    SEGMENT_BYTES = 16 << 10,
    SEED = 31,
    ITEMS = 300
};

/* The test's side: what came back, and a sync that waits to be let through. */
struct bench {
    struct fixture *fixture;
    struct fault fault;
    struct wal_io io;
    struct wal *wal;
    struct writer *writer;
    struct writer_item items[ITEMS];
    struct wal_entry entries[ITEMS];
    uint8_t data[ITEMS][SCRIPT_DATA_BYTES_MAX];

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool is_gate_closed;
    unsigned waiting; /* syncs before the gate */
    unsigned arrived; /* there, ever */
    unsigned first;   /* the number of the one that has waited longest */
    unsigned passes;  /* that may go through the closed gate, but for the first */
    bool fails_first; /* that one, once it is let through */
    bool lingers;     /* the writer, after it has told what is done */
    unsigned batch_count;
    unsigned done_count;
    uint64_t done_seqs[ITEMS];
    int done_results[ITEMS];
    int last_code;
    unsigned opens_left; /* for writing; then there is no descriptor left */
    bool is_locked_out;  /* a call to the system came while the log's mutex was held */
};

static void lock(struct bench *bench)
{
    INVARIANT_EQ(pthread_mutex_lock(&bench->mutex), 0);
}

static void unlock(struct bench *bench)
{
    INVARIANT_EQ(pthread_mutex_unlock(&bench->mutex), 0);
}

/* The log's mutex is for moments only: whoever calls the system may not hold it. It is made one that tells its holder
 * from others (set_up_check), so no time has to pass before we know. */
static void expect_unlocked(struct bench *bench)
{
    if (bench->wal == NULL) {
        return; /* being made: nobody else is there */
    }
    int r = pthread_mutex_lock(&bench->wal->mutex);
    if (r == 0) {
        (void)pthread_mutex_unlock(&bench->wal->mutex);
        return;
    }
    INVARIANT_EQ(r, EDEADLK);
    lock(bench);
    bench->is_locked_out = true;
    unlock(bench);
}

static void set_up_check(struct wal *wal)
{
    pthread_mutexattr_t attributes;
    (void)pthread_mutexattr_init(&attributes);
    (void)pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    (void)pthread_mutex_destroy(&wal->mutex);
    (void)pthread_mutex_init(&wal->mutex, &attributes);
    (void)pthread_mutexattr_destroy(&attributes);
}

static int gated_sync(void *user, int fd)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    lock(bench);
    bench->first = bench->waiting++ == 0 ? bench->arrived : bench->first;
    unsigned number = bench->arrived++;
    (void)pthread_cond_broadcast(&bench->changed);
    while (bench->is_gate_closed && (number == bench->first || bench->passes == 0)) {
        (void)pthread_cond_wait(&bench->changed, &bench->mutex);
    }
    bench->passes -= bench->passes > 0;
    bench->waiting--;
    bool fails = bench->fails_first && number == bench->first;
    int r = fails ? -1 : bench->fault.io.sync_data(bench->fault.io.user, fd); /* it counts */
    int code = fails ? EIO : errno;
    unlock(bench);
    errno = code;
    return r;
}

/* The other calls have the fault as their user; the table has one user for all. The fault is looked at and counted by
 * whichever of the writer's threads calls: under the mutex. */
static int pass_create(void *user, int dir_fd, const char *name)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    lock(bench);
    int r = bench->fault.io.create(&bench->fault, dir_fd, name);
    unlock(bench);
    return r;
}

static ssize_t pass_pwritev(
        void *user, int fd, const struct iovec *parts, int part_count, off_t offset)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    lock(bench);
    ssize_t r = bench->fault.io.pwritev(&bench->fault, fd, parts, part_count, offset);
    unlock(bench);
    return r;
}

static int pass_allocate(void *user, int fd, off_t bytes)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    lock(bench);
    int r = bench->fault.io.allocate(&bench->fault, fd, bytes);
    unlock(bench);
    return r;
}

static int pass_sync_file(void *user, int fd)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    lock(bench);
    int r = bench->fault.io.sync_file(&bench->fault, fd);
    unlock(bench);
    return r;
}

static int pass_rename(void *user, int dir_fd, const char *from, const char *to)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    lock(bench);
    int r = bench->fault.io.rename(&bench->fault, dir_fd, from, to);
    unlock(bench);
    return r;
}

static int pass_unlink(void *user, int dir_fd, const char *name)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    lock(bench);
    int r = bench->fault.io.unlink(&bench->fault, dir_fd, name);
    unlock(bench);
    return r;
}

static int pass_open(void *user, int dir_fd, const char *name, bool is_to_write)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    lock(bench);
    bool fails = is_to_write && bench->opens_left == 0;
    bench->opens_left -= is_to_write && !fails;
    errno = EMFILE;
    int r = fails ? -1 : bench->fault.io.open(&bench->fault, dir_fd, name, is_to_write);
    unlock(bench);
    return r;
}

static void pass_close(void *user, int fd)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    bench->fault.io.close(&bench->fault, fd);
}

static void on_done(void *user, struct list *items, const struct err *err)
{
    struct bench *bench = user;
    lock(bench);
    LIST_FOREACH (item, items, struct writer_item, link) {
        list_remove(&item->link);
        bench->done_results[bench->done_count] = item->result;
        bench->done_seqs[bench->done_count++] = item->write_seq;
    }
    bench->batch_count++;
    bench->last_code = err->code;
    (void)pthread_cond_broadcast(&bench->changed);
    while (bench->lingers) {
        (void)pthread_cond_wait(&bench->changed, &bench->mutex);
    }
    unlock(bench);
}

static void set_lingers(struct bench *bench, bool lingers)
{
    lock(bench);
    bench->lingers = lingers;
    (void)pthread_cond_broadcast(&bench->changed);
    unlock(bench);
}

static int setup(void **state)
{
    struct bench *bench = xcalloc(1, sizeof(*bench));
    void *fixture = NULL;
    if (fixture_setup(&fixture) < 0) {
        return -1;
    }
    bench->fixture = fixture;
    fault_init(&bench->fault);
    bench->io = wal_io_system;
    bench->io.user = bench;
    bench->io.create = pass_create;
    bench->io.pwritev = pass_pwritev;
    bench->io.allocate = pass_allocate;
    bench->io.sync_data = gated_sync;
    bench->io.sync_file = pass_sync_file;
    bench->io.rename = pass_rename;
    bench->io.unlink = pass_unlink;
    bench->io.open = pass_open;
    bench->io.close = pass_close;
    bench->opens_left = UINT_MAX;
    (void)pthread_mutex_init(&bench->mutex, NULL);
    (void)pthread_cond_init(&bench->changed, NULL);
    struct wal_config config = { .dir = bench->fixture->dir,
        .segment_bytes = SEGMENT_BYTES,
        .reserve_bytes = 2048,
        .io = &bench->io };
    struct err err;
    if (wal_create(&config, &fixture_base, &fixture_hard, &bench->wal, &err) < 0) {
        return -1;
    }
    set_up_check(bench->wal);
    if (writer_start(bench->wal, on_done, bench, &bench->writer, &err) < 0) {
        return -1;
    }
    *state = bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    bench->writer = writer_stop(bench->writer);
    bench->wal = wal_close(bench->wal);
    bool is_sound = !bench->is_locked_out;
    void *fixture = bench->fixture;
    (void)fixture_teardown(&fixture);
    (void)pthread_mutex_destroy(&bench->mutex);
    (void)pthread_cond_destroy(&bench->changed);
    free(bench);
    return is_sound ? 0 : -1;
}

/* Item i writes entry i + 1. */
static struct writer_item *item_of(struct bench *bench, unsigned i)
{
    struct wal_entry *entry = &bench->entries[i];
    *entry = (struct wal_entry){ .index = i + 1, .term = 1, .time_ns = (i + 1) * UINT64_C(10) };
    entry->kind = (uint8_t)(entry->index % 200);
    entry->data = span_of(bench->data[i], entry_data(entry->index, 1, bench->data[i]));
    bench->items[i].write = (struct wal_write){ .entries = entry, .entry_count = 1 };
    bench->items[i].write_seq = i;
    list_init(&bench->items[i].link);
    return &bench->items[i];
}

static void close_gate(struct bench *bench)
{
    lock(bench);
    bench->is_gate_closed = true;
    unlock(bench);
}

static void open_gate(struct bench *bench)
{
    lock(bench);
    bench->is_gate_closed = false;
    (void)pthread_cond_broadcast(&bench->changed);
    unlock(bench);
}

static void await_waiting_sync(struct bench *bench)
{
    lock(bench);
    while (bench->waiting == 0) {
        (void)pthread_cond_wait(&bench->changed, &bench->mutex);
    }
    unlock(bench);
}

static unsigned waiting_now(struct bench *bench)
{
    lock(bench);
    unsigned waiting = bench->waiting;
    unlock(bench);
    return waiting;
}

static unsigned done_now(struct bench *bench)
{
    lock(bench);
    unsigned done = bench->done_count;
    unlock(bench);
    return done;
}

static void set_disk_full(struct bench *bench, bool is_full)
{
    lock(bench);
    bench->fault.is_disk_full = is_full;
    unlock(bench);
}

static void let_through(struct bench *bench, unsigned count)
{
    lock(bench);
    bench->passes = count;
    (void)pthread_cond_broadcast(&bench->changed);
    unlock(bench);
}

/* For a moment: where syncs do not overlap, there will be no more. */
static void await_more_waiting(struct bench *bench, unsigned before)
{
    for (unsigned i = 0; i < 10 && waiting_now(bench) == before; i++) {
        (void)usleep(1000);
    }
}

static void await_done(struct bench *bench, unsigned count)
{
    lock(bench);
    while (bench->done_count < count) {
        (void)pthread_cond_wait(&bench->changed, &bench->mutex);
    }
    unlock(bench);
}

static void expect_recovered(struct bench *bench, uint64_t last_index)
{
    bench->writer = writer_stop(bench->writer);
    bench->wal = wal_close(bench->wal);
    struct wal_config config = { .dir = bench->fixture->dir, .segment_bytes = SEGMENT_BYTES };
    struct model *model = model_new();
    assert_int_equal(fixture_recover(&config, false, model, NULL, NULL), 0);
    assert_int_equal(model->last_index, last_index);
    free(model);
}

/* ---- Tests ---------------------------------------------------------------------------------------------------- */

static void what_queues_up_during_a_sync_becomes_one_batch_with_one_sync(void **state)
{
    struct bench *bench = *state;
    enum {
        COUNT = 20
    };
    close_gate(bench);
    writer_submit(bench->writer, item_of(bench, 0));
    await_waiting_sync(bench);
    for (unsigned i = 1; i < COUNT; i++) {
        writer_submit(bench->writer, item_of(bench, i));
    }
    assert_int_equal(bench->done_count, 0); /* nothing is promised before the sync */
    open_gate(bench);
    await_done(bench, COUNT);
    assert_int_equal(bench->batch_count, 2);
    assert_int_equal(bench->fault.sync_count, 2);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(bench->done_seqs[i], i);
        assert_int_equal(bench->done_results[i], 0);
    }
    expect_recovered(bench, COUNT);
}

static void inline_writing_is_for_the_idle_and_otherwise_declined(void **state)
{
    struct bench *bench = *state;
    struct err err = { .code = 0 };
    assert_true(writer_is_idle(bench->writer));
    assert_int_equal(writer_write_inline(bench->writer, item_of(bench, 0), &err), 0);
    assert_int_equal(bench->items[0].result, 0);
    assert_int_equal(bench->fault.sync_count, 1);
    assert_int_equal(bench->done_count, 0); /* the answer is the return value */

    close_gate(bench);
    writer_submit(bench->writer, item_of(bench, 1));
    await_waiting_sync(bench);
    assert_false(writer_is_idle(bench->writer));
    assert_int_equal(writer_write_inline(bench->writer, item_of(bench, 2), &err), -EAGAIN);
    writer_submit(bench->writer, item_of(bench, 2));
    open_gate(bench);
    await_done(bench, 2);
    expect_recovered(bench, 3);
}

static void a_moved_commit_index_needs_no_sync(void **state)
{
    struct bench *bench = *state;
    struct wal_hard_state hard = { 1, 0, 0 };
    struct writer_item *item = item_of(bench, 0);
    item->write = (struct wal_write){ .hard = &hard };
    item->skip_sync = true;
    writer_submit(bench->writer, item);
    await_done(bench, 1);
    assert_int_equal(bench->done_results[0], 0);
    assert_int_equal(bench->fault.sync_count, 0);
}

static void stopping_finishes_what_is_queued(void **state)
{
    struct bench *bench = *state;
    for (unsigned i = 0; i < ITEMS; i++) {
        writer_submit(bench->writer, item_of(bench, i));
    }
    bench->writer = writer_stop(bench->writer);
    assert_int_equal(bench->done_count, ITEMS);
    expect_recovered(bench, ITEMS);
}

static void a_sync_error_fails_the_batch_and_all_that_follow(void **state)
{
    struct bench *bench = *state;
    struct err err = { .code = 0 };
    close_gate(bench);
    writer_submit(bench->writer, item_of(bench, 0));
    await_waiting_sync(bench);
    writer_submit(bench->writer, item_of(bench, 1));
    lock(bench);
    bench->fault.fails_sync = true;
    bench->fault.error = EIO;
    unlock(bench);
    open_gate(bench);
    await_done(bench, 2);
    assert_int_equal(bench->done_results[0], -EIO);
    assert_int_equal(bench->done_results[1], -EIO);
    assert_int_equal(bench->last_code, -EIO);
    bench->writer = writer_stop(bench->writer); /* to look at the count without a race */
    assert_int_equal(bench->fault.sync_count, 1);
    assert_int_equal(writer_start(bench->wal, on_done, bench, &bench->writer, &err), 0);
    assert_int_equal(writer_write_inline(bench->writer, item_of(bench, 2), &err), -EIO);
}

/* The log's syncs are made slow until it finds that they may overlap: then several wait before the gate. */
static unsigned await_overlap(struct bench *bench)
{
    unsigned submitted = 0;
    for (bool has_overlapped = false; !has_overlapped;) {
        assert_true(submitted + WAL_SYNCS_MAX < ITEMS / 2);
        close_gate(bench);
        for (unsigned i = 0; i < WAL_SYNCS_MAX; i++) {
            unsigned waiting_before = waiting_now(bench);
            writer_submit(bench->writer, item_of(bench, submitted++));
            await_more_waiting(bench, waiting_before);
        }
        has_overlapped = waiting_now(bench) == WAL_SYNCS_MAX;
        if (!has_overlapped) {
            open_gate(bench);
            await_done(bench, submitted);
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
    let_through(bench, WAL_SYNCS_MAX - 1); /* all but the first to come */
    (void)usleep(20000);
    assert_int_equal(done_now(bench), done); /* durable, but not what lies before them */
    open_gate(bench);
    await_done(bench, submitted);
    for (unsigned i = 0; i < submitted; i++) {
        assert_int_equal(bench->done_seqs[i], i);
        assert_int_equal(bench->done_results[i], 0);
    }
    while (submitted < ITEMS) { /* over the ends of segments */
        writer_submit(bench->writer, item_of(bench, submitted++));
    }
    await_done(bench, ITEMS);
    expect_recovered(bench, ITEMS);
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
        (void)item_of(bench, j);
    }
    bench->items[i].write.entries = &bench->entries[i + 1 - count];
    bench->items[i].write.entry_count = count;
    return &bench->items[i];
}

static void company_that_has_come_is_not_waited_for(void **state)
{
    struct bench *bench = *state;
    close_gate(bench);
    writer_submit(bench->writer, item_of_several(bench, 3, 4));
    await_waiting_sync(bench);
    (void)usleep(2000); /* a slow disk, with four clients */
    set_lingers(bench, true);
    open_gate(bench);
    await_done(bench, 1);
    is_patient = true;
    unsigned awaited_before = company_awaited;
    unsigned in_vain_before = company_in_vain;
    writer_submit(bench->writer,
            item_of(bench, 4)); /* one is back before the writer: it did not queue up meanwhile */
    set_lingers(bench, false);
    while (company_awaited == awaited_before) {
        (void)usleep(100);
    }
    assert_int_equal(done_now(bench), 1);
    writer_submit(bench->writer, item_of(bench, 5));
    writer_submit(bench->writer, item_of_several(bench, 7, 2)); /* and here are all four */
    await_done(bench, 4);
    is_patient = false;
    assert_int_equal(company_in_vain, in_vain_before);
    expect_recovered(bench, 8);
}

/* Fewer descriptors than syncs that might overlap: who finds none waits for one, and everything gets done. */
static void without_descriptors_syncs_share_those_there_are(void **state)
{
    struct bench *bench = *state;
    lock(bench);
    bench->opens_left = 2;
    unlock(bench);
    unsigned submitted = 0;
    for (unsigned round = 0; round < 8; round++) {
        close_gate(bench);
        for (unsigned i = 0; i < WAL_SYNCS_MAX; i++) {
            unsigned waiting_before = waiting_now(bench);
            writer_submit(bench->writer, item_of(bench, submitted++));
            await_more_waiting(bench, waiting_before);
        }
        assert_true(waiting_now(bench) <= 3);
        open_gate(bench);
        await_done(bench, submitted);
    }
    for (unsigned i = 0; i < submitted; i++) {
        assert_int_equal(bench->done_seqs[i], i);
        assert_int_equal(bench->done_results[i], 0);
    }
    expect_recovered(bench, submitted);
}

static void behind_a_sync_that_failed_nothing_is_acknowledged(void **state)
{
    struct bench *bench = *state;
    unsigned submitted = await_overlap(bench);
    unsigned done = submitted - WAL_SYNCS_MAX;
    lock(bench);
    bench->fails_first = true;
    unlock(bench);
    open_gate(bench);
    await_done(bench, submitted);
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
    set_disk_full(bench, true);
    close_gate(bench);
    writer_submit(bench->writer, item_of(bench, 0));
    await_waiting_sync(bench);
    for (unsigned i = 1; i < COUNT; i++) {
        struct writer_item *item = item_of(bench, i);
        bench->entries[i].data = span_of(large, sizeof(large));
        writer_submit(bench->writer, item);
    }
    struct wal_hard_state vote = { 7, 2, 0 };
    struct writer_item *item = item_of(bench, COUNT);
    item->write = (struct wal_write){ .hard = &vote };
    writer_submit(bench->writer, item);
    open_gate(bench);
    await_done(bench, COUNT + 1);
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
    await_done(bench, COUNT + 2);
    assert_int_equal(bench->done_results[COUNT + 1], -ENOSPC);
    set_disk_full(bench, false);
    writer_retry_space(bench->writer);
    writer_resume(bench->writer);
    writer_submit(bench->writer, item_of(bench, 3));
    writer_submit(bench->writer, item);
    await_done(bench, COUNT + 4);
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
        writer_submit(bench->writer, item_of(bench, submitted++));
        await_done(bench, submitted);
    }
    struct writer_item *item = item_of(bench, submitted++);
    bench->entries[submitted - 1].data = span_of(large, sizeof(large));
    writer_submit(bench->writer, item);
    await_done(bench, submitted);
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
        struct writer_item *item = item_of(bench, submitted++);
        if (submitted % 50 == 0) {
            await_done(bench, submitted - 1);
            base.index = submitted - 10;
            item->write.base = &base;
        }
        writer_submit(bench->writer, item);
        if (submitted % 50 == 0) {
            await_done(bench, submitted);
            writer_purge_before(bench->writer, submitted - 10);
        }
        uint64_t first = wal_first_index(bench->wal);
        int r = wal_read_entries(bench->wal, first, UINT64_MAX, 2000, check_entry, NULL, NULL);
        assert_true(r >= 0 || r == -ENOENT); /* purged between the two */
    }
    await_done(bench, ITEMS);
    bench->writer = writer_stop(bench->writer); /* keeps house before it goes */
    assert_true(wal_first_index(bench->wal) > 1);
    assert_true(wal_first_index(bench->wal) <= base.index + 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
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
