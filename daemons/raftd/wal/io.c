#include "daemons/raftd/wal/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "common/macros.h"

static int io_create(void *user UNUSED, int dir_fd, const char *name)
{
    return openat(dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static ssize_t io_pwritev(
        void *user UNUSED, int fd, const struct iovec *parts, int part_count, off_t offset)
{
    return pwritev(fd, parts, part_count, offset);
}

static int io_allocate(void *user UNUSED, int fd, off_t bytes)
{
    /* Not posix_fallocate: where the file system cannot, that one writes a byte to every block. */
    int r;
    do {
        r = fallocate(fd, 0, 0, bytes);
    } while (r < 0 && errno == EINTR);
    return r;
}

static int io_sync_data(void *user UNUSED, int fd)
{
    return fdatasync(fd);
}

static int io_sync_file(void *user UNUSED, int fd)
{
    return fsync(fd);
}

static int io_rename(void *user UNUSED, int dir_fd, const char *from, const char *to)
{
    return renameat(dir_fd, from, dir_fd, to);
}

static int io_unlink(void *user UNUSED, int dir_fd, const char *name)
{
    return unlinkat(dir_fd, name, 0);
}

const struct wal_io wal_io_system = {
    .create = io_create,
    .pwritev = io_pwritev,
    .allocate = io_allocate,
    .sync_data = io_sync_data,
    .sync_file = io_sync_file,
    .rename = io_rename,
    .unlink = io_unlink,
};
