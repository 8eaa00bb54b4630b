/* points.h: where in the segments an entry lies. A sparse table in memory, by rising entry index: a point every
 * 128 KiB of log, and wherever entries begin anew (a segment, after a cut, after a reset). Pure; the holder
 * guards it against other threads.
 *
 * A cut drops the points behind it and the next entry gets a point of its own. So the live entries from a point up
 * to the next *break* are the first ones of their index that follow in the file, and void ones are never met. */
#pragma once

#include "common/buf.h"

enum {
    POINTS_STRIDE_BYTES = 128 << 10
};

struct point {
    uint64_t index; /* of the entry */
    uint64_t seq;   /* of the segment */
    uint64_t batch_offset;
    uint64_t record_offset : 63; /* of the entry's record, in the batch at batch_offset */
    uint64_t is_break : 1;       /* does not simply continue the run of the point before */
};

struct points {
    struct buf items; /* of struct point */
    size_t first;     /* items before it were dropped */
    bool is_break_next;
};

#define POINTS_INIT ((struct points){ BUF_INIT, 0, true })

void points_fini(struct points *points);

/* The next entry of the log lies there. Called for each; most leave no trace. */
void points_note(struct points *points, uint64_t index, uint64_t seq, uint64_t batch_offset,
        uint64_t record_offset);

/* Entries after index are void. */
void points_cut(struct points *points, uint64_t index);

/* All entries are void. */
void points_reset(struct points *points);

/* Entries in segments before seq are gone. */
void points_drop_before(struct points *points, uint64_t seq);

/* Puts the points of older segments in front, as far as they are for entries up to index_max, which lies below all
 * that is known: what comes after it there is void. */
void points_prepend(struct points *points, const struct points *older, uint64_t index_max);

/* The point to start from for an entry, and the last index that may be read on from there (UINT64_MAX: up to the
 * log's last). False if the entry lies before all points. */
bool points_find(const struct points *points, uint64_t index, struct point *ret_point,
        uint64_t *ret_last_index);

/* The lowest entry known, UINT64_MAX if none. */
uint64_t points_lowest(const struct points *points);
