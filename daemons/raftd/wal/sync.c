/* sync.c: what was appended becomes durable. Several syncs may be on their way at once, each on an open file description
 * of its own; their results are taken in the order in which they began, so `synced` moves over no gap. */
#include <errno.h>

#include "daemons/raftd/wal/internal.h"

uint64_t wal_synced(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    uint64_t synced = wal->synced;
    (void)pthread_mutex_unlock(&wal->mutex);
    return synced;
}

void wal_set_synced(struct wal *wal, uint64_t synced)
{
    (void)pthread_mutex_lock(&wal->mutex);
    wal->synced = synced;
    (void)pthread_mutex_unlock(&wal->mutex);
}

/* ---- Files ---------------------------------------------------------------------------------------------------- */

/* Under mutex. */
static bool is_any_busy(const struct wal *wal)
{
    bool is_any = false;
    for (size_t i = 0; i < WAL_SYNCS_MAX; i++) {
        is_any |= wal->sync_files[i].is_busy;
    }
    return is_any;
}

void sync_await_none(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    while (is_any_busy(wal)) {
        (void)pthread_cond_wait(&wal->sync_ended, &wal->mutex);
    }
    (void)pthread_mutex_unlock(&wal->mutex);
}

void sync_close_files(struct wal *wal)
{
    wal->sync_files[0].fd = -1; /* the appending one's, not ours */
    for (size_t i = 1; i < WAL_SYNCS_MAX; i++) {
        if (wal->sync_files[i].fd >= 0) {
            wal->io->close(wal->io->user, wal->sync_files[i].fd);
            wal->sync_files[i].fd = -1;
        }
    }
}

/* Where it cannot be opened another one has to come free: slower, never wrong. */
static int open_again(const struct wal *wal)
{
    char name[NAMES_SEGMENT_BYTES];
    names_format(&wal->segments[wal->segment_count - 1].name, name);
    return wal->io->open(wal->io->user, wal->dir_fd, name, true);
}

/* Takes the first that is idle, under mutex; WAL_SYNCS_MAX: none. */
static unsigned take_idle(struct wal *wal)
{
    for (unsigned i = 0; i < WAL_SYNCS_MAX; i++) {
        struct sync_file *file = &wal->sync_files[i];
        if (file->is_busy) {
            continue;
        }
        if (file->fd < 0) {
            file->fd = i == 0 ? wal->file.fd : open_again(wal);
        }
        if (file->fd >= 0) {
            file->is_busy = true;
            return i;
        }
    }
    return WAL_SYNCS_MAX;
}

static unsigned take_file(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    unsigned taken = take_idle(wal);
    while (taken == WAL_SYNCS_MAX) {
        (void)pthread_cond_wait(&wal->sync_ended, &wal->mutex);
        taken = take_idle(wal);
    }
    (void)pthread_mutex_unlock(&wal->mutex);
    return taken;
}

/* ---- The steps ------------------------------------------------------------------------------------------------ */

int wal_sync_begin(struct wal *wal, struct wal_sync *ret_sync, struct err *err)
{
    INVARIANT(wal->mode == WAL_MODE_APPENDING);
    TRY(wal_check_failed(wal, err));
    if (wal->end == wal_synced(wal)) {
        return 0;
    }
    *ret_sync = (struct wal_sync){
        .end = wal->end,
        .base_index = wal->base.index,
        .file = take_file(wal),
    };
    return 1;
}

int wal_sync_run(struct wal *wal, const struct wal_sync *sync)
{
    int fd = wal->sync_files[sync->file].fd; /* stays as it is while busy */
    return wal->io->sync_data(wal->io->user, fd) < 0 ? -errno : 0;
}

/* Under mutex. */
static void note_synced(struct wal *wal, const struct wal_sync *sync)
{
    INVARIANT_LE(wal->synced, sync->end);
    wal->synced = sync->end;
    if (wal->base_index_synced != sync->base_index) {
        wal->base_index_synced = sync->base_index;
        wal->purge_index_max = sync->base_index + 1;
    }
}

int wal_sync_end(struct wal *wal, const struct wal_sync *sync, int result, struct err *err)
{
    int r = 0;
    if (result < 0) {
        errno = -result;
        r = err_errno(err, "fdatasync of the log in %s", wal->dir);
        r = wal_fail(wal, err, r);
    } else {
        r = wal_check_failed(wal, err); /* of one that began before */
    }
    (void)pthread_mutex_lock(&wal->mutex);
    if (r == 0) {
        note_synced(wal, sync);
    }
    wal->sync_files[sync->file].is_busy = false;
    (void)pthread_cond_broadcast(&wal->sync_ended);
    (void)pthread_mutex_unlock(&wal->mutex);
    return r;
}

int wal_sync(struct wal *wal, struct err *err)
{
    struct wal_sync sync;
    int r = wal_sync_begin(wal, &sync, err);
    return r <= 0 ? r : wal_sync_end(wal, &sync, wal_sync_run(wal, &sync), err);
}
