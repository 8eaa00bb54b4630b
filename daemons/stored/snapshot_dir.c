/* snapshot_dir.c: the folder of snapshots: names, retention, leftovers. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemons/stored/files.h"
#include "daemons/stored/snapshot.h"

enum {
    NAME_BYTES = 16 + 1 + 16 + 5
};

struct names {
    struct snapshot_info *items;
    size_t count;
};

static bool parse_name(const char *name, struct snapshot_info *ret_info)
{
    unsigned long long term;
    unsigned long long index;
    int end = 0;

    if (strlen(name) != NAME_BYTES) {
        return false;
    }
    /* NOLINTNEXTLINE(cert-err34-c): 16 digits fit. */
    int fields = sscanf(name, "%16llx-%16llx.snap%n", &term, &index, &end);
    if (fields != 2 || end != NAME_BYTES) {
        return false;
    }
    *ret_info = (struct snapshot_info){ .term = term, .index = index };
    return true;
}

/* Newest first: by term, then index, as the names sort. */
static int compare(const void *a, const void *b)
{
    const struct snapshot_info *left = a;
    const struct snapshot_info *right = b;

    if (left->term != right->term) {
        return left->term < right->term ? 1 : -1;
    }
    return left->index < right->index ? 1 : left->index > right->index ? -1 : 0;
}

static void names_fini(struct names *names)
{
    free(names->items);
}

static int list_names(const char *dir, struct names *names, struct err *err)
{
    struct dirent *entry;
    struct snapshot_info info;
    DIR *stream = opendir(dir);

    if (stream == NULL) {
        return err_errno(err, "open %s", dir);
    }
    while ((entry = readdir(stream)) != NULL) {
        if (parse_name(entry->d_name, &info)) {
            names->items = xrealloc(names->items, (names->count + 1) * sizeof *names->items);
            names->items[names->count++] = info;
        }
    }
    (void)closedir(stream);
    if (names->count > 0) {
        qsort(names->items, names->count, sizeof *names->items, compare);
    }
    return 0;
}

int snapshot_newest(const char *dir, struct snapshot_info *ret_info, struct err *err)
{
    CLEANUP(names_fini) struct names names = { 0 };
    char path[SNAPSHOT_PATH_BYTES_MAX];
    struct stat stat_;

    TRY(list_names(dir, &names, err));
    if (names.count == 0) {
        return -ENOENT;
    }
    *ret_info = names.items[0];
    snapshot_path(dir, ret_info->term, ret_info->index, path);
    ret_info->bytes = stat(path, &stat_) == 0 ? (uint64_t)stat_.st_size : 0;
    return 0;
}

int snapshot_purge(const char *dir, uint64_t kept, uint64_t term, uint64_t index, struct err *err)
{
    CLEANUP(names_fini) struct names names = { 0 };
    struct snapshot_info limit = { .term = term, .index = index };
    size_t remaining;

    TRY(list_names(dir, &names, err));
    remaining = names.count;
    for (size_t i = names.count; kept != 0 && i > kept; i--) {
        char path[SNAPSHOT_PATH_BYTES_MAX];
        const struct snapshot_info *info = &names.items[i - 1];
        if (compare(&limit, info) > 0) {
            break; /* the log does not know it yet */
        }
        snapshot_path(dir, info->term, info->index, path);
        if (unlink(path) < 0 && errno != ENOENT) {
            return err_errno(err, "remove %s", path);
        }
        remaining--;
    }
    return (int)remaining;
}

int snapshot_set_broken(const char *path, struct err *err)
{
    char broken[SNAPSHOT_PATH_BYTES_MAX + 8];

    (void)snprintf(broken, sizeof broken, "%s.broken", path);
    return rename(path, broken) == 0 ? 0 : err_errno(err, "rename %s", path);
}

void snapshot_sweep(const char *dir)
{
    DIR *stream = opendir(dir);
    struct dirent *entry;

    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        size_t bytes = strlen(entry->d_name);
        if (bytes > 4 && strcmp(entry->d_name + bytes - 4, ".tmp") == 0) {
            (void)unlinkat(dirfd(stream), entry->d_name, 0);
        }
    }
    if (stream != NULL) {
        (void)closedir(stream);
    }
}
