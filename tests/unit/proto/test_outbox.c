/* test_outbox.c: what waits for a socket goes out in order, and is held no longer than it waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <cmocka.h>

#include "proto/outbox.h"

enum {
    BLOCKS = 100,
    PARTS = 16,
};

/* Blocks of 1, 2, ... bytes, each byte one more than the one before it. */
static void append_blocks(struct outbox *outbox, uint8_t *next, size_t count)
{
    for (size_t bytes = 1; bytes <= count; bytes++) {
        uint8_t *data = xmalloc(bytes);
        for (size_t i = 0; i < bytes; i++) {
            data[i] = (*next)++;
        }
        outbox_append(outbox, data, bytes);
    }
}

/* Takes up to `max` bytes, as a socket would, and looks at each. */
static size_t take(struct outbox *outbox, uint8_t *next, size_t max)
{
    struct iovec parts[PARTS];
    size_t count = outbox_peek(outbox, parts, PARTS);
    size_t taken = 0;

    for (size_t i = 0; i < count; i++) {
        assert_true(parts[i].iov_len > 0);
        for (size_t at = 0; at < parts[i].iov_len && taken < max; at++, taken++) {
            assert_int_equal(((const uint8_t *)parts[i].iov_base)[at], *next);
            (*next)++;
        }
    }
    outbox_drop(outbox, taken);
    return taken;
}

static void bytes_leave_in_order_however_few_are_taken(void **state)
{
    (void)state;
    for (size_t max = 1; max < 1000; max = max * 3 + 1) {
        struct outbox outbox = { 0 };
        uint8_t appended = 0;
        uint8_t taken = 0;
        append_blocks(&outbox, &appended, BLOCKS);
        size_t left = outbox.waiting_bytes;
        assert_int_equal(left, BLOCKS * (BLOCKS + 1) / 2);
        while (left > 0) {
            left -= take(&outbox, &taken, max);
            assert_int_equal(outbox.waiting_bytes, left);
        }
        assert_int_equal(outbox.count, 0);
        assert_int_equal(taken, appended);
        outbox_fini(&outbox);
    }
}

static void one_that_never_empties_holds_only_what_waits(void **state)
{
    struct outbox outbox = { 0 };
    uint8_t appended = 0;
    uint8_t taken = 0;

    (void)state;
    append_blocks(&outbox, &appended, BLOCKS);
    for (unsigned round = 0; round < 1000; round++) {
        size_t before = outbox.waiting_bytes;
        size_t gone = take(&outbox, &taken, 50);
        assert_int_equal(outbox.waiting_bytes, before - gone);
        append_blocks(&outbox, &appended, 9); /* 45 bytes, and the sooner the outbox is empty */
        assert_true(outbox.count <= outbox.capacity);
    }
    assert_in_range(outbox.capacity, 1, 1024);
    outbox_fini(&outbox);
    assert_null(outbox.blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_leave_in_order_however_few_are_taken),
        cmocka_unit_test(one_that_never_empties_holds_only_what_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
