/* Peer URLs as nng addresses. */
#include "daemons/raftd/peer/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_address(const char *url, const char *expected)
{
    char address[ADDRESS_BYTES];
    struct err err = { 0 };

    assert_int_equal(address_of_url(url, address, &err), 0);
    assert_string_equal(address, expected);
}

static void hosts_stay_as_they_are_written(void **state)
{
    (void)state;
    assert_address("http://10.0.0.1:2380", "tcp://10.0.0.1:2380");
    assert_address("http://node-1.example:7001", "tcp://node-1.example:7001");
    assert_address("http://[::1]:2380", "tcp://[::1]:2380");
}

static void localhost_needs_no_name_server(void **state)
{
    (void)state;
    assert_address("http://localhost:2380", "tcp://127.0.0.1:2380");
    assert_address("http://LocalHost:2380", "tcp://127.0.0.1:2380");
    assert_address("http://localhost.example:2380", "tcp://localhost.example:2380");
}

static void an_empty_host_is_every_address(void **state)
{
    (void)state;
    assert_address("http://:2380", "tcp://0.0.0.0:2380");
}

static void https_leads_to_the_same_place(void **state)
{
    (void)state;
    assert_address("https://10.0.0.1:2380", "tcp://10.0.0.1:2380");
    assert_address("https://localhost:2380", "tcp://127.0.0.1:2380");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_stay_as_they_are_written),
        cmocka_unit_test(localhost_needs_no_name_server),
        cmocka_unit_test(an_empty_host_is_every_address),
        cmocka_unit_test(https_leads_to_the_same_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
