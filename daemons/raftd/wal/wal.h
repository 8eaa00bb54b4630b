/* wal.h: the raft log on disk. Append-only, checksummed, survives a torn tail, and never serves damaged
 * data as if it were whole. The format is drawn in record.h and in docs/.
 *
 * Life. A new log (wal_create) opens for appending. An existing one (wal_open) opens for reading: records
 * come from wal_read, and only when that has returned 0 (the last one was read) may wal_start_append turn
 * it. That call rewrites the last segment, because what lies in a file may never have reached the disk:
 * hard state and entries that were read count as durable only after it has returned 0. The two modes are
 * exclusive; a call in the wrong one breaks an INVARIANT.
 *
 * Durability. wal_append puts writes into the file in one batch, wal_sync makes them durable. A torn batch
 * is lost as a whole, so writes of one wal_append stand or fall together. -ENOSPC from wal_append is clean:
 * nothing of it was done, and the log goes on (a reserve still takes writes without entries). Every other
 * error of append or sync is final: each later call returns it again, and only a restart of the process,
 * which reads what the disk kept, mends it. A failed sync is never retried.
 *
 * Threads. wal_append, wal_sync, wal_sync_begin and wal_close from one thread at a time (writer.h sees to it);
 * wal_sync_run, wal_read_entries, wal_prepare_next, wal_purge_before and the getters marked so from any, meanwhile. */
#pragma once

#include "common/err.h"
#include "common/span.h"

enum {
    WAL_CONFIG_BYTES_MAX = 1 << 20, /* of a base's configuration */
};
#define WAL_SEGMENT_BYTES_DEFAULT (UINT64_C(64) << 20)

struct wal;
struct wal_io;

struct wal_config {
    const char *dir;        /* .../member/wal; its parent exists */
    uint64_t segment_bytes; /* 0: WAL_SEGMENT_BYTES_DEFAULT; tests take small ones */
    uint64_t
            reserve_bytes; /* at each segment's end, for writes without entries; 0: 1/64 of a segment */
    const struct wal_io *io; /* NULL: the system's; tests inject failures */
    /* For wal_open: take no LOCK, so that another process may go on writing. Only reading is possible then. What it finds
     * may be torn, or seem damaged (-EBADMSG), where it was written while it was read: reading it again tells. */
    bool is_foreign;
};

struct wal_hard_state {
    uint64_t term;
    uint64_t vote; /* member id, 0: none */
    uint64_t commit;
};

struct wal_entry {
    uint64_t index;
    uint64_t term;
    uint64_t time_ns; /* cluster time stamped by the leader */
    uint8_t kind;     /* the log does not look at it */
    struct span data;
};

/* What the log stands on: everything up to index is in a snapshot. */
struct wal_base {
    bool reset; /* the log's entries are all void (a snapshot was installed), the next one is index + 1 */
    uint64_t index;
    uint64_t term;
    uint64_t cluster_time_ns;
    uint64_t cluster_id;
    uint64_t member_id;
    struct span configuration; /* voters, learners, removed ids, peer URLs: opaque here */
};

/* A snapshot file. With what a base says of its index, the log can begin behind it should what is older be missing. */
struct wal_snapshot {
    uint64_t index;
    uint64_t term;
    bool is_base; /* the rest is known */
    uint64_t cluster_time_ns;
    struct span configuration;
};

/* One write of the raft core. Parts that are absent are NULL or 0. On disk, and when read back, they come in
 * the order of this struct. Everything is borrowed for the call. */
struct wal_write {
    const struct wal_base *base;       /* index never falls, and is <= last index unless reset */
    const struct wal_hard_state *hard; /* term never falls, and has one vote */
    bool has_cut;
    uint64_t cut_index; /* entries after it are void; at or above the last index it means nothing */
    const struct wal_entry *entries; /* the first continues the log (after the cut) without a gap */
    size_t entry_count;
    const struct wal_snapshot *snapshot; /* a snapshot file exists, is whole and synced */
};

enum wal_record_kind {
    WAL_RECORD_BASE = 1,
    WAL_RECORD_HARD_STATE,
    WAL_RECORD_CUT,
    WAL_RECORD_ENTRY,
    WAL_RECORD_SNAPSHOT,
};

/* One record as read; spans in it live until the next call on the log. */
struct wal_record {
    enum wal_record_kind kind;
    union {
        struct wal_base base;
        struct wal_hard_state hard;
        uint64_t cut_index;
        struct wal_entry entry;
        struct wal_snapshot snapshot;
    };
};

/* 1 if dir holds a log (any segment), 0 if not or if there is no such dir, negative on error. Locks and
 * changes nothing. */
int wal_exists(const char *dir, struct err *err);

/* A new log, open for appending and durable on return. Makes dir (0700) if need be. -EEXIST if it holds a
 * log, -EWOULDBLOCK if another process (named in err) holds its LOCK. */
int wal_create(const struct wal_config *config, const struct wal_base *base,
        const struct wal_hard_state *hard, struct wal **ret_wal, struct err *err);

/* As wal_create, but with a first write (entries that a new cluster begins with): a crash leaves a log with it or
 * no log at all. */
int wal_create_with(const struct wal_config *config, const struct wal_base *base,
        const struct wal_hard_state *hard, const struct wal_write *first, struct wal **ret_wal,
        struct err *err);

/* An existing log, open for reading. Nothing but LOCK is changed on disk before wal_start_append.
 * -ENOENT: no log; -EWOULDBLOCK: locked; -EBADMSG: damaged, err names file and offset. */
int wal_open(const struct wal_config *config, struct wal **ret_wal, struct err *err);

/* The next record: 1, with *ret_record set; 0 after the last. Reading starts far enough back that all
 * entries after the last base come; the first records are always a base and a hard state. A cut or a reset
 * base voids entries read before it. The configuration to start with: that of the last base, then the
 * entries after its index. A torn tail ends the log silently (wal_torn_bytes); -EBADMSG is damage.
 *
 * Where the oldest segments are missing, and entries behind the base with them, the last record is a base that no file
 * holds: the oldest recorded snapshot (is_base) whose entries behind it are all there. -ENODATA where there is none. */
int wal_read(struct wal *wal, struct wal_record *ret_record, struct err *err);

/* From reading (all was read) to appending: rewrites the last segment, syncs file and directory. After
 * an error only wal_close is left. */
int wal_start_append(struct wal *wal, struct err *err);

/* Appends all writes, in order, as one batch; nothing is durable before wal_sync. */
int wal_append(
        struct wal *wal, const struct wal_write *writes, size_t write_count, struct err *err);

/* One fdatasync, none if all is synced. */
int wal_sync(struct wal *wal, struct err *err);

/* A sync in three steps, so that the next can begin while one is on its way. begin notes what is appended by now:
 * 1, or 0 if all of it is durable. run is the fdatasync: any thread, 0 or -errno. end, once for each that began, in the
 * order in which they began and one at a time, takes the result; what was appended before begin is durable when it
 * has returned 0, which it never does behind a sync that failed. begin waits while WAL_SYNCS_MAX are on their way. */
enum {
    WAL_SYNCS_MAX = 8
};
struct wal_sync {
    uint64_t end;
    uint64_t base_index;
    unsigned file;
};
int wal_sync_begin(struct wal *wal, struct wal_sync *ret_sync, struct err *err);
int wal_sync_run(struct wal *wal, const struct wal_sync *sync);
int wal_sync_end(struct wal *wal, const struct wal_sync *sync, int result, struct err *err);

/* Called for each entry; entry and data live for the call, which must not call the log. 0: go on, positive: stop, negative: give up. */
typedef int (*wal_entry_fn)(void *user, const struct wal_entry *entry);

/* Reads entries from..to_max (bounded by the last one) back from the segments until data of bytes_max bytes were
 * handed out, but at least one. Returns how many; 0 if from is past the last. -ENOENT: from is purged or was
 * before a reset. -EBADMSG: damage, err says where. Ask only for entries that were appended and not cut
 * since. Any thread; of a foreign log once all was read. */
int wal_read_entries(struct wal *wal, uint64_t from, uint64_t to_max, size_t bytes_max,
        wal_entry_fn fn, void *user, struct err *err);

/* Whether wal_prepare_next has something to do. Any thread. */
bool wal_wants_prepare(struct wal *wal);

/* Allocates the next segment ahead of need (from half of the last one on). -ENOSPC: the disk is full; not an
 * error of the log yet. Any thread; call it off the hot path. */
int wal_prepare_next(struct wal *wal, struct err *err);

/* Removes the oldest segments whose entries all lie below index; never the last one, nor what the last base
 * still needs. Returns how many. Any thread. */
int wal_purge_before(struct wal *wal, uint64_t index, struct err *err);

/* Any thread. The lowest entry that may be read (a lower bound that is exact once read), the last entry's
 * index (the base's where there is none), whether the next segment's space is secured, the number of segments,
 * and the bytes they take on disk. */
uint64_t wal_first_index(struct wal *wal);
uint64_t wal_last_index(struct wal *wal);
bool wal_has_space(struct wal *wal);
size_t wal_segment_count(struct wal *wal);
uint64_t wal_disk_bytes(struct wal *wal);

/* Bytes of a torn tail that reading found and left out. */
uint64_t wal_torn_bytes(const struct wal *wal);

/* Always NULL, accepts NULL. Does not sync: what was not synced was not promised. Releases LOCK. */
struct wal *wal_close(struct wal *wal);
