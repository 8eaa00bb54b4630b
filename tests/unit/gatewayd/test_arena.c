/* test_arena.c: memory of a turn, and of a request within it. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/gatewayd/arena.h"

enum {
    LARGE_BYTES = 1024 * 1024,
    ROUNDS = 200,
};

/* 0 where another allocator (a sanitizer's) stands in for libc's. */
static size_t allocated_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void what_came_before_a_mark_outlives_what_came_after(void **state)
{
    static const size_t sizes[] = { 1, 100, 70000, 20, LARGE_BYTES };
    struct arena arena = { 0 };

    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct span kept = arena_printf(&arena, "key %u", round % 10);
        for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
            struct arena_mark mark = arena_mark(&arena);
            memset(arena_alloc(&arena, sizes[i]), 'v', sizes[i]);
            memset(arena_alloc(&arena, sizes[round % ARRAY_COUNT(sizes)]), 'w', 1);
            arena_rewind(&arena, mark);
        }
        assert_int_equal(kept.bytes, 5);
        assert_memory_equal(kept.data, "key ", 4);
        assert_int_equal(kept.data[4], '0' + round % 10);
    }
    arena_fini(&arena);
}

static void a_turn_of_large_requests_holds_one_of_them(void **state)
{
    struct arena arena = { 0 };
    size_t before = allocated_bytes();

    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct arena_mark mark = arena_mark(&arena);
        memset(arena_alloc(&arena, LARGE_BYTES), 'v', LARGE_BYTES);
        assert_in_range(allocated_bytes(), 0, before + 2 * (size_t)LARGE_BYTES);
        arena_rewind(&arena, mark);
        (void)arena_copy(&arena, SPAN_LIT("a key that is read at the turn's end"));
    }
    assert_in_range(allocated_bytes(), 0, before + LARGE_BYTES);
    arena_reset(&arena);
    assert_in_range(allocated_bytes(), 0, before + LARGE_BYTES);
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_came_before_a_mark_outlives_what_came_after),
        cmocka_unit_test(a_turn_of_large_requests_holds_one_of_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
