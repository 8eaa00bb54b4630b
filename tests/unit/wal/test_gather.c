#include "daemons/raftd/wal/gather.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct gather slow_disk(size_t expected)
{
    return (struct gather){ .sync_us = 10000, .expected = expected };
}

static void a_fast_disk_never_waits(void **state)
{
    (void)state;
    struct gather gather = { .sync_us = 120, .expected = 64 };
    assert_true(gather_wait_us(&gather, 32) == 0);
}

static void half_of_the_clients_wait_for_the_other_half_at_most_half_a_sync(void **state)
{
    (void)state;
    struct gather gather = slow_disk(64);
    assert_true(gather_wait_us(&gather, 32) == 5000);
    gather.sync_us = 2000;
    assert_true(gather_wait_us(&gather, 32) == 1000);
}

static void all_that_are_expected_do_not_wait(void **state)
{
    (void)state;
    struct gather gather = slow_disk(64);
    assert_true(gather_wait_us(&gather, 64) == 0);
}

static void a_lone_client_does_not_wait(void **state)
{
    (void)state;
    struct gather gather = { .sync_us = 10000 };
    gather_done(&gather, &(struct gather_batch){ .count = 1, .began = 1, .sync_us = 10000 });
    assert_true(gather_wait_us(&gather, 1) == 0);
}

static void the_synced_and_the_queued_are_expected(void **state)
{
    (void)state;
    struct gather gather = slow_disk(0);
    gather_done(&gather, &(struct gather_batch){ .count = 30, .began = 30, .queued = 34, .sync_us = 10000 });
    assert_int_equal(gather.expected, 64);
    gather_done(&gather, &(struct gather_batch){ .count = 64, .began = 34, .was_waiting = true, .sync_us = 10000 });
    assert_int_equal(gather.expected, 64);
    assert_int_equal(gather.skip, 0);
}

static void waits_in_vain_are_left_for_longer_and_longer(void **state)
{
    (void)state;
    struct gather gather = slow_disk(64);
    const struct gather_batch vain = { .count = 32, .began = 32, .was_waiting = true, .queued = 32, .sync_us = 10000 };
    gather_done(&gather, &vain);
    assert_int_equal(gather.skip, 8);
    assert_true(gather_wait_us(&gather, 32) == 0);
    for (int i = 0; i < 8; i++) {
        gather_done(&gather, &(struct gather_batch){ .count = 32, .began = 32, .queued = 32, .sync_us = 10000 });
    }
    assert_true(gather_wait_us(&gather, 32) > 0);
    gather_done(&gather, &vain);
    assert_int_equal(gather.skip, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fast_disk_never_waits),
        cmocka_unit_test(half_of_the_clients_wait_for_the_other_half_at_most_half_a_sync),
        cmocka_unit_test(all_that_are_expected_do_not_wait),
        cmocka_unit_test(a_lone_client_does_not_wait),
        cmocka_unit_test(the_synced_and_the_queued_are_expected),
        cmocka_unit_test(waits_in_vain_are_left_for_longer_and_longer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
