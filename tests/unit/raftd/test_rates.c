/* Messages and bytes a second. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/raftd/rates.h"

static const uint64_t ms = 1000000;

static void what_came_in_regular_steps_has_their_rate(void **state)
{
    struct rates rates = { .count = 0 };
    (void)state;

    for (unsigned i = 0; i <= 10; i++) {
        rates_add(&rates, 100, i * 100 * ms);
    }
    struct rates_now now = rates_get(&rates, 1000 * ms);
    assert_int_equal(now.messages_milli, 11000); /* the reference counts both ends of the span */
    assert_int_equal(now.bytes_milli, 1100000);
}

static void only_the_last_messages_count(void **state)
{
    struct rates rates = { .count = 0 };
    (void)state;

    for (unsigned i = 0; i < 1000; i++) {
        rates_add(&rates, 1000000, i * 100 * ms);
    }
    for (unsigned i = 0; i < RATES_COUNT_MAX; i++) {
        rates_add(&rates, 10, 100000 * ms + i * ms);
    }
    struct rates_now now = rates_get(&rates, 100200 * ms);
    assert_int_equal(now.messages_milli, 200 * 1000000 / 199);
    assert_int_equal(now.bytes_milli, 2000 * UINT64_C(1000000) / 199);
}

static void silence_has_no_rate_and_what_was_before_it_is_forgotten(void **state)
{
    struct rates rates = { .count = 0 };
    (void)state;

    assert_int_equal(rates_get(&rates, 5).messages_milli, 0);
    rates_add(&rates, 1, 0);
    rates_add(&rates, 1, 10 * ms);
    assert_int_not_equal(rates_get(&rates, 1010 * ms).messages_milli, 0);
    assert_int_equal(rates_get(&rates, 1011 * ms).messages_milli, 0);
    rates_add(&rates, 1, 2000 * ms);
    assert_int_equal(rates_get(&rates, 2000 * ms).messages_milli, 0);
    rates_add(&rates, 1, 2001 * ms);
    assert_int_equal(rates_get(&rates, 2001 * ms).messages_milli, 2000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_came_in_regular_steps_has_their_rate),
        cmocka_unit_test(only_the_last_messages_count),
        cmocka_unit_test(silence_has_no_rate_and_what_was_before_it_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
