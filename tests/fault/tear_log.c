/* tear_log DIR FROM TO SCRATCH EVERY: opens a raftd's log torn at every byte of a region, in one process.
 *
 * DIR is a log's folder (it is not changed) whose last segment was written beyond FROM and not synced; TO is where what was
 * written ends. For each offset of FROM..TO the folder is copied to SCRATCH, and the copy's last segment is cut there, or
 * goes on with zeros, with something else, or with what was written but for eight bytes. Each must open, have every entry that
 * the log has before FROM, those behind it as far as they go, and no others; at each EVERYth offset it must take one more entry, and
 * be whole when it is opened again.
 *
 * Says "N openings: K with all that was written, L without a part of it", or the first that was wrong, and ends with 1. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/crc32c.h"
#include "daemons/raftd/wal/names.h"
#include "daemons/raftd/wal/wal.h"

enum {
    PATH_BYTES = 1024,
    SEGMENTS_MAX = 64,
    HOLE_BYTES = 8,
};

static const char *const hows[] = { "cut", "zeros", "garbage", "hole" };

/* What a log amounts to, as far as entries go. */
struct content {
    uint64_t base_index;
    uint64_t last_index;
    uint64_t torn_bytes;
    uint32_t *sums; /* of the entries, by index */
    size_t capacity;
};

struct file {
    char name[NAMES_SEGMENT_BYTES];
    struct buf data; /* without the zeros at the end */
    off_t bytes;
};

static struct file files[SEGMENTS_MAX];
static size_t file_count;

NORETURN static void give_up(const char *what, const struct err *err)
{
    (void)printf("%s: %s\n", what, err == NULL ? strerror(errno) : err->text);
    exit(1);
}

/* --- the folder ----------------------------------------------------------------------------------------------- */

static int compare_files(const void *a, const void *b)
{
    return strcmp(((const struct file *)a)->name, ((const struct file *)b)->name);
}

static void read_file(const char *dir, struct file *file)
{
    char path[PATH_BYTES];
    struct stat status;

    (void)snprintf(path, sizeof path, "%s/%s", dir, file->name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) {
        give_up(path, NULL);
    }
    file->bytes = status.st_size;
    uint8_t *data = buf_reserve(&file->data, (size_t)file->bytes);
    if (pread(fd, data, (size_t)file->bytes, 0) != file->bytes) {
        give_up(path, NULL);
    }
    (void)close(fd);
    file->data.bytes = (size_t)file->bytes;
    while (file->data.bytes > 0 && data[file->data.bytes - 1] == 0) {
        file->data.bytes--;
    }
}

static void read_folder(const char *dir)
{
    DIR *stream = opendir(dir);
    const struct dirent *entry;
    struct names_segment segment;

    if (stream == NULL) {
        give_up(dir, NULL);
    }
    while ((entry = readdir(stream)) != NULL) {
        if (names_parse(entry->d_name, &segment) && file_count < SEGMENTS_MAX) {
            names_format(&segment, files[file_count].name);
            read_file(dir, &files[file_count++]);
        }
    }
    (void)closedir(stream);
    if (file_count == 0) {
        give_up("no segment in the folder", NULL);
    }
    qsort(files, file_count, sizeof files[0], compare_files);
}

static void empty_folder(const char *dir)
{
    char path[PATH_BYTES];
    const struct dirent *entry;
    DIR *stream = opendir(dir);

    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        (void)unlink(path);
    }
    if (stream != NULL) {
        (void)closedir(stream);
    }
    (void)mkdir(dir, 0700);
}

static void write_file(const char *dir, const char *name, struct span data, off_t bytes)
{
    char path[PATH_BYTES];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || pwrite(fd, data.data, data.bytes, 0) != (ssize_t)data.bytes ||
            ftruncate(fd, bytes) != 0) {
        give_up(path, NULL);
    }
    (void)close(fd);
}

/* The copy, its last segment torn at the offset. */
static void write_torn(const char *dir, size_t how, uint64_t offset, uint64_t end)
{
    const struct file *last = &files[file_count - 1];
    struct buf data = BUF_INIT;
    size_t left = (size_t)(end - offset);
    off_t bytes = last->bytes;

    empty_folder(dir);
    for (size_t i = 0; i + 1 < file_count; i++) {
        write_file(dir, files[i].name, buf_span(&files[i].data), files[i].bytes);
    }
    memset(buf_reserve(&data, (size_t)end), 0, (size_t)end);
    memcpy(data.data, last->data.data, MIN(last->data.bytes, (size_t)end));
    data.bytes = (size_t)end;
    switch (hows[how][0]) {
    case 'c':
        bytes = (off_t)offset;
        break;
    case 'z':
        memset(data.data + offset, 0, left);
        break;
    case 'g':
        memset(data.data + offset, 0xa5, left);
        break;
    default:
        memset(data.data + offset, 0xff, MIN(left, (size_t)HOLE_BYTES));
        break;
    }
    write_file(dir, last->name, buf_span(&data), bytes);
    buf_fini(&data);
}

/* --- the log -------------------------------------------------------------------------------------------------- */

static void note(struct content *content, const struct wal_record *record)
{
    if (record->kind == WAL_RECORD_BASE) {
        content->base_index = record->base.index;
        content->last_index = MAX(content->last_index, record->base.index);
    } else if (record->kind == WAL_RECORD_CUT) {
        content->last_index = MIN(content->last_index, record->cut_index);
    } else if (record->kind == WAL_RECORD_ENTRY) {
        const struct wal_entry *entry = &record->entry;
        if (entry->index >= content->capacity) {
            content->capacity = (size_t)entry->index * 2 + 16;
            content->sums = xrealloc(content->sums, content->capacity * sizeof content->sums[0]);
        }
        uint64_t head[] = { entry->index, entry->term, entry->time_ns, entry->kind };
        uint32_t sum = crc32c(0, head, sizeof head);
        content->sums[entry->index] = crc32c(sum, entry->data.data, entry->data.bytes);
        content->last_index = entry->index;
    }
}

/* Reads all. The log, ready for appending, if wanted. */
static void read_log(
        const char *dir, struct content *content, struct wal **ret_wal, const char *what)
{
    struct wal_config config = { .dir = dir };
    struct wal *wal = NULL;
    struct wal_record record;
    struct err err = { 0 };
    int r = wal_open(&config, &wal, &err);

    content->base_index = content->last_index = 0;
    while (r >= 0 && (r = wal_read(wal, &record, &err)) > 0) {
        note(content, &record);
    }
    content->torn_bytes = r == 0 ? wal_torn_bytes(wal) : 0;
    if (r == 0 && ret_wal != NULL) {
        r = wal_start_append(wal, &err);
    }
    if (r < 0) {
        give_up(what, &err);
    }
    if (ret_wal != NULL) {
        *ret_wal = wal;
    } else {
        (void)wal_close(wal);
    }
}

static void expect_same(
        const struct content *is, const struct content *should, uint64_t last, const char *what)
{
    for (uint64_t index = should->base_index + 1; index <= last; index++) {
        if (index > is->last_index || is->sums[index] != should->sums[index]) {
            (void)printf("%s: entry %" PRIu64 " is lost or another\n", what, index);
            exit(1);
        }
    }
}

static void append_one(struct wal *wal, uint64_t index, const char *what)
{
    struct wal_entry entry = {
        .index = index, .term = UINT32_MAX, .time_ns = UINT64_MAX / 2, .data = SPAN_LIT("more")
    };
    struct wal_hard_state hard = { .term = UINT32_MAX };
    struct wal_write write = { .hard = &hard, .entries = &entry, .entry_count = 1 };
    struct err err = { 0 };

    if (wal_append(wal, &write, 1, &err) < 0 || wal_sync(wal, &err) < 0) {
        give_up(what, &err);
    }
}

/* Whether what was written all came back. Several batches may have been on their way: those before the tear may be kept. */
static bool try_one(const char *dir, const struct content *whole, uint64_t synced_last,
        bool goes_on, const char *what)
{
    static struct content content;
    struct wal *wal = NULL;

    read_log(dir, &content, goes_on ? &wal : NULL, what);
    uint64_t last = content.last_index;
    if (last < synced_last || last > whole->last_index) {
        (void)printf("%s: the log ends with entry %" PRIu64 "\n", what, last);
        exit(1);
    }
    expect_same(&content, whole, last, what);
    if (goes_on) {
        append_one(wal, last + 1, what);
        (void)wal_close(wal);
        read_log(dir, &content, NULL, what);
        expect_same(&content, whole, last, what);
        if (content.last_index != last + 1 || content.torn_bytes != 0) {
            (void)printf("%s: what was appended behind the cut is lost\n", what);
            exit(1);
        }
    }
    return last == whole->last_index;
}

int main(int argc, char **argv)
{
    struct content whole = { 0 };
    struct content synced = { 0 };
    unsigned kept = 0;
    unsigned lost = 0;

    if (argc != 6) {
        (void)fprintf(stderr, "tear_log DIR FROM TO SCRATCH EVERY\n");
        return 2;
    }
    uint64_t from = strtoull(argv[2], NULL, 10);
    uint64_t to = strtoull(argv[3], NULL, 10);
    const char *dir = argv[4];
    uint64_t every = MAX(strtoull(argv[5], NULL, 10), 1ULL);
    read_folder(argv[1]);
    write_torn(dir, 1, to, to); /* nothing is torn: what was written may end with zeros */
    read_log(dir, &whole, NULL, "the log as it is");
    write_torn(dir, 0, from, to);
    read_log(dir, &synced, NULL, "the log as far as it was synced");
    if (synced.last_index >= whole.last_index || from >= to) {
        (void)printf("nothing was written behind %" PRIu64 "\n", from);
        return 1;
    }
    for (size_t how = 0; how < ARRAY_COUNT(hows); how++) {
        for (uint64_t offset = from; offset <= to; offset++) {
            char what[64];
            (void)snprintf(what, sizeof what, "%s at %" PRIu64, hows[how], offset);
            write_torn(dir, how, offset, to);
            bool all = try_one(dir, &whole, synced.last_index, offset % every == 0, what);
            kept += all;
            lost += !all;
        }
    }
    empty_folder(dir);
    (void)rmdir(dir);
    (void)printf("%u openings: %u with all that was written, %u without a part of it\n",
            kept + lost, kept, lost);
    return 0;
}
