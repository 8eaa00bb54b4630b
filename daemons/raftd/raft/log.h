/* log.h: the core's picture of the log.
 *
 *        base            first cached                last
 *   ......|=================|#########################|
 *   gone    on disk; here     entries with their data
 *           only the terms
 *
 * Terms of all entries behind the base are known, as runs (first index, term). The newest entries are kept whole; a
 * batch appended at once shares one block of memory, and blocks are given up oldest first.
 * Views of entries are valid until the next append, cut, reset or evict. */
#pragma once

#include "daemons/raftd/raft/raft.h"

/* What an entry counts against limits of bytes: empty ones are not free. */
enum {
    RAFT_ENTRY_OVERHEAD_BYTES = 64
};
static inline size_t raft_entry_cost(const struct raft_entry *entry)
{
    return entry->data.bytes + RAFT_ENTRY_OVERHEAD_BYTES;
}

struct raft_log_run {
    uint64_t first_index;
    uint64_t term;
};

struct raft_log_block {
    uint64_t first_index;
    uint64_t last_index;
    uint8_t *data; /* owned */
    size_t bytes;  /* what it costs, entries included */
};

struct raft_log {
    uint64_t base_index;
    uint64_t base_term;
    uint64_t last_index;
    uint64_t last_term;
    uint64_t last_time_ns; /* of the last entry; after a cut it may be that of one that is gone */
    struct raft_log_run *runs;
    size_t run_count;
    size_t run_capacity;
    struct raft_entry *items; /* cached: items[head .. head + count) end at last_index */
    size_t item_head;
    size_t item_count;
    size_t item_capacity;
    struct raft_log_block *blocks;
    size_t block_head;
    size_t block_count;
    size_t block_capacity;
    size_t cached_bytes;
};

void raft_log_reset(
        struct raft_log *log, uint64_t base_index, uint64_t base_term, uint64_t time_ns);
void raft_log_fini(struct raft_log *log);

static inline uint64_t raft_log_first_cached(const struct raft_log *log)
{
    return log->last_index - log->item_count + 1;
}

/* 0 outside [base, last] (and at a base of 0). */
uint64_t raft_log_term(const struct raft_log *log, uint64_t index);

/* The highest index <= index whose term is <= term, never below the base. */
uint64_t raft_log_find_term(const struct raft_log *log, uint64_t index, uint64_t term);

/* Appends copies. With a stamp, index follows the log, term and time come from it; else the entries have theirs. */
struct raft_log_stamp {
    uint64_t term;
    uint64_t time_ns;
};
void raft_log_append(
        struct raft_log *log, struct raft_entry_span entries, const struct raft_log_stamp *stamp);

/* Drops the entries after index, which is not below the base. */
void raft_log_cut(struct raft_log *log, uint64_t index);

/* Cached entries from `first` (cached) up to `last`, as many as bytes_max allows, at least one. */
struct raft_entry_span raft_log_slice(
        const struct raft_log *log, uint64_t first, uint64_t last, size_t bytes_max);

/* Gives up cached entries up to index `limit` while they cost more than bytes_max. */
void raft_log_evict(struct raft_log *log, uint64_t limit, size_t bytes_max);

/* The base moves up to index, which is in the log. */
void raft_log_compact(struct raft_log *log, uint64_t index);
