/* test_status.c: a daemon's status socket and who asks on it. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/loop.h"
#include "proto/status_ask.h"
#include "proto/status_server.h"
#include "tests/unit/patience.h"
#include "tests/unit/scratch.h"

enum {
    PATIENCE_MS = 20000
};

struct fixture {
    char dir[SCRATCH_PATH_MAX];
    char path[SCRATCH_PATH_MAX + 16];
    struct loop *loop;
    struct loop_waker *stop;
    struct status_server *server;
    pthread_t thread;
    unsigned line_count; /* that fill makes */
    uint64_t filled;
};

static void fill(void *user, struct status_page *page)
{
    struct fixture *f = user;

    f->filled++;
    status_page_add(page, "test_filled_total", f->filled);
    status_page_add_of(page, "test_peer_index", "peer", 0x8e9e05c52164694dU, UINT64_MAX);
    for (unsigned i = 0; i < f->line_count; i++) {
        status_page_add(page, "test_line", i);
    }
}

static void on_stop(void *user)
{
    struct fixture *f = user;
    loop_stop(f->loop);
}

static void *serve(void *user)
{
    struct fixture *f = user;
    loop_run(f->loop);
    return NULL;
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct err err = { 0 };

    assert_true(scratch_make(f->dir));
    (void)snprintf(f->path, sizeof f->path, "%s/s.ipc", f->dir);
    f->loop = loop_new();
    f->stop = loop_waker_new(f->loop, on_stop, f);
    struct status_server_config config = {
        .component = "tested", .path = f->path, .fill = fill, .user = f
    };
    assert_int_equal(status_server_open(f->loop, &config, &f->server, &err), 0);
    assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    loop_waker_wake(f->stop);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    f->server = status_server_close(f->server);
    f->stop = loop_waker_free(f->stop);
    f->loop = loop_free(f->loop);
    int result = rmdir(f->dir);
    free(f);
    return result;
}

static void a_page_is_made_for_each_question(void **state)
{
    struct fixture *f = *state;
    struct err err = { 0 };

    for (unsigned i = 1; i <= 3; i++) {
        struct status_answer answer;
        char expected[128];
        assert_int_equal(status_ask(f->path, patience_ms(PATIENCE_MS), &answer, &err), 0);
        assert_string_equal(answer.component, "tested");
        assert_true(answer.version[0] != '\0');
        assert_int_equal(answer.pid, getpid());
        (void)snprintf(expected, sizeof expected,
                "test_filled_total %u\ntest_peer_index{peer=\"8e9e05c52164694d\"} "
                "18446744073709551615\n",
                i);
        assert_true(span_eq(buf_span(&answer.lines), span_str(expected)));
        buf_fini(&answer.lines);
    }
}

static void more_lines_than_a_page_holds_are_left_out(void **state)
{
    struct fixture *f = *state;
    struct status_answer answer;
    struct err err = { 0 };
    unsigned lines = 0;

    f->line_count = 5 * STATUS_LINES_MAX;
    assert_int_equal(status_ask(f->path, patience_ms(PATIENCE_MS), &answer, &err), 0);
    for (size_t i = 0; i < answer.lines.bytes; i++) {
        lines += answer.lines.data[i] == '\n';
    }
    assert_int_equal(lines, STATUS_LINES_MAX);
    buf_fini(&answer.lines);
}

static void who_asks_where_nobody_is_hears_so(void **state)
{
    struct fixture *f = *state;
    struct status_answer answer;
    struct err err = { 0 };
    char path[80];

    (void)snprintf(path, sizeof path, "%s/nobody.ipc", f->dir);
    assert_int_equal(status_ask(path, 50, &answer, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.text, "nobody.ipc within 50 ms"));
    buf_fini(&answer.lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_page_is_made_for_each_question, setup, teardown),
        cmocka_unit_test_setup_teardown(more_lines_than_a_page_holds_are_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(who_asks_where_nobody_is_hears_so, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
