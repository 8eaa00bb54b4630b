/* reader.h: reads one segment file batch by batch, believing nothing that its checksums do not prove. Changes
 * nothing, keeps one window of the file in memory. One thread at a time. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "daemons/raftd/wal/names.h"
#include "daemons/raftd/wal/record.h"

struct reader {
    const struct wal_io *io;
    int fd;
    char name[NAMES_SEGMENT_BYTES];
    uint64_t file_bytes;
    uint64_t offset; /* of the next batch */
    uint32_t crc;    /* of the last record, where known */
    bool is_crc_known;
    uint64_t salt; /* of the segment, where known */
    bool is_salt_known;
    struct buf window; /* the file from window_offset on */
    uint64_t window_offset;
    size_t chunk_bytes; /* read at once */
};

/* A whole batch. Records lie in the reader's window, until its next call. */
struct reader_batch {
    struct record_batch header;
    struct span rest; /* records not yet taken */
    uint32_t crc;     /* before the next record */
    uint64_t offset;  /* of the next record */
    uint32_t left_count;
};

/* Opens dir_fd's segment for reading from its start. */
int reader_init(struct reader *reader, const struct wal_io *io, int dir_fd,
        const struct names_segment *segment, struct err *err);
void reader_fini(struct reader *reader); /* zeroed is fine */

/* Goes to a batch in the middle; what is before it is not looked at. */
void reader_seek(struct reader *reader, uint64_t offset, uint64_t salt);

/* The next batch: 1; 0 if there is no whole one here (the end, or damage: reader_find_damage tells). A failing
 * read is an error. */
int reader_next_batch(struct reader *reader, struct reader_batch *ret_batch, struct err *err);

/* The next record of a batch; false at its end. ret_offset: where in the file. */
bool reader_next_record(
        struct reader_batch *batch, struct record *ret_record, uint64_t *ret_offset);

/* After reader_next_batch gave 0: looks at the rest of the file. 0 if what follows is a clean end or a torn tail
 * (*ret_torn_bytes of it, 0: clean); -EBADMSG if a batch further on says that the file was synced beyond here. */
int reader_check_tail(struct reader *reader, uint64_t *ret_torn_bytes, struct err *err);
