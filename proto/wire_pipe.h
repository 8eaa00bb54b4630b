/* wire_pipe.h: one connection of a wire, from its descriptor to messages and back. For wire_stream.c only.
 *
 * Loop thread only: the loop reads and writes the socket itself (docs/decisions/0008). */
#pragma once

#include "proto/link_wire.h"

struct loop;
struct wire_guard;
struct wire_pipe;

struct wire_pipe_events {
    /* Takes the messages, in order; the pipe may not be closed or freed from within. */
    void (*on_messages)(
            void *user, struct wire_pipe *pipe, struct wire_message **take_messages, size_t count);
    /* After a turn's messages, and when the socket has taken more: the pipe may be freed from within. */
    void (*on_read)(void *user);
    /* It is over: to be freed, but not from within. Once. */
    void (*on_end)(void *user, struct wire_pipe *pipe);
    void *user;
};

/* Takes the descriptor of a connected socket, and the guard (NULL: none). Nothing happens before wire_pipe_begin. */
struct wire_pipe *wire_pipe_new(struct loop *loop, int take_fd, struct wire_guard *take_guard,
        uint32_t id, size_t frame_bytes_max, const struct wire_pipe_events *events);
/* After on_end, or any time to end it without on_end. Always NULL. */
struct wire_pipe *wire_pipe_free(struct wire_pipe *pipe);

uint32_t wire_pipe_id(const struct wire_pipe *pipe);
void wire_pipe_begin(struct wire_pipe *pipe); /* to receive */
void wire_pipe_send(struct wire_pipe *pipe, struct span head, struct span body);
size_t wire_pipe_waiting_bytes(struct wire_pipe *pipe);
void wire_pipe_close(struct wire_pipe *pipe); /* on_end follows */
/* After on_end: what was wrong with what came, and how to mend it; "": nothing. Lives as long as the pipe. */
const char *wire_pipe_reason(const struct wire_pipe *pipe);
