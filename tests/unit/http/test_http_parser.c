/* The request parser, without a socket: every request arrives whole and in pieces down to single
 * bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/http/parser.h"

#include "common/buf.h"

enum {
    HEADER_BYTES_MAX = 4096,
    BODY_BYTES_MAX = 64
};

struct run {
    struct http_parser parser;
    enum http_parse result;
    struct buf data;    /* what is left of the request and what follows it */
    unsigned continues; /* how often 100 Continue was asked for */
    size_t held_bytes_max;
};

static void run_fini(struct run *run)
{
    buf_fini(&run->data);
}

/* Feeds `text` in pieces. The memory is moved before each one, and is just large enough, so that a
 * sanitizer sees any pointer that was kept and any read beyond the end. */
static void feed(struct run *run, struct span text, size_t piece)
{
    struct http_parser_rules *rules = http_parser_rules_new(HEADER_BYTES_MAX, BODY_BYTES_MAX);

    *run = (struct run){ .result = HTTP_PARSE_MORE };
    http_parser_reset(&run->parser);
    for (size_t fed = 0; fed < text.bytes && run->result == HTTP_PARSE_MORE;) {
        size_t fresh = MIN(piece, text.bytes - fed);
        uint8_t *moved = xmalloc(run->data.bytes + fresh);
        if (run->data.bytes > 0) {
            memcpy(moved, run->data.data, run->data.bytes);
        }
        memcpy(moved + run->data.bytes, text.data + fed, fresh);
        free(run->data.data);
        run->data = (struct buf){ moved, run->data.bytes + fresh, run->data.bytes + fresh };
        fed += fresh;
        do {
            run->result = http_parser_run(&run->parser, rules, run->data.data, &run->data.bytes);
            run->continues += run->result == HTTP_PARSE_CONTINUE;
        } while (run->result == HTTP_PARSE_CONTINUE);
        run->held_bytes_max = MAX(run->held_bytes_max, run->data.bytes);
    }
    rules = http_parser_rules_free(rules);
}

static const size_t pieces[] = { 1, 2, 3, 5, 16, 1 << 20 };
#define FOREACH_PIECE(piece)                                                                       \
    for (const size_t *piece = pieces; piece < pieces + ARRAY_COUNT(pieces); piece++)

static struct span part(const struct run *run, struct http_part p)
{
    return span_of(run->data.data + p.offset, p.bytes);
}

static void assert_span(struct span actual, const char *expected)
{
    assert_int_equal(actual.bytes, strlen(expected));
    assert_memory_equal(actual.data, expected, actual.bytes);
}

struct accepted {
    const char *text;
    const char *method;
    const char *target;
    const char *host;
    const char *body;
    const char *rest;
    bool is_keep_alive;
};

static const struct accepted accepted[] = {
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", "a", "", "", true },
    { "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b", "GET", "/", "a", "", "GET /b", true },
    { "\r\nGET / HTTP/1.1\r\nHost:\r\n\r\n", "GET", "/", "", "", "", true },
    { "get /%zz?\xff HTTP/1.9\r\nhOsT: \ta:1 \r\n\r\n", "get", "/%zz?\xff", "a:1", "", "", true },
    { "PUT /k HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nvalue=1GET", "PUT", "/k", "a",
            "value=1", "GET", true },
    { "PUT /k HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET", "PUT", "/k", "a", "", "GET",
            true },
    { "PUT /k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
      "Chunked\r\n\r\n5\r\nvalue\r\n0002;x=\"y\"\r\n=1\r\n0\r\n\r\nG",
            "PUT", "/k", "a", "value=1", "G", true },
    { "PUT /k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
      "chunked\r\n\r\nA\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\nG",
            "PUT", "/k", "a", "0123456789", "G", true },
    { "PUT /k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "PUT", "/k", "a",
            "", "", true },
    { "GET / HTTP/1.0\r\n\r\n", "GET", "/", "", "", "", false },
    { "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET", "/", "", "", "", true },
    { "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nrest", "GET", "/", "a", "", "rest",
            false },
    { "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\nConnection: keep-alive\r\n\r\n", "GET",
            "/", "a", "", "", false },
    { "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nrest", "GET", "/",
            "a", "", "rest", true },
    { "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: "
      "2\r\n\r\nabc",
            "POST", "/", "a", "ab", "c", true },
    { "CONNECT a:80 HTTP/1.1\r\n\r\nrest", "CONNECT", "a:80", "", "", "rest", true },
    { "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", "*", "a", "", "", true },
    { "GET http://b/c?d HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "http://b/c?d", "a", "", "", true },
    { "GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xbc\r\nEmpty:\r\n\r\n", "GET", "/", "a", "", "", true },
};

static void valid_requests_are_read_alike_in_any_pieces(void **state UNUSED)
{
    for (const struct accepted *a = accepted; a < accepted + ARRAY_COUNT(accepted); a++) {
        FOREACH_PIECE(piece)
        {
            struct run run;
            feed(&run, span_str(a->text), *piece);
            assert_int_equal(run.result, HTTP_PARSE_WHOLE);
            assert_span(part(&run, run.parser.method), a->method);
            assert_span(part(&run, run.parser.target), a->target);
            assert_span(part(&run, run.parser.host), a->host);
            assert_span(part(&run, run.parser.body), a->body);
            assert_int_equal(run.parser.is_keep_alive, a->is_keep_alive);
            struct span rest = span_from(buf_span(&run.data), run.parser.end);
            assert_true(span_starts_with(span_str(a->rest), rest));
            run_fini(&run);
        }
    }
}

struct refused {
    const char *text;
    const char *refusal;
};

#define HEAD "PUT / HTTP/1.1\r\nHost: a\r\n"
#define BAD  "400 Bad Request"

static const struct refused refused[] = {
    { "garbage\r\n\r\n", BAD },
    { "\x16\x03\x01\x02", BAD }, /* TLS: no newline needed */
    { " GET / HTTP/1.1\r\n\r\n", BAD },
    { "\r\n\r\n\r\n\r\n\r\n\r\n", BAD },
    { "GET /\r\n\r\n", BAD },
    { "GET / HTTP/1.1\n", BAD },
    { "GET  / HTTP/1.1\r\n", BAD },
    { "GET / b HTTP/1.1\r\n", BAD },
    { "GET /\x01 HTTP/1.1\r\n", BAD },
    { "GET a/b HTTP/1.1\r\n", BAD },
    { "GET mailto:a HTTP/1.1\r\n", BAD },
    { "GET / HTTP/1.1 \r\n", BAD },
    { "GET / HTTP/11\r\n", BAD },
    { "GET / http/1.1\r\n", BAD },
    { "GET / HTTP/2.0\r\n", "505 HTTP Version Not Supported: unsupported protocol version" },
    { "GET / HTTP/1.1\r\n\r\n", "400 Bad Request: missing required Host header" },
    { "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BAD },
    { "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400 Bad Request: malformed Host header" },
    { HEAD "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", BAD },
    { HEAD "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", BAD },
    { HEAD "Content-Length: 1, 1\r\n\r\n", BAD },
    { HEAD "Content-Length: +1\r\n\r\n", BAD },
    { HEAD "Content-Length: -1\r\n\r\n", BAD },
    { HEAD "Content-Length: 0x1\r\n\r\n", BAD },
    { HEAD "Content-Length: 99999999999999999999\r\n\r\n", BAD },
    { HEAD "Content-Length:\r\n\r\n", BAD },
    { HEAD "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", BAD },
    { HEAD "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", BAD },
    { HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n", "501 Not Implemented" },
    { HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BAD },
    { "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", BAD },
    { HEAD "X: a\r\n b\r\n\r\n", BAD },
    { "GET / HTTP/1.1\r\n Host: a\r\n\r\n", BAD },
    { HEAD "X : a\r\n\r\n", "400 Bad Request: invalid header name" },
    { HEAD "X\xc3: a\r\n\r\n", "400 Bad Request: invalid header name" },
    { HEAD "X: a\x01\r\n\r\n", "400 Bad Request: invalid header value" },
    { HEAD "X: a\r\rb\r\n\r\n", BAD },
    { HEAD "X: a\nY: b\r\n\r\n", BAD },
    { HEAD "X: a\r\n\n", BAD },
    { HEAD "Xa\r\n\r\n", BAD },
    { HEAD ": a\r\n\r\n", NULL },
    { HEAD "Expect: miracles\r\n\r\n", "417 Expectation Failed" },
    { HEAD "Transfer-Encoding: chunked\r\n\r\nzz\r\n", BAD },
    { HEAD "Transfer-Encoding: chunked\r\n\r\n-1\r\n", BAD },
    { HEAD "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", BAD },
    { HEAD "Transfer-Encoding: chunked\r\n\r\n1\na\r\n", BAD },
    { HEAD "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", BAD },
};

static void ambiguous_and_malformed_requests_are_refused_in_any_pieces(void **state UNUSED)
{
    for (const struct refused *r = refused; r < refused + ARRAY_COUNT(refused); r++) {
        FOREACH_PIECE(piece)
        {
            struct run run;
            feed(&run, span_str(r->text), *piece);
            if (run.result != HTTP_PARSE_REFUSED) {
                fail_msg("not refused in pieces of %zu: %s", *piece, r->text);
            }
            if (r->refusal != NULL && strcmp(run.parser.refusal, r->refusal) != 0) {
                fail_msg("refused with '%s' in pieces of %zu: %s", run.parser.refusal, *piece,
                        r->text);
            }
            run_fini(&run);
        }
    }
}

static void no_prefix_of_a_request_is_whole(void **state UNUSED)
{
    struct span text =
            SPAN_LIT(HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nvalue\r\n0\r\nT: t\r\n\r\n");

    for (size_t bytes = 1; bytes <= text.bytes; bytes++) {
        struct run run;
        feed(&run, span_of(text.data, bytes), 4);
        assert_int_equal(run.result, bytes < text.bytes ? HTTP_PARSE_MORE : HTTP_PARSE_WHOLE);
        run_fini(&run);
    }
}

static void header_block_may_be_as_long_as_the_limit_and_no_longer(void **state UNUSED)
{
    struct span head = SPAN_LIT("GET / HTTP/1.1\r\nHost: a\r\nX: ");

    for (size_t extra = 0; extra < 2; extra++) {
        FOREACH_PIECE(piece)
        {
            struct buf text = BUF_INIT;
            struct run run;
            buf_append_span(&text, head);
            while (text.bytes < HEADER_BYTES_MAX + extra - 4) {
                buf_append_byte(&text, 'x');
            }
            buf_append_str(&text, "\r\n\r\n");
            feed(&run, buf_span(&text), *piece);
            assert_int_equal(run.result, extra == 0 ? HTTP_PARSE_WHOLE : HTTP_PARSE_REFUSED);
            if (extra > 0) {
                assert_string_equal(run.parser.refusal, "431 Request Header Fields Too Large");
            }
            run_fini(&run);
            buf_fini(&text);
        }
    }
}

static void endless_request_line_is_refused(void **state UNUSED)
{
    struct buf text = BUF_INIT;
    struct run run;

    buf_append_str(&text, "GET /");
    while (text.bytes <= HEADER_BYTES_MAX) {
        buf_append_byte(&text, 'x');
    }
    feed(&run, buf_span(&text), 100);
    assert_int_equal(run.result, HTTP_PARSE_REFUSED);
    assert_string_equal(run.parser.refusal, "431 Request Header Fields Too Large");
    run_fini(&run);
    buf_fini(&text);
}

static void append_body(struct buf *text, size_t bytes, bool is_chunked)
{
    buf_append_str(text, HEAD);
    if (!is_chunked) {
        buf_appendf(text, "Content-Length: %zu\r\n\r\n", bytes);
    } else {
        buf_append_str(text, "Transfer-Encoding: chunked\r\n\r\n");
    }
    for (size_t i = 0; i < bytes; i++) {
        buf_append_str(text, is_chunked ? "1\r\nb\r\n" : "b");
    }
    buf_append_str(text, is_chunked ? "0\r\n\r\n" : "");
    buf_append_str(text, "NEXT");
}

static void too_large_body_is_dropped_and_the_next_request_found(void **state UNUSED)
{
    for (int is_chunked = 0; is_chunked < 2; is_chunked++) {
        for (size_t bytes = BODY_BYTES_MAX - 1; bytes < BODY_BYTES_MAX + 2000;
                bytes += bytes < BODY_BYTES_MAX + 2 ? 1 : 1000) {
            FOREACH_PIECE(piece)
            {
                struct buf text = BUF_INIT;
                struct run run;
                append_body(&text, bytes, is_chunked != 0);
                feed(&run, buf_span(&text), *piece);
                assert_int_equal(run.result, HTTP_PARSE_WHOLE);
                assert_int_equal(run.parser.is_body_too_large, bytes > BODY_BYTES_MAX);
                assert_int_equal(run.parser.body.bytes, bytes > BODY_BYTES_MAX ? 0 : bytes);
                assert_int_equal(run.parser.body_seen, bytes);
                struct span rest = span_from(buf_span(&run.data), run.parser.end);
                assert_true(span_starts_with(SPAN_LIT("NEXT"), rest));
                if (*piece <= 16) { /* held: header, body up to the limit, one piece */
                    assert_true(run.held_bytes_max < 200 + BODY_BYTES_MAX);
                }
                run_fini(&run);
                buf_fini(&text);
            }
        }
    }
}

static void chunk_framing_without_end_is_refused(void **state UNUSED)
{
    struct buf text = BUF_INIT;
    struct run run;

    buf_append_str(&text, HEAD "Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n");
    for (int i = 0; i < 20000; i++) {
        buf_append_str(&text, "Trailer: t\r\n");
    }
    feed(&run, buf_span(&text), 512);
    assert_int_equal(run.result, HTTP_PARSE_REFUSED);
    run_fini(&run);
    buf_fini(&text);
}

static unsigned continues_of(const char *text)
{
    struct run run;
    unsigned continues;

    feed(&run, span_str(text), 1);
    continues = run.continues;
    run_fini(&run);
    return continues;
}

static void continue_is_asked_for_once_where_a_body_follows(void **state UNUSED)
{
    assert_int_equal(continues_of(HEAD "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n"), 1);
    assert_int_equal(continues_of(HEAD "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab"), 1);
    assert_int_equal(
            continues_of(HEAD "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"), 1);
    assert_int_equal(continues_of(HEAD "Expect: 100-continue\r\n\r\n"), 0);
    assert_int_equal(continues_of(HEAD "Content-Length: 1\r\n\r\n"), 0);
    assert_int_equal(
            continues_of("PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"), 0);
}

static void http2_preface_is_told_apart(void **state UNUSED)
{
    FOREACH_PIECE(piece)
    {
        struct run run;
        feed(&run, SPAN_LIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), *piece);
        assert_int_equal(run.result, HTTP_PARSE_HTTP2);
        run_fini(&run);
    }
}

static void headers_are_found_whatever_their_case_and_blanks(void **state UNUSED)
{
    struct span headers = SPAN_LIT("Host: a\r\nX-Thing:  one \r\nx-thing: two\r\nEmpty:\r\n");

    assert_span(http_headers_find(headers, SPAN_LIT("x-thing")), "one");
    assert_span(http_headers_find(headers, SPAN_LIT("host")), "a");
    assert_non_null(http_headers_find(headers, SPAN_LIT("empty")).data);
    assert_int_equal(http_headers_find(headers, SPAN_LIT("empty")).bytes, 0);
    assert_null(http_headers_find(headers, SPAN_LIT("thing")).data);
    assert_null(http_headers_find(headers, SPAN_LIT("x-thin")).data);
    assert_null(http_headers_find(SPAN_NONE, SPAN_LIT("host")).data);
}

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* What a byte stream means may not depend on how the network cut it, whatever the bytes are. */
static void damaged_requests_mean_the_same_whole_and_in_pieces(void **state UNUSED)
{
    uint32_t seed = 20;

    for (int round = 0; round < 20000; round++) {
        const struct accepted *a = &accepted[next_random(&seed) % ARRAY_COUNT(accepted)];
        struct buf text = BUF_INIT;
        struct run whole;
        struct run cut;
        buf_append_str(&text, a->text);
        for (uint32_t i = next_random(&seed) % 3; i < 3; i++) {
            static const char interesting[] = "\r\n :;,0a\t\x01\xff";
            text.data[next_random(&seed) % text.bytes] =
                    (uint8_t)interesting[next_random(&seed) % (sizeof interesting - 1)];
        }
        feed(&whole, buf_span(&text), text.bytes);
        feed(&cut, buf_span(&text), 1 + next_random(&seed) % 3);
        if (whole.result != cut.result) {
            fail_msg("%d whole, %d in pieces: %.*s", (int)whole.result, (int)cut.result,
                    (int)text.bytes, text.data);
        }
        if (whole.result == HTTP_PARSE_WHOLE) {
            assert_int_equal(whole.parser.is_keep_alive, cut.parser.is_keep_alive);
            assert_true(span_eq(part(&whole, whole.parser.body), part(&cut, cut.parser.body)));
            assert_true(
                    span_eq(part(&whole, whole.parser.headers), part(&cut, cut.parser.headers)));
        }
        run_fini(&whole);
        run_fini(&cut);
        buf_fini(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_requests_are_read_alike_in_any_pieces),
        cmocka_unit_test(ambiguous_and_malformed_requests_are_refused_in_any_pieces),
        cmocka_unit_test(no_prefix_of_a_request_is_whole),
        cmocka_unit_test(header_block_may_be_as_long_as_the_limit_and_no_longer),
        cmocka_unit_test(endless_request_line_is_refused),
        cmocka_unit_test(too_large_body_is_dropped_and_the_next_request_found),
        cmocka_unit_test(chunk_framing_without_end_is_refused),
        cmocka_unit_test(continue_is_asked_for_once_where_a_body_follows),
        cmocka_unit_test(http2_preface_is_told_apart),
        cmocka_unit_test(headers_are_found_whatever_their_case_and_blanks),
        cmocka_unit_test(damaged_requests_mean_the_same_whole_and_in_pieces),
    };

    return cmocka_run_group_tests_name("http_parser", tests, NULL, NULL);
}
