/* output.c: what a connection has yet to send.
 *
 * Small bytes gather in `out`. A body that many connections send is not copied for each: what has
 * gathered so far and a reference to the body become a piece, and `out` begins anew behind it. All
 * pieces and `out` go out in one system call. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/http/internal.h"

enum {
    SHARE_ABOVE_BYTES = 16 << 10, /* smaller ones are copied: a piece would cost more */
    PIECES_PER_CALL = 32,
};

struct http_body {
    struct http_server *server;
    size_t ref_count;
    struct buf data;
};

struct http_piece {
    struct http_piece *next;
    struct buf lead; /* what goes before the body */
    size_t lead_start;
    struct http_body *body;
    size_t body_start;
};

struct http_body *http_body_new(struct http_server *server, struct buf *take_data)
{
    struct http_body *body = xmalloc(sizeof *body);

    buf_fit(take_data);
    *body = (struct http_body){ .server = server, .ref_count = 1, .data = *take_data };
    *take_data = BUF_INIT;
    server->held_bytes += body->data.capacity;
    return body;
}

struct http_body *http_body_ref(struct http_body *body)
{
    body->ref_count++;
    return body;
}

struct http_body *http_body_unref(struct http_body *body)
{
    if (body != NULL && --body->ref_count == 0) {
        body->server->held_bytes -= body->data.capacity;
        buf_fini(&body->data);
        free(body);
    }
    return NULL;
}

struct span http_body_span(const struct http_body *body)
{
    return buf_span(&body->data);
}

struct buf *http_conn_out(struct http_conn *conn)
{
    if (conn->out.data == NULL) {
        http_pool_lend(&conn->server->pool, &conn->out);
    } else if (conn->out_start > 0 && conn->out_start >= conn->out.bytes / 2) {
        buf_drop_front(&conn->out, conn->out_start);
        conn->out_start = 0;
    }
    http_conn_want_turn(conn);
    return &conn->out;
}

size_t http_conn_unsent(const struct http_conn *conn)
{
    return conn->piece_bytes + conn->out.bytes - conn->out_start;
}

static void append_piece(struct http_conn *conn, struct http_body *take_body, size_t body_start)
{
    struct http_piece *piece = xmalloc(sizeof *piece);

    *piece = (struct http_piece){ .lead = conn->out,
        .lead_start = conn->out_start,
        .body = take_body,
        .body_start = body_start };
    conn->piece_bytes += conn->out.bytes - conn->out_start + take_body->data.bytes - body_start;
    conn->lead_bytes += conn->out.capacity + sizeof *piece;
    conn->out = BUF_INIT;
    conn->out_start = 0;
    if (conn->last_piece == NULL) {
        conn->pieces = piece;
    } else {
        conn->last_piece->next = piece;
    }
    conn->last_piece = piece;
    http_conn_want_turn(conn);
}

bool http_conn_may_hold(const struct http_conn *conn, const struct http_body *body)
{
    bool is_held_anyway = body->ref_count > 1; /* by others than its maker */

    return body->data.bytes <= SHARE_ABOVE_BYTES || is_held_anyway ||
           !http_server_is_full(conn->server);
}

void http_conn_append_body(struct http_conn *conn, struct http_body *body)
{
    if (body->data.bytes > SHARE_ABOVE_BYTES) {
        append_piece(conn, http_body_ref(body), 0);
    } else {
        buf_append_span(http_conn_out(conn), buf_span(&body->data));
    }
}

void http_conn_append_copy(struct http_conn *conn, struct span data)
{
    struct buf copy = BUF_INIT;

    if (data.bytes <= SHARE_ABOVE_BYTES) {
        buf_append_span(http_conn_out(conn), data);
        return;
    }
    if (http_server_is_full(conn->server)) {
        conn->server->stats.cut++;
        conn->is_broken = true;
        http_conn_want_turn(conn);
        return;
    }
    /* Of just that size: `out` would double, and move what it holds. */
    copy = (struct buf){ xmalloc(data.bytes), data.bytes, data.bytes };
    memcpy(copy.data, data.data, data.bytes);
    append_piece(conn, http_body_new(conn->server, &copy), 0);
}

static void drop_first_piece(struct http_conn *conn)
{
    struct http_piece *piece = conn->pieces;

    conn->lead_bytes -= piece->lead.capacity + sizeof *piece;
    conn->pieces = piece->next;
    if (conn->pieces == NULL) {
        conn->last_piece = NULL;
    }
    http_pool_return(&conn->server->pool, &piece->lead);
    (void)http_body_unref(piece->body);
    free(piece);
}

void http_conn_drop_output(struct http_conn *conn)
{
    while (conn->pieces != NULL) {
        drop_first_piece(conn);
    }
    conn->piece_bytes = 0;
    http_pool_return(&conn->server->pool, &conn->out);
    conn->out_start = 0;
}

static void add_vector(struct iovec *vector, struct span data)
{
    memcpy(&vector->iov_base, &data.data, sizeof data.data); /* iovec knows no const */
    vector->iov_len = data.bytes;
}

/* Takes sent bytes off the pieces; returns those that were of `out`. */
static size_t take_sent(struct http_conn *conn, size_t sent)
{
    while (conn->pieces != NULL) {
        struct http_piece *piece = conn->pieces;
        size_t of_lead = MIN(sent, piece->lead.bytes - piece->lead_start);
        size_t of_body = MIN(sent - of_lead, piece->body->data.bytes - piece->body_start);
        piece->lead_start += of_lead;
        piece->body_start += of_body;
        conn->piece_bytes -= of_lead + of_body;
        sent -= of_lead + of_body;
        if (piece->body_start < piece->body->data.bytes) {
            break;
        }
        drop_first_piece(conn);
    }
    return sent;
}

static ssize_t send_pieces(struct http_conn *conn)
{
    struct iovec vectors[2 * PIECES_PER_CALL + 1];
    struct msghdr message = { .msg_iov = vectors };
    const struct http_piece *piece = conn->pieces;

    for (size_t i = 0; piece != NULL && i < PIECES_PER_CALL; i++, piece = piece->next) {
        add_vector(&vectors[2 * i], span_from(buf_span(&piece->lead), piece->lead_start));
        add_vector(&vectors[2 * i + 1], span_from(buf_span(&piece->body->data), piece->body_start));
        message.msg_iovlen += 2;
    }
    if (piece == NULL) {
        add_vector(
                &vectors[message.msg_iovlen++], span_from(buf_span(&conn->out), conn->out_start));
    }
    return sendmsg(conn->fd, &message, MSG_NOSIGNAL);
}

ssize_t http_conn_send(struct http_conn *conn)
{
    ssize_t sent = conn->pieces != NULL ? send_pieces(conn)
                                        : send(conn->fd, conn->out.data + conn->out_start,
                                                  conn->out.bytes - conn->out_start, MSG_NOSIGNAL);
    if (sent < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    }
    conn->out_start += conn->pieces != NULL ? take_sent(conn, (size_t)sent) : (size_t)sent;
    return sent;
}
