#include "common/http/parser.h"

#include <llhttp.h>

#include "common/buf.h"

enum {
    METHOD_BYTES_MAX = 64,
    EMPTY_LINES_MAX = 4,            /* some old clients send one after a body */
    CHUNK_FRAMING_PER_BODY = 16,    /* bytes of framing allowed for each byte of body */
    CHUNK_FRAMING_SPARE = 64 << 10, /* and beside that, for trailers */
};

static const char bad_request[] = "400 Bad Request";
static const char bad_header_name[] = "400 Bad Request: invalid header name";
static const char bad_header_value[] = "400 Bad Request: invalid header value";
static const char missing_host[] = "400 Bad Request: missing required Host header";
static const char malformed_host[] = "400 Bad Request: malformed Host header";
static const char headers_too_large[] = "431 Request Header Fields Too Large";
static const char bad_version[] = "505 HTTP Version Not Supported: unsupported protocol version";
static const char bad_transfer_encoding[] = "501 Not Implemented";
static const char bad_expectation[] = "417 Expectation Failed";

struct http_parser_rules {
    size_t header_bytes_max;
    size_t body_bytes_max;
    llhttp_settings_t settings;
    /* llhttp's state just after a request line of HTTP/1.0 and HTTP/1.1: a plain record that a
     * request begins as a copy of. */
    llhttp_t after_line[2];
};

_Static_assert(
        sizeof(llhttp_t) <= HTTP_PARSER_LLHTTP_WORDS * sizeof(uint64_t), "room for llhttp's state");

static llhttp_t *llhttp_of(struct http_parser *parser)
{
    return (llhttp_t *)parser->llhttp;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    /* We speak no other protocol: an Upgrade is not followed, which RFC 9110 allows, and must not
     * stop the parsing. */
    llhttp->upgrade = 0;
    return HPE_PAUSED;
}

static int on_body(llhttp_t *llhttp, const char *at, size_t bytes)
{
    struct http_parser *parser = llhttp->data;

    if (parser->body_seen + bytes > parser->content_length) { /* here: the limit, see start_body */
        parser->is_body_too_large = true;
        parser->body.bytes = 0;
    }
    parser->body_seen += bytes;
    if (!parser->is_body_too_large) {
        memmove(parser->base + parser->body.offset + parser->body.bytes, at, bytes);
        parser->body.bytes += (uint32_t)bytes;
    }
    return 0;
}

static int on_message_complete(llhttp_t *llhttp UNUSED)
{
    return HPE_PAUSED;
}

struct http_parser_rules *http_parser_rules_new(size_t header_bytes_max, size_t body_bytes_max)
{
    /* Any method but CONNECT will do: llhttp is to judge the framing, the line itself is ours. */
    static const char *const lines[] = { "PUT / HTTP/1.0\r\n", "PUT / HTTP/1.1\r\n" };
    struct http_parser_rules *rules = xcalloc(1, sizeof *rules);

    rules->header_bytes_max = MIN(header_bytes_max, (size_t)HTTP_PARSER_BYTES_MAX);
    rules->body_bytes_max = MIN(body_bytes_max, (size_t)HTTP_PARSER_BYTES_MAX);
    llhttp_settings_init(&rules->settings);
    rules->settings.on_headers_complete = on_headers_complete;
    rules->settings.on_body = on_body;
    rules->settings.on_message_complete = on_message_complete;
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        llhttp_init(&rules->after_line[i], HTTP_REQUEST, &rules->settings);
        INVARIANT_EQ(llhttp_execute(&rules->after_line[i], lines[i], strlen(lines[i])), HPE_OK);
    }
    return rules;
}

struct http_parser_rules *http_parser_rules_free(struct http_parser_rules *rules)
{
    free(rules);
    return NULL;
}

void http_parser_reset(struct http_parser *parser)
{
    memset((char *)parser + sizeof parser->llhttp, 0, sizeof *parser - sizeof parser->llhttp);
}

static enum http_parse refuse(struct http_parser *parser, const char *refusal)
{
    parser->stage = HTTP_STAGE_REFUSED;
    parser->refusal = refusal;
    return HTTP_PARSE_REFUSED;
}

/* RFC 9110's token characters. */
static bool is_token_byte(uint8_t byte)
{
    static const char others[] = "!#$%&'*+-.^_`|~";

    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
           (byte >= 'A' && byte <= 'Z') || (byte != 0 && strchr(others, byte) != NULL);
}

static bool is_host_byte(uint8_t byte)
{
    static const char others[] = "!$%&'()*+,-.:;=[]_~";

    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
           (byte >= 'A' && byte <= 'Z') || (byte != 0 && strchr(others, byte) != NULL);
}

/* Whether the bytes so far can begin a request line: garbage is refused at once, not at its first
 * newline. */
static bool may_begin_line(const uint8_t *line, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (line[i] == ' ') {
            return i > 0;
        }
        if (!is_token_byte(line[i]) || i >= METHOD_BYTES_MAX) {
            return i == 0 && line[i] == '\r' && (bytes == 1 || line[1] == '\n');
        }
    }
    return true;
}

static bool is_target_valid(struct span target, bool is_connect)
{
    if (target.bytes == 0) {
        return false;
    }
    for (size_t i = 0; i < target.bytes; i++) {
        if (target.data[i] <= ' ' || target.data[i] == 0x7f) {
            return false;
        }
    }
    if (is_connect || target.data[0] == '/' || (target.bytes == 1 && target.data[0] == '*')) {
        return true;
    }
    size_t scheme_bytes = 0;
    while (scheme_bytes < target.bytes && is_token_byte(target.data[scheme_bytes])) {
        scheme_bytes++;
    }
    return scheme_bytes > 0 && span_starts_with(span_from(target, scheme_bytes), SPAN_LIT("://"));
}

/* The line without its CRLF, at offset `start`. */
static enum http_parse read_line(
        struct http_parser *parser, const uint8_t *data, uint32_t start, uint32_t bytes)
{
    const uint8_t *line = data + start;
    const uint8_t *space = memchr(line, ' ', bytes);

    if (!may_begin_line(line, bytes) || space == NULL) {
        return refuse(parser, bad_request);
    }
    parser->method = (struct http_part){ start, (uint32_t)(space - line) };

    const uint8_t *target = space + 1;
    const uint8_t *second = memchr(target, ' ', (size_t)(line + bytes - target));
    if (second == NULL) {
        return refuse(parser, bad_request);
    }
    parser->target = (struct http_part){ (uint32_t)(target - data), (uint32_t)(second - target) };

    struct span version = span_of(second + 1, (size_t)(line + bytes - second - 1));
    if (version.bytes != 8 || !span_starts_with(version, SPAN_LIT("HTTP/")) ||
            version.data[6] != '.' || version.data[5] < '0' || version.data[5] > '9' ||
            version.data[7] < '0' || version.data[7] > '9') {
        return refuse(parser, bad_request);
    }
    if (version.data[5] != '1') {
        bool is_preface =
                version.data[5] == '2' && parser->method.bytes == 3 && memcmp(line, "PRI", 3) == 0;
        return is_preface ? HTTP_PARSE_HTTP2 : refuse(parser, bad_version);
    }
    bool is_connect = parser->method.bytes == 7 && memcmp(line, "CONNECT", 7) == 0;
    if (!is_target_valid(span_of(target, parser->target.bytes), is_connect)) {
        return refuse(parser, bad_request);
    }
    parser->minor = version.data[7] == '0' ? 0 : 1;
    return HTTP_PARSE_MORE;
}

static enum http_parse run_line(struct http_parser *parser, const struct http_parser_rules *rules,
        const uint8_t *data, size_t bytes)
{
    uint32_t start = parser->method.offset;

    for (;;) {
        const uint8_t *newline = memchr(data + parser->parsed, '\n', bytes - parser->parsed);
        if (newline == NULL) {
            parser->parsed = (uint32_t)bytes;
            if (bytes > rules->header_bytes_max) {
                return refuse(parser, headers_too_large);
            }
            return may_begin_line(data + start, bytes - start) ? HTTP_PARSE_MORE
                                                               : refuse(parser, bad_request);
        }
        uint32_t line_bytes = (uint32_t)(newline - (data + start));
        parser->parsed = start + line_bytes + 1;
        if (line_bytes == 0 || newline[-1] != '\r') {
            return refuse(parser, bad_request);
        }
        if (line_bytes > 1) {
            parser->headers.offset = parser->parsed;
            enum http_parse read = read_line(parser, data, start, line_bytes - 1);
            if (read == HTTP_PARSE_MORE) {
                memcpy(parser->llhttp, &rules->after_line[parser->minor], sizeof(llhttp_t));
                llhttp_of(parser)->data = parser;
                parser->stage = HTTP_STAGE_HEADERS;
            }
            return read;
        }
        if (start >= EMPTY_LINES_MAX * 2) {
            return refuse(parser, bad_request);
        }
        start = parser->parsed;
        parser->method.offset = start;
    }
}

/* One line of a header block, cut at its colon; the value without the blanks around it. */
struct header_line {
    struct span name;
    struct span value;
};

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

/* Takes the first line off `rest`. False at the empty line (taken too) and when the line is none
 * that we pass, which leaves `rest` as it was. */
static bool take_header_line(struct span *rest, struct header_line *ret_line)
{
    const uint8_t *newline = rest->bytes == 0 ? NULL : memchr(rest->data, '\n', rest->bytes);
    if (newline == NULL || newline == rest->data || newline[-1] != '\r') {
        return false;
    }
    const uint8_t *line = rest->data;
    size_t bytes = (size_t)(newline - line) - 1;
    if (bytes == 0) {
        *rest = span_from(*rest, 2);
        return false;
    }
    const uint8_t *colon = memchr(line, ':', bytes);
    if (colon == NULL || colon == line || is_blank(line[0]) || is_blank(colon[-1])) {
        return false;
    }
    const uint8_t *from = colon + 1;
    const uint8_t *to = line + bytes;
    while (from < to && is_blank(*from)) {
        from++;
    }
    while (to > from && is_blank(to[-1])) {
        to--;
    }
    ret_line->name = span_of(line, (size_t)(colon - line));
    ret_line->value = span_of(from, (size_t)(to - from));
    *rest = span_from(*rest, bytes + 2);
    return true;
}

static uint8_t lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte | 0x20) : byte;
}

/* `name` is lower-case. */
static bool is_named(struct span text, struct span name)
{
    if (text.bytes != name.bytes) {
        return false;
    }
    for (size_t i = 0; i < text.bytes; i++) {
        if (lower(text.data[i]) != name.data[i]) {
            return false;
        }
    }
    return true;
}

struct span http_headers_find(struct span headers, struct span name)
{
    struct header_line line;

    while (take_header_line(&headers, &line)) {
        if (is_named(line.name, name)) {
            return line.value;
        }
    }
    return SPAN_NONE;
}

/* Whether a comma-separated list has that (lower-case) token. */
static bool has_token(struct span list, struct span token)
{
    while (list.bytes > 0) {
        const uint8_t *comma = memchr(list.data, ',', list.bytes);
        size_t bytes = comma == NULL ? list.bytes : (size_t)(comma - list.data);
        struct span item = span_of(list.data, bytes);
        while (item.bytes > 0 && is_blank(item.data[0])) {
            item = span_from(item, 1);
        }
        while (item.bytes > 0 && is_blank(item.data[item.bytes - 1])) {
            item.bytes--;
        }
        if (is_named(item, token)) {
            return true;
        }
        list = span_from(list, MIN(list.bytes, bytes + 1));
    }
    return false;
}

/* What one header means to the framing or the server itself; returns why the request is refused, or
 * NULL. */
static const char *note_header(struct http_parser *parser, const struct header_line *line)
{
    switch (line->name.bytes) {
    case 4:
        if (is_named(line->name, SPAN_LIT("host"))) {
            for (size_t i = 0; i < line->value.bytes; i++) {
                if (!is_host_byte(line->value.data[i])) {
                    return malformed_host;
                }
            }
            if (parser->has_host) {
                return bad_request;
            }
            parser->has_host = true;
            parser->host = (struct http_part){ (uint32_t)(line->value.data - parser->base),
                (uint32_t)line->value.bytes };
        }
        break;
    case 6:
        if (is_named(line->name, SPAN_LIT("expect")) && line->value.bytes > 0) {
            if (!has_token(line->value, SPAN_LIT("100-continue"))) {
                return bad_expectation;
            }
            parser->wants_continue = parser->minor >= 1;
        }
        break;
    case 17:
        if (is_named(line->name, SPAN_LIT("transfer-encoding"))) {
            if (parser->minor == 0) {
                return bad_request; /* HTTP/1.0 has none: who sends one cannot be understood */
            }
            if (parser->is_chunked || !is_named(line->value, SPAN_LIT("chunked"))) {
                return bad_transfer_encoding;
            }
            parser->is_chunked = true;
        }
        break;
    default:
        break;
    }
    return NULL;
}

/* Walks the block that llhttp has passed. Returns why it is refused, or NULL. */
static const char *scan_headers(struct http_parser *parser, size_t bytes)
{
    struct span rest =
            span_of(parser->base + parser->headers.offset, bytes - parser->headers.offset);
    struct header_line line;

    for (;;) {
        size_t before = rest.bytes;
        if (!take_header_line(&rest, &line)) {
            parser->body.offset = (uint32_t)(rest.data - parser->base);
            parser->headers.bytes = parser->body.offset - parser->headers.offset - 2;
            if (rest.bytes == before || parser->body.offset != parser->parsed) {
                return bad_request;
            }
            break;
        }
        const char *refusal = note_header(parser, &line);
        if (refusal != NULL) {
            return refusal;
        }
    }
    bool is_connect = parser->method.bytes == 7 &&
                      memcmp(parser->base + parser->method.offset, "CONNECT", 7) == 0;
    if (parser->minor > 0 && !parser->has_host && !is_connect) {
        return missing_host;
    }
    return NULL;
}

/* Why llhttp stopped at `at`, in Go's words. */
static const char *header_refusal(
        const struct http_parser *parser, llhttp_errno_t error, const uint8_t *at, size_t bytes)
{
    const uint8_t *line = at;

    if (error != HPE_INVALID_HEADER_TOKEN || at >= parser->base + bytes || *at == '\r' ||
            *at == '\n') {
        return bad_request;
    }
    while (line > parser->base + parser->headers.offset && line[-1] != '\n') {
        line--;
    }
    return memchr(line, ':', (size_t)(at - line)) != NULL ? bad_header_value : bad_header_name;
}

static enum http_parse start_body(struct http_parser *parser, const struct http_parser_rules *rules)
{
    llhttp_t *llhttp = llhttp_of(parser);

    parser->stage = HTTP_STAGE_BODY;
    parser->is_keep_alive = llhttp_should_keep_alive(llhttp) != 0;
    if (parser->is_chunked) {
        parser->content_length = rules->body_bytes_max; /* for on_body */
        llhttp_resume(llhttp);
    } else {
        parser->content_length = llhttp->content_length;
        parser->is_body_too_large = parser->content_length > rules->body_bytes_max;
    }
    bool has_body = parser->is_chunked || parser->content_length > 0;
    parser->wants_continue = parser->wants_continue && has_body;
    return parser->wants_continue ? HTTP_PARSE_CONTINUE : HTTP_PARSE_MORE;
}

static enum http_parse run_headers(
        struct http_parser *parser, const struct http_parser_rules *rules, size_t bytes)
{
    llhttp_t *llhttp = llhttp_of(parser);
    const char *from = (const char *)parser->base + parser->parsed;
    llhttp_errno_t error = llhttp_execute(llhttp, from, bytes - parser->parsed);

    if (error == HPE_OK) {
        parser->parsed = (uint32_t)bytes;
        return bytes > rules->header_bytes_max ? refuse(parser, headers_too_large)
                                               : HTTP_PARSE_MORE;
    }
    const uint8_t *at = (const uint8_t *)llhttp_get_error_pos(llhttp);
    if (error != HPE_PAUSED) {
        return refuse(parser, header_refusal(parser, error, at, bytes));
    }
    parser->parsed = (uint32_t)(at - parser->base);
    if (parser->parsed > rules->header_bytes_max) {
        return refuse(parser, headers_too_large);
    }
    const char *refusal = scan_headers(parser, bytes);
    return refusal == NULL ? start_body(parser, rules) : refuse(parser, refusal);
}

static enum http_parse finish(struct http_parser *parser, size_t end)
{
    parser->stage = HTTP_STAGE_WHOLE;
    parser->parsed = (uint32_t)end;
    parser->end = (uint32_t)end;
    if (parser->is_body_too_large) {
        parser->body.bytes = 0;
    }
    return HTTP_PARSE_WHOLE;
}

/* A body of known length lies in the memory as it came; one too large is counted and dropped. */
static enum http_parse run_sized_body(struct http_parser *parser, size_t *bytes)
{
    uint64_t fresh =
            MIN((uint64_t)(*bytes - parser->parsed), parser->content_length - parser->body_seen);

    parser->body_seen += fresh;
    parser->parsed += (uint32_t)fresh;
    if (!parser->is_body_too_large) {
        parser->body.bytes += (uint32_t)fresh;
    }
    if (parser->body_seen == parser->content_length) {
        return finish(parser, parser->parsed);
    }
    if (parser->is_body_too_large) {
        parser->parsed = parser->body.offset;
        *bytes = parser->parsed;
    }
    return HTTP_PARSE_MORE;
}

static enum http_parse run_chunked_body(struct http_parser *parser, size_t *bytes)
{
    llhttp_t *llhttp = llhttp_of(parser);
    uint64_t seen_before = parser->body_seen;
    size_t fresh = *bytes - parser->parsed;
    const char *from = (const char *)parser->base + parser->parsed;
    llhttp_errno_t error = llhttp_execute(llhttp, from, fresh);

    if (error == HPE_PAUSED) {
        return finish(
                parser, (size_t)((const uint8_t *)llhttp_get_error_pos(llhttp) - parser->base));
    }
    if (error != HPE_OK) {
        return refuse(parser, bad_request);
    }
    /* Extensions and trailers are read and forgotten, so only their share is bounded. */
    parser->framing_bytes += (uint32_t)(fresh - (parser->body_seen - seen_before));
    if (parser->framing_bytes > CHUNK_FRAMING_SPARE + CHUNK_FRAMING_PER_BODY * parser->body_seen) {
        return refuse(parser, bad_request);
    }
    parser->parsed = parser->body.offset + parser->body.bytes;
    *bytes = parser->parsed;
    return HTTP_PARSE_MORE;
}

enum http_parse http_parser_run(struct http_parser *parser, const struct http_parser_rules *rules,
        uint8_t *data, size_t *bytes)
{
    INVARIANT_LE(parser->parsed, *bytes);
    INVARIANT(parser->stage < HTTP_STAGE_WHOLE);
    INVARIANT_LE(*bytes, UINT32_MAX);
    parser->base = data;

    if (parser->stage == HTTP_STAGE_LINE) {
        enum http_parse line = run_line(parser, rules, data, *bytes);
        if (line != HTTP_PARSE_MORE || parser->stage == HTTP_STAGE_LINE) {
            return line;
        }
    }
    if (parser->stage == HTTP_STAGE_HEADERS) {
        enum http_parse headers = run_headers(parser, rules, *bytes);
        if (headers != HTTP_PARSE_MORE || parser->stage == HTTP_STAGE_HEADERS) {
            return headers;
        }
    }
    return parser->is_chunked ? run_chunked_body(parser, bytes) : run_sized_body(parser, bytes);
}
