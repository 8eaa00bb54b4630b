/* backlog.h: how much of the log stored has not applied yet, and whether clients may add to it. Pure: told what happens.
 *
 * While stored is away or slow the log would take writes without end. So new ones of clients wait once this much is
 * ahead of stored, and go on when a quarter of it is done. Only clients' writes are asked about: what other
 * members send, what is read back at a start and what raftd proposes itself never waits, however long the way. */
#pragma once

#include "common/span.h"

enum {
    /* Far above what clients have under way at once, and less than a second of stored's work. */
    BACKLOG_ENTRIES_MAX = 65536,
    BACKLOG_BYTES_MAX = 256 * 1024 * 1024,
};

/* Consecutive entries of this log, and what they weigh. */
struct backlog_part {
    uint64_t last_index;
    uint64_t bytes;
};

struct backlog {
    struct backlog_part *parts; /* ascending */
    size_t head;
    size_t count;
    size_t capacity;
    uint64_t bytes; /* of all parts: never less than what is not applied, up to a part more */
    bool is_full;
};

void backlog_fini(struct backlog *backlog);

/* Entries up to last_index were appended. Those that the log held at the start are counted, not weighed. */
void backlog_on_append(struct backlog *backlog, uint64_t last_index, uint64_t bytes);
/* The log now ends at index. */
void backlog_on_cut(struct backlog *backlog, uint64_t index);
void backlog_on_applied(struct backlog *backlog, uint64_t index);

/* Whether writes have to wait, the log and stored being where they are. */
bool backlog_is_full(struct backlog *backlog, uint64_t last_index, uint64_t applied_index);
