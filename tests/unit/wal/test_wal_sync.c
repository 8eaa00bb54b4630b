/* test_wal_sync.c: the steps of a sync, as two threads take them. Nothing of the test's own orders the threads, as locks of a disk that
 * is played would: what races shows under ThreadSanitizer. */
#include "tests/unit/wal/wal_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

struct bench {
    struct fixture *fixture;
    struct wal_io io;
    struct wal *wal;
    struct wal_sync first;
    int first_result;
};

/* Nothing is really synced. */
static int check_descriptor(void *user UNUSED, int fd)
{
    return fcntl(fd, F_GETFD) < 0 ? -1 : 0;
}

static int setup(void **state)
{
    struct bench *bench = xcalloc(1, sizeof(*bench));
    void *fixture = NULL;
    if (fixture_setup(&fixture) < 0) {
        return -1;
    }
    bench->fixture = fixture;
    bench->io = wal_io_system;
    bench->io.sync_data = check_descriptor;
    struct wal_config config = {
        .dir = bench->fixture->dir, .segment_bytes = 16 << 10, .io = &bench->io
    };
    *state = bench;
    return wal_create(&config, &fixture_base, &fixture_hard, &bench->wal, NULL);
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    void *fixture = bench->fixture;
    bench->wal = wal_close(bench->wal);
    (void)fixture_teardown(&fixture);
    free(bench);
    return 0;
}

static void append(struct bench *bench, uint64_t index)
{
    uint8_t data[SCRIPT_DATA_BYTES_MAX];
    struct wal_entry entry = { .index = index, .term = 1, .time_ns = index };
    entry.data = span_of(data, entry_data(index, 1, data));
    struct wal_write write = { .entries = &entry, .entry_count = 1 };
    assert_int_equal(wal_append(bench->wal, &write, 1, NULL), 0);
}

static void *run_first(void *user)
{
    struct bench *bench = user;
    bench->first_result = wal_sync_run(bench->wal, &bench->first);
    return NULL;
}

static void a_sync_that_runs_is_left_alone_by_the_next_that_begins(void **state)
{
    struct bench *bench = *state;
    struct wal_sync second;
    pthread_t thread;
    append(bench, 1);
    assert_int_equal(wal_sync_begin(bench->wal, &bench->first, NULL), 1);
    assert_int_equal(pthread_create(&thread, NULL, run_first, bench), 0);
    append(bench, 2);
    assert_int_equal(wal_sync_begin(bench->wal, &second, NULL), 1);
    assert_int_equal(wal_sync_run(bench->wal, &second), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(bench->first_result, 0);
    assert_int_not_equal(bench->first.file, second.file);
    assert_int_equal(wal_sync_end(bench->wal, &bench->first, 0, NULL), 0);
    assert_int_equal(wal_sync_end(bench->wal, &second, 0, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
                a_sync_that_runs_is_left_alone_by_the_next_that_begins, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
