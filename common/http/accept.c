/* accept.c: listening sockets. They may be shared with other processes, so an accept that finds
 * nothing is normal.
 *
 * When descriptors run out, the socket would stay readable and the loop would spin: one descriptor
 * is kept spare, given up to take the connection, told 503 and closed, and taken again. Where even
 * that fails, accepting rests until a connection has closed or the next tick, and what was spare is then taken anew. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "common/http/internal.h"

enum {
    ACCEPTS_PER_TURN = 64
};

static void on_listener(uv_poll_t *handle, int status, int events);

static void on_listener_closed(uv_handle_t *handle)
{
    struct http_listener *listener = handle->data;
    struct http_server *server = listener->server;

    free(listener);
    http_server_handle_closed(server);
}

static void close_listener(struct http_listener *listener)
{
    uv_close((uv_handle_t *)&listener->poll, on_listener_closed);
    (void)close(listener->fd);
}

void http_server_stop_accepting(struct http_server *server)
{
    while (server->listeners != NULL) {
        struct http_listener *listener = server->listeners;
        server->listeners = listener->next;
        close_listener(listener);
    }
    server->is_accept_paused = false;
}

static void pause_accepting(struct http_server *server)
{
    for (struct http_listener *l = server->listeners; l != NULL; l = l->next) {
        INVARIANT_EQ(uv_poll_stop(&l->poll), 0);
    }
    server->is_accept_paused = true;
}

static void take_spare(struct http_server *server)
{
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void http_server_resume_accepting(struct http_server *server)
{
    if (!server->is_accept_paused) {
        return;
    }
    server->is_accept_paused = false;
    if (server->spare_fd < 0) {
        take_spare(server);
    }
    for (struct http_listener *l = server->listeners; l != NULL; l = l->next) {
        INVARIANT_EQ(uv_poll_start(&l->poll, UV_READABLE, on_listener), 0);
    }
}

static void tell_full_and_close(struct http_server *server, int take_fd)
{
    struct buf out = BUF_INIT;

    http_refusal_append(&out, "503 Service Unavailable: too many connections", http_date(server));
    (void)send(take_fd, out.data, out.bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)shutdown(take_fd, SHUT_WR);
    (void)close(take_fd);
    buf_fini(&out);
    server->stats.refused++;
}

/* No descriptor is left. False: nothing could be done about it. */
static bool shed_one(struct http_server *server, int listener_fd)
{
    if (server->spare_fd < 0) {
        return false;
    }
    (void)close(server->spare_fd);
    int fd = accept4(listener_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        tell_full_and_close(server, fd);
    }
    take_spare(server);
    return fd >= 0;
}

static void take_connection(struct http_server *server, int take_fd)
{
    if (server->stats.conn_count < server->config.conn_count_max) {
        server->stats.accepted++;
        http_conn_open(server, take_fd, false);
    } else if (server->refused_count < HTTP_REFUSED_COUNT_MAX) {
        server->stats.refused++;
        http_conn_open(server, take_fd, true);
    } else {
        tell_full_and_close(server, take_fd);
    }
}

static void on_listener(uv_poll_t *handle, int status UNUSED, int events UNUSED)
{
    struct http_listener *listener = handle->data;
    struct http_server *server = listener->server;

    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take_connection(server, fd);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            if (!shed_one(server, listener->fd)) {
                pause_accepting(server);
                return;
            }
        }
        /* Others concern one connection that is gone already. */
    }
}

/* What is accepted inherits them, which saves system calls; a unix socket has none of them.
 * Keep-alive probes end the watch of a client whose host has vanished; etcd probes in the same
 * rhythm. */
static void set_options(int fd)
{
    static const int on = 1;
    static const int probe_s = 30;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &probe_s, sizeof probe_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &probe_s, sizeof probe_s);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

int http_server_listen(struct http_server *server, int take_fd, struct err *err)
{
    struct http_listener *listener = xcalloc(1, sizeof *listener);

    int r = uv_poll_init(server->uv, &listener->poll, take_fd);
    if (r != 0) {
        free(listener);
        (void)close(take_fd);
        return err_set(err, r, "listening descriptor %d: %s", take_fd, uv_strerror(r));
    }
    set_options(take_fd);
    listener->server = server;
    listener->fd = take_fd;
    listener->poll.data = listener;
    listener->next = server->listeners;
    server->listeners = listener;
    server->handle_count++;
    INVARIANT_EQ(uv_poll_start(&listener->poll, UV_READABLE, on_listener), 0);
    return 0;
}
