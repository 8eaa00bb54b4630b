/* append.c: appending mode: writes become a batch, a batch one write(2).
 *
 * Small data is copied beside its record's header, for the kernel walks a long vector more slowly than we copy;
 * large data is referred to. Behind a batch that reaches fresh blocks the file is written ahead with zeros: a block
 * that was only allocated costs its first sync a turn of the file system's journal, and so one sync in many
 * batches pays for it instead of each (batches of 20 KB on ext4: 113 us against 195). */
#include <errno.h>
#include <unistd.h>

#include "daemons/raftd/wal/internal.h"

enum {
    COPIED_BYTES_MAX = 4096, /* data up to here is copied */
    AHEAD_BYTES = 512 << 10, /* written ahead at once */
    ZEROS_BYTES = 64 << 10,  /* of zeros in memory */
    STAGING_BYTES_KEPT = 8 << 20,
};
#define BATCH_BYTES_MAX (UINT64_C(1) << 30)

static const uint8_t zeros[ZEROS_BYTES];

/* What a batch will take. */
struct plan {
    uint64_t batch_bytes;
    uint64_t staged_bytes;
    uint32_t record_count;
    bool has_entries;
    bool is_gap; /* the entries do not continue the log */
    uint64_t last_index;
};

/* ---- Planning ------------------------------------------------------------------------------------------------- */

static void plan_record(struct plan *plan, uint64_t bytes)
{
    plan->batch_bytes += record_padded(bytes);
    plan->staged_bytes += record_padded(bytes);
    plan->record_count++;
}

static void plan_entries(struct plan *plan, const struct wal_write *write)
{
    for (size_t i = 0; i < write->entry_count; i++) {
        const struct wal_entry *entry = &write->entries[i];
        plan->is_gap |= entry->index != plan->last_index + 1;
        plan->last_index = entry->index;
        plan_record(plan, RECORD_ENTRY_BYTES + entry->data.bytes);
        if (entry->data.bytes > COPIED_BYTES_MAX) {
            plan->staged_bytes -= entry->data.bytes;
        }
    }
    plan->has_entries |= write->entry_count > 0;
}

static void plan_write(const struct wal *wal, struct plan *plan, const struct wal_write *write)
{
    if (write->base != NULL) {
        INVARIANT_LE(write->base->configuration.bytes, WAL_CONFIG_BYTES_MAX);
        INVARIANT(write->base->reset || write->base->index <= plan->last_index);
        INVARIANT_LE(wal->base.index, write->base->index);
        plan->last_index = write->base->reset ? write->base->index : plan->last_index;
        plan_record(plan, RECORD_BASE_BYTES + write->base->configuration.bytes);
    }
    if (write->hard != NULL) {
        INVARIANT_LE(wal->hard.term, write->hard->term);
        INVARIANT(wal->hard.term < write->hard->term || wal->hard.vote == 0 ||
                  wal->hard.vote == write->hard->vote); /* no vote is taken back */
        plan_record(plan, RECORD_HARD_STATE_BYTES);
    }
    if (write->has_cut) {
        INVARIANT(write->base != NULL || write->cut_index >= wal->base.index);
        plan->last_index = MIN(plan->last_index, write->cut_index);
        plan_record(plan, RECORD_CUT_BYTES);
    }
    plan_entries(plan, write);
    if (write->snapshot != NULL) {
        INVARIANT_LE(write->snapshot->configuration.bytes, WAL_CONFIG_BYTES_MAX);
        plan_record(plan, record_snapshot_bytes(write->snapshot));
    }
}

static struct plan make_plan(const struct wal *wal, const struct wal_write *writes, size_t count)
{
    struct plan plan = {
        .batch_bytes = RECORD_BATCH_BYTES,
        .staged_bytes = RECORD_BATCH_BYTES,
        .last_index = wal->last_index,
    };
    for (size_t i = 0; i < count; i++) {
        plan_write(wal, &plan, &writes[i]);
    }
    INVARIANT_LE(plan.batch_bytes, BATCH_BYTES_MAX);
    return plan;
}

/* ---- Encoding ------------------------------------------------------------------------------------------------- */

struct encoder {
    struct buf *parts;
    uint8_t *at;
    uint8_t *part; /* where the part that is being filled begins */
    uint32_t crc;
};

static void end_part(struct encoder *encoder)
{
    if (encoder->at > encoder->part) {
        struct iovec part = { encoder->part, (size_t)(encoder->at - encoder->part) };
        buf_append(encoder->parts, &part, sizeof(part));
        encoder->part = encoder->at;
    }
}

static void encode_entry(struct encoder *encoder, const struct wal_entry *entry)
{
    struct span data = entry->data;
    size_t padding = (size_t)(record_padded(RECORD_ENTRY_BYTES + data.bytes) -
                              (RECORD_ENTRY_BYTES + data.bytes));

    encoder->at = record_put_entry_head(encoder->at, entry, &encoder->crc);
    if (data.bytes > COPIED_BYTES_MAX) {
        end_part(encoder);
        /* iovec has no const; the kernel only reads it. */
        struct iovec part = { (void *)(uintptr_t)data.data, data.bytes };
        buf_append(encoder->parts, &part, sizeof(part));
    } else if (data.bytes > 0) {
        memcpy(encoder->at, data.data, data.bytes);
        encoder->at += data.bytes;
    }
    memset(encoder->at, 0, padding);
    encoder->at += padding;
}

static void encode_write(struct encoder *encoder, const struct wal_write *write)
{
    if (write->base != NULL) {
        encoder->at = record_put_base(encoder->at, write->base, &encoder->crc);
    }
    if (write->hard != NULL) {
        encoder->at = record_put_hard_state(encoder->at, write->hard, &encoder->crc);
    }
    if (write->has_cut) {
        encoder->at = record_put_cut(encoder->at, write->cut_index, &encoder->crc);
    }
    for (size_t i = 0; i < write->entry_count; i++) {
        encode_entry(encoder, &write->entries[i]);
    }
    if (write->snapshot != NULL) {
        encoder->at = record_put_snapshot(encoder->at, write->snapshot, &encoder->crc);
    }
}

static uint32_t encode_batch(
        struct wal *wal, const struct plan *plan, const struct wal_write *writes, size_t count)
{
    struct record_batch header = {
        .crc_before = wal->crc,
        .count = plan->record_count,
        .batch_bytes = (uint32_t)plan->batch_bytes,
        .salt = wal_last_segment(wal).salt,
        .offset = wal->end,
        .synced = wal_synced(wal),
    };
    buf_clear(&wal->parts);
    buf_clear(&wal->staging);
    uint8_t *staging = buf_reserve(&wal->staging, plan->staged_bytes);
    struct encoder encoder = {
        .parts = &wal->parts,
        .at = staging,
        .part = staging,
        .crc = wal->crc,
    };
    encoder.at = record_put_batch(encoder.at, &header, &encoder.crc);
    for (size_t i = 0; i < count; i++) {
        encode_write(&encoder, &writes[i]);
    }
    end_part(&encoder);
    INVARIANT_EQ(encoder.at - staging, plan->staged_bytes);
    return encoder.crc;
}

/* ---- The next segment ----------------------------------------------------------------------------------------- */

static int begin_next_segment(struct wal *wal, struct wal_file *file, struct err *err)
{
    struct segment last = wal_last_segment(wal);
    struct segment next = {
        .name = { .seq = last.name.seq + 1, .first_index = wal->last_index + 1 },
        .file_bytes = file->capacity,
        .is_scanned = true,
    };
    char name[NAMES_SEGMENT_BYTES];
    uint64_t end;
    uint32_t crc;

    names_format(&next.name, name);
    sync_await_none(wal);    /* theirs is the file that is closed below */
    TRY(wal_sync(wal, err)); /* a segment that has a successor is whole */
    TRY(file_write_head(wal, file->fd, wal->crc, &next, &end, &crc, err));
    int r = file_sync(wal, name, file->fd, err);
    if (r < 0) {
        return wal_fail(wal, err, r);
    }
    if (wal->io->rename(wal->io->user, wal->dir_fd, NAMES_SPARE, name) < 0) {
        return is_no_space(-errno) ? err_set(err, -ENOSPC, "no space for %s", name)
                                   : err_errno(err, "rename %s to %s", NAMES_SPARE, name);
    }
    r = file_sync_dir(wal, err);
    if (r < 0) {
        return wal_fail(wal, err, r); /* the name may be there or not: no way back */
    }
    sync_close_files(wal);
    file_close(wal, &wal->file);
    wal->file = *file;
    *file = (struct wal_file){ .fd = -1 };
    wal->end = wal->zeroed = end;
    wal_set_synced(wal, end);
    wal->crc = crc;
    wal_add_segment(wal, &next);
    return 0;
}

/* The next batch goes into a new segment. -ENOSPC: nothing has changed (a final error never has that code). */
static int roll(struct wal *wal, uint64_t bytes, struct err *err)
{
    struct wal_file file = { .fd = -1 };
    TRY(spare_take(wal, record_padded(file_head_bytes(wal) + bytes), &file, err));
    int r = begin_next_segment(wal, &file, err);
    if (r < 0) {
        file_close(wal, &file);
        (void)wal->io->unlink(wal->io->user, wal->dir_fd, NAMES_SPARE);
    }
    spare_release(wal);
    return r;
}

/* Makes room for a batch. Only batches with entries must leave the reserve alone. */
static int make_room(struct wal *wal, const struct plan *plan, struct err *err)
{
    uint64_t left = wal->file.capacity - wal->end;
    uint64_t with_reserve = plan->batch_bytes + wal->reserve_bytes;
    if (with_reserve <= left) {
        return 0;
    }
    int r = roll(wal, with_reserve, err);
    bool fits_reserve = r == -ENOSPC && !plan->has_entries && plan->batch_bytes <= left;
    return fits_reserve ? 0 : r;
}

/* ---- Appending ------------------------------------------------------------------------------------------------ */

static void note_entries(struct wal *wal, const struct wal_write *write, uint64_t seq,
        uint64_t batch_offset, uint64_t *offset)
{
    for (size_t i = 0; i < write->entry_count; i++) {
        points_note(&wal->points, write->entries[i].index, seq, batch_offset, *offset);
        *offset += record_padded(RECORD_ENTRY_BYTES + write->entries[i].data.bytes);
    }
    if (write->entry_count > 0) {
        wal->last_index = write->entries[write->entry_count - 1].index;
    }
}

/* What was written at *offset now counts. Under mutex. */
static void apply_write(struct wal *wal, const struct wal_write *write, uint64_t seq,
        uint64_t batch_offset, uint64_t *offset)
{
    if (write->base != NULL) {
        wal_set_base(wal, write->base);
        *offset += record_padded(RECORD_BASE_BYTES + write->base->configuration.bytes);
        if (write->base->reset) {
            wal->last_index = write->base->index;
            wal->void_before_seq = seq;
            points_reset(&wal->points);
        }
    }
    if (write->hard != NULL) {
        wal->hard = *write->hard;
        *offset += RECORD_HARD_STATE_BYTES;
    }
    if (write->has_cut) {
        *offset += record_padded(RECORD_CUT_BYTES);
        if (write->cut_index < wal->last_index) {
            wal->last_index = write->cut_index;
            points_cut(&wal->points, write->cut_index);
        }
    }
    note_entries(wal, write, seq, batch_offset, offset);
    if (write->snapshot != NULL) {
        wal_set_snapshot(wal, write->snapshot);
        *offset += record_padded(record_snapshot_bytes(write->snapshot));
    }
}

static void apply_batch(struct wal *wal, const struct plan *plan, const struct wal_write *writes,
        size_t count, uint32_t crc)
{
    uint64_t batch_offset = wal->end;
    uint64_t offset = batch_offset + RECORD_BATCH_BYTES;

    (void)pthread_mutex_lock(&wal->mutex);
    uint64_t seq = wal->segments[wal->segment_count - 1].name.seq;
    for (size_t i = 0; i < count; i++) {
        apply_write(wal, &writes[i], seq, batch_offset, &offset);
    }
    wal->end += plan->batch_bytes;
    wal->end_shared = wal->end;
    (void)pthread_mutex_unlock(&wal->mutex);
    INVARIANT_EQ(offset, wal->end);
    INVARIANT_EQ(wal->last_index, plan->last_index);
    wal->crc = crc;
    wal->is_marked = false;
    wal->is_refusing = wal->is_refusing && !plan->has_entries;
}

/* Once the batch has reached fresh blocks, the next ones too. */
static int write_ahead(struct wal *wal, const char *name, struct err *err)
{
    if (!wal->file.is_allocated || wal->end <= wal->zeroed) {
        return 0;
    }
    uint64_t bytes = MIN((uint64_t)AHEAD_BYTES, wal->file.capacity - wal->end);
    struct iovec parts[AHEAD_BYTES / ZEROS_BYTES];
    size_t part_count = 0;
    for (uint64_t left = bytes; left > 0; part_count++) {
        size_t part_bytes = (size_t)MIN(left, (uint64_t)ZEROS_BYTES);
        parts[part_count] = (struct iovec){ (void *)(uintptr_t)zeros, part_bytes };
        left -= part_bytes;
    }
    int r = file_write(wal, name, wal->file.fd, parts, part_count, wal->end, err);
    if (r == -ENOSPC) {
        wal->file.is_allocated =
                false; /* so allocating promised nothing here; the batch itself is written */
        return 0;
    }
    wal->zeroed = wal->end + bytes;
    return r;
}

static int write_batch(struct wal *wal, const struct plan *plan, const struct wal_write *writes,
        size_t count, struct err *err)
{
    char name[NAMES_SEGMENT_BYTES];
    struct segment last = wal_last_segment(wal);
    names_format(&last.name, name);

    uint32_t crc = encode_batch(wal, plan, writes, count);
    int r = file_write(wal, name, wal->file.fd, (struct iovec *)(void *)wal->parts.data,
            wal->parts.bytes / sizeof(struct iovec), wal->end, err);
    buf_clear(&wal->staging);
    buf_trim(&wal->staging, STAGING_BYTES_KEPT);
    TRY(r);
    apply_batch(wal, plan, writes, count, crc);
    r = write_ahead(wal, name, err);
    return r < 0 ? wal_fail(wal, err, r) : 0;
}

int wal_append(struct wal *wal, const struct wal_write *writes, size_t write_count, struct err *err)
{
    INVARIANT(wal->mode == WAL_MODE_APPENDING);
    TRY(wal_check_failed(wal, err));
    struct plan plan = make_plan(wal, writes, write_count);
    if (plan.is_gap) {
        INVARIANT(
                wal->is_refusing); /* the only way in which entries may come that do not continue the log */
        return err_set(err, -ENOSPC, "entries before these were refused for lack of space");
    }
    if (plan.record_count == 0) {
        return 0;
    }
    int r = make_room(wal, &plan, err);
    if (r == 0) {
        r = write_batch(wal, &plan, writes, write_count, err);
    }
    if (r == -ENOSPC) {
        wal->is_refusing |= plan.has_entries;
        return r;
    }
    return r < 0 ? wal_fail(wal, err, r) : 0;
}
