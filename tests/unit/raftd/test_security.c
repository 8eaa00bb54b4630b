/* test_security.c: keys of connections between members, and files that change. */
#include "daemons/raftd/peer/security.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/loop.h"
#include "tests/unit/scratch.h"

struct bench {
    char folder[SCRATCH_PATH_MAX];
    char path[SCRATCH_PATH_MAX + 16];
    struct conf conf;
    struct loop *loop;
    struct security *security;
    unsigned changes;
};

/* In place, as an editor or rsync --inplace does it. */
static void write_key(const struct bench *bench, char digit)
{
    char text[65];
    int fd = open(bench->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    memset(text, digit, sizeof text - 1);
    text[sizeof text - 1] = '\n';
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof text), sizeof text);
    (void)close(fd);
}

static void on_trust_changed(void *user, bool is_tls)
{
    struct bench *bench = user;

    assert_false(is_tls);
    bench->changes++;
}

static int set_up(void **state)
{
    struct bench *bench = xcalloc(1, sizeof *bench);
    struct err err = { 0 };

    assert_true(scratch_make(bench->folder));
    (void)snprintf(bench->path, sizeof bench->path, "%s/key", bench->folder);
    write_key(bench, 'a');
    bench->conf.cluster_key_file = bench->path;
    bench->loop = loop_new();
    assert_int_equal(security_new(&bench->conf, &bench->security, &err), 0);
    security_watch(bench->security, bench->loop, on_trust_changed, bench);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    bench->security = security_free(bench->security);
    bench->loop = loop_free(bench->loop);
    scratch_remove(bench->folder);
    free(bench);
    return 0;
}

static void a_key_that_is_the_same_changes_nothing(void **state)
{
    struct bench *bench = *state;

    security_reload(bench->security);
    write_key(bench, 'a');
    security_reload(bench->security);
    assert_int_equal(bench->changes, 0);
}

static void a_reload_finds_another_key_whatever_the_files_date_says(void **state)
{
    struct bench *bench = *state;
    struct stat before;

    assert_int_equal(stat(bench->path, &before), 0);
    write_key(bench, 'b');
    assert_int_equal(utimensat(AT_FDCWD, bench->path,
                             (struct timespec[]){ before.st_atim, before.st_mtim }, 0),
            0);
    security_reload(bench->security);
    assert_int_equal(bench->changes, 1);
    security_reload(bench->security);
    assert_int_equal(bench->changes, 1);
}

static void a_file_without_a_key_leaves_the_old_one(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(truncate(bench->path, 10), 0);
    security_reload(bench->security);
    assert_int_equal(unlink(bench->path), 0);
    security_reload(bench->security);
    assert_int_equal(bench->changes, 0);
    write_key(bench, 'c');
    security_reload(bench->security);
    assert_int_equal(bench->changes, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_key_that_is_the_same_changes_nothing),
        TEST(a_reload_finds_another_key_whatever_the_files_date_says),
        TEST(a_file_without_a_key_leaves_the_old_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
