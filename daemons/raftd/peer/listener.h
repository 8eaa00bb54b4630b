/* listener.h: the peer URLs that we listen on, and what other members say to us on their connections.
 *
 * A connection must begin with a hello that is found good; until then nothing larger than PEER_FRAME_BYTES_MAX is taken,
 * and nothing but the question for the member list is answered. Who says nothing for two election timeouts is hung up
 * on; so is the oldest of those not welcome yet when there are more than 256 of them, and who leaves 1 MiB of answers unread. What was wrong with a connection is
 * logged, the same thing once in ten seconds. Loop thread only. */
#pragma once

#include "common/buf.h"
#include "common/conf.h"
#include "proto/peer.h"

struct listener;
struct loop;
struct security;

struct listener_events {
    /* Judges a hello: fills the answer (its text must outlive the call). */
    void (*judge)(void *user, const struct peer_hello *hello, struct peer_answer *ret_answer);
    /* One message of a member that was welcomed; valid for the call. */
    void (*on_message)(void *user, uint64_t from, unsigned type, struct span body);
    void (*fill_members)(void *user, struct buf *out); /* appends an encoded members_list */
};

int listener_open(struct loop *loop, struct security *security, const struct conf_list *urls,
        uint64_t heartbeat_ms, uint64_t election_ms, const struct listener_events *events,
        void *user, struct listener **ret_listener, struct err *err);
/* Not from within an event. Always NULL, accepts NULL. */
struct listener *listener_close(struct listener *listener);

/* Each heartbeat. */
void listener_tick(struct listener *listener, uint64_t now_ms, uint64_t late_ms);

/* Hangs up on all that came over TLS, or all others. */
void listener_renew(struct listener *listener, bool is_tls);

/* Hangs up on a member. */
void listener_drop(struct listener *listener, uint64_t member_id);
