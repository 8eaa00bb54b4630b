/* test_url.c: which URLs flags take, what they mean, when two are the same place, what of them stays out of logs. */
#include "common/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void good_urls_are_taken_apart(void **state)
{
    static const struct {
        const char *text;
        enum url_scheme scheme;
        const char *host;
        uint16_t port;
    } rows[] = {
        { "http://localhost:2379", URL_SCHEME_HTTP, "localhost", 2379 },
        { "https://10.0.0.1:1", URL_SCHEME_HTTPS, "10.0.0.1", 1 },
        { "http://[::1]:65535", URL_SCHEME_HTTP, "::1", 65535 },
        { "http://[fe80::1%eth0]:80", URL_SCHEME_HTTP, "fe80::1%eth0", 80 },
        { "http://:2379", URL_SCHEME_HTTP, "", 2379 },
        { "http://[::]:2379", URL_SCHEME_HTTP, "::", 2379 },
        { "HTTP://a-b.example_1.com:080", URL_SCHEME_HTTP, "a-b.example_1.com", 80 },
    };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct url url;
        struct err err = { 0, "" };
        assert_int_equal(url_parse(rows[i].text, URL_KIND_TCP, &url, &err), 0);
        assert_int_equal(url.scheme, rows[i].scheme);
        assert_string_equal(url.host, rows[i].host);
        assert_int_equal(url.port, rows[i].port);
    }
}

static void bad_urls_are_refused_with_the_known_words(void **state)
{
    static const char scheme[] = "URL scheme must be http or https: ";
    static const char form[] = "URL address does not have the form \"host:port\": ";
    static const char path[] = "URL must not contain a path: ";
    static const struct {
        const char *text;
        const char *reason;
    } rows[] = {
        { "", scheme },
        { "localhost:2379", scheme },
        { "ftp://localhost:2379", scheme },
        { "http:/localhost:2379", scheme },
        { "unix:///tmp/socket", scheme },
        { "http://localhost", form },
        { "http://localhost:", form },
        { "http://", form },
        { "http://localhost:port", form },
        { "http://localhost:0", form },
        { "http://localhost:65536", form },
        { "http://localhost:123456", form },
        { "http://localhost:-1", form },
        { "http://::1:2379", form },
        { "http://[::1:2379", form },
        { "http://[nonsense]:2379", form },
        { "http://a b:2379", form },
        { "http://localhost:2379/", path },
        { "http://localhost:2379/v2", path },
        { "http://localhost:2379?x=1", "URL must not contain a query or fragment: " },
        { "http://localhost:2379#x", "URL must not contain a query or fragment: " },
    };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct url url = { .port = 77 };
        struct err err = { 0, "" };
        assert_true(url_parse(rows[i].text, URL_KIND_TCP, &url, &err) < 0);
        assert_memory_equal(err.text, rows[i].reason, strlen(rows[i].reason));
        assert_string_equal(err.text + strlen(rows[i].reason), rows[i].text);
        assert_int_equal(url.port, 77);
    }
}

static void long_hosts_and_paths_are_refused(void **state)
{
    char text[4096];
    struct url url;
    (void)state;

    for (size_t bytes = 200; bytes < 3000; bytes += 100) {
        memset(text, 'a', sizeof text);
        memcpy(text, "http://", 7);
        memcpy(text + 7 + bytes, ":80", 4);
        assert_int_equal(url_parse(text, URL_KIND_TCP, &url, NULL) == 0, bytes < URL_HOST_BYTES);
        memset(text, 'a', sizeof text);
        memcpy(text, "unix://", 7);
        text[7 + bytes] = '\0';
        assert_int_equal(
                url_parse(text, URL_KIND_TCP_OR_UNIX, &url, NULL) == 0, bytes < URL_PATH_BYTES);
    }
}

static void user_and_password_are_refused_and_not_repeated(void **state)
{
    struct url url;
    struct err err = { 0, "" };
    (void)state;

    assert_true(url_parse("http://root:secret@localhost:1", URL_KIND_TCP, &url, &err) < 0);
    assert_null(strstr(err.text, "secret"));
}

static void unix_sockets_are_for_clients_only(void **state)
{
    struct url url;
    (void)state;

    assert_int_equal(url_parse("unix:///tmp/a.sock", URL_KIND_TCP_OR_UNIX, &url, NULL), 0);
    assert_true(url_is_unix(&url));
    assert_false(url_is_tls(&url));
    assert_string_equal(url.path, "/tmp/a.sock");
    assert_int_equal(url_parse("unixs://name:80", URL_KIND_TCP_OR_UNIX, &url, NULL), 0);
    assert_true(url_is_tls(&url));
    assert_string_equal(url.path, "name:80");
    assert_true(url_parse("unix://", URL_KIND_TCP_OR_UNIX, &url, NULL) < 0);
}

static void tls_is_told_by_the_scheme(void **state)
{
    char *none[] = { (char[]){ "http://a:1" }, (char[]){ "unix://s" }, (char[]){ "https" } };
    char *some[] = { (char[]){ "http://a:1" }, (char[]){ "HTTPS://a" } };
    char *file[] = { (char[]){ "unixs://s" } };
    (void)state;

    assert_false(url_any_is_tls(none, ARRAY_COUNT(none)));
    assert_true(url_any_is_tls(some, ARRAY_COUNT(some)));
    assert_true(url_any_is_tls(file, ARRAY_COUNT(file)));
    assert_false(url_any_is_tls(NULL, 0));
}

static void loopback_is_told_from_the_open(void **state)
{
    static const char *const closed[] = { "http://localhost:1", "http://127.0.0.1:1",
        "http://127.9.9.9:1", "http://[::1]:1", "unix:///x" };
    static const char *const open[] = { "http://:1", "http://0.0.0.0:1", "http://[::]:1",
        "http://10.0.0.1:1", "http://example.org:1", "http://128.0.0.1:1" };
    struct url url;
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(closed); i++) {
        assert_int_equal(url_parse(closed[i], URL_KIND_TCP_OR_UNIX, &url, NULL), 0);
        assert_true(url_is_loopback(&url));
    }
    for (size_t i = 0; i < ARRAY_COUNT(open); i++) {
        assert_int_equal(url_parse(open[i], URL_KIND_TCP_OR_UNIX, &url, NULL), 0);
        assert_false(url_is_loopback(&url));
    }
}

static void equality_keeps_localhost_and_literals_apart(void **state)
{
    (void)state;
    assert_true(url_equal("http://127.0.0.1:1", "http://127.0.0.1:1"));
    assert_false(url_equal("http://localhost:1", "http://127.0.0.1:1"));
    assert_false(url_equal("http://127.0.0.1:1", "https://127.0.0.1:1"));
    assert_false(url_equal("http://127.0.0.1:1", "http://127.0.0.1:2"));
    assert_false(url_equal("http://no-such-host.invalid:1", "http://127.0.0.1:1"));
    assert_false(url_equal("nonsense", "http://127.0.0.1:1"));
}

static void secrets_are_masked(void **state)
{
    static const struct {
        const char *text;
        const char *masked;
    } rows[] = {
        { "https://discovery.etcd.io/3e86b59982e49066c5d813af1c2e2579cbf573de",
                "https://discovery.etcd.io/***" },
        { "http://user:pw@proxy:3128", "http://***@proxy:3128" },
        { "http://a:1,http://b:2", "http://a:1,http://b:2" },
        { "http://a:1/x,http://b:2/y", "http://a:1/***,http://b:2/***" },
        { "ETCD_FOO=http://h/secret?token=t", "ETCD_FOO=http://h/***" },
        { "http://h?token=t", "http://h/***" },
        { "unix:///tmp/a.sock,http://h/t", "unix:///tmp/a.sock,http://h/***" },
        { "a=http://h:1,b=http://i:2", "a=http://h:1,b=http://i:2" },
        { "plain", "plain" },
        { "", "" },
    };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        char *masked = url_mask(rows[i].text);
        assert_string_equal(masked, rows[i].masked);
        free(masked);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_urls_are_taken_apart),
        cmocka_unit_test(bad_urls_are_refused_with_the_known_words),
        cmocka_unit_test(long_hosts_and_paths_are_refused),
        cmocka_unit_test(user_and_password_are_refused_and_not_repeated),
        cmocka_unit_test(unix_sockets_are_for_clients_only),
        cmocka_unit_test(tls_is_told_by_the_scheme),
        cmocka_unit_test(loopback_is_told_from_the_open),
        cmocka_unit_test(equality_keeps_localhost_and_literals_apart),
        cmocka_unit_test(secrets_are_masked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
