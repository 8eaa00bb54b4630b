/* A full disk under the core's writes. The disk is full when the file system says so: the test answers for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/loop.h"
#include "daemons/raftd/storage.h"

enum {
    FILLING_BYTES = 62 << 20, /* of a segment of 64 MiB, 1 of which is the reserve */
    LARGE_BYTES = 2 << 20,    /* what does not fit behind that */
    SEQS_MAX = 16
};

static _Atomic bool is_disk_full; /* the log's thread asks */

int fstatvfs(int fd UNUSED, struct statvfs *ret_status)
{
    *ret_status = (struct statvfs){ .f_frsize = 4096, .f_blocks = 1 << 30 };
    ret_status->f_bfree = ret_status->f_bavail = is_disk_full ? 0 : 1 << 30;
    return 0;
}

struct bench {
    char root[64];
    char wal_dir[80];
    struct conf conf;
    struct loop *loop;
    struct storage *storage;
    uint64_t seq;
    uint64_t last_index;
    uint64_t awaited_seq;
    bool is_vote_awaited;
    uint64_t written_seq;
    uint64_t vote_seq;
    bool has_space;
};

/* ---- The owner's side ---- */

static void on_written(
        void *user, uint64_t write_seq, uint64_t last_index UNUSED, uint64_t last_term UNUSED)
{
    struct bench *bench = user;
    assert_int_equal(write_seq, bench->written_seq + 1);
    bench->written_seq = write_seq;
    if (!bench->is_vote_awaited && write_seq == bench->awaited_seq) {
        loop_stop(bench->loop);
    }
}

static void on_vote_written(void *user, uint64_t write_seq)
{
    struct bench *bench = user;
    assert_true(bench->vote_seq < write_seq);
    bench->vote_seq = write_seq;
    if (bench->is_vote_awaited && write_seq == bench->awaited_seq) {
        loop_stop(bench->loop);
    }
}

static void on_recorded(void *user UNUSED, const struct storage_snapshot *snapshot UNUSED)
{
    fail();
}

static void on_space(void *user, bool has_space)
{
    struct bench *bench = user;
    bench->has_space = has_space;
}

static void on_failed(void *user UNUSED, const struct err *err)
{
    fail_msg("%s", err->text);
}

static const struct storage_events events = {
    .on_written = on_written,
    .on_vote_written = on_vote_written,
    .on_snapshot_recorded = on_recorded,
    .on_space = on_space,
    .on_failed = on_failed,
};

static void check_space(void *user)
{
    struct bench *bench = user;
    storage_check(bench->storage);
}

/* Runs until the write, or only its vote, is durable. */
static void await(struct bench *bench, uint64_t seq, bool is_vote)
{
    bench->awaited_seq = seq;
    bench->is_vote_awaited = is_vote;
    if ((is_vote ? bench->vote_seq : bench->written_seq) < seq) {
        struct loop_timer *timer = loop_timer_new(bench->loop, check_space, bench);
        loop_timer_start(timer, 10, 10);
        loop_run(bench->loop);
        (void)loop_timer_free(timer);
    }
}

/* bytes: of one entry's data; 0: no entry. */
static void write_one(struct bench *bench, struct raft_hard_state hard, size_t bytes)
{
    static uint8_t data[FILLING_BYTES];
    struct raft_entry entry = { .index = bench->last_index + 1,
        .term = hard.term,
        .kind = RAFT_ENTRY_OP,
        .data = span_of(data, bytes) };
    struct raft_write write = { .seq = ++bench->seq, .hard = hard };
    if (bytes > 0) {
        write.append = (struct raft_entry_span){ &entry, 1 };
        bench->last_index++;
    }
    write.last_index = bench->last_index;
    write.last_term = hard.term;
    storage_write(bench->storage, &write, NULL);
}

static void start(struct bench *bench)
{
    struct err err = { 0 };
    bench->loop = loop_new();
    assert_int_equal(storage_start(bench->storage, bench->loop, &events, bench, &err), 0);
    bench->has_space = true;
}

static void stop(struct bench *bench)
{
    bench->storage = storage_close(bench->storage);
    bench->loop = loop_free(bench->loop);
}

/* What a start would find; the log stays closed. */
static struct raft_hard_state recover(struct bench *bench, uint64_t *ret_last_index)
{
    struct storage_recovered recovered;
    struct err err = { 0 };
    assert_int_equal(storage_open(&bench->conf, &bench->storage, &recovered, &err), 0);
    struct raft_hard_state hard = recovered.hard;
    *ret_last_index = recovery_last_index(&recovered);
    storage_recovered_fini(&recovered);
    bench->storage = storage_close(bench->storage);
    return hard;
}

/* Reads the log through: of the term no hard state without the vote comes behind one with it. */
static void expect_kept(struct bench *bench, uint64_t term, uint64_t vote)
{
    struct wal_config config = { .dir = bench->wal_dir };
    struct wal *wal = NULL;
    struct err err = { 0 };
    struct wal_record record;
    unsigned seen = 0;
    assert_int_equal(wal_open(&config, &wal, &err), 0);
    while (wal_read(wal, &record, &err) > 0) {
        if (record.kind == WAL_RECORD_HARD_STATE && seen > 0) {
            assert_int_equal(record.hard.term, term);
            assert_int_equal(record.hard.vote, vote);
        }
        seen += record.kind == WAL_RECORD_HARD_STATE && record.hard.term == term &&
                record.hard.vote == vote;
    }
    assert_true(seen > 1);
    wal = wal_close(wal);
}

static int setup(void **state)
{
    struct bench *bench = xcalloc(1, sizeof *bench);
    struct err err = { 0 };
    (void)snprintf(bench->root, sizeof bench->root, "/tmp/test_storage.XXXXXX");
    if (mkdtemp(bench->root) == NULL) {
        return -1;
    }
    (void)snprintf(bench->wal_dir, sizeof bench->wal_dir, "%s/wal", bench->root);
    bench->conf.wal_dir = bench->wal_dir;
    struct wal_base base = { .cluster_id = 1, .member_id = 1 };
    struct raft_hard_state hard = { 0 };
    is_disk_full = false;
    if (storage_create(&bench->conf, &base, &hard, NULL, 0, &bench->storage, &err) < 0) {
        return -1;
    }
    start(bench);
    *state = bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    if (bench->loop != NULL) {
        stop(bench);
    }
    DIR *dir = opendir(bench->wal_dir);
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        (void)unlinkat(dirfd(dir), entry->d_name, 0);
    }
    (void)closedir(dir);
    (void)rmdir(bench->wal_dir);
    (void)rmdir(bench->root);
    free(bench);
    return 0;
}

/* Writes 1: fills the segment. 2 and 3: entries that wait for space, in term 1, and commit index 1. */
static void fill_up(struct bench *bench)
{
    is_disk_full = true;
    write_one(bench, (struct raft_hard_state){ 1, 0, 0 }, FILLING_BYTES);
    await(bench, 1, false);
    write_one(bench, (struct raft_hard_state){ 1, 0, 1 }, LARGE_BYTES);
    write_one(bench, (struct raft_hard_state){ 1, 0, 2 }, LARGE_BYTES);
}

/* ---- Tests ---- */

static void a_vote_goes_ahead_of_entries_that_wait_and_stands_for_none_of_them(void **state)
{
    struct bench *bench = *state;
    uint64_t last_index = 0;
    fill_up(bench);
    write_one(bench, (struct raft_hard_state){ 2, 7, 2 }, 0);
    await(bench, 4, true);
    for (uint64_t term = 3; term < 30; term++) { /* and so does each later one */
        write_one(bench, (struct raft_hard_state){ term, 1 + term % 3, 2 }, 0);
    }
    await(bench, bench->seq, true);
    assert_int_equal(bench->written_seq, 1);
    stop(bench);
    struct raft_hard_state hard = recover(bench, &last_index);
    assert_int_equal(last_index, 1);
    assert_int_equal(hard.term, 29);
    assert_int_equal(hard.vote, 1 + 29 % 3);
    assert_int_equal(hard.commit, 0); /* what was committed beyond that is not there */
}

/* All but the last write are of terms before the vote's, or of its term and without it. */
static void what_waited_is_written_in_order_and_takes_no_vote_back(void **state)
{
    struct bench *bench = *state;
    uint64_t last_index = 0;
    fill_up(bench);
    write_one(bench, (struct raft_hard_state){ 2, 0, 2 }, LARGE_BYTES);
    write_one(bench, (struct raft_hard_state){ 2, 7, 2 }, 0);
    await(bench, 5, true);
    assert_false(bench->has_space);
    is_disk_full = false;
    await(bench, 5, false);
    assert_true(bench->has_space);
    stop(bench);
    struct raft_hard_state hard = recover(bench, &last_index);
    assert_int_equal(last_index, 4);
    assert_int_equal(hard.term, 2);
    assert_int_equal(hard.vote, 7);
    assert_int_equal(hard.commit, 2);
    expect_kept(bench, 2, 7);
}

/* Its end waits for what is under way; that it is done nobody is there to be told, and it is freed (which LeakSanitizer sees). */
static void what_is_under_way_when_it_closes_is_written_and_told_to_nobody(void **state)
{
    struct bench *bench = *state;
    uint64_t last_index = 0;
    write_one(bench, (struct raft_hard_state){ 1, 0, 0 }, LARGE_BYTES);
    write_one(bench, (struct raft_hard_state){ 1, 0, 0 }, LARGE_BYTES);
    stop(bench);
    assert_int_equal(bench->written_seq, 0);
    (void)recover(bench, &last_index);
    assert_int_equal(last_index, 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_vote_goes_ahead_of_entries_that_wait_and_stands_for_none_of_them),
        TEST(what_waited_is_written_in_order_and_takes_no_vote_back),
        TEST(what_is_under_way_when_it_closes_is_written_and_told_to_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
