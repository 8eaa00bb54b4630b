/* test_ids.c: the ids that members and clusters bear. The vectors are ours: BLAKE2b-256 of the input, its first eight
 * bytes big-endian, computed with Python's hashlib.blake2b(digest_size=32). */
#include "common/ids.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const two_urls[] = { "http://localhost:2380", "http://localhost:7001" };
static const char *const two_urls_reversed[] = { "http://localhost:7001", "http://localhost:2380" };

static void bootstrap_ids_match_the_vectors(void **state)
{
    static const char *const one[] = { "http://localhost:2380" };
    (void)state;

    assert_int_equal(ids_member(two_urls, 2, "etcd-cluster"), 0x490315a8ba8c46f5);
    assert_int_equal(ids_member(one, 1, "etcd-cluster"), 0x8ea333f33f6c266c);
    assert_int_equal(ids_member_added(one, 1, 1700000000), 0x7171b9c32c4ba764);
}

static void cluster_id_matches_the_vector(void **state)
{
    const uint64_t members[] = { 0x10, 0x8000000000000000, 0x2 };
    (void)state;

    assert_int_equal(ids_cluster(members, 3), 0x3eac770ad31af066);
}

static void order_of_urls_and_members_does_not_matter(void **state)
{
    const uint64_t members[] = { 3, 1, 2 };
    const uint64_t sorted[] = { 1, 2, 3 };
    (void)state;

    assert_int_equal(ids_member(two_urls, 2, "t"), ids_member(two_urls_reversed, 2, "t"));
    assert_int_equal(ids_cluster(members, 3), ids_cluster(sorted, 3));
    assert_string_equal(
            two_urls_reversed[0], "http://localhost:7001"); /* the caller's order is kept */
    assert_int_equal(members[0], 3);
}

static void token_and_time_change_the_id(void **state)
{
    (void)state;
    assert_int_not_equal(ids_member(two_urls, 2, "a"), ids_member(two_urls, 2, "b"));
    assert_int_not_equal(ids_member_added(two_urls, 2, 1), ids_member_added(two_urls, 2, 2));
    assert_int_equal(ids_member_added(two_urls, 2, 17), ids_member(two_urls, 2, "17"));
}

static void text_has_no_leading_zeros(void **state)
{
    char text[IDS_TEXT_BYTES];
    (void)state;

    assert_string_equal(ids_text(0x8a0a11c6194fc77, text), "8a0a11c6194fc77");
    assert_string_equal(ids_text(1, text), "1");
    assert_string_equal(ids_text(UINT64_MAX, text), "ffffffffffffffff");
}

static void parse_takes_what_text_gives(void **state)
{
    static const uint64_t ids[] = { 1, 0xabc, 0x8a0a11c6194fc77, UINT64_MAX };
    char text[IDS_TEXT_BYTES];
    uint64_t id = 0;
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(ids); i++) {
        assert_int_equal(ids_parse(span_str(ids_text(ids[i], text)), &id), 0);
        assert_int_equal(id, ids[i]);
    }
    assert_int_equal(ids_parse(span_str("ABC"), &id), 0);
    assert_int_equal(id, 0xabc);
    assert_int_equal(ids_parse(span_str("00000000000000ff"), &id), 0);
    assert_int_equal(id, 0xff);
}

static void parse_refuses_what_is_no_id(void **state)
{
    static const char *const bad[] = { "", "0", "0000", "g", "-1", " 1", "1 ", "0x1",
        "10000000000000000" };
    uint64_t id = 77;
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_true(ids_parse(span_str(bad[i]), &id) < 0);
        assert_int_equal(id, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bootstrap_ids_match_the_vectors),
        cmocka_unit_test(cluster_id_matches_the_vector),
        cmocka_unit_test(order_of_urls_and_members_does_not_matter),
        cmocka_unit_test(token_and_time_change_the_id),
        cmocka_unit_test(text_has_no_leading_zeros),
        cmocka_unit_test(parse_takes_what_text_gives),
        cmocka_unit_test(parse_refuses_what_is_no_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
