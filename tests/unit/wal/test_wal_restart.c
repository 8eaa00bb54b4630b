/* test_wal_restart.c: whole files that are missing, empty or another log's, and the rewrite of the last one at a start:
 * wherever that crashes, nothing is lost. */
#include "tests/unit/wal/wal_damage.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/synclog.h"

static const char first_segment[] = "0000000000000000-0000000000000001.wal";

/* ---- Whole files ---------------------------------------------------------------------------------------------- */

static void a_torn_tail_in_a_segment_that_has_a_successor_is_damage(void **state)
{
    struct damage *d = *state;
    uint64_t end = 0;
    damage_create(d);
    while (wal_segment_count(d->wal) == 1) {
        end = d->wal->end;
        struct wal_write write = script_next(d->script);
        damage_append(d, &write, false);
    }
    uint64_t offsets[] = { end - 1, end - 30, end / 2, 100, 0 };
    for (size_t i = 0; i < ARRAY_COUNT(offsets); i++) {
        for (enum tear how = TEAR_CUT; how <= TEAR_GARBAGE; how++) {
            damage_copy(d, &d->wal->segments[0].name);
            damage_tear(d, how, offsets[i] & ~UINT64_C(7), end);
            assert_int_equal(damage_recover(d), -EBADMSG);
            assert_non_null(strstr(d->err.text, first_segment));
        }
    }
}

/* A vote that says nothing new is lost at a segment's end: no index, no state betrays it, only the chain. */
static void a_segment_that_lacks_its_last_batch_is_damage_however_little_that_said(void **state)
{
    struct damage *d = *state;
    uint64_t start = 0;
    uint64_t end = 0;
    damage_create(d);
    while (wal_segment_count(d->wal) == 1) {
        struct wal_write write = script_next(d->script);
        struct wal_hard_state hard = d->wal->hard;
        start = d->wal->end;
        damage_append(d, &(struct wal_write){ .hard = &hard }, false);
        end = d->wal->end;
        damage_append(d, &write, false);
    }
    assert_true(start < end); /* it was not the vote that had no room */
    damage_copy(d, &d->wal->segments[0].name);
    damage_tear(d, TEAR_ZEROS, start, end);
    assert_int_equal(damage_recover(d), -EBADMSG);
    assert_non_null(strstr(d->err.text, first_segment));

    /* The same in a segment that is only read when somebody asks for what it holds. */
    struct wal_base base = fixture_base;
    base.index = d->script->model->last_index;
    while (wal_segment_count(d->wal) < 4) {
        damage_append(d, &(struct wal_write){ .base = &base }, false);
    }
    assert_int_equal(wal_sync(d->wal, NULL), 0);
    damage_copy(d, &d->wal->segments[0].name);
    damage_tear(d, TEAR_ZEROS, start, end);
    struct wal *copy = NULL;
    assert_int_equal(damage_restart(d, NULL, &copy), 0);
    assert_int_equal(wal_read_entries(copy, 1, 1, SIZE_MAX, NULL, NULL, &d->err), -EBADMSG);
    (void)wal_close(copy);
}

static void a_segment_of_another_log_is_refused(void **state)
{
    struct damage *d = *state;
    char moved[FIXTURE_PATH_BYTES * 2];
    damage_write(d, 40);
    damage_copy(d, &d->segment);
    (void)snprintf(moved, sizeof(moved), "%s/0000000000000009-0000000000000001.wal", d->copy);
    assert_int_equal(rename(d->file, moved), 0);
    assert_true(damage_recover(d) < 0);
}

static void an_empty_or_zeroed_segment_is_refused(void **state)
{
    struct damage *d = *state;
    damage_write(d, 4);
    damage_copy(d, &d->segment);
    damage_tear(d, TEAR_ZEROS, 0, DAMAGE_SEGMENT_BYTES);
    assert_int_equal(damage_recover(d), -EBADMSG);
    damage_tear(d, TEAR_CUT, 0, DAMAGE_SEGMENT_BYTES);
    assert_int_equal(damage_recover(d), -EBADMSG);
}

/* ---- The rewrite at a restart --------------------------------------------------------------------------------- */

static void crash_at_every_step_of_the_rewrite(struct damage *d, off_t allocate_bytes_max)
{
    unsigned steps = 0;
    damage_write(d, 12);
    damage_close(d);
    for (bool has_fired = true; has_fired; steps++) {
        struct fault fault;
        fault_init(&fault);
        fault.is_dead_after = true;
        fault.allocate_bytes_max = allocate_bytes_max;
        fault_arm(&fault, steps + 1, EIO);
        damage_copy(d, &d->segment);
        int r = damage_restart(d, &fault.io, NULL);
        has_fired = fault.has_fired;
        assert_int_equal(r < 0, has_fired);

        /* The files lie as the crash left them; twice, as the second start may crash as well. */
        for (int again = 0; again < 2; again++) {
            assert_int_equal(damage_restart(d, NULL, NULL), 0);
            assert_true(model_equal(d->model, d->after));
        }
    }
    assert_true(steps > 5);
}

static void a_crash_at_every_step_of_the_rewrite_changes_nothing(void **state)
{
    crash_at_every_step_of_the_rewrite(*state, 0);
}

static void a_crash_at_every_step_of_a_rewrite_in_place_changes_nothing(void **state)
{
    crash_at_every_step_of_the_rewrite(*state, 1);
}

static void leftovers_of_an_unfinished_start_are_removed(void **state)
{
    struct damage *d = *state;
    const char *names[] = { NAMES_SPARE, NAMES_REWRITE };
    damage_write(d, 12);
    damage_close(d);
    damage_copy(d, &d->segment);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        (void)snprintf(d->file, sizeof(d->file), "%s/%s", d->copy, names[i]);
        (void)close(open(d->file, O_CREAT | O_WRONLY, 0600));
        damage_put(d, 0, "half of something", 17);
    }
    assert_int_equal(damage_restart(d, NULL, NULL), 0);
    assert_true(model_equal(d->model, d->after));
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        (void)snprintf(d->file, sizeof(d->file), "%s/%s", d->copy, names[i]);
        assert_int_equal(access(d->file, F_OK), -1);
    }
}

/* ---- A new log ------------------------------------------------------------------------------------------------ */

/* The folders that lead to it may be as new as the log: whose name is not on disk is gone with all that is in it. */
static void a_new_logs_folders_are_on_disk_before_it_is_used(void **state)
{
    struct damage *d = *state;
    char dir[FIXTURE_PATH_BYTES + 32];
    struct wal *wal = NULL;

    (void)snprintf(dir, sizeof(dir), "%s/outer", d->fixture->root);
    assert_int_equal(mkdir(dir, 0700), 0);
    (void)snprintf(dir, sizeof(dir), "%s/outer/inner", d->fixture->root);
    assert_int_equal(mkdir(dir, 0700), 0);
    (void)snprintf(dir, sizeof(dir), "%s/outer/inner/wal", d->fixture->root);
    struct wal_config config = { .dir = dir };
    synclog_begin();
    assert_int_equal(wal_create(&config, &fixture_base, &fixture_hard, &wal, NULL), 0);
    const char *text = synclog_text();
    assert_non_null(strstr(text, "sync wal\nsync inner\nsync outer\n"));
    (void)snprintf(dir, sizeof(dir), "sync outer\nsync %s\n", strrchr(d->fixture->root, '/') + 1);
    assert_non_null(strstr(text, dir));
    (void)wal_close(wal);
}

static void a_new_log_whose_folder_cannot_be_synced_is_none(void **state)
{
    struct damage *d = *state;
    char dir[FIXTURE_PATH_BYTES + 32];
    struct wal *wal = NULL;

    (void)snprintf(dir, sizeof(dir), "%s/outer", d->fixture->root);
    assert_int_equal(mkdir(dir, 0700), 0);
    (void)snprintf(dir, sizeof(dir), "%s/outer/wal", d->fixture->root);
    struct wal_config config = { .dir = dir };
    char part[32];
    (void)snprintf(part, sizeof(part), "%.30s/", strrchr(d->fixture->root, '/') + 1);
    synclog_fail_syncs(part);
    int result = wal_create(&config, &fixture_base, &fixture_hard, &wal, NULL);
    synclog_fail(NULL);
    assert_int_equal(result, -EIO);
    assert_int_equal(wal_exists(dir, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DAMAGE_TEST(a_new_logs_folders_are_on_disk_before_it_is_used),
        DAMAGE_TEST(a_new_log_whose_folder_cannot_be_synced_is_none),
        DAMAGE_TEST(a_torn_tail_in_a_segment_that_has_a_successor_is_damage),
        DAMAGE_TEST(a_segment_that_lacks_its_last_batch_is_damage_however_little_that_said),
        DAMAGE_TEST(a_segment_of_another_log_is_refused),
        DAMAGE_TEST(an_empty_or_zeroed_segment_is_refused),
        DAMAGE_TEST(a_crash_at_every_step_of_the_rewrite_changes_nothing),
        DAMAGE_TEST(a_crash_at_every_step_of_a_rewrite_in_place_changes_nothing),
        DAMAGE_TEST(leftovers_of_an_unfinished_start_are_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
