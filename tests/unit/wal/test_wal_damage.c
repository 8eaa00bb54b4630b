/* What a crash or a bad disk may leave, and what the log makes of it: a torn tail is cut, damage before synced data is
 * refused with file and offset, and nothing wrong is ever handed out. */
#include "tests/unit/wal/wal_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SEGMENT_BYTES = 32 << 10,
    SEED = 77
};

/* ---- Tools ---------------------------------------------------------------------------------------------------- */

struct damaged {
    char copy[FIXTURE_PATH_BYTES]; /* of the log's folder, to be damaged */
    char file[FIXTURE_PATH_BYTES * 2];
    struct wal_config config; /* of the copy */
};

static void name_file(struct damaged *damaged, const struct names_segment *segment)
{
    char name[NAMES_SEGMENT_BYTES];
    names_format(segment, name);
    (void)snprintf(damaged->file, sizeof(damaged->file), "%s/%s", damaged->copy, name);
}

static void prepare(struct damaged *damaged, const struct fixture *fixture)
{
    (void)snprintf(damaged->copy, sizeof(damaged->copy), "%.240s/copy", fixture->root);
    damaged->config = (struct wal_config){ .dir = damaged->copy, .segment_bytes = SEGMENT_BYTES };
}

static void put_bytes(
        const struct damaged *damaged, uint64_t offset, const void *data, size_t bytes)
{
    int fd = open(damaged->file, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, bytes, (off_t)offset), bytes);
    (void)close(fd);
}

static void flip_bit(const struct damaged *damaged, uint64_t offset, unsigned bit)
{
    int fd = open(damaged->file, O_RDWR);
    uint8_t byte;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= (uint8_t)(1u << bit);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    (void)close(fd);
}

static int recover(const struct damaged *damaged, struct model *ret_model, struct err *err)
{
    memset(ret_model, 0, sizeof(*ret_model));
    return fixture_recover(&damaged->config, false, ret_model, NULL, err);
}

/* A log of so many synced writes and one more that was not synced. */
struct torn_log {
    struct model *before; /* what the synced writes amount to */
    struct model *after;
    uint64_t start; /* of the last batch */
    uint64_t end;
    struct names_segment segment;
};

static struct wal *write_torn_log(
        const struct fixture *fixture, unsigned synced, struct torn_log *ret)
{
    struct wal_config config = { .dir = fixture->dir, .segment_bytes = SEGMENT_BYTES };
    struct wal *wal = NULL;
    struct script *script = script_new(SEED);
    script->is_plain = true;
    assert_int_equal(wal_create(&config, &fixture_base, &fixture_hard, &wal, NULL), 0);
    for (unsigned i = 0; i < synced; i++) {
        struct wal_write write = script_next(script);
        assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
        assert_int_equal(wal_sync(wal, NULL), 0);
    }
    ret->before = script_model_after(SEED, true, synced);
    ret->start = wal->end;
    struct wal_write write = script_next(script);
    while (write.entry_count < 2) {
        /* Worth tearing. */
        assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
        assert_int_equal(wal_sync(wal, NULL), 0);
        memcpy(ret->before, script->model, sizeof(*ret->before));
        ret->start = wal->end;
        write = script_next(script);
    }
    assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
    ret->end = wal->end;
    ret->after = MOVE(script->model);
    ret->segment = wal_last_segment(wal).name;
    assert_true(ret->start < ret->end);
    (void)script_free(script);
    return wal;
}

static void free_torn_log(struct torn_log *log)
{
    free(log->before);
    free(log->after);
}

/* ---- Torn tails ----------------------------------------------------------------------------------------------- */

enum tear {
    TEAR_CUT,     /* the file ends there */
    TEAR_ZEROS,   /* the rest never came */
    TEAR_GARBAGE, /* something else lies there */
    TEAR_HOLE,    /* eight bytes never came, the rest did */
    TEAR_COUNT,
};

static void tear(const struct damaged *damaged, enum tear how, uint64_t offset, uint64_t end)
{
    static uint8_t bytes[SEGMENT_BYTES];
    size_t left = (size_t)(end - offset);
    switch (how) {
    case TEAR_CUT:
        assert_int_equal(truncate(damaged->file, (off_t)offset), 0);
        break;
    case TEAR_ZEROS:
        memset(bytes, 0, left);
        put_bytes(damaged, offset, bytes, left);
        break;
    case TEAR_GARBAGE:
        memset(bytes, 0xa5, left);
        put_bytes(damaged, offset, bytes, left);
        break;
    case TEAR_HOLE:
        memset(bytes, 0xff, 8);
        put_bytes(damaged, offset, bytes, MIN(left, (size_t)8));
        break;
    case TEAR_COUNT:
        break;
    }
}

static void a_log_torn_at_every_byte_of_its_last_unsynced_batch_loses_only_that(void **state)
{
    const struct fixture *fixture = *state;
    struct damaged damaged;
    struct torn_log log;
    struct model *model = model_new();
    struct err err;
    struct wal *wal = write_torn_log(fixture, 12, &log);

    prepare(&damaged, fixture);
    for (enum tear how = 0; how < TEAR_COUNT; how++) {
        for (uint64_t offset = log.start; offset <= log.end; offset++) {
            fixture_copy_dir(fixture->dir, damaged.copy);
            name_file(&damaged, &log.segment);
            tear(&damaged, how, offset, log.end);
            assert_int_equal(recover(&damaged, model, &err), 0);
            /* The last bytes may be padding, which was zero anyway. */
            bool is_whole = offset == log.end || how == TEAR_ZEROS;
            if (is_whole && model_equal(model, log.after)) {
                continue;
            }
            assert_true(offset < log.end);
            assert_true(model_equal(model, log.before));
        }
    }
    free(model);
    free_torn_log(&log);
    (void)wal_close(wal);
}

static void a_torn_log_goes_on_after_the_cut_and_stays_whole(void **state)
{
    const struct fixture *fixture = *state;
    struct damaged damaged;
    struct torn_log log;
    struct err err;
    struct wal *wal = write_torn_log(fixture, 12, &log);
    prepare(&damaged, fixture);
    for (uint64_t offset = log.start; offset < log.end; offset += 16) {
        fixture_copy_dir(fixture->dir, damaged.copy);
        name_file(&damaged, &log.segment);
        tear(&damaged, TEAR_GARBAGE, offset, log.end);

        struct wal *copy = NULL;
        struct model *model = model_new();
        assert_int_equal(fixture_recover(&damaged.config, true, model, &copy, &err), 0);
        assert_true(wal_torn_bytes(copy) > 0);
        uint8_t data[SCRIPT_DATA_BYTES_MAX];
        struct wal_entry entry = { .index = model->last_index + 1, .term = 9 };
        entry.time_ns = entry.index * 10;
        entry.kind = (uint8_t)(entry.index % 200);
        entry.data = span_of(data, entry_data(entry.index, 9, data));
        struct wal_write write = { .entries = &entry, .entry_count = 1 };
        assert_int_equal(wal_append(copy, &write, 1, &err), 0);
        assert_int_equal(wal_sync(copy, &err), 0);
        model_apply(model, &(struct wal_record){ .kind = WAL_RECORD_ENTRY, .entry = entry });
        (void)wal_close(copy);

        struct model *again = model_new();
        assert_int_equal(recover(&damaged, again, &err), 0);
        assert_true(model_equal(model, again));
        free(model);
        free(again);
    }
    free_torn_log(&log);
    (void)wal_close(wal);
}

/* Two batches are written, neither synced, and of the first one a page never came. */
static void an_unsynced_batch_behind_a_torn_one_does_not_make_it_damage(void **state)
{
    const struct fixture *fixture = *state;
    struct damaged damaged;
    struct torn_log log;
    struct err err;
    struct model *model = model_new();
    struct wal *wal = write_torn_log(fixture, 12, &log);
    struct wal_write write = { .hard = &(struct wal_hard_state){ 50, 1, 0 } };
    assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
    prepare(&damaged, fixture);
    fixture_copy_dir(fixture->dir, damaged.copy);
    name_file(&damaged, &log.segment);
    tear(&damaged, TEAR_HOLE, log.start + 64, log.end);
    assert_int_equal(recover(&damaged, model, &err), 0);
    assert_true(model_equal(model, log.before));

    /* Once it has been synced, and a batch says so, the same is damage. */
    assert_int_equal(wal_sync(wal, NULL), 0);
    assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
    fixture_copy_dir(fixture->dir, damaged.copy);
    tear(&damaged, TEAR_HOLE, log.start + 64, log.end);
    assert_int_equal(recover(&damaged, model, &err), -EBADMSG);
    free(model);
    free_torn_log(&log);
    (void)wal_close(wal);
}

/* ---- Flipped bits --------------------------------------------------------------------------------------------- */

static void a_flipped_bit_before_synced_data_is_refused_with_file_and_offset(void **state)
{
    const struct fixture *fixture = *state;
    struct damaged damaged;
    struct torn_log log;
    struct model *model = model_new();
    struct wal *wal = write_torn_log(fixture, 12, &log);
    char name[NAMES_SEGMENT_BYTES];
    names_format(&log.segment, name);
    prepare(&damaged, fixture);
    for (uint64_t offset = 0; offset < log.start; offset += 5) {
        struct err err = { .code = 0 };
        fixture_copy_dir(fixture->dir, damaged.copy);
        name_file(&damaged, &log.segment);
        flip_bit(&damaged, offset, (unsigned)(offset % 8));
        assert_int_equal(recover(&damaged, model, &err), -EBADMSG);
        assert_non_null(strstr(err.text, name));
        const char *at = strstr(err.text, "offset ");
        assert_non_null(at);
        uint64_t said = strtoull(at + strlen("offset "), NULL, 10);
        assert_true(said <= offset); /* the batch that has it */
    }
    free(model);
    free_torn_log(&log);
    (void)wal_close(wal);
}

static void after_a_clean_close_a_flipped_bit_in_the_last_batch_is_damage_too(void **state)
{
    const struct fixture *fixture = *state;
    struct damaged damaged;
    struct torn_log log;
    struct err err;
    struct model *model = model_new();
    struct wal *wal = write_torn_log(fixture, 3, &log);
    assert_int_equal(wal_sync(wal, NULL), 0);
    (void)wal_close(wal);
    prepare(&damaged, fixture);
    for (uint64_t offset = log.start; offset < log.end; offset++) {
        fixture_copy_dir(fixture->dir, damaged.copy);
        name_file(&damaged, &log.segment);
        flip_bit(&damaged, offset, 0);
        assert_int_equal(recover(&damaged, model, &err), -EBADMSG);
    }
    free(model);
    free_torn_log(&log);
}

static void after_a_restart_a_flipped_bit_in_what_was_rewritten_is_damage(void **state)
{
    const struct fixture *fixture = *state;
    struct wal_config config = { .dir = fixture->dir, .segment_bytes = SEGMENT_BYTES };
    struct damaged damaged;
    struct torn_log log;
    struct err err;
    struct model *model = model_new();
    struct wal *wal = wal_close(write_torn_log(fixture, 3, &log));
    assert_int_equal(fixture_recover(&config, true, model, &wal, &err), 0);
    prepare(&damaged, fixture);
    for (uint64_t offset = log.start; offset < log.end; offset++) {
        fixture_copy_dir(fixture->dir, damaged.copy); /* as a kill would leave it */
        name_file(&damaged, &log.segment);
        flip_bit(&damaged, offset, 3);
        assert_int_equal(recover(&damaged, model, &err), -EBADMSG);
    }
    free(model);
    free_torn_log(&log);
    (void)wal_close(wal);
}

/* As much as can be read of the damaged copy agrees with what was written; or it is refused. */
static void check_never_wrong(
        const struct damaged *damaged, struct model **models, unsigned count, unsigned *refused)
{
    struct err err = { .code = 0 };
    struct model *model = model_new();
    struct wal *wal = NULL;
    int r = fixture_recover(&damaged->config, true, model, &wal, &err);
    bool is_known = r < 0;
    for (unsigned i = 0; !is_known && i < count; i++) {
        if (model_equal(model, models[i])) {
            is_known = true;
            model->base_index =
                    0; /* everything that can be asked for, also what the start did not read */
            for (uint64_t index = 1; index <= model->last_index; index++) {
                model->terms[index] = models[i]->terms[index];
            }
            r = fixture_read_back(wal, model, &err);
        }
    }
    assert_true(is_known);
    assert_true(r == 0 || r == -EBADMSG);
    *refused += r < 0;
    (void)wal_close(wal);
    free(model);
}

static void a_thousand_flipped_bits_anywhere_never_yield_a_wrong_entry(void **state)
{
    enum {
        WRITES = 150,
        FLIPS = 1000
    };
    const struct fixture *fixture = *state;
    struct wal_config config = { .dir = fixture->dir, .segment_bytes = SEGMENT_BYTES };
    struct damaged damaged;
    struct model *models[3];
    struct wal *wal = NULL;
    struct script *script = script_new(SEED);
    script->is_plain = true;
    assert_int_equal(wal_create(&config, &fixture_base, &fixture_hard, &wal, NULL), 0);
    for (unsigned i = 0; i < WRITES; i++) {
        struct wal_write write = script_next(script);
        assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
        assert_int_equal(wal_sync(wal, NULL), 0);
        if (i == WRITES / 2) {
            /* So that a restart begins in the middle. */
            struct wal_base base = fixture_base;
            base.index = 20;
            write = (struct wal_write){ .base = &base };
            assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
        }
    }
    for (unsigned i = 0; i < ARRAY_COUNT(models); i++) {
        models[i] = script_model_after(SEED, true, WRITES - i);
        models[i]->base_index = 20;
    }
    prepare(&damaged, fixture);
    uint64_t random = 88172645463325252;
    unsigned refused = 0;
    for (unsigned i = 0; i < FLIPS; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        const struct segment *segment = &wal->segments[random % wal->segment_count];
        bool is_last = segment == &wal->segments[wal->segment_count - 1];
        uint64_t bytes = is_last ? wal->end : segment->file_bytes;
        fixture_copy_dir(fixture->dir, damaged.copy);
        name_file(&damaged, &segment->name);
        flip_bit(&damaged, (random >> 20) % bytes, (unsigned)(random >> 60) % 8);
        check_never_wrong(&damaged, models, ARRAY_COUNT(models), &refused);
    }
    assert_true(refused > FLIPS / 2);
    for (unsigned i = 0; i < ARRAY_COUNT(models); i++) {
        free(models[i]);
    }
    (void)script_free(script);
    (void)wal_close(wal);
}

/* ---- Whole files ---------------------------------------------------------------------------------------------- */

static void a_torn_tail_in_a_segment_that_has_a_successor_is_damage(void **state)
{
    const struct fixture *fixture = *state;
    struct wal_config config = { .dir = fixture->dir, .segment_bytes = SEGMENT_BYTES };
    struct damaged damaged;
    struct model *model = model_new();
    struct wal *wal = NULL;
    struct script *script = script_new(SEED);
    script->is_plain = true;
    uint64_t end = 0;
    assert_int_equal(wal_create(&config, &fixture_base, &fixture_hard, &wal, NULL), 0);
    while (wal_segment_count(wal) == 1) {
        end = wal->end;
        struct wal_write write = script_next(script);
        assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
    }
    prepare(&damaged, fixture);
    uint64_t offsets[] = { end - 1, end - 30, end / 2, 100, 0 };
    for (size_t i = 0; i < ARRAY_COUNT(offsets); i++) {
        for (enum tear how = TEAR_CUT; how <= TEAR_GARBAGE; how++) {
            struct err err = { .code = 0 };
            fixture_copy_dir(fixture->dir, damaged.copy);
            name_file(&damaged, &wal->segments[0].name);
            tear(&damaged, how, offsets[i] & ~UINT64_C(7), end);
            assert_int_equal(recover(&damaged, model, &err), -EBADMSG);
            assert_non_null(strstr(err.text, "0000000000000000-0000000000000001.wal"));
        }
    }
    free(model);
    (void)script_free(script);
    (void)wal_close(wal);
}

/* A vote that says nothing new is lost at a segment's end: no index, no state betrays it, only the chain. */
static void a_segment_that_lacks_its_last_batch_is_damage_however_little_that_said(void **state)
{
    const struct fixture *fixture = *state;
    struct wal_config config = { .dir = fixture->dir, .segment_bytes = SEGMENT_BYTES };
    struct damaged damaged;
    struct model *model = model_new();
    struct err err = { .code = 0 };
    struct wal *wal = NULL;
    struct script *script = script_new(SEED);
    script->is_plain = true;
    uint64_t start = 0;
    uint64_t end = 0;
    assert_int_equal(wal_create(&config, &fixture_base, &fixture_hard, &wal, NULL), 0);
    while (wal_segment_count(wal) == 1) {
        struct wal_write write = script_next(script);
        struct wal_hard_state hard = wal->hard;
        struct wal_write vote = { .hard = &hard };
        start = wal->end;
        assert_int_equal(wal_append(wal, &vote, 1, NULL), 0);
        end = wal->end;
        assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
    }
    assert_true(start < end); /* it was not the vote that had no room */
    prepare(&damaged, fixture);
    fixture_copy_dir(fixture->dir, damaged.copy);
    name_file(&damaged, &wal->segments[0].name);
    tear(&damaged, TEAR_ZEROS, start, end);
    assert_int_equal(recover(&damaged, model, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "0000000000000000-0000000000000001.wal"));

    /* The same in a segment that is only read when somebody asks for what it holds. */
    struct wal_base base = fixture_base;
    base.index = script->model->last_index;
    struct wal_write write = { .base = &base };
    while (wal_segment_count(wal) < 4) {
        assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
    }
    assert_int_equal(wal_sync(wal, NULL), 0);
    fixture_copy_dir(fixture->dir, damaged.copy);
    tear(&damaged, TEAR_ZEROS, start, end);
    struct wal *copy = NULL;
    memset(model, 0, sizeof(*model));
    assert_int_equal(fixture_recover(&damaged.config, true, model, &copy, &err), 0);
    assert_int_equal(wal_read_entries(copy, 1, 1, SIZE_MAX, NULL, NULL, &err), -EBADMSG);
    (void)wal_close(copy);
    free(model);
    (void)script_free(script);
    (void)wal_close(wal);
}

static void a_batch_that_does_not_continue_the_one_before_is_not_read(void **state)
{
    const struct fixture *fixture = *state;
    struct damaged damaged;
    struct torn_log log;
    struct err err;
    struct model *model = model_new();
    struct wal *wal = write_torn_log(fixture, 3, &log);
    uint8_t stale[RECORD_BATCH_BYTES + RECORD_HARD_STATE_BYTES];
    uint32_t crc = wal->crc ^ 1;
    struct record_batch batch = {
        .crc_before = crc,
        .count = 1,
        .batch_bytes = sizeof(stale),
        .salt = wal_last_segment(wal).salt,
        .offset = wal->end,
        .synced = 0,
    };
    uint8_t *at = record_put_batch(stale, &batch, &crc);
    (void)record_put_hard_state(at, &(struct wal_hard_state){ 99, 99, 99 }, &crc);
    prepare(&damaged, fixture);
    fixture_copy_dir(fixture->dir, damaged.copy);
    name_file(&damaged, &log.segment);
    put_bytes(&damaged, wal->end, stale, sizeof(stale));
    assert_int_equal(recover(&damaged, model, &err), 0);
    assert_true(model_equal(model, log.after));
    free(model);
    free_torn_log(&log);
    (void)wal_close(wal);
}

static void a_segment_of_another_log_is_refused(void **state)
{
    const struct fixture *fixture = *state;
    struct damaged damaged;
    struct torn_log log;
    struct err err;
    struct model *model = model_new();
    (void)wal_close(write_torn_log(fixture, 40, &log));
    prepare(&damaged, fixture);
    fixture_copy_dir(fixture->dir, damaged.copy);
    name_file(&damaged, &log.segment);
    char moved[FIXTURE_PATH_BYTES * 2];
    (void)snprintf(moved, sizeof(moved), "%s/0000000000000009-0000000000000001.wal", damaged.copy);
    assert_int_equal(rename(damaged.file, moved), 0);
    assert_true(recover(&damaged, model, &err) < 0);
    free(model);
    free_torn_log(&log);
}

static void an_empty_or_zeroed_segment_is_refused(void **state)
{
    const struct fixture *fixture = *state;
    struct damaged damaged;
    struct torn_log log;
    struct err err;
    struct model *model = model_new();
    (void)wal_close(write_torn_log(fixture, 4, &log));
    prepare(&damaged, fixture);
    fixture_copy_dir(fixture->dir, damaged.copy);
    name_file(&damaged, &log.segment);
    tear(&damaged, TEAR_ZEROS, 0, SEGMENT_BYTES);
    assert_int_equal(recover(&damaged, model, &err), -EBADMSG);
    tear(&damaged, TEAR_CUT, 0, SEGMENT_BYTES);
    assert_int_equal(recover(&damaged, model, &err), -EBADMSG);
    free(model);
    free_torn_log(&log);
}

/* Everything is right in it but the salt, which nobody outside knows, or its place. */
static void forge_a_batch(void **state, uint64_t salt_error, uint64_t place_error)
{
    const struct fixture *fixture = *state;
    struct wal_config config = { .dir = fixture->dir, .segment_bytes = SEGMENT_BYTES };
    struct damaged damaged;
    struct err err;
    struct wal *wal = NULL;
    struct model *model = model_new();
    assert_int_equal(wal_create(&config, &fixture_base, &fixture_hard, &wal, NULL), 0);
    uint64_t start = wal->end;
    uint64_t place = start + RECORD_BATCH_BYTES + RECORD_ENTRY_BYTES;
    uint8_t forged[RECORD_BATCH_BYTES];
    struct record_batch batch = {
        .batch_bytes = sizeof(forged),
        .salt = wal_last_segment(wal).salt ^ salt_error,
        .offset = place + place_error,
        .synced = place,
    };
    uint32_t crc = 0;
    (void)record_put_batch(forged, &batch, &crc);
    struct wal_entry entry = { .index = 1, .term = 1, .data = span_of(forged, sizeof(forged)) };
    struct wal_write write = { .entries = &entry, .entry_count = 1 };
    assert_int_equal(wal_append(wal, &write, 1, NULL), 0);

    prepare(&damaged, fixture);
    fixture_copy_dir(fixture->dir, damaged.copy);
    struct segment last = wal_last_segment(wal);
    name_file(&damaged, &last.name);
    flip_bit(&damaged, start + 3, 0);
    assert_int_equal(recover(&damaged, model, &err), 0); /* a torn tail, not damage */
    assert_int_equal(model->last_index, 0);
    free(model);
    (void)wal_close(wal);
    fixture_remove(fixture->dir);
}

static void a_value_that_looks_like_a_batch_is_not_taken_for_one(void **state)
{
    forge_a_batch(state, 1, 0);
    forge_a_batch(state, 0, 8);
}

/* ---- The rewrite at a restart --------------------------------------------------------------------------------- */

static void crash_at_every_step_of_the_rewrite(
        const struct fixture *fixture, off_t allocate_bytes_max)
{
    struct damaged damaged;
    struct torn_log log;
    struct err err;
    (void)wal_close(write_torn_log(fixture, 12, &log));
    prepare(&damaged, fixture);
    unsigned steps = 0;
    for (bool has_fired = true; has_fired; steps++) {
        struct fault fault;
        struct model *model = model_new();
        fault_init(&fault);
        fault.is_dead_after = true;
        fault.allocate_bytes_max = allocate_bytes_max;
        fault_arm(&fault, steps + 1, EIO);
        fixture_copy_dir(fixture->dir, damaged.copy);
        struct wal_config config = damaged.config;
        config.io = &fault.io;
        int r = fixture_recover(&config, true, model, NULL, &err);
        has_fired = fault.has_fired;
        assert_int_equal(r < 0, has_fired);

        /* The files lie as the crash left them; twice, as the second start may crash as well. */
        for (int again = 0; again < 2; again++) {
            memset(model, 0, sizeof(*model));
            assert_int_equal(fixture_recover(&damaged.config, true, model, NULL, &err), 0);
            assert_true(model_equal(model, log.after));
        }
        free(model);
    }
    assert_true(steps > 5);
    free_torn_log(&log);
}

static void a_crash_at_every_step_of_the_rewrite_changes_nothing(void **state)
{
    crash_at_every_step_of_the_rewrite(*state, 0);
}

static void a_crash_at_every_step_of_a_rewrite_in_place_changes_nothing(void **state)
{
    crash_at_every_step_of_the_rewrite(*state, 1);
}

static void a_torn_log_on_a_disk_without_any_space_opens_and_takes_votes(void **state)
{
    const struct fixture *fixture = *state;
    struct damaged damaged;
    struct torn_log log;
    struct fault fault;
    struct err err;
    struct wal *copy = NULL;
    struct model *model = model_new();
    struct wal *wal = write_torn_log(fixture, 12, &log);
    prepare(&damaged, fixture);
    fixture_copy_dir(fixture->dir, damaged.copy);
    name_file(&damaged, &log.segment);
    tear(&damaged, TEAR_GARBAGE, log.start + 8, log.end);
    fault_init(&fault);
    fault.is_disk_full = true;
    struct wal_config config = damaged.config;
    config.io = &fault.io;
    assert_int_equal(fixture_recover(&config, true, model, &copy, &err), 0);
    assert_true(model_equal(model, log.before));
    struct wal_write vote = { .hard = &(struct wal_hard_state){ 70, 1, 0 } };
    assert_int_equal(wal_append(copy, &vote, 1, &err), 0);
    assert_int_equal(wal_sync(copy, &err), 0);
    (void)wal_close(copy);
    assert_int_equal(recover(&damaged, model, &err), 0);
    assert_int_equal(model->hard.term, 70);
    assert_int_equal(model->last_index, log.before->last_index);
    free(model);
    free_torn_log(&log);
    (void)wal_close(wal);
}

static void leftovers_of_an_unfinished_start_are_removed(void **state)
{
    const struct fixture *fixture = *state;
    struct damaged damaged;
    struct torn_log log;
    struct err err;
    struct model *model = model_new();
    (void)wal_close(write_torn_log(fixture, 12, &log));
    prepare(&damaged, fixture);
    fixture_copy_dir(fixture->dir, damaged.copy);
    const char *names[] = { NAMES_SPARE, NAMES_REWRITE };
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        (void)snprintf(damaged.file, sizeof(damaged.file), "%s/%s", damaged.copy, names[i]);
        (void)close(open(damaged.file, O_CREAT | O_WRONLY, 0600));
        put_bytes(&damaged, 0, "half of something", 17);
    }
    assert_int_equal(fixture_recover(&damaged.config, true, model, NULL, &err), 0);
    assert_true(model_equal(model, log.after));
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        (void)snprintf(damaged.file, sizeof(damaged.file), "%s/%s", damaged.copy, names[i]);
        assert_int_equal(access(damaged.file, F_OK), -1);
    }
    free(model);
    free_torn_log(&log);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_log_torn_at_every_byte_of_its_last_unsynced_batch_loses_only_that),
        TEST(a_torn_log_goes_on_after_the_cut_and_stays_whole),
        TEST(an_unsynced_batch_behind_a_torn_one_does_not_make_it_damage),
        TEST(a_flipped_bit_before_synced_data_is_refused_with_file_and_offset),
        TEST(after_a_clean_close_a_flipped_bit_in_the_last_batch_is_damage_too),
        TEST(after_a_restart_a_flipped_bit_in_what_was_rewritten_is_damage),
        TEST(a_thousand_flipped_bits_anywhere_never_yield_a_wrong_entry),
        TEST(a_torn_tail_in_a_segment_that_has_a_successor_is_damage),
        TEST(a_segment_that_lacks_its_last_batch_is_damage_however_little_that_said),
        TEST(a_batch_that_does_not_continue_the_one_before_is_not_read),
        TEST(a_segment_of_another_log_is_refused),
        TEST(an_empty_or_zeroed_segment_is_refused),
        TEST(a_value_that_looks_like_a_batch_is_not_taken_for_one),
        TEST(a_crash_at_every_step_of_the_rewrite_changes_nothing),
        TEST(a_crash_at_every_step_of_a_rewrite_in_place_changes_nothing),
        TEST(a_torn_log_on_a_disk_without_any_space_opens_and_takes_votes),
        TEST(leftovers_of_an_unfinished_start_are_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
