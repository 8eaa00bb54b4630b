/* test_replica.c: batches: what is applied already is passed over, what does not continue is refused, and an error
 * leaves the state as it was. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/stored/machine.h"

static int set_up(void **state)
{
    *state = machine_new();
    return 0;
}

static int tear_down(void **state)
{
    *state = machine_free(*state);
    return 0;
}

enum {
    ENTRIES = 8
};

struct entries {
    struct buf bytes[ENTRIES];
    struct span spans[ENTRIES];
};

/* Entries 1 to ENTRIES of term 1: each sets /k. */
static void make_entries(struct entries *entries)
{
    *entries = (struct entries){ 0 };
    for (unsigned i = 0; i < ENTRIES; i++) {
        struct op op = { .kind = OP_SET, .instance = 7, .counter = i, .path = SPAN_LIT("/k") };
        machine_encode(op, i + 1, 1000, &entries->bytes[i]);
        entries->spans[i] = buf_span(&entries->bytes[i]);
    }
}

static void free_entries(struct entries *entries)
{
    for (unsigned i = 0; i < ENTRIES; i++) {
        buf_fini(&entries->bytes[i]);
    }
}

static struct apply batch_of(struct entries *entries, unsigned first, unsigned count)
{
    return (struct apply){ .prev_index = first - 1,
        .prev_term = first > 1,
        .entries = { &entries->spans[first - 1], count } };
}

static void a_batch_given_twice_is_applied_once(void **state)
{
    struct machine *m = *state;
    struct entries entries;
    struct replica_result result;

    make_entries(&entries);
    struct apply batch = batch_of(&entries, 1, 4);
    assert_int_equal(replica_apply(m->replica, &batch, 1, &result, NULL), 0);
    assert_int_equal(result.applied_count, 4);
    uint64_t txn_id = state_writer_txn_id(replica_writer(m->replica));
    assert_int_equal(replica_apply(m->replica, &batch, 1, &result, NULL), 0);
    assert_int_equal(result.applied_count, 0);
    assert_false(result.refused);
    assert_int_equal(replica_meta(m->replica)->etcd_index, 4);
    assert_int_equal(state_writer_txn_id(replica_writer(m->replica)), txn_id);
    free_entries(&entries);
}

static void a_batch_that_overlaps_is_applied_from_where_it_is_new(void **state)
{
    struct machine *m = *state;
    struct entries entries;
    struct replica_result result;

    make_entries(&entries);
    struct apply first = batch_of(&entries, 1, 4);
    struct apply second = batch_of(&entries, 2, 7);
    assert_int_equal(replica_apply(m->replica, &first, 1, &result, NULL), 0);
    assert_int_equal(replica_apply(m->replica, &second, 1, &result, NULL), 0);
    assert_int_equal(result.applied_count, 4);
    assert_int_equal(replica_meta(m->replica)->applied_index, 8);
    assert_int_equal(replica_meta(m->replica)->etcd_index, 8);
    free_entries(&entries);
}

static void a_batch_that_does_not_continue_is_refused(void **state)
{
    struct machine *m = *state;
    struct entries entries;
    struct replica_result result;

    make_entries(&entries);
    struct apply gap = batch_of(&entries, 3, 2);
    assert_int_equal(replica_apply(m->replica, &gap, 1, &result, NULL), 0);
    assert_true(result.refused);

    struct apply first = batch_of(&entries, 1, 4);
    assert_int_equal(replica_apply(m->replica, &first, 1, &result, NULL), 0);
    struct apply other_term = batch_of(&entries, 5, 2);
    other_term.prev_term = 9;
    assert_int_equal(replica_apply(m->replica, &other_term, 1, &result, NULL), 0);
    assert_true(result.refused);
    assert_int_equal(replica_meta(m->replica)->applied_index, 4);
    free_entries(&entries);
}

static void an_overlap_of_another_term_is_refused(void **state)
{
    struct machine *m = *state;
    struct entries entries;
    struct replica_result result;
    struct buf foreign = BUF_INIT;

    make_entries(&entries);
    struct apply first = batch_of(&entries, 1, 3);
    assert_int_equal(replica_apply(m->replica, &first, 1, &result, NULL), 0);
    struct entry entry = { .index = 3, .term = 2, .time_ns = 1, .kind = ENTRY_EMPTY };
    entry_encode(&entry, &foreign);
    entries.spans[2] = buf_span(&foreign);
    struct apply second = batch_of(&entries, 2, 4);
    assert_int_equal(replica_apply(m->replica, &second, 1, &result, NULL), 0);
    assert_true(result.refused);
    assert_int_equal(replica_meta(m->replica)->applied_index, 3);
    buf_fini(&foreign);
    free_entries(&entries);
}

static void a_gap_within_a_batch_is_malformed_and_applies_nothing(void **state)
{
    struct machine *m = *state;
    struct entries entries;
    struct replica_result result;

    make_entries(&entries);
    struct apply batch = batch_of(&entries, 1, 4);
    entries.spans[2] = entries.spans[5];
    assert_int_equal(replica_apply(m->replica, &batch, 1, &result, NULL), -EBADMSG);
    assert_int_equal(replica_meta(m->replica)->applied_index, 0);
    assert_int_equal(machine_rows(m, SCHEMA_NODES), 0);
    free_entries(&entries);
}

static void an_op_that_cannot_be_read_does_nothing(void **state)
{
    struct machine *m = *state;
    struct replica_result result;
    struct buf bytes = BUF_INIT;
    struct entry entry = { .index = 1, .term = 1, .time_ns = 1, .kind = ENTRY_OP };

    entry.data = SPAN_LIT("\xdf\xff\xff\xff\xff garbage");
    SET(&entry, entry_tag_data);
    entry_encode(&entry, &bytes);
    struct span span = buf_span(&bytes);
    struct apply batch = { .entries = { &span, 1 } };
    assert_int_equal(replica_apply(m->replica, &batch, 1, &result, NULL), 0);
    assert_int_equal(replica_meta(m->replica)->applied_index, 1);
    assert_int_equal(replica_meta(m->replica)->etcd_index, 0);
    buf_fini(&bytes);
}

static void the_publication_survives_a_restart(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/k"), VALUE("v"));
    (void)DO(m, OP_SET, PATH("/k"), VALUE("w"));
    struct buf before = BUF_INIT;
    buf_append_span(&before, replica_publication(m->replica));
    machine_reopen(m);
    assert_true(before.bytes > 0);
    assert_true(span_eq(buf_span(&before), replica_publication(m->replica)));
    buf_fini(&before);
}

static void the_ranges_of_publications_follow_each_other(void **state)
{
    struct machine *m = *state;
    struct codec_scratch scratch = { 0 };
    uint64_t last = 0;

    for (unsigned i = 0; i < 10; i++) {
        struct batch batch;
        (void)(i % 3 == 0 ? machine_empty(m) : DO(m, OP_SET, PATH("/k")));
        codec_scratch_reset(&scratch);
        assert_int_equal(batch_decode(replica_publication(m->replica), &batch, &scratch, NULL), 0);
        assert_int_equal(batch.first_index, last + 1);
        assert_int_equal(batch.last_index, last + 1);
        assert_int_equal(batch.outcomes.count, i % 3 != 0);
        last = batch.last_index;
    }
    codec_scratch_fini(&scratch);
}

/* A map of 1 MiB is a disk of 1 MiB. */
static void a_full_disk_leaves_the_state_and_what_was_published(void **state)
{
    struct machine *m = *state;
    struct err err = { 0 };
    struct buf value = BUF_INIT;
    struct buf bytes = BUF_INIT;
    struct replica_result result;
    int code = 0;

    m->replica = replica_close(m->replica);
    struct replica_config config = {
        .dir = m->dir, .map_bytes = 1 << 20, .boot_id = "boot", .history = m->history
    };
    assert_int_equal(replica_open(&config, &m->replica, &err), 0);
    memset(buf_reserve(&value, 100000), 'v', 100000);
    value.bytes = 100000;
    uint64_t index = 0;
    struct buf tree_before = BUF_INIT;
    struct buf published = BUF_INIT;
    while (code == 0) {
        buf_clear(&tree_before);
        machine_tree(m, &tree_before);
        buf_clear(&published);
        buf_append_span(&published, replica_publication(m->replica));
        buf_clear(&bytes);
        machine_encode((struct op){ .kind = OP_CREATE_IN_ORDER,
                               .instance = 7,
                               .path = SPAN_LIT("/q"),
                               .value = buf_span(&value) },
                ++index, 1, &bytes);
        struct span entry = buf_span(&bytes);
        struct apply batch = {
            .prev_index = index - 1, .prev_term = index > 1, .entries = { &entry, 1 }
        };
        code = replica_apply(m->replica, &batch, 1, &result, &err);
        assert_true(index < 100);
    }
    assert_int_equal(code, -ENOSPC);
    assert_int_equal(replica_meta(m->replica)->applied_index, index - 1);
    struct buf tree_after = BUF_INIT;
    machine_tree(m, &tree_after);
    assert_true(span_eq(buf_span(&tree_before), buf_span(&tree_after)));
    assert_true(span_eq(buf_span(&published), replica_publication(m->replica)));

    /* With room the same batch goes through. */
    machine_reopen(m);
    struct span entry = buf_span(&bytes);
    struct apply batch = {
        .prev_index = index - 1, .prev_term = index > 1, .entries = { &entry, 1 }
    };
    assert_int_equal(replica_apply(m->replica, &batch, 1, &result, &err), 0);
    assert_int_equal(replica_meta(m->replica)->applied_index, index);
    buf_fini(&tree_before);
    buf_fini(&tree_after);
    buf_fini(&published);
    buf_fini(&bytes);
    buf_fini(&value);
}

static int apply_value(struct replica *replica, struct buf *value, uint64_t index)
{
    struct buf bytes = BUF_INIT;
    struct replica_result result;

    machine_encode((struct op){ .kind = OP_CREATE_IN_ORDER,
                           .instance = 7,
                           .path = SPAN_LIT("/q"),
                           .value = buf_span(value) },
            index, 1, &bytes);
    struct span entry = buf_span(&bytes);
    struct apply batch = {
        .prev_index = index - 1, .prev_term = index > 1, .entries = { &entry, 1 }
    };
    int code = replica_apply(replica, &batch, 1, &result, NULL);
    buf_fini(&bytes);
    return code;
}

/* In a child with mounts of its own: fills a small file system, then gives it room. 77: not allowed here. */
static int fill_a_file_system(const char *dir, struct state_history_limits history)
{
    struct replica_config config = {
        .dir = dir, .create = true, .boot_id = "b", .history = history
    };
    struct replica *replica = NULL;
    struct buf value = BUF_INIT;
    uint64_t index = 0;
    int code = 0;

    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("tmpfs", dir, "tmpfs", 0, "size=3m") < 0) {
        return 77;
    }
    if (replica_open(&config, &replica, NULL) < 0) {
        return 1;
    }
    memset(buf_reserve(&value, 30000), 'v', 30000);
    value.bytes = 30000;
    while (code == 0 && index < 1000) {
        code = apply_value(replica, &value, ++index);
    }
    if (code != -ENOSPC || replica_meta(replica)->applied_index != index - 1) {
        return 2;
    }
    if (apply_value(replica, &value, index) != -ENOSPC) {
        return 3; /* still full, and still in order */
    }
    if (mount("tmpfs", dir, "tmpfs", MS_REMOUNT, "size=64m") < 0) {
        return 77;
    }
    for (unsigned i = 0; i < 100; i++, index++) {
        if (apply_value(replica, &value, index) != 0) {
            return 4;
        }
    }
    bool right = replica_meta(replica)->etcd_index == index - 1;
    replica = replica_close(replica);
    buf_fini(&value);
    return right ? 0 : 5;
}

static void a_full_file_system_is_survived(void **state)
{
    struct machine *m = *state;
    char dir[80];
    int status = 0;

    (void)snprintf(dir, sizeof dir, "%s/small", m->dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(fill_a_file_system(dir, m->history));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_batch_given_twice_is_applied_once),
        TEST(a_batch_that_overlaps_is_applied_from_where_it_is_new),
        TEST(a_batch_that_does_not_continue_is_refused),
        TEST(an_overlap_of_another_term_is_refused),
        TEST(a_gap_within_a_batch_is_malformed_and_applies_nothing),
        TEST(an_op_that_cannot_be_read_does_nothing),
        TEST(the_publication_survives_a_restart),
        TEST(the_ranges_of_publications_follow_each_other),
        TEST(a_full_disk_leaves_the_state_and_what_was_published),
        TEST(a_full_file_system_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
