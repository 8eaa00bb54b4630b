/* internal.h: what the files of this folder's server share; nobody else includes it. It names libuv's handle type because a connection holds its handle inside itself: one
 * allocation, less than 1 KiB, is all that waits. */
#pragma once

#include "common/http/busy_poll.h"
#include "common/http/h2.h"
#include "common/http/parser.h"
#include "common/http/pool.h"
#include "common/http/response.h"
#include "common/http/server.h"
#include "common/list.h"

#include <uv.h> /* after ours: it brings MIN and MAX of <sys/param.h> */

enum {
    HTTP_SCRATCH_BYTES = 64 << 10,
    HTTP_REFUSED_COUNT_MAX =
            32, /* connections over the limit that are told so at leisure; more are just closed */
    HTTP_LINGER_MS = 1000,
};

enum http_deadline {
    HTTP_DEADLINE_NONE,
    HTTP_DEADLINE_IDLE,
    HTTP_DEADLINE_REQUEST,
    HTTP_DEADLINE_WRITE,
    HTTP_DEADLINE_LINGER,
    HTTP_DEADLINE_COUNT,
};

/* READING <-> PENDING -> STREAMING -> READING is the round of a kept-alive connection; LINGERING is
 * final: our side is shut, what the client still sends is dropped, so that a reset does not
 * overtake the answer. */
enum http_conn_state {
    HTTP_CONN_READING,   /* no request is with the handler */
    HTTP_CONN_PENDING,   /* one is */
    HTTP_CONN_STREAMING, /* and its answer has begun */
    HTTP_CONN_HTTP2,
    HTTP_CONN_LINGERING,
    HTTP_CONN_CLOSED, /* only libuv still knows it */
};

struct http_conn {
    struct http_server *server;
    struct list all;      /* server->conns */
    struct list deadline; /* server->deadlines[deadline_class] */
    struct list turn;     /* server->turn: there is something to do at its end */
    struct list wait;     /* server->waiting */
    uint64_t deadline_at_ms;
    int fd;
    uint8_t deadline_class;
    uint8_t state;
    uint8_t polled; /* what the handle waits for */
    bool is_parsing : 1;
    bool is_stalled : 1;    /* the socket took not all; waits for writable */
    bool is_paused : 1;     /* `in` is full behind an open request: not read */
    bool is_waiting : 1;    /* not read before there is memory for it: see budget.c */
    bool is_hung_up : 1;    /* the client closed its sending half while it was not read */
    bool is_eof : 1;        /* all that the client will ever send is read */
    bool is_broken : 1;     /* to be given up at the turn's end */
    bool is_closing : 1;    /* ends once `out` is sent */
    bool is_resume_due : 1; /* `in` may hold a whole request */
    bool is_chunked_answer : 1;
    bool is_over_limit : 1;
    struct http_h2 h2;
    struct buf in; /* owned while it holds anything */
    struct buf out;
    size_t in_start; /* first byte of the current request */
    size_t out_start;
    struct http_piece *pieces; /* to be sent before `out` */
    struct http_piece *last_piece;
    size_t piece_bytes;   /* unsent, of pieces */
    size_t lead_bytes;    /* memory of pieces, without their bodies */
    size_t charged_bytes; /* our part of server->held_bytes */
    uint32_t moved_bytes; /* sent and read since we began to hold much, or were judged last */
    uint64_t judge_at_ms;
    uv_poll_t poll;
    struct http_request request;
    struct http_parser parser;
};

struct http_listener {
    struct http_server *server;
    struct http_listener *next;
    uv_poll_t poll;
    int fd;
};

struct http_server {
    struct loop *loop;
    uv_loop_t *uv;
    struct http_config config; /* limits filled in */
    struct http_parser_rules *rules;
    struct http_listener *listeners;
    struct list conns;
    struct list turn;
    struct list waiting; /* connections with a large request that there is no room for */
    size_t held_bytes;   /* large bufs of connections, and bodies */
    size_t other_bytes;  /* what the handler holds for requests */
    uint64_t judged_at_ms;
    uint64_t need_since_ms; /* that somebody waits for memory; 0: nobody does */
    struct list deadlines[HTTP_DEADLINE_COUNT];
    uint64_t deadline_ms[HTTP_DEADLINE_COUNT];
    uv_idle_t awake; /* active while a turn's end is wanted: the loop must not sleep before it */
    uv_timer_t ticker;
    unsigned handle_count; /* memory lives until all are closed */
    unsigned stream_count;
    unsigned refused_count; /* open ones over the limit */
    int spare_fd;           /* given up to accept one when descriptors run out */
    bool is_accept_paused;
    bool is_draining;
    bool is_freed;
    void (*drained)(void *user);
    void *drained_user;
    struct http_stats stats;
    struct busy_poll busy_poll;
    uint64_t answers;      /* whole ones */
    uint64_t asked_before; /* stats.requests and answers, as the last turn's end saw them */
    uint64_t answered_before;
    uint64_t date_at_ms;
    int64_t date_seconds;
    char date[HTTP_DATE_BYTES + 1];
    struct http_pool pool;
    uint8_t scratch[HTTP_SCRATCH_BYTES];
};

/* server.c */
void http_server_want_turn(struct http_server *server);
void http_server_check_drained(struct http_server *server);
void http_server_handle_closed(struct http_server *server);

/* accept.c */
void http_server_stop_accepting(struct http_server *server);
void http_server_resume_accepting(struct http_server *server);

/* conn.c */
void http_conn_open(struct http_server *server, int take_fd, bool is_over_limit);
void http_conn_close(struct http_conn *conn);
void http_conn_give_up(struct http_conn *conn); /* cancels what is open, closes */
void http_conn_on_turn_end(struct http_conn *conn);
void http_conn_on_deadline(struct http_conn *conn);
void http_conn_set_deadline(struct http_conn *conn, enum http_deadline deadline);
void http_conn_want_turn(struct http_conn *conn);
void http_conn_update_poll(struct http_conn *conn);
/* 0: all is sent. -EAGAIN: the rest goes out when the socket takes more. Others: the connection is
 * of no use any more. */
int http_conn_try_send(struct http_conn *conn);

/* output.c */
struct buf *http_conn_out(struct http_conn *conn); /* to append to; goes out at the turn's end */
/* Behind what `out` has: what http_conn_out gave before is not to be used any more. */
void http_conn_append_body(struct http_conn *conn, struct http_body *body);
/* False: connections hold too much, and this body would stay in memory for this one alone. */
bool http_conn_may_hold(const struct http_conn *conn, const struct http_body *body);
void http_conn_append_copy(struct http_conn *conn, struct span data);
size_t http_conn_unsent(const struct http_conn *conn);
/* What the socket took now, or a negative errno. */
ssize_t http_conn_send(struct http_conn *conn);
void http_conn_drop_output(struct http_conn *conn);

/* budget.c */
void http_conn_recharge(struct http_conn *conn);
/* More of a request is to be read: makes room for all of it, or lets it wait for room. */
void http_conn_admit(struct http_conn *conn);
void http_server_use_room(struct http_server *server);
/* How much may be read at once beyond what a connection's buf has room for. */
size_t http_server_read_bytes(const struct http_server *server);
void http_server_judge(struct http_server *server);

/* After `in` or `out` may have grown or gone. A connection of small requests costs a look. */
static inline void http_conn_charge(struct http_conn *conn)
{
    if (MAX(conn->in.capacity, conn->out.capacity) > HTTP_POOL_BUF_BYTES_MAX ||
            conn->pieces != NULL || conn->charged_bytes > 0) {
        http_conn_recharge(conn);
    }
}

/* request.c */
void http_request_fill(struct http_conn *conn);

/* answer.c */
/* The answer is all in `out`: on to the next request, or the end. */
void http_conn_finish(struct http_conn *conn, bool is_kept);
void http_conn_answer_options(struct http_conn *conn);
