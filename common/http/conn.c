/* conn.c: one connection's socket: reads, hands requests out, sends what is gathered, ends.
 *
 * A request costs one read and one write. The read goes into the connection's buf and, should that
 * be too small, on into the server's scratch memory, so the first read can be small for most and
 * still take all. While a request is with its handler its bytes may not move, so what arrives
 * behind it goes into the room that is left, and when there is none the socket is not read: the
 * client is held back by its own window. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/http/internal.h"

enum {
    REQUESTS_PER_TURN = 64, /* of one connection that pipelines, before others get their turn */
    UNSENT_BYTES_HIGH = 256 << 10, /* above it, pipelined requests wait for the client to read */
};

static void parse(struct http_conn *conn);

void http_conn_set_deadline(struct http_conn *conn, enum http_deadline deadline)
{
    struct http_server *server = conn->server;

    list_remove(&conn->deadline);
    conn->deadline_class = (uint8_t)deadline;
    if (deadline != HTTP_DEADLINE_NONE) {
        conn->deadline_at_ms = uv_now(server->uv) + server->deadline_ms[deadline];
        list_append(&server->deadlines[deadline], &conn->deadline);
    }
}

void http_conn_want_turn(struct http_conn *conn)
{
    if (list_is_empty(&conn->turn)) {
        list_append(&conn->server->turn, &conn->turn);
        http_server_want_turn(conn->server);
    }
}

static void on_poll(uv_poll_t *handle, int status, int events);

/* Makes the handle wait for what the connection's state calls for. No system call while that stays
 * the same. */
void http_conn_update_poll(struct http_conn *conn)
{
    int wanted = 0;

    /* Who does not read answers is not asked for more requests. */
    bool is_held_back = conn->is_stalled &&
                        (conn->state == HTTP_CONN_READING || conn->state == HTTP_CONN_HTTP2) &&
                        http_conn_unsent(conn) > UNSENT_BYTES_HIGH;

    if (!conn->is_eof && !conn->is_closing && !is_held_back) {
        if (!conn->is_paused && !conn->is_waiting) {
            wanted |= UV_READABLE;
        } else if (!conn->is_hung_up) {
            wanted |= UV_DISCONNECT;
        }
    }
    if (conn->is_stalled) {
        wanted |= UV_WRITABLE;
    }
    if (wanted == conn->polled) {
        return;
    }
    conn->polled = (uint8_t)wanted;
    if (wanted == 0) {
        INVARIANT_EQ(uv_poll_stop(&conn->poll), 0);
    } else {
        INVARIANT_EQ(uv_poll_start(&conn->poll, wanted, on_poll), 0);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct http_conn *conn = handle->data;
    struct http_server *server = conn->server;

    free(conn);
    http_server_handle_closed(server);
}

void http_conn_close(struct http_conn *conn)
{
    struct http_server *server = conn->server;

    INVARIANT(conn->state != HTTP_CONN_PENDING);
    INVARIANT(conn->state != HTTP_CONN_STREAMING);
    INVARIANT(conn->state != HTTP_CONN_CLOSED);
    conn->state = HTTP_CONN_CLOSED;
    list_remove(&conn->all);
    list_remove(&conn->deadline);
    list_remove(&conn->turn);
    list_remove(&conn->wait);
    http_pool_return(&server->pool, &conn->in);
    http_conn_drop_output(conn);
    http_conn_charge(conn);
    uv_close((uv_handle_t *)&conn->poll, on_closed);
    (void)close(conn->fd);
    conn->fd = -1;
    if (conn->is_over_limit) {
        server->refused_count--;
    } else {
        server->stats.conn_count--;
    }
    http_server_resume_accepting(server);
    http_server_check_drained(server);
}

/* Tells the handler that its request is gone. */
static void cancel(struct http_conn *conn)
{
    const struct http_events *events = conn->server->config.events;

    events->on_cancel(conn->server->config.user, &conn->request);
}

void http_conn_give_up(struct http_conn *conn)
{
    if (conn->state == HTTP_CONN_PENDING || conn->state == HTTP_CONN_STREAMING) {
        cancel(conn);
        if (conn->state == HTTP_CONN_STREAMING) {
            conn->server->stream_count--;
        }
        conn->state = HTTP_CONN_READING;
    }
    http_conn_close(conn);
}

/* The client of a stream has closed its sending half: as etcd does, end the stream in good
 * order. */
static void cancel_stream(struct http_conn *conn)
{
    cancel(conn);
    http_stream_end(&conn->request);
}

/* Ends a connection whose answers are all sent. What the client sent and we have not read would
 * turn close into a reset, which may destroy the answer on its way: then only our half is closed,
 * and the rest is read away for a while. */
static void end(struct http_conn *conn)
{
    bool has_unread =
            conn->in.bytes > 0 || conn->parser.stage == HTTP_STAGE_REFUSED || conn->is_over_limit;

    if (!has_unread || conn->is_eof || shutdown(conn->fd, SHUT_WR) < 0) {
        http_conn_close(conn);
        return;
    }
    http_pool_return(&conn->server->pool, &conn->in);
    conn->state = HTTP_CONN_LINGERING;
    conn->is_closing = false;
    http_conn_set_deadline(conn, HTTP_DEADLINE_LINGER);
    http_conn_update_poll(conn);
}

static void on_all_sent(struct http_conn *conn)
{
    http_conn_drop_output(conn);
    if (conn->is_closing) {
        conn->is_stalled = false;
        end(conn);
        return;
    }
    if (conn->is_stalled) {
        conn->is_stalled = false;
        bool is_open = conn->state == HTTP_CONN_PENDING || conn->state == HTTP_CONN_STREAMING;
        http_conn_set_deadline(conn, is_open              ? HTTP_DEADLINE_NONE
                                     : conn->in.bytes > 0 ? HTTP_DEADLINE_REQUEST
                                                          : HTTP_DEADLINE_IDLE);
        if (conn->is_resume_due) {
            http_conn_want_turn(conn);
        }
    }
    http_conn_update_poll(conn);
}

int http_conn_try_send(struct http_conn *conn)
{
    size_t unsent = http_conn_unsent(conn);
    if (unsent == 0) {
        return 0;
    }
    ssize_t sent = http_conn_send(conn);
    if (sent < 0) {
        return (int)sent;
    }
    size_t taken = (size_t)sent;
    conn->moved_bytes += (uint32_t)taken;
    if (taken < unsent) {
        if (taken > 0 || !conn->is_stalled) {
            http_conn_set_deadline(conn, HTTP_DEADLINE_WRITE);
        }
        conn->is_stalled = true;
        http_conn_update_poll(conn);
        return -EAGAIN;
    }
    return 0;
}

static void flush(struct http_conn *conn)
{
    int code = http_conn_try_send(conn);

    if (code == 0) {
        on_all_sent(conn);
    } else if (code != -EAGAIN) {
        http_conn_give_up(conn);
    }
}

static void run_http2(struct http_conn *conn)
{
    size_t taken;
    struct span data = span_from(buf_span(&conn->in), conn->in_start);
    enum http_h2_result result = http_h2_run(&conn->h2, data, &taken, http_conn_out(conn));

    conn->in_start += taken;
    conn->is_closing = result == HTTP_H2_DONE || conn->is_eof;
}

/* The client will send nothing more, and `in` holds no whole request. */
static void on_end_of_input(struct http_conn *conn)
{
    bool is_cut_off = conn->in.bytes > conn->in_start && conn->parser.stage > HTTP_STAGE_LINE;

    if (is_cut_off && !conn->is_closing) {
        http_refusal_append(http_conn_out(conn), "400 Bad Request", http_date(conn->server));
    }
    conn->is_closing = true;
    http_conn_want_turn(conn);
}

static void hand_out(struct http_conn *conn)
{
    struct http_server *server = conn->server;

    conn->state = HTTP_CONN_PENDING;
    http_conn_set_deadline(conn, HTTP_DEADLINE_NONE);
    http_request_fill(conn);
    server->stats.requests++;
    if (conn->request.method == HTTP_OPTIONS && span_eq(conn->request.target, SPAN_LIT("*"))) {
        http_conn_answer_options(conn);
        return;
    }
    server->config.events->on_request(server->config.user, &conn->request);
}

/* One step of reading `in`. False when there is nothing more to do with it for now. */
static bool parse_step(struct http_conn *conn)
{
    size_t bytes = conn->in.bytes - conn->in_start;
    if (bytes == 0) {
        return false;
    }
    uint8_t *data = conn->in.data + conn->in_start;
    enum http_parse parsed = http_parser_run(&conn->parser, conn->server->rules, data, &bytes);
    conn->in.bytes = conn->in_start + bytes;

    switch (parsed) {
    case HTTP_PARSE_CONTINUE:
        buf_append_str(http_conn_out(conn), "HTTP/1.1 100 Continue\r\n\r\n");
        return true;
    case HTTP_PARSE_WHOLE:
        hand_out(conn);
        return true;
    case HTTP_PARSE_REFUSED:
        http_refusal_append(http_conn_out(conn), conn->parser.refusal, http_date(conn->server));
        conn->is_closing = true;
        http_conn_set_deadline(conn, HTTP_DEADLINE_WRITE);
        return false;
    case HTTP_PARSE_HTTP2:
        conn->state = HTTP_CONN_HTTP2;
        http_conn_set_deadline(conn, HTTP_DEADLINE_REQUEST);
        return false;
    case HTTP_PARSE_MORE:
        http_conn_admit(conn);
        break;
    }
    return false;
}

static void parse(struct http_conn *conn)
{
    unsigned steps = 0;

    conn->is_resume_due = false;
    while (conn->state == HTTP_CONN_READING && !conn->is_closing && parse_step(conn)) {
        if (++steps == REQUESTS_PER_TURN || http_conn_unsent(conn) > UNSENT_BYTES_HIGH) {
            break;
        }
    }
    if (conn->state == HTTP_CONN_HTTP2) {
        run_http2(conn);
    }
    if (conn->state == HTTP_CONN_READING && !conn->is_closing && conn->in.bytes > conn->in_start &&
            conn->deadline_class != HTTP_DEADLINE_REQUEST && !conn->is_stalled) {
        http_conn_set_deadline(conn, HTTP_DEADLINE_REQUEST);
    }
    if (conn->state == HTTP_CONN_READING && conn->is_eof && !conn->is_resume_due) {
        on_end_of_input(conn);
    }
}

static void on_eof(struct http_conn *conn)
{
    conn->is_eof = true;
    switch ((enum http_conn_state)conn->state) {
    case HTTP_CONN_LINGERING:
        http_conn_close(conn);
        return;
    case HTTP_CONN_STREAMING:
        cancel_stream(conn);
        break;
    case HTTP_CONN_READING:
        if (http_conn_unsent(conn) == 0 && conn->in.bytes == 0) {
            http_conn_close(conn);
            return;
        }
        parse(conn);
        break;
    case HTTP_CONN_HTTP2:
        conn->is_closing = true;
        http_conn_want_turn(conn);
        break;
    case HTTP_CONN_PENDING: /* gets its answer */
    case HTTP_CONN_CLOSED:
        break;
    }
    http_conn_update_poll(conn);
}

/* Reads into `in` and scratch. Returns the bytes that are new in `in`, 0 at the end, or a negative
 * errno. */
static ssize_t fill(struct http_conn *conn, bool may_move)
{
    struct http_server *server = conn->server;
    struct buf *in = &conn->in;

    if (in->data == NULL) {
        http_pool_lend(&server->pool, in);
    }
    if (may_move && conn->in_start > 0) {
        buf_drop_front(in, conn->in_start);
        conn->in_start = 0;
    }
    size_t room = in->capacity - in->bytes;
    /* A buf made for a large request is not to grow by what comes behind it. */
    bool uses_scratch = may_move && (room == 0 || in->capacity <= sizeof server->scratch);
    struct iovec parts[2] = {
        { in->data + in->bytes, room },
        { server->scratch, http_server_read_bytes(server) },
    };
    ssize_t got = readv(conn->fd, parts, uses_scratch ? 2 : 1);
    if (got <= 0) {
        return got < 0 ? -errno : 0;
    }
    conn->moved_bytes += (uint32_t)got;
    size_t direct = MIN((size_t)got, room);
    in->bytes += direct;
    buf_append(in, server->scratch, (size_t)got - direct);
    return got;
}

static void read_socket(struct http_conn *conn)
{
    bool is_open = conn->state == HTTP_CONN_PENDING || conn->state == HTTP_CONN_STREAMING;

    if (is_open && conn->in.data != NULL && conn->in.bytes == conn->in.capacity) {
        conn->is_paused = true;
        http_conn_update_poll(conn);
        return;
    }
    if (conn->state == HTTP_CONN_LINGERING) {
        buf_clear(&conn->in);
        conn->in_start = 0;
    }
    ssize_t got = fill(conn, !is_open);
    if (got == 0) {
        on_eof(conn);
    } else if (got < 0 && got != -EAGAIN && got != -EINTR) {
        http_conn_give_up(conn);
    } else if (got > 0 && (conn->state == HTTP_CONN_READING || conn->state == HTTP_CONN_HTTP2)) {
        parse(conn);
    }
    /* A buf is held only for what is in it. */
    if (conn->in.bytes == 0 && conn->state != HTTP_CONN_CLOSED) {
        http_pool_return(&conn->server->pool, &conn->in);
    }
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct http_conn *conn = handle->data;

    if (status < 0) { /* an error on the socket: reset by the client */
        http_conn_give_up(conn);
        return;
    }
    if ((events & UV_WRITABLE) != 0) {
        flush(conn);
    }
    if ((events & UV_READABLE) != 0 && conn->state != HTTP_CONN_CLOSED && !conn->is_closing) {
        read_socket(conn);
    } else if ((events & UV_DISCONNECT) != 0 && (conn->is_paused || conn->is_waiting)) {
        conn->is_hung_up = true;
        if (conn->state == HTTP_CONN_STREAMING) {
            cancel_stream(conn);
        }
        http_conn_update_poll(conn);
    }
    if (conn->state != HTTP_CONN_CLOSED) {
        http_conn_charge(conn);
    }
}

static void end_turn(struct http_conn *conn)
{
    if (conn->is_broken) {
        http_conn_give_up(conn);
        return;
    }
    if (conn->state == HTTP_CONN_STREAMING && (conn->is_eof || conn->is_hung_up)) {
        cancel_stream(conn);
    }
    if (conn->is_resume_due && !conn->is_stalled) {
        parse(conn);
        if (conn->in.bytes == 0) {
            http_pool_return(&conn->server->pool, &conn->in);
        }
    }
    if (conn->is_stalled) {
        http_conn_update_poll(conn); /* what was added may have crossed the mark */
    } else {
        flush(conn);
    }
}

void http_conn_on_turn_end(struct http_conn *conn)
{
    end_turn(conn);
    if (conn->state != HTTP_CONN_CLOSED) {
        http_conn_charge(conn);
    }
}

void http_conn_on_deadline(struct http_conn *conn)
{
    if (!list_is_empty(&conn->turn)) {
        /* Timers run between a poll and its turn's end: after a long turn, what waits for that end
         * would be given up before it was tried. */
        http_conn_set_deadline(conn, (enum http_deadline)conn->deadline_class);
        return;
    }
    http_conn_give_up(conn);
}

void http_conn_open(struct http_server *server, int take_fd, bool is_over_limit)
{
    struct http_conn *conn = xcalloc(1, sizeof *conn);

    if (uv_poll_init(server->uv, &conn->poll, take_fd) != 0) {
        (void)close(take_fd);
        free(conn);
        return;
    }
    conn->server = server;
    conn->poll.data = conn;
    conn->fd = take_fd;
    conn->is_over_limit = is_over_limit;
    list_init(&conn->deadline);
    list_init(&conn->turn);
    list_init(&conn->wait);
    list_append(&server->conns, &conn->all);
    server->handle_count++;
    if (is_over_limit) {
        server->refused_count++;
        http_refusal_append(http_conn_out(conn), "503 Service Unavailable: too many connections",
                http_date(server));
        conn->is_closing = true;
        http_conn_set_deadline(conn, HTTP_DEADLINE_LINGER);
        return;
    }
    server->stats.conn_count++;
    http_conn_set_deadline(conn, HTTP_DEADLINE_IDLE);
    http_conn_update_poll(conn);
}
