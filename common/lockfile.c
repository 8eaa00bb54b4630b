#include "common/lockfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static pid_t read_pid(int fd)
{
    char text[24];
    ssize_t bytes = pread(fd, text, sizeof text - 1, 0);

    if (bytes <= 0) {
        return -1;
    }
    text[bytes] = '\0';
    char *end;
    long pid = strtol(text, &end, 10);
    return pid > 0 && end != text ? (pid_t)pid : -1;
}

static int write_pid(int fd, const char *path, struct err *err)
{
    char text[24];
    int bytes = snprintf(text, sizeof text, "%ld\n", (long)getpid());

    /* Over what is there: emptied first, it could find the disk full. */
    if (pwrite(fd, text, (size_t)bytes, 0) != bytes || ftruncate(fd, bytes) < 0) {
        return err_errno(err, "write %s", path);
    }
    return 0;
}

/* Whether the file at path is still the one we opened: a holder that gave up may have removed it meanwhile. */
static bool is_same_file(int fd, const char *path)
{
    struct stat opened;
    struct stat named;

    return fstat(fd, &opened) == 0 && stat(path, &named) == 0 && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
}

static int take_lock(int fd, const char *path, struct err *err)
{
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK) {
            return err_set(
                    err, -EWOULDBLOCK, "%s is held by process %ld", path, (long)read_pid(fd));
        }
        return err_errno(err, "lock %s", path);
    }
    if (!is_same_file(fd, path)) {
        return err_set(err, -EWOULDBLOCK, "%s was removed while it was being locked", path);
    }
    return write_pid(fd, path, err);
}

int lockfile_open(const char *path, int *ret_fd, struct err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return err_errno(err, "open %s", path);
    }
    int r = take_lock(fd, path, err);
    if (r < 0) {
        (void)close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

pid_t lockfile_holder(const char *path)
{
    pid_t holder = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0) {
        return 0;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
        holder = read_pid(fd);
    }
    (void)close(fd);
    return holder;
}
