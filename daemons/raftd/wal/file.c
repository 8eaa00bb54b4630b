/* file.c: what is done to whole files: make, write, sync, the first batch of a segment. */
#include <errno.h>
#include <limits.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "daemons/raftd/wal/internal.h"

/* ---- Making --------------------------------------------------------------------------------------------------- */

/* Asking first keeps a full disk from being filled to the last block, taken from stored, only to be given back. */
static bool has_room(const struct wal *wal, uint64_t bytes)
{
    struct statvfs status;
    if (fstatvfs(wal->dir_fd, &status) < 0 || status.f_blocks == 0) {
        return true; /* unknown: allocating will tell */
    }
    uint64_t blocks = geteuid() == 0 ? status.f_bfree : status.f_bavail;
    return blocks >= bytes / status.f_frsize;
}

static int allocate(
        struct wal *wal, const char *name, struct wal_file *file, uint64_t bytes, struct err *err)
{
    file->capacity = bytes;
    file->is_allocated = wal->io->allocate(wal->io->user, file->fd, (off_t)bytes) == 0;
    if (file->is_allocated || errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) {
        return 0; /* where it is not known, lack of space shows in the write */
    }
    if (is_no_space(-errno)) {
        return err_set(err, -ENOSPC, "no space for %s, %" PRIu64 " bytes", name, bytes);
    }
    return err_errno(err, "allocate %s", name);
}

int file_make(struct wal *wal, const char *name, uint64_t bytes, struct wal_file *ret_file,
        struct err *err)
{
    if (!has_room(wal, bytes)) {
        return err_set(err, -ENOSPC, "no space for %s, %" PRIu64 " bytes", name, bytes);
    }
    struct wal_file file = { .fd = wal->io->create(wal->io->user, wal->dir_fd, name) };
    if (file.fd < 0) {
        return is_no_space(-errno) ? err_set(err, -ENOSPC, "no space for %s", name)
                                   : err_errno(err, "create %s", name);
    }
    int r = allocate(wal, name, &file, bytes, err);
    if (r < 0) {
        file_close(wal, &file);
        (void)wal->io->unlink(wal->io->user, wal->dir_fd, name);
        return r;
    }
    *ret_file = file;
    return 0;
}

void file_close(const struct wal *wal, struct wal_file *file)
{
    if (file->fd >= 0) {
        wal->io->close(wal->io->user, file->fd);
    }
    *file = (struct wal_file){ .fd = -1 };
}

int file_remove_unfinished(struct wal *wal, struct err *err)
{
    const char *names[] = { NAMES_SPARE, NAMES_REWRITE };
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        if (wal->io->unlink(wal->io->user, wal->dir_fd, names[i]) < 0 && errno != ENOENT) {
            return err_errno(err, "remove %s", names[i]);
        }
    }
    return 0;
}

/* ---- Writing -------------------------------------------------------------------------------------------------- */

int file_write(struct wal *wal, const char *name, int fd, struct iovec *parts, size_t part_count,
        uint64_t offset, struct err *err)
{
    while (part_count > 0) {
        int count = (int)MIN(part_count, (size_t)IOV_MAX);
        ssize_t written = wal->io->pwritev(wal->io->user, fd, parts, count, (off_t)offset);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0 && is_no_space(-errno)) {
            return err_set(err, -ENOSPC, "no space in %s at offset %" PRIu64, name, offset);
        }
        if (written < 0) {
            return err_errno(err, "write %s at offset %" PRIu64, name, offset);
        }
        if (written == 0) {
            return err_set(
                    err, -EIO, "write %s at offset %" PRIu64 ": nothing written", name, offset);
        }
        offset += (uint64_t)written;
        while (part_count > 0 && (size_t)written >= parts->iov_len) {
            written -= (ssize_t)parts->iov_len;
            parts++;
            part_count--;
        }
        if (written > 0) {
            parts->iov_base = (uint8_t *)parts->iov_base + written;
            parts->iov_len -= (size_t)written;
        }
    }
    return 0;
}

static int draw_salt(uint64_t *ret_salt, struct err *err)
{
    ssize_t r;
    do {
        r = getrandom(ret_salt, sizeof(*ret_salt), 0);
    } while (r < 0 && errno == EINTR);
    return r == (ssize_t)sizeof(*ret_salt) ? 0 : err_errno(err, "draw random bytes");
}

uint64_t file_head_bytes(const struct wal *wal)
{
    return RECORD_BATCH_BYTES + RECORD_SEGMENT_BYTES +
           record_padded(RECORD_BASE_BYTES + wal->base.configuration.bytes) +
           RECORD_HARD_STATE_BYTES +
           (wal->has_snapshot ? record_padded(record_snapshot_bytes(&wal->snapshot)) : 0);
}

int file_write_head(struct wal *wal, int fd, uint32_t crc_before, struct segment *segment,
        uint64_t *ret_end, uint32_t *ret_crc, struct err *err)
{
    TRY(draw_salt(&segment->salt, err));
    segment->crc_before = crc_before;

    CLEANUP(buf_fini) struct buf bytes = BUF_INIT;
    uint64_t head_bytes = file_head_bytes(wal);
    uint32_t crc = crc_before;
    struct record_batch batch = {
        .crc_before = crc_before,
        .count = wal->has_snapshot ? 4 : 3,
        .batch_bytes = (uint32_t)head_bytes,
        .salt = segment->salt,
    };
    struct record_segment record = {
        .version = RECORD_VERSION,
        .seq = segment->name.seq,
        .first_index = segment->name.first_index,
    };
    struct wal_base base = wal->base;
    base.reset = false; /* it says what the log stands on, and voids nothing */

    uint8_t *at = record_put_batch(buf_reserve(&bytes, head_bytes), &batch, &crc);
    at = record_put_segment(at, &record, &crc);
    at = record_put_base(at, &base, &crc);
    at = record_put_hard_state(at, &wal->hard, &crc);
    if (wal->has_snapshot) {
        at = record_put_snapshot(at, &wal->snapshot, &crc);
    }
    INVARIANT_EQ(at - bytes.data, head_bytes);

    char name[NAMES_SEGMENT_BYTES];
    names_format(&segment->name, name);
    struct iovec part = { .iov_base = bytes.data, .iov_len = head_bytes };
    TRY(file_write(wal, name, fd, &part, 1, 0, err));
    *ret_end = head_bytes;
    *ret_crc = crc;
    return 0;
}

int file_write_mark(struct wal *wal, const char *name, int fd, uint64_t offset, uint64_t salt,
        uint32_t *crc, struct err *err)
{
    uint8_t bytes[RECORD_BATCH_BYTES];
    struct record_batch batch = {
        .crc_before = *crc,
        .batch_bytes = sizeof(bytes),
        .salt = salt,
        .offset = offset,
        .synced = offset,
    };
    (void)record_put_batch(bytes, &batch, crc);
    struct iovec part = { .iov_base = bytes, .iov_len = sizeof(bytes) };
    return file_write(wal, name, fd, &part, 1, offset, err);
}

/* ---- Syncing -------------------------------------------------------------------------------------------------- */

int file_sync(struct wal *wal, const char *name, int fd, struct err *err)
{
    if (wal->io->sync_file(wal->io->user, fd) < 0) {
        return err_errno(err, "fsync %s", name);
    }
    return 0;
}

int file_sync_dir(struct wal *wal, struct err *err)
{
    return file_sync(wal, wal->dir, wal->dir_fd, err);
}
