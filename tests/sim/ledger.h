/* ledger.h: what a member's log must amount to, whatever becomes of its disk: the writes that were reported durable, and
 * those that were not yet, in their order.
 *
 * What a restart reads from the disk must be the durable part and any number of the oldest of the others: none torn, none
 * out of turn, nothing else. */
#pragma once

#include "common/buf.h"
#include "daemons/raftd/raft/raft.h"
#include "daemons/raftd/recovery.h"

/* A copy that owns its memory. */
struct sim_members {
    uint64_t *ids;
    size_t voters;
    size_t learners;
    size_t removed;
};
struct sim_members sim_members_copy(struct raft_members members);
struct raft_members sim_members_view(const struct sim_members *members);
void sim_members_fini(struct sim_members *members);

struct sim_entries {
    struct raft_entry *items; /* data owned, one allocation each */
    size_t count;
    size_t capacity;
};
void sim_entries_append(struct sim_entries *entries, const struct raft_entry *entry);
void sim_entries_fini(struct sim_entries *entries);

struct ledger_write {
    struct ledger_write *next;
    uint64_t seq;
    uint64_t last_index;
    uint64_t last_term;
    struct raft_hard_state hard;
    bool cut;
    uint64_t cut_index;
    bool is_snapshot; /* no write of the core: records one, and moves the base if rebased */
    struct storage_snapshot snapshot;
    uint64_t snapshot_time_ns;
    struct sim_members snapshot_members;
    bool rebased;
    struct raft_base base; /* members: see base_members */
    struct sim_members base_members;
    struct sim_entries entries;
};

/* What a snapshot's record says, should the log come to begin behind it. */
struct ledger_footing {
    struct raft_base base; /* members are in base_members */
    struct sim_members base_members;
};

struct ledger {
    struct raft_hard_state hard;
    uint64_t
            vote_seq; /* term and vote of this queued write are on their way to the disk ahead of all queued; 0: of none */
    struct raft_hard_state vote;
    struct raft_base base; /* members are in base_members */
    struct sim_members base_members;
    struct sim_entries log;          /* after base */
    struct ledger_footing *footings; /* of durable records, rising */
    size_t footing_count;
    struct ledger_write *queue;
    struct ledger_write **queue_end;
    size_t queued;
    bool may_begin_late;
};

void ledger_init(struct ledger *ledger, struct raft_members members);
void ledger_fini(struct ledger *ledger);
void ledger_queue(struct ledger *ledger, const struct raft_write *write);
/* snapshot: its index with all that a base says of it. moved: where the log begins from then on; NULL: as it was. */
void ledger_queue_snapshot(
        struct ledger *ledger, const struct raft_base *snapshot, const struct raft_base *moved);
/* The oldest queued write is durable; it is the caller's, for ledger_write_free. */
struct ledger_write *ledger_sync_one(struct ledger *ledger);
/* The newest that is queued of the core's own; NULL: none. */
const struct ledger_write *ledger_newest(const struct ledger *ledger);
/* Its term and vote go ahead: this is what reaches the disk. */
struct raft_hard_state ledger_send_vote(struct ledger *ledger);
/* They are durable, and what is queued up to there will be written with them. Returns the seq of the write they belong to. */
uint64_t ledger_sync_vote(struct ledger *ledger);
struct ledger_write *ledger_write_free(struct ledger_write *write); /* always NULL */
/* A restart has read this: true if it is what it may be. What was queued and is not in it is gone. */
bool ledger_restart(struct ledger *ledger, const struct storage_recovered *recovered,
        const struct raft_members *members);
/* Segments are taken away that the newest recorded snapshot does not need: what the next restart reads may begin behind any
 * recorded one. */
void ledger_lose_front(struct ledger *ledger);
/* Of the newest durably recorded snapshot; 0: there is none. */
uint64_t ledger_newest_footing(const struct ledger *ledger);
uint64_t ledger_last_index(const struct ledger *ledger);
/* 0 if the durable log does not hold it. */
uint64_t ledger_term(const struct ledger *ledger, uint64_t index);
