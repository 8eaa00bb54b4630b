/* store.h: a member's log: the real one (daemons/raftd/wal) on a disk of ours, and the ledger of what it must hold.
 *
 * Takes the writes of a core as the shell's storage.c does: in their order, as many at once as there are, one sync for them;
 * what finds the disk full waits with all behind it. The caller says when, and tells the core. */
#pragma once

#include "daemons/raftd/recovered.h"
#include "daemons/raftd/wal/wal.h"
#include "tests/sim/disk.h"
#include "tests/sim/ledger.h"

struct store {
    struct disk disk;
    struct ledger ledger;
    struct wal *wal; /* NULL while the member is down */
    uint64_t member_id;
    uint64_t segment_bytes;
    char dir[128];
    size_t appended; /* the oldest of the ledger's queue: in the file, not synced */
    bool is_refusing;
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

/* Brings up to `count` of the queued writes into the file: 0, -ENOSPC (all that is left waits), or final. */
int store_append(struct store *store, size_t count, struct err *err);
int store_sync(struct store *store, struct err *err);
/* Looks after space, as the shell does a few times a second. True if there is some. */
bool store_check_space(struct store *store);

/* Entries [first, end) as they were written; none if they cannot be read. Copies, for sim_entries_fini. */
int store_read(struct store *store, uint64_t first, uint64_t end, size_t bytes_max,
        struct sim_entries *ret_entries, struct err *err);
