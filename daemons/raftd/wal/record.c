#include "daemons/raftd/wal/record.h"

#include <assert.h>
#include <endian.h>

#include "common/crc32c.h"

static_assert(RECORD_BATCH_BYTES == 48, "the format on disk is fixed");
static_assert(RECORD_BASE_BYTES == 56, "the format on disk is fixed");
static_assert(RECORD_HARD_STATE_BYTES == 40, "the format on disk is fixed");
static_assert(RECORD_ENTRY_BYTES == 40, "the format on disk is fixed");

enum {
    BASE_FLAG_RESET = 1,
    SNAPSHOT_FLAG_BASE = 1,
    CRC_AT = 8,      /* of the crc within a header */
    CRC_COVERED = 8, /* bytes of the header before the crc */
};

static uint32_t get_u32(const uint8_t **at)
{
    uint32_t value;
    memcpy(&value, *at, sizeof(value));
    *at += sizeof(value);
    return le32toh(value);
}

static uint64_t get_u64(const uint8_t **at)
{
    uint64_t value;
    memcpy(&value, *at, sizeof(value));
    *at += sizeof(value);
    return le64toh(value);
}

static uint8_t *put_u32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

static uint8_t *put_u64(uint8_t *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

static uint8_t *put_span(uint8_t *at, struct span span)
{
    if (span.bytes > 0) {
        memcpy(at, span.data, span.bytes);
    }
    return at + span.bytes;
}

/* ---- Parsing -------------------------------------------------------------------------------------------------- */

static bool padding_is_zero(const uint8_t *at, const uint8_t *end)
{
    while (at < end) {
        if (*at++ != 0) {
            return false;
        }
    }
    return true;
}

bool record_parse(struct span bytes, uint32_t crc, struct record *ret_record)
{
    if (bytes.bytes < RECORD_HEADER_BYTES) {
        return false;
    }
    const uint8_t *at = bytes.data;
    uint32_t payload_bytes = get_u32(&at);
    uint32_t type = get_u32(&at);
    uint32_t crc_stored = get_u32(&at);
    uint64_t total_bytes = record_padded((uint64_t)RECORD_HEADER_BYTES + payload_bytes);

    if (type == 0 || total_bytes > bytes.bytes) {
        return false;
    }
    crc = crc32c(crc, bytes.data, CRC_COVERED);
    crc = crc32c(crc, at, payload_bytes);
    if (crc != crc_stored || !padding_is_zero(at + payload_bytes, bytes.data + total_bytes)) {
        return false;
    }
    *ret_record = (struct record){
        .type = type,
        .crc = crc,
        .payload = span_of(at, payload_bytes),
        .total_bytes = total_bytes,
    };
    return true;
}

bool record_parse_batch(struct span bytes, struct record_batch *ret_batch, uint32_t *ret_crc)
{
    if (bytes.bytes < RECORD_BATCH_BYTES) {
        return false;
    }
    const uint8_t *at = bytes.data;
    if (get_u32(&at) != RECORD_BATCH_BYTES - RECORD_HEADER_BYTES || get_u32(&at) != RECORD_BATCH) {
        return false; /* the cheap test first: a scan asks at every eighth byte */
    }
    at += sizeof(uint32_t);
    struct record_batch batch = { .crc_before = get_u32(&at) };
    batch.count = get_u32(&at);
    batch.batch_bytes = get_u32(&at);
    batch.salt = get_u64(&at);
    batch.offset = get_u64(&at);
    batch.synced = get_u64(&at);

    struct record record;
    if (!record_parse(span_of(bytes.data, RECORD_BATCH_BYTES), batch.crc_before, &record)) {
        return false;
    }
    *ret_batch = batch;
    *ret_crc = record.crc;
    return true;
}

bool record_decode_segment(struct span payload, struct record_segment *ret_segment)
{
    if (payload.bytes != RECORD_SEGMENT_BYTES - RECORD_HEADER_BYTES) {
        return false;
    }
    const uint8_t *at = payload.data;
    ret_segment->version = get_u32(&at);
    ret_segment->seq = get_u64(&at);
    ret_segment->first_index = get_u64(&at);
    return true;
}

static bool decode_base(struct span payload, struct wal_base *ret_base)
{
    size_t fixed_bytes = RECORD_BASE_BYTES - RECORD_HEADER_BYTES;
    if (payload.bytes < fixed_bytes) {
        return false;
    }
    const uint8_t *at = payload.data;
    uint32_t flags = get_u32(&at);
    ret_base->reset = (flags & BASE_FLAG_RESET) != 0;
    ret_base->index = get_u64(&at);
    ret_base->term = get_u64(&at);
    ret_base->cluster_time_ns = get_u64(&at);
    ret_base->cluster_id = get_u64(&at);
    ret_base->member_id = get_u64(&at);
    ret_base->configuration = span_from(payload, fixed_bytes);
    return (flags & ~(uint32_t)BASE_FLAG_RESET) == 0;
}

static bool decode_entry(struct span payload, struct wal_entry *ret_entry)
{
    size_t fixed_bytes = RECORD_ENTRY_BYTES - RECORD_HEADER_BYTES;
    if (payload.bytes < fixed_bytes) {
        return false;
    }
    const uint8_t *at = payload.data;
    uint32_t kind = get_u32(&at);
    ret_entry->kind = (uint8_t)kind;
    ret_entry->index = get_u64(&at);
    ret_entry->term = get_u64(&at);
    ret_entry->time_ns = get_u64(&at);
    ret_entry->data = span_from(payload, fixed_bytes);
    return kind <= UINT8_MAX;
}

static bool decode_snapshot(struct span payload, struct wal_snapshot *ret_snapshot)
{
    size_t short_bytes = RECORD_SNAPSHOT_BYTES - RECORD_HEADER_BYTES;
    size_t base_bytes = RECORD_SNAPSHOT_BASE_BYTES - RECORD_HEADER_BYTES;
    if (payload.bytes < short_bytes) {
        return false;
    }
    const uint8_t *at = payload.data;
    uint32_t flags = get_u32(&at);
    *ret_snapshot = (struct wal_snapshot){ .is_base = flags == SNAPSHOT_FLAG_BASE };
    ret_snapshot->index = get_u64(&at);
    ret_snapshot->term = get_u64(&at);
    if (!ret_snapshot->is_base) {
        return flags == 0 && payload.bytes == short_bytes;
    }
    if (payload.bytes < base_bytes) {
        return false;
    }
    ret_snapshot->cluster_time_ns = get_u64(&at);
    ret_snapshot->configuration = span_from(payload, base_bytes);
    return true;
}

/* HARD_STATE and CUT: a zero and so many numbers. */
static bool decode_numbers(struct span payload, uint64_t *ret_numbers, size_t number_count)
{
    const uint8_t *at = payload.data;
    if (payload.bytes != sizeof(uint32_t) + number_count * sizeof(uint64_t) || get_u32(&at) != 0) {
        return false;
    }
    for (size_t i = 0; i < number_count; i++) {
        ret_numbers[i] = get_u64(&at);
    }
    return true;
}

bool record_decode(const struct record *record, struct wal_record *ret_record)
{
    uint64_t numbers[3];
    switch (record->type) {
    case RECORD_BASE:
        ret_record->kind = WAL_RECORD_BASE;
        return decode_base(record->payload, &ret_record->base);
    case RECORD_ENTRY:
        ret_record->kind = WAL_RECORD_ENTRY;
        return decode_entry(record->payload, &ret_record->entry);
    case RECORD_HARD_STATE:
        if (!decode_numbers(record->payload, numbers, 3)) {
            return false;
        }
        ret_record->kind = WAL_RECORD_HARD_STATE;
        ret_record->hard = (struct wal_hard_state){ numbers[0], numbers[1], numbers[2] };
        return true;
    case RECORD_CUT:
        ret_record->kind = WAL_RECORD_CUT;
        return decode_numbers(record->payload, &ret_record->cut_index, 1);
    case RECORD_SNAPSHOT:
        ret_record->kind = WAL_RECORD_SNAPSHOT;
        return decode_snapshot(record->payload, &ret_record->snapshot);
    default:
        return false;
    }
}

/* ---- Encoding ------------------------------------------------------------------------------------------------- */

static uint8_t *begin(uint8_t *record, enum record_type type, size_t payload_bytes)
{
    INVARIANT_LE(payload_bytes, UINT32_MAX);
    uint8_t *at = put_u32(record, (uint32_t)payload_bytes);
    at = put_u32(at, (uint32_t)type);
    return put_u32(at, 0); /* the crc, by seal */
}

/* The payload's first part lies behind the header at `record`, the rest (of an entry) elsewhere. */
static void seal(uint8_t *record, size_t bytes_here, struct span rest, uint32_t *crc)
{
    *crc = crc32c(*crc, record, CRC_COVERED);
    *crc = crc32c(*crc, record + RECORD_HEADER_BYTES, bytes_here - RECORD_HEADER_BYTES);
    if (rest.bytes > 0) {
        *crc = crc32c(*crc, rest.data, rest.bytes);
    }
    (void)put_u32(record + CRC_AT, *crc);
}

static uint8_t *pad(uint8_t *record, uint8_t *at)
{
    size_t bytes = (size_t)(at - record);
    size_t padded = record_padded(bytes);
    memset(at, 0, padded - bytes);
    return record + padded;
}

static uint8_t *finish(uint8_t *record, uint8_t *at, uint32_t *crc)
{
    seal(record, (size_t)(at - record), SPAN_NONE, crc);
    return pad(record, at);
}

uint8_t *record_put_batch(uint8_t *at, const struct record_batch *batch, uint32_t *crc)
{
    uint8_t *record = at;
    INVARIANT_EQ(batch->crc_before, *crc);
    at = begin(record, RECORD_BATCH, RECORD_BATCH_BYTES - RECORD_HEADER_BYTES);
    at = put_u32(at, batch->crc_before);
    at = put_u32(at, batch->count);
    at = put_u32(at, batch->batch_bytes);
    at = put_u64(at, batch->salt);
    at = put_u64(at, batch->offset);
    at = put_u64(at, batch->synced);
    return finish(record, at, crc);
}

uint8_t *record_put_segment(uint8_t *at, const struct record_segment *segment, uint32_t *crc)
{
    uint8_t *record = at;
    at = begin(record, RECORD_SEGMENT, RECORD_SEGMENT_BYTES - RECORD_HEADER_BYTES);
    at = put_u32(at, segment->version);
    at = put_u64(at, segment->seq);
    at = put_u64(at, segment->first_index);
    return finish(record, at, crc);
}

uint8_t *record_put_base(uint8_t *at, const struct wal_base *base, uint32_t *crc)
{
    uint8_t *record = at;
    size_t payload_bytes = RECORD_BASE_BYTES - RECORD_HEADER_BYTES + base->configuration.bytes;
    at = begin(record, RECORD_BASE, payload_bytes);
    at = put_u32(at, base->reset ? BASE_FLAG_RESET : 0);
    at = put_u64(at, base->index);
    at = put_u64(at, base->term);
    at = put_u64(at, base->cluster_time_ns);
    at = put_u64(at, base->cluster_id);
    at = put_u64(at, base->member_id);
    at = put_span(at, base->configuration);
    return finish(record, at, crc);
}

static uint8_t *put_numbers(uint8_t *record, enum record_type type, const uint64_t *numbers,
        size_t number_count, uint32_t *crc)
{
    uint8_t *at = begin(record, type, sizeof(uint32_t) + number_count * sizeof(uint64_t));
    at = put_u32(at, 0);
    for (size_t i = 0; i < number_count; i++) {
        at = put_u64(at, numbers[i]);
    }
    return finish(record, at, crc);
}

uint8_t *record_put_hard_state(uint8_t *at, const struct wal_hard_state *hard, uint32_t *crc)
{
    uint64_t numbers[] = { hard->term, hard->vote, hard->commit };
    return put_numbers(at, RECORD_HARD_STATE, numbers, ARRAY_COUNT(numbers), crc);
}

uint8_t *record_put_cut(uint8_t *at, uint64_t index, uint32_t *crc)
{
    return put_numbers(at, RECORD_CUT, &index, 1, crc);
}

uint64_t record_snapshot_bytes(const struct wal_snapshot *snapshot)
{
    return snapshot->is_base ? RECORD_SNAPSHOT_BASE_BYTES + snapshot->configuration.bytes
                             : RECORD_SNAPSHOT_BYTES;
}

uint8_t *record_put_snapshot(uint8_t *at, const struct wal_snapshot *snapshot, uint32_t *crc)
{
    uint8_t *record = at;
    at = begin(record, RECORD_SNAPSHOT, record_snapshot_bytes(snapshot) - RECORD_HEADER_BYTES);
    at = put_u32(at, snapshot->is_base ? SNAPSHOT_FLAG_BASE : 0);
    at = put_u64(at, snapshot->index);
    at = put_u64(at, snapshot->term);
    if (snapshot->is_base) {
        at = put_u64(at, snapshot->cluster_time_ns);
        at = put_span(at, snapshot->configuration);
    }
    return finish(record, at, crc);
}

uint8_t *record_put_entry_head(uint8_t *at, const struct wal_entry *entry, uint32_t *crc)
{
    uint8_t *record = at;
    at = begin(record, RECORD_ENTRY, RECORD_ENTRY_BYTES - RECORD_HEADER_BYTES + entry->data.bytes);
    at = put_u32(at, entry->kind);
    at = put_u64(at, entry->index);
    at = put_u64(at, entry->term);
    at = put_u64(at, entry->time_ns);
    seal(record, RECORD_ENTRY_BYTES, entry->data, crc);
    return at;
}
