/* link_window.h: what makes a link reliable: numbered messages kept until acknowledged, and put in order again.
 *
 * Both windows are rings of `size` slots; message n lies in slot n % size. Pure but for memory: no clock, no socket. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct wire_message;

struct send_slot {
    unsigned type;
    struct buf body;
    uint64_t sent_at_ms; /* the last time */
};

struct send_window {
    struct send_slot *slots;
    unsigned size;
    size_t bytes;       /* of all that is unacknowledged */
    size_t bytes_max;   /* full from here on, however few they are */
    uint64_t last_seq;  /* of the newest message; 0: none yet */
    uint64_t acked_seq; /* all up to here have arrived */
};

void send_window_init(struct send_window *window, unsigned size, size_t bytes_max);
void send_window_fini(struct send_window *window);

static inline size_t send_window_count(const struct send_window *window)
{
    return (size_t)(window->last_seq - window->acked_seq);
}

static inline bool send_window_is_full(const struct send_window *window)
{
    return send_window_count(window) == window->size || window->bytes >= window->bytes_max;
}

/* Keeps *take_body under the next number and returns that; not when full. */
uint64_t send_window_put(struct send_window *window, unsigned type, struct buf *take_body);

/* The slot of an unacknowledged message. */
struct send_slot *send_window_get(struct send_window *window, uint64_t seq);

/* Frees all up to ack. Returns how many, or -EBADMSG for what was never sent. */
int send_window_ack(struct send_window *window, uint64_t ack, struct err *err);

struct receive_window {
    struct wire_message **ahead; /* arrived, but one before them is missing */
    unsigned size;
    uint64_t received_seq; /* all up to here have been handed out */
};

void receive_window_init(struct receive_window *window, unsigned size);
void receive_window_fini(struct receive_window *window);

enum receive_verdict {
    RECEIVE_DELIVER,   /* the next one; the caller hands it out, then asks receive_window_next */
    RECEIVE_AHEAD,     /* taken; handed out later */
    RECEIVE_DUPLICATE, /* had it before */
    RECEIVE_TOO_FAR,   /* no slot for it: dropped, the peer will send it again */
};

/* RECEIVE_DELIVER counts it as handed out. *take_message is taken, and cleared, for RECEIVE_AHEAD only. */
enum receive_verdict receive_window_put(
        struct receive_window *window, uint64_t seq, struct wire_message **take_message);

/* The message that is next in order, if it has arrived ahead; counted as handed out, the caller's to free. NULL: it has
 * not. */
struct wire_message *receive_window_next(struct receive_window *window);
