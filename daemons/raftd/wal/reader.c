#include "daemons/raftd/wal/reader.h"

#include <errno.h>

enum {
    CHUNK_BYTES = 1 << 20
};

int reader_init(struct reader *reader, const struct wal_io *io, int dir_fd,
        const struct names_segment *segment, struct err *err)
{
    *reader = (struct reader){ .io = io, .fd = -1, .chunk_bytes = CHUNK_BYTES };
    names_format(segment, reader->name);
    reader->fd = io->open(io->user, dir_fd, reader->name, false);
    if (reader->fd < 0) {
        return err_errno(err, "open %s", reader->name);
    }
    off_t file_bytes = io->size(io->user, reader->fd);
    if (file_bytes < 0) {
        int r = err_errno(err, "stat %s", reader->name);
        reader_fini(reader);
        return r;
    }
    reader->file_bytes = (uint64_t)file_bytes;
    return 0;
}

void reader_fini(struct reader *reader)
{
    if (reader->name[0] != '\0' && reader->fd >= 0) {
        reader->io->close(reader->io->user, reader->fd);
    }
    buf_fini(&reader->window);
    *reader = (struct reader){ .fd = -1 };
}

void reader_seek(struct reader *reader, uint64_t offset, uint64_t salt)
{
    reader->offset = offset;
    reader->is_crc_known = false;
    reader->salt = salt;
    reader->is_salt_known = true;
}

/* Fills the window from `offset` on with at least `bytes`, less only at the file's end. */
static int fill_window(struct reader *reader, uint64_t offset, size_t bytes, struct err *err)
{
    size_t wanted = MAX(bytes, reader->chunk_bytes);
    wanted = (size_t)MIN((uint64_t)wanted, reader->file_bytes - offset);
    buf_clear(&reader->window);
    (void)buf_reserve(&reader->window, wanted);
    reader->window_offset = offset;
    while (reader->window.bytes < wanted) {
        ssize_t r = reader->io->pread(reader->io->user, reader->fd,
                reader->window.data + reader->window.bytes, wanted - reader->window.bytes,
                (off_t)(offset + reader->window.bytes));
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r < 0) {
            return err_errno(
                    err, "read %s at offset %" PRIu64, reader->name, offset + reader->window.bytes);
        }
        if (r == 0) {
            break; /* shorter than it was: the missing part is damage, found by whoever wants it */
        }
        reader->window.bytes += (size_t)r;
    }
    return 0;
}

/* The file's bytes at offset, `bytes` of them; fewer only at its end. */
static int view(struct reader *reader, uint64_t offset, size_t bytes, struct span *ret_bytes,
        struct err *err)
{
    INVARIANT_LE(offset, reader->file_bytes);
    bytes = (size_t)MIN((uint64_t)bytes, reader->file_bytes - offset);
    bool inside = offset >= reader->window_offset &&
                  offset + bytes <= reader->window_offset + reader->window.bytes;
    if (!inside) {
        TRY(fill_window(reader, offset, bytes, err));
    }
    struct span from =
            span_from(buf_span(&reader->window), (size_t)(offset - reader->window_offset));
    *ret_bytes = span_of(from.data, MIN(bytes, from.bytes));
    return 0;
}

/* Whether a header found at `offset` belongs there. */
static bool belongs(const struct reader *reader, const struct record_batch *header, uint64_t offset)
{
    return header->offset == offset && header->synced <= offset &&
           header->batch_bytes >= RECORD_BATCH_BYTES && header->batch_bytes % RECORD_ALIGN == 0 &&
           (!reader->is_salt_known || header->salt == reader->salt);
}

int reader_next_batch(struct reader *reader, struct reader_batch *ret_batch, struct err *err)
{
    struct reader_batch batch;
    struct span bytes;

    TRY(view(reader, reader->offset, RECORD_BATCH_BYTES, &bytes, err));
    if (!record_parse_batch(bytes, &batch.header, &batch.crc) ||
            !belongs(reader, &batch.header, reader->offset) ||
            (reader->is_crc_known && batch.header.crc_before != reader->crc)) {
        return 0;
    }
    TRY(view(reader, reader->offset, batch.header.batch_bytes, &bytes, err));
    if (bytes.bytes < batch.header.batch_bytes) {
        return 0;
    }
    batch.rest = span_from(bytes, RECORD_BATCH_BYTES);
    batch.offset = reader->offset + RECORD_BATCH_BYTES;
    batch.left_count = batch.header.count;

    struct reader_batch end = batch;
    struct record record;
    uint64_t offset;
    while (reader_next_record(&end, &record, &offset)) {
    }
    if (end.left_count != 0 || end.rest.bytes != 0) {
        return 0;
    }
    reader->offset += batch.header.batch_bytes;
    reader->crc = end.crc;
    reader->is_crc_known = true;
    reader->salt = batch.header.salt;
    reader->is_salt_known = true;
    *ret_batch = batch;
    return 1;
}

bool reader_next_record(struct reader_batch *batch, struct record *ret_record, uint64_t *ret_offset)
{
    if (batch->left_count == 0 || !record_parse(batch->rest, batch->crc, ret_record)) {
        return false;
    }
    *ret_offset = batch->offset;
    batch->rest = span_from(batch->rest, (size_t)ret_record->total_bytes);
    batch->offset += ret_record->total_bytes;
    batch->crc = ret_record->crc;
    batch->left_count--;
    return true;
}

/* ---- The tail ------------------------------------------------------------------------------------------------- */

/* The next offset from `offset` on where the file may hold anything but zeros. */
static uint64_t skip_hole(const struct reader *reader, uint64_t offset)
{
    off_t data = reader->io->seek_data(reader->io->user, reader->fd, (off_t)offset);
    if (data < 0) {
        /* ENXIO: nothing but a hole up to the end. Anything else: cannot tell, so look. */
        return errno == ENXIO ? reader->file_bytes : offset;
    }
    return MIN((uint64_t)data & ~(uint64_t)(RECORD_ALIGN - 1), reader->file_bytes);
}

struct tail {
    uint64_t nonzero_end;  /* after the last byte that is not zero */
    uint64_t synced;       /* the furthest that a valid batch claims */
    uint64_t claim_offset; /* of that batch */
};

/* One aligned place of the tail; bytes holds what follows it. */
static void look_at(
        const struct reader *reader, struct span bytes, uint64_t offset, struct tail *tail)
{
    uint64_t word = 0;
    memcpy(&word, bytes.data, MIN(bytes.bytes, sizeof(word)));
    if (word == 0) {
        return;
    }
    tail->nonzero_end = MIN(offset + sizeof(word), reader->file_bytes);
    struct record_batch header;
    uint32_t crc;
    if (record_parse_batch(bytes, &header, &crc) && belongs(reader, &header, offset) &&
            header.synced > tail->synced) {
        tail->synced = header.synced;
        tail->claim_offset = offset;
    }
}

/* Looks at all places in `bytes` (the file from offset on) that a header would fit behind, at the file's end at all;
 * returns where to go on. */
static uint64_t scan_chunk(
        const struct reader *reader, struct span bytes, uint64_t offset, struct tail *tail)
{
    bool is_last = offset + bytes.bytes >= reader->file_bytes;
    while (bytes.bytes >= RECORD_BATCH_BYTES || (is_last && bytes.bytes > 0)) {
        size_t step = MIN((size_t)RECORD_ALIGN, bytes.bytes);
        look_at(reader, bytes, offset, tail);
        bytes = span_from(bytes, step);
        offset += step;
    }
    return offset;
}

static int scan_tail(struct reader *reader, uint64_t offset, struct tail *tail, struct err *err)
{
    for (;;) {
        offset = MAX(offset, skip_hole(reader, offset));
        struct span bytes;
        TRY(view(reader, offset, reader->chunk_bytes, &bytes, err));
        uint64_t next = scan_chunk(reader, bytes, offset, tail);
        if (next == offset) {
            return 0; /* the end, or a file that became shorter meanwhile */
        }
        offset = next;
    }
}

int reader_check_tail(struct reader *reader, uint64_t *ret_torn_bytes, struct err *err)
{
    uint64_t end = reader->offset;
    struct tail tail = { .nonzero_end = end };

    TRY(scan_tail(reader, end, &tail, err));
    if (tail.synced > end) {
        return err_set(err, -EBADMSG,
                "%s is damaged at offset %" PRIu64 ": the batch at offset %" PRIu64
                " says that the file was synced up to %" PRIu64,
                reader->name, end, tail.claim_offset, tail.synced);
    }
    *ret_torn_bytes = tail.nonzero_end - end;
    return 0;
}
