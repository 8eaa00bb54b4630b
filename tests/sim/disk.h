/* disk.h: a member's disk: the files behind its log, in memory, as a kernel and a medium treat them.
 *
 * What is written lies in a cache until it is synced. A process that dies loses none of it. When the power goes each write
 * that was not synced may be there, be lost, or be there in part, sector by sector; names follow the order in which they were
 * given, up to some point that lies behind the last sync of the folder. After a failed sync the cache still shows what was
 * written, and no later sync brings it to the medium, unless it is written once more.
 * The folder itself, and the lock in it, are real. */
#pragma once

#include "daemons/raftd/wal/io.h"
#include "tests/sim/rng.h"

enum {
    DISK_NAME_BYTES = 64,
    DISK_NAMES_MAX = 1024,
    DISK_FDS_MAX = 16,
};

/* One write that is not synced. */
struct disk_change {
    uint64_t offset;
    size_t bytes;
    uint8_t *before;
};

struct disk_file {
    uint8_t *bytes;
    size_t size;
    size_t capacity;
    size_t size_synced;
    struct disk_change *changes; /* oldest first */
    size_t change_count;
    size_t change_capacity;
    size_t doomed_count; /* so many of the oldest: a sync of them failed */
    unsigned errors;     /* of writing back: each description is told of each once */
    unsigned users;      /* names, descriptors, name changes that may be undone */
};

struct disk_fd {
    struct disk_file *file; /* NULL: not open */
    unsigned errors_told;
};

struct disk_name {
    char name[DISK_NAME_BYTES]; /* "": free */
    struct disk_file *file;
};

/* A change of a name that a power cut may undo. */
struct disk_renaming {
    char name[DISK_NAME_BYTES];
    struct disk_file *before; /* NULL: there was none */
    bool is_joined;           /* with the one before it: a rename is two of them, and one */
};

struct disk {
    struct wal_io io;
    struct rng rng;
    struct disk_name names[DISK_NAMES_MAX];
    size_t name_count; /* none is in use from here on */
    struct disk_fd fds[DISK_FDS_MAX];
    struct disk_renaming *renamings; /* oldest first, not synced */
    size_t renaming_count;
    size_t renaming_capacity;

    bool is_full;        /* no new file, no more space for one */
    unsigned calls_left; /* until the power goes, once armed */
    bool is_armed;
    bool is_off;         /* nothing is done any more */
    unsigned sync_fails; /* so many syncs from now one fails; 0: none */
    bool has_failed;     /* a failure that was asked for has come */
};

/* An empty disk; chance comes from seed alone. */
void disk_init(struct disk *disk, uint64_t seed);
void disk_fini(struct disk *disk);
/* The power goes with the call number `calls` from now (0: the next). */
void disk_arm(struct disk *disk, unsigned calls);
/* A sync fails: the `syncs`-th from now. */
void disk_fail_sync(struct disk *disk, unsigned syncs);
/* What the cache held is lost, or not. No descriptor may be open. */
void disk_cut_power(struct disk *disk);
/* No failure comes any more, but for what has failed. */
void disk_spare(struct disk *disk);
/* After a crash: it works again. */
void disk_restart(struct disk *disk);
