/* wire_stream.c: a wire between hosts: a path's connections, which nng dials and accepts, and which the loop then reads and
 * writes itself (docs/decisions/0008).
 *
 *   nng threads                                   loop thread
 *   connected / accepted (or failed) ─────▶ inbox ──wake──▶ on_event ..., on_drained
 *                                           ▲ ▲
 *   messages of a pipe (loop) ──────────────┘ │  looked at when the pipe has read
 *   end of a pipe (loop) ─────────────────────┘
 *
 * The loop makes, and frees, all pipes. A listener of pattern LINK_PAIR accepts the next peer when the one before has
 * gone: until then it waits in the socket's backlog. */
#include "proto/wire_stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <nng/nng.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/list.h"
#include "common/loop.h"
#include "proto/limits.h"
#include "proto/wire_guard.h"
#include "proto/wire_ops.h"
#include "proto/wire_pipe.h"

enum {
    PIPES_MAX = 512, /* of a listener; more wait in the socket's backlog until one has gone */
    RETRY_MS = 100,  /* between tries to dial; and to accept when there are no descriptors */
    URL_BYTES = 384,
    DESCRIPTORS_MAX = 65536, /* looked through; the lowest free one is always given out first */
    REMOTE_BYTES = INET6_ADDRSTRLEN + 8, /* [address]:port */
};

enum item_kind {
    ITEM_CONNECTED, /* dialled or accepted */
    ITEM_FAILED,    /* to dial or accept */
    ITEM_MESSAGE,
    ITEM_ENDED,
};

struct item {
    enum item_kind kind;
    nng_stream *stream;
    struct wire_pipe *pipe;
    struct wire_message *message;
};

struct live_pipe {
    struct list node;
    nng_stream *stream; /* connected, and not used any further */
    struct wire_pipe *pipe;
    uint32_t id;
    char remote[REMOTE_BYTES];
};

struct wire_stream {
    struct link_wire base; /* first */
    enum link_pattern pattern;
    bool listen;
    size_t frame_bytes_max;
    struct loop *loop;
    struct wire_handler handler;
    struct wire_guard_source guards; /* make is NULL: none */
    uint64_t *peer_uids;
    size_t peer_uid_count;
    struct loop_waker *waker;
    struct loop_timer *retry;
    nng_stream_dialer *dialer;
    nng_stream_listener *listener;
    nng_aio *connect_aio; /* one dial or accept at a time */
    bool is_connecting;
    uint64_t tried_at_ms; /* when the last dial began */
    struct list pipes;
    size_t pipe_count;
    uint32_t last_id;
    struct item *draining; /* the inbox as it was taken, kept for its memory */
    size_t draining_capacity;
    bool in_callback;

    pthread_mutex_t lock;
    struct item *inbox;
    size_t inbox_count;
    size_t inbox_capacity;
};

/* --- the inbox ------------------------------------------------------------------- */

/* Under lock. */
static void inbox_append(struct wire_stream *wire, const struct item *item)
{
    if (wire->inbox_count == wire->inbox_capacity) {
        wire->inbox_capacity = wire->inbox_capacity == 0 ? 64 : wire->inbox_capacity * 2;
        wire->inbox = xrealloc(wire->inbox, wire->inbox_capacity * sizeof wire->inbox[0]);
    }
    wire->inbox[wire->inbox_count++] = *item;
}

static void put_item(struct wire_stream *wire, const struct item *item)
{
    pthread_mutex_lock(&wire->lock);
    inbox_append(wire, item); /* also when closing: what is in it is freed with it */
    pthread_mutex_unlock(&wire->lock);
    loop_waker_wake(wire->waker);
}

static void on_connected(void *user)
{
    struct wire_stream *wire = user;
    struct item item = { .kind = ITEM_FAILED };

    if (nng_aio_result(wire->connect_aio) == 0) {
        item.kind = ITEM_CONNECTED;
        item.stream = nng_aio_get_output(wire->connect_aio, 0);
    }
    put_item(wire, &item);
}

static void on_messages(
        void *user, struct wire_pipe *pipe, struct wire_message **take_messages, size_t count)
{
    struct wire_stream *wire = user;

    pthread_mutex_lock(&wire->lock);
    for (size_t i = 0; i < count; i++) {
        inbox_append(wire,
                &(struct item){
                        .kind = ITEM_MESSAGE, .pipe = pipe, .message = MOVE(take_messages[i]) });
    }
    pthread_mutex_unlock(&wire->lock);
}

static void on_end(void *user, struct wire_pipe *pipe)
{
    put_item(user, &(struct item){ .kind = ITEM_ENDED, .pipe = pipe });
}

/* --- connecting ------------------------------------------------------------------------------------------- */

static void connect_next(struct wire_stream *wire)
{
    bool is_served = !list_is_empty(&wire->pipes);

    if (wire->is_connecting || wire->pipe_count >= PIPES_MAX ||
            (is_served && (!wire->listen || wire->pattern == LINK_PAIR))) {
        return;
    }
    wire->is_connecting = true;
    wire->tried_at_ms = loop_now_ms(wire->loop);
    if (wire->listen) {
        nng_stream_listener_accept(wire->listener, wire->connect_aio);
    } else {
        nng_stream_dialer_dial(wire->dialer, wire->connect_aio);
    }
}

static void on_retry(void *user)
{
    connect_next(user);
}

static void connect_later(struct wire_stream *wire)
{
    loop_timer_start(wire->retry, RETRY_MS, 0);
}

static int64_t stream_number(nng_stream *stream, const char *option, int64_t unknown)
{
    uint64_t value;
    return nng_stream_get_uint64(stream, option, &value) == 0 ? (int64_t)value : unknown;
}

static bool uid_is_allowed(const struct wire_stream *wire, int64_t uid)
{
    for (size_t i = 0; i < wire->peer_uid_count; i++) {
        if (uid >= 0 && wire->peer_uids[i] == (uint64_t)uid) {
            return true;
        }
    }
    return wire->peer_uid_count == 0 || !wire->listen;
}

static void write_remote(nng_stream *stream, char ret_remote[REMOTE_BYTES])
{
    nng_sockaddr address;
    char host[INET6_ADDRSTRLEN];

    ret_remote[0] = '\0';
    if (nng_stream_get_addr(stream, NNG_OPT_REMADDR, &address) != 0) {
        return;
    }
    if (address.s_family == NNG_AF_INET &&
            inet_ntop(AF_INET, &address.s_in.sa_addr, host, sizeof host) != NULL) {
        (void)snprintf(ret_remote, REMOTE_BYTES, "%s:%u", host, ntohs(address.s_in.sa_port));
    } else if (address.s_family == NNG_AF_INET6 &&
               inet_ntop(AF_INET6, address.s_in6.sa_addr, host, sizeof host) != NULL) {
        (void)snprintf(ret_remote, REMOTE_BYTES, "[%s]:%u", host, ntohs(address.s_in6.sa_port));
    }
}

/* Whether a socket's own or its peer's address, as getsockname or getpeername gave it, is that one. */
static bool is_address(const struct sockaddr_storage *found, const nng_sockaddr *wanted)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)found;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)found;

    if (wanted->s_family == NNG_AF_INET) {
        return found->ss_family == AF_INET && in->sin_port == wanted->s_in.sa_port &&
               in->sin_addr.s_addr == wanted->s_in.sa_addr;
    }
    return wanted->s_family == NNG_AF_INET6 && found->ss_family == AF_INET6 &&
           in6->sin6_port == wanted->s_in6.sa_port &&
           memcmp(&in6->sin6_addr, wanted->s_in6.sa_addr, sizeof in6->sin6_addr) == 0;
}

static bool is_between(int fd, const nng_sockaddr *local, const nng_sockaddr *remote)
{
    struct sockaddr_storage own = { 0 };
    struct sockaddr_storage peer = { 0 };
    socklen_t own_bytes = sizeof own;
    socklen_t peer_bytes = sizeof peer;

    return getsockname(fd, (struct sockaddr *)&own, &own_bytes) == 0 &&
           getpeername(fd, (struct sockaddr *)&peer, &peer_bytes) == 0 && is_address(&own, local) &&
           is_address(&peer, remote);
}

/* A descriptor of our own for the stream's socket; -1: it is not connected (any more), whatever nng took it for. nng 1.5.2
 * tells the addresses of a stream, but not its descriptor: it is the one socket of this process between the two. */
static int take_descriptor(nng_stream *stream)
{
    nng_sockaddr local;
    nng_sockaddr remote;
    struct rlimit limit;

    if (nng_stream_get_addr(stream, NNG_OPT_LOCADDR, &local) != 0 ||
            nng_stream_get_addr(stream, NNG_OPT_REMADDR, &remote) != 0 ||
            getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return -1;
    }
    int end = (int)MIN(limit.rlim_cur, (rlim_t)DESCRIPTORS_MAX);
    for (int fd = 0; fd < end; fd++) {
        if (is_between(fd, &local, &remote)) {
            return fcntl(fd, F_DUPFD_CLOEXEC, 0);
        }
    }
    return -1;
}

static void on_read(void *user);

/* False: it was none after all. */
static bool add_pipe(struct wire_stream *wire, nng_stream *stream)
{
    const struct wire_pipe_events events = { on_messages, on_read, on_end, wire };
    struct wire_event event = {
        .kind = WIRE_PIPE_ADDED,
        .uid = stream_number(stream, NNG_OPT_IPC_PEER_UID, -1),
        .pid = stream_number(stream, NNG_OPT_IPC_PEER_PID, 0),
    };

    if (!uid_is_allowed(wire, event.uid)) {
        nng_stream_free(stream);
        return true;
    }
    int fd = take_descriptor(stream);
    if (fd < 0) {
        nng_stream_free(stream);
        return false;
    }
    struct live_pipe *live = xcalloc(1, sizeof *live);
    live->stream = stream;
    live->id = event.pipe = ++wire->last_id;
    write_remote(stream, live->remote);
    event.remote = live->remote;
    event.reason = "";
    struct wire_guard *guard =
            wire->guards.make == NULL ? NULL : wire->guards.make(&wire->guards, wire->listen);
    live->pipe = wire_pipe_new(wire->loop, fd, guard, live->id, wire->frame_bytes_max, &events);
    list_append(&wire->pipes, &live->node);
    wire->pipe_count++;
    wire->handler.on_event(wire->handler.user, &event);
    wire_pipe_begin(live->pipe);
    return true;
}

static struct live_pipe *find_pipe(struct wire_stream *wire, uint32_t id)
{
    LIST_FOREACH (live, &wire->pipes, struct live_pipe, node) {
        if (live->id == id) {
            return live;
        }
    }
    return NULL;
}

static void free_live(struct live_pipe *live)
{
    list_remove(&live->node);
    live->pipe = wire_pipe_free(live->pipe);
    nng_stream_free(live->stream);
    free(live);
}

static void remove_pipe(struct wire_stream *wire, struct wire_pipe *pipe)
{
    struct wire_event event = { .kind = WIRE_PIPE_REMOVED, .pipe = wire_pipe_id(pipe) };
    struct live_pipe *live = find_pipe(wire, event.pipe);

    INVARIANT(live != NULL);
    list_remove(&live->node);
    wire->pipe_count--;
    event.reason = wire_pipe_reason(live->pipe);
    event.remote = live->remote;
    wire->handler.on_event(wire->handler.user, &event);
    free_live(live);
    /* At once; but not for ever at once to somebody who hangs up on us. */
    if (wire->listen || loop_now_ms(wire->loop) - wire->tried_at_ms >= RETRY_MS) {
        connect_next(wire);
    } else {
        connect_later(wire);
    }
}

/* --- the loop's side -------------------------------------------------------------------------------------- */

static void on_item(struct wire_stream *wire, const struct item *item)
{
    switch (item->kind) {
    case ITEM_CONNECTED:
        wire->is_connecting = false;
        if (add_pipe(wire, item->stream)) {
            connect_next(wire);
        } else {
            connect_later(wire);
        }
        break;
    case ITEM_FAILED:
        wire->is_connecting = false;
        connect_later(wire);
        break;
    case ITEM_MESSAGE:
        wire->handler.on_event(wire->handler.user, &(struct wire_event){ .kind = WIRE_MESSAGE,
                                                           .pipe = wire_pipe_id(item->pipe),
                                                           .message = item->message });
        break;
    case ITEM_ENDED:
        remove_pipe(wire, item->pipe);
        break;
    }
}

static void on_woken(void *user)
{
    struct wire_stream *wire = user;

    INVARIANT(!wire->in_callback);
    pthread_mutex_lock(&wire->lock);
    struct item *items = wire->inbox;
    size_t capacity = wire->inbox_capacity;
    size_t count = wire->inbox_count;
    wire->inbox = wire->draining;
    wire->inbox_capacity = wire->draining_capacity;
    wire->inbox_count = 0;
    pthread_mutex_unlock(&wire->lock);

    wire->draining = items;
    wire->draining_capacity = capacity;
    wire->in_callback = true;
    for (size_t i = 0; i < count; i++) {
        on_item(wire, &items[i]);
    }
    if (count > 0) {
        wire->handler.on_drained(wire->handler.user);
    }
    wire->in_callback = false;
}

static void on_read(void *user)
{
    on_woken(user);
}

static struct wire_stream *stream_of(struct link_wire *base)
{
    return CONTAINER_OF(base, struct wire_stream, base);
}

static void stream_send(struct link_wire *base, uint32_t pipe, struct span head, struct span body)
{
    struct wire_stream *wire = stream_of(base);
    struct live_pipe *live = find_pipe(wire, pipe);

    if (live != NULL) {
        wire_pipe_send(live->pipe, head, body);
    }
}

static size_t stream_waiting_bytes(struct link_wire *base, uint32_t pipe)
{
    struct wire_stream *wire = stream_of(base);
    struct live_pipe *live = find_pipe(wire, pipe);

    return live == NULL ? 0 : wire_pipe_waiting_bytes(live->pipe);
}

static void stream_close_pipe(struct link_wire *base, uint32_t pipe)
{
    struct wire_stream *wire = stream_of(base);
    struct live_pipe *live = find_pipe(wire, pipe);

    if (live != NULL) {
        wire_pipe_close(live->pipe);
    }
}

/* --- life ------------------------------------------------------------------------------------------------- */

static int nng_failed(struct err *err, int code, const char *what, const char *path)
{
    int negative = -EIO;

    if (code == NNG_EADDRINUSE) {
        negative = -EADDRINUSE;
    } else if (code == NNG_EPERM) {
        negative = -EACCES;
    } else if (code == NNG_EADDRINVAL || code == NNG_EINVAL) {
        negative = -EINVAL;
    } else if (code == NNG_ENOFILES) {
        negative = -EMFILE;
    } else if (code == NNG_ENOENT) {
        negative = -ENOENT;
    }
    return err_set(err, negative, "%s %s: %s", what, path, nng_strerror(code));
}

static int start(struct wire_stream *wire, const char *path, struct err *err)
{
    char url[URL_BYTES];
    int r;

    if ((size_t)snprintf(url, sizeof url, "%s", path) >= sizeof url) {
        return err_set(err, -ENAMETOOLONG, "socket path %s: too long", path);
    }
    if (!wire->listen) {
        r = nng_stream_dialer_alloc(&wire->dialer, url);
        if (r == 0) {
            r = nng_stream_dialer_set_bool(wire->dialer, NNG_OPT_TCP_NODELAY, true);
        }
        return r == 0 ? 0 : nng_failed(err, r, "dial", path);
    }
    if ((r = nng_stream_listener_alloc(&wire->listener, url)) != 0 ||
            (r = nng_stream_listener_set_bool(wire->listener, NNG_OPT_TCP_NODELAY, true)) != 0 ||
            (r = nng_stream_listener_listen(wire->listener)) != 0) {
        return nng_failed(err, r, "listen on", path);
    }
    return 0;
}

static struct link_wire *stream_close(struct link_wire *base);

static const struct wire_ops stream_ops = {
    .close = stream_close,
    .send = stream_send,
    .waiting_bytes = stream_waiting_bytes,
    .close_pipe = stream_close_pipe,
};

int wire_stream_open(struct loop *loop, const struct link_config *config,
        const struct wire_handler *handler, struct link_wire **ret_wire, struct err *err)
{
    struct wire_stream *wire = xcalloc(1, sizeof *wire);

    wire->base.ops = &stream_ops;
    wire->pattern = config->pattern;
    wire->listen = config->listen;
    wire->frame_bytes_max =
            config->frame_bytes_max == 0 ? LINK_IPC_BYTES_MAX : config->frame_bytes_max;
    wire->loop = loop;
    wire->handler = *handler;
    if (config->guards != NULL) {
        wire->guards = *config->guards;
    }
    list_init(&wire->pipes);
    INVARIANT_EQ(pthread_mutex_init(&wire->lock, NULL), 0);
    INVARIANT_EQ(nng_aio_alloc(&wire->connect_aio, on_connected, wire), 0);
    nng_aio_set_timeout(wire->connect_aio, NNG_DURATION_INFINITE);
    wire->waker = loop_waker_new(loop, on_woken, wire);
    wire->retry = loop_timer_new(loop, on_retry, wire);
    wire->peer_uid_count = config->peer_uid_count;
    if (config->peer_uid_count > 0) {
        size_t bytes = config->peer_uid_count * sizeof wire->peer_uids[0];
        wire->peer_uids = xmalloc(bytes);
        memcpy(wire->peer_uids, config->peer_uids, bytes);
    }
    int r = start(wire, config->path, err);
    if (r < 0) {
        (void)stream_close(&wire->base);
        return r;
    }
    connect_next(wire);
    *ret_wire = &wire->base;
    return 0;
}

static void free_inbox(struct wire_stream *wire)
{
    for (size_t i = 0; i < wire->inbox_count; i++) {
        if (wire->inbox[i].stream != NULL) {
            nng_stream_free(wire->inbox[i].stream);
        }
        (void)wire_message_free(wire->inbox[i].message);
    }
    free(wire->inbox);
    free(wire->draining);
}

static struct link_wire *stream_close(struct link_wire *base)
{
    struct wire_stream *wire = stream_of(base);

    INVARIANT(!wire->in_callback);
    if (wire->dialer != NULL) {
        nng_stream_dialer_close(wire->dialer);
    }
    if (wire->listener != NULL) {
        nng_stream_listener_close(wire->listener);
    }
    nng_aio_wait(wire->connect_aio);
    nng_aio_free(wire->connect_aio);
    nng_stream_dialer_free(wire->dialer);
    nng_stream_listener_free(wire->listener);
    LIST_FOREACH (live, &wire->pipes, struct live_pipe, node) {
        free_live(live);
    }
    /* No thread of nng knows us any more. */
    free_inbox(wire);
    wire->waker = loop_waker_free(wire->waker);
    wire->retry = loop_timer_free(wire->retry);
    INVARIANT_EQ(pthread_mutex_destroy(&wire->lock), 0);
    free(wire->peer_uids);
    free(wire);
    return NULL;
}
