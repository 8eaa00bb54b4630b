/* What SRV records make of a cluster. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/raftd/bootstrap/srv.h"

static void both_services_have_their_names(void **state)
{
    static const struct {
        bool is_tls;
        const char *suffix;
        const char *name;
    } rows[] = {
        { true, "", "_etcd-server-ssl._tcp.example.org" },
        { false, "", "_etcd-server._tcp.example.org" },
        { true, "blue", "_etcd-server-ssl-blue._tcp.example.org" },
        { false, "blue", "_etcd-server-blue._tcp.example.org" },
    };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        CLEANUP(buf_fini) struct buf name = BUF_INIT;
        srv_query_name(rows[i].is_tls, rows[i].suffix, "example.org", &name);
        assert_string_equal((const char *)name.data, rows[i].name);
    }
}

static void the_dot_at_the_end_of_a_target_goes(void **state)
{
    struct srv_record record = { 0 };
    char longest[SRV_HOST_BYTES + 1];
    (void)state;

    assert_true(srv_set_host(&record, "infra0.example.org."));
    assert_string_equal(record.host, "infra0.example.org");
    assert_true(srv_set_host(&record, "infra1.example.org"));
    assert_string_equal(record.host, "infra1.example.org");
    assert_false(srv_set_host(&record, "."));
    assert_false(srv_set_host(&record, ""));
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_false(srv_set_host(&record, longest));
}

static void records_of_both_services_join_and_only_self_has_a_name(void **state)
{
    static const struct srv_record records[] = {
        { .is_tls = true, .port = 2380, .host = "a" },
        { .is_self = true, .port = 2380, .host = "b" },
        { .port = 2381, .host = "c" },
    };
    CLEANUP(buf_fini) struct buf named = BUF_INIT;
    CLEANUP(buf_fini) struct buf numbered = BUF_INIT;
    (void)state;

    assert_int_equal(srv_join(records, 3, "infra1", &named, NULL), 0);
    assert_string_equal(
            (const char *)named.data, "0=https://a:2380,infra1=http://b:2380,1=http://c:2381");
    /* A member that bears a number itself shares it with nobody. */
    assert_int_equal(srv_join(records, 3, "0", &numbered, NULL), 0);
    assert_string_equal(
            (const char *)numbered.data, "1=https://a:2380,0=http://b:2380,2=http://c:2381");
}

static void a_port_that_both_services_name_is_one_member(void **state)
{
    static const struct srv_record records[] = {
        { .is_self = true, .port = 2380, .host = "a" },
        { .port = 2380, .host = "b" },
        { .port = 2381, .host = "B" },
        { .is_tls = true, .port = 2380, .host = "B" },
        { .is_tls = true, .is_self = true, .port = 2380, .host = "a" },
    };
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    (void)state;

    assert_int_equal(srv_join(records, ARRAY_COUNT(records), "me", &out, NULL), 0);
    assert_string_equal(
            (const char *)out.data, "0=http://B:2381,1=https://B:2380,me=https://a:2380");
}

static void a_member_without_a_record_is_told(void **state)
{
    static const struct srv_record record = { .port = 2380, .host = "a" };
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    struct err err = { 0 };
    (void)state;

    assert_int_equal(srv_join(&record, 1, "x", &out, &err), -EINVAL);
    assert_non_null(strstr(err.text, "cannot find local etcd member \"x\" in SRV records; "));
    assert_int_equal(srv_join(NULL, 0, "x", &out, NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_services_have_their_names),
        cmocka_unit_test(the_dot_at_the_end_of_a_target_goes),
        cmocka_unit_test(records_of_both_services_join_and_only_self_has_a_name),
        cmocka_unit_test(a_port_that_both_services_name_is_one_member),
        cmocka_unit_test(a_member_without_a_record_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
