/* budget.c: how much memory all connections may hold together.
 *
 * Small bufs are not counted: their number is that of the connections. What is counted: the input
 * of large requests, reserved as a whole before their bytes are read, answers that the sockets have
 * not taken, and what the handler says that it holds. Above held_bytes_max a large request waits,
 * unread but for its beginning, for room, in the order of arrival; and while somebody waits, or too
 * much is held, a connection that holds much and moves little is ended. Above twice that, what a
 * socket does not take at once of a large answer is not kept unless others hold it anyway: the
 * connection ends; and what is not small counts as large. Small requests and answers go on as
 * ever. */
#include "common/http/internal.h"

enum {
    SMALL_BYTES = HTTP_POOL_BUF_BYTES_MAX,
    JUDGE_MS = 5000,                  /* a connection has that long ... */
    JUDGE_MOVED_BYTES_MIN = 64 << 10, /* ... to move that much, while others wait */
    LATE_MS = 1500,                   /* more than a tick */
    LARGE_REQUEST_BYTES = 64 << 10,   /* a larger one is reserved before it is read */
    SHORT_READ_BYTES = 4 << 10,       /* enough for most heads */
};

static size_t counted(const struct buf *buf)
{
    return buf->capacity > SMALL_BYTES ? buf->capacity : 0;
}

void http_conn_recharge(struct http_conn *conn)
{
    size_t bytes = counted(&conn->in) + counted(&conn->out) + conn->lead_bytes;

    if (bytes == conn->charged_bytes) {
        return;
    }
    if (conn->charged_bytes == 0) {
        conn->judge_at_ms = uv_now(conn->server->uv) + JUDGE_MS;
        conn->moved_bytes = 0;
    }
    conn->server->held_bytes += bytes - conn->charged_bytes;
    conn->charged_bytes = bytes;
}

static bool has_room_for(const struct http_server *server, size_t bytes)
{
    return server->held_bytes + server->other_bytes + bytes <= server->config.held_bytes_max;
}

bool http_server_is_full(const struct http_server *server)
{
    return server->held_bytes > 2 * server->config.held_bytes_max;
}

/* While memory is short as much as shows how large a request will be: who then waits for room, however many they are, holds no
 * more. */
size_t http_server_read_bytes(const struct http_server *server)
{
    bool is_short = !list_is_empty(&server->waiting) || !has_room_for(server, 0);
    return is_short ? SHORT_READ_BYTES : HTTP_SCRATCH_BYTES;
}

static size_t large_request_bytes(const struct http_server *server)
{
    return http_server_is_full(server) ? SMALL_BYTES : LARGE_REQUEST_BYTES;
}

void http_server_set_other_bytes(struct http_server *server, size_t bytes)
{
    server->other_bytes = bytes;
}

/* What `in` must hold for the request that it begins with, as far as is known. */
static size_t bytes_wanted(const struct http_conn *conn)
{
    const struct http_parser *parser = &conn->parser;
    const struct http_config *config = &conn->server->config;
    bool is_known = parser->stage == HTTP_STAGE_BODY && !parser->is_chunked;

    if (is_known && !parser->is_body_too_large) {
        return parser->body.offset + (size_t)parser->content_length;
    }
    if (is_known || conn->in.bytes - conn->in_start <= large_request_bytes(conn->server)) {
        return 0;
    }
    return config->header_bytes_max + HTTP_SCRATCH_BYTES +
           (parser->stage == HTTP_STAGE_BODY ? config->body_bytes_max : 0);
}

static void set_capacity(struct http_conn *conn, size_t capacity)
{
    struct buf *in = &conn->in;

    if (conn->in_start > 0) {
        buf_drop_front(in, conn->in_start);
        conn->in_start = 0;
    }
    capacity = MAX(capacity, in->bytes);
    in->data = xrealloc(in->data, capacity);
    in->capacity = capacity;
    http_conn_charge(conn);
}

void http_conn_admit(struct http_conn *conn)
{
    size_t wanted = bytes_wanted(conn);

    if (wanted <= large_request_bytes(conn->server) ||
            wanted <= conn->in.capacity - conn->in_start) {
        return;
    }
    if (list_is_empty(&conn->server->waiting) &&
            has_room_for(conn->server, wanted - MIN(wanted, conn->charged_bytes))) {
        set_capacity(conn, wanted);
        return;
    }
    set_capacity(conn, 0); /* only what has come */
    conn->is_waiting = true;
    list_append(&conn->server->waiting, &conn->wait);
    http_conn_update_poll(conn); /* as long as it waits, the socket is not read */
}

static void wait_no_more(struct http_conn *conn)
{
    list_remove(&conn->wait);
    conn->is_waiting = false;
    conn->is_hung_up = false;
    if (conn->deadline_class == HTTP_DEADLINE_REQUEST) {
        http_conn_set_deadline(conn, HTTP_DEADLINE_REQUEST); /* the time was ours */
    }
    http_conn_update_poll(conn);
}

void http_server_use_room(struct http_server *server)
{
    while (!list_is_empty(&server->waiting)) {
        struct http_conn *conn = CONTAINER_OF(server->waiting.next, struct http_conn, wait);
        size_t wanted = bytes_wanted(conn);
        if (!has_room_for(server, wanted - MIN(wanted, conn->charged_bytes))) {
            break;
        }
        set_capacity(conn, wanted);
        wait_no_more(conn);
    }
}

/* Whether the client has had time to take or send something, and did not. */
static bool is_too_slow(struct http_conn *conn, uint64_t now_ms)
{
    bool waits_for_us =
            conn->is_waiting || (conn->state == HTTP_CONN_PENDING && http_conn_unsent(conn) == 0);

    if (conn->charged_bytes == 0 || waits_for_us) {
        conn->judge_at_ms = now_ms + JUDGE_MS;
        conn->moved_bytes = 0;
        return false;
    }
    if (now_ms < MAX(conn->judge_at_ms, conn->server->need_since_ms + JUDGE_MS)) {
        return false;
    }
    bool is_slow = conn->moved_bytes < JUDGE_MOVED_BYTES_MIN;
    conn->judge_at_ms = now_ms + JUDGE_MS;
    conn->moved_bytes = 0;
    return is_slow;
}

void http_server_judge(struct http_server *server)
{
    uint64_t now_ms = uv_now(server->uv);

    if (has_room_for(server, 0) && list_is_empty(&server->waiting)) {
        server->need_since_ms = 0;
        return;
    }
    /* After a turn that took long nobody is judged by what we have not read or sent yet. */
    if (server->need_since_ms == 0 || now_ms - server->judged_at_ms > LATE_MS) {
        server->need_since_ms = now_ms;
    }
    server->judged_at_ms = now_ms;
    LIST_FOREACH (conn, &server->conns, struct http_conn, all) {
        if (is_too_slow(conn, now_ms)) {
            server->stats.cut++;
            http_conn_give_up(conn);
        }
    }
    http_server_use_room(server);
}
