#include "tests/unit/synclog.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct buf lines;
static bool is_recording;
static const char *failing;
static bool writes_fail;
static unsigned failed_count;

void synclog_begin(void)
{
    (void)pthread_mutex_lock(&mutex);
    buf_clear(&lines);
    is_recording = true;
    (void)pthread_mutex_unlock(&mutex);
}

const char *synclog_text(void)
{
    (void)pthread_mutex_lock(&mutex);
    is_recording = false;
    buf_append_byte(&lines, '\0');
    (void)pthread_mutex_unlock(&mutex);
    return (const char *)lines.data;
}

static void set_failing(const char *part, bool with_writes)
{
    (void)pthread_mutex_lock(&mutex);
    failing = part;
    writes_fail = with_writes;
    failed_count = 0;
    (void)pthread_mutex_unlock(&mutex);
}

void synclog_fail(const char *part)
{
    set_failing(part, true);
}

void synclog_fail_syncs(const char *part)
{
    set_failing(part, false);
}

unsigned synclog_failed(void)
{
    (void)pthread_mutex_lock(&mutex);
    unsigned count = failed_count;
    (void)pthread_mutex_unlock(&mutex);
    return count;
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static void path_of(int fd, char ret_path[PATH_MAX])
{
    char link[32];

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, ret_path, PATH_MAX - 1);
    ret_path[bytes > 0 ? bytes : 0] = '\0';
}

/* True: the call is to fail. */
static bool is_to_fail(const char *path)
{
    char folder[PATH_MAX + 1];

    (void)snprintf(folder, sizeof folder, "%s/", path);
    const char *at = failing == NULL ? NULL : strstr(folder, failing);
    bool is_folder = at != NULL && failing[strlen(failing) - 1] == '/';
    bool fails = at != NULL && (!is_folder || strlen(at) == strlen(failing));
    failed_count += fails;
    errno = fails ? EIO : errno;
    return fails;
}

static int sync_file(int fd, long call)
{
    char path[PATH_MAX];

    path_of(fd, path);
    (void)pthread_mutex_lock(&mutex);
    bool fails = is_to_fail(path);
    if (is_recording && !fails) {
        buf_appendf(&lines, "sync %s\n", name_of(path));
    }
    (void)pthread_mutex_unlock(&mutex);
    return fails ? -1 : (int)syscall(call, fd);
}

int fsync(int fd)
{
    return sync_file(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_file(fd, SYS_fdatasync);
}

int rename(const char *from, const char *to)
{
    (void)pthread_mutex_lock(&mutex);
    if (is_recording) {
        buf_appendf(&lines, "rename %s %s\n", name_of(from), name_of(to));
    }
    (void)pthread_mutex_unlock(&mutex);
    return (int)syscall(SYS_rename, from, to);
}

static void note_write(const char *path)
{
    char line[NAME_MAX + 8];

    size_t bytes = (size_t)snprintf(line, sizeof line, "write %.*s\n", NAME_MAX, name_of(path));
    bool is_again =
            lines.bytes >= bytes && memcmp(lines.data + lines.bytes - bytes, line, bytes) == 0;
    if (!is_again) {
        buf_append(&lines, line, bytes);
    }
}

static bool write_fails(int fd)
{
    char path[PATH_MAX];
    bool fails = false;

    (void)pthread_mutex_lock(&mutex);
    if (failing != NULL || is_recording) {
        path_of(fd, path);
        fails = writes_fail && is_to_fail(path);
        if (is_recording && !fails) {
            note_write(path);
        }
    }
    (void)pthread_mutex_unlock(&mutex);
    return fails;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    return write_fails(fd) ? -1 : syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int part_count, off_t offset)
{
    return write_fails(fd) ? -1 : syscall(SYS_pwritev, fd, parts, part_count, offset, 0);
}

ssize_t writev(int fd, const struct iovec *parts, int part_count)
{
    return write_fails(fd) ? -1 : syscall(SYS_writev, fd, parts, part_count);
}
