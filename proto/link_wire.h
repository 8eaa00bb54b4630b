/* link_wire.h: one socket path, as events on the loop thread.
 *
 * Within the host a path is a Unix socket (wire_unix.c); between members it is "tcp://host:port", which nng dials, listens on
 * and accepts from (wire_stream.c). What is connected the loop itself reads and writes. docs/decisions/ says why nng only
 * there, why not its protocols, and why not its threads.
 *
 * Events of one pipe come in order: added, its messages, removed. A pipe may break at any byte; what it had not delivered
 * is lost: link.c makes good. On the wire a message is its length (u32, big endian) and its bytes.
 *
 * For tests: every message leaves by sendmsg(2), one message an iovec (the rest of a partly sent one aside), so an
 * interposed sendmsg sees, and may drop, delay or double, every message of a process. */
#pragma once

#include "proto/link.h"

struct link_wire;
struct wire_message;

enum wire_event_kind {
    WIRE_PIPE_ADDED,
    WIRE_PIPE_REMOVED,
    WIRE_MESSAGE,
    WIRE_STRANGER, /* a process of a user who may not connect was hung up on; there is no pipe */
};

struct wire_event {
    enum wire_event_kind kind;
    uint32_t pipe;                /* never 0, never used again; of a stranger: 0 */
    int64_t uid;                  /* added, stranger: of the peer's process; -1: not known */
    int64_t pid;                  /* added, stranger; 0: not known */
    struct wire_message *message; /* message: the receiver's to free */
    const char *
            reason; /* removed: why we hung up and how to mend it; "": nothing was wrong with what came */
    const char *remote; /* added, removed: address and port of the other side; "": not known */
};

struct wire_handler {
    void (*on_event)(void *user, const struct wire_event *event);
    void (*on_drained)(
            void *user); /* after the events of one wake, and when a socket has taken more */
    void *user;
};

int wire_open(struct loop *loop, const struct link_config *config,
        const struct wire_handler *handler, struct link_wire **ret_wire, struct err *err);
/* Not from within a handler. Always NULL, accepts NULL. */
struct link_wire *wire_close(struct link_wire *wire);

/* Sends head and body as one message; both are copied. A pipe that is gone, or going, takes it and drops it. */
void wire_send(struct link_wire *wire, uint32_t pipe, struct span head, struct span body);

/* Bytes given to wire_send and not yet to the kernel. */
size_t wire_waiting_bytes(struct link_wire *wire, uint32_t pipe);

/* Breaks a pipe; its removed event follows. */
void wire_close_pipe(struct link_wire *wire, uint32_t pipe);

/* A message of this size, its bytes not set; for wire_pipe.c and tests. */
struct wire_message *wire_message_new(size_t bytes);
uint8_t *wire_message_data(struct wire_message *message);
struct span wire_message_body(const struct wire_message *message);
struct wire_message *wire_message_free(
        struct wire_message *message); /* always NULL, accepts NULL */
