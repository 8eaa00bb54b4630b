/* gather.h: how long a batch should wait for company before it is synced. Pure.
 *
 * Clients that wait for their answers come back soon after they have got them: those of the batch that was just
 * synced are on their way when the next could begin. Taken along they cost nothing; left behind they wait a whole sync,
 * and two halves take turns for ever. So where a sync is slow, a batch waits until as many entries are there as were
 * just synced and had queued up meanwhile: that is how many clients there are. It waits half a sync at most, and where
 * waiting brought nobody it is left for a while. */
#pragma once

#include "common/macros.h"

struct gather {
    uint64_t sync_us;   /* moving average */
    size_t expected;    /* entries that are probably on their way or here */
    unsigned skip;      /* batches that are not to wait */
    unsigned skip_next; /* how many it will be after the next wait in vain */
};

/* How long to wait at most with `queued` entries there; 0: not at all. Once `expected` are there, no longer. */
uint64_t gather_wait_us(const struct gather *gather, size_t queued);

/* A batch took sync_us. */
struct gather_batch {
    size_t count; /* entries in it */
    size_t began; /* how many were there before it waited */
    bool was_waiting;
    size_t queued; /* entries that came while it was synced */
    uint64_t sync_us;
};
void gather_done(struct gather *gather, const struct gather_batch *batch);
