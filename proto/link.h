/* link.h: reliable, ordered, bounded messages between daemons, over byte streams.
 *
 * A hub listens on, or dials, one IPC path (proto/link_wire.h says over what). A link is
 * one live session with one peer, from the hello of both sides to the loss of the pipe. A pipe may break at any byte,
 * and with it goes what was under way, so on a link:
 *   - every frame is a msgpack array [type, epoch, seq, ack, body]; the epoch is the dialer's random number of this
 *     session; frames of another epoch or before the hello are dropped and answered hello_required;
 *   - data frames are numbered, kept until acknowledged (acks ride on data, or go alone after 8 frames or 10 ms),
 *     sent again when all has left this process and they are unacknowledged for 300 ms, delivered in order and exactly
 *     once per session;
 *   - at most `window` (32) frames, or 64 MiB of them, are unacknowledged: link_send then says -EAGAIN, on_writable
 *     tells when to go on;
 *   - a pipe on which a frame stays unacknowledged and nothing moves for `stall_ms` is closed; a dialer dials again at once, then each 100 ms;
 *     when a pipe goes, the link is down and everything unacknowledged on it has failed;
 *   - one live link per dialing hub; the receive limit is set before listening and dialling.
 * All callbacks run on the loop thread. Frames received before on_up or after on_down are never delivered. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct hello; /* proto/hello.h */
struct loop;
struct link;
struct link_hub;
struct wire_guard_source; /* proto/wire_guard.h */

enum link_pattern {
    LINK_REQREP, /* a listener serves many dialers, each over a link of its own */
    LINK_PAIR,   /* one peer; a second one waits in the backlog until the first has gone */
};

struct link_events {
    /* The peer said hello. Its spans live for the call. Return <0 to refuse (the err's text is sent to the peer and
     * shown by its on_refused). May send at once. */
    int (*on_up)(void *user, struct link *link, const struct hello *peer, struct err *err);
    /* The link is gone; `link` must not be used afterwards. */
    void (*on_down)(void *user, struct link *link);
    /* One message; body is an encoded message of proto/, valid for the call. */
    void (*on_message)(void *user, struct link *link, unsigned type, struct span body);
    /* Credits are back after link_send said -EAGAIN. May be NULL. */
    void (*on_writable)(void *user, struct link *link);
    /* The peer refused our hello; the hub keeps trying each second. May be NULL. */
    void (*on_refused)(void *user, const char *text);
    /* A process of a user who is not among peer_uids was hung up on. May be NULL. */
    void (*on_stranger)(void *user, const char *path, int64_t uid, int64_t pid);
    /* Fills our hello (component, ids, ...; protocol, version, epoch and pid are filled in by the link). Called for
     * each new pipe. Spans must stay valid until the next call. */
    void (*fill_hello)(void *user, struct hello *ret_hello);
};

struct link_config {
    enum link_pattern pattern;
    bool listen;             /* false: dial, and dial again for ever */
    const char *path;        /* of the socket, short and relative to the current directory; copied */
    size_t frame_bytes_max;  /* received frames above are dropped with their pipe; 0: LINK_IPC_BYTES_MAX */
    unsigned window;         /* 0: 32 */
    uint64_t stall_ms;       /* 0: 1000 */
    uint64_t resend_ms;      /* 0: 300 */
    const uint64_t *peer_uids; /* listen: users whose processes may connect; others are closed before they say a word */
    size_t peer_uid_count;     /* 0: any user */
    const struct wire_guard_source *guards; /* "tcp://": what each connection passes; copied; NULL: nothing */
    const struct link_events *events;
    void *user;
};

/* Begins to listen or dial. -EADDRINUSE: somebody answers on that path; what a dead process left there is replaced. */
int link_hub_open(struct loop *loop, const struct link_config *config, struct link_hub **ret_hub, struct err *err);
struct link_hub *link_hub_close(struct link_hub *hub); /* calls no callback, not from within one; always NULL, accepts NULL */

/* Sends the encoded message in *take_body. 0: taken, *take_body is left empty. -EAGAIN: no credit, or the link is about
 * to go down; -EMSGSIZE: above this hub's frame_bytes_max; still yours in both cases. */
int link_send(struct link *link, unsigned type, struct buf *take_body);
bool link_can_send(const struct link *link);
size_t link_unacknowledged(const struct link *link);
/* Memory of what is unacknowledged, and of its copies that wait for the socket. */
size_t link_held_bytes(const struct link *link);

/* Ends the session as if the pipe had broken; on_down follows in a later turn. */
void link_drop(struct link *link);

void link_set_user(struct link *link, void *user); /* the caller's own, per link */
void *link_get_user(const struct link *link);
/* uid and pid of the peer's process as the kernel has them; -1/0 where unknown. */
int64_t link_peer_uid(const struct link *link);
int64_t link_peer_pid(const struct link *link);
