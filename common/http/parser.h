/* parser.h: one HTTP/1.x request, parsed from bytes that arrive in any pieces. No socket, no clock,
 * no allocation.
 *
 * The caller keeps the request's bytes in one run of memory that begins with its first byte, and
 * calls http_parser_run whenever there are more. All positions are offsets from that first byte, so
 * the memory may move between the calls.
 *
 *    ├─(CRLF)─┼─METHOD─SP─TARGET─SP─HTTP/1.x─CRLF─┼─headers─CRLF─┼─body─────┼─next request…
 *             0                                   headers        body       end
 *
 * The request line is read here; headers and chunked bodies go through llhttp (strict). The header
 * block is then walked a second time by a scanner of our own, which must come to the same end: what
 * two parsers read differently is refused, since it is what request smuggling lives on. A chunked
 * body is moved together in place. */
#pragma once

#include "common/span.h"

struct http_parser_rules;

enum http_parse {
    HTTP_PARSE_MORE,     /* all is read, the request is not whole */
    HTTP_PARSE_CONTINUE, /* as MORE, once: the client waits for 100 Continue */
    HTTP_PARSE_WHOLE,
    HTTP_PARSE_REFUSED, /* `refusal` says why; the connection cannot go on */
    HTTP_PARSE_HTTP2,   /* the preface of HTTP/2 begins here */
};

enum http_parse_stage {
    HTTP_STAGE_LINE,
    HTTP_STAGE_HEADERS,
    HTTP_STAGE_BODY,
    HTTP_STAGE_WHOLE,
    HTTP_STAGE_REFUSED,
};

enum {
    HTTP_PARSER_LLHTTP_WORDS = 16,
    HTTP_PARSER_BYTES_MAX = 1 << 30, /* no limit may be above: offsets have 32 bits */
};

struct http_part {
    uint32_t offset;
    uint32_t bytes;
};

struct http_parser {
    uint64_t llhttp[HTTP_PARSER_LLHTTP_WORDS]; /* llhttp_t; valid from HEADERS on */
    const char *refusal;                       /* "400 Bad Request", static */
    uint8_t *base;                             /* during a run only */
    uint64_t content_length;
    uint64_t body_seen; /* bytes of the body so far, those dropped too */
    enum http_parse_stage stage;
    uint32_t parsed;
    uint32_t end; /* WHOLE: where the next request begins */
    uint32_t framing_bytes;
    struct http_part method;
    struct http_part target;
    struct http_part headers; /* the lines, without the empty one */
    struct http_part host;    /* value of the Host header */
    struct http_part body;
    bool has_host;
    bool is_chunked;
    bool is_body_too_large;
    bool wants_continue;
    bool is_keep_alive;
    uint8_t minor;
};

struct http_parser_rules *http_parser_rules_new(size_t header_bytes_max, size_t body_bytes_max);
struct http_parser_rules *http_parser_rules_free(struct http_parser_rules *rules); /* always NULL */

void http_parser_reset(struct http_parser *parser);
/* Reads on. *bytes is the length of the run at `data` and shrinks where body bytes need not be
 * kept. After WHOLE and REFUSED only http_parser_reset may follow. */
enum http_parse http_parser_run(struct http_parser *parser, const struct http_parser_rules *rules,
        uint8_t *data, size_t *bytes);

/* The first header of that (lower-case) name in a block of lines that a parser passed; data NULL
 * when absent. */
struct span http_headers_find(struct span headers, struct span name);
