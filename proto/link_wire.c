/* link_wire.c: nng's side of a link.
 *
 *   nng threads                           loop thread
 *   pipe added / removed ─┐
 *   message received ─────┴─▶ inbox ──wake──▶ on_event ..., on_drained
 *   waiting send done ────────▶ next of outbox
 *
 * Receiving: one aio, armed again by its own callback unless the inbox is full: then by the loop, so a peer that floods
 * us fills its own socket, not our memory.
 *
 * Sending: with nng's send buffers at 0 a message is taken when the pipe waits for one, which is nearly always. So
 * first an aio without callback and with no time to wait tries: it completes at once, without a thread being woken.
 * If the pipe is busy the message goes to the outbox, which a second aio works off from its callback. What waits when
 * a pipe goes is dropped: it belongs to a session that has ended.
 *
 * `lock` guards the inbox, the outbox and their flags. nng is never called with it held, except to free messages. */
#include "proto/link_wire.h"

#include <errno.h>
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/loop.h"
#include "proto/limits.h"

enum {
    INBOX_EVENTS_MAX = 1024,             /* beyond, receiving waits for the loop */
    INBOX_BYTES_MAX = 128 * 1024 * 1024, /* likewise; two of the largest frames */
    REDIAL_MS_MIN = 20,
    REDIAL_MS_MAX = 100,
    SOCKET_MODE = 0660,
    PROTOCOL_HEAD_BYTES = 8, /* what raw req/rep adds to a message */
};

/* Ends the backtrace of a raw req/rep message; the rest of the number says nothing to us. */
static const uint32_t REQUEST_ID = UINT32_C(0x80000001);

struct outgoing {
    uint32_t pipe;
    nng_msg *msg;
};

struct link_wire {
    enum link_pattern pattern;
    bool listen;
    nng_socket socket;
    nng_aio *recv_aio;
    nng_aio *try_aio;  /* loop thread */
    nng_aio *wait_aio; /* whoever set wait_busy */
    struct loop_waker *waker;
    struct wire_handler handler;
    uint64_t *peer_uids;
    size_t peer_uid_count;
    struct wire_event *draining; /* the inbox as it was taken, kept for its memory */
    size_t draining_capacity;
    bool in_callback;

    pthread_mutex_t lock;
    bool closing;
    bool recv_paused;
    bool wait_busy;
    uint32_t wait_pipe;
    struct wire_event *inbox;
    size_t inbox_count;
    size_t inbox_capacity;
    size_t inbox_bytes;
    struct outgoing *outbox; /* a ring */
    size_t outbox_first;
    size_t outbox_count;
    size_t outbox_capacity;
};

static int nng_failed(struct err *err, int code, const char *what, const char *path)
{
    int negative = -EIO;

    if (code == NNG_EADDRINUSE) {
        negative = -EADDRINUSE;
    } else if (code == NNG_EPERM) {
        negative = -EACCES;
    } else if (code == NNG_EADDRINVAL || code == NNG_EINVAL) {
        negative = -EINVAL;
    } else if (code == NNG_ENOMEM) {
        negative = -ENOMEM;
    } else if (code == NNG_ENOFILES) {
        negative = -EMFILE;
    }
    return err_set(err, negative, "%s %s: %s", what, path, nng_strerror(code));
}

/* --- messages ----------------------------------------------------------------------------------------- */

static nng_msg *nng_of(struct wire_message *message)
{
    return (nng_msg *)(void *)message;
}

struct span wire_message_body(const struct wire_message *message)
{
    nng_msg *msg = (nng_msg *)(uintptr_t)message; /* nng's getters are not const */
    return span_of(nng_msg_body(msg), nng_msg_len(msg));
}

struct wire_message *wire_message_free(struct wire_message *message)
{
    if (message != NULL) {
        nng_msg_free(nng_of(message));
    }
    return NULL;
}

/* --- the inbox: filled by nng's threads ------------------------------------------------------------------ */

static bool inbox_is_full(const struct link_wire *wire)
{
    return wire->inbox_count >= INBOX_EVENTS_MAX || wire->inbox_bytes >= INBOX_BYTES_MAX;
}

/* Under lock. */
static void inbox_append(struct link_wire *wire, const struct wire_event *event)
{
    if (wire->inbox_count == wire->inbox_capacity) {
        wire->inbox_capacity = wire->inbox_capacity == 0 ? 64 : wire->inbox_capacity * 2;
        wire->inbox = xrealloc(wire->inbox, wire->inbox_capacity * sizeof wire->inbox[0]);
    }
    wire->inbox[wire->inbox_count++] = *event;
}

static void on_received(void *user)
{
    struct link_wire *wire = user;

    if (nng_aio_result(wire->recv_aio) != 0) {
        return; /* only ever because the socket closes */
    }
    nng_msg *msg = nng_aio_get_msg(wire->recv_aio);
    struct wire_event event = {
        .kind = WIRE_MESSAGE,
        .pipe = (uint32_t)nng_pipe_id(nng_msg_get_pipe(msg)),
        .message = (struct wire_message *)(void *)msg,
    };
    nng_aio_set_msg(wire->recv_aio, NULL);

    pthread_mutex_lock(&wire->lock);
    if (wire->closing) {
        pthread_mutex_unlock(&wire->lock);
        nng_msg_free(msg);
        return;
    }
    inbox_append(wire, &event);
    wire->inbox_bytes += nng_msg_len(msg);
    bool paused = inbox_is_full(wire);
    wire->recv_paused = paused;
    loop_waker_wake(wire->waker);
    pthread_mutex_unlock(&wire->lock);
    if (!paused) {
        nng_recv_aio(wire->socket, wire->recv_aio);
    }
}

static bool uid_is_allowed(const struct link_wire *wire, int64_t uid)
{
    for (size_t i = 0; i < wire->peer_uid_count; i++) {
        if (uid >= 0 && wire->peer_uids[i] == (uint64_t)uid) {
            return true;
        }
    }
    return wire->peer_uid_count == 0;
}

/* Before a pipe starts, so its added event precedes its messages; and after it is gone, which follows each of the
 * former, even where the pipe was refused in between. */
static void on_pipe(nng_pipe pipe, nng_pipe_ev what, void *user)
{
    struct link_wire *wire = user;
    struct wire_event event = {
        .kind = what == NNG_PIPE_EV_ADD_PRE ? WIRE_PIPE_ADDED : WIRE_PIPE_REMOVED,
        .pipe = (uint32_t)nng_pipe_id(pipe),
        .uid = -1,
    };
    uint64_t value;

    if (event.kind == WIRE_PIPE_ADDED) {
        if (nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_UID, &value) == 0) {
            event.uid = (int64_t)value;
        }
        if (nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_PID, &value) == 0) {
            event.pid = (int64_t)value;
        }
        if (wire->listen && !uid_is_allowed(wire, event.uid)) {
            (void)nng_pipe_close(pipe);
        }
    }
    pthread_mutex_lock(&wire->lock);
    if (!wire->closing) {
        inbox_append(wire, &event);
        loop_waker_wake(wire->waker);
    }
    pthread_mutex_unlock(&wire->lock);
}

/* --- the outbox ------------------------------------------------------------------------------------------- */

/* The one way out: see the header. */
static void send_aio(struct link_wire *wire, nng_aio *aio, nng_msg *msg)
{
    nng_aio_set_msg(aio, msg);
    nng_send_aio(wire->socket, aio);
}

/* Under lock. */
static void outbox_append(struct link_wire *wire, struct outgoing out)
{
    if (wire->outbox_count == wire->outbox_capacity) {
        size_t capacity = wire->outbox_capacity == 0 ? 64 : wire->outbox_capacity * 2;
        struct outgoing *ring = xmalloc(capacity * sizeof ring[0]);
        for (size_t i = 0; i < wire->outbox_count; i++) {
            ring[i] = wire->outbox[(wire->outbox_first + i) % wire->outbox_capacity];
        }
        free(wire->outbox);
        wire->outbox = ring;
        wire->outbox_first = 0;
        wire->outbox_capacity = capacity;
    }
    size_t at = (wire->outbox_first + wire->outbox_count) % wire->outbox_capacity;
    wire->outbox[at] = out;
    wire->outbox_count++;
}

/* Under lock. Takes the next message and the right to use wait_aio; NULL: none, or the aio is in use. */
static nng_msg *outbox_take(struct link_wire *wire)
{
    if (wire->wait_busy || wire->outbox_count == 0 || wire->closing) {
        return NULL;
    }
    struct outgoing out = wire->outbox[wire->outbox_first];
    wire->outbox_first = (wire->outbox_first + 1) % wire->outbox_capacity;
    wire->outbox_count--;
    wire->wait_busy = true;
    wire->wait_pipe = out.pipe;
    return out.msg;
}

/* Under lock. */
static void outbox_drop_pipe(struct link_wire *wire, uint32_t pipe)
{
    size_t count = wire->outbox_count;

    for (size_t i = 0; i < count; i++) {
        struct outgoing out = wire->outbox[wire->outbox_first];
        wire->outbox_first = (wire->outbox_first + 1) % wire->outbox_capacity;
        wire->outbox_count--;
        if (out.pipe == pipe) {
            nng_msg_free(out.msg);
        } else {
            outbox_append(wire, out);
        }
    }
}

static void on_waited_send(void *user)
{
    struct link_wire *wire = user;

    if (nng_aio_result(wire->wait_aio) != 0) {
        nng_msg_free(nng_aio_get_msg(wire->wait_aio)); /* its pipe went, or the socket closes */
        nng_aio_set_msg(wire->wait_aio, NULL);
    }
    pthread_mutex_lock(&wire->lock);
    wire->wait_busy = false;
    nng_msg *next = outbox_take(wire);
    pthread_mutex_unlock(&wire->lock);
    if (next != NULL) {
        send_aio(wire, wire->wait_aio, next);
    }
}

static nng_msg *build_message(
        const struct link_wire *wire, uint32_t pipe, struct span head, struct span body)
{
    nng_msg *msg = NULL;

    INVARIANT_EQ(nng_msg_alloc(&msg, head.bytes + body.bytes), 0);
    uint8_t *at = nng_msg_body(msg);
    memcpy(at, head.data, head.bytes);
    if (body.bytes > 0) {
        memcpy(at + head.bytes, body.data, body.bytes);
    }
    if (wire->pattern == LINK_REQREP) {
        if (wire->listen) {
            INVARIANT_EQ(nng_msg_header_append_u32(msg, pipe), 0);
        }
        INVARIANT_EQ(nng_msg_header_append_u32(msg, REQUEST_ID), 0);
    }
    return msg;
}

void wire_send(struct link_wire *wire, uint32_t pipe, struct span head, struct span body)
{
    nng_msg *msg = build_message(wire, pipe, head, body);

    pthread_mutex_lock(&wire->lock);
    bool idle = !wire->wait_busy && wire->outbox_count == 0;
    pthread_mutex_unlock(&wire->lock);
    if (idle) {
        send_aio(wire, wire->try_aio, msg);
        nng_aio_wait(wire->try_aio); /* it has completed already: it may not wait */
        if (nng_aio_result(wire->try_aio) == 0) {
            return;
        }
        msg = nng_aio_get_msg(wire->try_aio);
        nng_aio_set_msg(wire->try_aio, NULL);
    }
    pthread_mutex_lock(&wire->lock);
    outbox_append(wire, (struct outgoing){ pipe, msg });
    nng_msg *next = outbox_take(wire);
    pthread_mutex_unlock(&wire->lock);
    if (next != NULL) {
        send_aio(wire, wire->wait_aio, next);
    }
}

static void forget_pipe(struct link_wire *wire, uint32_t pipe)
{
    pthread_mutex_lock(&wire->lock);
    outbox_drop_pipe(wire, pipe);
    bool cancel = wire->wait_busy && wire->wait_pipe == pipe;
    pthread_mutex_unlock(&wire->lock);
    if (cancel) {
        /* At worst this hits the next message instead, and the link sends that one again. */
        nng_aio_cancel(wire->wait_aio);
    }
}

void wire_close_pipe(struct link_wire *wire, uint32_t pipe)
{
    forget_pipe(wire, pipe);
    (void)nng_pipe_close((nng_pipe){ .id = pipe });
}

/* --- the loop's side ------------------------------------------------------------------------------------ */

static void on_woken(void *user)
{
    struct link_wire *wire = user;

    pthread_mutex_lock(&wire->lock);
    struct wire_event *events = wire->inbox;
    size_t capacity = wire->inbox_capacity;
    size_t count = wire->inbox_count;
    bool resume = wire->recv_paused;
    wire->inbox = wire->draining;
    wire->inbox_capacity = wire->draining_capacity;
    wire->inbox_count = 0;
    wire->inbox_bytes = 0;
    wire->recv_paused = false;
    pthread_mutex_unlock(&wire->lock);

    wire->draining = events;
    wire->draining_capacity = capacity;
    wire->in_callback = true;
    for (size_t i = 0; i < count; i++) {
        if (events[i].kind == WIRE_PIPE_REMOVED) {
            forget_pipe(wire, events[i].pipe);
        }
        wire->handler.on_event(wire->handler.user, &events[i]);
    }
    if (count > 0) {
        wire->handler.on_drained(wire->handler.user);
    }
    wire->in_callback = false;
    if (resume) {
        nng_recv_aio(wire->socket, wire->recv_aio);
    }
}

static int open_socket(struct link_wire *wire)
{
    if (wire->pattern == LINK_PAIR) {
        return nng_pair0_open_raw(&wire->socket);
    }
    return wire->listen ? nng_rep0_open_raw(&wire->socket) : nng_req0_open_raw(&wire->socket);
}

static int prepare_socket(struct link_wire *wire, size_t frame_bytes_max)
{
    int r;

    if ((r = nng_socket_set_int(wire->socket, NNG_OPT_SENDBUF, 0)) != 0 ||
            (r = nng_socket_set_size(wire->socket, NNG_OPT_RECVMAXSZ,
                     frame_bytes_max + PROTOCOL_HEAD_BYTES)) != 0 ||
            (r = nng_socket_set_ms(wire->socket, NNG_OPT_RECONNMINT, REDIAL_MS_MIN)) != 0 ||
            (r = nng_socket_set_ms(wire->socket, NNG_OPT_RECONNMAXT, REDIAL_MS_MAX)) != 0 ||
            (r = nng_pipe_notify(wire->socket, NNG_PIPE_EV_ADD_PRE, on_pipe, wire)) != 0 ||
            (r = nng_pipe_notify(wire->socket, NNG_PIPE_EV_REM_POST, on_pipe, wire)) != 0 ||
            (r = nng_aio_alloc(&wire->recv_aio, on_received, wire)) != 0 ||
            (r = nng_aio_alloc(&wire->try_aio, NULL, NULL)) != 0 ||
            (r = nng_aio_alloc(&wire->wait_aio, on_waited_send, wire)) != 0) {
        return r;
    }
    nng_aio_set_timeout(wire->try_aio, NNG_DURATION_ZERO);
    nng_aio_set_timeout(wire->wait_aio, NNG_DURATION_INFINITE);
    nng_aio_set_timeout(wire->recv_aio, NNG_DURATION_INFINITE);
    nng_recv_aio(wire->socket, wire->recv_aio);
    return 0;
}

static int start_endpoint(struct link_wire *wire, const char *path, struct err *err)
{
    char url[NNG_MAXADDRLEN];
    nng_listener listener;
    nng_dialer dialer;
    int r;

    if ((size_t)snprintf(url, sizeof url, "ipc://%s", path) >= sizeof url) {
        return err_set(err, -ENAMETOOLONG, "socket path %s: too long", path);
    }
    if (!wire->listen) {
        if ((r = nng_dialer_create(&dialer, wire->socket, url)) != 0 ||
                (r = nng_dialer_start(dialer, NNG_FLAG_NONBLOCK)) != 0) {
            return nng_failed(err, r, "dial", path);
        }
        return 0;
    }
    if ((r = nng_listener_create(&listener, wire->socket, url)) != 0 ||
            (r = nng_listener_set_int(listener, NNG_OPT_IPC_PERMISSIONS, SOCKET_MODE)) != 0 ||
            (r = nng_listener_start(listener, 0)) != 0) {
        return nng_failed(err, r, "listen on", path);
    }
    return 0;
}

int wire_open(struct loop *loop, const struct link_config *config,
        const struct wire_handler *handler, struct link_wire **ret_wire, struct err *err)
{
    struct link_wire *wire = xcalloc(1, sizeof *wire);
    size_t limit = config->frame_bytes_max == 0 ? LINK_IPC_BYTES_MAX : config->frame_bytes_max;

    INVARIANT_EQ(pthread_mutex_init(&wire->lock, NULL), 0);
    wire->pattern = config->pattern;
    wire->listen = config->listen;
    wire->handler = *handler;
    wire->waker = loop_waker_new(loop, on_woken, wire);
    wire->peer_uid_count = config->peer_uid_count;
    if (config->peer_uid_count > 0) {
        size_t bytes = config->peer_uid_count * sizeof wire->peer_uids[0];
        wire->peer_uids = xmalloc(bytes);
        memcpy(wire->peer_uids, config->peer_uids, bytes);
    }
    int r = open_socket(wire);
    if (r == 0) {
        r = prepare_socket(wire, limit);
    }
    r = r != 0 ? nng_failed(err, r, "open a socket for", config->path)
               : start_endpoint(wire, config->path, err);
    if (r < 0) {
        (void)wire_close(wire);
        return r;
    }
    *ret_wire = wire;
    return 0;
}

struct link_wire *wire_close(struct link_wire *wire)
{
    if (wire == NULL) {
        return NULL;
    }
    INVARIANT(!wire->in_callback);
    pthread_mutex_lock(&wire->lock);
    wire->closing = true;
    pthread_mutex_unlock(&wire->lock);
    (void)nng_close(wire->socket);
    /* Waits for callbacks that run: afterwards no thread of nng knows us. */
    nng_aio_free(wire->recv_aio);
    nng_aio_free(wire->try_aio);
    nng_aio_free(wire->wait_aio);
    for (size_t i = 0; i < wire->inbox_count; i++) {
        (void)wire_message_free(wire->inbox[i].message);
    }
    for (size_t i = 0; i < wire->outbox_count; i++) {
        nng_msg_free(wire->outbox[(wire->outbox_first + i) % wire->outbox_capacity].msg);
    }
    wire->waker = loop_waker_free(wire->waker);
    INVARIANT_EQ(pthread_mutex_destroy(&wire->lock), 0);
    free(wire->inbox);
    free(wire->draining);
    free(wire->outbox);
    free(wire->peer_uids);
    free(wire);
    return NULL;
}
