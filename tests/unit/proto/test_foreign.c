/* test_foreign.c: who speaks on a peer's port, by the first bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/foreign.h"

static void what_is_known_is_named_with_the_mend(void **state)
{
    static const struct {
        const char *bytes;
        const char *says;
    } rows[] = {
        { "GET /members HTTP/1.1", "an HTTP request on the peer port" },
        { "POST /raft HTTP/1.1", "an HTTP request on the peer port" },
        { "PUT /", "an HTTP request on the peer port" },
        { "DELETE /", "an HTTP request on the peer port" },
        { "OPTIONS *", "an HTTP request on the peer port" },
        { "PRI * HTTP/2.0", "an HTTP request on the peer port" },
        { "HTTP/1.1 400", "an HTTP answer" },
        { "\x16\x03\x01\x02", "a TLS handshake" },
        { "\x15\x03\x03\x01", "a TLS alert" },
        { "QSL1", "the connection is sealed" },
    };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        const char *text = foreign_text(span_str(rows[i].bytes));
        assert_non_null(text);
        assert_non_null(strstr(text, rows[i].says));
        assert_non_null(strstr(text, "; "));
    }
}

static void what_a_member_or_nobody_says_is_not(void **state)
{
    static const char *const others[] = { "\x01\x02\x03\x04", "GETS", "QSL2", "", "G",
        "\x16\x02\x01\x02" };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        assert_null(foreign_text(span_str(others[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_known_is_named_with_the_mend),
        cmocka_unit_test(what_a_member_or_nobody_says_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
