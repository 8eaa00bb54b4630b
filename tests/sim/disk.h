/* disk.h: a member's disk, as the log sees it: what is synced, and the writes that are queued and may yet be lost.
 *
 * A power cut keeps any number of the oldest queued writes: what was not synced may still have reached the disk. */
#pragma once

#include "common/buf.h"
#include "daemons/raftd/raft/raft.h"

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

struct disk_write {
    struct disk_write *next;
    uint64_t seq;
    uint64_t last_index;
    uint64_t last_term;
    struct raft_hard_state hard;
    bool cut;
    uint64_t cut_index;
    bool rebased;
    struct raft_base base; /* members: see base_members */
    struct sim_members base_members;
    struct sim_entries entries;
};

struct disk {
    struct raft_hard_state hard;
    struct raft_base base; /* members are in base_members */
    struct sim_members base_members;
    struct sim_entries log; /* after base */
    struct disk_write *queue;
    struct disk_write **queue_end;
    size_t queued;
};

void disk_init(struct disk *disk, struct raft_members members);
void disk_fini(struct disk *disk);
void disk_queue(struct disk *disk, const struct raft_write *write);
/* Makes the oldest queued write durable; false if there is none. */
bool disk_sync_one(struct disk *disk, struct disk_write *ret_done);
/* Loses the queue but for its `kept` oldest writes. */
void disk_crash(struct disk *disk, size_t kept);
uint64_t disk_last_index(const struct disk *disk);
/* 0 if the durable log does not hold it. */
uint64_t disk_term(const struct disk *disk, uint64_t index);
/* Deletes entries up to index, which is durable. */
void disk_compact(struct disk *disk, uint64_t index, struct raft_members members);
