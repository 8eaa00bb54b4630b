/* record.h: the bytes of the log's records. Pure: encodes into the caller's memory, decodes in place.
 *
 *    0        4        8        12                     12 + bytes     next multiple of 8
 *    +-bytes--+--type--+-crc32c-+-------payload--------+----zeros-----+      little-endian
 *
 * The crc is that of bytes, type and payload, begun with the crc of the record before: a record proves its
 * whole past. Type 0 does not exist, so a preallocated (zero) tail is no record. A type that we do not know, in a whole
 * record, is a newer version's: refused, never taken for a torn tail.
 *
 * A batch is a BATCH record and the `count` records after it, `batch_bytes` together. It names the crc before it,
 * its own place, and a salt that was drawn when the segment began: so it can be recognised without its past, when
 * that is damaged, and no client can have its value taken for one.
 *
 *    BATCH       u32 crc_before | u32 count | u32 batch_bytes | u64 salt | u64 offset | u64 synced
 *    SEGMENT     u32 version | u64 seq | u64 first_index
 *    BASE        u32 flags (1: reset) | u64 index | u64 term | u64 time | u64 cluster | u64 member | configuration
 *    HARD_STATE  u32 0 | u64 term | u64 vote | u64 commit
 *    CUT         u32 0 | u64 index
 *    ENTRY       u32 kind | u64 index | u64 term | u64 time | data
 *    SNAPSHOT    u32 0 | u64 index | u64 term
 *                u32 1 | u64 index | u64 term | u64 time | configuration
 *
 * A segment's first batch is SEGMENT, BASE, HARD_STATE and, once there was one, SNAPSHOT; its crc_before is the
 * last crc of the segment before. `synced` is the offset up to which the segment was known to be on disk when the
 * batch was written. */
#pragma once

#include "daemons/raftd/wal/wal.h"

enum record_type {
    RECORD_BATCH = 1,
    RECORD_SEGMENT,
    RECORD_BASE,
    RECORD_HARD_STATE,
    RECORD_CUT,
    RECORD_ENTRY,
    RECORD_SNAPSHOT,
};

enum {
    RECORD_VERSION = 1,
    RECORD_ALIGN = 8,
    RECORD_HEADER_BYTES = 12,
    /* Whole records, header included, without what varies. */
    RECORD_BATCH_BYTES = RECORD_HEADER_BYTES + 3 * 4 + 3 * 8,
    RECORD_SEGMENT_BYTES = RECORD_HEADER_BYTES + 4 + 2 * 8,
    RECORD_BASE_BYTES = RECORD_HEADER_BYTES + 4 + 5 * 8,
    RECORD_HARD_STATE_BYTES = RECORD_HEADER_BYTES + 4 + 3 * 8,
    RECORD_CUT_BYTES = RECORD_HEADER_BYTES + 4 + 8,
    RECORD_ENTRY_BYTES = RECORD_HEADER_BYTES + 4 + 3 * 8,
    RECORD_SNAPSHOT_BYTES = RECORD_HEADER_BYTES + 4 + 2 * 8,
    RECORD_SNAPSHOT_BASE_BYTES = RECORD_SNAPSHOT_BYTES + 8, /* and the configuration */
};

/* A record as it lies in memory. */
struct record {
    uint32_t type;
    uint32_t crc;
    struct span payload;
    uint64_t total_bytes; /* with header and padding */
};

struct record_batch {
    uint32_t crc_before;
    uint32_t count;       /* records after the header */
    uint32_t batch_bytes; /* header included */
    uint64_t salt;
    uint64_t offset;
    uint64_t synced;
};

struct record_segment {
    uint32_t version;
    uint64_t seq;
    uint64_t first_index;
};

/* Without the padding. */
uint64_t record_snapshot_bytes(const struct wal_snapshot *snapshot);

static inline uint64_t record_padded(uint64_t bytes)
{
    return (bytes + RECORD_ALIGN - 1) & ~(uint64_t)(RECORD_ALIGN - 1);
}

/* The record at the front of `bytes` if it is whole and continues crc. */
bool record_parse(struct span bytes, uint32_t crc, struct record *ret_record);

/* The batch header at the front of `bytes` if it is one, by its own crc_before. */
bool record_parse_batch(struct span bytes, struct record_batch *ret_batch, uint32_t *ret_crc);

/* Payloads of whole records; false where they make no sense, which a right crc excludes but for our own bugs. */
bool record_decode_segment(struct span payload, struct record_segment *ret_segment);
/* Any of the kinds that readers of the log see. The record's spans point into payload. */
bool record_decode(const struct record *record, struct wal_record *ret_record);

/* Each writes one record at `at`, padding included, and returns the byte after it; *crc is continued. */
uint8_t *record_put_batch(uint8_t *at, const struct record_batch *batch, uint32_t *crc);
uint8_t *record_put_segment(uint8_t *at, const struct record_segment *segment, uint32_t *crc);
uint8_t *record_put_base(uint8_t *at, const struct wal_base *base, uint32_t *crc);
uint8_t *record_put_hard_state(uint8_t *at, const struct wal_hard_state *hard, uint32_t *crc);
uint8_t *record_put_cut(uint8_t *at, uint64_t index, uint32_t *crc);
uint8_t *record_put_snapshot(uint8_t *at, const struct wal_snapshot *snapshot, uint32_t *crc);

/* An entry's record up to its data, RECORD_ENTRY_BYTES of it: the data and the padding follow from wherever they
 * lie, but the crc has seen the data. */
uint8_t *record_put_entry_head(uint8_t *at, const struct wal_entry *entry, uint32_t *crc);
