/* store.h: a member's log: the real one (daemons/raftd/wal) on a disk of ours, and the ledger of what it must hold.
 *
 * Takes the writes of a core as the shell's storage.c does: in their order, as many at once as there are, one sync for them,
 * several syncs on their way at once; what finds the disk full waits with all behind it, but for a vote. The caller says when,
 * and tells the core. */
#pragma once

#include "daemons/raftd/recovery.h"
#include "daemons/raftd/wal/wal.h"
#include "tests/sim/disk.h"
#include "tests/sim/ledger.h"

enum {
    STORE_SYNCS_MAX = 4
};

/* A group that was appended and is being synced. */
struct store_sync {
    struct wal_sync sync;
    size_t count;    /* of the ledger's queue */
    bool is_vote;    /* one that went ahead, and none of the queue */
    bool is_nothing; /* all of it was synced already */
    bool has_run;
    int result;
};

struct store {
    struct disk disk;
    struct ledger ledger;
    struct wal *wal; /* NULL while the member is down */
    uint64_t member_id;
    uint64_t segment_bytes;
    char dir[128];
    size_t appended; /* the oldest of the ledger's queue: in the file, not synced */
    struct store_sync syncs[STORE_SYNCS_MAX]; /* in the order in which they began */
    size_t sync_count;
    bool is_refusing;
    bool is_at_end;       /* a full disk is met at once, as if the segment just ended */
    bool is_reserve_used; /* not even a vote found room */
};

/* What a start has found. The arrays live until store_recovered_fini. */
struct store_recovered {
    struct storage_recovered log;
    struct raft_members members; /* at its base */
};
void store_recovered_fini(struct store_recovered *recovered);

/* A new log that begins with these members, on an empty disk. */
void store_init(struct store *store, uint64_t member_id, struct raft_members members,
        uint64_t segment_bytes, uint64_t seed);
void store_fini(struct store *store);

/* Opens the log as raftd does at its start. Negative: what it could not do. */
int store_start(struct store *store, struct store_recovered *ret_recovered, struct err *err);
/* The process ends: by a signal it heeds, or at once. */
void store_stop(struct store *store, bool is_clean);
/* The power goes too; only when stopped. */
void store_cut_power(struct store *store);
/* While it is stopped, segments are taken away that the newest recorded snapshot does not need: true if there were any. */
bool store_lose_front(struct store *store);

/* Whether a group can be appended now: there is one, and a sync for it, and it need not wait for those under way. */
bool store_may_append(const struct store *store);
/* Brings up to `count` of the queued writes into the file and begins a sync: 0, -ENOSPC (all that is left waits), or
 * final. is_early: the medium has it at once, though nobody is told yet. is_split: in two batches, with one sync. */
int store_append(struct store *store, size_t count, bool is_early, bool is_split, struct err *err);
/* Whether a vote waits behind what found no space, and can go ahead. */
bool store_may_vote(const struct store *store);
/* Brings it into the file and begins a sync: 0, -ENOSPC (the reserve is used up too), or final. */
int store_append_vote(struct store *store, bool is_early, struct err *err);
/* The oldest sync ends: how many writes are durable by it, or the final error. A vote that went ahead is none of them;
 * *ret_vote_seq: the write whose it is, 0: it was none. */
int store_sync(struct store *store, uint64_t *ret_vote_seq, struct err *err);
/* Looks after space, as the shell does a few times a second. True if there is some. */
bool store_check_space(struct store *store);

/* Entries [first, end) as they were written; none if they cannot be read. Copies, for sim_entries_fini. */
int store_read(struct store *store, uint64_t first, uint64_t end, size_t bytes_max,
        struct sim_entries *ret_entries, struct err *err);
