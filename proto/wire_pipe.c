/* wire_pipe.c: a byte stream as messages.
 *
 * Receiving: one aio reads what is there, up to RECEIVE_BYTES, cuts it into messages, hands them on together and reads
 * again. A message that does not fit is read straight into its own memory.
 *
 * Sending: one aio works off the outbox, up to IOV_MAX_COUNT messages at once: its callback starts the next. With the
 * outbox empty, wire_pipe_send writes to the socket on the caller's thread, inside nng_stream_send.
 *
 * `lock` guards the flags and the outbox, and is held over every call that begins or ends something on the stream: a
 * receive begun after the stream's close would never complete in nng 1.5.2. nng never calls back on the thread
 * that begins an operation, so this cannot lock up. */
#include "proto/wire_pipe.h"

#include <nng/nng.h>
#include <pthread.h>
#include <stdlib.h>

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

    pthread_mutex_t lock;
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

/* Under lock. True: the caller calls on_end once it has unlocked. */
static bool take_end(struct wire_pipe *pipe)
{
    bool ends = pipe->is_closed && !pipe->is_receiving && !pipe->is_sending && !pipe->has_ended;

    pipe->has_ended |= ends;
    return ends;
}

/* Under lock. */
static void close_stream(struct wire_pipe *pipe)
{
    if (!pipe->is_closed) {
        pipe->is_closed = true;
        nng_stream_close(pipe->stream);
    }
}

/* --- receiving -------------------------------------------------------------------------------------------- */

/* Under lock. */
static void begin_receive(struct wire_pipe *pipe)
{
    nng_iov iov = { pipe->received + pipe->received_bytes, RECEIVE_BYTES - pipe->received_bytes };

    if (pipe->large != NULL) {
        struct span body = wire_message_body(pipe->large);
        iov.iov_buf = wire_message_data(pipe->large) + pipe->large_bytes;
        iov.iov_len = body.bytes - pipe->large_bytes;
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

/* Cuts up to `max` messages from what is received; -EBADMSG: a length that cannot be. */
static int cut_messages(struct wire_pipe *pipe, struct wire_message **ret_messages, size_t max)
{
    size_t at = 0;
    int count = 0;

    while ((size_t)count < max && pipe->received_bytes - at >= LENGTH_BYTES) {
        size_t bytes = read_length(pipe->received + at);
        if (bytes == 0 || bytes > pipe->frame_bytes_max) {
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

static void on_received(void *user)
{
    struct wire_pipe *pipe = user;
    bool valid = nng_aio_result(pipe->recv_aio) == 0;
    bool go_on = false;

    if (valid && place_received(pipe, nng_aio_count(pipe->recv_aio), &go_on)) {
        go_on = hand_on_received(pipe, &valid);
    }
    pthread_mutex_lock(&pipe->lock);
    pipe->is_receiving = false;
    if (!valid) {
        close_stream(pipe);
    }
    if (go_on && !pipe->is_closed) {
        begin_receive(pipe);
    }
    bool ends = take_end(pipe);
    pthread_mutex_unlock(&pipe->lock);
    if (ends) {
        pipe->events.on_end(pipe->events.user, pipe);
    }
}

void wire_pipe_resume(struct wire_pipe *pipe)
{
    pthread_mutex_lock(&pipe->lock);
    if (!pipe->is_receiving && !pipe->is_closed) {
        begin_receive(pipe);
    }
    pthread_mutex_unlock(&pipe->lock);
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
    bool ends = take_end(pipe);
    pthread_mutex_unlock(&pipe->lock);
    if (ends) {
        pipe->events.on_end(pipe->events.user, pipe);
    }
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
    } else {
        outbox_append(pipe, out);
        if (!pipe->is_sending) {
            begin_send(pipe);
        }
    }
    pthread_mutex_unlock(&pipe->lock);
}

/* --- life ------------------------------------------------------------------------------------------------- */

struct wire_pipe *wire_pipe_new(struct nng_stream *stream, uint32_t id, size_t frame_bytes_max,
        const struct wire_pipe_events *events)
{
    struct wire_pipe *pipe = xcalloc(1, sizeof *pipe);

    pipe->id = id;
    pipe->frame_bytes_max = frame_bytes_max;
    pipe->events = *events;
    pipe->stream = stream;
    pipe->received = xmalloc(RECEIVE_BYTES);
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
    free(pipe->outbox);
    free(pipe->received);
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
    size_t bytes = pipe->waiting_bytes;
    pthread_mutex_unlock(&pipe->lock);
    return bytes;
}

void wire_pipe_close(struct wire_pipe *pipe)
{
    pthread_mutex_lock(&pipe->lock);
    close_stream(pipe);
    bool ends = take_end(pipe);
    pthread_mutex_unlock(&pipe->lock);
    if (ends) {
        pipe->events.on_end(pipe->events.user, pipe);
    }
}
