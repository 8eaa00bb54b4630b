/* The bytes of answers: heads in Go's order, chunks, refusals, dates, and the word to HTTP/2
 * clients. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/http/h2.h"
#include "common/http/pool.h"
#include "common/http/response.h"
#include "common/http/server.h"

#define DATE "Sun, 22 Nov 2026 08:38:35 GMT"

static void assert_buf(const struct buf *buf, const char *expected)
{
    assert_int_equal(buf->bytes, strlen(expected));
    assert_memory_equal(buf->data, expected, buf->bytes);
}

static void head_lines_stand_where_go_puts_them(void **state UNUSED)
{
    struct buf out = BUF_INIT;

    http_head_append(&out, &(struct http_head){
                                   .minor = 1,
                                   .status = 404,
                                   .lines = SPAN_LIT("A: 1\r\nX-B: 2\r\n"),
                                   .late_lines = SPAN_LIT("Content-Type: text/plain\r\n"),
                                   .date = DATE,
                                   .framing = HTTP_FRAMING_LENGTH,
                                   .body_bytes = 1234567890123,
                                   .connection = "close",
                           });
    assert_buf(&out, "HTTP/1.1 404 Not Found\r\nA: 1\r\nX-B: 2\r\nDate: " DATE
                     "\r\nContent-Length: 1234567890123\r\n"
                     "Content-Type: text/plain\r\nConnection: close\r\n\r\n");
    buf_clear(&out);
    http_head_append(&out, &(struct http_head){
                                   .minor = 1,
                                   .status = 200,
                                   .date = DATE,
                                   .framing = HTTP_FRAMING_CHUNKED,
                                   .connection = "close",
                           });
    assert_buf(&out, "HTTP/1.1 200 OK\r\nDate: " DATE
                     "\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    buf_clear(&out);
    http_head_append(&out, &(struct http_head){ .minor = 0, .status = 299, .date = DATE });
    assert_buf(&out, "HTTP/1.0 299 status code unknown\r\nDate: " DATE "\r\n\r\n");
    buf_fini(&out);
}

static void chunks_bear_their_size_in_hex(void **state UNUSED)
{
    struct buf out = BUF_INIT;
    uint8_t data[0xc0f];

    memset(data, 'a', sizeof data);
    http_chunk_append(&out, SPAN_LIT("0123456789abcdef"));
    assert_buf(&out, "10\r\n0123456789abcdef\r\n");
    buf_clear(&out);
    http_chunk_append(&out, span_of(data, sizeof data));
    assert_int_equal(out.bytes, 5 + sizeof data + 2);
    assert_memory_equal(out.data, "c0f\r\na", 6);
    buf_clear(&out);
    http_last_chunk_append(&out);
    assert_buf(&out, "0\r\n\r\n");
    buf_fini(&out);
}

static void refusals_read_as_gos(void **state UNUSED)
{
    struct buf out = BUF_INIT;

    http_refusal_append(&out, "400 Bad Request: malformed Host header", DATE);
    assert_buf(&out, "HTTP/1.1 400 Bad Request: malformed Host header\r\nContent-Type: text/plain; "
                     "charset=utf-8\r\n"
                     "Connection: close\r\n\r\n400 Bad Request: malformed Host header");
    buf_clear(&out);
    http_refusal_append(&out, "501 Not Implemented", DATE);
    assert_buf(&out, "HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain; "
                     "charset=utf-8\r\nConnection: close\r\n\r\n"
                     "Unsupported transfer encoding");
    buf_clear(&out);
    http_refusal_append(&out, "417 Expectation Failed", DATE);
    assert_buf(&out, "HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nDate: " DATE
                     "\r\nContent-Length: 0\r\n\r\n");
    buf_fini(&out);
}

static void dates_are_fixed_length_gmt(void **state UNUSED)
{
    char date[HTTP_DATE_BYTES + 1];

    http_date_format(784111777, date);
    assert_string_equal(date, "Sun, 06 Nov 1994 08:49:37 GMT");
    http_date_format(0, date);
    assert_string_equal(date, "Thu, 01 Jan 1970 00:00:00 GMT");
    http_date_format(4102444799, date);
    assert_string_equal(date, "Thu, 31 Dec 2099 23:59:59 GMT");
}

static void pool_gives_back_what_it_got_and_keeps_no_giants(void **state UNUSED)
{
    struct http_pool *pool = xcalloc(1, sizeof *pool);
    struct buf buf = BUF_INIT;

    http_pool_lend(pool, &buf);
    uint8_t *data = buf.data;
    buf_append_str(&buf, "x");
    http_pool_return(pool, &buf);
    assert_null(buf.data);
    http_pool_lend(pool, &buf);
    assert_ptr_equal(buf.data, data);
    assert_int_equal(buf.bytes, 0);
    (void)buf_reserve(&buf, HTTP_POOL_BUF_BYTES_MAX + 1);
    http_pool_return(pool, &buf);
    assert_int_equal(pool->count, 0);
    http_pool_fini(pool);
    free(pool);
}

/* What an HTTP/2 client sends first, the request in the plainest HPACK. */
#define PREFACE       "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define SETTINGS      "\0\0\0\4\0\0\0\0\0"
#define WINDOW_UPDATE "\0\0\4\x08\0\0\0\0\0\0\1\0\0"

static enum http_h2_result talk(struct span text, size_t piece, struct buf *out)
{
    struct http_h2 h2 = { 0 };
    struct buf in = BUF_INIT;
    enum http_h2_result result = HTTP_H2_MORE;

    for (size_t at = 0; at < text.bytes && result == HTTP_H2_MORE; at += piece) {
        size_t taken;
        buf_append(&in, text.data + at, MIN(piece, text.bytes - at));
        result = http_h2_run(&h2, buf_span(&in), &taken, out);
        buf_drop_front(&in, taken);
    }
    buf_fini(&in);
    return result;
}

static bool has(const struct buf *buf, struct span text)
{
    return memmem(buf->data, buf->bytes, text.data, text.bytes) != NULL;
}

static void grpc_client_is_told_to_use_the_v2_api(void **state UNUSED)
{
    /* content-type as text, and in Huffman code as Go's client sends it. */
    const struct span texts[] = {
        SPAN_LIT(PREFACE SETTINGS WINDOW_UPDATE "\0\0\x14\1\4\0\0\0\1\x83\x0f\x10\x10"
                                                "application/grpc"),
        SPAN_LIT(PREFACE SETTINGS
                "\0\0\x0e\1\4\0\0\0\1\x83\x5f\x8b\x1d\x75\xd0\x62\x0d\x26\x3d\x4c\x4d\x65\x64"),
    };

    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        for (size_t piece = 1; piece < 128; piece += 42) {
            struct buf out = BUF_INIT;
            assert_int_equal(talk(texts[i], piece, &out), HTTP_H2_DONE);
            assert_memory_equal(out.data, SETTINGS "\0\0\0\4\1\0\0\0\0",
                    18); /* ours, then the acknowledgement */
            assert_true(has(&out, SPAN_LIT("\0\x0bgrpc-status\x02"
                                           "12")));
            assert_true(has(&out, SPAN_LIT("Set ETCDCTL_API=2")));
            buf_fini(&out);
        }
    }
}

static void other_http2_client_gets_a_400_with_the_text(void **state UNUSED)
{
    struct buf out = BUF_INIT;

    assert_int_equal(
            talk(SPAN_LIT(PREFACE SETTINGS "\0\0\2\1\5\0\0\0\3\x82\x84"), 7, &out), HTTP_H2_DONE);
    assert_true(has(&out, SPAN_LIT("\1\4\0\0\0\3\x8c"))); /* HEADERS of stream 3, :status 400 */
    assert_true(has(&out, SPAN_LIT("\0\1\0\0\0\3this server has the etcd v2 API")));
    assert_false(has(&out, SPAN_LIT("grpc-status")));
    buf_fini(&out);
}

static void broken_http2_is_sent_away(void **state UNUSED)
{
    const struct span texts[] = {
        SPAN_LIT("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
        SPAN_LIT(PREFACE "\xff\xff\xff\1\4\0\0\0\1"),
    };

    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct buf out = BUF_INIT;
        assert_int_equal(talk(texts[i], 1, &out), HTTP_H2_DONE);
        assert_true(has(
                &out, SPAN_LIT("\7\0\0\0\0\0\0\0\0\0\0\0\0\x0d"))); /* GOAWAY, HTTP_1_1_REQUIRED */
        buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_lines_stand_where_go_puts_them),
        cmocka_unit_test(chunks_bear_their_size_in_hex),
        cmocka_unit_test(refusals_read_as_gos),
        cmocka_unit_test(dates_are_fixed_length_gmt),
        cmocka_unit_test(pool_gives_back_what_it_got_and_keeps_no_giants),
        cmocka_unit_test(grpc_client_is_told_to_use_the_v2_api),
        cmocka_unit_test(other_http2_client_gets_a_400_with_the_text),
        cmocka_unit_test(broken_http2_is_sent_away),
    };

    return cmocka_run_group_tests_name("http_answer", tests, NULL, NULL);
}
