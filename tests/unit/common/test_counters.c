/* Counters outlive their gatewayd and are summed over all of them. */
#include "common/counters.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/scratch.h"

static int make_dir(void **state)
{
    char *dir = xmalloc(SCRATCH_PATH_MAX);

    *state = dir;
    return scratch_make(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    scratch_remove(*state);
    free(*state);
    return 0;
}

static struct counters *open_page(const char *dir, uint64_t id)
{
    struct counters *counters = NULL;
    assert_int_equal(counters_open(dir, id, &counters, NULL), 0);
    return counters;
}

static struct span encoded(const struct counters_folded *record, struct buf *out)
{
    buf_clear(out);
    counters_encode(record, out);
    return buf_span(out);
}

/* What a gatewayd would answer with that record in the state. */
static uint64_t sum_of(const char *dir, const struct counters_folded *record, enum counter counter)
{
    CLEANUP(buf_fini) struct buf bytes = BUF_INIT;
    uint64_t sum[COUNTER_COUNT];

    counters_sum(dir, encoded(record, &bytes), sum);
    return sum[counter];
}

static bool has_page(const char *dir, uint64_t id)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/counters-%016" PRIx64, dir, id);
    return access(path, F_OK) == 0;
}

static void sums_live_dead_and_folded(void **state)
{
    const char *dir = *state;
    struct counters_folded record = { .values = { [COUNTER_GETS_SUCCESS] = 100,
                                              [COUNTER_SETS_SUCCESS] = 7,
                                              [COUNTER_WATCHERS] = 9 } };

    struct counters *dead = open_page(dir, 1);
    struct counters *live = open_page(dir, 2);
    counters_values(dead)[COUNTER_GETS_SUCCESS] = 10;
    counters_values(dead)[COUNTER_WATCHERS] = 5;
    counters_values(live)[COUNTER_GETS_SUCCESS] = 1;
    counters_values(live)[COUNTER_WATCHERS] = 3;
    (void)counters_close(dead);
    assert_int_equal(sum_of(dir, &record, COUNTER_GETS_SUCCESS), 111);
    assert_int_equal(sum_of(dir, &record, COUNTER_SETS_SUCCESS), 7);
    assert_int_equal(sum_of(dir, &record, COUNTER_WATCHERS), 3);
    (void)counters_close(live);
}

static void a_page_is_never_another_gatewayds(void **state)
{
    const char *dir = *state;
    struct counters *first = open_page(dir, 1);
    counters_values(first)[COUNTER_SETS_FAIL] = 4;
    (void)counters_close(first);
    struct counters *second = open_page(dir, 2);
    assert_int_equal(counters_values(second)[COUNTER_SETS_FAIL], 0);
    assert_true(has_page(dir, 1) && has_page(dir, 2));
    (void)counters_close(second);
}

static void folds_only_the_dead_and_only_once(void **state)
{
    const char *dir = *state;
    struct counters_folded record = { .id_count = 0 };

    struct counters *dead = open_page(dir, 1);
    struct counters *live = open_page(dir, 2);
    counters_values(dead)[COUNTER_EXPIRE_COUNT] = 9;
    counters_values(live)[COUNTER_EXPIRE_COUNT] = 1;
    assert_false(counters_has_dead(dir));
    (void)counters_close(dead);
    assert_true(counters_has_dead(dir));
    assert_true(counters_fold(dir, &record));
    assert_int_equal(record.values[COUNTER_EXPIRE_COUNT], 9);
    assert_true(has_page(dir, 1)); /* until the next round: a reader may not see the record yet */
    assert_int_equal(sum_of(dir, &record, COUNTER_EXPIRE_COUNT), 10);
    assert_false(counters_fold(dir, &record));
    assert_false(has_page(dir, 1));
    assert_false(counters_has_dead(dir));
    assert_int_equal(sum_of(dir, &record, COUNTER_EXPIRE_COUNT), 10);
    assert_false(counters_fold(dir, &record));
    assert_int_equal(sum_of(dir, &record, COUNTER_EXPIRE_COUNT), 10);
    (void)counters_close(live);
}

static void more_dead_than_a_round_takes_are_left_for_the_next(void **state)
{
    const char *dir = *state;
    struct counters_folded record = { .id_count = 0 };
    const unsigned count = COUNTERS_FOLDED_MAX * 2 + 5;
    unsigned rounds = 0;

    for (unsigned i = 1; i <= count; i++) {
        struct counters *page = open_page(dir, i);
        counters_values(page)[COUNTER_GETS_FAIL] = 1;
        (void)counters_close(page);
    }
    while (counters_has_dead(dir)) {
        assert_int_equal(sum_of(dir, &record, COUNTER_GETS_FAIL), count);
        (void)counters_fold(dir, &record);
        assert_in_range(++rounds, 1, 5);
    }
    assert_int_equal(record.values[COUNTER_GETS_FAIL], count);
}

/* Gatewayds come, count and die; stored folds, and dies itself: after the fold, or after the commit, or goes on. At
 * every moment the sum is what was counted, read with the record of now or with that of a round before. */
static void wherever_a_process_dies_the_sum_is_what_was_counted(void **state)
{
    const char *dir = *state;
    struct counters *pages[8] = { NULL };
    struct counters_folded committed = { .id_count = 0 };
    struct counters_folded before = { .id_count = 0 };
    uint64_t next_id = 1;
    uint64_t counted = 0;
    unsigned seed = 42;

    for (unsigned step = 0; step < 3000; step++) {
        unsigned which = (unsigned)rand_r(&seed) % ARRAY_COUNT(pages);
        unsigned what = (unsigned)rand_r(&seed) % 8;
        if (what < 3 && pages[which] == NULL) {
            pages[which] = open_page(dir, next_id++);
        } else if (what < 3) {
            counters_values(pages[which])[COUNTER_SETS_SUCCESS]++;
            counted++;
        } else if (what == 3) {
            pages[which] = counters_close(pages[which]);
        } else {
            struct counters_folded record = committed;
            bool is_due = counters_fold(dir, &record);
            assert_int_equal(sum_of(dir, &committed, COUNTER_SETS_SUCCESS), counted);
            before = committed;
            if (is_due && what != 4) { /* 4: died before it was committed */
                committed = record;
            }
        }
        assert_int_equal(sum_of(dir, &committed, COUNTER_SETS_SUCCESS), counted);
        assert_int_equal(sum_of(dir, &before, COUNTER_SETS_SUCCESS), counted);
    }
    for (size_t i = 0; i < ARRAY_COUNT(pages); i++) {
        pages[i] = counters_close(pages[i]);
    }
    while (counters_has_dead(dir)) {
        (void)counters_fold(dir, &committed);
    }
    assert_int_equal(committed.values[COUNTER_SETS_SUCCESS], counted);
}

static void a_record_of_another_release_counts_for_what_can_be_read(void **state)
{
    CLEANUP(buf_fini) struct buf bytes = BUF_INIT;
    struct counters_folded record = {
        .values = { [COUNTER_GETS_SUCCESS] = 5, [COUNTER_HTTP_RECEIVED] = 6 },
        .ids = { 0xabc },
        .id_count = 1
    };
    struct counters_folded found;
    uint64_t fewer[3 + 2 + 1];

    (void)state;
    counters_decode(encoded(&record, &bytes), &found);
    assert_memory_equal(&found, &record, sizeof found);
    memcpy(fewer, bytes.data, 5 * sizeof fewer[0]);
    fewer[1] = 2; /* had two counters */
    fewer[5] = 0xabc;
    counters_decode(span_of(fewer, sizeof fewer), &found);
    assert_int_equal(found.values[COUNTER_GETS_SUCCESS], 5);
    assert_int_equal(found.values[COUNTER_HTTP_RECEIVED], 0);
    assert_true(found.id_count == 1 && found.ids[0] == 0xabc);
    for (size_t i = 0; i < sizeof fewer; i++) { /* torn anywhere: nothing, and no harm */
        counters_decode(span_of(fewer, i), &found);
        assert_int_equal(found.id_count, 0);
    }
    fewer[2] = UINT64_MAX;
    counters_decode(span_of(fewer, sizeof fewer), &found);
    assert_int_equal(found.values[COUNTER_GETS_SUCCESS], 0);
}

static void has_one_primary_at_a_time(void **state)
{
    struct counters *first = open_page(*state, 1);
    struct counters *second = open_page(*state, 2);

    assert_true(counters_try_primary(first));
    assert_false(counters_try_primary(second));
    (void)counters_close(first);
    assert_true(counters_try_primary(second));
    (void)counters_close(second);
}

static void ignores_what_is_no_page(void **state)
{
    char path[512];
    uint64_t sum[COUNTER_COUNT];

    (void)snprintf(path, sizeof path, "%s/counters-junk", (char *)*state);
    FILE *file = fopen(path, "we");
    (void)fputs("not a page", file);
    (void)fclose(file);
    counters_sum(*state, SPAN_NONE, sum);
    assert_int_equal(sum[COUNTER_GETS_SUCCESS], 0);
}

static void files_a_duration_under_its_bucket(void **state)
{
    uint64_t values[COUNTER_COUNT] = { 0 };
    uint64_t *buckets = values + COUNTER_HTTP_BUCKETS + COUNTERS_PUT * COUNTERS_BUCKET_COUNT;

    (void)state;
    counters_add_duration(values, COUNTERS_PUT, 500000);
    counters_add_duration(values, COUNTERS_PUT, 500001);
    counters_add_duration(values, COUNTERS_PUT, UINT64_C(2048000000));
    counters_add_duration(values, COUNTERS_PUT, UINT64_C(2048000001));
    assert_int_equal(buckets[0], 1);
    assert_int_equal(buckets[1], 1);
    assert_int_equal(buckets[12], 1);
    assert_int_equal(buckets[13], 1);
}

#define DIR_TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DIR_TEST(sums_live_dead_and_folded),
        DIR_TEST(a_page_is_never_another_gatewayds),
        DIR_TEST(folds_only_the_dead_and_only_once),
        DIR_TEST(more_dead_than_a_round_takes_are_left_for_the_next),
        DIR_TEST(wherever_a_process_dies_the_sum_is_what_was_counted),
        cmocka_unit_test(a_record_of_another_release_counts_for_what_can_be_read),
        DIR_TEST(has_one_primary_at_a_time),
        DIR_TEST(ignores_what_is_no_page),
        cmocka_unit_test(files_a_duration_under_its_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
