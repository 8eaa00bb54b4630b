/* counters.c: a page is a header and COUNTER_COUNT u64 in host order; the file never leaves its host. The record is the same
 * with the pages' ids behind it, and leaves it with snapshots: all hosts are little endian (common/state/schema.c).
 *
 *    0         8         16        24
 *    ├─magic───┼─count───┼─spare───┼─values ... ─┤                 page: 4096 bytes
 *    ├─magic───┼─count───┼─ids─────┼─values ... ─┼─ids ... ─┤      record
 */
#include "common/counters.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 4096,
    PATH_BYTES_MAX = 4096
};

static const char page_prefix[] = "counters-";
static const char new_prefix[] = "counters.new-";
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

struct record_header {
    uint64_t magic;
    uint64_t count;
    uint64_t id_count;
};

/* Whether the name is a page's, and whose. */
static bool page_id(const char *name, uint64_t *ret_id)
{
    char *end = NULL;

    if (strncmp(name, page_prefix, sizeof page_prefix - 1) != 0) {
        return false;
    }
    *ret_id = strtoull(name + sizeof page_prefix - 1, &end, 16);
    return *end == '\0' && strlen(name) == sizeof page_prefix - 1 + 16;
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

/* All of it: a hole in a mapped file on a full disk would be a SIGBUS. */
static bool set_page_size(int fd)
{
    errno = posix_fallocate(fd, 0, PAGE_BYTES);
    return errno == 0;
}

/* A page of our own under another name, locked before anybody can see it by its own. */
static int make_page(const char *dir, uint64_t id, const char *path)
{
    char new_path[PATH_BYTES_MAX + 64];

    (void)snprintf(new_path, sizeof new_path, "%s/%s%016" PRIx64, dir, new_prefix, id);
    int fd = lock_page(new_path, O_CREAT | O_EXCL);
    if (fd >= 0 && (!set_page_size(fd) || rename(new_path, path) != 0)) {
        int code = errno;
        (void)unlink(new_path);
        (void)close(fd);
        errno = code;
        return -1;
    }
    return fd;
}

int counters_open(const char *dir, uint64_t id, struct counters **ret_counters, struct err *err)
{
    char path[PATH_BYTES_MAX + 64];
    struct counters *counters = xcalloc(1, sizeof *counters);

    counters->primary_fd = -1;
    (void)snprintf(counters->dir, sizeof counters->dir, "%s", dir);
    (void)snprintf(path, sizeof path, "%s/%s%016" PRIx64, dir, page_prefix, id);
    counters->fd = make_page(dir, id, path);
    bool has_room = counters->fd >= 0 || (errno != ENOSPC && errno != EDQUOT);
    if (counters->fd < 0 && has_room) {
        int code = err_errno(err, "counters page %s", path);
        (void)counters_close(counters);
        return code;
    }
    void *map = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
            has_room ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, counters->fd, 0);
    if (map == MAP_FAILED) {
        int code = err_errno(err, "map counters page %s", path);
        (void)counters_close(counters);
        return code;
    }
    counters->page = map;
    counters->page->count = COUNTER_COUNT;
    __atomic_store_n(&counters->page->magic, page_magic, __ATOMIC_RELEASE); /* a page from now on */
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

bool counters_is_kept(const struct counters *counters)
{
    return counters->fd >= 0;
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

static bool has_id(const struct counters_folded *record, uint64_t id)
{
    for (size_t i = 0; i < record->id_count; i++) {
        if (record->ids[i] == id) {
            return true;
        }
    }
    return false;
}

void counters_sum(const char *dir, struct span record, uint64_t ret_values[COUNTER_COUNT])
{
    char path[PATH_BYTES_MAX + 256];
    struct counters_folded folded;
    uint64_t id;

    counters_decode(record, &folded);
    memcpy(ret_values, folded.values, sizeof folded.values);
    DIR *entries = opendir(dir);
    if (entries == NULL) {
        return;
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (!page_id(entry->d_name, &id) || has_id(&folded, id)) {
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

/* ---- For stored ---- */

void counters_encode(const struct counters_folded *record, struct buf *out)
{
    struct record_header header = { page_magic, COUNTER_COUNT, record->id_count };

    buf_append(out, &header, sizeof header);
    buf_append(out, record->values, sizeof record->values);
    buf_append(out, record->ids, record->id_count * sizeof record->ids[0]);
}

void counters_decode(struct span bytes, struct counters_folded *ret_record)
{
    struct record_header header;
    size_t words = bytes.bytes < sizeof header ? 0 : (bytes.bytes - sizeof header) / 8;

    *ret_record = (struct counters_folded){ .id_count = 0 };
    if (bytes.bytes < sizeof header) {
        return;
    }
    memcpy(&header, bytes.data, sizeof header);
    if (header.magic != page_magic || header.count > words ||
            header.id_count > words - header.count || header.id_count > COUNTERS_FOLDED_MAX) {
        return;
    }
    const uint8_t *values = bytes.data + sizeof header;
    memcpy(ret_record->values, values, MIN((size_t)header.count, (size_t)COUNTER_COUNT) * 8);
    memcpy(ret_record->ids, values + header.count * 8, (size_t)header.id_count * 8);
    ret_record->id_count = (size_t)header.id_count;
    ret_record->values[COUNTER_WATCHERS] = 0;
}

typedef bool (*dead_fn)(void *user, int fd, uint64_t id);

/* Calls fn for each page whose holder is dead, locked, until it returns false. */
static void walk_dead(const char *dir, dead_fn fn, void *user)
{
    char path[PATH_BYTES_MAX + 256];
    bool go_on = true;
    uint64_t id;
    DIR *entries = opendir(dir);

    if (entries == NULL) {
        return;
    }
    for (struct dirent *entry; go_on && (entry = readdir(entries)) != NULL;) {
        if (!page_id(entry->d_name, &id)) {
            continue;
        }
        (void)snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        int fd = lock_page(path, 0);
        if (fd >= 0) {
            go_on = fn(user, fd, id);
            (void)close(fd);
        }
    }
    (void)closedir(entries);
}

static bool note_dead(void *user, int fd, uint64_t id)
{
    bool *has_dead = user;
    (void)fd;
    (void)id;
    *has_dead = true;
    return false;
}

bool counters_has_dead(const char *dir)
{
    bool has_dead = false;

    walk_dead(dir, note_dead, &has_dead);
    return has_dead;
}

struct round {
    const struct counters_folded *committed;
    struct counters_folded next;
    bool has_more; /* than was committed */
};

/* The pages that are in the record's sums go; the record keeps naming those that cannot be removed. */
static void remove_folded(const char *dir, struct round *round)
{
    char path[PATH_BYTES_MAX + 64];

    for (size_t i = 0; i < round->committed->id_count; i++) {
        uint64_t id = round->committed->ids[i];
        (void)snprintf(path, sizeof path, "%s/%s%016" PRIx64, dir, page_prefix, id);
        if (unlink(path) != 0 && errno != ENOENT) {
            round->next.ids[round->next.id_count++] = id;
        }
    }
}

static bool fold_one(void *user, int fd, uint64_t id)
{
    struct round *round = user;

    if (has_id(round->committed, id)) {
        return true; /* could not be removed */
    }
    if (round->next.id_count == COUNTERS_FOLDED_MAX) {
        return false;
    }
    add_page(fd, true, round->next.values);
    round->next.ids[round->next.id_count++] = id;
    round->has_more = true;
    return true;
}

bool counters_fold(const char *dir, struct counters_folded *record)
{
    struct round round = { .committed = record };

    memcpy(round.next.values, record->values, sizeof round.next.values);
    remove_folded(dir, &round);
    walk_dead(dir, fold_one, &round);
    if (round.has_more) {
        *record = round.next;
    }
    return round.has_more;
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
