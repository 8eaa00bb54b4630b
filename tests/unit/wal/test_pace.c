#include "daemons/raftd/wal/pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum {
    SYNCS_MAX = 8
};

static struct pace serial_disk(size_t expected)
{
    return (struct pace){ .syncs_max = SYNCS_MAX,
        .sync_us = 10000,
        .alone_us = 10000,
        .expected = expected,
        .until_trial = 100 };
}

static uint64_t wait_us(const struct pace *pace, size_t queued)
{
    return pace_wait(pace, &(struct pace_now){ .queued = queued, .since_last_us = 1000000 })
            .wait_us;
}

static void a_fast_disk_neither_waits_nor_overlaps(void **state)
{
    (void)state;
    struct pace pace = { .syncs_max = SYNCS_MAX, .sync_us = 120, .expected = 64, .overlaps = true };
    assert_true(wait_us(&pace, 32) == 0);
    assert_int_equal(pace_syncs(&pace), 1);
}

static void half_of_the_clients_wait_for_the_other_half_at_most_half_a_sync(void **state)
{
    (void)state;
    struct pace pace = serial_disk(64);
    assert_true(wait_us(&pace, 32) == 5000);
    pace.sync_us = 2000;
    assert_true(wait_us(&pace, 32) == 1000);
}

static void all_that_are_expected_do_not_wait(void **state)
{
    (void)state;
    struct pace pace = serial_disk(64);
    assert_true(wait_us(&pace, 64) == 0);
}

static void a_lone_client_does_not_wait(void **state)
{
    (void)state;
    struct pace pace = { .syncs_max = SYNCS_MAX, .sync_us = 10000 };
    pace_done(&pace, &(struct pace_batch){ .count = 1, .began = 1, .sync_us = 10000 });
    assert_true(wait_us(&pace, 1) == 0);
}

static void the_synced_and_the_queued_are_expected(void **state)
{
    (void)state;
    struct pace pace = serial_disk(0);
    pace_done(&pace,
            &(struct pace_batch){ .count = 30, .began = 30, .queued = 34, .sync_us = 10000 });
    assert_int_equal(pace.expected, 64);
    pace_done(&pace, &(struct pace_batch){
                             .count = 64, .began = 34, .was_waiting = true, .sync_us = 10000 });
    assert_int_equal(pace.expected, 64);
    assert_int_equal(pace.skip, 0);
}

static void waits_in_vain_are_left_for_longer_and_longer(void **state)
{
    (void)state;
    struct pace pace = serial_disk(64);
    const struct pace_batch vain = {
        .count = 32, .began = 32, .was_waiting = true, .queued = 32, .sync_us = 10000
    };
    pace_done(&pace, &vain);
    assert_int_equal(pace.skip, 8);
    assert_true(wait_us(&pace, 32) == 0);
    for (int i = 0; i < 8; i++) {
        pace_done(&pace,
                &(struct pace_batch){ .count = 32, .began = 32, .queued = 32, .sync_us = 10000 });
    }
    assert_true(wait_us(&pace, 32) > 0);
    pace_done(&pace, &vain);
    assert_int_equal(pace.skip, 16);
}

/* ---- A model: clients that each wait for their answer, and a disk ---------------------------------------------- */

enum {
    CLIENTS = 64,
    SYNC_US = 10000,
    ROUND_TRIP_US =
            1112, /* from an answer to the same client's next entry, mean of what round_trip_us gives */
    STEP_US = 50,
};

struct model {
    struct pace pace;
    bool is_serial;
    uint64_t now_us;
    uint64_t arrives_us[CLIENTS]; /* 0: it waits for its answer, or is queued */
    unsigned queued[CLIENTS];
    size_t queued_count;
    struct flight {
        bool is_used;
        uint64_t began_us;
        uint64_t ends_us;
        unsigned clients[CLIENTS];
        struct pace_batch batch;
    } flights[SYNCS_MAX];
    bool is_waiting;
    uint64_t waits_until_us;
    size_t waits_for;
    size_t waits_began;
    uint64_t last_us; /* the last sync began */
    uint64_t disk_free_us;
    uint64_t answered;
    uint64_t random;
};

/* Most come back soon, and one in sixteen had something else to do. */
static uint64_t round_trip_us(struct model *model)
{
    model->random = model->random * 6364136223846793005U + 1442695040888963407U;
    uint64_t random = model->random >> 33;
    return 400 + random % 800 + (random % 16 == 0 ? (random >> 8) % 10000 : 0);
}

static unsigned under_way(const struct model *model)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SYNCS_MAX; i++) {
        count += model->flights[i].is_used;
    }
    return count;
}

static void begin(struct model *model, bool was_waiting, size_t began)
{
    struct flight *flight = NULL;
    for (unsigned i = 0; i < SYNCS_MAX && flight == NULL; i++) {
        flight = model->flights[i].is_used ? NULL : &model->flights[i];
    }
    uint64_t start_us = model->is_serial ? MAX(model->now_us, model->disk_free_us) : model->now_us;
    *flight = (struct flight){
        .is_used = true, .began_us = model->now_us, .ends_us = start_us + SYNC_US
    };
    flight->batch = (struct pace_batch){ .count = model->queued_count,
        .began = began,
        .was_waiting = was_waiting,
        .was_beside = under_way(model) > 1 };
    model->disk_free_us = flight->ends_us;
    for (size_t i = 0; i < model->queued_count; i++) {
        flight->clients[i] = model->queued[i];
    }
    model->queued_count = 0;
    model->last_us = model->now_us;
}

static void end(struct model *model, struct flight *flight)
{
    flight->batch.queued = model->queued_count;
    flight->batch.sync_us = flight->ends_us - flight->began_us;
    pace_done(&model->pace, &flight->batch);
    for (size_t i = 0; i < flight->batch.count; i++) {
        model->arrives_us[flight->clients[i]] = model->now_us + round_trip_us(model);
        model->answered++;
    }
    flight->is_used = false;
}

static void step(struct model *model)
{
    model->now_us += STEP_US;
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (model->arrives_us[i] > 0 && model->arrives_us[i] <= model->now_us) {
            model->arrives_us[i] = 0;
            model->queued[model->queued_count++] = i;
        }
    }
    for (unsigned i = 0; i < SYNCS_MAX; i++) {
        if (model->flights[i].is_used && model->flights[i].ends_us <= model->now_us) {
            end(model, &model->flights[i]);
        }
    }
    if (model->is_waiting) {
        if (model->now_us >= model->waits_until_us || model->queued_count >= model->waits_for) {
            model->is_waiting = false;
            begin(model, true, model->waits_began);
        }
    } else if (model->queued_count > 0 && under_way(model) < pace_syncs(&model->pace)) {
        struct pace_wait wait =
                pace_wait(&model->pace, &(struct pace_now){ .queued = model->queued_count,
                                                .under_way = under_way(model),
                                                .since_last_us = model->now_us - model->last_us });
        model->is_waiting = wait.wait_us > 0;
        model->waits_until_us = model->now_us + wait.wait_us;
        model->waits_for = wait.enough;
        model->waits_began = model->queued_count;
        if (!model->is_waiting) {
            begin(model, false, model->queued_count);
        }
    }
}

/* Answers in ten seconds, by hundredths of what one sync and one round trip for each would allow. */
static unsigned share_of_the_best(struct model *model)
{
    uint64_t until_us = model->now_us + 10000000;
    uint64_t before = model->answered;
    while (model->now_us < until_us) {
        step(model);
    }
    uint64_t best = UINT64_C(10000000) * CLIENTS / (SYNC_US + ROUND_TRIP_US);
    return (unsigned)((model->answered - before) * 100 / best);
}

static void start(struct model *model, bool is_serial)
{
    *model = (struct model){ .is_serial = is_serial, .pace.syncs_max = SYNCS_MAX };
    for (unsigned i = 0; i < CLIENTS; i++) {
        model->arrives_us[i] = 1 + i * 150; /* no two of a kind */
    }
}

static void on_a_disk_that_takes_several_syncs_at_once_they_overlap(void **state)
{
    (void)state;
    struct model model;
    start(&model, false);
    (void)share_of_the_best(&model);
    assert_true(model.pace.overlaps);
    assert_in_range(share_of_the_best(&model), 85, 100);
}

static void on_a_disk_that_does_one_after_the_other_batches_wait_for_company(void **state)
{
    (void)state;
    struct model model;
    start(&model, true);
    (void)share_of_the_best(&model);
    assert_false(model.pace.overlaps);
    assert_in_range(share_of_the_best(&model), 65, 100); /* in two halves it would be 54 */
}

static void a_disk_that_changes_its_ways_is_found_out(void **state)
{
    (void)state;
    struct model model;
    start(&model, false);
    (void)share_of_the_best(&model);
    assert_true(model.pace.overlaps);
    model.is_serial = true;
    (void)share_of_the_best(&model);
    assert_false(model.pace.overlaps);
    assert_in_range(share_of_the_best(&model), 65, 100);
    model.is_serial = false;
    (void)share_of_the_best(&model);
    assert_true(model.pace.overlaps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fast_disk_neither_waits_nor_overlaps),
        cmocka_unit_test(half_of_the_clients_wait_for_the_other_half_at_most_half_a_sync),
        cmocka_unit_test(all_that_are_expected_do_not_wait),
        cmocka_unit_test(a_lone_client_does_not_wait),
        cmocka_unit_test(the_synced_and_the_queued_are_expected),
        cmocka_unit_test(waits_in_vain_are_left_for_longer_and_longer),
        cmocka_unit_test(on_a_disk_that_takes_several_syncs_at_once_they_overlap),
        cmocka_unit_test(on_a_disk_that_does_one_after_the_other_batches_wait_for_company),
        cmocka_unit_test(a_disk_that_changes_its_ways_is_found_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
