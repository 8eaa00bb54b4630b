/* fuzz_http.c: a byte stream as a client may send it, to the HTTP request parser and to the word to
 * HTTP/2 clients.
 *
 * The first byte of the input says in what pieces the rest arrives. Beside not crashing, what the
 * stream means must not depend on the pieces: each request found in pieces is found again when the
 * stream is given whole. */
#include "common/http/h2.h"
#include "common/http/parser.h"

enum {
    HEADER_BYTES_MAX = 2048,
    BODY_BYTES_MAX = 256,
    REQUESTS_MAX = 64
};

struct found {
    enum http_parse result;
    uint32_t method_bytes;
    uint32_t target_bytes;
    uint32_t headers_bytes;
    uint32_t body_bytes;
    uint64_t body_seen;
    uint32_t body_sum;
    bool is_keep_alive;
};

static struct found found_of(
        const struct http_parser *parser, enum http_parse result, const uint8_t *data)
{
    struct found found;

    memset(&found, 0, sizeof found); /* compared as bytes: padding too */
    found.result = result;
    if (result != HTTP_PARSE_WHOLE) {
        return found;
    }
    found.method_bytes = parser->method.bytes;
    found.target_bytes = parser->target.bytes;
    found.headers_bytes = parser->headers.bytes;
    found.body_bytes = parser->body.bytes;
    found.body_seen = parser->body_seen;
    found.is_keep_alive = parser->is_keep_alive;
    for (uint32_t i = 0; i < parser->body.bytes; i++) {
        found.body_sum = found.body_sum * 31 + data[parser->body.offset + i];
    }
    struct span headers = span_of(data + parser->headers.offset, parser->headers.bytes);
    (void)http_headers_find(headers, SPAN_LIT("content-type"));
    return found;
}

/* All requests of the stream; returns how many results there are. */
static size_t read_stream(struct span stream, size_t piece, struct found *ret_found)
{
    struct http_parser_rules *rules = http_parser_rules_new(HEADER_BYTES_MAX, BODY_BYTES_MAX);
    struct http_parser parser = { 0 };
    struct buf in = BUF_INIT;
    size_t count = 0;
    bool is_over = false;

    http_parser_reset(&parser);
    for (size_t at = 0; at < stream.bytes && !is_over; at += piece) {
        buf_append(&in, stream.data + at, MIN(piece, stream.bytes - at));
        while (in.bytes > 0 && count < REQUESTS_MAX) {
            enum http_parse result = http_parser_run(&parser, rules, in.data, &in.bytes);
            if (result == HTTP_PARSE_CONTINUE) {
                continue;
            }
            if (result == HTTP_PARSE_MORE) {
                break;
            }
            ret_found[count++] = found_of(&parser, result, in.data);
            if (result != HTTP_PARSE_WHOLE) {
                is_over = true;
                break;
            }
            buf_drop_front(&in, parser.end);
            http_parser_reset(&parser);
        }
    }
    buf_fini(&in);
    rules = http_parser_rules_free(rules);
    return count;
}

static void run_http2(struct span stream, size_t piece)
{
    struct http_h2 h2 = { 0 };
    struct buf in = BUF_INIT;
    struct buf out = BUF_INIT;
    enum http_h2_result result = HTTP_H2_MORE;

    for (size_t at = 0; at < stream.bytes && result == HTTP_H2_MORE; at += piece) {
        size_t taken;
        buf_append(&in, stream.data + at, MIN(piece, stream.bytes - at));
        result = http_h2_run(&h2, buf_span(&in), &taken, &out);
        buf_drop_front(&in, taken);
    }
    buf_fini(&in);
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct found whole[REQUESTS_MAX] = { 0 };
    struct found cut[REQUESTS_MAX] = { 0 };

    if (bytes < 2) {
        return 0;
    }
    struct span stream = span_of(data + 1, bytes - 1);
    size_t piece = 1 + data[0] % 32;
    size_t whole_count = read_stream(stream, stream.bytes, whole);
    size_t cut_count = read_stream(stream, piece, cut);
    INVARIANT_EQ(whole_count, cut_count);
    for (size_t i = 0; i < whole_count; i++) {
        INVARIANT_EQ(memcmp(&whole[i], &cut[i], sizeof whole[i]), 0);
    }
    run_http2(stream, piece);
    return 0;
}
