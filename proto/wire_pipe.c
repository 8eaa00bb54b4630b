/* wire_pipe.c: a byte stream as messages.
 *
 * Receiving: one aio reads what is there, up to RECEIVE_BYTES, cuts it into messages, hands them on together and reads
 * again. A message that does not fit is read straight into its own memory.
 *
 * Sending: one aio works off the outbox, up to IOV_MAX_COUNT messages at once: its callback starts the next. With the
 * outbox empty, wire_pipe_send writes to the socket on the caller's thread, inside nng_stream_send.
 *
 * With a guard, what is read is the guard's: what it opens to is then placed as if it had been read, and each message is
 * one thing that the guard closes. Its work is done under `lock`, on nng's threads when it receives: a handshake costs
 * them a millisecond, not the loop.
 *
 * `lock` guards the guard, the flags and the outbox, and is held over every call that begins or ends something on the stream: a
 * receive begun after the stream's close would never complete in nng 1.5.2. nng never calls back on the thread
 * that begins an operation, so this cannot lock up. */
#include "proto/wire_pipe.h"

#include <nng/nng.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/foreign.h"
#include "proto/wire_guard.h"

enum {
    RECEIVE_BYTES = 64 * 1024,
    LENGTH_BYTES = 4,
    IOV_MAX_COUNT = 8,      /* nng's limit */
    MESSAGES_AT_ONCE = 256, /* handed on together; more wait for a second round */
};

struct outgoing {
    uint8_t *data; /* length and message */
    size_t bytes;
};

struct wire_pipe {
    uint32_t id;
    size_t frame_bytes_max;
    struct wire_pipe_events events;
    nng_stream *stream;
    nng_aio *recv_aio;
    nng_aio *send_aio;

    /* The receive callback's own: it runs one at a time. */
    uint8_t *received; /* RECEIVE_BYTES */
    size_t received_bytes;
    struct wire_message *large; /* being read into; NULL: none */
    size_t large_bytes;         /* of it, so far */
    uint8_t *sealed;            /* RECEIVE_BYTES of the stream, with a guard */
    struct buf opened;          /* what the guard made of them */

    pthread_mutex_t lock;
    struct wire_guard *guard; /* NULL: none */
    bool has_begun;           /* the guard was asked for what it says first */
    bool has_spoken;          /* one of the two has said something */
    struct buf held;          /* frames that wait for the guard */
    struct err reason;
    bool is_receiving;
    bool is_sending;
    bool is_closed;
    bool has_ended; /* on_end was called, or nobody wants it any more */
    struct outgoing *outbox;
    size_t outbox_first;
    size_t outbox_count;
    size_t outbox_capacity; /* a power of two */
    size_t sent_bytes;      /* of the first */
    size_t waiting_bytes;   /* in the outbox */
};

static uint32_t read_length(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Under lock. True: on_end is to be called once that is unlocked. */
static bool take_end(struct wire_pipe *pipe)
{
    bool ends = pipe->is_closed && !pipe->is_receiving && !pipe->is_sending && !pipe->has_ended;

    pipe->has_ended |= ends;
    return ends;
}

/* Unlocks, and tells the end if this was it. */
static void unlock_and_end(struct wire_pipe *pipe)
{
    bool ends = take_end(pipe);

    pthread_mutex_unlock(&pipe->lock);
    if (ends) {
        pipe->events.on_end(pipe->events.user, pipe);
    }
}

/* Under lock. */
static void close_stream(struct wire_pipe *pipe)
{
    if (!pipe->is_closed) {
        pipe->is_closed = true;
        nng_stream_close(pipe->stream);
    }
}

/* Any thread; the first reason is the cause. */
static void keep_reason(struct wire_pipe *pipe, const struct err *err)
{
    pthread_mutex_lock(&pipe->lock);
    if (pipe->reason.code == 0 && err->code != -ECONNRESET) {
        pipe->reason = *err;
    }
    pthread_mutex_unlock(&pipe->lock);
}

/* --- receiving -------------------------------------------------------------------------------------------- */

/* Where the next bytes of messages belong. */
static nng_iov receive_room(struct wire_pipe *pipe)
{
    if (pipe->large != NULL) {
        size_t bytes = wire_message_body(pipe->large).bytes - pipe->large_bytes;
        return (nng_iov){ wire_message_data(pipe->large) + pipe->large_bytes, bytes };
    }
    return (nng_iov){ pipe->received + pipe->received_bytes, RECEIVE_BYTES - pipe->received_bytes };
}

/* Under lock. */
static void begin_receive(struct wire_pipe *pipe)
{
    nng_iov iov = receive_room(pipe);

    if (pipe->guard != NULL) {
        iov = (nng_iov){ pipe->sealed, RECEIVE_BYTES };
    }
    pipe->is_receiving = true;
    INVARIANT_EQ(nng_aio_set_iov(pipe->recv_aio, 1, &iov), 0);
    nng_stream_recv(pipe->stream, pipe->recv_aio);
}

/* A message that will not fit behind what is received: takes what is there of it. */
static void begin_large(struct wire_pipe *pipe, size_t at, size_t bytes)
{
    size_t there = pipe->received_bytes - at;

    pipe->large = wire_message_new(bytes);
    pipe->large_bytes = there;
    memcpy(wire_message_data(pipe->large), pipe->received + at, there);
    pipe->received_bytes = 0;
}

static void refuse_length(struct wire_pipe *pipe, size_t at)
{
    struct err err;
    const char *text = foreign_text(span_of(pipe->received + at, FOREIGN_BYTES));

    (void)err_set(&err, -EPROTO, "%s",
            text != NULL ? text : "what came is no message of a member; check what speaks there");
    keep_reason(pipe, &err);
}

/* Cuts up to `max` messages from what is received; -1: a length that cannot be. */
static int cut_messages(struct wire_pipe *pipe, struct wire_message **ret_messages, size_t max)
{
    size_t at = 0;
    int count = 0;

    while ((size_t)count < max && pipe->received_bytes - at >= LENGTH_BYTES) {
        size_t bytes = read_length(pipe->received + at);
        if (bytes == 0 || bytes > pipe->frame_bytes_max) {
            refuse_length(pipe, at);
            return -1;
        }
        if (bytes > pipe->received_bytes - at - LENGTH_BYTES) {
            if (bytes > RECEIVE_BYTES - LENGTH_BYTES) {
                begin_large(pipe, at + LENGTH_BYTES, bytes);
                return count;
            }
            break;
        }
        struct wire_message *message = wire_message_new(bytes);
        memcpy(wire_message_data(message), pipe->received + at + LENGTH_BYTES, bytes);
        ret_messages[count++] = message;
        at += LENGTH_BYTES + bytes;
    }
    pipe->received_bytes -= at;
    memmove(pipe->received, pipe->received + at, pipe->received_bytes);
    return count;
}

/* True: receive on. */
static bool hand_on_received(struct wire_pipe *pipe, bool *ret_valid)
{
    struct wire_message *messages[MESSAGES_AT_ONCE];
    bool go_on = true;
    int count;

    *ret_valid = true;
    do {
        count = cut_messages(pipe, messages, MESSAGES_AT_ONCE);
        if (count < 0) {
            *ret_valid = false;
            return false;
        }
        if (count > 0) {
            go_on = pipe->events.on_messages(pipe->events.user, pipe, messages, (size_t)count);
        }
    } while (count == MESSAGES_AT_ONCE);
    return go_on;
}

/* Puts bytes that have come where they belong, and hands on a large message that is whole now. True: there may be
 * others to cut. */
static bool place_received(struct wire_pipe *pipe, size_t bytes, bool *ret_go_on)
{
    *ret_go_on = true;
    if (pipe->large == NULL) {
        pipe->received_bytes += bytes;
        return true;
    }
    pipe->large_bytes += bytes;
    if (pipe->large_bytes == wire_message_body(pipe->large).bytes) {
        struct wire_message *message = MOVE(pipe->large);
        *ret_go_on = pipe->events.on_messages(pipe->events.user, pipe, &message, 1);
    }
    return false;
}

/* Bytes of messages: as they were read, or as the guard opened them. True: receive on. */
static bool place_and_hand_on(struct wire_pipe *pipe, size_t bytes, bool *ret_valid)
{
    bool go_on;

    if (place_received(pipe, bytes, &go_on)) {
        go_on = hand_on_received(pipe, ret_valid);
    }
    return go_on;
}

static bool open_guard(struct wire_pipe *pipe, struct span bytes);

/* The other side hung up before it knew us. Who never said a word just looked whether the port is open. */
static void note_early_end(struct wire_pipe *pipe)
{
    pthread_mutex_lock(&pipe->lock);
    if (pipe->reason.code == 0 && pipe->has_spoken && !pipe->is_closed &&
            !pipe->guard->ops->is_ready(pipe->guard)) {
        (void)err_set(&pipe->reason, -EPROTO,
                "the other side hung up in the handshake; its log says why: another scheme, key or "
                "certificate");
    }
    pthread_mutex_unlock(&pipe->lock);
}

/* The same for bytes that the guard is to open first. */
static bool open_and_hand_on(struct wire_pipe *pipe, struct span bytes, bool *ret_valid)
{
    bool go_on = true;

    buf_clear(&pipe->opened);
    pthread_mutex_lock(&pipe->lock);
    *ret_valid = open_guard(pipe, bytes);
    pthread_mutex_unlock(&pipe->lock);
    struct span left = buf_span(&pipe->opened);
    while (*ret_valid && left.bytes > 0) {
        nng_iov room = receive_room(pipe);
        size_t placed = MIN(left.bytes, room.iov_len);
        memcpy(room.iov_buf, left.data, placed);
        left = span_from(left, placed);
        go_on &= place_and_hand_on(pipe, placed, ret_valid);
    }
    return go_on;
}

static void on_received(void *user)
{
    struct wire_pipe *pipe = user;
    bool valid = nng_aio_result(pipe->recv_aio) == 0;
    bool go_on = false;

    if (valid && pipe->guard != NULL) {
        go_on = open_and_hand_on(
                pipe, span_of(pipe->sealed, nng_aio_count(pipe->recv_aio)), &valid);
    } else if (valid) {
        go_on = place_and_hand_on(pipe, nng_aio_count(pipe->recv_aio), &valid);
    } else if (pipe->guard != NULL) {
        note_early_end(pipe);
    }
    pthread_mutex_lock(&pipe->lock);
    pipe->is_receiving = false;
    if (!valid) {
        close_stream(pipe);
    }
    if (go_on && !pipe->is_closed) {
        begin_receive(pipe);
    }
    unlock_and_end(pipe);
}

void wire_pipe_resume(struct wire_pipe *pipe)
{
    pthread_mutex_lock(&pipe->lock);
    if (pipe->guard != NULL && !pipe->has_begun && !pipe->is_closed) {
        pipe->has_begun = true;
        if (!open_guard(pipe, SPAN_NONE)) {
            close_stream(pipe);
        }
    }
    if (!pipe->is_receiving && !pipe->is_closed) {
        begin_receive(pipe);
    }
    unlock_and_end(pipe);
}

/* --- sending ---------------------------------------------------------------------------------------------- */

static struct outgoing *outbox_at(struct wire_pipe *pipe, size_t i)
{
    return &pipe->outbox[(pipe->outbox_first + i) & (pipe->outbox_capacity - 1)];
}

/* Under lock. */
static void outbox_append(struct wire_pipe *pipe, struct outgoing out)
{
    if (pipe->outbox_count == pipe->outbox_capacity) {
        size_t capacity = pipe->outbox_capacity == 0 ? 16 : pipe->outbox_capacity * 2;
        struct outgoing *ring = xmalloc(capacity * sizeof ring[0]);
        for (size_t i = 0; i < pipe->outbox_count; i++) {
            ring[i] = *outbox_at(pipe, i);
        }
        free(pipe->outbox);
        pipe->outbox = ring;
        pipe->outbox_first = 0;
        pipe->outbox_capacity = capacity;
    }
    pipe->outbox_count++;
    pipe->waiting_bytes += out.bytes;
    *outbox_at(pipe, pipe->outbox_count - 1) = out;
}

/* Under lock. */
static void outbox_drop_first(struct wire_pipe *pipe)
{
    pipe->waiting_bytes -= outbox_at(pipe, 0)->bytes;
    free(outbox_at(pipe, 0)->data);
    pipe->outbox_first = (pipe->outbox_first + 1) & (pipe->outbox_capacity - 1);
    pipe->outbox_count--;
    pipe->sent_bytes = 0;
}

/* Under lock. */
static void outbox_sent(struct wire_pipe *pipe, size_t bytes)
{
    while (bytes > 0) {
        INVARIANT_LT(0, pipe->outbox_count);
        size_t left = outbox_at(pipe, 0)->bytes - pipe->sent_bytes;
        if (bytes < left) {
            pipe->sent_bytes += bytes;
            return;
        }
        bytes -= left;
        outbox_drop_first(pipe);
    }
}

/* Under lock: the one place that sends. */
static void begin_send(struct wire_pipe *pipe)
{
    nng_iov iov[IOV_MAX_COUNT];
    unsigned count = (unsigned)MIN(pipe->outbox_count, (size_t)IOV_MAX_COUNT);

    INVARIANT_LT(0, count);
    for (unsigned i = 0; i < count; i++) {
        struct outgoing *out = outbox_at(pipe, i);
        iov[i] = (nng_iov){ out->data, out->bytes };
    }
    iov[0].iov_buf = (uint8_t *)iov[0].iov_buf + pipe->sent_bytes;
    iov[0].iov_len -= pipe->sent_bytes;
    pipe->is_sending = true;
    INVARIANT_EQ(nng_aio_set_iov(pipe->send_aio, count, iov), 0);
    nng_stream_send(pipe->stream, pipe->send_aio);
}

static void on_sent(void *user)
{
    struct wire_pipe *pipe = user;

    pthread_mutex_lock(&pipe->lock);
    pipe->is_sending = false;
    if (nng_aio_result(pipe->send_aio) != 0) {
        close_stream(pipe);
    } else {
        outbox_sent(pipe, nng_aio_count(pipe->send_aio));
        if (pipe->outbox_count > 0 && !pipe->is_closed) {
            begin_send(pipe);
        }
    }
    unlock_and_end(pipe);
}

/* Under lock; takes the bytes. */
static void send_out(struct wire_pipe *pipe, struct buf *take_out)
{
    if (take_out->bytes == 0 || pipe->is_closed) {
        buf_fini(take_out);
        return;
    }
    outbox_append(pipe, (struct outgoing){ take_out->data, take_out->bytes });
    *take_out = BUF_INIT;
    if (!pipe->is_sending) {
        begin_send(pipe);
    }
}

/* Under lock: messages, or what waited, through the guard to the stream. */
static void close_guard(struct wire_pipe *pipe, struct span plain)
{
    struct buf out = BUF_INIT;
    struct err err = { 0 };
    int result = pipe->guard->ops->send(pipe->guard, plain, &out, &err);

    send_out(pipe, &out);
    if (result < 0) {
        pipe->reason = pipe->reason.code == 0 ? err : pipe->reason;
        close_stream(pipe);
    }
}

/* Under lock: bytes of the stream through the guard, into `opened`. False: they were not good. */
static bool open_guard(struct wire_pipe *pipe, struct span bytes)
{
    struct buf out = BUF_INIT;
    struct err err = { 0 };
    int result = pipe->guard->ops->receive(pipe->guard, bytes, &pipe->opened, &out, &err);

    pipe->has_spoken |= bytes.bytes + out.bytes > 0;
    send_out(pipe, &out);
    if (result < 0) {
        if (pipe->reason.code == 0 && result != -ECONNRESET) {
            pipe->reason = err;
        }
        return false;
    }
    if (pipe->held.bytes > 0 && pipe->guard->ops->is_ready(pipe->guard)) {
        close_guard(pipe, buf_span(&pipe->held));
        buf_fini(&pipe->held);
    }
    return true;
}

/* Under lock; takes the frame. */
static void send_guarded(struct wire_pipe *pipe, struct outgoing frame)
{
    if (pipe->guard->ops->is_ready(pipe->guard)) {
        close_guard(pipe, span_of(frame.data, frame.bytes));
    } else {
        buf_append(&pipe->held, frame.data, frame.bytes);
    }
    free(frame.data);
}

void wire_pipe_send(struct wire_pipe *pipe, struct span head, struct span body)
{
    size_t bytes = head.bytes + body.bytes;
    struct outgoing out = { xmalloc(LENGTH_BYTES + bytes), LENGTH_BYTES + bytes };

    INVARIANT_LT(bytes, UINT32_MAX);
    out.data[0] = (uint8_t)(bytes >> 24);
    out.data[1] = (uint8_t)(bytes >> 16);
    out.data[2] = (uint8_t)(bytes >> 8);
    out.data[3] = (uint8_t)bytes;
    memcpy(out.data + LENGTH_BYTES, head.data, head.bytes);
    memcpy(out.data + LENGTH_BYTES + head.bytes, body.data, body.bytes);
    pthread_mutex_lock(&pipe->lock);
    if (pipe->is_closed) {
        free(out.data);
    } else if (pipe->guard != NULL) {
        send_guarded(pipe, out);
    } else {
        outbox_append(pipe, out);
        if (!pipe->is_sending) {
            begin_send(pipe);
        }
    }
    unlock_and_end(pipe);
}

/* --- life ------------------------------------------------------------------------------------------------- */

struct wire_pipe *wire_pipe_new(struct nng_stream *stream, struct wire_guard *take_guard,
        uint32_t id, size_t frame_bytes_max, const struct wire_pipe_events *events)
{
    struct wire_pipe *pipe = xcalloc(1, sizeof *pipe);

    pipe->id = id;
    pipe->frame_bytes_max = frame_bytes_max;
    pipe->events = *events;
    pipe->stream = stream;
    pipe->guard = take_guard;
    pipe->received = xmalloc(RECEIVE_BYTES);
    pipe->sealed = take_guard == NULL ? NULL : xmalloc(RECEIVE_BYTES);
    INVARIANT_EQ(pthread_mutex_init(&pipe->lock, NULL), 0);
    INVARIANT_EQ(nng_aio_alloc(&pipe->recv_aio, on_received, pipe), 0);
    INVARIANT_EQ(nng_aio_alloc(&pipe->send_aio, on_sent, pipe), 0);
    nng_aio_set_timeout(pipe->recv_aio, NNG_DURATION_INFINITE);
    nng_aio_set_timeout(pipe->send_aio, NNG_DURATION_INFINITE);
    return pipe;
}

struct wire_pipe *wire_pipe_free(struct wire_pipe *pipe)
{
    pthread_mutex_lock(&pipe->lock);
    pipe->has_ended = true;
    close_stream(pipe);
    pthread_mutex_unlock(&pipe->lock);
    /* Both operations have completed, or do so now because of the close; their callbacks may still run. */
    nng_aio_wait(pipe->recv_aio);
    nng_aio_wait(pipe->send_aio);
    nng_aio_free(pipe->recv_aio);
    nng_aio_free(pipe->send_aio);
    nng_stream_free(pipe->stream);
    while (pipe->outbox_count > 0) {
        outbox_drop_first(pipe);
    }
    (void)wire_message_free(pipe->large);
    INVARIANT_EQ(pthread_mutex_destroy(&pipe->lock), 0);
    if (pipe->guard != NULL) {
        pipe->guard = pipe->guard->ops->free(pipe->guard);
    }
    buf_fini(&pipe->opened);
    buf_fini(&pipe->held);
    free(pipe->outbox);
    free(pipe->received);
    free(pipe->sealed);
    free(pipe);
    return NULL;
}

uint32_t wire_pipe_id(const struct wire_pipe *pipe)
{
    return pipe->id;
}

size_t wire_pipe_waiting_bytes(struct wire_pipe *pipe)
{
    pthread_mutex_lock(&pipe->lock);
    size_t bytes = pipe->waiting_bytes + pipe->held.bytes;
    pthread_mutex_unlock(&pipe->lock);
    return bytes;
}

void wire_pipe_close(struct wire_pipe *pipe)
{
    pthread_mutex_lock(&pipe->lock);
    close_stream(pipe);
    unlock_and_end(pipe);
}

const char *wire_pipe_reason(const struct wire_pipe *pipe)
{
    return pipe->reason.code == 0 ? "" : pipe->reason.text;
}
