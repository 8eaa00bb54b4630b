/* internal.h: the log's own state, shared by the files of this folder and by nothing else.
 *
 * Three threads of work may meet: the one that appends, any that read entries back, any that prepare or purge.
 * The fields of each are together below. `mutex` is held for moments only, never over a system call;
 * read_mutex and purge_mutex let one of their kind work at a time. */
#pragma once

#include <errno.h>
#include <pthread.h>

#include "common/buf.h"
#include "daemons/raftd/wal/io.h"
#include "daemons/raftd/wal/names.h"
#include "daemons/raftd/wal/points.h"
#include "daemons/raftd/wal/reader.h"
#include "daemons/raftd/wal/record.h"
#include "daemons/raftd/wal/wal.h"

enum wal_mode {
    WAL_MODE_READING,   /* records are left */
    WAL_MODE_READ,      /* the last one was read */
    WAL_MODE_APPENDING, /* all that was read is durable */
    WAL_MODE_BROKEN,    /* the turn to appending failed */
};

struct segment {
    struct names_segment name;
    uint64_t file_bytes;
    uint64_t salt;       /* the rest only once its head was read */
    uint32_t crc_before; /* the last crc of the segment before */
    bool is_scanned;     /* its points are in the table */
};

/* A snapshot that reading has met, and that the log could begin behind. */
struct footing {
    struct wal_snapshot snapshot; /* its configuration lies in the buf */
    struct buf configuration;
};

/* A file with room for a segment. */
struct wal_file {
    int fd;
    uint64_t capacity;
    bool is_allocated; /* the room is really ours; false where the file system cannot tell */
};

/* An open file description of the last segment, for one sync at a time: the kernel reports an error of writing back
 * once to each description, so two syncs that share one could take each other's. */
struct sync_file {
    int fd; /* < 0: not opened */
    bool is_busy;
};

struct wal {
    char *dir;
    uint64_t segment_bytes;
    uint64_t reserve_bytes;
    const struct wal_io *io;
    int dir_fd;
    int lock_fd; /* -1: foreign */
    enum wal_mode mode;

    /* What the records up to here amount to. Appending (or reading) thread; last_index also under mutex. */
    uint64_t last_index;
    struct wal_base base; /* its configuration lies in the buf */
    struct buf base_configuration;
    struct wal_hard_state hard;
    struct wal_snapshot snapshot; /* its configuration lies in the buf */
    struct buf snapshot_configuration;
    bool has_snapshot;

    /* Reading. */
    struct reader reader;
    struct reader_batch batch;
    bool is_in_batch;
    bool is_head;         /* the batch is the first of its segment */
    size_t reading;       /* position of the segment being read */
    size_t reading_first; /* and of the one that reading began with */
    uint64_t torn_bytes;
    uint64_t reach; /* what was read has all entries behind it */
    struct footing *footings;
    size_t footing_count;
    bool is_at_end; /* no record is left in the files */

    /* Appending. While reading: where the last segment's records end. */
    struct wal_file file;
    uint64_t end;
    uint64_t zeroed; /* the file is written (with zeros, after end) up to here */
    uint32_t crc;
    bool is_refusing; /* entries were refused for lack of space: those that follow do not continue the log */
    bool is_marked; /* nothing was appended since a batch that says that all is synced */
    struct buf staging;
    struct buf parts; /* of struct iovec */

    /* Reading back: under read_mutex. */
    pthread_mutex_t read_mutex;
    struct buf window; /* lent to the reader */

    pthread_mutex_t purge_mutex;

    /* Shared: under mutex. */
    pthread_mutex_t mutex;
    pthread_cond_t spare_idle;
    struct segment *segments;
    size_t segment_count;
    size_t segment_capacity;
    struct points points;
    uint64_t void_before_seq; /* a reset voids all segments before this one */
    uint64_t purge_index_max; /* what the last synced base and those before it allow */
    uint64_t end_shared;      /* of the last segment */
    uint64_t synced;          /* the last segment is durable up to here */
    uint64_t base_index_synced;
    /* The first one's fd is the appending one's. Whoever appends opens and closes the others, without the mutex. */
    struct sync_file sync_files[WAL_SYNCS_MAX];
    pthread_cond_t sync_ended;
    struct wal_file spare; /* fd < 0: none */
    bool is_spare_busy;    /* being made, or taken and not yet renamed */
    bool is_spare_refused; /* there was no space for it the last time */
    struct err failed;     /* code != 0: final */
};

/* Returns the final error, if there is one. */
int wal_check_failed(struct wal *wal, struct err *err);
/* Makes r (negative) and its text the final error and returns it; -ENOSPC, which would not be final, as -EIO. */
int wal_fail(struct wal *wal, struct err *err, int r);

void wal_add_segment(struct wal *wal, const struct segment *segment);
/* A copy of the last one. */
struct segment wal_last_segment(struct wal *wal);

/* Takes a base over into wal->base, a snapshot into wal->snapshot; configurations are copied. */
void wal_set_base(struct wal *wal, const struct wal_base *base);
void wal_set_snapshot(struct wal *wal, const struct wal_snapshot *snapshot);

/* ---- file.c: whole files ---- */

static inline bool is_no_space(int r)
{
    return r == -ENOSPC || r == -EDQUOT;
}

/* Creates and allocates `name`; -ENOSPC leaves nothing behind. */
int file_make(struct wal *wal, const char *name, uint64_t bytes, struct wal_file *ret_file,
        struct err *err);
void file_close(const struct wal *wal, struct wal_file *file);

/* Writes all parts (used up) at offset, in one call where the kernel takes them so. Running out of space is
 * always -ENOSPC. */
int file_write(struct wal *wal, const char *name, int fd, struct iovec *parts, size_t part_count,
        uint64_t offset, struct err *err);

/* Writes the first batch of a segment; ret_segment: its salt and crc_before, ret_end, ret_crc: where to go on. */
int file_write_head(struct wal *wal, int fd, uint32_t crc_before, struct segment *segment,
        uint64_t *ret_end, uint32_t *ret_crc, struct err *err);
uint64_t file_head_bytes(const struct wal *wal);

/* A batch without records at offset, which says that all before it is synced; *crc goes on. */
int file_write_mark(struct wal *wal, const char *name, int fd, uint64_t offset, uint64_t salt,
        uint32_t *crc, struct err *err);

int file_sync(struct wal *wal, const char *name, int fd, struct err *err);
int file_sync_dir(struct wal *wal, struct err *err);

/* Removes what an earlier life left unfinished. */
int file_remove_unfinished(struct wal *wal, struct err *err);

/* ---- sync.c ---- */

uint64_t wal_synced(struct wal *wal);
void wal_set_synced(struct wal *wal, uint64_t synced);

/* Waits until no sync is on its way. */
void sync_await_none(struct wal *wal);
/* Closes what was opened for syncs of the last segment. None is on its way. */
void sync_close_files(struct wal *wal);

/* ---- spare.c ---- */

/* Hands over the spare file, at least `bytes` long; makes it if need be. -ENOSPC is clean. Until spare_release the
 * name NAMES_SPARE is the taker's, to rename or to unlink. */
int spare_take(struct wal *wal, uint64_t bytes, struct wal_file *ret_file, struct err *err);
void spare_release(struct wal *wal);

/* ---- replay.c ---- */

/* Opens segments[position] and reads its first batch, which must be whole and say what the name says. */
int replay_open_segment(struct wal *wal, const struct segment *segment, struct reader *reader,
        struct reader_batch *ret_batch, struct err *err);

/* Whether a record that came whole from disk continues a log that ends with last_index on base_index. */
void replay_drop_footings(struct wal *wal);

bool replay_is_sound(const struct wal_record *record, uint64_t last_index, uint64_t base_index);
