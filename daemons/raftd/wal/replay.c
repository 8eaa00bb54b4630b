/* replay.c: reading mode: an existing log's records in order, from where they matter to the last whole one. */
#include <errno.h>

#include "daemons/raftd/wal/internal.h"

static int damaged(const char *name, uint64_t offset, const char *what, struct err *err)
{
    return err_set(err, -EBADMSG, "%s is damaged at offset %" PRIu64 ": %s", name, offset, what);
}

/* ---- One segment ---------------------------------------------------------------------------------------------- */

/* The head was synced before the file got its name, so it is whole or the disk has lost it. */
static int check_head(const struct segment *segment, const char *name, struct reader_batch *batch,
        struct err *err)
{
    struct record record;
    struct record_segment head;
    uint64_t offset;

    if (!reader_next_record(batch, &record, &offset) || record.type != RECORD_SEGMENT ||
            !record_decode_segment(record.payload, &head)) {
        return damaged(name, RECORD_BATCH_BYTES, "no segment record", err);
    }
    if (head.version != RECORD_VERSION) {
        return err_set(err, -ENOTSUP, "%s has format version %" PRIu32 ", this program reads %d",
                name, head.version, RECORD_VERSION);
    }
    if (head.seq != segment->name.seq || head.first_index != segment->name.first_index) {
        return damaged(
                name, RECORD_BATCH_BYTES, "its name does not agree with its first record", err);
    }
    return 0;
}

int replay_open_segment(struct wal *wal, const struct segment *segment, struct reader *reader,
        struct reader_batch *ret_batch, struct err *err)
{
    TRY(reader_init(reader, wal->io, wal->dir_fd, &segment->name, err));
    int r = reader_next_batch(reader, ret_batch, err);
    if (r == 0) {
        r = damaged(reader->name, 0, "no whole batch at its beginning", err);
    } else if (r > 0) {
        r = check_head(segment, reader->name, ret_batch, err);
    }
    if (r < 0) {
        reader_fini(reader);
    }
    return r;
}

/* ---- From segment to segment ---------------------------------------------------------------------------------- */

static int begin_segment(struct wal *wal, struct err *err)
{
    struct segment *segment = &wal->segments[wal->reading];
    bool is_first = wal->reading == wal->reading_first;
    uint32_t crc_before = wal->crc;
    uint64_t end_before = wal->end;

    TRY(replay_open_segment(wal, segment, &wal->reader, &wal->batch, err));
    wal->is_in_batch = wal->is_head = true;
    segment->salt = wal->batch.header.salt;
    segment->crc_before = wal->batch.header.crc_before;
    segment->is_scanned = true;
    if (is_first) {
        wal->last_index = wal->reach = segment->name.first_index - 1;
        return 0;
    }
    char name_before[NAMES_SEGMENT_BYTES];
    names_format(&wal->segments[wal->reading - 1].name, name_before);
    if (segment->crc_before != crc_before) {
        return damaged(
                name_before, end_before, "the next segment continues from other records", err);
    }
    if (segment->name.first_index != wal->last_index + 1) {
        return damaged(name_before, end_before, "the next segment begins with another index", err);
    }
    return 0;
}

/* 1: the next batch is there; 0: there is none. */
static int next_batch(struct wal *wal, struct err *err)
{
    if (wal->reader.fd < 0) {
        TRY(begin_segment(wal, err));
        return 1;
    }
    int r = reader_next_batch(&wal->reader, &wal->batch, err);
    TRY(r);
    wal->is_in_batch = r > 0;
    wal->is_head = false;
    if (r > 0) {
        return 1;
    }
    wal->end = wal->reader.offset;
    wal->crc = wal->reader.crc;
    bool is_last = wal->reading + 1 == wal->segment_count;
    if (is_last) {
        TRY(reader_check_tail(&wal->reader, &wal->torn_bytes, err));
        reader_fini(&wal->reader);
        return 0;
    }
    reader_fini(&wal->reader);
    wal->reading++;
    TRY(begin_segment(wal, err));
    return 1;
}

/* ---- Records -------------------------------------------------------------------------------------------------- */

bool replay_is_sound(const struct wal_record *record, uint64_t last_index, uint64_t base_index)
{
    switch (record->kind) {
    case WAL_RECORD_BASE:
        return record->base.reset || record->base.index <= last_index;
    case WAL_RECORD_CUT:
        return record->cut_index >= base_index || record->cut_index >= last_index;
    case WAL_RECORD_ENTRY:
        return record->entry.index == last_index + 1;
    case WAL_RECORD_HARD_STATE:
    case WAL_RECORD_SNAPSHOT:
        return true;
    }
    return false;
}

/* ---- What the log can begin behind ---------------------------------------------------------------------------- */

void replay_drop_footings(struct wal *wal)
{
    for (size_t i = 0; i < wal->footing_count; i++) {
        buf_fini(&wal->footings[i].configuration);
    }
    free(wal->footings);
    wal->footings = NULL;
    wal->footing_count = 0;
}

static void note_footing(struct wal *wal, const struct wal_snapshot *snapshot)
{
    size_t kept = 0;
    for (size_t i = 0; i < wal->footing_count; i++) {
        if (wal->footings[i].snapshot.index < wal->base.index) {
            buf_fini(&wal->footings[i].configuration);
        } else {
            wal->footings[kept++] = wal->footings[i];
        }
    }
    wal->footing_count = kept;
    if (!snapshot->is_base) {
        return;
    }
    wal->footings = xrealloc(wal->footings, (wal->footing_count + 1) * sizeof(wal->footings[0]));
    struct footing *footing = &wal->footings[wal->footing_count++];
    *footing = (struct footing){ .snapshot = *snapshot };
    buf_append_span(&footing->configuration, snapshot->configuration);
    footing->snapshot.configuration = buf_span(&footing->configuration);
}

/* The oldest with all entries behind it; NULL if none. */
static const struct footing *find_footing(const struct wal *wal)
{
    const struct footing *found = NULL;
    for (size_t i = 0; i < wal->footing_count; i++) {
        const struct footing *footing = &wal->footings[i];
        uint64_t index = footing->snapshot.index;
        bool is_fit = index >= wal->reach && index >= wal->base.index && index <= wal->last_index;
        if (is_fit && (found == NULL || index < found->snapshot.index)) {
            found = footing;
        }
    }
    return found;
}

/* All was read. 0 if the log has what its base needs; 1 if it lacks the beginning of that, and ret_record is the base
 * that it can stand on instead. */
static int find_base(const struct wal *wal, struct wal_record *ret_record, struct err *err)
{
    if (wal->reach <= wal->base.index) {
        return 0;
    }
    const struct footing *footing = find_footing(wal);
    if (footing == NULL) {
        uint64_t newest =
                wal->snapshot.is_base ? MAX(wal->base.index, wal->snapshot.index) : wal->base.index;
        char name[NAMES_SEGMENT_BYTES];
        names_format(&wal->segments[wal->reading_first].name, name);
        return err_set(err, -ENODATA,
                "the log begins with %s, but entries from %" PRIu64 " on are needed", name,
                newest + 1);
    }
    ret_record->kind = WAL_RECORD_BASE;
    ret_record->base = wal->base;
    ret_record->base.reset = false;
    ret_record->base.index = footing->snapshot.index;
    ret_record->base.term = footing->snapshot.term;
    ret_record->base.cluster_time_ns = footing->snapshot.cluster_time_ns;
    ret_record->base.configuration = footing->snapshot.configuration;
    return 1;
}

/* ---- The state of the log ------------------------------------------------------------------------------------- */

static void apply(struct wal *wal, const struct wal_record *record, uint64_t offset)
{
    uint64_t seq = wal->segments[wal->reading].name.seq;
    switch (record->kind) {
    case WAL_RECORD_BASE:
        wal_set_base(wal, &record->base);
        if (record->base.reset) {
            wal->last_index = wal->reach = record->base.index;
            points_reset(&wal->points);
            wal->void_before_seq = seq;
        }
        break;
    case WAL_RECORD_HARD_STATE:
        wal->hard = record->hard;
        break;
    case WAL_RECORD_CUT:
        if (record->cut_index < wal->last_index) {
            wal->last_index = record->cut_index;
            wal->reach = MIN(wal->reach, record->cut_index);
            points_cut(&wal->points, record->cut_index);
        }
        break;
    case WAL_RECORD_ENTRY:
        wal->last_index = record->entry.index;
        points_note(&wal->points, record->entry.index, seq, wal->batch.header.offset, offset);
        break;
    case WAL_RECORD_SNAPSHOT:
        wal_set_snapshot(wal, &record->snapshot);
        note_footing(wal, &record->snapshot);
        break;
    }
}

/* A later segment's head repeats what the log amounts to; it has to agree with what was read. */
static bool head_agrees(const struct wal *wal, const struct wal_record *record)
{
    switch (record->kind) {
    case WAL_RECORD_BASE:
        return record->base.index == wal->base.index && record->base.term == wal->base.term &&
               record->base.cluster_id == wal->base.cluster_id &&
               record->base.member_id == wal->base.member_id &&
               span_eq(record->base.configuration, wal->base.configuration);
    case WAL_RECORD_HARD_STATE:
        return record->hard.term == wal->hard.term && record->hard.vote == wal->hard.vote &&
               record->hard.commit == wal->hard.commit;
    case WAL_RECORD_SNAPSHOT:
        return wal->has_snapshot && record->snapshot.index == wal->snapshot.index &&
               record->snapshot.term == wal->snapshot.term;
    case WAL_RECORD_CUT:
    case WAL_RECORD_ENTRY:
        return false;
    }
    return false;
}

/* 1: for the caller to see, 0: not. */
static int take_record(struct wal *wal, const struct record *record, uint64_t offset,
        struct wal_record *ret_record, struct err *err)
{
    if (!record_decode(record, ret_record)) {
        return damaged(wal->reader.name, offset, "a record of unknown type or form", err);
    }
    bool is_repeated = wal->is_head && wal->reading != wal->reading_first;
    if (is_repeated) {
        return head_agrees(wal, ret_record)
                       ? 0
                       : damaged(wal->reader.name, offset,
                                 "it does not continue the segment before it", err);
    }
    /* The first head's base stands before all that is read: nothing to be checked against. */
    uint64_t base_index = wal->is_head ? 0 : wal->base.index;
    if (!replay_is_sound(ret_record, wal->last_index, base_index)) {
        return damaged(wal->reader.name, offset, "a record that does not continue the log", err);
    }
    apply(wal, ret_record, offset);
    return 1;
}

/* The last record was read. What the log stands on in its files stays what it was, though it be missing: the next
 * base that is written lies behind it. */
static void finish(struct wal *wal)
{
    replay_drop_footings(wal);
    wal->base_index_synced = wal->base.index;
    wal->purge_index_max = wal->base.index + 1;
    wal->end_shared = wal->end;
    wal->mode = WAL_MODE_READ;
}

int wal_read(struct wal *wal, struct wal_record *ret_record, struct err *err)
{
    INVARIANT(wal->mode == WAL_MODE_READING);
    TRY(wal_check_failed(wal, err));
    int r = 0;
    while (r == 0 && !wal->is_at_end) {
        struct record record;
        uint64_t offset;
        if (wal->is_in_batch && reader_next_record(&wal->batch, &record, &offset)) {
            r = take_record(wal, &record, offset, ret_record, err);
            continue;
        }
        r = next_batch(wal, err);
        wal->is_at_end = r == 0;
        if (r > 0) {
            r = 0;
        } else if (r == 0) {
            r = find_base(wal, ret_record, err);
        }
    }
    if (r < 0) {
        return wal_fail(wal, err, r);
    }
    if (r == 0) {
        finish(wal);
    }
    return r;
}
