/* answer.c: what a handler says to a request, turned into bytes of its connection. */
#include <errno.h>
#include <sys/socket.h>

#include "common/http/internal.h"

enum {
    CHUNK_ABOVE_BYTES = 2048,      /* where Go stops gathering an answer to learn its length */
    DIRECT_ABOVE_BYTES = 16 << 10, /* bodies that are not worth a copy */
    STREAM_BYTES_SOON = 64 << 10,  /* of a stream, which do not wait for the turn's end */
};

/* Whether more may be queued for this client; marks it for its end when it has stopped reading long
 * ago, or does not read while memory is short. */
static bool may_queue(struct http_conn *conn)
{
    size_t unsent = http_conn_unsent(conn);
    if (unsent > conn->server->config.output_bytes_max ||
            (unsent > STREAM_BYTES_SOON && http_server_is_full(conn->server))) {
        conn->is_broken = true;
    }
    if (conn->is_broken) {
        http_conn_want_turn(conn);
    }
    return !conn->is_broken;
}

/* Sends `out`, `body` and `tail` now, without copying the body; what the socket does not take is
 * copied after all. */
static void send_direct(struct http_conn *conn, struct span body, struct span tail)
{
    struct span parts[3] = { span_from(buf_span(&conn->out), conn->out_start), body, tail };
    struct iovec vectors[ARRAY_COUNT(parts)];
    struct msghdr message = { .msg_iov = vectors, .msg_iovlen = ARRAY_COUNT(parts) };

    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        memcpy(&vectors[i].iov_base, &parts[i].data,
                sizeof parts[i].data); /* iovec knows no const */
        vectors[i].iov_len = parts[i].bytes;
    }
    ssize_t sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        conn->is_broken = true;
        return;
    }
    size_t left = sent < 0 ? 0 : (size_t)sent;
    conn->moved_bytes += (uint32_t)left;
    size_t of_out = MIN(left, parts[0].bytes);
    size_t of_body = MIN(left - of_out, body.bytes);
    conn->out_start += of_out;
    if (of_body < body.bytes) {
        http_conn_append_copy(conn, span_from(body, of_body));
    }
    buf_append_span(http_conn_out(conn), span_from(tail, left - of_out - of_body));
}

/* What is not worth a copy goes out at once, or is held apart. */
static void append_large(struct http_conn *conn, struct span body, struct span tail)
{
    if (!conn->is_stalled && conn->pieces == NULL) {
        send_direct(conn, body, tail);
        return;
    }
    http_conn_append_copy(conn, body);
    buf_append_span(http_conn_out(conn), tail);
}

static void append_body(
        struct http_conn *conn, struct buf *out, enum http_framing framing, struct span body)
{
    struct span tail = SPAN_NONE;

    if (framing == HTTP_FRAMING_CHUNKED) {
        http_chunk_head_append(out, body.bytes);
        tail = SPAN_LIT("\r\n0\r\n\r\n");
    }
    if (body.bytes > DIRECT_ABOVE_BYTES) {
        append_large(conn, body, tail);
    } else {
        buf_append_span(out, body);
        buf_append_span(out, tail);
    }
}

/* As it is, or as a chunk. */
static void append_shared(struct http_conn *conn, struct http_body *body, bool is_chunk)
{
    if (is_chunk) {
        http_chunk_head_append(http_conn_out(conn), http_body_span(body).bytes);
    }
    if (http_conn_may_hold(conn, body)) {
        http_conn_append_body(conn, body);
    } else {
        append_large(conn, http_body_span(body), SPAN_NONE);
    }
    if (is_chunk) {
        buf_append_span(http_conn_out(conn), SPAN_LIT("\r\n"));
    }
}

void http_conn_finish(struct http_conn *conn, bool is_kept)
{
    struct http_server *server = conn->server;

    if (conn->state == HTTP_CONN_STREAMING) {
        INVARIANT(server->stream_count > 0);
        server->stream_count--;
    }
    server->answers++;
    conn->state = HTTP_CONN_READING;
    conn->in_start += conn->parser.end;
    http_parser_reset(&conn->parser);
    conn->is_paused = false;
    conn->is_hung_up = false;
    conn->is_closing = conn->is_closing || !is_kept || server->is_draining;
    http_conn_set_deadline(
            conn, conn->is_closing || conn->is_stalled ? HTTP_DEADLINE_WRITE : HTTP_DEADLINE_IDLE);
    if (conn->in_start == conn->in.bytes) {
        http_pool_return(&server->pool, &conn->in);
        conn->in_start = 0;
        conn->is_resume_due = conn->is_eof;
    } else {
        conn->is_resume_due = true;
    }
    http_conn_want_turn(conn);
}

static bool has_line(struct span lines, struct span line)
{
    return lines.bytes >= line.bytes &&
           memmem(lines.data, lines.bytes, line.data, line.bytes) != NULL;
}

struct answer {
    unsigned status;
    struct span headers;
    struct span late;
    struct span body;
    struct http_body *shared; /* the holder of body; NULL: it is to be copied */
    bool may_chunk;
    bool must_close;
};

static bool is_bodiless(unsigned status)
{
    return status < 200 || status == 204 || status == 304;
}

static enum http_framing framing_of(const struct http_request *request, const struct answer *answer)
{
    bool is_long = answer->may_chunk && answer->body.bytes > CHUNK_ABOVE_BYTES;

    if (is_bodiless(answer->status)) {
        return HTTP_FRAMING_NONE;
    }
    if (request->method == HTTP_HEAD) {
        return is_long || answer->body.bytes == 0 ? HTTP_FRAMING_NONE : HTTP_FRAMING_LENGTH;
    }
    if (!is_long) {
        return HTTP_FRAMING_LENGTH;
    }
    return request->minor > 0 ? HTTP_FRAMING_CHUNKED : HTTP_FRAMING_NONE;
}

static const char *connection_word(
        const struct http_request *request, bool is_kept, struct span headers)
{
    if (request->minor == 0) {
        return is_kept ? "keep-alive" : NULL;
    }
    return is_kept || has_line(headers, SPAN_LIT("Connection: close\r\n")) ? NULL : "close";
}

static void respond(struct http_request *request, const struct answer *answer)
{
    struct http_conn *conn = request->conn;
    bool has_body = request->method != HTTP_HEAD && !is_bodiless(answer->status);
    enum http_framing framing = framing_of(request, answer);
    bool ends_at_close = has_body && framing == HTTP_FRAMING_NONE;
    bool is_kept = request->keep_alive && !answer->must_close && !ends_at_close &&
                   !conn->server->is_draining;

    INVARIANT_EQ(conn->state, HTTP_CONN_PENDING);
    if (may_queue(conn)) {
        struct buf *out = http_conn_out(conn);
        http_head_append(
                out, &(struct http_head){
                             .minor = request->minor,
                             .status = answer->status,
                             .lines = answer->headers,
                             .late_lines = answer->late,
                             .date = http_date(conn->server),
                             .framing = framing,
                             .body_bytes = answer->body.bytes,
                             .connection = connection_word(request, is_kept, answer->headers),
                     });
        if (has_body && answer->shared != NULL) {
            append_shared(conn, answer->shared, framing == HTTP_FRAMING_CHUNKED);
            if (framing == HTTP_FRAMING_CHUNKED) {
                http_last_chunk_append(http_conn_out(conn));
            }
        } else if (has_body) {
            append_body(conn, out, framing, answer->body);
        }
    }
    http_conn_finish(conn, is_kept);
}

void http_respond(
        struct http_request *request, unsigned status, struct span headers, struct span body)
{
    respond(request, &(struct answer){ .status = status, .headers = headers, .body = body });
}

void http_respond_json(
        struct http_request *request, unsigned status, struct span headers, struct span body)
{
    respond(request,
            &(struct answer){
                    .status = status, .headers = headers, .body = body, .may_chunk = true });
}

void http_respond_body(
        struct http_request *request, unsigned status, struct span headers, struct http_body *body)
{
    respond(request, &(struct answer){ .status = status,
                             .headers = headers,
                             .body = http_body_span(body),
                             .shared = body,
                             .may_chunk = true });
}

void http_respond_late(struct http_request *request, unsigned status, struct span headers,
        struct span late, struct span body)
{
    respond(request,
            &(struct answer){ .status = status, .headers = headers, .late = late, .body = body });
}

void http_respond_close(
        struct http_request *request, unsigned status, struct span headers, struct span body)
{
    respond(request,
            &(struct answer){
                    .status = status, .headers = headers, .body = body, .must_close = true });
}

void http_refuse(struct http_request *request, const char *refusal)
{
    struct http_conn *conn = request->conn;

    INVARIANT_EQ(conn->state, HTTP_CONN_PENDING);
    if (may_queue(conn)) {
        http_refusal_append(http_conn_out(conn), refusal, http_date(conn->server));
    }
    http_conn_finish(conn, false);
}

void http_conn_answer_options(struct http_conn *conn)
{
    struct http_request *request = &conn->request;
    bool is_kept = request->keep_alive && !conn->server->is_draining;
    /* As Go's own answer to it: the length stands before the date. */
    struct http_head head = {
        .minor = request->minor,
        .status = 200,
        .lines = SPAN_LIT("Content-Length: 0\r\n"),
        .date = http_date(conn->server),
        .framing = HTTP_FRAMING_NONE,
        .connection = connection_word(request, is_kept, SPAN_NONE),
    };

    http_head_append(http_conn_out(conn), &head);
    http_conn_finish(conn, is_kept);
}

void http_stream_begin(struct http_request *request, unsigned status, struct span headers)
{
    struct http_conn *conn = request->conn;
    bool is_kept = request->keep_alive && request->minor > 0 && !conn->server->is_draining;

    INVARIANT_EQ(conn->state, HTTP_CONN_PENDING);
    conn->state = HTTP_CONN_STREAMING;
    conn->server->stream_count++;
    request->keep_alive = is_kept;
    conn->is_chunked_answer = request->minor > 0 && request->method != HTTP_HEAD;
    if (may_queue(conn)) {
        http_head_append(http_conn_out(conn),
                &(struct http_head){
                        .minor = request->minor,
                        .status = status,
                        .lines = headers,
                        .date = http_date(conn->server),
                        .framing =
                                conn->is_chunked_answer ? HTTP_FRAMING_CHUNKED : HTTP_FRAMING_NONE,
                        .connection = connection_word(request, is_kept, headers),
                });
    }
    http_server_check_drained(conn->server);
}

/* A turn may bring many events for many streams: they are not all held until its end. */
static void send_soon(struct http_conn *conn)
{
    if (conn->is_stalled || conn->is_broken || http_conn_unsent(conn) <= STREAM_BYTES_SOON) {
        http_conn_charge(conn);
        return;
    }
    int code = http_conn_try_send(conn);
    if (code < 0 && code != -EAGAIN) {
        conn->is_broken = true;
    }
    http_conn_charge(conn);
}

static void append_large_chunk(struct http_conn *conn, struct span data)
{
    struct span tail = SPAN_NONE;

    if (conn->is_chunked_answer) {
        http_chunk_head_append(http_conn_out(conn), data.bytes);
        tail = SPAN_LIT("\r\n");
    }
    (void)http_conn_out(conn);
    append_large(conn, data, tail);
}

void http_stream_chunk(struct http_request *request, struct span data)
{
    struct http_conn *conn = request->conn;

    INVARIANT_EQ(conn->state, HTTP_CONN_STREAMING);
    if (request->method == HTTP_HEAD || data.bytes == 0 || !may_queue(conn)) {
        return;
    }
    if (data.bytes > DIRECT_ABOVE_BYTES) {
        append_large_chunk(conn, data);
    } else if (conn->is_chunked_answer) {
        http_chunk_append(http_conn_out(conn), data);
    } else {
        buf_append_span(http_conn_out(conn), data);
    }
    send_soon(conn);
}

void http_stream_share(struct http_request *request, struct http_body *body)
{
    struct http_conn *conn = request->conn;

    INVARIANT_EQ(conn->state, HTTP_CONN_STREAMING);
    if (request->method != HTTP_HEAD && http_body_span(body).bytes > 0 && may_queue(conn)) {
        append_shared(conn, body, conn->is_chunked_answer);
        send_soon(conn);
    }
}

void http_stream_end(struct http_request *request)
{
    struct http_conn *conn = request->conn;

    INVARIANT_EQ(conn->state, HTTP_CONN_STREAMING);
    if (conn->is_chunked_answer && !conn->is_broken) {
        http_last_chunk_append(http_conn_out(conn));
    }
    http_conn_finish(conn, request->keep_alive);
}

void http_stream_abort(struct http_request *request)
{
    INVARIANT_EQ(request->conn->state, HTTP_CONN_STREAMING);
    http_conn_finish(request->conn, false);
}

size_t http_stream_unsent(const struct http_request *request)
{
    return http_conn_unsent(request->conn);
}

/* Bytes of a request that was large, in a buf of their own size. */
static void move_to_small(struct http_conn *conn)
{
    struct buf small = BUF_INIT;

    http_pool_lend(&conn->server->pool, &small);
    buf_append_span(&small, buf_span(&conn->in));
    http_pool_return(&conn->server->pool, &conn->in);
    conn->in = small;
}

void http_request_release(struct http_request *request)
{
    struct http_conn *conn = request->conn;

    INVARIANT(conn->state == HTTP_CONN_PENDING || conn->state == HTTP_CONN_STREAMING);
    buf_drop_front(&conn->in, conn->in_start + conn->parser.end);
    conn->in_start = 0;
    conn->parser.end = 0;
    conn->parser.headers.bytes = 0;
    if (conn->in.bytes == 0) {
        http_pool_return(&conn->server->pool, &conn->in);
    } else if (conn->in.capacity > HTTP_POOL_BUF_BYTES_MAX) {
        move_to_small(conn);
    }
    http_conn_charge(conn);
    request->method_text = SPAN_NONE;
    request->target = SPAN_NONE;
    request->path = SPAN_NONE;
    request->query = SPAN_NONE;
    request->host = SPAN_NONE;
    request->body = SPAN_NONE;
}

size_t http_request_bytes(const struct http_request *request)
{
    return request->conn->parser.end;
}
