/* wire_pipe.c: a byte stream as messages.
 *
 * Receiving: what is there is read, up to RECEIVE_BYTES at once and READ_BYTES_PER_WAKE a wake, cut into messages and handed
 * on; a peer that floods us waits in its own socket. A message that does not fit is read straight into its own memory.
 *
 * Sending: straight to the socket, up to IOV_MAX_COUNT messages at once; what the socket does not take waits in the
 * outbox for it.
 *
 * With a guard, what is read is the guard's: what it opens to is then placed as if it had been read, and each message is
 * one thing that the guard closes. */
#include "proto/wire_pipe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/loop_watch.h"
#include "proto/foreign.h"
#include "proto/outbox.h"
#include "proto/wire_guard.h"

enum {
    RECEIVE_BYTES = 64 * 1024,
    READ_BYTES_PER_WAKE = 16 * 1024 * 1024,
    LENGTH_BYTES = 4,
    IOV_MAX_COUNT = 8,
    MESSAGES_AT_ONCE = 256, /* handed on together; more wait for a second round */
};

struct wire_pipe {
    uint32_t id;
    size_t frame_bytes_max;
    struct wire_pipe_events events;
    int fd;
    struct loop_watch *watch;

    uint8_t *received; /* RECEIVE_BYTES */
    size_t received_bytes;
    struct wire_message *large; /* being read into; NULL: none */
    size_t large_bytes;         /* of it, so far */
    uint8_t *sealed;            /* RECEIVE_BYTES of the stream, with a guard */
    struct buf opened;          /* what the guard made of them */

    struct wire_guard *guard; /* NULL: none */
    bool has_begun;
    bool has_spoken; /* one of the two has said something */
    struct buf held; /* frames that wait for the guard */
    struct err reason;
    bool is_closed;
    bool is_mute;         /* the other side takes nothing any more */
    struct outbox outbox; /* a block: length and message, or what the guard made of some */
};

static uint32_t read_length(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void close_stream(struct wire_pipe *pipe)
{
    if (!pipe->is_closed) {
        pipe->is_closed = true;
        loop_watch_set(pipe->watch, 0);
        (void)shutdown(pipe->fd, SHUT_RDWR);
        pipe->events.on_end(pipe->events.user, pipe);
    }
}

/* The first reason is the cause. */
static void keep_reason(struct wire_pipe *pipe, const struct err *err)
{
    if (pipe->reason.code == 0 && err->code != -ECONNRESET) {
        pipe->reason = *err;
    }
}

/* --- receiving -------------------------------------------------------------------------------------------- */

/* Where the next bytes of messages belong. */
static struct iovec receive_room(struct wire_pipe *pipe)
{
    if (pipe->large != NULL) {
        size_t bytes = wire_message_body(pipe->large).bytes - pipe->large_bytes;
        return (struct iovec){ wire_message_data(pipe->large) + pipe->large_bytes, bytes };
    }
    return (struct iovec){ pipe->received + pipe->received_bytes,
        RECEIVE_BYTES - pipe->received_bytes };
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

/* Cuts up to `max` messages from what is received; how many. *ret_is_good: no length behind them that cannot be. */
static size_t cut_messages(
        struct wire_pipe *pipe, struct wire_message **ret_messages, size_t max, bool *ret_is_good)
{
    size_t at = 0;
    size_t count = 0;

    *ret_is_good = true;
    while (count < max && pipe->received_bytes - at >= LENGTH_BYTES) {
        size_t bytes = read_length(pipe->received + at);
        if (bytes == 0 || bytes > pipe->frame_bytes_max) {
            refuse_length(pipe, at);
            *ret_is_good = false;
            break;
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

/* False: what came is no message. */
static bool hand_on_received(struct wire_pipe *pipe)
{
    struct wire_message *messages[MESSAGES_AT_ONCE];
    bool is_good;
    size_t count;

    do {
        count = cut_messages(pipe, messages, MESSAGES_AT_ONCE, &is_good);
        if (count > 0) {
            pipe->events.on_messages(pipe->events.user, pipe, messages, count);
        }
    } while (is_good && count == MESSAGES_AT_ONCE);
    return is_good;
}

/* Bytes of messages, as they were read or as the guard opened them: they lie where they belong. False: they are none. */
static bool take_received(struct wire_pipe *pipe, size_t bytes)
{
    if (pipe->large == NULL) {
        pipe->received_bytes += bytes;
        return hand_on_received(pipe);
    }
    pipe->large_bytes += bytes;
    if (pipe->large_bytes == wire_message_body(pipe->large).bytes) {
        struct wire_message *message = MOVE(pipe->large);
        pipe->events.on_messages(pipe->events.user, pipe, &message, 1);
    }
    return true;
}

static bool open_guard(struct wire_pipe *pipe, struct span bytes);

/* The other side hung up before it knew us. Who never said a word just looked whether the port is open. */
static void note_early_end(struct wire_pipe *pipe)
{
    if (pipe->reason.code == 0 && pipe->has_spoken && !pipe->guard->ops->is_ready(pipe->guard)) {
        (void)err_set(&pipe->reason, -EPROTO,
                "the other side hung up in the handshake; its log says why: another scheme, key or "
                "certificate");
    }
}

/* The same for bytes that the guard is to open first. */
static bool open_received(struct wire_pipe *pipe, struct span bytes)
{
    buf_clear(&pipe->opened);
    bool is_good = open_guard(pipe, bytes);
    struct span left = buf_span(&pipe->opened);
    /* What the guard had to say may have found the stream broken: on_end was the last word. */
    while (is_good && !pipe->is_closed && left.bytes > 0) {
        struct iovec room = receive_room(pipe);
        size_t placed = MIN(left.bytes, room.iov_len);
        memcpy(room.iov_base, left.data, placed);
        left = span_from(left, placed);
        is_good = take_received(pipe, placed);
    }
    return is_good;
}

/* Reads once. False: there is no more, for now or for ever. */
static bool read_once(struct wire_pipe *pipe, size_t *total)
{
    struct iovec room = receive_room(pipe);

    if (pipe->guard != NULL) {
        room = (struct iovec){ pipe->sealed, RECEIVE_BYTES };
    }
    ssize_t got = readv(pipe->fd, &room, 1);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (got <= 0) {
        if (pipe->guard != NULL) {
            note_early_end(pipe);
        }
        close_stream(pipe);
        return false;
    }
    *total += (size_t)got;
    bool is_good = pipe->guard == NULL ? take_received(pipe, (size_t)got)
                                       : open_received(pipe, span_of(pipe->sealed, (size_t)got));
    if (!is_good) {
        close_stream(pipe);
    }
    return is_good && !pipe->is_closed && (size_t)got == room.iov_len;
}

static void send_outbox(struct wire_pipe *pipe);

static void on_ready(void *user, unsigned events)
{
    struct wire_pipe *pipe = user;
    size_t total = 0;

    if ((events & LOOP_WRITABLE) != 0) {
        send_outbox(pipe);
    }
    while (!pipe->is_closed && (events & LOOP_READABLE) != 0 && total < READ_BYTES_PER_WAKE &&
            read_once(pipe, &total)) {
    }
    if (total > 0 || (events & LOOP_WRITABLE) != 0) {
        pipe->events.on_read(pipe->events.user); /* and the pipe may be gone */
    }
}

static void watch_for(struct wire_pipe *pipe)
{
    loop_watch_set(
            pipe->watch, pipe->outbox.count > 0 ? LOOP_READABLE | LOOP_WRITABLE : LOOP_READABLE);
}

void wire_pipe_begin(struct wire_pipe *pipe)
{
    if (pipe->is_closed || pipe->has_begun) {
        return;
    }
    pipe->has_begun = true;
    watch_for(pipe);
    /* Who dials may have to say something first. */
    if (pipe->guard != NULL && !open_guard(pipe, SPAN_NONE)) {
        close_stream(pipe);
    }
}

/* --- sending ---------------------------------------------------------------------------------------------- */

/* What the other side said before it hung up is still to be read, and may be why. The end follows there. */
static void fall_mute(struct wire_pipe *pipe)
{
    pipe->is_mute = true;
    outbox_fini(&pipe->outbox);
}

/* The one place that sends. */
static void send_outbox(struct wire_pipe *pipe)
{
    while (pipe->outbox.count > 0 && !pipe->is_closed) {
        struct iovec parts[IOV_MAX_COUNT];
        struct msghdr header = { .msg_iov = parts };
        header.msg_iovlen = outbox_peek(&pipe->outbox, parts, IOV_MAX_COUNT);
        ssize_t sent = sendmsg(pipe->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) {
            fall_mute(pipe);
            break;
        }
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
                close_stream(pipe);
            }
            break;
        }
        outbox_drop(&pipe->outbox, (size_t)sent);
    }
    if (!pipe->is_closed && pipe->has_begun) {
        watch_for(pipe);
    }
}

/* Takes the bytes. */
static void send_out(struct wire_pipe *pipe, struct buf *take_out)
{
    if (take_out->bytes == 0 || pipe->is_closed || pipe->is_mute) {
        buf_fini(take_out);
        return;
    }
    outbox_append(&pipe->outbox, take_out->data, take_out->bytes);
    *take_out = BUF_INIT;
    send_outbox(pipe);
}

/* messages, or what waited, through the guard to the stream. */
static void close_guard(struct wire_pipe *pipe, struct span plain)
{
    struct buf out = BUF_INIT;
    struct err err = { 0 };
    int result = pipe->guard->ops->send(pipe->guard, plain, &out, &err);

    send_out(pipe, &out);
    if (result < 0) {
        keep_reason(pipe, &err);
        close_stream(pipe);
    }
}

/* bytes of the stream through the guard, into `opened`. False: they were not good. */
static bool open_guard(struct wire_pipe *pipe, struct span bytes)
{
    struct buf out = BUF_INIT;
    struct err err = { 0 };
    int result = pipe->guard->ops->receive(pipe->guard, bytes, &pipe->opened, &out, &err);

    pipe->has_spoken |= bytes.bytes + out.bytes > 0;
    send_out(pipe, &out);
    if (result < 0) {
        keep_reason(pipe, &err);
        return false;
    }
    if (pipe->held.bytes > 0 && pipe->guard->ops->is_ready(pipe->guard)) {
        close_guard(pipe, buf_span(&pipe->held));
        buf_fini(&pipe->held);
    }
    return true;
}

static void send_guarded(struct wire_pipe *pipe, struct span frame)
{
    if (pipe->guard->ops->is_ready(pipe->guard)) {
        close_guard(pipe, frame);
    } else {
        buf_append_span(&pipe->held, frame);
    }
}

void wire_pipe_send(struct wire_pipe *pipe, struct span head, struct span body)
{
    size_t bytes = head.bytes + body.bytes;
    uint8_t *frame = xmalloc(LENGTH_BYTES + bytes);

    INVARIANT_LT(bytes, UINT32_MAX);
    frame[0] = (uint8_t)(bytes >> 24);
    frame[1] = (uint8_t)(bytes >> 16);
    frame[2] = (uint8_t)(bytes >> 8);
    frame[3] = (uint8_t)bytes;
    memcpy(frame + LENGTH_BYTES, head.data, head.bytes);
    memcpy(frame + LENGTH_BYTES + head.bytes, body.data, body.bytes);
    if (pipe->is_closed || pipe->is_mute) {
        free(frame);
    } else if (pipe->guard != NULL) {
        send_guarded(pipe, span_of(frame, LENGTH_BYTES + bytes));
        free(frame);
    } else {
        outbox_append(&pipe->outbox, frame, LENGTH_BYTES + bytes);
        if (pipe->outbox.count == 1) {
            send_outbox(pipe); /* else it waits behind what the socket did not take */
        }
    }
}

/* --- life ------------------------------------------------------------------------------------------------- */

struct wire_pipe *wire_pipe_new(struct loop *loop, int take_fd, struct wire_guard *take_guard,
        uint32_t id, size_t frame_bytes_max, const struct wire_pipe_events *events)
{
    struct wire_pipe *pipe = xcalloc(1, sizeof *pipe);

    pipe->id = id;
    pipe->frame_bytes_max = frame_bytes_max;
    pipe->events = *events;
    pipe->fd = take_fd;
    pipe->watch = loop_watch_new(loop, take_fd, on_ready, pipe);
    pipe->guard = take_guard;
    pipe->received = xmalloc(RECEIVE_BYTES);
    pipe->sealed = take_guard == NULL ? NULL : xmalloc(RECEIVE_BYTES);
    return pipe;
}

struct wire_pipe *wire_pipe_free(struct wire_pipe *pipe)
{
    pipe->watch = loop_watch_free(pipe->watch);
    (void)close(pipe->fd);
    outbox_fini(&pipe->outbox);
    (void)wire_message_free(pipe->large);
    if (pipe->guard != NULL) {
        pipe->guard = pipe->guard->ops->free(pipe->guard);
    }
    buf_fini(&pipe->opened);
    buf_fini(&pipe->held);
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
    return pipe->outbox.waiting_bytes + pipe->held.bytes;
}

void wire_pipe_close(struct wire_pipe *pipe)
{
    close_stream(pipe);
}

const char *wire_pipe_reason(const struct wire_pipe *pipe)
{
    return pipe->reason.code == 0 ? "" : pipe->reason.text;
}
