/* Paths: the rows of the cleaning table, and what a redirect says. */
#include "daemons/gatewayd/v2/path.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemons/gatewayd/arena.h"
#include "daemons/gatewayd/route.h"

static struct arena arena;

static int free_arena(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void assert_span(struct span got, const char *expected)
{
    struct span want = span_str(expected);
    if (!span_eq(got, want)) {
        print_error("got %.*s, want %s\n", (int)got.bytes, (const char *)got.data, expected);
    }
    assert_true(span_eq(got, want));
}

/* What the server does with a target's path: decode, then serve (NULL) or redirect. */
static void assert_target(const char *raw, const char *query, const char *location)
{
    struct span path;
    struct span bad;
    struct buf out = BUF_INIT;

    assert_int_equal(path_decode(&arena, span_str(raw), false, &path, &bad), 0);
    assert_int_equal(path_is_clean(path), location == NULL);
    struct span clean = path_clean(&arena, path);
    assert_true(path_is_clean(clean));
    if (location == NULL) {
        assert_true(span_eq(clean, path));
    } else {
        path_append_location(&out, clean, query == NULL ? SPAN_NONE : span_str(query));
        assert_span(buf_span(&out), location);
    }
    buf_fini(&out);
}

static void cleans_each_row_of_the_table(void **state)
{
    (void)state;
    assert_target("/v2/keys//foo", NULL, "/v2/keys/foo");
    assert_target("/v2/keys/./foo", NULL, "/v2/keys/foo");
    assert_target("/v2/keys/a/../foo", NULL, "/v2/keys/foo");
    assert_target("/v2/keys/a/%2e%2e/foo", NULL, "/v2/keys/foo");
    assert_target("/v2//keys/foo", NULL, "/v2/keys/foo");
    assert_target("//v2/keys/foo", NULL, "/v2/keys/foo");
    assert_target("/v2/keys/foo/.", NULL, "/v2/keys/foo");
    assert_target("/v2/keys/a%2F%2Fb", NULL, "/v2/keys/a/b");
    assert_target("/v2/keys/foo//", NULL, "/v2/keys/foo/");
    assert_target("/v2/keys/..", NULL, "/v2");
    assert_target("/v2/keys/../../foo", NULL, "/foo");
    assert_target("/v2/keys/../../../..", NULL, "/");
    assert_target("/v2/keys/%2e", NULL, "/v2/keys");
    assert_target("/v2/keys/a/../", NULL, "/v2/keys/");
    assert_target("/v2/keys//a%20b%3Fc", "x=%20", "/v2/keys/a%20b%3Fc?x=%20");
    assert_target("", NULL, "/");
}

static void serves_clean_paths_as_they_are(void **state)
{
    (void)state;
    assert_target("/", NULL, NULL);
    assert_target("/v2/keys/foo/", NULL, NULL);
    assert_target("/v2/keys/...", NULL, NULL);
    assert_target("/v2/keys/.a/a./..b", NULL, NULL);
    assert_target("/v2/keys/%00%ff", NULL, NULL);
}

static void escapes_a_location_as_the_reference(void **state)
{
    (void)state;
    assert_target("/v2/keys//%00%01%7f%80%ff!\"$&'()*+,;:=@[]^`{|}~-._", NULL,
            "/v2/keys/%00%01%7F%80%FF%21%22$&%27%28%29%2A+,;:=@%5B%5D%5E%60%7B%7C%7D~-._");
    assert_target("/v2/keys//a", "\xe9", "/v2/keys/a?%e9");
    assert_target("/v2/keys//a", "", "/v2/keys/a");
    assert_target("/v2/keys//a", "x=//b%zz", "/v2/keys/a?x=//b%zz");
}

static void escapes_an_anchor_for_html(void **state)
{
    struct buf out = BUF_INIT;

    (void)state;
    path_append_anchor(&out, SPAN_LIT("/a&b"), SPAN_LIT("?\"<>'&x"));
    assert_span(buf_span(&out),
            "<a href=\"/a&amp;b??&#34;&lt;&gt;&#39;&amp;x\">Moved Permanently</a>.\n\n");
    buf_fini(&out);
}

static void refuses_bad_escapes_and_names_them(void **state)
{
    struct span text;
    struct span bad;

    (void)state;
    assert_int_equal(path_decode(&arena, SPAN_LIT("/a%zzb"), false, &text, &bad), -EBADMSG);
    assert_span(bad, "%zz");
    assert_int_equal(path_decode(&arena, SPAN_LIT("/a%4"), false, &text, &bad), -EBADMSG);
    assert_span(bad, "%4");
    assert_int_equal(path_decode(&arena, SPAN_LIT("%"), false, &text, &bad), -EBADMSG);
    assert_span(bad, "%");
    assert_int_equal(path_decode(&arena, SPAN_LIT("%4g1"), false, &text, &bad), -EBADMSG);
    assert_span(bad, "%4g");
}

static void decodes_plus_only_in_forms(void **state)
{
    struct span text;
    struct span bad;

    (void)state;
    assert_int_equal(path_decode(&arena, SPAN_LIT("a+%2B"), false, &text, &bad), 0);
    assert_span(text, "a++");
    assert_int_equal(path_decode(&arena, SPAN_LIT("a+%2b"), true, &text, &bad), 0);
    assert_span(text, "a +");
}

static void a_key_has_no_trailing_slash(void **state)
{
    (void)state;
    assert_span(path_key(SPAN_LIT("/v2/keys")), "/");
    assert_span(path_key(SPAN_LIT("/v2/keys/")), "/");
    assert_span(path_key(SPAN_LIT("/v2/keys/a/b/")), "/a/b");
    assert_span(path_key(SPAN_LIT("/v2/keys/a")), "/a");
}

/* Cleaning is idempotent, and what is clean is what cleaning leaves alone. */
static void cleaning_settles_on_random_paths(void **state)
{
    static const char *const parts[] = { "/", "//", ".", "..", "...", "a", "_b", "/./", "/../" };
    unsigned short seed[3] = { 4, 5, 6 };

    (void)state;
    for (int round = 0; round < 20000; round++) {
        struct buf raw = BUF_INIT;
        for (long count = nrand48(seed) % 8; count >= 0; count--) {
            buf_append_str(&raw, parts[nrand48(seed) % (long)ARRAY_COUNT(parts)]);
        }
        struct span clean = path_clean(&arena, buf_span(&raw));
        assert_true(path_is_clean(clean));
        assert_true(span_eq(path_clean(&arena, clean), clean));
        assert_int_equal(path_is_clean(buf_span(&raw)), span_eq(buf_span(&raw), clean));
        arena_reset(&arena);
        buf_fini(&raw);
    }
}

static void assert_route(
        const char *path, enum http_method method, enum route route, const char *allow)
{
    const char *got;
    assert_int_equal(route_find(span_str(path), method, &got), route);
    if (allow == NULL) {
        assert_null(got);
    } else {
        assert_non_null(got);
        assert_string_equal(got, allow);
    }
}

static void routes_each_row_of_the_table(void **state)
{
    static const char keys[] = "HEAD,GET,PUT,POST,DELETE";
    static const char members[] = "GET,POST,DELETE,PUT";
    static const char *const missing[] = { "/", "/v2", "/v2/", "/v2/keysfoo", "/v2/leader",
        "/v2/stats", "/v2/stats/", "/v2/machines/", "/v2/auth", "/v2/auth/", "/v2/auth/enable/",
        "/version/", "/v1/keys", "/v2/auth/rolesx", "/v3", "/debug/pprof" };

    (void)state;
    assert_route("/v2/keys", HTTP_HEAD, ROUTE_KEYS, NULL);
    assert_route("/v2/keys/", HTTP_POST, ROUTE_KEYS, NULL);
    assert_route("/v2/keys/a", HTTP_OTHER, ROUTE_KEYS, keys);
    assert_route("/v2/members", HTTP_HEAD, ROUTE_MEMBERS, members);
    assert_route("/v2/members/x/y", HTTP_PUT, ROUTE_MEMBERS, NULL);
    assert_route("/v2/machines", HTTP_HEAD, ROUTE_MACHINES, NULL);
    assert_route("/v2/machines", HTTP_PUT, ROUTE_MACHINES, "GET,HEAD");
    assert_route("/v2/stats/store", HTTP_HEAD, ROUTE_STATS_STORE, "GET");
    assert_route("/v2/stats/self", HTTP_GET, ROUTE_STATS_SELF, NULL);
    assert_route("/v2/stats/leader", HTTP_GET, ROUTE_STATS_LEADER, NULL);
    assert_route("/v2/auth/roles", HTTP_PUT, ROUTE_AUTH_ROLES, "GET");
    assert_route("/v2/auth/roles/", HTTP_PUT, ROUTE_AUTH_ROLES, "GET");
    assert_route("/v2/auth/roles/a", HTTP_PUT, ROUTE_AUTH_ROLES, NULL);
    assert_route("/v2/auth/users/a", HTTP_POST, ROUTE_AUTH_USERS, "GET,PUT,DELETE");
    assert_route("/v2/auth/enable", HTTP_POST, ROUTE_AUTH_ENABLE, "GET,PUT,DELETE");
    assert_route("/version", HTTP_HEAD, ROUTE_VERSION, "GET");
    assert_route("/health", HTTP_POST, ROUTE_HEALTH, "GET");
    assert_route("/debug/vars", HTTP_GET, ROUTE_DEBUG_VARS, NULL);
    assert_route("/metrics", HTTP_OTHER, ROUTE_METRICS, NULL);
    assert_route("/config/local/log", HTTP_GET, ROUTE_LOG_LEVEL, "PUT");
    assert_route("/v3/kv/range", HTTP_POST, ROUTE_V3, NULL);
    assert_route("/v3beta/kv/put", HTTP_POST, ROUTE_V3, NULL);
    for (size_t i = 0; i < ARRAY_COUNT(missing); i++) {
        assert_route(missing[i], HTTP_GET, ROUTE_NONE, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cleans_each_row_of_the_table),
        cmocka_unit_test(serves_clean_paths_as_they_are),
        cmocka_unit_test(escapes_a_location_as_the_reference),
        cmocka_unit_test(escapes_an_anchor_for_html),
        cmocka_unit_test(refuses_bad_escapes_and_names_them),
        cmocka_unit_test(decodes_plus_only_in_forms),
        cmocka_unit_test(a_key_has_no_trailing_slash),
        cmocka_unit_test(cleaning_settles_on_random_paths),
        cmocka_unit_test(routes_each_row_of_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, free_arena);
}
