#include "tests/unit/wal/wal_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SEGMENT_BYTES = 32 << 10,
    MANY = 400
};

static struct wal_config config_of(const struct fixture *fixture)
{
    return (struct wal_config){ .dir = fixture->dir, .segment_bytes = SEGMENT_BYTES };
}

static struct wal *create(const struct wal_config *config)
{
    struct wal *wal = NULL;
    struct err err = { .code = 0 };
    assert_int_equal(wal_create(config, &fixture_base, &fixture_hard, &wal, &err), 0);
    return wal;
}

static void append_script(struct wal *wal, struct script *script, unsigned write_count)
{
    struct err err = { .code = 0 };
    for (unsigned i = 0; i < write_count; i++) {
        struct wal_write write = script_next(script);
        assert_int_equal(wal_append(wal, &write, 1, &err), 0);
        if (i % 3 == 0) {
            assert_int_equal(wal_sync(wal, &err), 0);
        }
    }
    assert_int_equal(wal_sync(wal, &err), 0);
}

static struct wal *reopen(const struct wal_config *config, const struct model *expected)
{
    struct wal *wal = NULL;
    struct err err = { .code = 0 };
    struct model *model = model_new();
    int r = fixture_recover(config, true, model, &wal, &err);
    if (r < 0) {
        print_error("%s\n", err.text);
    }
    assert_int_equal(r, 0);
    assert_true(model_equal(model, expected));
    free(model);
    return wal;
}

/* ---- Round trips ---------------------------------------------------------------------------------------------- */

static void a_new_log_reads_back_its_base_and_hard_state(void **state)
{
    struct wal_config config = config_of(*state);
    struct wal_base base = fixture_base;
    base.index = 41;
    base.term = 3;
    base.cluster_time_ns = 99;
    struct wal_hard_state hard = { 5, 7, 41 };
    struct wal *wal = NULL;
    struct wal_record record;
    struct err err;

    assert_int_equal(wal_exists(config.dir, &err), 0);
    assert_int_equal(wal_create(&config, &base, &hard, &wal, &err), 0);
    assert_int_equal(wal_last_index(wal), 41);
    assert_int_equal(wal_first_index(wal), 42);
    (void)wal_close(wal);
    assert_int_equal(wal_exists(config.dir, &err), 1);
    assert_int_equal(wal_create(&config, &base, &hard, &wal, &err), -EEXIST);

    assert_int_equal(wal_open(&config, &wal, &err), 0);
    assert_int_equal(wal_read(wal, &record, &err), 1);
    assert_int_equal(record.kind, WAL_RECORD_BASE);
    assert_int_equal(record.base.index, 41);
    assert_int_equal(record.base.term, 3);
    assert_int_equal(record.base.cluster_time_ns, 99);
    assert_int_equal(record.base.cluster_id, fixture_base.cluster_id);
    assert_int_equal(record.base.member_id, fixture_base.member_id);
    assert_true(span_eq(record.base.configuration, fixture_base.configuration));
    assert_int_equal(wal_read(wal, &record, &err), 1);
    assert_int_equal(record.kind, WAL_RECORD_HARD_STATE);
    assert_int_equal(record.hard.term, 5);
    assert_int_equal(record.hard.vote, 7);
    assert_int_equal(record.hard.commit, 41);
    assert_int_equal(wal_read(wal, &record, &err), 0);
    (void)wal_close(wal);
}

static void whatever_was_written_reads_back_in_many_lives(void **state)
{
    struct wal_config config = config_of(*state);
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct script *script = script_new(seed);
        struct wal *wal = create(&config);
        for (unsigned life = 0; life < 6; life++) {
            append_script(wal, script, 60);
            assert_int_equal(fixture_read_back(wal, script->model, NULL), 0);
            assert_int_equal(wal_last_index(wal), script->model->last_index);
            (void)wal_close(wal);
            wal = reopen(&config, script->model);
            assert_int_equal(wal_torn_bytes(wal), 0);
            assert_int_equal(fixture_read_back(wal, script->model, NULL), 0);
        }
        assert_true(wal_segment_count(wal) > 1);
        (void)wal_close(wal);
        (void)script_free(script);
        fixture_remove(config.dir);
    }
}

static void several_writes_go_into_one_batch_and_one_call(void **state)
{
    struct wal_config config = config_of(*state);
    struct fault fault;
    fault_init(&fault);
    config.io = &fault.io;
    struct wal *wal = create(&config);
    struct wal_entry entry = { .index = 1, .term = 1, .time_ns = 10, .kind = 1 };
    struct wal_hard_state hard = { 2, 0, 0 };
    uint8_t data[SCRIPT_DATA_BYTES_MAX];
    entry.data = span_of(data, entry_data(1, 1, data));
    struct wal_write writes[] = {
        { .entries = &entry, .entry_count = 1 },
        { .hard = &hard },
        { .has_cut = true, .cut_index = 0, .entries = &entry, .entry_count = 1 },
    };
    /* The first batch writes ahead, too. */
    assert_int_equal(wal_append(wal, writes, 1, NULL), 0);
    writes[0] = (struct wal_write){ .hard = &hard };
    fault.write_count = fault.sync_count = 0;
    assert_int_equal(wal_append(wal, writes, 3, NULL), 0);
    assert_int_equal(wal_sync(wal, NULL), 0);
    assert_int_equal(fault.write_count, 1);
    assert_int_equal(fault.sync_count, 1);
    assert_int_equal(wal_sync(wal, NULL), 0);
    assert_int_equal(fault.sync_count, 1);
    (void)wal_close(wal);
}

static void a_batch_larger_than_a_segment_gets_a_larger_one(void **state)
{
    struct wal_config config = config_of(*state);
    struct wal *wal = create(&config);
    enum {
        COUNT = 50,
        BYTES = 3000
    };
    struct wal_entry entries[COUNT];
    uint8_t data[BYTES] = { 1, 2, 3 };
    for (size_t i = 0; i < COUNT; i++) {
        entries[i] = (struct wal_entry){ .index = i + 1, .term = 1, .data = span_of(data, BYTES) };
    }
    struct wal_write write = { .entries = entries, .entry_count = COUNT };
    assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
    assert_int_equal(wal_sync(wal, NULL), 0);
    (void)wal_close(wal);

    struct wal_record record;
    size_t count = 0;
    assert_int_equal(wal_open(&config, &wal, NULL), 0);
    while (wal_read(wal, &record, NULL) > 0) {
        if (record.kind == WAL_RECORD_ENTRY) {
            assert_true(span_eq(record.entry.data, span_of(data, BYTES)));
            count++;
        }
    }
    assert_int_equal(count, COUNT);
    (void)wal_close(wal);
}

/* ---- Segments ------------------------------------------------------------------------------------------------- */

static void a_restart_reads_only_what_lies_behind_the_base(void **state)
{
    struct wal_config config = config_of(*state);
    struct script *script = script_new(5);
    script->is_plain = true;
    struct wal *wal = create(&config);
    append_script(wal, script, MANY);

    struct wal_base base = fixture_base;
    base.index = script->model->last_index - 5;
    base.term = script->model->hard.term;
    struct wal_write write = { .base = &base };
    assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
    assert_int_equal(wal_sync(wal, NULL), 0);
    script->model->base_index = base.index;
    script->model->base_term = base.term;
    append_script(wal, script, MANY / 2); /* a head with this base */
    size_t segment_count = wal_segment_count(wal);
    (void)wal_close(wal);

    assert_int_equal(wal_open(&config, &wal, NULL), 0);
    struct wal_record record;
    uint64_t first_read = UINT64_MAX;
    while (wal_read(wal, &record, NULL) > 0) {
        if (record.kind == WAL_RECORD_ENTRY) {
            first_read = MIN(first_read, record.entry.index);
        }
    }
    assert_true(first_read > 1);
    assert_true(first_read <= base.index + 1);
    assert_int_equal(wal_start_append(wal, NULL), 0);
    assert_int_equal(wal_segment_count(wal), segment_count);

    /* What was not read then is found when somebody asks. */
    script->model->base_index = 0;
    assert_int_equal(fixture_read_back(wal, script->model, NULL), 0);
    assert_int_equal(wal_first_index(wal), 1);
    (void)wal_close(wal);
    (void)script_free(script);
}

static void older_segments_are_found_again_past_cuts(void **state)
{
    struct wal_config config = config_of(*state);
    for (uint64_t seed = 20; seed < 26; seed++) {
        struct script *script = script_new(seed);
        struct wal *wal = create(&config);
        append_script(wal, script, MANY);
        (void)wal_close(wal);
        wal = reopen(&config, script->model);
        /* All scanned entries are compared with what the script last had at that index. */
        uint64_t from = wal_first_index(wal);
        struct model *model = script->model;
        uint64_t base_index = model->base_index;
        struct err err;
        while (from <= base_index) {
            model->base_index = from - 1;
            int r = fixture_read_back(wal, model, &err);
            if (r == 0) {
                break;
            }
            assert_int_equal(r, -ENOENT); /* void since a reset */
            from++;
        }
        (void)wal_close(wal);
        (void)script_free(script);
        fixture_remove(config.dir);
    }
}

static void purging_removes_whole_segments_oldest_first_and_never_what_the_base_needs(void **state)
{
    struct wal_config config = config_of(*state);
    struct script *script = script_new(7);
    script->is_plain = true;
    struct wal *wal = create(&config);
    append_script(wal, script, MANY);
    uint64_t last_index = script->model->last_index;
    size_t segment_count = wal_segment_count(wal);
    assert_true(segment_count > 4);

    assert_int_equal(wal_purge_before(wal, UINT64_MAX, NULL), 0); /* the base is at 0 */
    struct wal_base base = fixture_base;
    base.index = last_index / 2;
    base.term = 1;
    struct wal_write write = { .base = &base };
    assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
    assert_int_equal(wal_purge_before(wal, UINT64_MAX, NULL), 0); /* not synced yet */
    assert_int_equal(wal_sync(wal, NULL), 0);
    assert_int_equal(wal_purge_before(wal, 2, NULL), 0); /* the first segment has more than that */
    int purged = wal_purge_before(wal, UINT64_MAX, NULL);
    assert_true(purged > 0);
    assert_int_equal(wal_segment_count(wal), segment_count - (size_t)purged);
    assert_true(wal_first_index(wal) > 1);
    assert_true(wal_first_index(wal) <= base.index + 1);

    script->model->base_index = base.index;
    script->model->base_term = base.term;
    assert_int_equal(fixture_read_back(wal, script->model, NULL), 0);
    assert_int_equal(wal_read_entries(wal, 1, 5, 100, NULL, NULL, NULL), -ENOENT);
    (void)wal_close(wal);
    wal = reopen(&config, script->model);
    assert_int_equal(fixture_read_back(wal, script->model, NULL), 0);
    (void)wal_close(wal);
    (void)script_free(script);
}

static void a_gap_in_the_sequence_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct wal_config config = config_of(fixture);
    struct script *script = script_new(8);
    script->is_plain = true;
    struct wal *wal = create(&config);
    append_script(wal, script, MANY);
    assert_true(wal_segment_count(wal) > 3);
    struct names_segment first = wal->segments[0].name;
    struct names_segment second = wal->segments[1].name;
    (void)wal_close(wal);

    char name[NAMES_SEGMENT_BYTES];
    char path[FIXTURE_PATH_BYTES * 2];
    names_format(&second, name);
    (void)snprintf(path, sizeof(path), "%s/%s", fixture->dir, name);
    assert_int_equal(unlink(path), 0);
    struct err err;
    assert_int_equal(wal_open(&config, &wal, &err), -ENODATA);
    assert_non_null(strstr(err.text, "missing"));

    /* Nor may the first ones be missing, which the base needs. */
    names_format(&first, name);
    (void)snprintf(path, sizeof(path), "%s/%s", fixture->dir, name);
    assert_int_equal(unlink(path), 0);
    struct wal_record record;
    int r = wal_open(&config, &wal, &err);
    while (r >= 0 && (r = wal_read(wal, &record, &err)) > 0) {
    }
    assert_int_equal(r, -ENODATA);
    assert_non_null(strstr(err.text, "needed"));
    (void)wal_close(wal);
    (void)script_free(script);
}

static void names_that_are_not_ours_are_left_alone(void **state)
{
    struct fixture *fixture = *state;
    struct wal_config config = config_of(fixture);
    struct script *script = script_new(9);
    struct wal *wal = create(&config);
    append_script(wal, script, 10);
    (void)wal_close(wal);
    const char *names[] = { "notes.txt", "0000000000000000-0000000000000000.wal.broken",
        "0000000000000007-00000000000000ZZ.wal" };
    char path[FIXTURE_PATH_BYTES * 2];
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", fixture->dir, names[i]);
        (void)close(open(path, O_CREAT | O_WRONLY, 0600));
    }
    (void)wal_close(reopen(&config, script->model));
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", fixture->dir, names[i]);
        assert_int_equal(access(path, F_OK), 0);
    }
    (void)script_free(script);
}

/* ---- Reading back --------------------------------------------------------------------------------------------- */

static int count_entries(void *user, const struct wal_entry *entry)
{
    assert_true(entry_is_right(entry));
    ++*(int *)user;
    return 0;
}

static int stop_at_third(void *user, const struct wal_entry *entry UNUSED)
{
    return ++*(int *)user == 3;
}

static int give_up(void *user UNUSED, const struct wal_entry *entry UNUSED)
{
    return -ECANCELED;
}

static void reading_back_keeps_its_bounds(void **state)
{
    struct wal_config config = config_of(*state);
    struct script *script = script_new(11);
    script->is_plain = true;
    struct wal *wal = create(&config);
    append_script(wal, script, MANY);
    uint64_t last = script->model->last_index;
    int seen = 0;
    assert_int_equal(wal_read_entries(wal, 5, 9, SIZE_MAX, count_entries, &seen, NULL), 5);
    assert_int_equal(seen, 5);
    assert_int_equal(wal_read_entries(wal, 5, 500, 1, count_entries, &seen, NULL), 1);
    assert_int_equal(wal_read_entries(wal, last, UINT64_MAX, 1, count_entries, &seen, NULL), 1);
    assert_int_equal(wal_read_entries(wal, last + 1, UINT64_MAX, 1, count_entries, &seen, NULL), 0);
    assert_int_equal(wal_read_entries(wal, 9, 8, 1, count_entries, &seen, NULL), 0);
    assert_int_equal(wal_read_entries(wal, 0, 8, 1, count_entries, &seen, NULL), -ENOENT);
    assert_int_equal(
            wal_read_entries(wal, 1, UINT64_MAX, SIZE_MAX, count_entries, &seen, NULL), last);
    seen = 0;
    assert_int_equal(wal_read_entries(wal, 2, UINT64_MAX, SIZE_MAX, stop_at_third, &seen, NULL), 3);
    assert_int_equal(
            wal_read_entries(wal, 2, UINT64_MAX, SIZE_MAX, give_up, NULL, NULL), -ECANCELED);
    (void)wal_close(wal);
    (void)script_free(script);
}

static void what_lies_before_an_installed_snapshot_is_void(void **state)
{
    struct wal_config config = config_of(*state);
    struct script *script = script_new(13);
    script->is_plain = true;
    struct wal *wal = create(&config);
    append_script(wal, script, 100);
    uint64_t voided = script->model->last_index;
    assert_true(wal_segment_count(wal) > 1);
    struct wal_base base = fixture_base;
    base.reset = true;
    base.index = voided + 10;
    base.term = script->model->hard.term;
    struct wal_write write = { .base = &base };
    assert_int_equal(wal_append(wal, &write, 1, NULL), 0);
    model_apply(script->model, &(struct wal_record){ .kind = WAL_RECORD_BASE, .base = base });
    for (int life = 0; life < 2; life++) {
        append_script(wal, script, 100); /* and more segments */
        int seen = 0;
        assert_int_equal(wal_first_index(wal), base.index + 1);
        for (uint64_t index = 1; index <= base.index; index++) {
            assert_int_equal(
                    wal_read_entries(wal, index, index, 1, count_entries, &seen, NULL), -ENOENT);
        }
        assert_int_equal(fixture_read_back(wal, script->model, NULL), 0);
        (void)wal_close(wal);
        wal = reopen(&config, script->model);
    }
    (void)wal_close(wal);
    (void)script_free(script);
}

static int expect_term(void *user, const struct wal_entry *entry)
{
    assert_int_equal(entry->term, *(const uint64_t *)user);
    return 0;
}

static void a_cut_within_a_batch_voids_what_lies_before_it_there(void **state)
{
    struct wal_config config = config_of(*state);
    struct wal *wal = create(&config);
    struct wal_entry old[] = { { .index = 1, .term = 1 }, { .index = 2, .term = 1 },
        { .index = 3, .term = 1 } };
    struct wal_entry new[] = { { .index = 2, .term = 2 }, { .index = 3, .term = 2 } };
    struct wal_write writes[] = {
        { .entries = old, .entry_count = ARRAY_COUNT(old) },
        { .has_cut = true, .cut_index = 1, .entries = new, .entry_count = ARRAY_COUNT(new) },
    };
    assert_int_equal(wal_append(wal, writes, ARRAY_COUNT(writes), NULL), 0);
    uint64_t term = 2;
    assert_int_equal(wal_read_entries(wal, 2, 3, SIZE_MAX, expect_term, &term, NULL), 2);
    assert_int_equal(wal_read_entries(wal, 3, 3, SIZE_MAX, expect_term, &term, NULL), 1);
    term = 1;
    assert_int_equal(wal_read_entries(wal, 1, 1, SIZE_MAX, expect_term, &term, NULL), 1);
    (void)wal_close(wal);
}

/* ---- Locks and modes ------------------------------------------------------------------------------------------ */

static void a_second_process_is_refused_and_told_who_holds_the_lock(void **state)
{
    struct fixture *fixture = *state;
    struct wal_config config = config_of(fixture);
    struct wal *wal = create(&config);
    struct wal *second = NULL;
    struct err err = { .code = 0 };
    char pid[32];
    (void)snprintf(pid, sizeof(pid), "%ld", (long)getpid());
    assert_int_equal(wal_open(&config, &second, &err), -EWOULDBLOCK);
    assert_non_null(strstr(err.text, pid));
    assert_non_null(strstr(err.text, fixture->dir));
    (void)wal_close(wal);
    assert_int_equal(wal_open(&config, &second, &err), 0);
    (void)wal_close(second);
}

static void a_start_that_finds_no_log_leaves_nothing_behind(void **state)
{
    struct fixture *fixture = *state;
    struct wal_config config = config_of(fixture);
    struct wal *wal = NULL;
    struct fault fault;
    fault_init(&fault);
    assert_int_equal(wal_open(&config, &wal, NULL), -ENOENT);
    assert_int_equal(access(fixture->dir, F_OK), -1);
    config.io = &fault.io;
    fault.is_disk_full = true;
    assert_int_equal(wal_create(&config, &fixture_base, &fixture_hard, &wal, NULL), -ENOSPC);
    assert_int_equal(access(fixture->dir, F_OK), -1);
}

/* A child that does the wrong thing dies by the broken promise. */
static void expect_abort(void (*misuse)(struct wal *), struct wal *wal)
{
    pid_t child = fork();
    if (child == 0) {
        (void)close(STDERR_FILENO);
        misuse(wal);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
}

static void misuse_append(struct wal *wal)
{
    struct wal_write write = { .hard = &fixture_hard };
    (void)wal_append(wal, &write, 1, NULL);
}

static void misuse_start(struct wal *wal)
{
    (void)wal_start_append(wal, NULL);
}

static void misuse_read(struct wal *wal)
{
    struct wal_record record;
    (void)wal_read(wal, &record, NULL);
}

static void misuse_gap(struct wal *wal)
{
    struct wal_entry entry = { .index = wal_last_index(wal) + 2, .term = 1 };
    struct wal_write write = { .entries = &entry, .entry_count = 1 };
    (void)wal_append(wal, &write, 1, NULL);
}

static void reading_and_appending_exclude_each_other(void **state)
{
    struct wal_config config = config_of(*state);
    struct wal *wal = create(&config);
    struct wal_record record;
    expect_abort(misuse_read, wal);
    expect_abort(misuse_start, wal);
    expect_abort(misuse_gap, wal);
    (void)wal_close(wal);

    assert_int_equal(wal_open(&config, &wal, NULL), 0);
    expect_abort(misuse_append, wal);
    expect_abort(misuse_start, wal); /* records are left */
    while (wal_read(wal, &record, NULL) > 0) {
    }
    expect_abort(misuse_append, wal);
    assert_int_equal(wal_start_append(wal, NULL), 0);
    misuse_append(wal);
    (void)wal_close(wal);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_new_log_reads_back_its_base_and_hard_state),
        TEST(whatever_was_written_reads_back_in_many_lives),
        TEST(several_writes_go_into_one_batch_and_one_call),
        TEST(a_batch_larger_than_a_segment_gets_a_larger_one),
        TEST(a_restart_reads_only_what_lies_behind_the_base),
        TEST(older_segments_are_found_again_past_cuts),
        TEST(purging_removes_whole_segments_oldest_first_and_never_what_the_base_needs),
        TEST(a_gap_in_the_sequence_is_refused),
        TEST(names_that_are_not_ours_are_left_alone),
        TEST(reading_back_keeps_its_bounds),
        TEST(what_lies_before_an_installed_snapshot_is_void),
        TEST(a_cut_within_a_batch_voids_what_lies_before_it_there),
        TEST(a_second_process_is_refused_and_told_who_holds_the_lock),
        TEST(a_start_that_finds_no_log_leaves_nothing_behind),
        TEST(reading_and_appending_exclude_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
