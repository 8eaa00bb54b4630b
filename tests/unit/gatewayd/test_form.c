/* Forms: each error of the contract with its cause, the order of checks, and where a parameter may stand; then which op it
 * all becomes. */
#include "daemons/gatewayd/v2/form.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemons/gatewayd/arena.h"
#include "daemons/gatewayd/v2/keys.h"
#include "proto/op.h"

static const char form_type[] = "application/x-www-form-urlencoded";

static struct arena arena;

static int free_arena(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static struct form_source source_of(
        enum http_method method, const char *query, const char *type, const char *body)
{
    return (struct form_source){ .method = method,
        .query = query == NULL ? SPAN_NONE : span_str(query),
        .content_type = type == NULL ? SPAN_NONE : span_str(type),
        .body = body == NULL ? SPAN_NONE : span_str(body) };
}

static void assert_error(const struct form_source *source, unsigned code, const char *cause)
{
    struct api_error error = { 0 };
    struct form form;

    assert_int_equal(form_parse(&arena, source, &form, &error), -EINVAL);
    if (error.code != code || !span_eq(error.cause, span_str(cause))) {
        print_error("got %u %.*s, want %u %s\n", error.code, (int)error.cause.bytes,
                (const char *)error.cause.data, code, cause);
    }
    assert_int_equal(error.code, code);
    assert_int_equal(error.index, 0);
    assert_true(span_eq(error.cause, span_str(cause)));
}

static void assert_get_error(const char *query, unsigned code, const char *cause)
{
    struct form_source source = source_of(HTTP_GET, query, NULL, NULL);
    assert_error(&source, code, cause);
}

static void assert_put_error(
        const char *query, const char *type, const char *body, unsigned code, const char *cause)
{
    struct form_source source = source_of(HTTP_PUT, query, type, body);
    assert_error(&source, code, cause);
}

static struct form parse(const struct form_source *source)
{
    struct api_error error = { 0 };
    struct form form;
    if (form_parse(&arena, source, &form, &error) < 0) {
        print_error(
                "%u %.*s\n", error.code, (int)error.cause.bytes, (const char *)error.cause.data);
        fail();
    }
    return form;
}

static struct form parse_get(const char *query)
{
    struct form_source source = source_of(HTTP_GET, query, NULL, NULL);
    return parse(&source);
}

static struct form parse_put(const char *query, const char *body)
{
    struct form_source source = source_of(HTTP_PUT, query, form_type, body);
    return parse(&source);
}

static void tells_what_is_wrong_with_a_form(void **state)
{
    (void)state;
    assert_get_error("a=%zz", 210, "invalid URL escape \"%zz\"");
    assert_get_error("%4", 210, "invalid URL escape \"%4\"");
    assert_get_error("a=%", 210, "invalid URL escape \"%\"");
    assert_get_error("a=%\x01z", 210, "invalid URL escape \"%\\x01z\"");
    assert_get_error("a=%\"z", 210, "invalid URL escape \"%\\\"z\"");
    assert_get_error("a;b", 210, "invalid semicolon separator in query");
    assert_get_error("a=%zz&b;c", 210, "invalid semicolon separator in query");
    assert_get_error("b;c&a=%zz", 210, "invalid semicolon separator in query");
    assert_put_error("a=1;", form_type, "value=%zz", 210, "invalid URL escape \"%zz\"");
    assert_put_error("a=%zz", form_type, "value=1;2", 210, "invalid semicolon separator in query");
    assert_put_error(NULL, "/bad", NULL, 210, "mime: no media type");
    assert_put_error(NULL, ";", NULL, 210, "mime: no media type");
    assert_put_error(NULL, "a b", NULL, 210, "mime: expected slash after first token");
    assert_put_error(NULL, "a/", NULL, 210, "mime: expected token after slash");
    assert_put_error(NULL, "a/b c", NULL, 210, "mime: unexpected content after media subtype");
    assert_put_error(NULL, "application/x-www-form-urlencoded; charset", "value=%zz", 210,
            "mime: invalid media parameter");
    assert_put_error(NULL, "text/plain; a=b; a=b", NULL, 210, "mime: duplicate parameter name");
}

static void a_body_too_large_wins_over_all(void **state)
{
    struct form_source source =
            source_of(HTTP_PUT, "a=%zz", "application/x-www-form-urlencoded; charset", NULL);

    (void)state;
    source.body_too_large = true;
    assert_error(&source, 210, "http: POST too large");
    source = source_of(HTTP_PUT, NULL, "text/plain", NULL);
    source.body_too_large = true; /* but only where it would have been read */
    (void)parse(&source);
}

static void reads_a_body_only_where_it_is_a_form(void **state)
{
    static const char *const forms[] = { "application/x-www-form-urlencoded",
        "Application/X-WWW-Form-Urlencoded", "application/x-www-form-urlencoded; charset=utf-8",
        " application/x-www-form-urlencoded ;charset=\"u\\\"tf\"; a=b",
        "application/x-www-form-urlencoded;" };
    static const char *const others[] = { "", "text/plain", "application/json",
        "multipart/form-data; boundary=x", "application/x-www-form-urlencoded2", "form" };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(forms); i++) {
        struct form_source source = source_of(HTTP_POST, NULL, forms[i], "value=x");
        assert_true(span_eq(parse(&source).value, SPAN_LIT("x")));
    }
    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        struct form_source source = source_of(HTTP_PUT, NULL, others[i], "value=x&ttl=bad;%zz");
        assert_int_equal(parse(&source).value.bytes, 0);
    }
    struct form_source absent = source_of(HTTP_PUT, NULL, NULL, "value=x;");
    assert_int_equal(parse(&absent).value.bytes, 0);
    struct form_source of_delete = source_of(HTTP_DELETE, NULL, form_type, "prevValue=x;");
    assert_false(parse(&of_delete).has_prev_value);
}

static void the_body_beats_the_query_and_the_first_value_counts(void **state)
{
    (void)state;
    assert_true(span_eq(parse_put("value=q", "value=b&value=c").value, SPAN_LIT("b")));
    assert_false(parse_put("dir=x", "dir=false").dir);
    assert_true(span_eq(parse_put("value=q&value=r", "").value, SPAN_LIT("q")));
    assert_int_equal(parse_put("value=q", "value").value.bytes, 0);
    assert_true(parse_put("", "&&=&%64ir=%74rue&").dir);
    assert_true(span_eq(parse_put("", "value=a+%2B=%00").value, span_of("a +=\0", 5)));
    assert_true(span_eq(parse_put("Value=x&VALUE=y", "unknown=%20").value, SPAN_NONE));
}

static void names_the_parameter_that_is_wrong(void **state)
{
    static const char *const bools[] = { "recursive", "sorted", "wait", "dir", "quorum", "stream",
        "noValueOnSuccess" };
    static const char *const bad[] = { "", "yes", "tRue", "2", "+true", "truE", "true+" };
    char query[64];
    char cause[64];

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bools); i++) {
        for (size_t j = 0; j < ARRAY_COUNT(bad); j++) {
            (void)snprintf(query, sizeof query, "%s=%s", bools[i], bad[j]);
            (void)snprintf(cause, sizeof cause, "invalid value for \"%s\"", bools[i]);
            assert_get_error(query, 209, cause);
        }
        assert_get_error(bools[i], 209, cause);
    }
    assert_get_error("prevExist=", 209, "invalid value for prevExist");
    assert_get_error("refresh=maybe", 209, "invalid value for refresh");
    assert_get_error("prevIndex=", 203, "invalid value for \"prevIndex\"");
    assert_get_error("waitIndex=-1", 203, "invalid value for \"waitIndex\"");
    assert_get_error("ttl=1.0", 202, "invalid value for \"ttl\"");
    assert_get_error("prevValue=", 201, "\"prevValue\" cannot be empty");
    assert_put_error("wait=true", NULL, NULL, 209, "\"wait\" can only be used with GET requests");
    struct form_source head = source_of(HTTP_HEAD, "wait=1", NULL, NULL);
    assert_error(&head, 209, "\"wait\" can only be used with GET requests");
    assert_get_error("refresh=true&value=x&ttl=1", 211, "A value was provided on a refresh");
    assert_get_error("refresh=true&ttl=", 212, "No TTL value set");
}

static void checks_in_the_order_of_the_contract(void **state)
{
    /* Each step mends the first error; the next one then shows. */
    static const char *const queries[] = {
        "prevIndex=x&waitIndex=x&recursive=x&sorted=x&wait=x&dir=x&quorum=x&stream=x&prevValue=&"
        "noValueOnSuccess=x&ttl=x&prevExist=x&refresh=x",
        "waitIndex=x&recursive=x&sorted=x&wait=x&dir=x&quorum=x&stream=x&prevValue=&"
        "noValueOnSuccess=x&ttl=x&prevExist=x&refresh=x",
        "recursive=x&sorted=x&wait=x&dir=x&quorum=x&stream=x&prevValue=&noValueOnSuccess=x&ttl=x&"
        "prevExist=x&refresh=x",
        "sorted=x&wait=x&dir=x&quorum=x&stream=x&prevValue=&noValueOnSuccess=x&ttl=x&prevExist=x&"
        "refresh=x",
        "wait=x&dir=x&quorum=x&stream=x&prevValue=&noValueOnSuccess=x&ttl=x&prevExist=x&refresh=x",
        "wait=1&dir=x&quorum=x&stream=x&prevValue=&noValueOnSuccess=x&ttl=x&prevExist=x&refresh=x",
        "wait=1&quorum=x&stream=x&prevValue=&noValueOnSuccess=x&ttl=x&prevExist=x&refresh=x",
        "wait=1&stream=x&prevValue=&noValueOnSuccess=x&ttl=x&prevExist=x&refresh=x",
        "wait=1&prevValue=&noValueOnSuccess=x&ttl=x&prevExist=x&refresh=x",
        "prevValue=&noValueOnSuccess=x&ttl=x&prevExist=x&refresh=x",
        "noValueOnSuccess=x&ttl=x&prevExist=x&refresh=x",
        "ttl=x&prevExist=x&refresh=x",
        "prevExist=x&refresh=x",
        "refresh=x",
        "refresh=1&value=v",
        "refresh=1",
    };
    static const struct {
        unsigned code;
        const char *cause;
    } errors[] = {
        { 203, "invalid value for \"prevIndex\"" },
        { 203, "invalid value for \"waitIndex\"" },
        { 209, "invalid value for \"recursive\"" },
        { 209, "invalid value for \"sorted\"" },
        { 209, "invalid value for \"wait\"" },
        { 209, "invalid value for \"dir\"" },
        { 209, "invalid value for \"quorum\"" },
        { 209, "invalid value for \"stream\"" },
        { 209, "\"wait\" can only be used with GET requests" },
        { 201, "\"prevValue\" cannot be empty" },
        { 209, "invalid value for \"noValueOnSuccess\"" },
        { 202, "invalid value for \"ttl\"" },
        { 209, "invalid value for prevExist" },
        { 209, "invalid value for refresh" },
        { 211, "A value was provided on a refresh" },
        { 212, "No TTL value set" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(queries); i++) {
        assert_put_error(queries[i], NULL, NULL, errors[i].code, errors[i].cause);
    }
}

static void reads_numbers_up_to_the_last_bit(void **state)
{
    (void)state;
    assert_int_equal(parse_get("prevIndex=010").prev_index, 10);
    assert_true(parse_get("waitIndex=18446744073709551615").wait_index == UINT64_MAX);
    assert_get_error("waitIndex=18446744073709551616", 203, "invalid value for \"waitIndex\"");
    assert_get_error("ttl=99999999999999999999", 202, "invalid value for \"ttl\"");
    static const char *const bad[] = { "+1", "%2B1", "0x10", "1_0", "1+", "1e3", "%31%20" };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        char query[64];
        (void)snprintf(query, sizeof query, "prevIndex=%s", bad[i]);
        assert_get_error(query, 203, "invalid value for \"prevIndex\"");
    }
}

static void knows_all_spellings_of_a_bool(void **state)
{
    static const char *const yes[] = { "1", "t", "T", "TRUE", "true", "True" };
    static const char *const no[] = { "0", "f", "F", "FALSE", "false", "False" };
    char query[64];

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(yes); i++) {
        (void)snprintf(query, sizeof query, "dir=%s", yes[i]);
        assert_true(parse_get(query).dir);
        (void)snprintf(query, sizeof query, "dir=%s", no[i]);
        assert_false(parse_get(query).dir);
    }
}

static void empty_is_fine_where_the_contract_says_so(void **state)
{
    (void)state;
    assert_false(parse_put("ttl=", "").has_ttl);
    assert_true(parse_put("ttl=0", "").has_ttl);
    struct form form = parse_put("", "refresh=true&value=&ttl=3");
    assert_true(form.refresh);
    assert_int_equal(form.ttl_s, 3);
}

static struct op op_of(enum http_method method, const char *query)
{
    struct form_source source = source_of(method, query, NULL, NULL);
    struct form form = parse(&source);
    struct op op;

    assert_int_equal(keys_dispatch(method, &form), KEYS_WRITE);
    keys_make_op(method, &form, SPAN_LIT("/k"), &op);
    return op;
}

static void becomes_the_op_of_the_dispatch_table(void **state)
{
    (void)state;
    assert_int_equal(op_of(HTTP_POST, "prevExist=true&prevValue=x").kind, OP_CREATE_IN_ORDER);
    assert_int_equal(op_of(HTTP_PUT, "prevExist=false&prevValue=x&prevIndex=3").kind, OP_CREATE);
    assert_int_equal(op_of(HTTP_PUT, "prevExist=true").kind, OP_UPDATE);
    assert_int_equal(op_of(HTTP_PUT, "prevExist=true&prevIndex=0").kind, OP_UPDATE);
    assert_int_equal(op_of(HTTP_PUT, "prevExist=true&prevIndex=3").kind, OP_COMPARE_AND_SWAP);
    assert_int_equal(op_of(HTTP_PUT, "prevExist=true&prevValue=x").kind, OP_COMPARE_AND_SWAP);
    assert_int_equal(op_of(HTTP_PUT, "prevValue=x").kind, OP_COMPARE_AND_SWAP);
    assert_int_equal(op_of(HTTP_PUT, "prevIndex=0").kind, OP_SET);
    assert_int_equal(op_of(HTTP_PUT, "").kind, OP_SET);
    assert_int_equal(op_of(HTTP_DELETE, "prevExist=true").kind, OP_DELETE);
    assert_int_equal(op_of(HTTP_DELETE, "prevIndex=0&dir=true").kind, OP_DELETE);
    assert_int_equal(op_of(HTTP_DELETE, "prevValue=x&recursive=true").kind, OP_COMPARE_AND_DELETE);
    assert_true(op_of(HTTP_DELETE, "recursive=true&dir=false").dir);
    assert_true(op_of(HTTP_PUT, "refresh=true&ttl=1").refresh);
    assert_false(op_of(HTTP_POST, "refresh=true&ttl=1").refresh);
    assert_false(op_of(HTTP_PUT, "prevExist=false&refresh=true&ttl=1").refresh);
    struct op op = op_of(HTTP_PUT, "ttl=7&value=v&dir=true");
    assert_true(HAS(&op, op_tag_ttl_s) && op.ttl_s == 7 && op.dir);
    op = op_of(HTTP_PUT, "ttl=");
    assert_false(HAS(&op, op_tag_ttl_s));
}

static enum keys_kind kind_of(enum http_method method, const char *query)
{
    struct form_source source = source_of(method, query, NULL, NULL);
    struct form form = parse(&source);
    return keys_dispatch(method, &form);
}

static void dispatches_reads_and_watches(void **state)
{
    (void)state;
    assert_int_equal(kind_of(HTTP_GET, "quorum=true&wait=true"), KEYS_QUORUM_READ);
    assert_int_equal(kind_of(HTTP_GET, "wait=true"), KEYS_WATCH);
    assert_int_equal(kind_of(HTTP_GET, "ttl=9&prevExist=false"), KEYS_READ);
    assert_int_equal(kind_of(HTTP_HEAD, "quorum=true"), KEYS_READ);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_what_is_wrong_with_a_form),
        cmocka_unit_test(a_body_too_large_wins_over_all),
        cmocka_unit_test(reads_a_body_only_where_it_is_a_form),
        cmocka_unit_test(the_body_beats_the_query_and_the_first_value_counts),
        cmocka_unit_test(names_the_parameter_that_is_wrong),
        cmocka_unit_test(checks_in_the_order_of_the_contract),
        cmocka_unit_test(reads_numbers_up_to_the_last_bit),
        cmocka_unit_test(knows_all_spellings_of_a_bool),
        cmocka_unit_test(empty_is_fine_where_the_contract_says_so),
        cmocka_unit_test(becomes_the_op_of_the_dispatch_table),
        cmocka_unit_test(dispatches_reads_and_watches),
    };
    return cmocka_run_group_tests(tests, NULL, free_arena);
}
