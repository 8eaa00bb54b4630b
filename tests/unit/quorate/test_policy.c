/* test_policy.c: what quorate does about a daemon that ended. Time is handed in, so hours pass in microseconds. */
#include "daemons/quorate/policy.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    STATUS_FAILED = 1 << 8,
    STATUS_USAGE = 2 << 8,
    STATUS_STORAGE = 3 << 8,
    STATUS_NO_SPACE = 4 << 8,
    STATUS_REMOVED = 100 << 8
};

struct life {
    struct child child;
    uint64_t now_ms;
    int exit_status;
    char reason[256];
};

static struct life begin(const char *name)
{
    struct life life = { .now_ms = 1000000, .exit_status = -1 };
    (void)snprintf(life.child.name, sizeof life.child.name, "%s", name);
    return life;
}

/* A life of lived_ms that ended so; answers the wait before the next, or the verdict negated. */
static int64_t live(struct life *life, bool ready, uint64_t lived_ms, int wait_status)
{
    life->child.started_at_ms = life->now_ms;
    life->child.ready = ready;
    life->now_ms += lived_ms;
    enum policy_verdict verdict = policy_decide(&life->child, wait_status, life->now_ms,
            &life->exit_status, life->reason, sizeof life->reason);
    if (verdict != POLICY_RESTART) {
        return -(int64_t)verdict;
    }
    int64_t wait_ms = (int64_t)(life->child.restart_at_ms - life->now_ms);
    life->now_ms = life->child.restart_at_ms;
    return wait_ms;
}

static void waits_double_up_to_five_seconds(void **state)
{
    static const int64_t expected[] = { 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000 };
    struct life life = begin("stored");
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(expected); i++) {
        assert_int_equal(live(&life, false, 5, STATUS_FAILED), expected[i]);
    }
}

static void ten_failed_starts_in_a_row_are_enough(void **state)
{
    struct life life = begin("stored");
    (void)state;

    for (unsigned i = 0; i < 9; i++) {
        assert_true(live(&life, false, 5, STATUS_FAILED) > 0);
    }
    assert_int_equal(live(&life, false, 5, SIGSEGV), -POLICY_GIVE_UP);
    assert_int_equal(life.exit_status, 1);
    assert_non_null(strstr(life.reason, "stored failed to start 10 times in a row"));
    assert_non_null(strstr(life.reason, "signal 11"));
}

static void daemon_that_serves_and_is_killed_comes_back_for_ever(void **state)
{
    struct life life = begin("gatewayd");
    (void)state;

    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(live(&life, true, 1500, SIGKILL), 100);
    }
}

static void daemon_that_serves_for_a_blink_is_slowed_and_never_given_up(void **state)
{
    struct life life = begin("gatewayd");
    (void)state;

    for (unsigned i = 0; i < 7; i++) {
        (void)live(&life, true, 20, SIGSEGV);
    }
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(live(&life, true, 20, SIGSEGV), 5000);
    }
}

static void one_good_life_forgives(void **state)
{
    struct life life = begin("stored");
    (void)state;

    for (unsigned i = 0; i < 9; i++) {
        (void)live(&life, false, 5, STATUS_FAILED);
    }
    assert_int_equal(live(&life, true, 2000, SIGKILL), 100);
    assert_int_equal(live(&life, false, 5, STATUS_FAILED), 200);
}

static void slow_start_is_no_failed_start(void **state)
{
    struct life life = begin("stored");
    (void)state;

    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(live(&life, false, 6000, STATUS_FAILED), 100);
    }
}

static void bad_configuration_ends_all_at_once(void **state)
{
    struct life life = begin("gatewayd");
    (void)state;

    assert_int_equal(live(&life, false, 5, STATUS_USAGE), -POLICY_GIVE_UP);
    assert_int_equal(life.exit_status, 2);
}

static void storage_errors_of_raftd_get_three_long_waits(void **state)
{
    struct life life = begin("raftd");
    (void)state;

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(live(&life, true, 60000, STATUS_STORAGE), 30000);
    }
    assert_int_equal(live(&life, true, 60000, STATUS_STORAGE), -POLICY_GIVE_UP);
    assert_int_equal(life.exit_status, 3);
    assert_non_null(strstr(life.reason, "look at the disk"));
}

static void storage_error_of_stored_is_restarted_at_once(void **state)
{
    struct life life = begin("stored");
    (void)state;

    assert_int_equal(live(&life, true, 60000, STATUS_STORAGE), 100);
}

/* What ends it is that somebody makes room, and that may take a night. */
static void full_disk_is_waited_for_for_ever(void **state)
{
    static const char *const names[] = { "raftd", "stored", "gatewayd" };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        struct life life = begin(names[i]);
        for (unsigned j = 0; j < 10000; j++) {
            assert_int_equal(live(&life, false, 5, STATUS_NO_SPACE), 5000);
        }
        assert_non_null(strstr(life.reason, "no space"));
        assert_int_equal(live(&life, false, 5, STATUS_FAILED), 100); /* nothing was counted */
    }
}

static void removed_member_ends_all_with_zero(void **state)
{
    struct life life = begin("raftd");
    struct life other = begin("stored");
    (void)state;

    assert_int_equal(live(&life, true, 5, STATUS_REMOVED), -POLICY_REMOVED);
    assert_int_equal(life.exit_status, 0);
    assert_int_equal(live(&other, true, 5, STATUS_REMOVED), 100); /* only raftd knows */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_double_up_to_five_seconds),
        cmocka_unit_test(ten_failed_starts_in_a_row_are_enough),
        cmocka_unit_test(daemon_that_serves_and_is_killed_comes_back_for_ever),
        cmocka_unit_test(daemon_that_serves_for_a_blink_is_slowed_and_never_given_up),
        cmocka_unit_test(one_good_life_forgives),
        cmocka_unit_test(slow_start_is_no_failed_start),
        cmocka_unit_test(bad_configuration_ends_all_at_once),
        cmocka_unit_test(storage_errors_of_raftd_get_three_long_waits),
        cmocka_unit_test(storage_error_of_stored_is_restarted_at_once),
        cmocka_unit_test(full_disk_is_waited_for_for_ever),
        cmocka_unit_test(removed_member_ends_all_with_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
