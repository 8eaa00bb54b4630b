/* test_wal_torn.c: what a crash may leave at the end of a log is cut, loses the unsynced batch alone, and the log goes on.
 * Damage to what was synced: test_wal_flipped.c; whole files and the rewrite at a start: test_wal_restart.c. */
#include "tests/unit/wal/wal_damage.h"

#include <errno.h>

static void a_log_torn_at_every_byte_of_its_last_unsynced_batch_loses_only_that(void **state)
{
    struct damage *d = *state;
    damage_write(d, 12);
    for (enum tear how = 0; how < TEAR_COUNT; how++) {
        for (uint64_t offset = d->start; offset <= d->end; offset++) {
            damage_copy(d, &d->segment);
            damage_tear(d, how, offset, d->end);
            assert_int_equal(damage_recover(d), 0);
            /* The last bytes may be padding, which was zero anyway. */
            bool is_whole = offset == d->end || how == TEAR_ZEROS;
            if (is_whole && model_equal(d->model, d->after)) {
                continue;
            }
            assert_true(offset < d->end);
            assert_true(model_equal(d->model, d->before));
        }
    }
}

static void append_an_entry(struct damage *d, struct wal *wal)
{
    uint8_t data[SCRIPT_DATA_BYTES_MAX];
    struct wal_entry entry = { .index = d->model->last_index + 1, .term = 9 };
    entry.time_ns = entry.index * 10;
    entry.kind = (uint8_t)(entry.index % 200);
    entry.data = span_of(data, entry_data(entry.index, 9, data));
    struct wal_write write = { .entries = &entry, .entry_count = 1 };
    assert_int_equal(wal_append(wal, &write, 1, &d->err), 0);
    assert_int_equal(wal_sync(wal, &d->err), 0);
    model_apply(d->model, &(struct wal_record){ .kind = WAL_RECORD_ENTRY, .entry = entry });
}

static void a_torn_log_goes_on_after_the_cut_and_stays_whole(void **state)
{
    struct damage *d = *state;
    damage_write(d, 12);
    for (uint64_t offset = d->start; offset < d->end; offset += 16) {
        struct wal *copy = NULL;
        struct model *expected = model_new();
        damage_copy(d, &d->segment);
        damage_tear(d, TEAR_GARBAGE, offset, d->end);
        assert_int_equal(damage_restart(d, NULL, &copy), 0);
        assert_true(wal_torn_bytes(copy) > 0);
        append_an_entry(d, copy);
        (void)wal_close(copy);
        memcpy(expected, d->model, sizeof(*expected));
        assert_int_equal(damage_recover(d), 0);
        assert_true(model_equal(expected, d->model));
        free(expected);
    }
}

/* Two batches are written, neither synced, and of the first one a page never came. */
static void an_unsynced_batch_behind_a_torn_one_does_not_make_it_damage(void **state)
{
    struct damage *d = *state;
    struct wal_write write = { .hard = &(struct wal_hard_state){ 50, 1, 0 } };
    damage_write(d, 12);
    damage_append(d, &write, false);
    damage_copy(d, &d->segment);
    damage_tear(d, TEAR_HOLE, d->start + 64, d->end);
    assert_int_equal(damage_recover(d), 0);
    assert_true(model_equal(d->model, d->before));

    /* Once it has been synced, and a batch says so, the same is damage. */
    assert_int_equal(wal_sync(d->wal, NULL), 0);
    damage_append(d, &write, false);
    damage_copy(d, &d->segment);
    damage_tear(d, TEAR_HOLE, d->start + 64, d->end);
    assert_int_equal(damage_recover(d), -EBADMSG);
}

static void a_batch_that_does_not_continue_the_one_before_is_not_read(void **state)
{
    struct damage *d = *state;
    uint8_t stale[RECORD_BATCH_BYTES + RECORD_HARD_STATE_BYTES];
    damage_write(d, 3);
    uint32_t crc = d->wal->crc ^ 1;
    struct record_batch batch = {
        .crc_before = crc,
        .count = 1,
        .batch_bytes = sizeof(stale),
        .salt = wal_last_segment(d->wal).salt,
        .offset = d->wal->end,
        .synced = 0,
    };
    uint8_t *at = record_put_batch(stale, &batch, &crc);
    (void)record_put_hard_state(at, &(struct wal_hard_state){ 99, 99, 99 }, &crc);
    damage_copy(d, &d->segment);
    damage_put(d, d->wal->end, stale, sizeof(stale));
    assert_int_equal(damage_recover(d), 0);
    assert_true(model_equal(d->model, d->after));
}

/* Everything is right in it but the salt, which nobody outside knows, or its place. */
static void forge_a_batch(struct damage *d, uint64_t salt_error, uint64_t place_error)
{
    damage_create(d);
    uint64_t start = d->wal->end;
    uint64_t place = start + RECORD_BATCH_BYTES + RECORD_ENTRY_BYTES;
    uint8_t forged[RECORD_BATCH_BYTES];
    struct segment last = wal_last_segment(d->wal);
    struct record_batch batch = {
        .batch_bytes = sizeof(forged),
        .salt = last.salt ^ salt_error,
        .offset = place + place_error,
        .synced = place,
    };
    uint32_t crc = 0;
    (void)record_put_batch(forged, &batch, &crc);
    struct wal_entry entry = { .index = 1, .term = 1, .data = span_of(forged, sizeof(forged)) };
    damage_append(d, &(struct wal_write){ .entries = &entry, .entry_count = 1 }, false);

    damage_copy(d, &last.name);
    damage_flip_bit(d, start + 3, 0);
    assert_int_equal(damage_recover(d), 0); /* a torn tail, not damage */
    assert_int_equal(d->model->last_index, 0);
}

static void a_value_that_looks_like_a_batch_is_not_taken_for_one(void **state)
{
    forge_a_batch(*state, 1, 0);
    forge_a_batch(*state, 0, 8);
}

static void a_torn_log_on_a_disk_without_any_space_opens_and_takes_votes(void **state)
{
    struct damage *d = *state;
    struct fault fault;
    struct wal *copy = NULL;
    damage_write(d, 12);
    damage_copy(d, &d->segment);
    damage_tear(d, TEAR_GARBAGE, d->start + 8, d->end);
    fault_init(&fault);
    fault.is_disk_full = true;
    assert_int_equal(damage_restart(d, &fault.io, &copy), 0);
    assert_true(model_equal(d->model, d->before));
    struct wal_write vote = { .hard = &(struct wal_hard_state){ 70, 1, 0 } };
    assert_int_equal(wal_append(copy, &vote, 1, &d->err), 0);
    assert_int_equal(wal_sync(copy, &d->err), 0);
    (void)wal_close(copy);
    assert_int_equal(damage_recover(d), 0);
    assert_int_equal(d->model->hard.term, 70);
    assert_int_equal(d->model->last_index, d->before->last_index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DAMAGE_TEST(a_log_torn_at_every_byte_of_its_last_unsynced_batch_loses_only_that),
        DAMAGE_TEST(a_torn_log_goes_on_after_the_cut_and_stays_whole),
        DAMAGE_TEST(an_unsynced_batch_behind_a_torn_one_does_not_make_it_damage),
        DAMAGE_TEST(a_batch_that_does_not_continue_the_one_before_is_not_read),
        DAMAGE_TEST(a_value_that_looks_like_a_batch_is_not_taken_for_one),
        DAMAGE_TEST(a_torn_log_on_a_disk_without_any_space_opens_and_takes_votes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
