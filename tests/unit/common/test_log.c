/* test_log.c: one line an event, whatever is in it; repeats counted; a reader that is gone or slow costs lines only. */
#include "common/log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* stderr is a pipe of ours while a test runs. */
struct capture {
    int old_stderr;
    int reader;
};

static int setup(void **state)
{
    struct capture *capture = calloc(1, sizeof *capture);
    int fds[2];

    if (pipe(fds) < 0) {
        return -1;
    }
    capture->old_stderr = dup(STDERR_FILENO);
    capture->reader = fds[0];
    (void)dup2(fds[1], STDERR_FILENO);
    (void)close(fds[1]);
    (void)fcntl(capture->reader, F_SETFL, O_NONBLOCK);
    log_init("unit", LOG_LEVEL_INFO);
    *state = capture;
    return 0;
}

static int teardown(void **state)
{
    struct capture *capture = *state;
    (void)dup2(capture->old_stderr, STDERR_FILENO);
    (void)close(capture->old_stderr);
    (void)close(capture->reader);
    free(capture);
    return 0;
}

static const char *take(const struct capture *capture, char *ret_text, size_t text_bytes)
{
    ssize_t bytes = read(capture->reader, ret_text, text_bytes - 1);
    ret_text[bytes < 0 ? 0 : bytes] = '\0';
    return ret_text;
}

static void line_has_time_level_component_and_event(void **state)
{
    char text[8192];
    unsigned year, month, day, hour, minute, second, micros;
    char level;
    int used = 0;

    log_notice("a.thing.happened", "count=%d", 3);
    (void)take(*state, text, sizeof text);
    assert_int_equal(sscanf(text, "%4u-%2u-%2u %2u:%2u:%2u.%6u %c | %n", &year, &month, &day, &hour,
                             &minute, &second, &micros, &level, &used),
            8);
    assert_int_equal(level, 'N');
    assert_string_equal(text + used, "unit: a.thing.happened count=3\n");
}

static void line_under_a_package_is_verbatim(void **state)
{
    char text[8192];

    log_line(LOG_LEVEL_INFO, "etcdserver", "published {Name:%s}", "m");
    assert_non_null(
            strstr(take(*state, text, sizeof text), " I | etcdserver: published {Name:m}\n"));
}

static void error_text_is_quoted_behind(void **state)
{
    char text[8192];
    struct err err = { -5, "disk on fire" };

    log_error_err(&err, "wal.append.failed", "index=%d", 7);
    assert_non_null(strstr(
            take(*state, text, sizeof text), "wal.append.failed index=7 error=\"disk on fire\"\n"));
}

static void newlines_in_values_make_no_second_line(void **state)
{
    char text[8192];

    log_error("bad.peer", "said=%s", "one\ntwo");
    (void)take(*state, text, sizeof text);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    assert_non_null(strstr(text, "said=one two\n"));
}

/* A name or URL that a peer sent is not to speak to the operator's terminal. */
static void no_control_byte_of_a_value_is_printed(void **state)
{
    char text[8192];

    log_error("bad.peer", "said=%s", "\x1b[2Jone\rtwo\x7f\tthree \xc3\xa4");
    (void)take(*state, text, sizeof text);
    assert_non_null(strstr(text, "said= [2Jone two  three \xc3\xa4\n"));
}

static void quiet_levels_are_not_printed(void **state)
{
    char text[8192];

    log_debug("too.quiet", "x=%d", 1);
    assert_string_equal(take(*state, text, sizeof text), "");
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("loud.enough", "x=%d", 1);
    assert_non_null(strstr(take(*state, text, sizeof text), "loud.enough"));
}

static void long_lines_are_cut_and_end(void **state)
{
    static char text[16384];
    static char value[9000];

    memset(value, 'x', sizeof value - 1);
    log_error("long.value", "v=%s", value);
    (void)take(*state, text, sizeof text);
    assert_int_equal(strlen(text), 4096);
    assert_int_equal(text[4095], '\n');
}

static void repeats_are_counted_not_printed(void **state)
{
    static char text[65536];
    unsigned lines = 0;

    for (unsigned i = 0; i < 200; i++) {
        log_warning("same.thing", "i=%u", i);
    }
    (void)take(*state, text, sizeof text);
    for (const char *at = strchr(text, '\n'); at != NULL; at = strchr(at + 1, '\n')) {
        lines++;
    }
    /* The second may turn while the loop runs, once. */
    assert_true(lines >= 10 && lines <= 20);
}

static void full_pipe_blocks_nobody(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2000; i++) {
        log_line(LOG_LEVEL_INFO, "p", "%0200u", i); /* 400 KiB into a pipe of 64 */
    }
}

static void closed_pipe_kills_nobody(void **state)
{
    struct capture *capture = *state;

    (void)close(capture->reader);
    capture->reader = dup(capture->old_stderr);
    log_error("nobody.reads", "x=%d", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(line_has_time_level_component_and_event, setup, teardown),
        cmocka_unit_test_setup_teardown(line_under_a_package_is_verbatim, setup, teardown),
        cmocka_unit_test_setup_teardown(error_text_is_quoted_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(newlines_in_values_make_no_second_line, setup, teardown),
        cmocka_unit_test_setup_teardown(no_control_byte_of_a_value_is_printed, setup, teardown),
        cmocka_unit_test_setup_teardown(quiet_levels_are_not_printed, setup, teardown),
        cmocka_unit_test_setup_teardown(long_lines_are_cut_and_end, setup, teardown),
        cmocka_unit_test_setup_teardown(repeats_are_counted_not_printed, setup, teardown),
        cmocka_unit_test_setup_teardown(full_pipe_blocks_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(closed_pipe_kills_nobody, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
