/* counters.c: a page is a header and COUNTER_COUNT u64 in host order; the file never leaves its host.
 *
 *    0         8         16        24
 *    ├─magic───┼─count───┼─spare───┼─values ... ─┤   4096 bytes
 */
#include "common/counters.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 4096,
    PATH_BYTES_MAX = 4096
};

static const char page_prefix[] = "counters-";
static const char primary_name[] = "counters.primary";
static const uint64_t page_magic = UINT64_C(0x3153544e43545251);
static const uint16_t slot_codes[COUNTERS_CODE_COUNT] = { 400, 401, 403, 404, 412, 500, 503, 405 };

struct page {
    uint64_t magic;
    uint64_t count; /* values in use by whoever made the page: an older release's may be fewer */
    uint64_t spare;
    uint64_t values[COUNTER_COUNT];
};

static_assert(sizeof(struct page) <= PAGE_BYTES, "all counters fit a page");

struct counters {
    struct page *page;
    int fd;
    int primary_fd;
    bool primary;
    char dir[PATH_BYTES_MAX];
};

struct counters_dead {
    struct counters_dead *next;
    int fd;
    char path[PATH_BYTES_MAX];
};

static bool is_page_name(const char *name)
{
    return strncmp(name, page_prefix, sizeof page_prefix - 1) == 0;
}

/* Opens and locks the page unless somebody holds it, or it was removed while we waited for nothing. -1: not ours. */
static int lock_page(const char *path, int flags)
{
    struct stat info;
    int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0640);
    if (fd < 0) {
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 || fstat(fd, &info) != 0 || info.st_nlink == 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static int lock_dead_page(const char *dir)
{
    char path[PATH_BYTES_MAX + 256];
    int fd = -1;
    DIR *entries = opendir(dir);
    if (entries == NULL) {
        return -1;
    }
    for (struct dirent *entry; fd < 0 && (entry = readdir(entries)) != NULL;) {
        if (is_page_name(entry->d_name)) {
            (void)snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
            fd = lock_page(path, 0);
        }
    }
    (void)closedir(entries);
    return fd;
}

int counters_open(const char *dir, uint64_t id, struct counters **ret_counters, struct err *err)
{
    char path[PATH_BYTES_MAX + 64];
    struct counters *counters = xcalloc(1, sizeof *counters);

    counters->primary_fd = -1;
    (void)snprintf(counters->dir, sizeof counters->dir, "%s", dir);
    (void)snprintf(path, sizeof path, "%s/%s%016" PRIx64, dir, page_prefix, id);
    counters->fd = lock_dead_page(dir);
    if (counters->fd < 0) {
        counters->fd = lock_page(path, O_CREAT);
    }
    if (counters->fd < 0 || ftruncate(counters->fd, PAGE_BYTES) != 0) {
        int code = err_errno(err, "counters page %s", path);
        (void)counters_close(counters);
        return code;
    }
    void *map = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, counters->fd, 0);
    if (map == MAP_FAILED) {
        int code = err_errno(err, "map counters page %s", path);
        (void)counters_close(counters);
        return code;
    }
    counters->page = map;
    if (counters->page->magic != page_magic || counters->page->count > COUNTER_COUNT) {
        memset(map, 0, PAGE_BYTES);
    }
    counters->page->magic = page_magic;
    counters->page->count = COUNTER_COUNT;
    counters->page->values[COUNTER_WATCHERS] = 0; /* the dead holder's watchers are gone */
    *ret_counters = counters;
    return 0;
}

struct counters *counters_close(struct counters *counters)
{
    if (counters != NULL) {
        if (counters->page != NULL) {
            counters->page->values[COUNTER_WATCHERS] = 0;
            (void)munmap(counters->page, PAGE_BYTES);
        }
        if (counters->primary_fd >= 0) {
            (void)close(counters->primary_fd);
        }
        if (counters->fd >= 0) {
            (void)close(counters->fd);
        }
        free(counters);
    }
    return NULL;
}

uint64_t *counters_values(struct counters *counters)
{
    return counters->page->values;
}

bool counters_try_primary(struct counters *counters)
{
    char path[PATH_BYTES_MAX + 64];

    if (counters->primary) {
        return true;
    }
    if (counters->primary_fd < 0) {
        (void)snprintf(path, sizeof path, "%s/%s", counters->dir, primary_name);
        counters->primary_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    }
    counters->primary =
            counters->primary_fd >= 0 && flock(counters->primary_fd, LOCK_EX | LOCK_NB) == 0;
    return counters->primary;
}

/* Adds an open page's values. A page that is being made, or is none, counts for nothing. */
static void add_page(int fd, bool dead, uint64_t values[COUNTER_COUNT])
{
    struct page page;
    ssize_t bytes = pread(fd, &page, sizeof page, 0);

    if (bytes < (ssize_t)offsetof(struct page, values) || page.magic != page_magic) {
        return;
    }
    size_t present = ((size_t)bytes - offsetof(struct page, values)) / sizeof page.values[0];
    for (size_t i = 0; i < MIN(present, (size_t)page.count) && i < COUNTER_COUNT; i++) {
        if (i != COUNTER_WATCHERS || !dead) {
            values[i] += page.values[i];
        }
    }
}

void counters_sum(const char *dir, struct span folded, uint64_t ret_values[COUNTER_COUNT])
{
    char path[PATH_BYTES_MAX + 256];
    size_t folded_count = MIN(folded.bytes / sizeof(uint64_t), (size_t)COUNTER_COUNT);

    memset(ret_values, 0, COUNTER_COUNT * sizeof ret_values[0]);
    if (folded_count > 0) {
        memcpy(ret_values, folded.data, folded_count * sizeof(uint64_t));
    }
    ret_values[COUNTER_WATCHERS] = 0;
    DIR *entries = opendir(dir);
    if (entries == NULL) {
        return;
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (!is_page_name(entry->d_name)) {
            continue;
        }
        (void)snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            /* A shared lock is granted only where no holder lives. */
            bool dead = flock(fd, LOCK_SH | LOCK_NB) == 0;
            add_page(fd, dead, ret_values);
            (void)close(fd);
        }
    }
    (void)closedir(entries);
}

int counters_fold_dead(const char *dir, uint64_t values[COUNTER_COUNT],
        struct counters_dead **ret_dead, struct err *err)
{
    struct counters_dead *dead = NULL;
    int count = 0;
    DIR *entries = opendir(dir);
    if (entries == NULL) {
        return err_errno(err, "list counters in %s", dir);
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (!is_page_name(entry->d_name)) {
            continue;
        }
        struct counters_dead *page = xcalloc(1, sizeof *page);
        int bytes = snprintf(page->path, sizeof page->path, "%s/%s", dir, entry->d_name);
        page->fd = bytes < (int)sizeof page->path ? lock_page(page->path, 0) : -1;
        if (page->fd < 0) {
            free(page);
            continue;
        }
        add_page(page->fd, true, values);
        page->next = dead;
        dead = page;
        count++;
    }
    (void)closedir(entries);
    *ret_dead = dead;
    return count;
}

void counters_forget(struct counters_dead *take_dead, bool commit)
{
    while (take_dead != NULL) {
        struct counters_dead *next = take_dead->next;
        if (commit) {
            (void)unlink(take_dead->path);
        }
        (void)close(take_dead->fd);
        free(take_dead);
        take_dead = next;
    }
}

unsigned counters_code_slot(unsigned status)
{
    for (unsigned slot = 0; slot < COUNTERS_CODE_COUNT; slot++) {
        if (slot_codes[slot] == status) {
            return slot;
        }
    }
    return 0;
}

unsigned counters_slot_code(unsigned slot)
{
    INVARIANT_LT(slot, COUNTERS_CODE_COUNT);
    return slot_codes[slot];
}

void counters_add_duration(uint64_t *values, enum counters_method method, uint64_t duration_ns)
{
    unsigned bucket = 0;
    for (uint64_t bound_ns = 500000; bucket < COUNTERS_BUCKET_COUNT - 1 && duration_ns > bound_ns;
            bound_ns *= 2) {
        bucket++;
    }
    values[COUNTER_HTTP_BUCKETS + (unsigned)method * COUNTERS_BUCKET_COUNT + bucket]++;
    values[COUNTER_HTTP_SUM_NS + (unsigned)method] += duration_ns;
}
