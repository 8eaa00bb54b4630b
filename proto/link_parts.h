/* link_parts.h: what the files behind link.h share, and nobody else.
 *
 *   link.c          the hub: the wire's events, the tick, the public functions
 *   link_hello.c    how sessions begin and end
 *   link_session.c  a session: messages out, acks in, messages in, acks out
 *
 * A peer is a pipe; a link is a session on it. Loop thread only. */
#pragma once

#include "common/list.h"
#include "proto/link.h"
#include "proto/link_frame.h"
#include "proto/link_window.h"
#include "proto/link_wire.h"

enum {
    LINK_PATH_BYTES = 64
};

enum link_state {
    LINK_OPENING, /* in on_up: what is sent waits for the answer to the hello */
    LINK_UP,
    LINK_DOWN, /* its pipe is being closed; on_down follows */
};

struct link {
    struct link_peer *peer;
    void *user;
    uint64_t epoch;
    enum link_state state;
    struct send_window send;
    uint64_t sent_seq; /* the wire has been given all up to here */
    /* When the last ack moved, the socket last took bytes, or the window last filled from empty. */
    uint64_t progress_at_ms; /* by link_hub_heard_ms */
    size_t waiting_bytes;    /* for the socket, when last looked at */
    bool wants_writable;
    struct receive_window receive;
    unsigned acks_owed; /* messages handed out that no frame has acknowledged */
    bool ack_now;       /* the peer seems to have missed an ack */
};

struct link_peer {
    struct list node;
    struct link_hub *hub;
    uint32_t pipe;
    int64_t uid;
    int64_t pid;
    struct link *link;        /* NULL: no session */
    uint64_t silent_since_ms; /* listener, without a session: nothing has come since then */
    /* Dialer, without a session: */
    uint64_t offered_epoch; /* of our unanswered hello; 0: none */
    uint64_t offered_at_ms; /* the first time */
    uint64_t hello_at_ms;   /* say hello (again) then */
};

struct link_hub {
    struct loop *loop;
    const struct link_events *events;
    void *user;
    bool listen;
    char path[LINK_PATH_BYTES]; /* for what is told; cut where it is longer */
    unsigned window;
    uint64_t stall_ms;
    uint64_t resend_ms;
    size_t frame_bytes_max;
    struct link_wire *wire;
    struct loop_timer *tick;
    bool is_ticking;
    bool tick_was_late;
    uint64_t heard_ms;    /* see link_hub_heard_ms, as of: */
    uint64_t heard_at_ms; /* the last tick, or when they began */
    struct list peers;
    struct codec_scratch scratch;
    struct buf hello; /* encoded, for one frame */
};

/* link.c */
void link_peer_send(struct link_peer *peer, const struct link_frame *frame);
/* A frame without a message: its body is nil. */
void link_peer_send_control(
        struct link_peer *peer, enum link_control type, uint64_t epoch, uint64_t ack);
/* Whether it reads what it is sent. To one that does not, no answer is given that it asks for again: it could have any number of
 * them heaped up here. */
bool link_peer_reads(const struct link_peer *peer);
void link_peer_break(struct link_peer *peer); /* closes the pipe; its end follows as an event */
void link_hub_arm_tick(struct link_hub *hub);
/* The loop's time without what it was busy or without a CPU: by this peers are judged. Never goes back. */
uint64_t link_hub_heard_ms(const struct link_hub *hub);

/* link_hello.c. None of these within a callback of the user's: they call some themselves. */
void link_peer_say_hello(
        struct link_peer *peer); /* dialer; again with the same epoch if it was offered */
void link_peer_tick_hello(struct link_peer *peer, uint64_t now_ms);
void link_peer_on_hello(struct link_peer *peer, const struct link_frame *frame);
void link_peer_on_refused(struct link_peer *peer, const struct link_frame *frame);
void link_peer_on_hello_required(struct link_peer *peer);
/* A frame of a session that is not, or no longer, ours. */
void link_peer_on_stray(struct link_peer *peer, const struct link_frame *frame);
void link_peer_end_session(struct link_peer *peer); /* none: nothing happens */

/* link_session.c */
struct link *link_session_new(struct link_peer *peer, uint64_t epoch);
struct link *link_session_free(struct link *link); /* always NULL, accepts NULL; calls nobody */
void link_session_start(struct link *link);        /* up: sends what on_up left */
bool link_session_needs_tick(const struct link *link);
void link_session_tick(struct link *link, uint64_t now_ms, bool may_judge);
void link_session_after_drain(struct link *link);
/* A message or an ack. *take_message, which the frame lies in, is cleared if it is kept. */
int link_session_on_frame(struct link *link, const struct link_frame *frame,
        struct wire_message **take_message, struct err *err);
