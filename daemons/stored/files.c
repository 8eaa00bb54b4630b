#include "daemons/stored/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/sync_dir.h"

static void close_fd(const int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
    }
}

int files_replace(const char *dir, const char *name, struct span content, struct err *err)
{
    char path[PATH_MAX];
    char temporary[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)snprintf(temporary, sizeof temporary, "%s/%s.tmp", dir, name);
    CLEANUP(close_fd)
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0) {
        return err_errno(err, "create %s", temporary);
    }
    ssize_t written = write(fd, content.data, content.bytes);
    if (written != (ssize_t)content.bytes) {
        errno = written < 0 ? errno : ENOSPC;
        return err_errno(err, "write %s", temporary);
    }
    if (fsync(fd) < 0) {
        return err_errno(err, "sync %s", temporary);
    }
    if (rename(temporary, path) < 0) {
        return err_errno(err, "rename %s", temporary);
    }
    return sync_dir(dir, err);
}

int files_make_dir(const char *path, unsigned mode, struct err *err)
{
    char parent[PATH_MAX];

    if (mkdir(path, mode) < 0) {
        return errno == EEXIST ? 0 : err_errno(err, "create %s", path);
    }
    (void)snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash == NULL || slash == parent) {
        return 0;
    }
    *slash = '\0';
    return sync_dir(parent, err);
}

uint64_t files_space_bytes(const char *path)
{
    struct statvfs stat;
    return statvfs(path, &stat) == 0 ? (uint64_t)stat.f_bavail * stat.f_frsize : UINT64_MAX;
}

int files_remove_dir(const char *path, struct err *err)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    int result = 0;

    if (dir == NULL) {
        return errno == ENOENT ? 0 : err_errno(err, "open %s", path);
    }
    while (result == 0 && (entry = readdir(dir)) != NULL) {
        bool dots = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
        if (!dots && unlinkat(dirfd(dir), entry->d_name, 0) < 0 && errno != ENOENT) {
            result = err_errno(err, "remove %s/%s", path, entry->d_name);
        }
    }
    (void)closedir(dir);
    if (result == 0 && rmdir(path) < 0 && errno != ENOENT) {
        result = err_errno(err, "remove %s", path);
    }
    return result;
}
