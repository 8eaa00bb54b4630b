/* gateways.h: raftd's side of raftd.ipc: takes ops, read-index requests and membership changes from the
 * gatewayds of this member, and keeps them told of raft's state.
 *
 * Ops are handed on as they came, a message's worth at a time, and not looked into; only a refusal reads
 * their request ids. A proposal that cannot go on yet (no leader, stored far behind) waits in a queue, bounded in bytes and
 * time, and is offered again when it may; and so is one that was proposed and is certainly lost (passed.h). Outcomes never
 * pass here: they come from stored. Loop thread only. */
#pragma once

#include "common/buf.h"
#include "daemons/raftd/raft/raft.h"
#include "proto/propose.h"

struct conf_uids;
struct gateways;
struct hello;
struct loop;

enum gateways_fate {
    GATEWAYS_DONE, /* refused, or in a log that nobody can take them out of */
    GATEWAYS_PROPOSED, /* by us or, passed on, by the leader, who may refuse them yet: gateways_proposal_refused */
    GATEWAYS_KEEP, /* no leader is known, or stored is too far behind: offer them again */
};

struct gateways_events {
    /* ret_term is set with GATEWAYS_PROPOSED: the term that it was done in. */
    enum gateways_fate (*propose)(
            void *user, uint64_t context, const struct span *ops, size_t count, uint64_t *ret_term);
    /* Ask for a read index; answered by gateways_read_granted or gateways_read_refused, perhaps within the call. */
    void (*read_index)(void *user, uint64_t context);
    void (*member_change)(void *user, uint64_t context, struct span op);
    void (*fill_hello)(void *user, struct hello *ret_hello);
    void (*fill_state)(void *user, struct buf *out); /* appends an encoded raft_state */
};

/* uids: whose processes may connect. */
int gateways_open(struct loop *loop, const char *path, const struct conf_uids *uids,
        const struct gateways_events *events, void *user, struct gateways **ret_gateways,
        struct err *err);
struct gateways *gateways_close(struct gateways *gateways); /* always NULL, accepts NULL */

/* Offers again what waits: proposals and reads. */
void gateways_retry(struct gateways *gateways);

/* Tells every gatewayd raft's state now. */
void gateways_tell_state(struct gateways *gateways);

/* These ops will not be proposed. Only within the propose call with this context, or for its queued ops. */
void gateways_refuse_ops(struct gateways *gateways, const struct span *ops, size_t count,
        enum refusal reason, const char *text);

/* The leader to whom a proposal was passed on did not take it: offered again, or refused for this reason. The first yields
 * the term of that leader; 0: the proposal is not known. */
uint64_t gateways_proposal_again(struct gateways *gateways, uint64_t context);
void gateways_proposal_refused(
        struct gateways *gateways, uint64_t context, enum refusal reason, const char *text);

/* These were handed to the state machine. True: what was lost is to be offered again (gateways_retry). */
bool gateways_on_entries(struct gateways *gateways, struct raft_entry_span entries);

/* A link to another member broke or is there again: what was passed on may be lost. */
void gateways_suspect(struct gateways *gateways);
/* Whether the leader of this term is to be asked where its log ends; what it says comes back with the same seq. */
bool gateways_ask_end(const struct gateways *gateways, uint64_t term, uint64_t *ret_seq);
void gateways_on_end(struct gateways *gateways, uint64_t term, uint64_t seq, uint64_t index);

void gateways_read_granted(struct gateways *gateways, uint64_t context, uint64_t index);
void gateways_read_refused(
        struct gateways *gateways, uint64_t context); /* asked again by gateways_retry */

void gateways_member_result(
        struct gateways *gateways, uint64_t context, unsigned http_status, const char *text);

/* Drops what has waited longer than the clients do. Call a few times a second. */
void gateways_expire(struct gateways *gateways, uint64_t now_ms, uint64_t wait_ms_max);

size_t gateways_waiting(const struct gateways *gateways); /* messages of ops that wait */
size_t gateways_count(const struct gateways *gateways);   /* connected */
