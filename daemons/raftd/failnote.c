#include "daemons/raftd/failnote.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool note_path(const char *wal_dir, char ret_path[PATH_MAX])
{
    int bytes = snprintf(ret_path, PATH_MAX, "%s/FAILED", wal_dir);
    return bytes > 0 && bytes < PATH_MAX;
}

/* What stands behind `name` on a line of its own, cut to what fits. */
static bool read_line(const char *text, const char *name, char *ret_value, size_t value_bytes)
{
    const char *at = strstr(text, name);

    if (at == NULL || (at != text && at[-1] != '\n')) {
        return false;
    }
    at += strlen(name);
    (void)snprintf(ret_value, value_bytes, "%.*s", (int)strcspn(at, "\n"), at);
    return true;
}

bool failnote_read(const char *wal_dir, struct failnote *ret_note)
{
    char path[PATH_MAX];
    char text[FAILNOTE_WHAT_BYTES + 128];
    char failures[24];
    struct failnote note = { 0 };

    if (!note_path(wal_dir, path)) {
        return false;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return false;
    }
    ssize_t bytes = read(fd, text, sizeof text - 1);
    (void)close(fd);
    text[MAX(bytes, (ssize_t)0)] = '\0';
    if (!read_line(text, "failures ", failures, sizeof failures) ||
            !read_line(text, "last ", note.last, sizeof note.last) ||
            !read_line(text, "what ", note.what, sizeof note.what)) {
        return false;
    }
    note.failures = (unsigned)strtoul(failures, NULL, 10);
    *ret_note = note;
    return true;
}

static bool write_note(int fd, uint64_t wall_ns, unsigned failures, const char *what)
{
    char text[FAILNOTE_WHAT_BYTES + 128];
    char last[32];
    time_t seconds = (time_t)(wall_ns / 1000000000);
    struct tm utc;

    (void)gmtime_r(&seconds, &utc);
    (void)strftime(last, sizeof last, "%Y-%m-%dT%H:%M:%SZ", &utc);
    int bytes = snprintf(text, sizeof text, "failures %u\nlast %s\nwhat %.*s\n", failures, last,
            FAILNOTE_WHAT_BYTES - 1, what);
    /* Not synced: the disk has just said what a sync of it is worth. */
    return write(fd, text, (size_t)bytes) == bytes;
}

bool failnote_leave(const char *wal_dir, uint64_t wall_ns, const char *what)
{
    char path[PATH_MAX];
    struct failnote before = { 0 };

    (void)failnote_read(wal_dir, &before);
    if (!note_path(wal_dir, path)) {
        return false;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return false;
    }
    bool is_written = write_note(fd, wall_ns, before.failures + 1, what);
    (void)close(fd);
    return is_written;
}

void failnote_remove(const char *wal_dir)
{
    char path[PATH_MAX];

    if (note_path(wal_dir, path)) {
        (void)unlink(path);
    }
}
