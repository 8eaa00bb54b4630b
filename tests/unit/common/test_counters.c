/* Counters outlive their gatewayd and are summed over all of them. */
#include "common/counters.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static int make_dir(void **state)
{
    char template[] = "/tmp/quorate-counters-XXXXXX";
    *state = xstrdup(mkdtemp(template));
    return 0;
}

static int remove_dir(void **state)
{
    char path[512];
    DIR *dir = opendir(*state);

    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] != '.') {
            (void)snprintf(path, sizeof path, "%s/%s", (char *)*state, entry->d_name);
            (void)unlink(path);
        }
    }
    (void)closedir(dir);
    (void)rmdir(*state);
    free(*state);
    return 0;
}

static struct counters *open_page(const char *dir, uint64_t id)
{
    struct counters *counters = NULL;
    assert_int_equal(counters_open(dir, id, &counters, NULL), 0);
    return counters;
}

static void sums_live_dead_and_folded(void **state)
{
    const char *dir = *state;
    uint64_t folded[3] = { 100, 0, 7 };
    uint64_t sum[COUNTER_COUNT];

    struct counters *dead = open_page(dir, 1);
    struct counters *live = open_page(dir, 2);
    counters_values(dead)[COUNTER_GETS_SUCCESS] = 10;
    counters_values(dead)[COUNTER_WATCHERS] = 5;
    counters_values(live)[COUNTER_GETS_SUCCESS] = 1;
    counters_values(live)[COUNTER_WATCHERS] = 3;
    (void)counters_close(dead);
    counters_sum(dir, span_of(folded, sizeof folded), sum);
    assert_int_equal(sum[COUNTER_GETS_SUCCESS], 111);
    assert_int_equal(sum[COUNTER_SETS_SUCCESS], 7);
    assert_int_equal(sum[COUNTER_WATCHERS], 3);
    (void)counters_close(live);
}

static void takes_over_the_page_of_the_dead(void **state)
{
    const char *dir = *state;
    uint64_t sum[COUNTER_COUNT];

    struct counters *first = open_page(dir, 1);
    counters_values(first)[COUNTER_SETS_FAIL] = 4;
    (void)counters_close(first);
    struct counters *second = open_page(dir, 2);
    assert_int_equal(counters_values(second)[COUNTER_SETS_FAIL], 4);
    counters_values(second)[COUNTER_SETS_FAIL]++;
    counters_sum(dir, SPAN_NONE, sum);
    assert_int_equal(sum[COUNTER_SETS_FAIL], 5);
    (void)counters_close(second);
}

static void folds_only_the_dead_and_only_once(void **state)
{
    const char *dir = *state;
    uint64_t values[COUNTER_COUNT] = { 0 };
    uint64_t sum[COUNTER_COUNT];
    struct counters_dead *pages = NULL;

    struct counters *dead = open_page(dir, 1);
    struct counters *live = open_page(dir, 2);
    counters_values(dead)[COUNTER_EXPIRE_COUNT] = 9;
    counters_values(live)[COUNTER_EXPIRE_COUNT] = 1;
    (void)counters_close(dead);
    assert_int_equal(counters_fold_dead(dir, values, &pages, NULL), 1);
    assert_int_equal(values[COUNTER_EXPIRE_COUNT], 9);
    counters_forget(pages, true);
    assert_int_equal(counters_fold_dead(dir, values, &pages, NULL), 0);
    counters_forget(pages, true);
    counters_sum(dir, span_of(values, sizeof values), sum);
    assert_int_equal(sum[COUNTER_EXPIRE_COUNT], 10);
    (void)counters_close(live);
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
        DIR_TEST(takes_over_the_page_of_the_dead),
        DIR_TEST(folds_only_the_dead_and_only_once),
        DIR_TEST(has_one_primary_at_a_time),
        DIR_TEST(ignores_what_is_no_page),
        cmocka_unit_test(files_a_duration_under_its_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
