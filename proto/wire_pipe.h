/* wire_pipe.h: one connection of a wire, from its stream to messages and back. For link_wire.c only.
 *
 * Made, used and freed by the loop thread; its two aios' callbacks run on nng's threads. */
#pragma once

#include "proto/link_wire.h"

struct nng_stream;
struct wire_guard;
struct wire_pipe;

/* How a pipe reports; both run on nng's threads, the pipe's lock not held. */
struct wire_pipe_events {
    /* Takes the messages, in order. False: wait with the next until wire_pipe_resume. */
    bool (*on_messages)(
            void *user, struct wire_pipe *pipe, struct wire_message **take_messages, size_t count);
    /* Nothing is under way any more, and nothing will be: the loop may free it. Once. */
    void (*on_end)(void *user, struct wire_pipe *pipe);
    void *user;
};

/* Takes the stream, and the guard (NULL: none). Nothing happens before wire_pipe_resume. */
struct wire_pipe *wire_pipe_new(struct nng_stream *stream, struct wire_guard *take_guard,
        uint32_t id, size_t frame_bytes_max, const struct wire_pipe_events *events);
/* After on_end, or any time to end it without on_end: then waits for callbacks that run. Always NULL. */
struct wire_pipe *wire_pipe_free(struct wire_pipe *pipe);

uint32_t wire_pipe_id(const struct wire_pipe *pipe);
void wire_pipe_resume(struct wire_pipe *pipe); /* begins, or goes on, to receive */
void wire_pipe_send(struct wire_pipe *pipe, struct span head, struct span body);
size_t wire_pipe_waiting_bytes(struct wire_pipe *pipe);
void wire_pipe_close(struct wire_pipe *pipe); /* on_end follows */
/* After on_end: what was wrong with what came, and how to mend it; "": nothing. Lives as long as the pipe. */
const char *wire_pipe_reason(const struct wire_pipe *pipe);
