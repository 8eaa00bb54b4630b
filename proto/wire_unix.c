/* wire_unix.c: a wire within the host: a Unix socket, read and written by the loop itself. Loop thread only.
 *
 * Why not nng here as between members: docs/decisions/0001-unix-sockets-between-daemons.md.
 *
 * Reading: what is there is read into one shared buffer, and a message that did not fit is read on straight into its own
 * memory. At most READ_BYTES_PER_WAKE a wake: a peer that floods us waits in its own socket.
 * Sending: straight from the caller's memory; only what the socket does not take is copied and waits for it.
 * A pipe that breaks inside a call of ours is removed by a timer of no delay, so that no event comes from within a send. */
#include "proto/wire_unix.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/list.h"
#include "common/loop.h"
#include "common/loop_watch.h"
#include "proto/limits.h"
#include "proto/outbox.h"
#include "proto/wire_ops.h"

enum {
    LENGTH_BYTES = 4,
    READ_BUFFER_BYTES = 256 * 1024,
    READ_BYTES_PER_WAKE = 16 * 1024 * 1024,
    BACKLOG = 64,
    REDIAL_MS_MIN = 20,
    REDIAL_MS_MAX = 100,
    SOCKET_MODE = 0660,
    SOCKET_BUFFER_BYTES = 1024 * 1024,
};

struct pipe {
    struct list node;
    struct wire_unix *wire;
    uint32_t id;
    int fd;
    int64_t uid;
    int64_t pid;
    uint64_t since_ms;
    struct loop_watch *watch;
    bool is_broken;
    struct wire_message *partial; /* a message that has begun to come */
    size_t partial_bytes;
    size_t partial_filled;
    uint8_t length[LENGTH_BYTES];
    size_t length_filled;
    struct outbox outbox;
};

struct wire_unix {
    struct link_wire base; /* first */
    enum link_pattern pattern;
    struct loop *loop;
    struct wire_handler handler;
    bool listen;
    bool in_callback;
    struct sockaddr_un address;
    size_t frame_bytes_max;
    uint64_t *peer_uids;
    size_t peer_uid_count;
    int listen_fd;
    struct loop_watch *listen_watch;
    struct loop_timer *dial_timer;
    struct loop_timer *reap_timer;
    uint64_t dial_ms;
    uint32_t next_pipe;
    struct list pipes;
    uint8_t *buffer;
    struct buf out; /* one message as it goes to the socket */
};

/* --- pipes ---------------------------------------------------------------------------------------------- */

static uint32_t read_length(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
           (uint32_t)bytes[3];
}

static void put_length(uint8_t *bytes, uint32_t length)
{
    bytes[0] = (uint8_t)(length >> 24);
    bytes[1] = (uint8_t)(length >> 16);
    bytes[2] = (uint8_t)(length >> 8);
    bytes[3] = (uint8_t)length;
}

static void pipe_break(struct pipe *pipe)
{
    if (!pipe->is_broken) {
        pipe->is_broken = true;
        loop_watch_set(pipe->watch, 0);
        loop_timer_start(pipe->wire->reap_timer, 0, 0);
    }
}

static void pipe_free(struct pipe *pipe)
{
    list_remove(&pipe->node);
    pipe->watch = loop_watch_free(pipe->watch);
    (void)close(pipe->fd);
    (void)wire_message_free(pipe->partial);
    outbox_fini(&pipe->outbox);
    free(pipe);
}

static struct pipe *find_pipe(struct wire_unix *wire, uint32_t id)
{
    LIST_FOREACH (pipe, &wire->pipes, struct pipe, node) {
        if (pipe->id == id) {
            return pipe;
        }
    }
    return NULL;
}

static void emit(struct wire_unix *wire, struct pipe *pipe, enum wire_event_kind kind,
        struct wire_message *take_message)
{
    struct wire_event event = {
        .kind = kind,
        .pipe = pipe->id,
        .uid = pipe->uid,
        .pid = pipe->pid,
        .message = take_message,
        .reason = "",
        .remote = "",
    };
    bool was_in_callback = wire->in_callback;

    wire->in_callback = true;
    wire->handler.on_event(wire->handler.user, &event);
    wire->in_callback = was_in_callback;
}

static void drained(struct wire_unix *wire)
{
    wire->in_callback = true;
    wire->handler.on_drained(wire->handler.user);
    wire->in_callback = false;
}

static void schedule_dial(struct wire_unix *wire)
{
    if (!wire->listen) {
        loop_timer_start(wire->dial_timer, wire->dial_ms, 0);
        wire->dial_ms =
                MIN(MAX(wire->dial_ms * 2, (uint64_t)REDIAL_MS_MIN), (uint64_t)REDIAL_MS_MAX);
    }
}

/* Takes away what broke, and says so. */
static void on_reap(void *user)
{
    struct wire_unix *wire = user;
    struct list broken;

    list_init(&broken);
    LIST_FOREACH (pipe, &wire->pipes, struct pipe, node) {
        if (pipe->is_broken) {
            list_remove(&pipe->node);
            list_append(&broken, &pipe->node);
        }
    }
    bool any = !list_is_empty(&broken);
    while (!list_is_empty(&broken)) {
        struct pipe *pipe = CONTAINER_OF(broken.next, struct pipe, node);
        if (loop_now_ms(wire->loop) - pipe->since_ms >= REDIAL_MS_MAX) {
            wire->dial_ms =
                    0; /* at once; but not for ever at once to somebody who hangs up on us */
        }
        emit(wire, pipe, WIRE_PIPE_REMOVED, NULL);
        pipe_free(pipe);
        schedule_dial(wire);
    }
    if (wire->listen_watch != NULL) {
        loop_watch_set(wire->listen_watch, LOOP_READABLE);
    }
    if (any) {
        drained(wire);
    }
}

/* --- receiving ------------------------------------------------------------------------------------------ */

static void finish_message(struct pipe *pipe)
{
    struct wire_message *message = MOVE(pipe->partial);

    pipe->length_filled = 0;
    emit(pipe->wire, pipe, WIRE_MESSAGE, message);
}

/* The length is whole: makes room for the message, or breaks with a peer that promises too much. */
static bool begin_message(struct pipe *pipe)
{
    size_t bytes = read_length(pipe->length);

    if (bytes > pipe->wire->frame_bytes_max || bytes == 0) {
        pipe_break(pipe);
        return false;
    }
    pipe->partial = wire_message_new(bytes);
    pipe->partial_bytes = bytes;
    pipe->partial_filled = 0;
    return true;
}

static void take_bytes(struct pipe *pipe, const uint8_t *data, size_t bytes)
{
    while (bytes > 0 && !pipe->is_broken) {
        if (pipe->partial == NULL) {
            size_t part = MIN(bytes, (size_t)LENGTH_BYTES - pipe->length_filled);
            memcpy(pipe->length + pipe->length_filled, data, part);
            pipe->length_filled += part;
            data += part;
            bytes -= part;
            if (pipe->length_filled < LENGTH_BYTES || !begin_message(pipe)) {
                continue;
            }
        }
        size_t part = MIN(bytes, pipe->partial_bytes - pipe->partial_filled);
        memcpy(wire_message_data(pipe->partial) + pipe->partial_filled, data, part);
        pipe->partial_filled += part;
        data += part;
        bytes -= part;
        if (pipe->partial_filled == pipe->partial_bytes) {
            finish_message(pipe);
        }
    }
}

/* One readv: what is missing of a message into its place, the rest into the shared buffer. Returns what came. */
static ssize_t read_once(struct pipe *pipe)
{
    struct iovec parts[2];
    int count = 0;
    size_t direct = 0;

    if (pipe->partial != NULL) {
        direct = pipe->partial_bytes - pipe->partial_filled;
        parts[count++] =
                (struct iovec){ wire_message_data(pipe->partial) + pipe->partial_filled, direct };
    }
    parts[count++] = (struct iovec){ pipe->wire->buffer, READ_BUFFER_BYTES };
    ssize_t got = readv(pipe->fd, parts, count);
    if (got <= 0) {
        return got;
    }
    size_t into_message = MIN((size_t)got, direct);
    if (direct > 0) {
        pipe->partial_filled += into_message;
        if (pipe->partial_filled == pipe->partial_bytes) {
            finish_message(pipe);
        }
    }
    take_bytes(pipe, pipe->wire->buffer, (size_t)got - into_message);
    return got;
}

static void pipe_read(struct pipe *pipe)
{
    size_t total = 0;

    while (!pipe->is_broken && total < READ_BYTES_PER_WAKE) {
        size_t room = READ_BUFFER_BYTES +
                      (pipe->partial != NULL ? pipe->partial_bytes - pipe->partial_filled : 0);
        ssize_t got = read_once(pipe);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (got <= 0) {
            pipe_break(pipe);
            return;
        }
        total += (size_t)got;
        if ((size_t)got < room) {
            return; /* there was no more */
        }
    }
}

/* --- sending -------------------------------------------------------------------------------------------- */

static void keep_unsent(struct pipe *pipe, struct span rest)
{
    outbox_append(&pipe->outbox, memcpy(xmalloc(rest.bytes), rest.data, rest.bytes), rest.bytes);
    loop_watch_set(pipe->watch, LOOP_READABLE | LOOP_WRITABLE);
}

static void pipe_send(struct pipe *pipe, struct span message)
{
    struct iovec part = { (void *)(uintptr_t)message.data, message.bytes };
    struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
    ssize_t sent = 0;

    if (pipe->outbox.count == 0) {
        sent = sendmsg(pipe->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
            pipe_break(pipe);
            return;
        }
        sent = MAX(sent, (ssize_t)0);
    }
    if ((size_t)sent < message.bytes) {
        keep_unsent(pipe, span_from(message, (size_t)sent));
    }
}

static void send_unsent(struct pipe *pipe)
{
    struct iovec part;

    while (outbox_peek(&pipe->outbox, &part, 1) > 0) {
        ssize_t sent = send(pipe->fd, part.iov_base, part.iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
                pipe_break(pipe);
            }
            return;
        }
        outbox_drop(&pipe->outbox, (size_t)sent);
    }
    loop_watch_set(pipe->watch, LOOP_READABLE);
}

static struct wire_unix *unix_of(struct link_wire *base)
{
    return CONTAINER_OF(base, struct wire_unix, base);
}

static void unix_send(struct link_wire *base, uint32_t id, struct span head, struct span body)
{
    struct wire_unix *wire = unix_of(base);
    struct pipe *pipe = find_pipe(wire, id);

    if (pipe == NULL || pipe->is_broken) {
        return;
    }
    uint8_t length[LENGTH_BYTES];
    put_length(length, (uint32_t)(head.bytes + body.bytes));
    buf_clear(&wire->out);
    buf_append(&wire->out, length, sizeof length);
    buf_append_span(&wire->out, head);
    buf_append_span(&wire->out, body);
    pipe_send(pipe, buf_span(&wire->out));
    buf_clear(&wire->out);
    buf_trim(&wire->out, READ_BUFFER_BYTES);
}

static size_t unix_waiting_bytes(struct link_wire *base, uint32_t id)
{
    struct pipe *pipe = find_pipe(unix_of(base), id);
    return pipe == NULL ? 0 : pipe->outbox.waiting_bytes;
}

static void unix_close_pipe(struct link_wire *base, uint32_t id)
{
    struct pipe *pipe = find_pipe(unix_of(base), id);

    if (pipe != NULL) {
        pipe_break(pipe);
    }
}

static void on_ready(void *user, unsigned events)
{
    struct pipe *pipe = user;
    struct wire_unix *wire = pipe->wire;

    if ((events & LOOP_WRITABLE) != 0 && pipe->outbox.count > 0) {
        send_unsent(pipe);
    }
    if ((events & LOOP_READABLE) != 0) {
        pipe_read(pipe);
    }
    drained(wire);
}

/* --- connections ---------------------------------------------------------------------------------------- */

static bool uid_is_allowed(const struct wire_unix *wire, int64_t uid)
{
    for (size_t i = 0; i < wire->peer_uid_count; i++) {
        if (uid >= 0 && wire->peer_uids[i] == (uint64_t)uid) {
            return true;
        }
    }
    return wire->peer_uid_count == 0;
}

/* Whose process is at the other end, as the kernel noted it when the two were connected. */
static void read_peer(int fd, int64_t *ret_uid, int64_t *ret_pid)
{
    struct ucred peer = { .pid = 0 };
    socklen_t peer_bytes = sizeof peer;
    bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) == 0;

    *ret_uid = known ? (int64_t)peer.uid : -1;
    *ret_pid = peer.pid;
}

/* Hangs up on a user who may not connect, before a byte of theirs is read. */
static bool turn_away(struct wire_unix *wire, int take_fd)
{
    struct wire_event event = { .kind = WIRE_STRANGER };
    bool was_in_callback = wire->in_callback;

    read_peer(take_fd, &event.uid, &event.pid);
    if (uid_is_allowed(wire, event.uid)) {
        return false;
    }
    (void)close(take_fd);
    wire->in_callback = true;
    wire->handler.on_event(wire->handler.user, &event);
    wire->in_callback = was_in_callback;
    return true;
}

static void add_pipe(struct wire_unix *wire, int take_fd)
{
    struct pipe *pipe = xcalloc(1, sizeof *pipe);
    int buffer_bytes = SOCKET_BUFFER_BYTES;

    (void)setsockopt(take_fd, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
    pipe->wire = wire;
    pipe->fd = take_fd;
    read_peer(take_fd, &pipe->uid, &pipe->pid);
    pipe->since_ms = loop_now_ms(wire->loop);
    pipe->id = ++wire->next_pipe == 0 ? ++wire->next_pipe : wire->next_pipe;
    list_append(&wire->pipes, &pipe->node);
    pipe->watch = loop_watch_new(wire->loop, take_fd, on_ready, pipe);
    loop_watch_set(pipe->watch, LOOP_READABLE);
    emit(wire, pipe, WIRE_PIPE_ADDED, NULL);
}

/* Of a pair the second peer waits in the backlog until the first has gone. */
static bool may_accept(const struct wire_unix *wire)
{
    return wire->listen_watch != NULL &&
           (wire->pattern != LINK_PAIR || list_is_empty(&wire->pipes));
}

static void on_connection(void *user, unsigned events)
{
    struct wire_unix *wire = user;
    int fd = 0;

    (void)events;
    while (fd >= 0 && may_accept(wire)) {
        fd = accept4(wire->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && !turn_away(wire, fd)) {
            add_pipe(wire, fd);
        }
    }
    /* It stays readable: without a rest the loop would turn for nothing else. */
    bool is_short =
            fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS);
    loop_watch_set(wire->listen_watch, may_accept(wire) && !is_short ? LOOP_READABLE : 0);
    if (is_short) {
        loop_timer_start(wire->reap_timer, REDIAL_MS_MAX, 0); /* looks again then */
    }
    drained(wire);
}

static void on_dial(void *user)
{
    struct wire_unix *wire = user;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)&wire->address, sizeof wire->address) < 0) {
        if (fd >= 0) {
            (void)close(fd);
        }
        schedule_dial(wire);
        return;
    }
    add_pipe(wire, fd);
    drained(wire);
}

/* A socket file that nobody listens on is left over from a killed process. */
static bool is_left_over(const struct wire_unix *wire)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool refused = fd >= 0 &&
                   connect(fd, (const struct sockaddr *)&wire->address, sizeof wire->address) < 0 &&
                   errno == ECONNREFUSED;

    if (fd >= 0) {
        (void)close(fd);
    }
    return refused;
}

static int start_listening(struct wire_unix *wire, struct err *err)
{
    const char *path = wire->address.sun_path;
    const struct sockaddr *address = (const struct sockaddr *)&wire->address;

    wire->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (wire->listen_fd < 0) {
        return err_errno(err, "socket for %s", path);
    }
    int r = bind(wire->listen_fd, address, sizeof wire->address);
    if (r < 0 && errno == EADDRINUSE && is_left_over(wire)) {
        (void)unlink(path);
        r = bind(wire->listen_fd, address, sizeof wire->address);
    }
    if (r < 0) {
        r = err_errno(err, "listen on %s", path);
        (void)close(wire->listen_fd);
        wire->listen_fd = -1; /* the path is somebody else's: not ours to remove */
        return r;
    }
    /* Nobody can connect before listen, so the mode is right in time. */
    if (chmod(path, SOCKET_MODE) < 0 || listen(wire->listen_fd, BACKLOG) < 0) {
        return err_errno(err, "listen on %s", path);
    }
    wire->listen_watch = loop_watch_new(wire->loop, wire->listen_fd, on_connection, wire);
    loop_watch_set(wire->listen_watch, LOOP_READABLE);
    return 0;
}

static struct link_wire *unix_close(struct link_wire *base);

static const struct wire_ops unix_ops = {
    .close = unix_close,
    .send = unix_send,
    .waiting_bytes = unix_waiting_bytes,
    .close_pipe = unix_close_pipe,
};

static struct wire_unix *new_wire(
        struct loop *loop, const struct link_config *config, const struct wire_handler *handler)
{
    struct wire_unix *wire = xcalloc(1, sizeof *wire);

    wire->base.ops = &unix_ops;
    wire->pattern = config->pattern;
    wire->loop = loop;
    wire->handler = *handler;
    wire->listen = config->listen;
    wire->frame_bytes_max =
            config->frame_bytes_max == 0 ? (size_t)LINK_IPC_BYTES_MAX : config->frame_bytes_max;
    wire->listen_fd = -1;
    wire->address.sun_family = AF_UNIX;
    list_init(&wire->pipes);
    wire->buffer = xmalloc(READ_BUFFER_BYTES);
    wire->dial_timer = loop_timer_new(loop, on_dial, wire);
    wire->reap_timer = loop_timer_new(loop, on_reap, wire);
    if (config->peer_uid_count > 0) {
        wire->peer_uids = xcalloc(config->peer_uid_count, sizeof wire->peer_uids[0]);
        memcpy(wire->peer_uids, config->peer_uids,
                config->peer_uid_count * sizeof wire->peer_uids[0]);
        wire->peer_uid_count = config->peer_uid_count;
    }
    return wire;
}

int wire_unix_open(struct loop *loop, const struct link_config *config,
        const struct wire_handler *handler, struct link_wire **ret_wire, struct err *err)
{
    struct wire_unix *wire = new_wire(loop, config, handler);
    size_t path_bytes = strlen(config->path);
    int r = 0;

    if (path_bytes >= sizeof wire->address.sun_path) {
        r = err_set(err, -ENAMETOOLONG, "socket path %s is longer than %zu bytes", config->path,
                sizeof wire->address.sun_path - 1);
    } else {
        memcpy(wire->address.sun_path, config->path, path_bytes);
        if (config->listen) {
            r = start_listening(wire, err);
        } else {
            loop_timer_start(wire->dial_timer, 0, 0);
        }
    }
    if (r < 0) {
        (void)unix_close(&wire->base);
        return r;
    }
    *ret_wire = &wire->base;
    return 0;
}

static struct link_wire *unix_close(struct link_wire *base)
{
    struct wire_unix *wire = unix_of(base);

    INVARIANT(!wire->in_callback);
    LIST_FOREACH (pipe, &wire->pipes, struct pipe, node) {
        pipe_free(pipe);
    }
    wire->listen_watch = loop_watch_free(wire->listen_watch);
    if (wire->listen_fd >= 0) {
        (void)close(wire->listen_fd);
        (void)unlink(wire->address.sun_path);
    }
    wire->dial_timer = loop_timer_free(wire->dial_timer);
    wire->reap_timer = loop_timer_free(wire->reap_timer);
    free(wire->peer_uids);
    buf_fini(&wire->out);
    free(wire->buffer);
    free(wire);
    return NULL;
}
