/* entries.c: reading entries back while the log is open for appending, and purging those no longer wanted.
 *
 * The file is opened by name for each call and read without a lock: what the table of points leads to was written
 * before, and is never written again. A segment that was not read at the start is scanned once, from the newest
 * back, when somebody asks for what it holds. */
#include <errno.h>
#include <unistd.h>

#include "daemons/raftd/wal/internal.h"

enum {
    READ_BYTES = 256 << 10,
    WINDOW_BYTES_KEPT = 1 << 20
};

/* Where to read, as of one moment. */
struct route {
    struct segment segment;
    struct point point;
    uint64_t last_index; /* that may be read from here on */
    uint64_t end;        /* of the segment's bytes */
};

/* ---- Scanning older segments ---------------------------------------------------------------------------------- */

struct scan {
    struct points points;
    uint64_t last_index;
    uint64_t base_index;
    bool has_reset;
};

static bool scan_record(struct scan *scan, const struct wal_record *record, uint64_t seq,
        uint64_t batch_offset, uint64_t offset)
{
    if (!replay_is_sound(record, scan->last_index, scan->base_index)) {
        return false;
    }
    switch (record->kind) {
    case WAL_RECORD_BASE:
        scan->base_index = record->base.index;
        if (record->base.reset) {
            points_reset(&scan->points);
            scan->last_index = record->base.index;
            scan->has_reset = true;
        }
        break;
    case WAL_RECORD_CUT:
        if (record->cut_index < scan->last_index) {
            points_cut(&scan->points, record->cut_index);
            scan->last_index = record->cut_index;
        }
        break;
    case WAL_RECORD_ENTRY:
        points_note(&scan->points, record->entry.index, seq, batch_offset, offset);
        scan->last_index = record->entry.index;
        break;
    case WAL_RECORD_HARD_STATE:
    case WAL_RECORD_SNAPSHOT:
        break;
    }
    return true;
}

static int scan_batch(struct scan *scan, const struct reader *reader, struct reader_batch *batch,
        uint64_t seq, struct err *err)
{
    struct record record;
    uint64_t offset;
    while (reader_next_record(batch, &record, &offset)) {
        struct wal_record decoded;
        if (!record_decode(&record, &decoded) ||
                !scan_record(scan, &decoded, seq, batch->header.offset, offset)) {
            return err_set(err, -EBADMSG,
                    "%s is damaged at offset %" PRIu64 ": a record that does not continue the log",
                    reader->name, offset);
        }
    }
    return 0;
}

/* The whole segment, which the next one (crc_after) continues. */
static int scan_segment(struct wal *wal, struct segment *segment, uint32_t crc_after,
        struct scan *scan, struct err *err)
{
    struct reader reader = { .fd = -1 };
    struct reader_batch batch;

    scan->last_index = segment->name.first_index - 1;
    TRY(replay_open_segment(wal, segment, &reader, &batch, err));
    segment->salt = batch.header.salt;
    segment->crc_before = batch.header.crc_before;
    int r = 1;
    while (r > 0) {
        r = scan_batch(scan, &reader, &batch, segment->name.seq, err);
        if (r == 0) {
            r = reader_next_batch(&reader, &batch, err);
        }
    }
    if (r == 0 && reader.crc != crc_after) {
        r = err_set(err, -EBADMSG,
                "%s is damaged at offset %" PRIu64
                ": the next segment continues from other records",
                reader.name, reader.offset);
    }
    reader_fini(&reader);
    return r;
}

/* The newest segment that was not scanned yet and may hold something live; false if none. */
static bool find_unscanned(struct wal *wal, struct segment *ret_segment, uint32_t *ret_crc_after)
{
    bool is_found = false;
    (void)pthread_mutex_lock(&wal->mutex);
    for (size_t i = wal->segment_count; !is_found && i > 1; i--) {
        const struct segment *older = &wal->segments[i - 2];
        is_found = !older->is_scanned && older->name.seq >= wal->void_before_seq;
        *ret_segment = *older;
        *ret_crc_after = wal->segments[i - 1].crc_before;
    }
    (void)pthread_mutex_unlock(&wal->mutex);
    return is_found;
}

static void take_scan(struct wal *wal, const struct segment *segment, const struct scan *scan)
{
    (void)pthread_mutex_lock(&wal->mutex);
    uint64_t lowest = points_lowest(&wal->points);
    uint64_t index_max = lowest == UINT64_MAX ? wal->last_index : lowest - 1;
    for (size_t i = 0; i < wal->segment_count; i++) {
        if (wal->segments[i].name.seq == segment->name.seq) {
            /* Not purged meanwhile. */
            wal->segments[i].salt = segment->salt;
            wal->segments[i].crc_before = segment->crc_before;
            wal->segments[i].is_scanned = true;
            if (segment->name.seq >= wal->void_before_seq) {
                points_prepend(&wal->points, &scan->points, index_max);
            }
        }
    }
    if (scan->has_reset) {
        wal->void_before_seq = MAX(wal->void_before_seq, segment->name.seq);
    }
    (void)pthread_mutex_unlock(&wal->mutex);
}

/* ---- Finding -------------------------------------------------------------------------------------------------- */

/* 1: found; 0: above the last entry; -ENOENT: below the first one known. */
static int find_route(struct wal *wal, uint64_t index, struct route *ret_route)
{
    int r = 0;
    (void)pthread_mutex_lock(&wal->mutex);
    if (index <= wal->last_index) {
        bool is_found = points_find(&wal->points, index, &ret_route->point, &ret_route->last_index);
        ret_route->last_index = MIN(ret_route->last_index, wal->last_index);
        r = is_found ? 1 : -ENOENT;
    }
    if (r > 0) {
        size_t position = (size_t)(ret_route->point.seq - wal->segments[0].name.seq);
        INVARIANT_LT(position, wal->segment_count);
        bool is_last = position + 1 == wal->segment_count;
        ret_route->segment = wal->segments[position];
        ret_route->end = is_last ? wal->end_shared : ret_route->segment.file_bytes;
    }
    (void)pthread_mutex_unlock(&wal->mutex);
    return r;
}

/* As find_route, scanning back as far as it takes. */
static int find_route_scanning(
        struct wal *wal, uint64_t index, struct route *ret_route, struct err *err)
{
    for (;;) {
        int r = find_route(wal, index, ret_route);
        if (r >= 0) {
            return r;
        }
        struct segment segment;
        uint32_t crc_after;
        if (!find_unscanned(wal, &segment, &crc_after)) {
            return err_set(err, -ENOENT, "the log does not go back to entry %" PRIu64, index);
        }
        struct scan scan = { .points = POINTS_INIT };
        r = scan_segment(wal, &segment, crc_after, &scan, err);
        if (r == 0) {
            take_scan(wal, &segment, &scan);
        }
        points_fini(&scan.points);
        TRY(r);
    }
}

/* ---- Reading -------------------------------------------------------------------------------------------------- */

struct request {
    uint64_t next;
    uint64_t last;
    size_t bytes_left;
    wal_entry_fn fn;
    void *user;
    int count;
    bool is_done;
};

/* Entries of one batch, as far as they are asked for. */
static int hand_out(struct request *request, const struct route *route, struct reader_batch *batch)
{
    struct record record;
    uint64_t offset;
    while (!request->is_done && request->next <= route->last_index &&
            reader_next_record(batch, &record, &offset)) {
        struct wal_record decoded;
        bool is_wanted = offset >= route->point.record_offset && record.type == RECORD_ENTRY &&
                         record_decode(&record, &decoded) && decoded.entry.index == request->next;
        if (!is_wanted) {
            continue;
        }
        size_t bytes = decoded.entry.data.bytes;
        if (request->count > 0 && bytes > request->bytes_left) {
            request->is_done = true;
            break;
        }
        int r = request->fn(request->user, &decoded.entry);
        TRY(r);
        request->count++;
        request->next++;
        request->bytes_left -= MIN(bytes, request->bytes_left);
        request->is_done = r > 0 || request->next > request->last || request->bytes_left == 0 ||
                           request->count == INT32_MAX;
    }
    return 0;
}

static int read_route(
        struct wal *wal, struct request *request, const struct route *route, struct err *err)
{
    struct reader reader;
    struct reader_batch batch;

    int r = reader_init(&reader, wal->io, wal->dir_fd, &route->segment.name, err);
    if (r == -ENOENT) {
        return err_set(err, -ENOENT, "entry %" PRIu64 " was purged", request->next);
    }
    TRY(r);
    reader.window = wal->window; /* lent */
    reader.chunk_bytes = MIN((size_t)READ_BYTES, request->bytes_left) + READ_BYTES / 8;
    reader.file_bytes = MIN(reader.file_bytes, route->end);
    reader_seek(&reader, route->point.batch_offset, route->segment.salt);
    while (r == 0 && !request->is_done && request->next <= route->last_index) {
        r = reader_next_batch(&reader, &batch, err);
        if (r == 0) {
            r = err_set(err, -EBADMSG,
                    "%s is damaged at offset %" PRIu64 ": entry %" PRIu64 " is missing",
                    reader.name, reader.offset, request->next);
        } else if (r > 0) {
            r = hand_out(request, route, &batch);
        }
    }
    wal->window = reader.window;
    reader.window = BUF_INIT;
    buf_clear(&wal->window);
    buf_trim(&wal->window, WINDOW_BYTES_KEPT);
    reader_fini(&reader);
    return r;
}

int wal_read_entries(struct wal *wal, uint64_t from, uint64_t to_max, size_t bytes_max,
        wal_entry_fn fn, void *user, struct err *err)
{
    INVARIANT(wal->mode == WAL_MODE_APPENDING || wal->mode == WAL_MODE_READ);
    struct request request = {
        .next = from,
        .last = to_max,
        .bytes_left = bytes_max,
        .fn = fn,
        .user = user,
        .is_done = from > to_max,
    };
    (void)pthread_mutex_lock(&wal->read_mutex);
    int r = 0;
    while (r == 0 && !request.is_done) {
        struct route route;
        r = find_route_scanning(wal, request.next, &route, err);
        if (r == 0) {
            break; /* past the last */
        }
        if (r > 0) {
            r = read_route(wal, &request, &route, err);
        }
    }
    (void)pthread_mutex_unlock(&wal->read_mutex);
    return r < 0 ? r : request.count;
}

/* ---- Purging -------------------------------------------------------------------------------------------------- */

/* Whether the first segment's entries all lie below index: what it had from the next one's first index on was void
 * when that one began. */
static bool take_purgeable(struct wal *wal, uint64_t index, struct names_segment *ret_name)
{
    (void)pthread_mutex_lock(&wal->mutex);
    bool is_purgeable = wal->segment_count > 1 &&
                        wal->segments[1].name.first_index <= MIN(index, wal->purge_index_max);
    *ret_name = wal->segments[0].name;
    (void)pthread_mutex_unlock(&wal->mutex);
    return is_purgeable;
}

static void drop_first_segment(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    wal->segment_count--;
    memmove(wal->segments, wal->segments + 1, wal->segment_count * sizeof(wal->segments[0]));
    points_drop_before(&wal->points, wal->segments[0].name.seq);
    (void)pthread_mutex_unlock(&wal->mutex);
}

static int purge_all(struct wal *wal, uint64_t index, struct err *err)
{
    int count = 0;
    struct names_segment first;
    while (take_purgeable(wal, index, &first)) {
        char name[NAMES_SEGMENT_BYTES];
        names_format(&first, name);
        if (wal->io->unlink(wal->io->user, wal->dir_fd, name) < 0 && errno != ENOENT) {
            return err_errno(err, "remove %s", name);
        }
        drop_first_segment(wal);
        count++;
    }
    int r = count == 0 ? 0 : file_sync_dir(wal, err);
    return r < 0 ? wal_fail(wal, err, r) : count;
}

int wal_purge_before(struct wal *wal, uint64_t index, struct err *err)
{
    INVARIANT(wal->mode == WAL_MODE_APPENDING);
    TRY(wal_check_failed(wal, err));
    (void)pthread_mutex_lock(&wal->purge_mutex);
    int r = purge_all(wal, index, err);
    (void)pthread_mutex_unlock(&wal->purge_mutex);
    return r;
}
