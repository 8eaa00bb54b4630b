#include "daemons/raftd/wal/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
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

static int io_open(void *user UNUSED, int dir_fd, const char *name, bool is_to_write)
{
    return openat(dir_fd, name, (is_to_write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
}

static void io_close(void *user UNUSED, int fd)
{
    (void)close(fd);
}

static ssize_t io_pread(void *user UNUSED, int fd, void *bytes, size_t count, off_t offset)
{
    return pread(fd, bytes, count, offset);
}

static off_t io_size(void *user UNUSED, int fd)
{
    struct stat status;
    return fstat(fd, &status) < 0 ? -1 : status.st_size;
}

static off_t io_seek_data(void *user UNUSED, int fd, off_t offset)
{
    return lseek(fd, offset, SEEK_DATA);
}

static int io_list(
        void *user UNUSED, int dir_fd, void (*fn)(void *fn_user, const char *name), void *fn_user)
{
    /* Opened anew: a duplicate would share its position with the next listing. */
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL) {
        int error = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        errno = error;
        return -1;
    }
    const struct dirent *entry;
    errno = 0;
    while ((entry = readdir(dir)) != NULL) { // NOLINT(concurrency-mt-unsafe): own stream
        fn(fn_user, entry->d_name);
        errno = 0;
    }
    int error = errno;
    (void)closedir(dir);
    errno = error;
    return error == 0 ? 0 : -1;
}

const struct wal_io wal_io_system = {
    .create = io_create,
    .pwritev = io_pwritev,
    .allocate = io_allocate,
    .sync_data = io_sync_data,
    .sync_file = io_sync_file,
    .rename = io_rename,
    .unlink = io_unlink,
    .open = io_open,
    .close = io_close,
    .pread = io_pread,
    .size = io_size,
    .seek_data = io_seek_data,
    .list = io_list,
};
