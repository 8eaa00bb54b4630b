/* A disk that fails or fills: nothing acknowledged is lost, a final error stays final, lack of space does not. */
#include "tests/unit/wal/wal_fixture.h"

#include <errno.h>

enum {
    SEGMENT_BYTES = 16 << 10,
    SEED = 5,
    WRITES = 150
};

static struct wal_config config_of(const struct fixture *fixture, const struct fault *fault)
{
    return (struct wal_config){
        .dir = fixture->dir,
        .segment_bytes = SEGMENT_BYTES,
        .reserve_bytes = 2048,
        .io = fault == NULL ? NULL : &fault->io,
    };
}

static struct wal *create(const struct fixture *fixture, const struct fault *fault)
{
    struct wal_config config = config_of(fixture, fault);
    struct wal *wal = NULL;
    assert_int_equal(wal_create(&config, &fixture_base, &fixture_hard, &wal, NULL), 0);
    return wal;
}

/* What the log in the folder amounts to is what the script amounted to after `from` to `to` writes. */
static void expect_recovery(
        const struct fixture *fixture, bool is_plain, unsigned from, unsigned to)
{
    struct wal_config config = config_of(fixture, NULL);
    struct model *model = model_new();
    struct wal *wal = NULL;
    struct err err = { .code = 0 };
    int r = fixture_recover(&config, true, model, &wal, &err);
    if (r < 0) {
        print_error("%s\n", err.text);
    }
    assert_int_equal(r, 0);
    bool is_known = false;
    for (unsigned count = from; !is_known && count <= to; count++) {
        struct model *expected = script_model_after(SEED, is_plain, count);
        is_known = model_equal(model, expected);
        if (is_known) {
            assert_int_equal(fixture_read_back(wal, expected, &err), 0);
        }
        free(expected);
    }
    assert_true(is_known);
    (void)wal_close(wal);
    free(model);
}

/* Appends until it fails or all is written; counts. */
static int append_all(struct wal *wal, struct script *script, unsigned *synced, unsigned *written)
{
    int r = 0;
    while (r == 0 && *written < WRITES) {
        struct wal_write write = script_next(script);
        r = wal_append(wal, &write, 1, NULL);
        *written += 1;
        if (r == 0 && *written % 2 == 0) {
            r = wal_sync(wal, NULL);
            *synced = r == 0 ? *written : *synced;
        }
        if (r == 0 && wal_wants_prepare(wal)) {
            (void)wal_prepare_next(wal, NULL); /* a failure shows in a later append, if at all */
        }
    }
    return r;
}

static void append_survives_failure_of_any_single_io(void **state)
{
    const struct fixture *fixture = *state;
    bool has_fired = true;
    unsigned nth = 1;
    for (; has_fired; nth++) {
        struct fault fault;
        struct script *script = script_new(SEED);
        unsigned synced = 0;
        unsigned written = 0;
        fault_init(&fault);
        struct wal *wal = create(fixture, &fault);
        fault.is_short = nth % 2 == 0;
        fault.is_dead_after = nth % 3 == 0;
        fault_arm(&fault, nth, EIO);
        int r = append_all(wal, script, &synced, &written);
        has_fired = fault.has_fired;
        if (r < 0) {
            struct wal_write write = { .hard = &script->model->hard };
            fault.nth = 0; /* the disk is well again: too late */
            assert_int_equal(wal_append(wal, &write, 1, NULL), -EIO);
            assert_int_equal(wal_sync(wal, NULL), -EIO);
        }
        fault.nth = 0;
        (void)wal_close(wal);
        expect_recovery(fixture, false, synced, written);
        fixture_remove(fixture->dir);
        (void)script_free(script);
    }
    assert_true(nth > 200);
}

static void a_log_that_was_not_finished_being_made_can_be_made_again(void **state)
{
    const struct fixture *fixture = *state;
    bool has_fired = true;
    unsigned nth = 1;
    for (; has_fired; nth++) {
        struct fault fault;
        struct wal *wal = NULL;
        fault_init(&fault);
        fault.is_dead_after = nth % 2 == 0;
        fault_arm(&fault, nth, EIO);
        struct wal_config config = config_of(fixture, &fault);
        int r = wal_create(&config, &fixture_base, &fixture_hard, &wal, NULL);
        has_fired = fault.has_fired;
        fault.nth = 0;
        wal = wal_close(wal);
        if (r < 0 && wal_exists(fixture->dir, NULL) == 0) {
            wal = create(fixture, NULL);
            wal = wal_close(wal);
        }
        expect_recovery(
                fixture, false, 0, 0); /* crashed after the rename: a whole log, as good as new */
        fixture_remove(fixture->dir);
    }
    assert_true(nth > 6);
}

static void a_failed_fdatasync_is_final_and_never_retried(void **state)
{
    const struct fixture *fixture = *state;
    struct fault fault;
    struct err err = { .code = 0 };
    int errors[] = { EIO, ENOSPC };
    for (size_t i = 0; i < ARRAY_COUNT(errors); i++) {
        fault_init(&fault);
        struct wal *wal = create(fixture, &fault);
        struct wal_write write = { .hard = &(struct wal_hard_state){ 2, 2, 0 } };
        assert_int_equal(wal_append(wal, &write, 1, &err), 0);
        fault.fails_sync = true;
        fault.error = errors[i];
        fault.sync_count = 0;
        assert_int_equal(wal_sync(wal, &err), -EIO);
        fault.fails_sync = false;
        assert_int_equal(wal_sync(wal, &err), -EIO);
        assert_non_null(strstr(err.text, "fdatasync"));
        assert_int_equal(wal_append(wal, &write, 1, &err), -EIO);
        assert_int_equal(wal_purge_before(wal, 1, &err), -EIO);
        assert_int_equal(fault.sync_count, 1);
        assert_false(wal_wants_prepare(wal));
        (void)wal_close(wal);
        fixture_remove(fixture->dir);
    }
}

/* ---- A full disk ---------------------------------------------------------------------------------------------- */

static void a_full_disk_refuses_entries_keeps_votes_and_cuts_and_resumes(void **state)
{
    const struct fixture *fixture = *state;
    struct fault fault;
    struct err err = { .code = 0 };
    struct script *script = script_new(SEED);
    script->is_plain = true;
    fault_init(&fault);
    struct wal *wal = create(fixture, &fault);
    fault.is_disk_full = true;

    /* Entries go on until the segment is used up to the reserve. */
    unsigned written = 0;
    struct wal_write write;
    int r = 0;
    while (r == 0) {
        write = script_next(script);
        r = wal_append(wal, &write, 1, &err);
        written += r == 0;
    }
    assert_int_equal(r, -ENOSPC);
    assert_non_null(strstr(err.text, "no space"));
    assert_true(written > 5);
    assert_int_equal(wal_append(wal, &write, 1, &err), -ENOSPC);
    assert_int_equal(wal_sync(wal, &err), 0);
    assert_true(wal_wants_prepare(wal));
    assert_int_equal(wal_prepare_next(wal, &err), -ENOSPC);
    assert_false(wal_has_space(wal));

    /* What comes after what was refused is refused too, and is no broken promise. */
    struct model *model = script_model_after(SEED, true, written);
    struct wal_entry later = { .index = script->model->last_index + 1, .term = 90 };
    struct wal_write after = { .entries = &later, .entry_count = 1 };
    assert_int_equal(wal_append(wal, &after, 1, &err), -ENOSPC);
    assert_int_equal(wal_last_index(wal), model->last_index);

    /* Votes and cuts have the reserve. */
    struct wal_hard_state vote = { 100, 3, model->hard.commit };
    struct wal_write votes = { .hard = &vote, .has_cut = true, .cut_index = model->last_index - 1 };
    assert_int_equal(wal_append(wal, &votes, 1, &err), 0);
    assert_int_equal(wal_sync(wal, &err), 0);
    model->hard = vote;
    model->last_index--;
    assert_int_equal(fixture_read_back(wal, model, &err), 0);

    /* Space returns. */
    fault.is_disk_full = false;
    assert_int_equal(wal_prepare_next(wal, &err), 0);
    assert_true(wal_has_space(wal));
    uint8_t data[SCRIPT_DATA_BYTES_MAX];
    struct wal_entry entry = { .index = model->last_index + 1, .term = 100 };
    entry.time_ns = entry.index * 10;
    entry.kind = (uint8_t)(entry.index % 200);
    entry.data = span_of(data, entry_data(entry.index, 100, data));
    struct wal_write resumed = { .entries = &entry, .entry_count = 1 };
    assert_int_equal(wal_append(wal, &resumed, 1, &err), 0);
    assert_int_equal(wal_sync(wal, &err), 0);
    model_apply(model, &(struct wal_record){ .kind = WAL_RECORD_ENTRY, .entry = entry });
    (void)wal_close(wal);

    struct wal_config config = config_of(fixture, NULL);
    struct model *again = model_new();
    assert_int_equal(fixture_recover(&config, false, again, NULL, &err), 0);
    assert_true(model_equal(model, again));
    free(again);
    free(model);
    (void)script_free(script);
}

/* The reserve is finite too, and its end is as clean. */
static void a_used_up_reserve_is_no_final_error(void **state)
{
    const struct fixture *fixture = *state;
    struct fault fault;
    fault_init(&fault);
    struct wal *wal = create(fixture, &fault);
    fault.is_disk_full = true;
    struct wal_hard_state vote = { 1, 0, 0 };
    struct wal_write votes = { .hard = &vote };
    int r = 0;
    while (r == 0) {
        vote.term++;
        r = wal_append(wal, &votes, 1, NULL);
    }
    assert_int_equal(r, -ENOSPC);
    assert_true(vote.term * 88 + 100 > SEGMENT_BYTES - 300);
    fault.is_disk_full = false;
    assert_int_equal(wal_append(wal, &votes, 1, NULL), 0);
    assert_int_equal(wal_sync(wal, NULL), 0);
    (void)wal_close(wal);
}

/* Where allocating promises nothing, the write itself finds the disk full, perhaps in its middle. */
static void no_space_in_the_middle_of_a_write_leaves_the_log_usable(void **state)
{
    const struct fixture *fixture = *state;
    bool has_fired = true;
    unsigned nth = 1;
    for (; has_fired; nth++) {
        struct fault fault;
        struct script *script = script_new(SEED);
        fault_init(&fault);
        struct wal *wal = create(fixture, &fault);
        fault.is_short = true;
        fault_arm(&fault, nth, ENOSPC);
        bool is_final = false;
        for (unsigned written = 0; !is_final && written < WRITES;) {
            struct wal_write write = script_next(script);
            int r = wal_append(wal, &write, 1, NULL);
            r = r == -ENOSPC ? wal_append(wal, &write, 1, NULL) : r; /* there is space again */
            r = r == 0 ? wal_sync(wal, NULL) : r;
            is_final = r < 0;
            assert_true(r == 0 || r == -EIO); /* a sync was hit */
            written++;
        }
        if (!is_final) {
            (void)wal_close(wal);
            expect_recovery(fixture, false, WRITES, WRITES);
        } else {
            (void)wal_close(wal);
        }
        has_fired = fault.has_fired;
        fixture_remove(fixture->dir);
        (void)script_free(script);
    }
    assert_true(nth > 200);
}

static void a_start_on_a_full_disk_makes_do_with_less(void **state)
{
    const struct fixture *fixture = *state;
    struct script *script = script_new(SEED);
    script->is_plain = true;
    struct wal *wal = create(fixture, NULL);
    for (unsigned i = 0; i < 5; i++) {
        struct wal_write write = script_next(script);
        assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
    }
    assert_int_equal(wal_sync(wal, NULL), 0);
    (void)wal_close(wal);

    struct fault fault;
    fault_init(&fault);
    struct wal_config config = config_of(fixture, &fault);
    config.segment_bytes = UINT64_C(1) << 60; /* no disk has that */
    struct model *model = model_new();
    struct err err = { .code = 0 };
    assert_int_equal(fixture_recover(&config, true, model, &wal, &err), 0);
    assert_true(model_equal(model, script->model));
    struct wal_hard_state vote = { 100, 3, 0 };
    struct wal_write votes = { .hard = &vote };
    assert_int_equal(wal_append(wal, &votes, 1, &err), 0);
    assert_int_equal(wal_sync(wal, &err), 0);
    struct wal_write entries = script_next(script);
    while (entries.entry_count == 0) {
        entries = script_next(script);
    }
    entries.hard = NULL;
    assert_int_equal(wal_append(wal, &entries, 1, &err), -ENOSPC);
    (void)wal_close(wal);
    free(model);
    (void)script_free(script);
}

/* The small file of such a start is far from half full; that there is space again is noticed all the same. */
static void space_that_returns_is_noticed_wherever_the_segment_stands(void **state)
{
    const struct fixture *fixture = *state;
    struct fault fault;
    struct model *model = model_new();
    struct err err = { .code = 0 };
    static uint8_t large[4000];
    (void)wal_close(create(fixture, NULL));
    fault_init(&fault);
    fault.allocate_bytes_max = SEGMENT_BYTES / 2;
    struct wal_config config = config_of(fixture, &fault);
    struct wal *wal = NULL;
    assert_int_equal(fixture_recover(&config, true, model, &wal, &err), 0);
    assert_false(wal_wants_prepare(wal));
    struct wal_entry entry = { .index = 1, .term = 1, .data = span_of(large, sizeof(large)) };
    struct wal_write write = { .entries = &entry, .entry_count = 1 };
    assert_int_equal(wal_append(wal, &write, 1, &err), -ENOSPC);
    assert_false(wal_has_space(wal));
    assert_int_equal(wal_prepare_next(wal, &err), -ENOSPC);
    fault.allocate_bytes_max = 0;
    assert_int_equal(wal_prepare_next(wal, &err), 0);
    assert_true(wal_has_space(wal));
    assert_int_equal(wal_append(wal, &write, 1, &err), 0);
    (void)wal_close(wal);
    free(model);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(append_survives_failure_of_any_single_io),
        TEST(a_log_that_was_not_finished_being_made_can_be_made_again),
        TEST(a_failed_fdatasync_is_final_and_never_retried),
        TEST(a_full_disk_refuses_entries_keeps_votes_and_cuts_and_resumes),
        TEST(a_used_up_reserve_is_no_final_error),
        TEST(no_space_in_the_middle_of_a_write_leaves_the_log_usable),
        TEST(a_start_on_a_full_disk_makes_do_with_less),
        TEST(space_that_returns_is_noticed_wherever_the_segment_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
