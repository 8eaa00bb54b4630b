/* test_throttle.c: how long writes wait while the state is copied, by what the file has grown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/macros.h"
#include "daemons/stored/throttle.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* Of a batch that would wait at either pace, and below the bound. */
enum {
    BATCH = 2560 * 1024
};

static void what_grows_by_a_quarter_waits_for_nothing(void **state)
{
    (void)state;
    assert_int_equal(throttle_ms(GIB, GIB, BATCH), 0);
    assert_int_equal(throttle_ms(GIB, GIB + 256 * MIB, BATCH), 0);
    assert_int_not_equal(throttle_ms(GIB, GIB + 256 * MIB + 4 * KIB, BATCH), 0);
}

static void a_small_file_may_grow_by_64_mib_for_nothing(void **state)
{
    (void)state;
    const uint64_t sizes[] = { 0, 1, MIB, 200 * MIB, 256 * MIB };
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        assert_int_equal(throttle_ms(sizes[i], sizes[i] + 64 * MIB, BATCH), 0);
        assert_int_not_equal(throttle_ms(sizes[i], sizes[i] + 64 * MIB + 4 * KIB, BATCH), 0);
    }
}

static void it_begins_with_256_kib_a_millisecond_and_ends_with_16(void **state)
{
    (void)state;
    /* A file that has doubled; one for which the free part is more than that, and it has grown by twice that. */
    assert_int_equal(throttle_ms(GIB, GIB + 256 * MIB + 1, 100 * 256 * KIB), 100);
    assert_int_equal(throttle_ms(GIB, 2 * GIB, 100 * 16 * KIB), 100);
    assert_int_equal(throttle_ms(MIB, MIB + 64 * MIB + 1, 100 * 256 * KIB), 100);
    assert_int_equal(throttle_ms(MIB, MIB + 128 * MIB, 100 * 16 * KIB), 100);
    /* Half-way between, half-way between. */
    assert_int_equal(throttle_ms(GIB, GIB + 640 * MIB, 100 * 136 * KIB), 100);
}

static void however_far_it_has_grown_it_goes_on(void **state)
{
    (void)state;
    assert_int_equal(throttle_ms(GIB, 3 * GIB, 100 * 16 * KIB), 100);
    assert_int_equal(throttle_ms(GIB, UINT64_MAX, 100 * 16 * KIB), 100);
    assert_int_equal(throttle_ms(0, UINT64_MAX, 100 * 16 * KIB), 100);
}

static void the_more_it_has_grown_the_longer_it_takes(void **state)
{
    (void)state;
    const uint64_t sizes[] = { 0, 4 * KIB, 255 * MIB, 257 * MIB, GIB, 200 * GIB, UINT64_C(1) << 50,
        UINT64_C(1) << 62 };
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        uint64_t free_bytes = MAX(sizes[i] / 4, 64 * MIB);
        uint64_t slow_bytes = MAX(sizes[i], 2 * free_bytes) - free_bytes;
        uint64_t before = 0;
        for (uint64_t part = 0; part <= 1100; part++) {
            uint64_t growth = free_bytes + slow_bytes / 1000 * part;
            uint64_t ms = throttle_ms(sizes[i], sizes[i] + growth, 200 * 16 * KIB);
            assert_true(ms >= before);
            before = ms;
        }
        assert_int_equal(before, 200);
    }
}

static void the_more_came_the_longer_it_takes_and_never_longer_than_the_bound(void **state)
{
    (void)state;
    const uint64_t now[] = { GIB + 256 * MIB + 1, GIB + 700 * MIB, 2 * GIB, UINT64_MAX };
    for (size_t i = 0; i < ARRAY_COUNT(now); i++) {
        uint64_t before = 0;
        for (uint64_t grown = 1; grown != 0; grown <<= 1) {
            uint64_t ms = throttle_ms(GIB, now[i], grown);
            assert_true(ms >= before);
            assert_true(ms <= THROTTLE_MS_MAX);
            before = ms;
        }
        assert_int_equal(before, THROTTLE_MS_MAX);
        assert_int_equal(throttle_ms(GIB, now[i], UINT64_MAX), THROTTLE_MS_MAX);
    }
}

static void what_has_not_grown_does_not_wait(void **state)
{
    (void)state;
    assert_int_equal(throttle_ms(0, 0, 0), 0);
    assert_int_equal(throttle_ms(0, 0, UINT64_MAX), 0);
    assert_int_equal(throttle_ms(GIB, 2 * GIB, 0), 0);
    assert_int_equal(throttle_ms(GIB, MIB, BATCH), 0); /* has become smaller */
    assert_int_equal(throttle_ms(UINT64_MAX, UINT64_MAX, UINT64_MAX), 0);
    assert_int_equal(throttle_ms(UINT64_MAX, 0, UINT64_MAX), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_grows_by_a_quarter_waits_for_nothing),
        cmocka_unit_test(a_small_file_may_grow_by_64_mib_for_nothing),
        cmocka_unit_test(it_begins_with_256_kib_a_millisecond_and_ends_with_16),
        cmocka_unit_test(however_far_it_has_grown_it_goes_on),
        cmocka_unit_test(the_more_it_has_grown_the_longer_it_takes),
        cmocka_unit_test(the_more_came_the_longer_it_takes_and_never_longer_than_the_bound),
        cmocka_unit_test(what_has_not_grown_does_not_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
