/* test_wal_front.c: a log whose oldest segments are gone, base and all that is behind it. It begins behind the oldest recorded
 * snapshot whose entries are still there; without one it is refused, and says where it begins and what it would need. */
#include "tests/unit/wal/wal_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum {
    SEGMENT_BYTES = 16 << 10,
    SNAPSHOTS_MAX = 64,
    WRITES = 400,
    KEPT = 4,
};

struct taken {
    uint64_t index;
    uint64_t term;
    char configuration[32];
};

struct front {
    struct fixture *fixture;
    struct wal_config config;
    struct wal_config copy; /* where segments are removed */
    struct script *script;
    struct wal *wal;
    struct taken taken[SNAPSHOTS_MAX]; /* since the last reset */
    size_t taken_count;
    char copy_dir[FIXTURE_PATH_BYTES + 8];
};

/* ---- Writing -------------------------------------------------------------------------------------------------- */

static void put(struct front *f, const struct wal_write *write)
{
    struct err err = { 0 };
    if (wal_append(f->wal, write, 1, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(wal_sync(f->wal, NULL), 0);
}

static struct wal_base base_at(const struct taken *taken)
{
    struct wal_base base = fixture_base;
    base.index = taken->index;
    base.term = taken->term;
    base.cluster_time_ns = taken->index * 10;
    base.configuration = span_str(taken->configuration);
    return base;
}

/* A snapshot of all that is committed; now and then the base follows, a few snapshots behind. */
static void put_snapshot(struct front *f, bool is_base, bool moves)
{
    struct model *model = f->script->model;
    struct taken *taken = &f->taken[f->taken_count];
    if (f->taken_count == SNAPSHOTS_MAX || model->hard.commit <= model->snapshot.index) {
        return;
    }
    *taken =
            (struct taken){ .index = model->hard.commit, .term = model->terms[model->hard.commit] };
    (void)snprintf(
            taken->configuration, sizeof(taken->configuration), "voters at %" PRIu64, taken->index);
    struct wal_snapshot snapshot = { .index = taken->index, .term = taken->term };
    if (is_base) {
        snapshot.is_base = true;
        snapshot.cluster_time_ns = taken->index * 10;
        snapshot.configuration = span_str(taken->configuration);
        f->taken_count++;
    }
    struct wal_write write = { .snapshot = &snapshot };
    struct wal_base base;
    if (moves && f->taken_count > KEPT) {
        base = base_at(&f->taken[f->taken_count - 1 - KEPT]);
        if (base.index > model->base_index) {
            write.base = &base;
            model_apply(model, &(struct wal_record){ .kind = WAL_RECORD_BASE, .base = base });
        }
    }
    put(f, &write);
    model->snapshot = snapshot;
}

/* A new leader's log goes another way from here. */
static void put_cut(struct front *f, uint64_t back)
{
    struct model *model = f->script->model;
    uint64_t floor = MAX(model->hard.commit, model->base_index);
    struct wal_hard_state hard = model->hard;
    hard.term++;
    model->hard = hard;
    model->last_index = MAX(floor, model->last_index - MIN(back, model->last_index));
    put(f, &(struct wal_write){ .hard = &hard, .has_cut = true, .cut_index = model->last_index });
}

/* A snapshot comes from another member; its log may have been longer than that reaches. */
static void put_reset(struct front *f, uint64_t index)
{
    struct model *model = f->script->model;
    struct wal_base base = fixture_base;
    struct wal_hard_state hard = model->hard;
    base.reset = true;
    base.index = index;
    base.term = hard.term;
    hard.commit = index;
    struct wal_snapshot snapshot = { .index = index, .term = hard.term };
    put(f, &(struct wal_write){ .base = &base, .hard = &hard, .snapshot = &snapshot });
    model_apply(model, &(struct wal_record){ .kind = WAL_RECORD_BASE, .base = base });
    model->hard = hard;
    model->snapshot = snapshot;
    f->taken_count = 0;
}

static void put_many(struct front *f, unsigned writes, bool with_trouble)
{
    for (unsigned i = 0; i < writes; i++) {
        struct wal_write write = script_next(f->script);
        put(f, &write);
        if (with_trouble && i % 23 == 11) {
            put_cut(f, 1 + i % 31);
        }
        if (i % 20 == 19) {
            put_snapshot(f, true, i % 40 == 19);
        }
    }
}

static int front_setup(void **state)
{
    struct front *f = xcalloc(1, sizeof(*f));
    struct fixture *fixture = NULL;
    assert_int_equal(fixture_setup((void **)&fixture), 0);
    f->fixture = fixture;
    f->config = (struct wal_config){ .dir = fixture->dir, .segment_bytes = SEGMENT_BYTES };
    (void)snprintf(f->copy_dir, sizeof(f->copy_dir), "%s/copy", fixture->root);
    f->copy = f->config;
    f->copy.dir = f->copy_dir;
    f->script = script_new(5);
    f->script->is_plain = true;
    assert_int_equal(wal_create(&f->config, &fixture_base, &fixture_hard, &f->wal, NULL), 0);
    *state = f;
    return 0;
}

static int front_teardown(void **state)
{
    struct front *f = *state;
    *state = f->fixture;
    (void)wal_close(f->wal);
    (void)script_free(f->script);
    free(f);
    return fixture_teardown(state);
}

/* ---- Taking away ---------------------------------------------------------------------------------------------- */

/* The segment that the entry behind index lies in, and with it all live ones behind that. */
static size_t segment_behind(const struct front *f, uint64_t index)
{
    size_t found = 0;
    for (size_t i = 0; i < f->wal->segment_count; i++) {
        if (f->wal->segments[i].name.first_index <= index + 1) {
            found = i;
        }
    }
    return found;
}

static void copy_without(struct front *f, size_t segments)
{
    fixture_copy_dir(f->config.dir, f->copy.dir);
    for (size_t i = 0; i < segments; i++) {
        char name[NAMES_SEGMENT_BYTES];
        char path[FIXTURE_PATH_BYTES * 2];
        names_format(&f->wal->segments[i].name, name);
        (void)snprintf(path, sizeof(path), "%s/%s", f->copy.dir, name);
        assert_int_equal(unlink(path), 0);
    }
}

static const struct taken *find_taken(const struct front *f, uint64_t index)
{
    for (size_t i = 0; i < f->taken_count; i++) {
        if (f->taken[i].index == index) {
            return &f->taken[i];
        }
    }
    return NULL;
}

/* Reads the copy; the last base it told of in ret_base, its configuration's bytes in ret_configuration. */
static int recover_copy(struct front *f, struct model *model, struct wal_base *ret_base,
        char ret_configuration[32], struct wal **ret_wal, struct err *err)
{
    struct wal *wal = NULL;
    struct wal_record record;
    TRY(wal_open(&f->copy, &wal, err));
    int r;
    while ((r = wal_read(wal, &record, err)) > 0) {
        model_apply(model, &record);
        if (record.kind == WAL_RECORD_BASE) {
            *ret_base = record.base;
            (void)snprintf(ret_configuration, 32, "%.*s", (int)record.base.configuration.bytes,
                    (const char *)record.base.configuration.data);
        }
    }
    r = r == 0 ? wal_start_append(wal, err) : r;
    if (r < 0) {
        (void)wal_close(wal);
        return r;
    }
    *ret_wal = wal;
    return 0;
}

/* What was read is the log as it was, from a base on that is not ahead of index. */
static void assert_whole_behind(
        const struct front *f, struct model *model, const struct wal_base *base, uint64_t index)
{
    struct model *own = f->script->model;
    uint64_t base_index = own->base_index;
    uint64_t base_term = own->base_term;
    assert_true(model->base_index <= MAX(index, base_index));
    assert_int_equal(base->index, model->base_index);
    own->base_index = model->base_index; /* less is compared, from there on */
    own->base_term = model->base_term;
    assert_true(model_equal(own, model));
    own->base_index = base_index;
    own->base_term = base_term;
}

/* Only what holds entries behind the snapshot is left: the log is whole behind it, now, after more writes, and once more. */
static void restart_behind(struct front *f, const struct taken *snapshot)
{
    struct model *model = model_new();
    struct wal_base base;
    char configuration[32];
    struct wal *wal = NULL;
    struct err err = { 0 };

    copy_without(f, segment_behind(f, snapshot->index));
    if (recover_copy(f, model, &base, configuration, &wal, &err) < 0) {
        fail_msg("behind %" PRIu64 ": %s", snapshot->index, err.text);
    }
    assert_whole_behind(f, model, &base, snapshot->index);
    const struct taken *taken = find_taken(f, base.index);
    bool is_made_up = base.index != f->script->model->base_index;
    if (is_made_up) {
        assert_non_null(taken);
        assert_int_equal(base.term, taken->term);
        assert_int_equal(base.cluster_time_ns, base.index * 10);
        assert_int_equal(base.cluster_id, fixture_base.cluster_id);
        assert_int_equal(base.member_id, fixture_base.member_id);
        assert_string_equal(configuration, taken->configuration);
    }
    assert_int_equal(fixture_read_back(wal, model, &err), 0);

    uint8_t data[SCRIPT_DATA_BYTES_MAX];
    size_t segments = wal_segment_count(wal);
    while (wal_segment_count(wal) < segments + 2) {
        uint64_t index = model->last_index + 1;
        struct wal_entry entry = { index, model->hard.term, index * 10, (uint8_t)(index % 200),
            span_of(data, entry_data(index, model->hard.term, data)) };
        struct wal_write write = { .entries = &entry, .entry_count = 1 };
        assert_int_equal(wal_append(wal, &write, 1, &err), 0);
        model_apply(model, &(struct wal_record){ .kind = WAL_RECORD_ENTRY, .entry = entry });
    }
    assert_int_equal(wal_sync(wal, NULL), 0);
    int purged = wal_purge_before(wal, UINT64_MAX, NULL);
    assert_true(!is_made_up || purged == 0); /* no file says so yet */
    (void)wal_close(wal);

    struct model *again = model_new();
    assert_int_equal(recover_copy(f, again, &base, configuration, &wal, &err), 0);
    assert_true(model_equal(model, again));
    struct wal_base moved = base;
    moved.configuration = span_str(configuration);
    assert_int_equal(wal_append(wal, &(struct wal_write){ .base = &moved }, 1, &err), 0);
    assert_int_equal(wal_sync(wal, NULL), 0);
    (void)wal_close(wal);
    memset(again, 0, sizeof(*again));
    assert_int_equal(recover_copy(f, again, &base, configuration, &wal, &err), 0);
    assert_true(model_equal(model, again));
    (void)wal_close(wal);
    free(again);
    free(model);
}

static void restart_behind_each(struct front *f)
{
    size_t older = 0;
    for (size_t i = 0; i < f->taken_count; i++) {
        if (f->taken[i].index >= f->script->model->base_index) {
            restart_behind(f, &f->taken[i]);
            older += f->wal->segments[segment_behind(f, f->taken[i].index)].name.first_index >
                     f->script->model->base_index + 1;
        }
    }
    assert_true(older > 2); /* the base's own segments were really missing */
}

/* ---- Tests ---------------------------------------------------------------------------------------------------- */

static void a_log_begins_behind_any_recorded_snapshot_whose_entries_are_there(void **state)
{
    struct front *f = *state;
    put_many(f, WRITES, false);
    restart_behind_each(f);
}

static void so_it_does_where_tails_were_cut_and_written_anew(void **state)
{
    struct front *f = *state;
    put_many(f, WRITES, true);
    restart_behind_each(f);
}

/* The snapshot from elsewhere ends in the middle of what the segment was begun for. */
static void a_reset_below_its_segment_needs_nothing_before_it(void **state)
{
    struct front *f = *state;
    put_many(f, 40, false);
    uint64_t committed = f->script->model->hard.commit;
    size_t segments = wal_segment_count(f->wal);
    while (wal_segment_count(f->wal) < segments + 2) {
        struct wal_write write = script_next(f->script);
        write.hard = NULL; /* nothing more is committed */
        f->script->model->hard = f->wal->hard;
        put(f, &write);
    }
    assert_true(f->script->model->last_index > committed + 20);
    put_reset(f, committed + 10);
    put_many(f, WRITES, false);
    assert_true(f->script->model->base_index >= committed + 10);
    for (size_t i = 0; i < f->taken_count; i++) {
        restart_behind(f, &f->taken[i]);
    }

    /* All segments but those from the one with the reset on: there the whole rest is. */
    struct model *model = model_new();
    struct wal_base base;
    char configuration[32];
    struct wal *wal = NULL;
    struct err err = { 0 };
    copy_without(f, segments + 1);
    assert_int_equal(recover_copy(f, model, &base, configuration, &wal, &err), 0);
    assert_whole_behind(f, model, &base, 0);
    (void)wal_close(wal);
    free(model);
}

/* With as much of the front gone as there is, until it is too much. */
static void what_lies_behind_no_snapshot_is_refused_with_both_positions(void **state)
{
    struct front *f = *state;
    put_many(f, WRITES, false);
    uint64_t newest = f->taken[f->taken_count - 1].index;
    size_t segments = wal_segment_count(f->wal);
    while (wal_segment_count(f->wal) < segments + 3) {
        struct wal_write write = script_next(f->script);
        put(f, &write);
    }
    for (size_t gone = segment_behind(f, newest) + 1; gone < wal_segment_count(f->wal); gone++) {
        struct model *model = model_new();
        struct wal_base base;
        char configuration[32];
        struct wal *wal = NULL;
        struct err err = { 0 };
        char first[NAMES_SEGMENT_BYTES];
        char needed[64];
        copy_without(f, gone);
        assert_int_equal(recover_copy(f, model, &base, configuration, &wal, &err), -ENODATA);
        names_format(&f->wal->segments[gone].name, first);
        (void)snprintf(
                needed, sizeof(needed), "entries from %" PRIu64 " on are needed", newest + 1);
        assert_non_null(strstr(err.text, first));
        assert_non_null(strstr(err.text, needed));
        free(model);
    }
}

/* Records of an older version name no membership: nothing is made up. */
static void a_snapshot_that_says_nothing_of_members_is_no_beginning(void **state)
{
    struct front *f = *state;
    struct wal_base base;
    char configuration[32];
    struct wal *wal = NULL;
    struct err err = { 0 };
    while (wal_segment_count(f->wal) < 3) {
        struct wal_write write = script_next(f->script);
        put(f, &write);
    }
    put_snapshot(f, false, false);
    assert_true(f->script->model->snapshot.index > f->wal->segments[1].name.first_index);
    struct model *model = model_new();
    copy_without(f, 1);
    assert_int_equal(recover_copy(f, model, &base, configuration, &wal, &err), -ENODATA);
    assert_non_null(strstr(err.text, "entries from 1 on are needed"));
    free(model);
}

/* The record lies in a segment that has no entry behind it: the next one's head repeats it whole. */
static void a_snapshot_of_all_before_a_segment_is_known_by_its_head(void **state)
{
    struct front *f = *state;
    put_many(f, 60, false);
    struct wal_hard_state hard = f->script->model->hard;
    hard.commit = f->script->model->hard.commit = f->script->model->last_index;
    put(f, &(struct wal_write){ .hard = &hard });
    put_snapshot(f, true, false);
    const struct taken *taken = &f->taken[f->taken_count - 1];
    assert_int_equal(taken->index, f->script->model->last_index);
    size_t segments = wal_segment_count(f->wal);
    while (wal_segment_count(f->wal) == segments) {
        put(f, &(struct wal_write){ .hard = &hard });
    }
    assert_int_equal(wal_segment_count(f->wal) - 1, segment_behind(f, taken->index));
    restart_behind(f, taken);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, front_setup, front_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_log_begins_behind_any_recorded_snapshot_whose_entries_are_there),
        TEST(so_it_does_where_tails_were_cut_and_written_anew),
        TEST(a_reset_below_its_segment_needs_nothing_before_it),
        TEST(what_lies_behind_no_snapshot_is_refused_with_both_positions),
        TEST(a_snapshot_that_says_nothing_of_members_is_no_beginning),
        TEST(a_snapshot_of_all_before_a_segment_is_known_by_its_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
