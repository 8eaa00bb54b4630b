#include "daemons/quorate/relay.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

enum {
    READ_BYTES = 16384,
    LINE_BYTES_MAX = 8192, /* longer ones are passed on in pieces */
    DRAIN_READS_MAX = 64,  /* a talkative daemon does not keep us from the others */
};

/* Pieces that a pipe takes whole or not at all, so that a reader who stopped costs lines and no waiting. */
static void write_out(const struct buf *out)
{
    size_t at = 0;

    while (at < out->bytes) {
        struct pollfd pollfd = { .fd = STDERR_FILENO, .events = POLLOUT };
        size_t bytes = MIN(out->bytes - at, (size_t)PIPE_BUF);
        const uint8_t *end = at + bytes < out->bytes ? memrchr(out->data + at, '\n', bytes) : NULL;
        if (end != NULL) {
            bytes = (size_t)(end + 1 - (out->data + at));
        }
        if (poll(&pollfd, 1, 0) != 1 || (pollfd.revents & POLLOUT) == 0) {
            return;
        }
        ssize_t written = write(STDERR_FILENO, out->data + at, bytes);
        if (written <= 0) {
            return;
        }
        at += (size_t)written;
    }
}

static void append_line(struct buf *out, const char *name, const uint8_t *text, size_t bytes)
{
    buf_appendf(out, "[%s] ", name);
    buf_append(out, text, bytes);
    buf_append_byte(out, '\n');
}

/* Moves whole lines, and what is too long to wait for its end, into out. */
static void take_lines(struct relay *relay, const char *name, struct buf *out)
{
    size_t at = 0;

    while (at < relay->line.bytes) {
        const uint8_t *text = relay->line.data + at;
        size_t left = relay->line.bytes - at;
        const uint8_t *end = memchr(text, '\n', left);
        if (end == NULL && left < LINE_BYTES_MAX) {
            break;
        }
        size_t bytes = end == NULL ? LINE_BYTES_MAX : (size_t)(end - text);
        append_line(out, name, text, bytes);
        at += end == NULL ? bytes : bytes + 1;
    }
    buf_drop_front(&relay->line, at);
}

bool relay_drain(struct relay *relay, const char *name)
{
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    bool open = true;

    for (unsigned i = 0; i < DRAIN_READS_MAX; i++) {
        uint8_t *room = buf_reserve(&relay->line, READ_BYTES);
        ssize_t bytes = read(relay->fd, room, READ_BYTES);
        if (bytes > 0) {
            relay->line.bytes += (size_t)bytes;
            take_lines(relay, name, &out);
            continue;
        }
        open = bytes < 0 && (errno == EAGAIN || errno == EINTR);
        break;
    }
    write_out(&out);
    return open;
}

void relay_close(struct relay *relay, const char *name)
{
    CLEANUP(buf_fini) struct buf out = BUF_INIT;

    if (relay->fd < 0) {
        return;
    }
    (void)relay_drain(relay, name);
    if (relay->line.bytes > 0) {
        append_line(&out, name, relay->line.data, relay->line.bytes);
        write_out(&out);
    }
    buf_fini(&relay->line);
    (void)close(relay->fd);
    relay->fd = -1;
}
