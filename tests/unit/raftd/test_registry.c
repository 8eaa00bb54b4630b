/* What a registry's answers mean. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/raftd/bootstrap/registry.h"

#define NODE(id, value, created)                                                                   \
    "{\"key\":\"/_etcd/registry/t/" id "\",\"value\":\"" value "\",\"createdIndex\":" #created "}"
#define LISTING(nodes)                                                                             \
    "{\"action\":\"get\",\"node\":{\"key\":\"/_etcd/registry/t\",\"dir\":true,\"nodes\":[" nodes   \
    "]}}"

static void urls_join_with_one_slash(void **state)
{
    static const char *const bases[] = { "http://h:1/v2/keys/t", "http://h:1/v2/keys/t/",
        "http://h:1/v2/keys/t//" };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(bases); i++) {
        CLEANUP(buf_fini) struct buf url = BUF_INIT;
        CLEANUP(buf_fini) struct buf folder = BUF_INIT;
        registry_url(bases[i], "_config/size", &url);
        registry_url(bases[i], "", &folder);
        assert_string_equal((const char *)url.data, "http://h:1/v2/keys/t/_config/size");
        assert_string_equal((const char *)folder.data, "http://h:1/v2/keys/t");
    }
}

static void sizes_are_numbers_from_one_on(void **state)
{
    static const struct {
        const char *body;
        uint64_t size;
        const char *text;
    } rows[] = {
        { "{\"node\":{\"value\":\"3\"}}", 3, "" },
        { "{\"node\":{\"value\":\"100\"}}", 100, "" },
        { "{\"node\":{\"value\":\"101\"}}", 0, "discovery: size key is bad; " },
        { "{\"node\":{\"value\":\"0\"}}", 0, "discovery: size key is bad; " },
        { "{\"node\":{\"value\":\"-1\"}}", 0, "discovery: size key is bad; " },
        { "{\"node\":{\"value\":\"\"}}", 0, "discovery: size key is bad; " },
        { "{\"node\":{\"value\":\"3x\"}}", 0, "discovery: size key is bad; " },
        { "{\"node\":{\"value\":\"99999999999999999999\"}}", 0, "discovery: size key is bad; " },
        { "{\"node\":{\"dir\":true}}", 0, "discovery: size key is bad; " },
        { "{}", 0, "discovery: bad discovery endpoint; " },
        { "", 0, "discovery: bad discovery endpoint; " },
        { "<html>", 0, "discovery: bad discovery endpoint; " },
        { "[{\"node\":{\"value\":\"3\"}}]", 0, "discovery: bad discovery endpoint; " },
    };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct err err = { 0 };
        uint64_t size = 0;
        int result = registry_parse_size(span_str(rows[i].body), &size, &err);
        assert_int_equal(result, rows[i].size > 0 ? 0 : -EINVAL);
        assert_int_equal(size, rows[i].size);
        assert_memory_equal(err.text, rows[i].text, strlen(rows[i].text));
    }
}

static void members_stand_in_the_order_of_their_creation(void **state)
{
    CLEANUP(registry_fini) struct registry registry = { 0 };
    static const char body[] = LISTING(NODE("b", "y=http://h:2", 30) "," NODE("a", "x=http://h:1",
            9) "," NODE("_other", "3", 1) ",{\"key\":\"/_etcd/registry/t/d\",\"dir\":true,"
                                          "\"createdIndex\":2}," NODE("c", "z=http://h:3", 200));
    (void)state;

    assert_int_equal(registry_parse_listing(span_str(body), &registry, NULL), 0);
    assert_int_equal(registry.count, 3);
    assert_string_equal(registry.items[0].id, "a");
    assert_string_equal(registry.items[1].id, "b");
    assert_string_equal(registry.items[2].id, "c");

    assert_false(registry_is_full(&registry, "a", 1));
    assert_true(registry_is_full(&registry, "b", 1));
    assert_true(registry_is_full(&registry, "new", 3));
    assert_false(registry_is_full(&registry, "new", 4));
    assert_true(registry_is_full(&registry, "c", 2));
    assert_false(registry_is_full(&registry, "c", 3));

    CLEANUP(buf_fini) struct buf cluster = BUF_INIT;
    assert_int_equal(registry_join(&registry, 2, "http://h/t", &cluster, NULL), 0);
    assert_string_equal((const char *)cluster.data, "x=http://h:1,y=http://h:2");
}

static void a_folder_without_members_is_empty_and_not_wrong(void **state)
{
    CLEANUP(registry_fini) struct registry registry = { 0 };
    (void)state;

    assert_int_equal(registry_parse_listing(
                             span_str("{\"node\":{\"key\":\"/t\",\"dir\":true}}"), &registry, NULL),
            0);
    assert_int_equal(registry.count, 0);
}

static void what_is_no_listing_is_refused(void **state)
{
    static const char *const rows[] = { "", "{}", "{\"node\":3}",
        "{\"node\":{\"key\":\"/t\",\"value\":\"1\"}}", LISTING("3"), LISTING("{\"key\":\"/t/a\"}"),
        LISTING("{\"createdIndex\":1,\"value\":\"\"}") };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct registry registry = { 0 };
        struct err err = { 0 };
        assert_int_equal(registry_parse_listing(span_str(rows[i]), &registry, &err), -EINVAL);
        assert_non_null(strstr(err.text, "discovery: bad discovery endpoint; "));
    }
}

static int join_one(const char *value, struct err *err)
{
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    char id[] = "a";
    char copy[128];
    struct registry_member member = { .id = id, .value = copy };
    struct registry registry = { &member, 1 };

    (void)snprintf(copy, sizeof copy, "%s", value);
    return registry_join(&registry, 1, "http://h/token", &out, err);
}

static void values_are_pairs_of_one_name_and_a_url(void **state)
{
    static const char *const bad[] = { "", "x", "x=", "=http://h:1", "x=http://h", "x=ftp://h:1",
        "x=http://h:1,y=http://h:2", "x=http://h:1,", "x=http://h:1/p", ",",
        "x=http://h:1&x=http" };
    (void)state;

    assert_int_equal(join_one("x=http://h:1", NULL), 0);
    assert_int_equal(join_one("x=http://h:1,x=http://10.0.0.1:2", NULL), 0);
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct err err = { 0 };
        assert_int_equal(join_one(bad[i], &err), -EINVAL);
        assert_non_null(strstr(err.text, "discovery: invalid URL; member a "));
    }
}

static void one_name_twice_is_refused_without_the_token(void **state)
{
    CLEANUP(registry_fini) struct registry registry = { 0 };
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    struct err err = { 0 };
    static const char body[] =
            LISTING(NODE("b", "x=http://h:2", 30) "," NODE("a", "x=http://h:1", 9));
    (void)state;

    assert_int_equal(registry_parse_listing(span_str(body), &registry, NULL), 0);
    assert_int_equal(registry_join(&registry, 2, "http://h:9/t0ken", &out, &err), -EINVAL);
    assert_non_null(
            strstr(err.text, "member with duplicated name has registered with discovery service "
                             "token(http://h:9/***); "));
}

static void error_codes_are_read(void **state)
{
    (void)state;

    assert_int_equal(registry_error_code(span_str("{\"errorCode\":105,\"message\":\"x\"}")), 105);
    assert_int_equal(registry_error_code(span_str("not found")), 0);
    assert_int_equal(registry_error_code(span_str("{\"errorCode\":\"105\"}")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_join_with_one_slash),
        cmocka_unit_test(sizes_are_numbers_from_one_on),
        cmocka_unit_test(members_stand_in_the_order_of_their_creation),
        cmocka_unit_test(a_folder_without_members_is_empty_and_not_wrong),
        cmocka_unit_test(what_is_no_listing_is_refused),
        cmocka_unit_test(values_are_pairs_of_one_name_and_a_url),
        cmocka_unit_test(one_name_twice_is_refused_without_the_token),
        cmocka_unit_test(error_codes_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
