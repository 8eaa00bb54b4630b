/* link_wire.h: one nng socket, as events on the loop thread.
 *
 * Everything that nng does on threads of its own ends here: its callbacks put an event into a queue and wake the loop,
 * nothing else. Events of one pipe come in order: added, its messages, removed. Nothing is promised about
 * delivery: nng may lose messages; link.c makes good.
 *
 * Every message leaves through nng_send_aio, called from one place: a test that interposes this symbol sees, and
 * may drop, delay or double, each one. */
#pragma once

#include "proto/link.h"

struct link_wire;
struct wire_message; /* an nng message */

enum wire_event_kind {
    WIRE_PIPE_ADDED,
    WIRE_PIPE_REMOVED,
    WIRE_MESSAGE,
};

struct wire_event {
    enum wire_event_kind kind;
    uint32_t pipe;                /* never 0; not used again for a long time */
    int64_t uid;                  /* added: of the peer's process; -1: not known */
    int64_t pid;                  /* added; 0: not known */
    struct wire_message *message; /* message: the receiver's to free */
};

struct wire_handler {
    void (*on_event)(void *user, const struct wire_event *event);
    void (*on_drained)(void *user); /* after the events of one wake */
    void *user;
};

int wire_open(struct loop *loop, const struct link_config *config,
        const struct wire_handler *handler, struct link_wire **ret_wire, struct err *err);
struct link_wire *wire_close(struct link_wire *wire); /* always NULL, accepts NULL */

/* Sends head and body as one message (both are copied), or keeps it until nng takes it. */
void wire_send(struct link_wire *wire, uint32_t pipe, struct span head, struct span body);

/* Breaks a pipe; its removed event follows. What waits to be sent on it is dropped. */
void wire_close_pipe(struct link_wire *wire, uint32_t pipe);

struct span wire_message_body(const struct wire_message *message);
struct wire_message *wire_message_free(
        struct wire_message *message); /* always NULL, accepts NULL */
