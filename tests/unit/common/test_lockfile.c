/* test_lockfile.c: one holder at a time, named to whoever comes second. flock belongs to an open file, so a second open in
 * one process stands for a second process. */
#include "common/lockfile.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/scratch.h"

struct place {
    char dir[SCRATCH_PATH_MAX];
    char path[96];
};

static int setup(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    if (!scratch_make(place->dir)) {
        return -1;
    }
    (void)snprintf(place->path, sizeof place->path, "%s/LOCK", place->dir);
    *state = place;
    return 0;
}

static int teardown(void **state)
{
    struct place *place = *state;
    scratch_remove(place->dir);
    free(place);
    return 0;
}

static void second_holder_is_told_the_first_ones_pid(void **state)
{
    const struct place *place = *state;
    struct err err = { 0, "" };
    char pid[32];
    int fd = -1;
    int second = -1;

    assert_int_equal(lockfile_open(place->path, &fd, &err), 0);
    assert_int_equal(lockfile_open(place->path, &second, &err), -EWOULDBLOCK);
    (void)snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_non_null(strstr(err.text, pid));
    assert_int_equal(second, -1);
    assert_int_equal(lockfile_holder(place->path), getpid());
    (void)close(fd);
}

static void closing_lets_the_next_one_in(void **state)
{
    const struct place *place = *state;
    int fd = -1;

    assert_int_equal(lockfile_open(place->path, &fd, NULL), 0);
    (void)close(fd);
    assert_int_equal(lockfile_holder(place->path), 0);
    assert_int_equal(lockfile_open(place->path, &fd, NULL), 0);
    (void)close(fd);
}

static void looking_for_a_holder_creates_nothing(void **state)
{
    const struct place *place = *state;
    struct stat stat_;

    assert_int_equal(lockfile_holder(place->path), 0);
    assert_true(stat(place->path, &stat_) < 0);
}

static void file_is_private_and_follows_no_link(void **state)
{
    const struct place *place = *state;
    struct stat stat_;
    int fd = -1;

    assert_int_equal(lockfile_open(place->path, &fd, NULL), 0);
    assert_int_equal(fstat(fd, &stat_), 0);
    assert_int_equal(stat_.st_mode & 0777, 0600);
    (void)close(fd);
    assert_int_equal(unlink(place->path), 0);
    assert_int_equal(symlink("/dev/null", place->path), 0);
    assert_true(lockfile_open(place->path, &fd, NULL) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(second_holder_is_told_the_first_ones_pid, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_lets_the_next_one_in, setup, teardown),
        cmocka_unit_test_setup_teardown(looking_for_a_holder_creates_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(file_is_private_and_follows_no_link, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
