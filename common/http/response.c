#include "common/http/response.h"

#include "common/http/server.h"

struct status_text {
    unsigned status;
    const char *text;
};

static const struct status_text status_texts[] = {
    { 100, "Continue" },
    { 200, "OK" },
    { 201, "Created" },
    { 202, "Accepted" },
    { 204, "No Content" },
    { 301, "Moved Permanently" },
    { 302, "Found" },
    { 304, "Not Modified" },
    { 307, "Temporary Redirect" },
    { 308, "Permanent Redirect" },
    { 400, "Bad Request" },
    { 401, "Unauthorized" },
    { 403, "Forbidden" },
    { 404, "Not Found" },
    { 405, "Method Not Allowed" },
    { 406, "Not Acceptable" },
    { 408, "Request Timeout" },
    { 409, "Conflict" },
    { 410, "Gone" },
    { 411, "Length Required" },
    { 412, "Precondition Failed" },
    { 413, "Request Entity Too Large" },
    { 414, "Request URI Too Long" },
    { 415, "Unsupported Media Type" },
    { 417, "Expectation Failed" },
    { 421, "Misdirected Request" },
    { 429, "Too Many Requests" },
    { 431, "Request Header Fields Too Large" },
    { 500, "Internal Server Error" },
    { 501, "Not Implemented" },
    { 502, "Bad Gateway" },
    { 503, "Service Unavailable" },
    { 504, "Gateway Timeout" },
    { 505, "HTTP Version Not Supported" },
};

const char *http_status_text(unsigned status)
{
    for (size_t i = 0; i < ARRAY_COUNT(status_texts); i++) {
        if (status_texts[i].status == status) {
            return status_texts[i].text;
        }
    }
    return "status code unknown";
}

#define APPEND_LIT(out, text) buf_append((out), (text), sizeof(text) - 1)

void http_head_append(struct buf *out, const struct http_head *head)
{
    INVARIANT(head->status >= 100 && head->status <= 999);
    (void)buf_reserve(out, HTTP_HEAD_BYTES_MAX + head->lines.bytes + head->late_lines.bytes);

    buf_append(out, head->minor == 0 ? "HTTP/1.0 " : "HTTP/1.1 ", 9);
    buf_append_u64_decimal(out, head->status);
    buf_append_byte(out, ' ');
    buf_append_str(out, http_status_text(head->status));
    APPEND_LIT(out, "\r\n");
    buf_append_span(out, head->lines);
    APPEND_LIT(out, "Date: ");
    buf_append(out, head->date, HTTP_DATE_BYTES);
    APPEND_LIT(out, "\r\n");
    if (head->framing == HTTP_FRAMING_LENGTH) {
        APPEND_LIT(out, "Content-Length: ");
        buf_append_u64_decimal(out, head->body_bytes);
        APPEND_LIT(out, "\r\n");
    }
    buf_append_span(out, head->late_lines);
    if (head->connection != NULL) {
        APPEND_LIT(out, "Connection: ");
        buf_append_str(out, head->connection);
        APPEND_LIT(out, "\r\n");
    }
    if (head->framing == HTTP_FRAMING_CHUNKED) {
        APPEND_LIT(out, "Transfer-Encoding: chunked\r\n");
    }
    APPEND_LIT(out, "\r\n");
}

void http_chunk_head_append(struct buf *out, size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    char line[2 * sizeof(size_t) + 2];
    size_t at = sizeof line;

    INVARIANT_LT(0, bytes); /* would be the last chunk */
    line[--at] = '\n';
    line[--at] = '\r';
    for (size_t left = bytes; left > 0; left >>= 4) {
        line[--at] = digits[left & 15];
    }
    buf_append(out, line + at, sizeof line - at);
}

void http_chunk_append(struct buf *out, struct span data)
{
    http_chunk_head_append(out, data.bytes);
    (void)buf_reserve(out, data.bytes + 2);
    buf_append_span(out, data);
    APPEND_LIT(out, "\r\n");
}

void http_last_chunk_append(struct buf *out)
{
    APPEND_LIT(out, "0\r\n\r\n");
}

void http_refusal_append(struct buf *out, const char *refusal, const char *date)
{
    struct span text = span_str(refusal);

    APPEND_LIT(out, "HTTP/1.1 ");
    buf_append_span(out, text);
    APPEND_LIT(out, "\r\n");
    if (span_starts_with(text, SPAN_LIT("417 "))) {
        APPEND_LIT(out, "Connection: close\r\nDate: ");
        buf_append(out, date, HTTP_DATE_BYTES);
        APPEND_LIT(out, "\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    APPEND_LIT(out, "Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n");
    if (span_starts_with(text, SPAN_LIT("501 "))) {
        text = SPAN_LIT("Unsupported transfer encoding");
    }
    buf_append_span(out, text);
}

void http_date_format(int64_t unix_seconds, char ret_date[HTTP_DATE_BYTES + 1])
{
    /* Not strftime: its names follow the locale. */
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t seconds = (time_t)unix_seconds;
    struct tm tm;

    INVARIANT(gmtime_r(&seconds, &tm) != NULL);
    (void)snprintf(ret_date, HTTP_DATE_BYTES + 1, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT",
            &days[(size_t)tm.tm_wday * 3], (unsigned)tm.tm_mday % 100,
            &months[(size_t)tm.tm_mon * 3], (unsigned)(tm.tm_year + 1900) % 10000,
            (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}
