/* passed.h: what this member's gatewayds had proposed and what became of it: ops that are in some leader's log, on their way there,
 * or lost.
 *
 * A proposal is bound to the term that it was made in: no leader of another term takes it (raft/propose.c). So there are
 * two ways to know that it is dead, and may be proposed again without being done twice:
 *
 *   an entry of a later term was applied   all that this term will ever have committed came before it, in the same order for all
 *   the leader said where its log ended    when asked on the same connection behind the proposal, or on a newer one, and
 *                                          what was applied has reached that end
 *
 * An op is known again by its bytes: its request id is in them. Entries that are handed on after a gap (a snapshot lies in
 * between) leave the fate of all before them unknown: they are forgotten, and their clients time out.
 * Pure: no clock, no socket. Loop thread only. */
#pragma once

#include "common/buf.h"
#include "common/list.h"
#include "daemons/raftd/raft/raft.h"
#include "proto/codec.h"

/* One message's ops, copied. */
struct kept_ops {
    struct list node;
    uint64_t since_ms; /* when the gatewayd asked */
    uint64_t context;
    uint64_t term; /* of the leader that they were meant for */
    uint64_t seq;  /* passed.c's own */
    struct buf bytes;
    struct span_list ops; /* into bytes; in passed.c those that were seen have no data */
    size_t left;
    struct passed_item *items; /* passed.c's own */
};

struct kept_ops *kept_ops_new(
        uint64_t context, uint64_t since_ms, const struct span *ops, size_t count);
/* Takes it out of its list. Always NULL, accepts NULL. */
struct kept_ops *kept_ops_free(struct kept_ops *kept);

struct passed;

struct passed *passed_new(void);
struct passed *passed_free(struct passed *passed); /* always NULL, accepts NULL */

/* They were proposed in this term. Beyond 16 MiB the oldest are forgotten. */
void passed_add(struct passed *passed, struct kept_ops *take_kept, uint64_t term);

/* These were handed to the state machine: what they hold is done. */
void passed_on_entries(struct passed *passed, struct raft_entry_span entries);

/* A link broke: what was passed on until now may be lost. */
void passed_suspect(struct passed *passed);
/* Whether to ask the leader of this term where its log ends, because of such a break. Until an answer has come it is to be asked
 * again: question and answer may be lost too. */
bool passed_ask(const struct passed *passed, uint64_t term, uint64_t *ret_seq);
void passed_on_end(struct passed *passed, uint64_t term, uint64_t seq, uint64_t index);

/* The leader refused it: no longer kept here; NULL: not known. The caller's. */
struct kept_ops *passed_take(struct passed *passed, uint64_t context);
/* One whose remaining ops are dead, oldest first; NULL: none. The caller's. */
struct kept_ops *passed_take_dead(struct passed *passed);

/* Forgets what is older than clients wait. */
void passed_expire(struct passed *passed, uint64_t now_ms, uint64_t wait_ms_max);
