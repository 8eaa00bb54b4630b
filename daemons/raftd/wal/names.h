/* names.h: the files of a log's directory. <seq>-<index>.wal, 16 hex digits each, where index is that of the
 * first entry written into the segment; *.tmp are unfinished and may go at any time. Other names are not ours and
 * are left alone. */
#pragma once

#include "common/err.h"
#include "daemons/raftd/wal/io.h"

enum {
    NAMES_SEGMENT_BYTES = 16 + 1 + 16 + 4 + 1
}; /* with the NUL */

#define NAMES_SPARE   "spare.tmp"   /* the next segment, allocated ahead */
#define NAMES_REWRITE "rewrite.tmp" /* the last segment's copy at a restart */

struct names_segment {
    uint64_t seq;
    uint64_t first_index;
};

void names_format(const struct names_segment *segment, char ret_name[NAMES_SEGMENT_BYTES]);
bool names_parse(const char *name, struct names_segment *ret_segment);

/* The directory's segments by rising seq, in an array the caller frees. */
int names_list(const struct wal_io *io, int dir_fd, struct names_segment **ret_segments,
        size_t *ret_count, struct err *err);

/* -ENODATA where a number of the sequence is missing or there twice. */
int names_check_sequence(
        const struct names_segment *segments, size_t segment_count, struct err *err);
