/* Listings: trees of the state as the answer of a get. */
#include "daemons/gatewayd/v2/listing.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/state/state_fixture.h"

enum {
    DEPTH = 20000
};

struct fixture {
    struct state_fixture base;
    struct listing listing;
    struct buf out;
};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);

    state_fixture_open(&f->base);
    assert_int_equal(state_writer_begin(f->base.writer, NULL), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    listing_fini(&f->listing);
    buf_fini(&f->out);
    state_fixture_close(&f->base);
    free(f);
    return 0;
}

static void put(struct fixture *f, uint64_t dir_id, const char *name, const char *value)
{
    struct state_node node = {
        .name = span_str(name), .created_index = 3, .modified_index = 4, .value = span_str(value)
    };
    assert_int_equal(state_write_put(f->base.writer, dir_id, &node, 0), 0);
}

static uint64_t add_dir(struct fixture *f, uint64_t parent_id, const char *name)
{
    struct state_node node = {
        .name = span_str(name), .dir = true, .created_index = 1, .modified_index = 2
    };
    assert_int_equal(state_write_dir_add(f->base.writer, parent_id, &node), 0);
    return node.dir_id;
}

static int get(
        struct fixture *f, struct span key, bool recursive, size_t bytes_max, size_t *ret_bad_bytes)
{
    struct listing_request request = { .key = key, .recursive = recursive, .bytes_max = bytes_max };
    size_t ignored;

    buf_clear(&f->out);
    assert_int_equal(state_read_begin(f->base.read, NULL), 0);
    int code = listing_render(&f->listing, f->base.read, &request, &f->out,
            ret_bad_bytes == NULL ? &ignored : ret_bad_bytes);
    state_read_end(f->base.read);
    return code;
}

static void assert_get(struct fixture *f, const char *key, bool recursive, const char *expected)
{
    assert_int_equal(get(f, span_str(key), recursive, 0, NULL), 0);
    buf_append_byte(&f->out, '\0');
    assert_string_equal((const char *)f->out.data, expected);
}

#define FILE_TAIL ",\"modifiedIndex\":4,\"createdIndex\":3}"
#define DIR_TAIL  ",\"modifiedIndex\":2,\"createdIndex\":1}"

static void lists_children_in_order_and_leaves_out_the_hidden(void **state)
{
    struct fixture *f = *state;

    uint64_t dir = add_dir(f, STATE_ROOT_ID, "d");
    put(f, dir, "b", "2");
    put(f, dir, "a<", "1");
    put(f, dir, "_h", "3");
    uint64_t sub = add_dir(f, dir, "c");
    put(f, sub, "x", "4");
    uint64_t hidden = add_dir(f, dir, "_i");
    put(f, hidden, "y", "5");
    (void)add_dir(f, dir, "e");
    assert_int_equal(state_writer_commit(f->base.writer, NULL), 0);

    assert_get(f, "/d", false,
            "{\"action\":\"get\",\"node\":{\"key\":\"/d\",\"dir\":true,\"nodes\":["
            "{\"key\":\"/d/a\\u003c\",\"value\":\"1\"" FILE_TAIL
            ",{\"key\":\"/d/b\",\"value\":\"2\"" FILE_TAIL
            ",{\"key\":\"/d/c\",\"dir\":true" DIR_TAIL ",{\"key\":\"/d/e\",\"dir\":true" DIR_TAIL
            "]" DIR_TAIL "}\n");
    assert_get(f, "/d", true,
            "{\"action\":\"get\",\"node\":{\"key\":\"/d\",\"dir\":true,\"nodes\":["
            "{\"key\":\"/d/a\\u003c\",\"value\":\"1\"" FILE_TAIL
            ",{\"key\":\"/d/b\",\"value\":\"2\"" FILE_TAIL
            ",{\"key\":\"/d/c\",\"dir\":true,\"nodes\":[{\"key\":\"/d/c/"
            "x\",\"value\":\"4\"" FILE_TAIL "]" DIR_TAIL ",{\"key\":\"/d/e\",\"dir\":true" DIR_TAIL
            "]" DIR_TAIL "}\n");
    assert_get(f, "/d/_i", false,
            "{\"action\":\"get\",\"node\":{\"key\":\"/d/_i\",\"dir\":true,\"nodes\":[{\"key\":\"/d/"
            "_i/"
            "y\",\"value\":\"5\"" FILE_TAIL "]" DIR_TAIL "}\n");
    assert_get(f, "/d/_h", true,
            "{\"action\":\"get\",\"node\":{\"key\":\"/d/_h\",\"value\":\"3\"" FILE_TAIL "}\n");
}

static void the_root_has_neither_key_nor_indexes(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(state_writer_commit(f->base.writer, NULL), 0);
    assert_get(f, "/", true, "{\"action\":\"get\",\"node\":{\"dir\":true}}\n");
    assert_int_equal(state_writer_begin(f->base.writer, NULL), 0);
    put(f, STATE_ROOT_ID, "k", "");
    assert_int_equal(state_writer_commit(f->base.writer, NULL), 0);
    assert_get(f, "/", false,
            "{\"action\":\"get\",\"node\":{\"dir\":true,\"nodes\":[{\"key\":\"/"
            "k\",\"value\":\"\"" FILE_TAIL "]}}\n");
}

static void names_the_first_component_that_is_missing(void **state)
{
    struct fixture *f = *state;
    size_t bad_bytes = 0;

    uint64_t dir = add_dir(f, STATE_ROOT_ID, "s");
    put(f, dir, "f", "1");
    assert_int_equal(state_writer_commit(f->base.writer, NULL), 0);
    assert_int_equal(get(f, SPAN_LIT("/s/no/x"), false, 0, &bad_bytes), -ENOENT);
    assert_int_equal(bad_bytes, 5);
    assert_int_equal(get(f, SPAN_LIT("/s/f/x/y"), false, 0, &bad_bytes), -ENOTDIR);
    assert_int_equal(bad_bytes, 4);
    assert_int_equal(f->out.bytes, 0);
}

static void gives_up_above_the_limit_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    char name[16];

    for (int i = 0; i < 1000; i++) {
        (void)snprintf(name, sizeof name, "k%04d", i);
        put(f, STATE_ROOT_ID, name, "value");
    }
    assert_int_equal(state_writer_commit(f->base.writer, NULL), 0);
    assert_int_equal(get(f, SPAN_LIT("/"), false, 10000, NULL), -EFBIG);
    assert_int_equal(f->out.bytes, 0);
    assert_int_equal(get(f, SPAN_LIT("/"), false, 1000000, NULL), 0);
}

static void a_tree_may_be_very_deep(void **state)
{
    struct fixture *f = *state;
    uint64_t dir = STATE_ROOT_ID;

    for (int i = 0; i < DEPTH; i++) {
        dir = add_dir(f, dir, "a");
    }
    assert_int_equal(state_writer_commit(f->base.writer, NULL), 0);
    assert_int_equal(get(f, SPAN_LIT("/"), true, 1024 * 1024, NULL), -EFBIG);
    /* A cursor for each level that is open: all of them were given back. */
    assert_int_equal(get(f, SPAN_LIT("/"), false, 0, NULL), 0);
}

#define STATE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STATE_TEST(lists_children_in_order_and_leaves_out_the_hidden),
        STATE_TEST(the_root_has_neither_key_nor_indexes),
        STATE_TEST(names_the_first_component_that_is_missing),
        STATE_TEST(gives_up_above_the_limit_and_leaves_nothing),
        STATE_TEST(a_tree_may_be_very_deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
