#include "daemons/raftd/wal/wal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/lockfile.h"
#include "daemons/raftd/wal/internal.h"

enum {
    RESERVE_SHARE = 64
};

/* ---- The final error ------------------------------------------------------------------------------------------ */

int wal_check_failed(struct wal *wal, struct err *err)
{
    (void)pthread_mutex_lock(&wal->mutex);
    int r = wal->failed.code;
    if (r < 0) {
        (void)err_set(err, r, "the log failed before: %s", wal->failed.text);
    }
    (void)pthread_mutex_unlock(&wal->mutex);
    return r;
}

int wal_fail(struct wal *wal, struct err *err, int r)
{
    INVARIANT(r < 0);
    r = is_no_space(r) ? -EIO : r; /* -ENOSPC would promise that the log goes on */
    if (err != NULL) {
        err->code = r;
    }
    (void)pthread_mutex_lock(&wal->mutex);
    if (wal->failed.code == 0) {
        (void)err_set(&wal->failed, r, "%s", err == NULL ? "no text" : err->text);
    }
    (void)pthread_mutex_unlock(&wal->mutex);
    return r;
}

/* ---- Segments ------------------------------------------------------------------------------------------------- */

void wal_add_segment(struct wal *wal, const struct segment *segment)
{
    (void)pthread_mutex_lock(&wal->mutex);
    if (wal->segment_count == wal->segment_capacity) {
        wal->segment_capacity = MAX((size_t)16, wal->segment_capacity * 2);
        wal->segments = xrealloc(wal->segments, wal->segment_capacity * sizeof(wal->segments[0]));
    }
    wal->segments[wal->segment_count++] = *segment;
    (void)pthread_mutex_unlock(&wal->mutex);
}

struct segment wal_last_segment(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    INVARIANT_LT(0, wal->segment_count);
    struct segment segment = wal->segments[wal->segment_count - 1];
    (void)pthread_mutex_unlock(&wal->mutex);
    return segment;
}

void wal_set_base(struct wal *wal, const struct wal_base *base)
{
    wal->base = *base;
    if (base->configuration.data != wal->base_configuration.data) {
        buf_clear(&wal->base_configuration);
        buf_append_span(&wal->base_configuration, base->configuration);
    }
    wal->base.configuration = buf_span(&wal->base_configuration);
}

void wal_set_snapshot(struct wal *wal, const struct wal_snapshot *snapshot)
{
    INVARIANT(snapshot->configuration.data == NULL ||
              snapshot->configuration.data != wal->snapshot_configuration.data);
    wal->snapshot = *snapshot;
    wal->has_snapshot = true;
    buf_clear(&wal->snapshot_configuration);
    buf_append_span(&wal->snapshot_configuration, snapshot->configuration);
    wal->snapshot.configuration = buf_span(&wal->snapshot_configuration);
}

/* ---- Life ----------------------------------------------------------------------------------------------------- */

static struct wal *wal_new(const struct wal_config *config)
{
    struct wal *wal = xcalloc(1, sizeof(*wal));
    wal->dir = xstrdup(config->dir);
    wal->segment_bytes =
            config->segment_bytes == 0 ? WAL_SEGMENT_BYTES_DEFAULT : config->segment_bytes;
    wal->segment_bytes = record_padded(wal->segment_bytes);
    wal->reserve_bytes =
            config->reserve_bytes == 0 ? wal->segment_bytes / RESERVE_SHARE : config->reserve_bytes;
    wal->io = config->io == NULL ? &wal_io_system : config->io;
    wal->dir_fd = wal->lock_fd = wal->file.fd = wal->spare.fd = wal->reader.fd = -1;
    wal->points = POINTS_INIT;
    (void)pthread_mutex_init(&wal->mutex, NULL);
    (void)pthread_mutex_init(&wal->read_mutex, NULL);
    (void)pthread_mutex_init(&wal->purge_mutex, NULL);
    (void)pthread_cond_init(&wal->spare_idle, NULL);
    (void)pthread_cond_init(&wal->sync_ended, NULL);
    for (size_t i = 0; i < WAL_SYNCS_MAX; i++) {
        wal->sync_files[i].fd = -1;
    }
    return wal;
}

/* A batch that says that the one before it was synced, so that a flipped bit in that one is not taken for a torn
 * tail after a quiet time. It promises nothing itself: no sync, and an error changes nothing. */
static void leave_mark(struct wal *wal)
{
    bool is_due = wal->mode == WAL_MODE_APPENDING && wal_check_failed(wal, NULL) == 0 &&
                  !wal->is_marked && wal->end == wal->synced &&
                  wal->end + RECORD_BATCH_BYTES <= wal->file.capacity;
    if (is_due) {
        struct segment last = wal_last_segment(wal);
        (void)file_write_mark(wal, wal->dir, wal->file.fd, wal->end, last.salt, &wal->crc, NULL);
    }
}

struct wal *wal_close(struct wal *wal)
{
    if (wal == NULL) {
        return NULL;
    }
    sync_await_none(wal);
    leave_mark(wal);
    reader_fini(&wal->reader);
    sync_close_files(wal);
    file_close(wal, &wal->file);
    file_close(wal, &wal->spare);
    if (wal->dir_fd >= 0) {
        (void)close(wal->dir_fd);
    }
    if (wal->lock_fd >= 0) {
        (void)close(wal->lock_fd);
    }
    (void)pthread_mutex_destroy(&wal->mutex);
    (void)pthread_mutex_destroy(&wal->read_mutex);
    (void)pthread_mutex_destroy(&wal->purge_mutex);
    (void)pthread_cond_destroy(&wal->spare_idle);
    (void)pthread_cond_destroy(&wal->sync_ended);
    replay_drop_footings(wal);
    buf_fini(&wal->base_configuration);
    buf_fini(&wal->snapshot_configuration);
    buf_fini(&wal->staging);
    buf_fini(&wal->parts);
    buf_fini(&wal->window);
    points_fini(&wal->points);
    free(wal->segments);
    free(wal->dir);
    free(wal);
    return NULL;
}

static void wal_closep(struct wal **wal)
{
    *wal = wal_close(*wal);
}

static int open_dir(struct wal *wal, struct err *err)
{
    wal->dir_fd = open(wal->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return wal->dir_fd < 0 ? err_errno(err, "open %s", wal->dir) : 0;
}

static int lock_dir(struct wal *wal, struct err *err)
{
    char path[4096];
    int bytes = snprintf(path, sizeof(path), "%s/LOCK", wal->dir);
    if (bytes < 0 || (size_t)bytes >= sizeof(path)) {
        return err_set(err, -ENAMETOOLONG, "%s", wal->dir);
    }
    TRY(open_dir(wal, err));
    int result = lockfile_open(path, &wal->lock_fd, err);
    if (result == -EWOULDBLOCK) {
        (void)err_prefix(err, "open wal error: file already locked");
        (void)err_mend(err, "stop that process, or give --data-dir another folder");
    }
    return result;
}

static int has_segments(const struct wal_io *io, int dir_fd, struct err *err)
{
    struct names_segment *segments = NULL;
    size_t segment_count = 0;
    int r = names_list(io, dir_fd, &segments, &segment_count, err);
    free(segments);
    return r < 0 ? r : segment_count > 0;
}

static int exists(const struct wal_io *io, const char *dir, struct err *err)
{
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        return errno == ENOENT ? 0 : err_errno(err, "open %s", dir);
    }
    int r = has_segments(io, dir_fd, err);
    (void)close(dir_fd);
    return r;
}

int wal_exists(const char *dir, struct err *err)
{
    return exists(&wal_io_system, dir, err);
}

/* ---- A new log ------------------------------------------------------------------------------------------------ */

static uint64_t first_segment_bytes(const struct wal *wal, const struct wal_write *first)
{
    uint64_t bytes = file_head_bytes(wal) + wal->reserve_bytes;
    for (size_t i = 0; first != NULL && i < first->entry_count; i++) {
        bytes += record_padded(RECORD_ENTRY_BYTES + first->entries[i].data.bytes);
    }
    bytes += first == NULL ? 0 : RECORD_BATCH_BYTES + RECORD_HARD_STATE_BYTES;
    return MAX(wal->segment_bytes, record_padded(bytes));
}

/* Head and first write are in the file, and synced, before it gets its name. */
static int make_first_segment(struct wal *wal, const struct wal_write *first, struct err *err)
{
    struct segment segment = {
        .name = { .seq = 0, .first_index = wal->last_index + 1 },
        .is_scanned = true,
    };
    char name[NAMES_SEGMENT_BYTES];
    names_format(&segment.name, name);

    TRY(file_make(wal, NAMES_SPARE, first_segment_bytes(wal, first), &wal->file, err));
    segment.file_bytes = wal->file.capacity;
    TRY(file_write_head(wal, wal->file.fd, 0, &segment, &wal->end, &wal->crc, err));
    wal->zeroed = wal->end_shared = wal->end;
    wal_add_segment(wal, &segment);
    wal->mode = WAL_MODE_APPENDING;
    if (first != NULL) {
        INVARIANT(first->base == NULL);
        TRY(wal_append(wal, first, 1, err));
        INVARIANT_EQ(wal->segment_count, 1);
    }
    TRY(file_sync(wal, name, wal->file.fd, err));
    if (wal->io->rename(wal->io->user, wal->dir_fd, NAMES_SPARE, name) < 0) {
        return err_errno(err, "rename %s to %s", NAMES_SPARE, name);
    }
    TRY(file_sync_dir(wal, err));
    wal->synced = wal->end;
    wal->is_marked = first == NULL;
    return 0;
}

/* The folder above an open one; -1: there is none, or not for us. */
static int open_above(int fd)
{
    struct stat here;
    struct stat above;
    int above_fd = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_top =
            above_fd >= 0 && (fstat(fd, &here) < 0 || fstat(above_fd, &above) < 0 ||
                                     here.st_ino == above.st_ino || here.st_dev != above.st_dev);
    if (is_top) {
        (void)close(above_fd);
        return -1;
    }
    return above_fd;
}

/* Whoever made the folders that lead to the log may have made them just now: each name on the way must be on disk. Above the
 * log's own there may be some that are not ours to open. */
static int sync_parents(struct wal *wal, struct err *err)
{
    int fd = openat(wal->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return err_errno(err, "open the folder of %s", wal->dir);
    }
    int r = 0;
    while (r == 0 && fd >= 0) {
        r = file_sync(wal, "a folder that leads to the log", fd, err);
        int above_fd = open_above(fd);
        (void)close(fd);
        fd = above_fd;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return r;
}

static int create_in(struct wal *wal, const struct wal_write *first, struct err *err)
{
    TRY(lock_dir(wal, err));
    int is_there = has_segments(wal->io, wal->dir_fd, err);
    TRY(is_there);
    if (is_there > 0) {
        return err_set(err, -EEXIST, "%s holds a log already", wal->dir);
    }
    TRY(file_remove_unfinished(wal, err));
    int r = make_first_segment(wal, first, err);
    if (r == 0) {
        r = sync_parents(wal, err);
    }
    if (r < 0) {
        /* A segment that stays behind is whole but was never promised: the next start would find a log. */
        char name[NAMES_SEGMENT_BYTES];
        names_format(&(struct names_segment){ 0, wal->last_index + 1 }, name);
        (void)wal->io->unlink(wal->io->user, wal->dir_fd, name);
        (void)wal->io->unlink(wal->io->user, wal->dir_fd, NAMES_SPARE);
    }
    return r;
}

int wal_create(const struct wal_config *config, const struct wal_base *base,
        const struct wal_hard_state *hard, struct wal **ret_wal, struct err *err)
{
    return wal_create_with(config, base, hard, NULL, ret_wal, err);
}

int wal_create_with(const struct wal_config *config, const struct wal_base *base,
        const struct wal_hard_state *hard, const struct wal_write *first, struct wal **ret_wal,
        struct err *err)
{
    INVARIANT_LE(base->configuration.bytes, WAL_CONFIG_BYTES_MAX);
    CLEANUP(wal_closep) struct wal *wal = wal_new(config);
    bool is_made = mkdir(config->dir, 0700) == 0;
    if (!is_made && errno != EEXIST) {
        return err_errno(err, "create %s", config->dir);
    }
    wal_set_base(wal, base);
    wal->last_index = wal->base_index_synced = base->index;
    wal->purge_index_max = base->index + 1;
    wal->hard = *hard;

    int r = create_in(wal, first, err);
    if (r < 0) {
        wal->mode = WAL_MODE_BROKEN;
    }
    if (r < 0 && is_made) {
        (void)unlinkat(wal->dir_fd, "LOCK", 0);
        (void)rmdir(config->dir);
    }
    TRY(r);
    *ret_wal = MOVE(wal);
    return 0;
}

/* ---- An existing one ------------------------------------------------------------------------------------------ */

static int measure(const struct wal *wal, struct segment *segment, struct err *err)
{
    char name[NAMES_SEGMENT_BYTES];
    names_format(&segment->name, name);
    int fd = wal->io->open(wal->io->user, wal->dir_fd, name, false);
    if (fd < 0) {
        return err_errno(err, "open %s", name);
    }
    off_t file_bytes = wal->io->size(wal->io->user, fd);
    int r = file_bytes < 0 ? err_errno(err, "stat %s", name) : 0;
    wal->io->close(wal->io->user, fd);
    segment->file_bytes = r < 0 ? 0 : (uint64_t)file_bytes;
    return r;
}

static int list_segments(struct wal *wal, struct err *err)
{
    struct names_segment *names = NULL;
    size_t name_count = 0;
    TRY(names_list(wal->io, wal->dir_fd, &names, &name_count, err));
    int r = name_count == 0 ? err_set(err, -ENOENT, "%s holds no log", wal->dir)
                            : names_check_sequence(names, name_count, err);
    for (size_t i = 0; r == 0 && i < name_count; i++) {
        struct segment segment = { .name = names[i] };
        r = measure(wal, &segment, err);
        if (r == 0) {
            wal_add_segment(wal, &segment);
        }
    }
    free(names);
    return r;
}

/* What the head of the last segment says the log stands on: reading starts in the last segment that was begun
 * before an entry behind it was written. */
static int find_start(struct wal *wal, struct err *err)
{
    const struct segment *last = &wal->segments[wal->segment_count - 1];
    struct reader_batch batch;
    struct record record;
    uint64_t offset;
    int r = replay_open_segment(wal, last, &wal->reader, &batch, err);
    uint64_t base_index = 0;
    while (r == 0 && reader_next_record(&batch, &record, &offset)) {
        struct wal_record decoded;
        if (record.type == RECORD_BASE && record_decode(&record, &decoded)) {
            base_index = decoded.base.index;
        }
    }
    reader_fini(&wal->reader);
    TRY(r);
    wal->reading_first = 0;
    for (size_t i = 0; i < wal->segment_count; i++) {
        if (wal->segments[i].name.first_index <= base_index + 1) {
            wal->reading_first = i;
        }
    }
    wal->reading = wal->reading_first;
    return 0;
}

int wal_open(const struct wal_config *config, struct wal **ret_wal, struct err *err)
{
    CLEANUP(wal_closep) struct wal *wal = wal_new(config);

    wal->mode = WAL_MODE_READING;
    if (exists(wal->io, config->dir, NULL) == 0) {
        return err_set(err, -ENOENT, "%s holds no log", config->dir); /* and gets no LOCK file */
    }
    TRY(config->is_foreign ? open_dir(wal, err) : lock_dir(wal, err));
    TRY(list_segments(wal, err));
    TRY(find_start(wal, err));
    *ret_wal = MOVE(wal);
    return 0;
}

/* ---- Getters -------------------------------------------------------------------------------------------------- */

uint64_t wal_first_index(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    uint64_t first_index = points_lowest(&wal->points);
    const struct segment *first = &wal->segments[0];
    bool has_older = !first->is_scanned && first->name.seq >= wal->void_before_seq;
    if (has_older) {
        first_index = MIN(first_index, first->name.first_index);
    }
    if (first_index == UINT64_MAX) {
        first_index = wal->last_index + 1;
    }
    (void)pthread_mutex_unlock(&wal->mutex);
    return first_index;
}

uint64_t wal_last_index(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    uint64_t last_index = wal->last_index;
    (void)pthread_mutex_unlock(&wal->mutex);
    return last_index;
}

size_t wal_segment_count(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    size_t segment_count = wal->segment_count;
    (void)pthread_mutex_unlock(&wal->mutex);
    return segment_count;
}

uint64_t wal_disk_bytes(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    uint64_t bytes = wal->spare.fd >= 0 ? wal->spare.capacity : 0;
    for (size_t i = 0; i < wal->segment_count; i++) {
        bytes += wal->segments[i].file_bytes;
    }
    (void)pthread_mutex_unlock(&wal->mutex);
    return bytes;
}

uint64_t wal_torn_bytes(const struct wal *wal)
{
    return wal->torn_bytes;
}
