/* channel.h: one connection that we dial, to one member: it carries what we have to say to it, one way.
 *
 *   IDLE --dial--> DIALLING --connected--> GREETING --welcome--> LIVE
 *     ^               | 3 heartbeats          | refused             | silent for an election timeout, or broken
 *     +---------------+-----------------------+---------------------+   (each failure turns to the peer's next URL)
 *
 * nng's dialer has no timeout, so ours ends an attempt. A ping goes out each heartbeat and must be answered: silence
 * means that the peer, its daemon or the way to it is gone, whatever TCP believes. Messages may be lost: what is sent
 * while the channel is not live, or beyond what it can hold, is dropped, and raft copes.
 * Loop thread only; events come from wire events and from channel_tick, never from channel_send. */
#pragma once

#include "common/buf.h"
#include "proto/peer.h"

struct channel;
struct loop;
struct security;

struct channel_events {
    void (*fill_hello)(void *user, struct peer_hello *ret_hello); /* all but epoch and channel */
    void (*on_up)(void *user, struct channel *channel);
    void (*on_down)(void *user, struct channel *channel, const char *reason); /* it was up */
    void (*on_refused)(
            void *user, struct channel *channel, const struct peer_answer *answer, const char *url);
    /* What is listening there is not to be trusted, or does not trust us: why, and how to mend it. */
    void (*on_unsafe)(void *user, struct channel *channel, const char *reason, const char *url);
    void (*on_pong)(void *user, struct channel *channel, uint64_t round_trip_ns);
};

struct channel_config {
    struct loop *loop;
    struct security *security;
    enum peer_channel kind;
    uint64_t heartbeat_ms;
    uint64_t election_ms;
    const struct channel_events *events;
    void *user;
};

struct channel *channel_new(const struct channel_config *config);
/* Not from within an event. Always NULL, accepts NULL. */
struct channel *channel_free(struct channel *channel);

/* The URLs to try, in turn; copied. A changed list ends the connection. */
void channel_set_urls(struct channel *channel, char *const *urls, size_t count);

/* Dials, gives up, says ping. Each heartbeat; late_ms: how much later than that it comes (we were stopped, not they). */
void channel_tick(struct channel *channel, uint64_t now_ms, uint64_t late_ms);

/* Ends a connection to a URL with TLS, or without, so that the next one is judged by what holds now. */
void channel_renew(struct channel *channel, bool is_tls);

/* The peer is known to be there: do not wait for the next turn to dial, nor for an attempt that has lasted for a heartbeat; for
 * the next one twice as long, and so on up to an election timeout, until one succeeds. */
void channel_hurry(struct channel *channel);

bool channel_is_live(const struct channel *channel);
enum peer_channel channel_kind(const struct channel *channel);

/* False: dropped. */
bool channel_send(struct channel *channel, unsigned type, struct span body);
