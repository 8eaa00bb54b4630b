#include "daemons/raftd/backlog.h"

#include <stdlib.h>

#include "common/buf.h"

enum {
    PART_BYTES = 1024 * 1024 /* a part takes up appends until it has this much */
};

void backlog_fini(struct backlog *backlog)
{
    free(backlog->parts);
    *backlog = (struct backlog){ 0 };
}

static struct backlog_part *last_part(struct backlog *backlog)
{
    return backlog->count == 0 ? NULL : &backlog->parts[backlog->head + backlog->count - 1];
}

static struct backlog_part *push_part(struct backlog *backlog)
{
    if (backlog->head + backlog->count == backlog->capacity) {
        if (backlog->head > backlog->capacity / 2) {
            INVARIANT(backlog->parts != NULL); /* some went from the front */
            memmove(backlog->parts, backlog->parts + backlog->head,
                    backlog->count * sizeof *backlog->parts);
            backlog->head = 0;
        } else {
            backlog->capacity = MAX((size_t)64, backlog->capacity * 2);
            backlog->parts = xrealloc(backlog->parts, backlog->capacity * sizeof *backlog->parts);
        }
    }
    return &backlog->parts[backlog->head + backlog->count++];
}

void backlog_on_append(struct backlog *backlog, uint64_t last_index, uint64_t bytes)
{
    struct backlog_part *part = last_part(backlog);

    if (part == NULL || part->bytes >= PART_BYTES) {
        part = push_part(backlog);
        *part = (struct backlog_part){ 0 };
    }
    INVARIANT_LE(part->last_index, last_index);
    part->last_index = last_index;
    part->bytes += bytes;
    backlog->bytes += bytes;
}

void backlog_on_cut(struct backlog *backlog, uint64_t index)
{
    while (backlog->count > 0) {
        struct backlog_part *part = last_part(backlog);
        uint64_t before = backlog->count > 1 ? part[-1].last_index : 0;
        if (part->last_index <= index) {
            return;
        }
        if (before < index) {
            part->last_index =
                    index; /* its bytes stay: too much is counted rather than too little */
            return;
        }
        backlog->bytes -= part->bytes;
        backlog->count--;
    }
}

void backlog_on_applied(struct backlog *backlog, uint64_t index)
{
    while (backlog->count > 0 && backlog->parts[backlog->head].last_index <= index) {
        backlog->bytes -= backlog->parts[backlog->head].bytes;
        backlog->head++;
        backlog->count--;
    }
    if (backlog->count == 0) {
        INVARIANT_EQ(backlog->bytes, 0);
        backlog->head = 0;
    }
}

bool backlog_is_full(struct backlog *backlog, uint64_t last_index, uint64_t applied_index)
{
    uint64_t entries = last_index - MIN(applied_index, last_index);
    unsigned quarters = backlog->is_full ? 3 : 4;

    backlog->is_full = entries >= (uint64_t)BACKLOG_ENTRIES_MAX / 4 * quarters ||
                       backlog->bytes >= (uint64_t)BACKLOG_BYTES_MAX / 4 * quarters;
    return backlog->is_full;
}
