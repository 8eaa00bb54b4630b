/* rewrite.c: the turn from reading to appending. What was read may lie in the page cache only, or in pages that a
 * failed sync has marked clean: so the last segment's records are written anew, into a file of the same name, and
 * nothing counts before that one, and its name, are on disk. A crash at any step leaves the old file or the new
 * one under the name, and both say the same.
 *
 * On a disk too full for a second file the records are written anew in place: the same bytes over themselves, which
 * a crash may interrupt anywhere. */
#include <errno.h>

#include "daemons/raftd/wal/internal.h"

enum {
    COPY_BYTES = 1 << 20
};

/* From one file to another, or onto itself. */
static int copy_bytes(struct wal *wal, const char *name, int from_fd, int to_fd, struct err *err)
{
    CLEANUP(buf_fini) struct buf chunk = BUF_INIT;
    (void)buf_reserve(&chunk, COPY_BYTES);
    uint64_t offset = 0;
    while (offset < wal->end) {
        size_t bytes = (size_t)MIN(wal->end - offset, (uint64_t)COPY_BYTES);
        ssize_t r = wal->io->pread(wal->io->user, from_fd, chunk.data, bytes, (off_t)offset);
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r < 0) {
            return err_errno(err, "read %s at offset %" PRIu64, name, offset);
        }
        if (r == 0) {
            return err_set(err, -EBADMSG, "%s became shorter while it was read", name);
        }
        struct iovec part = { .iov_base = chunk.data, .iov_len = (size_t)r };
        TRY(file_write(wal, NAMES_REWRITE, to_fd, &part, 1, offset, err));
        offset += (uint64_t)r;
    }
    return 0;
}

/* On a full disk a smaller file will do: the reserve is there, the rest comes with the next segment. */
static int make_copy_file(struct wal *wal, struct err *err)
{
    uint64_t bytes_min = record_padded(wal->end + RECORD_BATCH_BYTES + wal->reserve_bytes);
    uint64_t bytes = MAX(bytes_min, wal->segment_bytes);
    int r = file_make(wal, NAMES_REWRITE, bytes, &wal->file, err);
    if (r == -ENOSPC && bytes_min < bytes) {
        r = file_make(wal, NAMES_REWRITE, bytes_min, &wal->file, err);
    }
    return r;
}

static int copy_last(
        struct wal *wal, const char *name, int from_fd, const struct segment *last, struct err *err)
{
    TRY(copy_bytes(wal, name, from_fd, wal->file.fd, err));
    /* True once the file has its name, and nobody reads it before. */
    TRY(file_write_mark(wal, NAMES_REWRITE, wal->file.fd, wal->end, last->salt, &wal->crc, err));
    TRY(file_sync(wal, NAMES_REWRITE, wal->file.fd, err));
    if (wal->io->rename(wal->io->user, wal->dir_fd, NAMES_REWRITE, name) < 0) {
        return err_errno(err, "rename %s to %s", NAMES_REWRITE, name);
    }
    return file_sync_dir(wal, err);
}

/* What a torn tail left behind the records; a new batch might end in the middle of it. */
static int clear_tail(struct wal *wal, const char *name, int fd, struct err *err)
{
    CLEANUP(buf_fini) struct buf chunk = BUF_INIT;
    memset(buf_reserve(&chunk, COPY_BYTES), 0, COPY_BYTES);
    uint64_t offset = wal->end;
    for (uint64_t left = wal->torn_bytes; left > 0;) {
        size_t bytes = (size_t)MIN(left, (uint64_t)COPY_BYTES);
        struct iovec part = { .iov_base = chunk.data, .iov_len = bytes };
        TRY(file_write(wal, name, fd, &part, 1, offset, err));
        offset += bytes;
        left -= bytes;
    }
    return 0;
}

/* The mark comes after a sync of its own: seen without it, it would turn a torn tail into damage. */
static int rewrite_in_place(
        struct wal *wal, const char *name, int fd, const struct segment *last, struct err *err)
{
    wal->file = (struct wal_file){ .fd = fd, .capacity = last->file_bytes, .is_allocated = true };
    TRY(copy_bytes(wal, name, fd, fd, err));
    TRY(clear_tail(wal, name, fd, err));
    TRY(file_sync(wal, name, fd, err));
    bool has_room = wal->end + RECORD_BATCH_BYTES <= wal->file.capacity;
    if (!has_room) {
        return 0;
    }
    TRY(file_write_mark(wal, name, fd, wal->end, last->salt, &wal->crc, err));
    wal->end += RECORD_BATCH_BYTES;
    return file_sync(wal, name, fd, err);
}

static int rewrite_last(struct wal *wal, struct segment *last, struct err *err)
{
    char name[NAMES_SEGMENT_BYTES];
    names_format(&last->name, name);
    int from_fd = wal->io->open(wal->io->user, wal->dir_fd, name, true);
    if (from_fd < 0) {
        return err_errno(err, "open %s", name);
    }
    int r = make_copy_file(wal, err);
    if (r == -ENOSPC) {
        TRY(rewrite_in_place(wal, name, from_fd, last, err)); /* from_fd is wal->file now */
    } else {
        r = r == 0 ? copy_last(wal, name, from_fd, last, err) : r;
        wal->io->close(wal->io->user, from_fd);
        TRY(r);
        wal->end += RECORD_BATCH_BYTES;
    }
    last->file_bytes = wal->file.capacity;
    wal->synced = wal->zeroed = wal->end_shared = wal->end;
    wal->is_marked = true;
    return 0;
}

int wal_start_append(struct wal *wal, struct err *err)
{
    INVARIANT(wal->mode == WAL_MODE_READ);
    INVARIANT(wal->lock_fd >= 0);
    wal->mode = WAL_MODE_BROKEN;
    int r = file_remove_unfinished(wal, err);
    if (r == 0) {
        r = rewrite_last(wal, &wal->segments[wal->segment_count - 1], err);
        if (r < 0) {
            (void)wal->io->unlink(wal->io->user, wal->dir_fd, NAMES_REWRITE);
        }
    }
    if (r < 0) {
        return wal_fail(wal, err, r);
    }
    wal->mode = WAL_MODE_APPENDING;
    return 0;
}
