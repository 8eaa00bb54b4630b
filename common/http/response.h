/* response.h: the bytes of an answer, in the order in which Go's net/http writes them:
 *
 * status line | the caller's lines | Date | Content-Length | late lines | Connection |
 * Transfer-Encoding
 *
 * Pure: appends to a buf, touches nothing else. */
#pragma once

#include "common/buf.h"

enum http_framing {
    HTTP_FRAMING_NONE,   /* no body and no word of it; or one that ends where the connection does */
    HTTP_FRAMING_LENGTH, /* Content-Length: body_bytes */
    HTTP_FRAMING_CHUNKED, /* Transfer-Encoding: chunked */
};

enum {
    HTTP_DATE_BYTES = 29,
    HTTP_HEAD_BYTES_MAX = 256 /* beside the caller's lines */
};

struct http_head {
    unsigned minor; /* of the request: the status line repeats it */
    unsigned status;
    struct span lines; /* complete "Name: value\r\n" */
    struct span late_lines;
    const char *date;
    enum http_framing framing;
    uint64_t body_bytes;
    const char *connection; /* "close", "keep-alive" or NULL: no such line */
};

void http_head_append(struct buf *out, const struct http_head *head);
void http_chunk_append(struct buf *out, struct span data);
void http_chunk_head_append(
        struct buf *out, size_t bytes); /* its size line; the data and CRLF follow */
void http_last_chunk_append(struct buf *out);
/* Go's words to a request it refuses: "400 Bad Request: why" is status line and body at once; no
 * Date, no length. */
void http_refusal_append(struct buf *out, const char *refusal, const char *date);
/* IMF-fixdate: 29 bytes and a NUL. */
void http_date_format(int64_t unix_seconds, char ret_date[HTTP_DATE_BYTES + 1]);
