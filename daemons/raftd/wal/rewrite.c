/* rewrite.c: the turn from reading to appending. What was read may lie in the page cache only, or in pages that a
 * failed sync has marked clean: so the last segment's records are written anew, into a file of the same name, and
 * nothing counts before that one, and its name, are on disk. A crash at any step leaves the old file or the new
 * one under the name, and both say the same. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "daemons/raftd/wal/internal.h"

enum {
    COPY_BYTES = 1 << 20
};

static int copy_bytes(struct wal *wal, const char *name, int from_fd, int to_fd, struct err *err)
{
    CLEANUP(buf_fini) struct buf chunk = BUF_INIT;
    (void)buf_reserve(&chunk, COPY_BYTES);
    uint64_t offset = 0;
    while (offset < wal->end) {
        size_t bytes = (size_t)MIN(wal->end - offset, (uint64_t)COPY_BYTES);
        ssize_t r = pread(from_fd, chunk.data, bytes, (off_t)offset);
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

static int rewrite_last(struct wal *wal, struct segment *last, struct err *err)
{
    char name[NAMES_SEGMENT_BYTES];
    names_format(&last->name, name);

    int from_fd = openat(wal->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (from_fd < 0) {
        return err_errno(err, "open %s", name);
    }
    int r = make_copy_file(wal, err);
    if (r == 0) {
        r = copy_bytes(wal, name, from_fd, wal->file.fd, err);
    }
    (void)close(from_fd);
    TRY(r);
    /* True once the file has its name, and nobody reads it before. */
    TRY(file_write_mark(wal, NAMES_REWRITE, wal->file.fd, wal->end, last->salt, &wal->crc, err));
    TRY(file_sync(wal, NAMES_REWRITE, wal->file.fd, err));
    if (wal->io->rename(wal->io->user, wal->dir_fd, NAMES_REWRITE, name) < 0) {
        return err_errno(err, "rename %s to %s", NAMES_REWRITE, name);
    }
    TRY(file_sync_dir(wal, err));
    last->file_bytes = wal->file.capacity;
    wal->end += RECORD_BATCH_BYTES;
    wal->synced = wal->zeroed = wal->end_shared = wal->end;
    wal->is_marked = true;
    return 0;
}

int wal_start_append(struct wal *wal, struct err *err)
{
    INVARIANT(wal->mode == WAL_MODE_READ);
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
