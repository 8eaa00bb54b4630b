#include "daemons/raftd/wal/gather.h"

enum {
    SYNC_US_MIN = 500, /* a faster disk is not worth a wait: it costs more than it brings */
    WAIT_US_MAX = 5000,
    SKIP_FIRST = 8,
    SKIP_MAX = 1024,
};

uint64_t gather_wait_us(const struct gather *gather, size_t queued)
{
    if (queued == 0 || gather->skip > 0 || gather->sync_us < SYNC_US_MIN ||
            queued >= gather->expected) {
        return 0;
    }
    return MIN(gather->sync_us / 2, (uint64_t)WAIT_US_MAX);
}

void gather_done(struct gather *gather, const struct gather_batch *batch)
{
    gather->sync_us =
            gather->sync_us == 0 ? batch->sync_us : (gather->sync_us * 7 + batch->sync_us) / 8;
    bool has_paid =
            batch->count >= gather->expected || batch->count > batch->began + batch->began / 4;
    gather->expected = batch->count + batch->queued;
    if (!batch->was_waiting) {
        gather->skip -= gather->skip > 0;
    } else if (has_paid) {
        gather->skip_next = SKIP_FIRST;
    } else {
        gather->skip_next = MAX(gather->skip_next, (unsigned)SKIP_FIRST);
        gather->skip = gather->skip_next;
        gather->skip_next = MIN(gather->skip_next * 2, (unsigned)SKIP_MAX);
    }
}
