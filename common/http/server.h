/* server.h: an HTTP/1.x server on the loop, parsing by llhttp (strict).
 *
 * Requests of one connection are handed out one at a time, whole (body included), in order; the
 * next is parsed when the one before is answered, so pipelining needs no queue of ours. Answers are
 * written at the turn's end, all of a connection's in one write. An idle connection holds no
 * buffer. To be answered in the turn they were read in, turn-end callbacks that answer requests are
 * added to the loop before the server is made; those of others go out one turn later.
 *
 * Refused here, in etcd's words: malformed requests (400), missing Host (400), header block over 1
 * MiB (431), ambiguous framing (400, close). Bodies over body_bytes_max are read and dropped, and
 * the request says so. Answered here: Expect: 100-continue (others: 417); OPTIONS *; HTTP/2 and
 * gRPC (told which API is served and how to ask for it). An Upgrade is not followed: such a request
 * is served over HTTP/1.1, as etcd does. Slow clients: a request must be whole within
 * request_timeout_ms of its first byte; unread answers above output_bytes_max or unsent for
 * write_timeout_ms end the connection; idle keep-alive connections end after idle_timeout_ms.
 *
 * All connections together hold little more than held_bytes_max of requests that come in and answers
 * that go out: above it, requests over 64 KiB are not read before there is room, and connections that
 * hold more than 16 KiB and move less than 64 KiB in 5 s are ended. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct loop;
struct http_body;
struct http_server;
struct http_conn;

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_PUT,
    HTTP_POST,
    HTTP_DELETE,
    HTTP_OPTIONS,
    HTTP_CONNECT,
    HTTP_OTHER, /* any other token, also wrong case: see `method_text` */
};

/* One request. All spans live until it is answered (its last http_* call) or cancelled. */
struct http_request {
    struct http_conn *conn;
    enum http_method method;
    struct span method_text;
    struct span target; /* as on the request line: "/v2/keys/a?b=c", "*", or absolute form */
    struct span path;   /* raw path of it, still escaped */
    struct span query;  /* raw query without '?'; data NULL: there was no '?' */
    struct span host;   /* Host header, or the authority of an absolute target */
    struct span body;
    bool body_too_large;
    unsigned minor; /* HTTP/1.minor */
    bool keep_alive;
    void *user;         /* the handler's own, kept between the calls */
    unsigned user_mark; /* likewise */
};

struct http_events {
    /* Answer now or later with http_respond / http_stream_*; exactly once. */
    void (*on_request)(void *user, struct http_request *request);
    /* The client went away before the answer was complete. The request is gone after the call;
     * nothing more may be sent on it. A closed sending half ends only a stream (the server itself
     * sends the last chunk, answers what was pipelined behind it, and closes); other requests get
     * their answer, as etcd gives it. Never called from within an http_* call, http_server_free
     * excepted: that cancels every request that is still open. */
    void (*on_cancel)(void *user, struct http_request *request);
    /* Whether others than clients are soon to wake the server, with what it needs for answers. May be NULL: never. */
    bool (*awaits)(void *user);
};

struct http_config {
    size_t header_bytes_max; /* 0: 1 MiB + 4 KiB */
    size_t body_bytes_max;   /* 0: 10 MiB */
    size_t output_bytes_max; /* 0: 64 MiB unread by one client */
    size_t held_bytes_max;   /* 0: 256 MiB in all, see budget.c; at least 4 whole requests */
    unsigned conn_count_max; /* 0: RLIMIT_NOFILE - 150; over it new ones are told 503 and closed */
    uint64_t request_timeout_ms; /* 0: 60,000 */
    uint64_t write_timeout_ms;   /* 0: 60,000, from the last byte that the client took */
    uint64_t idle_timeout_ms;    /* 0: 300,000 */
    const struct http_events *events;
    void *user;
};

struct http_stats {
    uint64_t conn_count;
    uint64_t accepted;
    uint64_t refused;
    uint64_t requests;
    uint64_t cut;        /* ended because they held memory that others waited for */
    uint64_t held_bytes; /* now, as held_bytes_max counts them */
};

int http_server_new(struct loop *loop, const struct http_config *config,
        struct http_server **ret_server, struct err *err);
/* Closes all; the memory goes once the loop has closed the handles. Not from a turn-end callback.
 * Always NULL, accepts NULL. */
struct http_server *http_server_free(struct http_server *server);
/* Accepts from a listening socket (TCP or unix) that somebody bound; takes the descriptor. */
int http_server_listen(struct http_server *server, int take_fd, struct err *err);
/* Stops accepting; idle connections close, busy ones after their answer; done(user), once, when
 * none but streams is left. Streams go on until http_server_free (a long poll that is answered
 * meanwhile closes its connection). */
void http_server_drain(struct http_server *server, void (*done)(void *user), void *user);
void http_server_get_stats(const struct http_server *server, struct http_stats *ret_stats);

/* A request header by lower-case name; data NULL when absent. Valid while the request is. */
struct span http_header(const struct http_request *request, const char *name);

/* Answers at once. `headers` are complete lines "Name: value\r\n", or empty. Go writes the names of
 * a handler's own headers in byte order, then what it adds itself; so does this: `headers`, Date,
 * Content-Length, Connection. The last is "close" where the connection will end (never to
 * HTTP/1.0), "keep-alive" to an HTTP/1.0 client that asked for it. HEAD: the body's length is told
 * unless it is 0, the body is not sent. Statuses 1xx, 204 and 304 have neither length nor body. */
void http_respond(
        struct http_request *request, unsigned status, struct span headers, struct span body);
/* As http_respond, but framed as chunked when body is above 2048 bytes, as Go does, and the client
 * speaks 1.1. */
void http_respond_json(
        struct http_request *request, unsigned status, struct span headers, struct span body);
/* As http_respond, with `late` lines between Content-Length and Connection: the place where Go puts
 * a Content-Type that it guessed because the handler set none (/health, /v2/machines). */
void http_respond_late(struct http_request *request, unsigned status, struct span headers,
        struct span late, struct span body);
/* Answers and closes the connection. Adds the line "Connection: close" unless `headers` has it. */
void http_respond_close(
        struct http_request *request, unsigned status, struct span headers, struct span body);
/* Refuses as Go's server refuses what it cannot parse, and closes: `refusal` ("400 Bad Request",
 * static) is status line and body; Content-Type and Connection are the only headers. */
void http_refuse(struct http_request *request, const char *refusal);

/* A chunked answer that stays open. The head goes out at this turn's end. */
void http_stream_begin(struct http_request *request, unsigned status, struct span headers);
void http_stream_chunk(struct http_request *request, struct span data);
/* Sends the last chunk; the connection lives on if kept alive. */
void http_stream_end(struct http_request *request);
/* Ends the connection without the last chunk. */
void http_stream_abort(struct http_request *request);
/* Bytes not yet taken by the client's socket. */
size_t http_stream_unsent(const struct http_request *request);

/* Gives the request's headers and body back now, for an answer that will be long in coming: it then
 * holds only its connection, less than 1 KiB. Spans of the request are empty afterwards, and it has no
 * headers any more. */
void http_request_release(struct http_request *request);
/* How much of the server's memory that would give back. */
size_t http_request_bytes(const struct http_request *request);

/* A body that many answers send: each holds a reference to it and no copy. All references must be
 * gone before the server is freed, except those that its connections hold. */
struct http_body *http_body_new(struct http_server *server, struct buf *take_data);
struct http_body *http_body_ref(struct http_body *body);
struct http_body *http_body_unref(struct http_body *body); /* always NULL, accepts NULL */
struct span http_body_span(const struct http_body *body);
/* As http_stream_chunk and http_respond_json. They take references of their own. */
void http_stream_share(struct http_request *request, struct http_body *body);
void http_respond_body(
        struct http_request *request, unsigned status, struct span headers, struct http_body *body);

/* What the handler itself holds for requests that wait: it counts against held_bytes_max as input
 * does. */
void http_server_set_other_bytes(struct http_server *server, size_t bytes);
/* True: connections hold more than twice held_bytes_max. Who can put off a large answer should. */
bool http_server_is_full(const struct http_server *server);

/* IMF-fixdate of now, refreshed each second: 29 bytes. */
const char *http_date(struct http_server *server);
const char *http_status_text(unsigned status);
