/* io.h: every call by which the log changes the disk, as a table, so that tests can fail any one of them. Each
 * returns as the system call of its name does, with errno set. */
#pragma once

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct wal_io {
    void *user;
    /* A new file for reading and writing, 0600, replacing what has the name. */
    int (*create)(void *user, int dir_fd, const char *name);
    ssize_t (*pwritev)(void *user, int fd, const struct iovec *parts, int part_count, off_t offset);
    /* Allocates and extends; EOPNOTSUPP where the file system cannot. */
    int (*allocate)(void *user, int fd, off_t bytes);
    int (*sync_data)(void *user, int fd); /* fdatasync */
    int (*sync_file)(void *user, int fd); /* fsync, also of directories */
    int (*rename)(void *user, int dir_fd, const char *from, const char *to);
    int (*unlink)(void *user, int dir_fd, const char *name);
};

extern const struct wal_io wal_io_system;
