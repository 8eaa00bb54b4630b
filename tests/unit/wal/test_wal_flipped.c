/* test_wal_flipped.c: damage to what was synced is refused with file and offset, and nothing wrong is ever handed out. */
#include "tests/unit/wal/wal_damage.h"

#include <errno.h>

static void a_flipped_bit_before_synced_data_is_refused_with_file_and_offset(void **state)
{
    struct damage *d = *state;
    char name[NAMES_SEGMENT_BYTES];
    damage_write(d, 12);
    names_format(&d->segment, name);
    for (uint64_t offset = 0; offset < d->start; offset += 5) {
        damage_copy(d, &d->segment);
        damage_flip_bit(d, offset, (unsigned)(offset % 8));
        assert_int_equal(damage_recover(d), -EBADMSG);
        assert_non_null(strstr(d->err.text, name));
        const char *at = strstr(d->err.text, "offset ");
        assert_non_null(at);
        uint64_t said = strtoull(at + strlen("offset "), NULL, 10);
        assert_true(said <= offset); /* the batch that has it */
    }
}

static void a_bit_of_each_byte_of_the_last_batch_is_damage(struct damage *d, unsigned bit)
{
    for (uint64_t offset = d->start; offset < d->end; offset++) {
        damage_copy(d, &d->segment);
        damage_flip_bit(d, offset, bit);
        assert_int_equal(damage_recover(d), -EBADMSG);
    }
}

static void after_a_clean_close_a_flipped_bit_in_the_last_batch_is_damage_too(void **state)
{
    struct damage *d = *state;
    damage_write(d, 3);
    assert_int_equal(wal_sync(d->wal, NULL), 0);
    damage_close(d);
    a_bit_of_each_byte_of_the_last_batch_is_damage(d, 0);
}

static void after_a_restart_a_flipped_bit_in_what_was_rewritten_is_damage(void **state)
{
    struct damage *d = *state;
    damage_write(d, 3);
    damage_close(d);
    assert_int_equal(fixture_recover(&d->config, true, d->model, &d->wal, &d->err), 0);
    a_bit_of_each_byte_of_the_last_batch_is_damage(d, 3); /* as a kill would leave it */
}

/* As much as can be read of the damaged copy agrees with what was written; or it is refused. */
static bool is_refused(struct damage *d, struct model **models, unsigned count)
{
    struct wal *wal = NULL;
    int r = damage_restart(d, NULL, &wal);
    bool is_known = r < 0;
    for (unsigned i = 0; !is_known && i < count; i++) {
        if (model_equal(d->model, models[i])) {
            is_known = true;
            /* everything that can be asked for, also what the start did not read */
            d->model->base_index = 0;
            for (uint64_t index = 1; index <= d->model->last_index; index++) {
                d->model->terms[index] = models[i]->terms[index];
            }
            r = fixture_read_back(wal, d->model, &d->err);
        }
    }
    assert_true(is_known);
    assert_true(r == 0 || r == -EBADMSG);
    (void)wal_close(wal);
    return r < 0;
}

static void a_thousand_flipped_bits_anywhere_never_yield_a_wrong_entry(void **state)
{
    enum {
        WRITES = 150,
        FLIPS = 1000
    };
    struct damage *d = *state;
    struct model *models[3];
    damage_create(d);
    for (unsigned i = 0; i < WRITES; i++) {
        struct wal_write write = script_next(d->script);
        damage_append(d, &write, true);
        if (i == WRITES / 2) {
            /* So that a restart begins in the middle. */
            struct wal_base base = fixture_base;
            base.index = 20;
            damage_append(d, &(struct wal_write){ .base = &base }, false);
        }
    }
    for (unsigned i = 0; i < ARRAY_COUNT(models); i++) {
        models[i] = script_model_after(DAMAGE_SEED, true, WRITES - i);
        models[i]->base_index = 20;
    }
    uint64_t random = 88172645463325252;
    unsigned refused = 0;
    for (unsigned i = 0; i < FLIPS; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        const struct segment *segment = &d->wal->segments[random % d->wal->segment_count];
        bool is_last = segment == &d->wal->segments[d->wal->segment_count - 1];
        uint64_t bytes = is_last ? d->wal->end : segment->file_bytes;
        damage_copy(d, &segment->name);
        damage_flip_bit(d, (random >> 20) % bytes, (unsigned)(random >> 60) % 8);
        refused += is_refused(d, models, ARRAY_COUNT(models));
    }
    assert_true(refused > FLIPS / 2);
    for (unsigned i = 0; i < ARRAY_COUNT(models); i++) {
        free(models[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DAMAGE_TEST(a_flipped_bit_before_synced_data_is_refused_with_file_and_offset),
        DAMAGE_TEST(after_a_clean_close_a_flipped_bit_in_the_last_batch_is_damage_too),
        DAMAGE_TEST(after_a_restart_a_flipped_bit_in_what_was_rewritten_is_damage),
        DAMAGE_TEST(a_thousand_flipped_bits_anywhere_never_yield_a_wrong_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
