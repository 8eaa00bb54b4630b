#include "daemons/raftd/membership.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/ids.h"
#include "proto/op.h"

static struct conf conf_of(struct conf_peer *peers, size_t count, char *name)
{
    static char token[] = "etcd-cluster";
    return (struct conf){
        .name = name,
        .initial_cluster_token = token,
        .initial_cluster = { peers, count },
    };
}

static void ids_come_from_urls_and_token_and_not_from_names(void **state)
{
    (void)state;
    char a[] = "a", b[] = "b", other[] = "z", url1[] = "http://10.0.1.10:2380",
         url2[] = "http://10.0.1.11:2380";
    struct conf_peer first[] = { { a, url1 }, { b, url2 } };
    struct conf_peer second[] = { { b, url2 }, { other, url1 } };
    struct conf conf = conf_of(first, 2, a);
    struct conf renamed = conf_of(second, 2, other);
    struct membership one = { 0 };
    struct membership two = { 0 };

    assert_int_equal(membership_from_conf(&conf, &one, NULL), 0);
    assert_int_equal(membership_from_conf(&renamed, &two, NULL), 0);
    assert_true(one.cluster_id == two.cluster_id);
    assert_true(one.self_id == two.self_id);
    assert_true(one.items[0].id < one.items[1].id);
    membership_fini(&one);
    membership_fini(&two);
}

static void a_member_with_two_urls_is_one_member(void **state)
{
    (void)state;
    char a[] = "a", url1[] = "http://10.0.1.10:2380", url2[] = "http://10.0.2.10:2380";
    struct conf_peer peers[] = { { a, url1 }, { a, url2 } };
    struct conf conf = conf_of(peers, 2, a);
    struct membership membership = { 0 };

    assert_int_equal(membership_from_conf(&conf, &membership, NULL), 0);
    assert_int_equal(membership.count, 1);
    assert_int_equal(membership.items[0].url_count, 2);
    membership_fini(&membership);
}

static void a_name_that_is_not_in_the_cluster_is_refused_with_the_mend(void **state)
{
    (void)state;
    char a[] = "a", me[] = "me", url1[] = "http://10.0.1.10:2380";
    struct conf_peer peers[] = { { a, url1 } };
    struct conf conf = conf_of(peers, 1, me);
    struct membership membership = { 0 };
    struct err err = { 0 };

    assert_true(membership_from_conf(&conf, &membership, &err) < 0);
    assert_non_null(strstr(err.text, "couldn't find local name \"me\""));
    assert_non_null(strstr(err.text, "--initial-cluster"));
}

static void a_configuration_reads_back_with_the_roles_it_was_written_with(void **state)
{
    (void)state;
    char a[] = "a", b[] = "b", c[] = "c";
    char url1[] = "http://h1:1", url2[] = "http://h2:1", url3[] = "http://h3:1";
    struct conf_peer peers[] = { { a, url1 }, { b, url2 }, { c, url3 } };
    struct conf conf = conf_of(peers, 3, a);
    struct membership membership = { 0 };
    struct membership read_back = { 0 };
    struct buf bytes = BUF_INIT;

    assert_int_equal(membership_from_conf(&conf, &membership, NULL), 0);
    struct raft_members roles = {
        .voters = { &membership.items[0].id, 1 },
        .learners = { &membership.items[1].id, 1 },
        .removed = { &membership.items[2].id, 1 },
    };
    membership_encode(&membership, &roles, &bytes);
    assert_int_equal(membership_decode(buf_span(&bytes), &read_back, NULL), 0);
    assert_int_equal(read_back.count, 3);
    assert_false(read_back.items[0].learner || read_back.items[0].removed);
    assert_true(read_back.items[1].learner);
    assert_true(read_back.items[2].removed);
    assert_string_equal(read_back.items[1].peer_urls[0], membership.items[1].peer_urls[0]);
    buf_fini(&bytes);
    membership_fini(&membership);
    membership_fini(&read_back);
}

static void a_damaged_configuration_is_an_error(void **state)
{
    (void)state;
    struct membership membership = { 0 };
    struct err err = { 0 };

    assert_true(membership_decode(SPAN_LIT("\x81\x01\x91\xc4\x02\x80\x80"), &membership, &err) < 0);
    assert_true(err.text[0] != '\0');
}

static void a_configuration_entry_tells_what_it_does(void **state)
{
    (void)state;
    char url[] = "http://h1:1";
    char *urls[] = { url };
    struct membership_entry entry = { .id = 7, .peer_urls = urls, .url_count = 1 };
    struct buf op = BUF_INIT;

    membership_encode_add(&entry, &op);
    struct raft_change change = membership_change_of(buf_span(&op));
    assert_int_equal(change.kind, RAFT_CHANGE_ADD_LEARNER);
    assert_true(change.member_id == 7);
    assert_int_equal(membership_change_of(SPAN_LIT("rubbish")).kind, RAFT_CHANGE_NOTHING);
    buf_fini(&op);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_come_from_urls_and_token_and_not_from_names),
        cmocka_unit_test(a_member_with_two_urls_is_one_member),
        cmocka_unit_test(a_name_that_is_not_in_the_cluster_is_refused_with_the_mend),
        cmocka_unit_test(a_configuration_reads_back_with_the_roles_it_was_written_with),
        cmocka_unit_test(a_damaged_configuration_is_an_error),
        cmocka_unit_test(a_configuration_entry_tells_what_it_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
