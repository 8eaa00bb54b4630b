/* test_backlog.c: how far stored may be behind before clients' writes wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/raftd/backlog.h"

enum {
    MIB = 1024 * 1024
};

static void a_log_that_is_applied_takes_writes(void **state)
{
    struct backlog backlog = { 0 };

    (void)state;
    for (uint64_t index = 1; index < 1000; index++) {
        backlog_on_append(&backlog, index, MIB);
        backlog_on_applied(&backlog, index);
        assert_false(backlog_is_full(&backlog, index, index));
        assert_true(backlog.bytes == 0);
    }
    backlog_fini(&backlog);
}

static void too_many_entries_close_it_and_a_quarter_less_opens_it(void **state)
{
    struct backlog backlog = { 0 };
    const uint64_t applied = 1000;
    const uint64_t last = applied + BACKLOG_ENTRIES_MAX;

    (void)state;
    backlog_on_append(&backlog, last, 100);
    assert_false(backlog_is_full(&backlog, last - 1, applied));
    assert_true(backlog_is_full(&backlog, last, applied));
    assert_true(backlog_is_full(&backlog, last, applied + BACKLOG_ENTRIES_MAX / 4));
    assert_false(backlog_is_full(&backlog, last, applied + BACKLOG_ENTRIES_MAX / 4 + 1));
    assert_false(backlog_is_full(&backlog, last, applied + 1)); /* and stays open */
    backlog_fini(&backlog);
}

static void too_many_bytes_close_it_and_a_quarter_less_opens_it(void **state)
{
    struct backlog backlog = { 0 };
    const uint64_t count = BACKLOG_BYTES_MAX / MIB;

    (void)state;
    for (uint64_t index = 1; index < count; index++) {
        backlog_on_append(&backlog, index, MIB);
        assert_false(backlog_is_full(&backlog, index, 0));
    }
    backlog_on_append(&backlog, count, MIB);
    assert_true(backlog_is_full(&backlog, count, 0));
    backlog_on_applied(&backlog, count / 4);
    assert_true(backlog_is_full(&backlog, count, count / 4));
    backlog_on_applied(&backlog, count / 4 + 1);
    assert_false(backlog_is_full(&backlog, count, count / 4 + 1));
    backlog_fini(&backlog);
}

static void small_entries_weigh_what_they_weigh(void **state)
{
    struct backlog backlog = { 0 };
    uint64_t index = 0;

    (void)state;
    for (; index < 50000; index++) {
        backlog_on_append(&backlog, index + 1, 1000);
    }
    assert_true(backlog.bytes == 50000U * 1000);
    assert_in_range(backlog.count, 1, 50); /* however many appends there were */
    backlog_on_applied(&backlog, 25000);
    assert_in_range(backlog.bytes, 25000U * 1000, 25000U * 1000 + 2 * MIB);
    backlog_on_applied(&backlog, index);
    assert_true(backlog.bytes == 0);
    backlog_fini(&backlog);
}

static void what_is_cut_weighs_nothing_any_more(void **state)
{
    struct backlog backlog = { 0 };

    (void)state;
    for (uint64_t index = 1; index <= 10; index++) {
        backlog_on_append(&backlog, index * 10, MIB);
    }
    backlog_on_cut(&backlog, 35); /* in the middle of a part: that one is kept */
    assert_true(backlog.bytes == 4 * MIB);
    backlog_on_append(&backlog, 36, MIB);
    assert_true(backlog.bytes == 5 * MIB);
    backlog_on_applied(&backlog, 35);
    assert_true(backlog.bytes == MIB);
    backlog_on_cut(&backlog, 0); /* a log that begins anew */
    assert_true(backlog.bytes == 0);
    backlog_on_append(&backlog, 7, 1);
    assert_true(backlog.bytes == 1);
    backlog_fini(&backlog);
}

static void entries_found_at_the_start_count(void **state)
{
    struct backlog backlog = { 0 };

    (void)state;
    assert_true(backlog_is_full(&backlog, 1000000, 0));
    assert_false(backlog_is_full(&backlog, 1000000, 999000));
    assert_false(
            backlog_is_full(&backlog, 5, 9)); /* a state that is ahead is somebody else's affair */
    backlog_fini(&backlog);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_that_is_applied_takes_writes),
        cmocka_unit_test(too_many_entries_close_it_and_a_quarter_less_opens_it),
        cmocka_unit_test(too_many_bytes_close_it_and_a_quarter_less_opens_it),
        cmocka_unit_test(small_entries_weigh_what_they_weigh),
        cmocka_unit_test(what_is_cut_weighs_nothing_any_more),
        cmocka_unit_test(entries_found_at_the_start_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
