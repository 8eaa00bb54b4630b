/* storage.h: the raft core's writes on their way to the log, and back from it at a start.
 *
 * Each write is one unit, in the core's order. With nothing queued a small write is done on the loop thread, which saves
 * two hand-overs; else the WAL thread takes it. A write that found the disk full is kept and tried again, in order, until
 * there is space: nothing of it was done, and nobody was told that it was. Behind it all waits, but a vote: that goes ahead, into
 * the log's reserve, as raft.h allows it, with nothing else that its write may hold. Any other failure is final.
 * Loop thread only; what happens on the WAL thread is posted here. */
#pragma once

#include "common/buf.h"
#include "common/conf.h"
#include "daemons/raftd/raft/raft.h"
#include "daemons/raftd/recovery.h"

struct loop;
struct storage;

struct storage_events {
    /* A write of the core is durable. May come within storage_write. */
    void (*on_written)(void *user, uint64_t write_seq, uint64_t last_index, uint64_t last_term);
    /* Of this write, and of those before it, term and vote are durable; the rest waits for space. */
    void (*on_vote_written)(void *user, uint64_t write_seq);
    void (*on_snapshot_recorded)(void *user, const struct storage_snapshot *snapshot);
    /* Space ran out, or came back. */
    void (*on_space)(void *user, bool has_space);
    /* The log can no longer be written: nothing unacknowledged will ever be. */
    void (*on_failed)(void *user, const struct err *err);
};

/* Whether there is a log at all: 1, 0, or negative. */
int storage_exists(const struct conf *conf, struct err *err);

/* A new log beginning at base with these entries in it, durable on return. */
int storage_create(const struct conf *conf, const struct wal_base *base,
        const struct raft_hard_state *hard, const struct raft_entry *entries, size_t entry_count,
        struct storage **ret_storage, struct err *err);

/* Reads an existing log to its end; changes nothing on disk. */
int storage_open(const struct conf *conf, struct storage **ret_storage,
        struct storage_recovered *ret_recovered, struct err *err);

/* Makes what storage_open read durable and the log writable. `first`, where it is not NULL, is in the log and synced on
 * return: a crash leaves all of it or nothing. */
int storage_open_append(struct storage *storage, const struct wal_write *first, struct err *err);

/* Begins to take writes. */
int storage_start(struct storage *storage, struct loop *loop, const struct storage_events *events,
        void *user, struct err *err);
struct storage *storage_close(
        struct storage *storage); /* finishes what is queued; always NULL, accepts NULL */

/* base: set where write->base is (its configuration encoded). Everything is copied. */
void storage_write(
        struct storage *storage, const struct raft_write *write, const struct wal_base *base);

/* Records a snapshot, and the base that the log begins with from now on (NULL: as it was). Everything is copied. */
void storage_record_snapshot(
        struct storage *storage, const struct wal_snapshot *snapshot, const struct wal_base *base);

/* Entries before index are not needed any more. */
void storage_purge_before(struct storage *storage, uint64_t index);

/* Reads entries back: calls fn for each, see wal_read_entries. */
int storage_read(struct storage *storage, uint64_t first, uint64_t end, size_t bytes_max,
        wal_entry_fn fn, void *user, struct err *err);

/* Tries again what found no space, and notices when it has come back. Call a few times a second. */
void storage_check(struct storage *storage);

struct storage_stats {
    uint64_t bytes_appended; /* of entries, since the start */
    uint64_t writes;
    uint64_t disk_bytes;
    uint64_t sync_us; /* what a write and its sync take, moving average */
    bool has_space;
};
void storage_get_stats(const struct storage *storage, struct storage_stats *ret_stats);
