/* test_snapshot.c: a snapshot gives the state back to the byte, or says that it cannot. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemons/stored/snapshot.h"
#include "tests/unit/stored/machine.h"

struct fixture {
    struct machine *machine;
    char snaps[80];
    char path[SNAPSHOT_PATH_BYTES_MAX];
    struct snapshot_info info;
};

static void make(struct fixture *f)
{
    struct err err = { 0 };
    struct state_writer *writer = replica_writer(f->machine->replica);

    if (snapshot_make(writer, f->snaps, NULL, &f->info, &err) < 0) {
        fail_msg("%s", err.text);
    }
    snapshot_path(f->snaps, f->info.term, f->info.index, f->path);
}

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);

    f->machine = machine_new();
    (void)snprintf(f->snaps, sizeof f->snaps, "%s/snap", f->machine->dir);
    assert_int_equal(mkdir(f->snaps, 0700), 0);
    for (unsigned i = 0; i < 300; i++) {
        char path[64];
        (void)snprintf(path, sizeof path, "/d%u/k%u", i % 7, i);
        (void)machine_do(f->machine,
                (struct op){
                        .kind = OP_SET, .path = span_str(path), .value = span_str(path), TTL(i) });
    }
    make(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    f->machine = machine_free(f->machine);
    free(f);
    return 0;
}

static void a_snapshot_gives_the_state_back(void **state)
{
    struct fixture *f = *state;
    struct buf before = BUF_INIT;
    struct buf after = BUF_INIT;
    char restored[96];
    struct snapshot_info info = { 0 };
    struct err err = { 0 };

    assert_int_equal(f->info.index, 300);
    assert_int_equal(f->info.term, 1);
    machine_dump(f->machine, &before);
    (void)snprintf(restored, sizeof restored, "%s/restored", f->machine->dir);
    assert_int_equal(mkdir(restored, 0700), 0);
    if (snapshot_unpack(f->path, restored, &info, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(info.index, 300);
    struct machine other = *f->machine;
    other.replica = NULL;
    (void)snprintf(other.dir, sizeof other.dir, "%.63s", restored);
    machine_dump(&other, &after);
    assert_true(before.bytes > 1000);
    assert_true(span_eq(buf_span(&before), buf_span(&after)));
    other.replica = replica_close(other.replica);
    buf_fini(&before);
    buf_fini(&after);
}

static void writes_go_on_while_a_snapshot_is_made(void **state)
{
    struct fixture *f = *state;

    (void)DO(f->machine, OP_SET, PATH("/later"), VALUE("v"));
    make(f);
    assert_int_equal(f->info.index, 301);
    struct snapshot_info info = { 0 };
    assert_int_equal(snapshot_verify(f->path, &info, NULL), 0);
    assert_int_equal(info.index, 301);
    assert_int_equal(snapshot_newest(f->snaps, &info, NULL), 0);
    assert_int_equal(info.index, 301);
    assert_int_equal(info.bytes, f->info.bytes);
}

static void flip(const char *path, off_t at, uint8_t bit)
{
    uint8_t byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= bit;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    assert_int_equal(close(fd), 0);
}

static void any_flipped_bit_is_found(void **state)
{
    struct fixture *f = *state;
    struct snapshot_info info;
    uint64_t seed = 20260102;

    for (unsigned i = 0; i < 600; i++) {
        uint64_t from_end = 1 + i; /* every byte of the trailer, then anywhere */
        off_t at = (off_t)(f->info.bytes - from_end);
        if (i >= SNAPSHOT_TRAILER_BYTES) {
            at = (off_t)(random_next(&seed) % f->info.bytes);
        }
        uint8_t bit = (uint8_t)(1U << random_next(&seed) % 8);
        flip(f->path, at, bit);
        int result = snapshot_verify(f->path, &info, NULL);
        flip(f->path, at, bit);
        if (result != -EUCLEAN) {
            fail_msg("byte %lld, bit %x: %d", (long long)at, bit, result);
        }
    }
    assert_int_equal(snapshot_verify(f->path, &info, NULL), 0);
}

static void any_truncation_is_found(void **state)
{
    struct fixture *f = *state;
    struct snapshot_info info;
    uint64_t seed = 20260103;
    char cut[SNAPSHOT_PATH_BYTES_MAX];
    char restored[96];

    (void)snprintf(cut, sizeof cut, "%s/cut", f->snaps);
    (void)snprintf(restored, sizeof restored, "%s/restored", f->machine->dir);
    assert_int_equal(mkdir(restored, 0700), 0);
    assert_int_equal(link(f->path, cut), 0);
    for (uint64_t bytes = f->info.bytes - 1; bytes > 0;) {
        assert_int_equal(truncate(cut, (off_t)bytes), 0);
        assert_int_equal(snapshot_verify(cut, &info, NULL), -EUCLEAN);
        assert_int_equal(snapshot_unpack(cut, restored, &info, NULL), -EUCLEAN);
        uint64_t less = 1 + random_next(&seed) % (f->info.bytes / 20);
        bytes = bytes > f->info.bytes - 80 ? bytes - 1 : bytes - MIN(bytes, less);
    }
    assert_int_equal(truncate(cut, 0), 0);
    assert_int_equal(snapshot_verify(cut, &info, NULL), -EUCLEAN);
}

static void a_longer_file_is_found(void **state)
{
    struct fixture *f = *state;
    struct snapshot_info info;

    assert_int_equal(truncate(f->path, (off_t)f->info.bytes + 4096), 0);
    assert_int_equal(snapshot_verify(f->path, &info, NULL), -EUCLEAN);
}

static void touch(struct fixture *f, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", f->snaps, name);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
}

static bool exists(struct fixture *f, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", f->snaps, name);
    return access(path, F_OK) == 0;
}

static void the_newest_are_kept_and_nothing_the_log_does_not_know(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(unlink(f->path), 0);
    for (unsigned i = 1; i <= 8; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "%016x-%016x.snap", i / 4 + 1, i * 16);
        touch(f, name);
    }
    touch(f, "0000000000000001-0000000000000001.snap.broken");
    touch(f, "notes.txt");
    /* Recorded up to the fourth: one to three may go, and only as far as five remain. */
    assert_int_equal(snapshot_purge(f->snaps, 7, 2, 0x40, NULL), 7);
    assert_false(exists(f, "0000000000000001-0000000000000010.snap"));
    assert_int_equal(snapshot_purge(f->snaps, 1, 2, 0x40, NULL), 4);
    assert_false(exists(f, "0000000000000002-0000000000000040.snap"));
    assert_true(exists(f, "0000000000000002-0000000000000050.snap"));
    assert_int_equal(snapshot_purge(f->snaps, 0, 3, 0x80, NULL), 4);
    assert_int_equal(snapshot_purge(f->snaps, 2, 3, 0x80, NULL), 2);
    assert_true(exists(f, "0000000000000003-0000000000000080.snap"));
    assert_true(exists(f, "0000000000000002-0000000000000070.snap"));
    assert_true(exists(f, "0000000000000001-0000000000000001.snap.broken"));
    assert_true(exists(f, "notes.txt"));
}

static void leftovers_are_swept_and_broken_ones_kept(void **state)
{
    struct fixture *f = *state;
    struct snapshot_info info;

    touch(f, "making.snap.tmp");
    snapshot_sweep(f->snaps);
    assert_false(exists(f, "making.snap.tmp"));
    assert_int_equal(snapshot_set_broken(f->path, NULL), 0);
    assert_int_equal(snapshot_newest(f->snaps, &info, NULL), -ENOENT);
    assert_true(exists(f, "0000000000000001-000000000000012c.snap.broken"));
}

static void a_folder_that_is_missing_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct snapshot_info info;
    struct err err = { 0 };
    struct state_writer *writer = replica_writer(f->machine->replica);

    assert_int_equal(snapshot_make(writer, "/nonexistent", NULL, &info, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent"));
    assert_int_equal(snapshot_verify("/nonexistent", &info, &err), -ENOENT);
}

static void a_full_disk_leaves_no_snapshot_behind(void **state)
{
    struct fixture *f = *state;
    struct snapshot_info info;
    struct err err = { 0 };
    char full[128];

    (void)snprintf(full, sizeof full, "%s/making.snap.tmp", f->snaps);
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(symlink("/dev/full", full), 0);
    int result = snapshot_make(replica_writer(f->machine->replica), f->snaps, NULL, &info, &err);
    assert_int_equal(result, -ENOSPC);
    assert_int_equal(snapshot_newest(f->snaps, &info, NULL), -ENOENT);
    assert_false(exists(f, "making.snap.tmp"));
}

static void a_copy_that_is_given_up_leaves_nothing_behind(void **state)
{
    struct fixture *f = *state;
    struct state_writer *writer = replica_writer(f->machine->replica);
    struct snapshot_info info;
    struct err err = { 0 };
    atomic_bool stop = true;
    char dest[128];

    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(snapshot_make(writer, f->snaps, &stop, &info, &err), -ECANCELED);
    assert_int_equal(snapshot_newest(f->snaps, &info, NULL), -ENOENT);
    assert_false(exists(f, "making.snap.tmp"));
    (void)snprintf(dest, sizeof dest, "%s/copy", f->machine->dir);
    assert_int_equal(mkdir(dest, 0700), 0);
    assert_int_equal(snapshot_copy_env(writer, dest, &stop, &err), -ECANCELED);

    /* The state goes on, and the next copy is whole. */
    (void)DO(f->machine, OP_SET, PATH("/later"), VALUE("v"));
    make(f);
    assert_int_equal(snapshot_verify(f->path, &info, NULL), 0);
    assert_int_equal(info.index, 301);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_snapshot_gives_the_state_back),
        TEST(writes_go_on_while_a_snapshot_is_made),
        TEST(any_flipped_bit_is_found),
        TEST(any_truncation_is_found),
        TEST(a_longer_file_is_found),
        TEST(the_newest_are_kept_and_nothing_the_log_does_not_know),
        TEST(leftovers_are_swept_and_broken_ones_kept),
        TEST(a_folder_that_is_missing_is_an_error),
        TEST(a_full_disk_leaves_no_snapshot_behind),
        TEST(a_copy_that_is_given_up_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
