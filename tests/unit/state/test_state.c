/* test_state.c: the tables as readers see them: names in order whatever their length, lookups, history, generations. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/state/state_fixture.h"

enum {
    LONG_BYTES = 5000
};

static int set_up(void **state)
{
    struct state_fixture *f = xcalloc(1, sizeof *f);

    state_fixture_open(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    state_fixture_close(*state);
    free(*state);
    return 0;
}

static void put(struct state_fixture *f, uint64_t dir_id, const char *name, size_t bytes)
{
    struct state_node node = { .name = span_of(name, bytes),
        .created_index = 1,
        .modified_index = 2,
        .value = SPAN_LIT("v") };
    assert_int_equal(state_write_put(f->writer, dir_id, &node, 0), 0);
}

static uint64_t add_dir(struct state_fixture *f, uint64_t parent_id, const char *name)
{
    struct state_node node = { .name = span_str(name), .created_index = 1, .modified_index = 1 };
    assert_int_equal(state_write_dir_add(f->writer, parent_id, &node), 0);
    return node.dir_id;
}

static void begin(struct state_fixture *f)
{
    assert_int_equal(state_writer_begin(f->writer, NULL), 0);
}

static void commit(struct state_fixture *f)
{
    assert_int_equal(state_writer_commit(f->writer, NULL), 0);
    assert_int_equal(state_read_begin(f->read, NULL), 0);
}

static void a_lookup_says_how_far_it_came(void **state)
{
    struct state_fixture *f = *state;
    struct state_node node;
    size_t bad = 0;

    begin(f);
    uint64_t a = add_dir(f, STATE_ROOT_ID, "a");
    put(f, a, "f", 1);
    commit(f);
    assert_int_equal(state_read_lookup(f->read, SPAN_LIT("/"), &node, &bad), 0);
    assert_true(node.dir);
    assert_int_equal(node.created_index, 0);
    assert_int_equal(state_read_lookup(f->read, SPAN_LIT("/a/f"), &node, &bad), 0);
    assert_false(node.dir);
    assert_true(span_eq(node.value, SPAN_LIT("v")));
    assert_int_equal(node.modified_index, 2);
    assert_int_equal(state_read_lookup(f->read, SPAN_LIT("/a/no/x"), &node, &bad), -ENOENT);
    assert_int_equal(bad, strlen("/a/no"));
    assert_int_equal(state_read_lookup(f->read, SPAN_LIT("/x/y/z"), &node, &bad), -ENOENT);
    assert_int_equal(bad, strlen("/x"));
    assert_int_equal(state_read_lookup(f->read, SPAN_LIT("/a/f/x/y"), &node, &bad), -ENOTDIR);
    assert_int_equal(bad, strlen("/a/f"));
}

static int compare_names(const void *left, const void *right)
{
    return span_cmp(*(const struct span *)left, *(const struct span *)right);
}

/* Names of all lengths around the limits, many of which share long prefixes. */
static size_t make_names(struct span *names, size_t max)
{
    static const size_t lengths[] = { 1, 2, 455, 456, 457, 486, 487, 488, 489, 496, 511, 512, 1000,
        LONG_BYTES };
    uint64_t seed = 42;
    size_t count = 0;

    while (count < max) {
        size_t bytes = lengths[count % ARRAY_COUNT(lengths)];
        uint8_t *name = xmalloc(bytes);
        memset(name, 'm', bytes);
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        name[(seed >> 33) % bytes] = (uint8_t)('a' + (seed >> 20) % 26);
        name[bytes - 1] = (uint8_t)('a' + (seed >> 12) % 26);
        bool known = false;
        for (size_t i = 0; i < count; i++) {
            known |= span_eq(names[i], span_of(name, bytes));
        }
        if (known) {
            free(name);
            continue;
        }
        names[count++] = span_of(name, bytes);
    }
    qsort(names, count, sizeof *names, compare_names);
    return count;
}

static void expect_children_behind(
        struct state_fixture *f, struct span after, const struct span *names, size_t count)
{
    struct state_children children;
    struct state_node node;
    size_t at = 0;

    state_children_begin(f->read, STATE_ROOT_ID, after, &children);
    while (state_children_next(&children, &node)) {
        assert_true(at < count);
        assert_int_equal(node.name.bytes, names[at].bytes);
        assert_memory_equal(node.name.data, names[at].data, node.name.bytes);
        at++;
    }
    state_children_end(&children);
    assert_int_equal(at, count);
}

static void children_come_in_order_of_their_names_of_any_length(void **state)
{
    struct state_fixture *f = *state;
    enum {
        NAMES = 280
    };
    struct span names[NAMES];
    size_t bad;
    struct state_node node;

    size_t count = make_names(names, NAMES);
    begin(f);
    for (size_t i = 0; i < count; i++) {
        size_t at = i * 11 % count; /* not in order */
        put(f, STATE_ROOT_ID, (const char *)names[at].data, names[at].bytes);
    }
    commit(f);
    expect_children_behind(f, SPAN_NONE, names, count);
    for (size_t i = 0; i < count; i += 3) {
        expect_children_behind(f, names[i], names + i + 1, count - i - 1);
    }
    for (size_t i = 0; i < count; i++) {
        struct buf path = BUF_INIT;
        buf_append_byte(&path, '/');
        buf_append_span(&path, names[i]);
        assert_int_equal(state_read_lookup(f->read, buf_span(&path), &node, &bad), 0);
        assert_true(span_eq(node.name, names[i]));
        buf_fini(&path);
        free((void *)(uintptr_t)names[i].data);
    }
}

static void a_listing_begins_behind_a_name_that_is_not_there(void **state)
{
    struct state_fixture *f = *state;
    struct span names[] = { SPAN_LIT("b"), SPAN_LIT("d") };
    char between[LONG_BYTES];

    begin(f);
    put(f, STATE_ROOT_ID, "d", 1);
    put(f, STATE_ROOT_ID, "b", 1);
    commit(f);
    memset(between, 'c', sizeof between);
    expect_children_behind(f, SPAN_LIT("a"), names, 2);
    expect_children_behind(f, SPAN_LIT("b"), names + 1, 1);
    expect_children_behind(f, span_of(between, sizeof between), names + 1, 1);
    expect_children_behind(f, SPAN_LIT("e"), names, 0);
}

static void listings_nest_and_see_only_their_own_directory(void **state)
{
    struct state_fixture *f = *state;
    struct state_children outer;
    struct state_node dir;
    unsigned seen = 0;

    begin(f);
    for (char name[] = "a"; name[0] <= 'e'; name[0]++) {
        uint64_t id = add_dir(f, STATE_ROOT_ID, name);
        put(f, id, "x", 1);
        put(f, id, "y", 1);
    }
    (void)add_dir(f, STATE_ROOT_ID, "empty");
    commit(f);
    state_children_begin(f->read, STATE_ROOT_ID, SPAN_NONE, &outer);
    while (state_children_next(&outer, &dir)) {
        struct state_children inner;
        struct state_node node;
        state_children_begin(f->read, dir.dir_id, SPAN_NONE, &inner);
        while (state_children_next(&inner, &node)) {
            assert_false(node.dir);
            seen++;
        }
        state_children_end(&inner);
    }
    state_children_end(&outer);
    assert_int_equal(seen, 10);
}

/* Were the hash part of what short names may hold, a name could be made that hides another. */
static void a_short_name_never_meets_a_long_ones_key(void **state)
{
    struct schema_key long_key;
    struct schema_key crafted;
    char name[LONG_BYTES];

    (void)state;
    memset(name, 'x', sizeof name);
    schema_node_key(7, span_of(name, sizeof name), &long_key);
    schema_node_key(7, span_of(long_key.data + 8, STATE_NAME_KEY_BYTES_MAX), &crafted);
    assert_int_not_equal(crafted.bytes, long_key.bytes);
    schema_node_key(7, span_of(long_key.data + 8, long_key.bytes - 8), &crafted);
    assert_int_equal(crafted.bytes, long_key.bytes);
    assert_memory_not_equal(crafted.data, long_key.data, crafted.bytes);
}

static void history_is_read_from_any_index_on(void **state)
{
    struct state_fixture *f = *state;
    struct state_events events;
    struct span event;
    uint64_t index = 0;
    uint64_t expected = 7;

    begin(f);
    for (uint64_t i = 1; i <= 20; i++) {
        assert_int_equal(state_write_event(f->writer, i, span_of(&i, sizeof i)), 0);
    }
    commit(f);
    state_events_begin(f->read, 7, &events);
    while (state_events_next(&events, &index, &event)) {
        assert_int_equal(index, expected++);
        assert_memory_equal(event.data, &index, sizeof index);
    }
    state_events_end(&events);
    assert_int_equal(expected, 21);
    state_events_begin(f->read, 21, &events);
    assert_false(state_events_next(&events, &index, &event));
    state_events_end(&events);
}

static void a_read_sees_one_state_until_it_ends(void **state)
{
    struct state_fixture *f = *state;
    struct state_node node;
    size_t bad;

    begin(f);
    commit(f);
    begin(f);
    put(f, STATE_ROOT_ID, "new", 3);
    assert_int_equal(state_writer_commit(f->writer, NULL), 0);
    assert_int_equal(state_read_lookup(f->read, SPAN_LIT("/new"), &node, &bad), -ENOENT);
    state_read_end(f->read);
    assert_int_equal(state_read_begin(f->read, NULL), 0);
    assert_int_equal(state_read_lookup(f->read, SPAN_LIT("/new"), &node, &bad), 0);
}

static void an_abort_takes_everything_back(void **state)
{
    struct state_fixture *f = *state;
    struct state_node node;
    size_t bad;

    begin(f);
    state_writer_meta(f->writer)->etcd_index = 99;
    (void)add_dir(f, STATE_ROOT_ID, "gone");
    state_writer_abort(f->writer);
    assert_int_equal(state_writer_meta(f->writer)->etcd_index, 0);
    assert_int_equal(state_writer_meta(f->writer)->next_dir_id, STATE_ROOT_ID + 1);
    assert_int_equal(state_read_begin(f->read, NULL), 0);
    assert_int_equal(state_read_lookup(f->read, SPAN_LIT("/gone"), &node, &bad), -ENOENT);
}

static void a_path_is_walked_up_unless_an_ancestor_is_unlinked(void **state)
{
    struct state_fixture *f = *state;
    struct buf path = BUF_INIT;
    struct state_node node;

    begin(f);
    uint64_t a = add_dir(f, STATE_ROOT_ID, "a");
    uint64_t b = add_dir(f, a, "b");
    assert_int_equal(state_write_path(f->writer, b, SPAN_LIT("c"), &path), 0);
    assert_true(span_eq(buf_span(&path), SPAN_LIT("/a/b/c")));
    assert_int_equal(state_write_find(f->writer, STATE_ROOT_ID, SPAN_LIT("a"), &node), 0);
    node.name = SPAN_LIT("a");
    assert_int_equal(state_write_remove(f->writer, STATE_ROOT_ID, &node), 0);
    buf_clear(&path);
    assert_int_equal(state_write_path(f->writer, b, SPAN_LIT("c"), &path), -ENOENT);
    assert_int_equal(state_write_trash_is_empty(f->writer), 0);
    state_writer_abort(f->writer);
    buf_fini(&path);
}

static void current_names_a_generation_or_is_an_error(void **state)
{
    struct state_fixture *f = *state;
    static const char *const bad[] = { "", "1\n", "0000000000000000\n", "000000000000000g\n",
        "0000000000000001", "00000000000000011\n" };
    uint64_t generation = 0;
    char path[128];

    assert_int_equal(state_current_generation(f->dir, &generation, NULL), -ENOENT);
    (void)snprintf(path, sizeof path, "%s/CURRENT", f->dir);
    for (size_t i = 0; i <= ARRAY_COUNT(bad); i++) {
        FILE *file = fopen(path, "we");
        assert_non_null(file);
        assert_true(fputs(i < ARRAY_COUNT(bad) ? bad[i] : "00000000000000a1\n", file) >= 0);
        assert_int_equal(fclose(file), 0);
        int expected = i < ARRAY_COUNT(bad) ? -EUCLEAN : 0;
        assert_int_equal(state_current_generation(f->dir, &generation, NULL), expected);
    }
    assert_int_equal(generation, 0xa1);
    assert_int_equal(unlink(path), 0);
}

static void an_environment_without_a_state_is_refused(void **state)
{
    struct state_fixture *f = *state;
    struct state *other = NULL;
    struct state_writer *writer = NULL;

    assert_true(state_open_readonly("/nonexistent", 0, &other, NULL) < 0);
    f->read = state_read_free(f->read);
    f->state = state_close(f->state);
    f->writer = state_writer_close(f->writer);
    char empty[96];
    (void)snprintf(empty, sizeof empty, "%s.empty", f->dir);
    assert_int_equal(rename(f->dir, empty), 0);
    assert_int_equal(state_open_readonly(f->dir, 0, &other, NULL), -ENOENT);
    assert_int_equal(state_writer_open(f->dir, 0, false, &writer, NULL), -ENOENT);
    assert_int_equal(rename(empty, f->dir), 0);
}

static unsigned mode_of(struct state_fixture *f, const char *name)
{
    char path[96];
    struct stat stat_;

    (void)snprintf(path, sizeof path, "%s/%s", f->dir, name);
    assert_int_equal(stat(path, &stat_), 0);
    return stat_.st_mode & 0777;
}

static void open_anew(struct state_fixture *f, unsigned mask)
{
    struct err err = { 0 };

    f->read = state_read_free(f->read);
    f->state = state_close(f->state);
    f->writer = state_writer_close(f->writer);
    scratch_remove(f->dir);
    assert_int_equal(mkdir(f->dir, 0700), 0);
    mode_t before = umask(mask);
    int result = state_writer_open(f->dir, STATE_FIXTURE_MAP_BYTES, true, &f->writer, &err);
    (void)umask(before);
    if (result < 0) {
        fail_msg("%s", err.text);
    }
}

/* LMDB's readers enter themselves into its lock file: who may read the data must be able to, whatever the umask. */
static void who_may_read_the_data_may_write_the_locks_and_nothing_else(void **state)
{
    struct state_fixture *f = *state;

    open_anew(f, 0022);
    assert_int_equal(mode_of(f, "data.mdb"), 0640);
    assert_int_equal(mode_of(f, "lock.mdb"), 0660);
    open_anew(f, 0077);
    assert_int_equal(mode_of(f, "data.mdb"), 0600);
    assert_int_equal(mode_of(f, "lock.mdb"), 0600);
    open_anew(f, 0);
    assert_int_equal(mode_of(f, "data.mdb"), 0640);
    assert_int_equal(mode_of(f, "lock.mdb"), 0660);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_lookup_says_how_far_it_came),
        TEST(children_come_in_order_of_their_names_of_any_length),
        TEST(a_listing_begins_behind_a_name_that_is_not_there),
        TEST(listings_nest_and_see_only_their_own_directory),
        TEST(a_short_name_never_meets_a_long_ones_key),
        TEST(history_is_read_from_any_index_on),
        TEST(a_read_sees_one_state_until_it_ends),
        TEST(an_abort_takes_everything_back),
        TEST(a_path_is_walked_up_unless_an_ancestor_is_unlinked),
        TEST(current_names_a_generation_or_is_an_error),
        TEST(an_environment_without_a_state_is_refused),
        TEST(who_may_read_the_data_may_write_the_locks_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
