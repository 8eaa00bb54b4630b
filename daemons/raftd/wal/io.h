/* io.h: every call by which the log looks at its files and changes them, as a table: tests fail any one of them, or
 * put a disk of their own in its place. Each returns as the system call of its name does, with errno set. */
#pragma once

#include <stdbool.h>
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

    /* An existing file, for reading or for both. */
    int (*open)(void *user, int dir_fd, const char *name, bool is_to_write);
    void (*close)(void *user, int fd); /* of create and open */
    ssize_t (*pread)(void *user, int fd, void *bytes, size_t count, off_t offset);
    off_t (*size)(void *user, int fd);
    /* lseek with SEEK_DATA: where the next byte that is no hole may be. */
    off_t (*seek_data)(void *user, int fd, off_t offset);
    /* Calls fn for each name in the folder. */
    int (*list)(void *user, int dir_fd, void (*fn)(void *fn_user, const char *name), void *fn_user);
};

extern const struct wal_io wal_io_system;
