/* test_raft_log.c: the core's picture of the log, held against a plain array under seeded random operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/raftd/raft/log.h"
#include "tests/sim/rng.h"

enum {
    MODEL_MAX = 4096
};

struct model {
    uint64_t terms[MODEL_MAX]; /* by index */
    uint64_t base;
    uint64_t last;
};

static void append_some(struct raft_log *log, struct model *model, struct rng *rng)
{
    struct raft_entry entries[20];
    size_t count = (size_t)rng_between(rng, 0, ARRAY_COUNT(entries));
    uint64_t term = MAX(model->terms[model->last], UINT64_C(1));
    for (size_t i = 0; i < count && model->last + 1 < MODEL_MAX; i++) {
        term += rng_chance(rng, 100);
        uint64_t index = ++model->last;
        model->terms[index] = term;
        entries[i] = (struct raft_entry){ .index = index,
            .term = term,
            .time_ns = index * 10,
            .kind = RAFT_ENTRY_OP,
            .data = span_of(&model->terms[index], rng_below(rng, 2) * sizeof(uint64_t)) };
        if (i + 1 == count || model->last + 1 == MODEL_MAX) {
            raft_log_append(log, (struct raft_entry_span){ entries, i + 1 }, NULL);
        }
    }
}

static void compare(const struct raft_log *log, const struct model *model, struct rng *rng)
{
    assert_int_equal(log->last_index, model->last);
    assert_int_equal(log->base_index, model->base);
    assert_int_equal(raft_log_term(log, model->last + 1), 0);
    if (model->base > 0) {
        assert_int_equal(raft_log_term(log, model->base - 1), 0);
    }
    for (uint64_t index = model->base; index <= model->last; index++) {
        assert_int_equal(raft_log_term(log, index), model->terms[index]);
    }
    uint64_t first = raft_log_first_cached(log);
    if (first <= model->last) {
        uint64_t begin = rng_between(rng, first, model->last);
        struct raft_entry_span all = raft_log_slice(log, begin, model->last, SIZE_MAX);
        assert_int_equal(all.count, model->last - begin + 1);
        for (size_t i = 0; i < all.count; i++) {
            assert_int_equal(all.items[i].index, begin + i);
            assert_int_equal(all.items[i].term, model->terms[begin + i]);
            if (all.items[i].data.bytes > 0) {
                assert_memory_equal(
                        all.items[i].data.data, &model->terms[begin + i], sizeof(uint64_t));
            }
        }
    }
    uint64_t index = rng_between(rng, model->base, model->last);
    uint64_t term = rng_between(rng, 1, model->terms[model->last] + 1);
    uint64_t expected = index;
    while (expected > model->base && model->terms[expected] > term) {
        expected--;
    }
    assert_int_equal(raft_log_find_term(log, index, term), expected);
}

static void random_operations_agree_with_a_plain_array(void **state)
{
    (void)state;
    static struct model model;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct rng rng = { seed };
        struct raft_log log = { 0 };
        memset(&model, 0, sizeof model);
        for (int step = 0; step < 300; step++) {
            switch (rng_below(&rng, 8)) {
            case 0:
                if (rng_chance(&rng, 500)) {
                    model.last = rng_between(&rng, model.base, model.last);
                    raft_log_cut(&log, model.last);
                }
                break;
            case 1:
                raft_log_evict(&log, rng_between(&rng, model.base, model.last),
                        (size_t)rng_below(&rng, 2000));
                break;
            case 2:
                if (rng_chance(&rng, 300)) {
                    model.base = rng_between(&rng, model.base, model.last);
                    raft_log_compact(&log, model.base);
                }
                break;
            case 3:
                if (rng_chance(&rng, 50) && model.last + 10 < MODEL_MAX) {
                    uint64_t term = model.terms[model.last] + 1;
                    model.base = model.last += 5;
                    model.terms[model.base] = term;
                    raft_log_reset(&log, model.base, term, 0);
                }
                break;
            default:
                append_some(&log, &model, &rng);
                break;
            }
            compare(&log, &model, &rng);
        }
        raft_log_fini(&log);
    }
}

static void eviction_spares_what_the_limit_does_not_cover(void **state)
{
    (void)state;
    struct raft_log log = { 0 };
    struct raft_entry entry = { .kind = RAFT_ENTRY_OP, .data = SPAN_LIT("x") };
    struct raft_log_stamp stamp = { 1, 5 };
    for (int i = 0; i < 10; i++) {
        raft_log_append(&log, (struct raft_entry_span){ &entry, 1 }, &stamp);
    }
    raft_log_evict(&log, 4, 0);
    assert_int_equal(raft_log_first_cached(&log), 5);
    raft_log_evict(&log, 10, SIZE_MAX);
    assert_int_equal(raft_log_first_cached(&log), 5);
    raft_log_evict(&log, 10, 0);
    assert_int_equal(raft_log_first_cached(&log), 11);
    assert_int_equal(log.cached_bytes, 0);
    raft_log_fini(&log);
}

static void slice_is_bounded_but_never_empty(void **state)
{
    (void)state;
    struct raft_log log = { 0 };
    struct raft_entry entries[5];
    for (size_t i = 0; i < 5; i++) {
        entries[i] = (struct raft_entry){ .kind = RAFT_ENTRY_OP, .data = SPAN_LIT("0123456789") };
    }
    struct raft_log_stamp stamp = { 1, 5 };
    raft_log_append(&log, (struct raft_entry_span){ entries, 5 }, &stamp);
    size_t cost = raft_entry_cost(&entries[0]);
    assert_int_equal(raft_log_slice(&log, 1, 5, 0).count, 1);
    assert_int_equal(raft_log_slice(&log, 1, 5, 3 * cost).count, 3);
    assert_int_equal(raft_log_slice(&log, 2, 3, SIZE_MAX).count, 2);
    raft_log_fini(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_agree_with_a_plain_array),
        cmocka_unit_test(eviction_spares_what_the_limit_does_not_cover),
        cmocka_unit_test(slice_is_bounded_but_never_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
