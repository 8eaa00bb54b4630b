/* test_durable.c: in which order files of the state reach the disk, and what an error there does to trust. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemons/stored/files.h"
#include "daemons/stored/generations.h"
#include "daemons/stored/snapshot.h"
#include "daemons/stored/stored.h"
#include "tests/unit/stored/machine.h"
#include "tests/unit/synclog.h"

enum {
    MAP_BYTES = 64 << 20
};

struct fixture {
    char dir[SCRATCH_PATH_MAX];
    char state[80];
    char snap[80];
    char shared[64]; /* the word: on tmpfs */
    struct generations *generations;
    uint64_t index;
};

static void open_state(struct fixture *f)
{
    struct err err = { 0 };
    struct generations_config config = {
        .state_dir = f->state,
        .run_dir = f->dir,
        .shared_dir = f->shared,
        .boot_id = "boot-a",
        .map_bytes = MAP_BYTES,
        .history = { .window = 10, .count = 100, .bytes = 1 << 20 },
    };
    if (generations_open(&config, &f->generations, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static int write_one(struct fixture *f)
{
    struct buf bytes = BUF_INIT;
    struct replica_result result;

    machine_encode((struct op){ .kind = OP_SET, .path = SPAN_LIT("/k"), .value = SPAN_LIT("v") },
            f->index + 1, 1, &bytes);
    struct span entry = buf_span(&bytes);
    struct apply batch = {
        .prev_index = f->index, .prev_term = f->index > 0, .entries = { &entry, 1 }
    };
    int code = generations_apply(f->generations, &batch, 1, &result, NULL);
    f->index += code == 0;
    buf_fini(&bytes);
    return code;
}

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    char dir[STATE_PATH_BYTES_MAX];
    uint64_t number;

    assert_true(scratch_make(f->dir));
    (void)snprintf(f->state, sizeof f->state, "%s/state", f->dir);
    (void)snprintf(f->snap, sizeof f->snap, "%s/snap", f->dir);
    assert_int_equal(mkdir(f->state, 0700), 0);
    assert_int_equal(mkdir(f->snap, 0700), 0);
    (void)snprintf(f->shared, sizeof f->shared, "/dev/shm/quorate-test.XXXXXX");
    assert_non_null(mkdtemp(f->shared));
    open_state(f);
    assert_int_equal(generations_prepare(f->generations, &number, dir, NULL), 0);
    assert_int_equal(generations_build_empty(dir, MAP_BYTES, 0, NULL), 0);
    assert_int_equal(generations_switch(f->generations, number, NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(write_one(f), 0);
    }
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    synclog_fail(NULL);
    f->generations = generations_abandon(f->generations);
    scratch_remove(f->dir);
    scratch_remove(f->shared);
    free(f);
    return 0;
}

static bool has_word(const struct fixture *f)
{
    DIR *stream = opendir(f->shared);
    const struct dirent *entry;
    bool has = false;

    assert_non_null(stream);
    while ((entry = readdir(stream)) != NULL) {
        has |= entry->d_name[0] != '.';
    }
    (void)closedir(stream);
    return has;
}

static void what_is_replaced_is_on_disk_before_it_has_its_name(void **state)
{
    struct fixture *f = *state;

    synclog_begin();
    assert_int_equal(files_replace(f->snap, "NAME", SPAN_LIT("x"), NULL), 0);
    assert_string_equal(synclog_text(), "sync NAME.tmp\nrename NAME.tmp NAME\nsync snap\n");
}

static void a_snapshot_is_on_disk_before_it_has_its_name(void **state)
{
    struct fixture *f = *state;
    struct state_writer *writer = replica_writer(generations_replica(f->generations));
    struct snapshot_info info;

    synclog_begin();
    assert_int_equal(snapshot_make(writer, f->snap, NULL, &info, NULL), 0);
    assert_string_equal(synclog_text(),
            "sync making.snap.tmp\n"
            "rename making.snap.tmp 0000000000000001-0000000000000003.snap\n"
            "sync snap\n");
}

static void a_snapshot_whose_name_may_not_be_on_disk_is_none(void **state)
{
    struct fixture *f = *state;
    struct state_writer *writer = replica_writer(generations_replica(f->generations));
    struct snapshot_info info;

    synclog_fail_syncs("/snap/");
    assert_int_equal(snapshot_make(writer, f->snap, NULL, &info, NULL), -EIO);
    synclog_fail(NULL);
    assert_int_equal(snapshot_newest(f->snap, &info, NULL), -ENOENT);
}

/* A life before this one may have been killed between the two. */
static void names_of_snapshots_are_on_disk_before_anybody_is_told_of_them(void **state)
{
    struct fixture *f = *state;
    struct stored_config config = { .data_dir = f->dir,
        .run_dir = f->dir,
        .shared_dir = f->shared,
        .event_history = 1000,
        .map_bytes = MAP_BYTES };
    struct stored *stored = NULL;
    struct err err = { 0 };

    for (unsigned i = 0; i < 2; i++) {
        synclog_begin();
        if (stored_new(&config, &stored, &err) < 0) {
            fail_msg("%s", err.text);
        }
        assert_non_null(strstr(synclog_text(), "sync snap\n"));
        stored = stored_free(stored);
    }
}

static void a_loaded_state_is_on_disk_before_it_is_the_current_one(void **state)
{
    struct fixture *f = *state;
    struct state_writer *writer = replica_writer(generations_replica(f->generations));
    struct snapshot_info info;
    char path[SNAPSHOT_PATH_BYTES_MAX];
    char dir[STATE_PATH_BYTES_MAX];
    uint64_t number;

    assert_int_equal(snapshot_make(writer, f->snap, NULL, &info, NULL), 0);
    snapshot_path(f->snap, info.term, info.index, path);
    assert_int_equal(generations_prepare(f->generations, &number, dir, NULL), 0);
    synclog_begin();
    assert_int_equal(generations_build_loaded(dir, MAP_BYTES, path, 11, 22, 0, NULL), 0);
    assert_string_equal(synclog_text(), "sync data.mdb\nsync 0000000000000002\n"
                                        "write data.mdb\n" /* the ids are this member's own */
                                        "sync data.mdb\nsync 0000000000000002\n");
    synclog_begin();
    assert_int_equal(generations_switch(f->generations, number, NULL), 0);
    assert_string_equal(synclog_text(), "sync CURRENT.tmp\nrename CURRENT.tmp CURRENT\nsync state\n"
                                        "sync MARK.tmp\nrename MARK.tmp MARK\nsync state\n");
}

static void a_state_is_called_clean_once_it_is_on_disk(void **state)
{
    struct fixture *f = *state;

    synclog_begin();
    f->generations = generations_close(f->generations);
    assert_string_equal(
            synclog_text(), "sync data.mdb\nsync MARK.tmp\nrename MARK.tmp MARK\nsync state\n");
}

static void a_state_is_called_unclean_on_disk_before_the_first_write(void **state)
{
    struct fixture *f = *state;

    f->generations = generations_close(f->generations);
    synclog_begin();
    open_state(f);
    assert_string_equal(synclog_text(), "");
    synclog_begin();
    assert_int_equal(write_one(f), 0);
    assert_int_equal(write_one(f), 0);
    assert_string_equal(
            synclog_text(), "sync MARK.tmp\nrename MARK.tmp MARK\nsync state\nwrite data.mdb\n");
}

static void an_error_of_a_commit_ends_the_trust_at_once(void **state)
{
    struct fixture *f = *state;

    assert_true(has_word(f));
    synclog_fail("data.mdb");
    assert_true(write_one(f) < 0);
    assert_true(synclog_failed() > 0);
    synclog_fail(NULL);
    assert_false(has_word(f));
    f->generations = generations_abandon(f->generations);
    open_state(f);
    assert_null(generations_replica(f->generations));
}

static void a_state_that_could_not_be_synced_is_not_called_clean(void **state)
{
    struct fixture *f = *state;

    synclog_fail("data.mdb");
    f->generations = generations_close(f->generations);
    assert_true(synclog_failed() > 0);
    synclog_fail(NULL);
    assert_false(has_word(f));
    open_state(f);
    assert_null(generations_replica(f->generations));
}

/* Of another file, on what is likely the same disk: what LMDB wrote and nobody synced may be gone as well. */
static void an_error_met_elsewhere_ends_the_trust_until_a_clean_end(void **state)
{
    struct fixture *f = *state;

    generations_doubt(f->generations);
    assert_false(has_word(f));
    assert_int_equal(write_one(f), 0);
    assert_false(has_word(f));
    f->generations = generations_close(f->generations);
    open_state(f);
    assert_non_null(generations_replica(f->generations));
    assert_int_equal(write_one(f), 0);
    assert_true(has_word(f));
    f->generations = generations_abandon(f->generations);
    open_state(f); /* trusted, and not written to */
    assert_non_null(generations_replica(f->generations));
    generations_doubt(f->generations);
    assert_int_equal(write_one(f), 0);
    assert_false(has_word(f));
    f->generations = generations_abandon(f->generations);
    open_state(f);
    assert_null(generations_replica(f->generations));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_replaced_is_on_disk_before_it_has_its_name),
        TEST(a_snapshot_is_on_disk_before_it_has_its_name),
        TEST(a_snapshot_whose_name_may_not_be_on_disk_is_none),
        TEST(names_of_snapshots_are_on_disk_before_anybody_is_told_of_them),
        TEST(a_loaded_state_is_on_disk_before_it_is_the_current_one),
        TEST(a_state_is_called_clean_once_it_is_on_disk),
        TEST(a_state_is_called_unclean_on_disk_before_the_first_write),
        TEST(an_error_of_a_commit_ends_the_trust_at_once),
        TEST(a_state_that_could_not_be_synced_is_not_called_clean),
        TEST(an_error_met_elsewhere_ends_the_trust_until_a_clean_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
