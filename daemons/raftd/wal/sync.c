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

/* Takes the first that is open and idle, under mutex; WAL_SYNCS_MAX: none. */
static unsigned take_idle(struct wal *wal)
{
    if (!wal->sync_files[0].is_busy) { /* else it is there, and being read */
        wal->sync_files[0].fd = wal->file.fd;
    }
    for (unsigned i = 0; i < WAL_SYNCS_MAX; i++) {
        struct sync_file *file = &wal->sync_files[i];
        if (file->fd >= 0 && !file->is_busy) {
            file->is_busy = true;
            return i;
        }
    }
    return WAL_SYNCS_MAX;
}

/* Where one more may be opened, under mutex; WAL_SYNCS_MAX: nowhere. It stays so until the caller has been there: nobody else
 * opens any. */
static unsigned find_closed(const struct wal *wal)
{
    unsigned i = 0;
    while (i < WAL_SYNCS_MAX && wal->sync_files[i].fd >= 0) {
        i++;
    }
    return i;
}

static int open_again(struct wal *wal)
{
    struct segment last = wal_last_segment(wal);
    char name[NAMES_SEGMENT_BYTES];
    names_format(&last.name, name);
    return wal->io->open(wal->io->user, wal->dir_fd, name, true);
}

/* One that is idle, or one more; where that cannot be opened the next to come free: slower, never wrong. */
static unsigned take_file(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    unsigned taken = take_idle(wal);
    unsigned closed = find_closed(wal);
    (void)pthread_mutex_unlock(&wal->mutex);
    if (taken < WAL_SYNCS_MAX) {
        return taken;
    }
    int fd = closed < WAL_SYNCS_MAX ? open_again(wal) : -1;
    (void)pthread_mutex_lock(&wal->mutex);
    if (fd >= 0) {
        wal->sync_files[closed].fd = fd;
    }
    for (taken = take_idle(wal); taken == WAL_SYNCS_MAX; taken = take_idle(wal)) {
        (void)pthread_cond_wait(&wal->sync_ended, &wal->mutex);
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
