/* peers.h: the other members of the cluster, as far as talking to them goes.
 *
 * Each member dials each other twice (channel.h) and speaks on its own connections only; what others say comes in at the
 * listener. A peer is reachable while both of our channels to it are live; when one goes the core is told once, and while
 * the bulk channel has been gone for an election timeout nothing is said on the control channel either: a leader that
 * can only send heartbeats is none.
 *
 * Who is dialled: the members that peers_want names; and for a while whoever said a good hello but is not known here
 * yet, at the URLs it named: it may have been added by entries that we lack, and be the one that has them. Of such there are
 * 16 at a time; more are told to ask again.
 *
 * Loop thread only. Events come from the loop, never from within a call to peers_send. */
#pragma once

#include "common/buf.h"
#include "common/conf.h"
#include "proto/peer.h"

struct loop;
struct peers;
struct security;

enum peer_standing {
    PEER_STANDING_MEMBER,
    PEER_STANDING_UNKNOWN,  /* maybe added since the end of our log */
    PEER_STANDING_STRANGER, /* not a member, and we are in a position to know */
    PEER_STANDING_REMOVED,
};

struct peers_identity {
    uint64_t cluster_id; /* 0: not known yet: nobody is welcome, nobody is dialled */
    uint64_t member_id;
};

struct peers_events {
    enum peer_standing (*standing)(void *user, uint64_t member_id);
    /* One message of proto/peer.def that is not the connection's own. */
    void (*on_message)(void *user, uint64_t from, unsigned type, struct span body);
    void (*on_unreachable)(void *user, uint64_t peer_id);
    void (*on_reachable)(void *user, uint64_t peer_id);
    /* A member says that we were removed. */
    void (*on_removed)(void *user, uint64_t by_peer_id);
    void (*fill_members)(void *user, struct buf *out);
};

/* Begins to listen, and to answer the question for the member list. The security is the caller's, and outlives the peers. */
int peers_open(struct loop *loop, const struct conf *conf, struct security *security,
        const struct peers_events *events, void *user, struct peers **ret_peers, struct err *err);
struct peers *peers_close(struct peers *peers); /* always NULL, accepts NULL */

/* Who we are, once that is settled: peers are dialled from now on. */
void peers_begin(struct peers *peers, const struct peers_identity *identity);

/* Who is to be talked to: between peers_want_begin and peers_want_end all others are let go. */
void peers_want_begin(struct peers *peers);
void peers_want(struct peers *peers, uint64_t id, char *const *urls, size_t url_count);
void peers_want_end(struct peers *peers);

/* False: dropped; the peer is not reachable. */
bool peers_send(struct peers *peers, uint64_t to, enum peer_channel channel, unsigned type,
        struct span body);

bool peers_is_reachable(const struct peers *peers, uint64_t id);
/* For how long without a break; 0: it is not. */
uint64_t peers_reachable_ms(const struct peers *peers, uint64_t id);

struct peer_stats {
    uint64_t latency_us
            [5]; /* round trips of the control channel: current, average, deviation, least, most */
    uint64_t sent;
    uint64_t failed;
};
bool peers_get_stats(const struct peers *peers, uint64_t id, struct peer_stats *ret_stats);
