/* spare.c: the next segment's file, allocated before it is needed, so that a full disk is seen in time and the
 * turn to a new segment costs no allocation. */
#include <errno.h>

#include "daemons/raftd/wal/internal.h"

/* Under mutex. From half of the segment on: early enough, and an idle log takes one segment's space, not two. Once
 * there was no space it is always due, or nobody would notice that there is some again. */
static bool is_spare_due(const struct wal *wal)
{
    bool is_needed = wal->is_spare_refused ||
                     wal->end_shared >= wal->segments[wal->segment_count - 1].file_bytes / 2;
    return is_needed && wal->spare.fd < 0 && !wal->is_spare_busy && wal->failed.code == 0;
}

bool wal_wants_prepare(struct wal *wal)
{
    INVARIANT(wal->mode == WAL_MODE_APPENDING);
    (void)pthread_mutex_lock(&wal->mutex);
    bool wants = is_spare_due(wal);
    (void)pthread_mutex_unlock(&wal->mutex);
    return wants;
}

bool wal_has_space(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    bool has_space = !wal->is_spare_refused;
    (void)pthread_mutex_unlock(&wal->mutex);
    return has_space;
}

/* For whoever has set is_spare_busy, so there is one maker at a time. */
static int make_spare(struct wal *wal, uint64_t bytes, struct err *err)
{
    struct wal_file file = { .fd = -1 };
    int r = file_make(wal, NAMES_SPARE, bytes, &file, err);

    (void)pthread_mutex_lock(&wal->mutex);
    if (r == 0) {
        wal->spare = file;
    }
    wal->is_spare_refused = r == -ENOSPC;
    (void)pthread_mutex_unlock(&wal->mutex);
    return r;
}

void spare_release(struct wal *wal)
{
    (void)pthread_mutex_lock(&wal->mutex);
    INVARIANT(wal->is_spare_busy);
    wal->is_spare_busy = false;
    (void)pthread_cond_broadcast(&wal->spare_idle);
    (void)pthread_mutex_unlock(&wal->mutex);
}

int wal_prepare_next(struct wal *wal, struct err *err)
{
    INVARIANT(wal->mode == WAL_MODE_APPENDING);
    (void)pthread_mutex_lock(&wal->mutex);
    bool is_mine = is_spare_due(wal);
    wal->is_spare_busy |= is_mine;
    (void)pthread_mutex_unlock(&wal->mutex);
    if (!is_mine) {
        return 0;
    }
    int r = make_spare(wal, wal->segment_bytes, err);
    spare_release(wal);
    return r;
}

int spare_take(struct wal *wal, uint64_t bytes, struct wal_file *ret_file, struct err *err)
{
    (void)pthread_mutex_lock(&wal->mutex);
    while (wal->is_spare_busy) {
        (void)pthread_cond_wait(&wal->spare_idle, &wal->mutex);
    }
    wal->is_spare_busy = true;
    struct wal_file too_small = { .fd = -1 };
    if (wal->spare.fd >= 0 && wal->spare.capacity < bytes) {
        too_small = wal->spare; /* a batch larger than a segment: the file is made anew */
        wal->spare = (struct wal_file){ .fd = -1 };
    }
    bool is_missing = wal->spare.fd < 0;
    (void)pthread_mutex_unlock(&wal->mutex);

    file_close(wal, &too_small);
    int r = is_missing ? make_spare(wal, MAX(bytes, wal->segment_bytes), err) : 0;
    if (r < 0) {
        spare_release(wal);
        return r;
    }
    (void)pthread_mutex_lock(&wal->mutex);
    *ret_file = wal->spare;
    wal->spare = (struct wal_file){ .fd = -1 };
    (void)pthread_mutex_unlock(&wal->mutex);
    return 0;
}
