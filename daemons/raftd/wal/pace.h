/* pace.h: when the next batch of the log goes to the disk. Pure.
 *
 * On a fast disk one sync follows the other, and what comes meanwhile is the next batch. On a slow one that would make
 * clients wait for two: the rest of the sync under way, and their own. What helps depends on the disk.
 *
 * - A disk that takes several flushes at once (one behind a network, a controller, a hypervisor) needs about as long
 *   for each as for one alone. There syncs overlap, their beginnings spread over the time that one takes: a batch waits
 *   for no more than its share of that.
 * - A disk that does one flush after the other gains nothing by that. There a batch waits for company: clients
 *   that got their answer come back soon, and taken along they cost nothing, left behind a whole sync. It waits
 *   until as many entries are there as were just synced and had queued up meanwhile, for that is how many clients there
 *   are; half a sync at most, and where waiting brought nobody it is left for a while.
 *
 * Which it is, is measured: now and then a few batches are tried the other way. */
#pragma once

#include "common/macros.h"

struct pace {
    unsigned syncs_max; /* that may be under way; the owner's */
    uint64_t sync_us;   /* what a batch took to be written and synced, moving average */
    uint64_t alone_us;  /* those that had the disk for themselves */
    uint64_t beside_us; /* those that began while another was under way; 0: not known */
    bool overlaps;      /* syncs may overlap, by what is known */
    unsigned trial;     /* batches left of a trial of the other way */
    unsigned until_trial;

    size_t expected;    /* entries that are probably on their way or here */
    unsigned skip;      /* batches that are not to wait */
    unsigned skip_next; /* how many it will be after the next wait in vain */
};

/* How many syncs may be under way at once. */
unsigned pace_syncs(const struct pace *pace);

/* How long a batch should wait, at most, and how many entries are company enough to go at once. */
struct pace_wait {
    uint64_t wait_us; /* 0: not at all */
    size_t enough;
};
struct pace_now {
    size_t queued;          /* entries there, at least 1 */
    unsigned under_way;     /* syncs */
    uint64_t since_last_us; /* the last one began */
};
struct pace_wait pace_wait(const struct pace *pace, const struct pace_now *now);

/* A batch took sync_us. */
struct pace_batch {
    size_t count; /* entries in it */
    size_t began; /* how many were there before it waited */
    bool was_waiting;
    bool was_beside; /* another was under way when its sync began */
    size_t queued;   /* entries that came while it was synced */
    uint64_t sync_us;
};
void pace_done(struct pace *pace, const struct pace_batch *batch);
