#include "daemons/raftd/wal/pace.h"

enum {
    SYNC_US_MIN =
            500, /* a faster disk is worth neither a wait nor a thread: both cost more than they bring */
    WAIT_US_MAX = 5000,
    SKIP_FIRST = 8,
    SKIP_MAX = 1024,
    TRIAL_EVERY = 512,
    TRIAL_ALONE = 8,
    TRIAL_BESIDE = 32, /* more: only some of them begin while another is under way */
};

static bool is_slow(const struct pace *pace)
{
    return pace->sync_us >= SYNC_US_MIN;
}

static bool is_overlapping(const struct pace *pace)
{
    return is_slow(pace) && pace->overlaps == (pace->trial == 0);
}

unsigned pace_syncs(const struct pace *pace)
{
    return is_overlapping(pace) ? pace->syncs_max : 1;
}

struct pace_wait pace_wait(const struct pace *pace, const struct pace_now *now)
{
    if (is_overlapping(pace)) {
        uint64_t share_us = now->under_way > 0 ? pace->sync_us / pace->syncs_max : 0;
        uint64_t wait_us = share_us - MIN(share_us, now->since_last_us);
        return (struct pace_wait){ .wait_us = wait_us, .enough = SIZE_MAX };
    }
    if (pace->skip > 0 || !is_slow(pace) || now->queued >= pace->expected) {
        return (struct pace_wait){ .enough = pace->expected };
    }
    uint64_t wait_us = MIN(pace->sync_us / 2, (uint64_t)WAIT_US_MAX);
    return (struct pace_wait){ .wait_us = wait_us, .enough = pace->expected };
}

static void average(uint64_t *mean_us, uint64_t sample_us, unsigned weight)
{
    *mean_us = *mean_us == 0 ? sample_us : (*mean_us * (weight - 1) + sample_us) / weight;
}

/* A sample counts for no more than twice what is usual: a machine that is busy elsewhere says nothing about the disk. */
static void learn_disk(struct pace *pace, const struct pace_batch *batch)
{
    uint64_t usual_us = pace->alone_us > 0 ? pace->alone_us : batch->sync_us;
    uint64_t sample_us = MIN(batch->sync_us, 2 * usual_us);
    average(batch->was_beside ? &pace->beside_us : &pace->alone_us, sample_us, 16);
}

/* A disk that does one after the other needs half as long again for one that begins anywhere in another's time, and
 * twice as long where several are waiting. */
static void judge(struct pace *pace)
{
    if (pace->alone_us > 0 && pace->beside_us > 0) {
        pace->overlaps = pace->beside_us < pace->alone_us + pace->alone_us / 2;
    }
}

static void count_trial(struct pace *pace, size_t queued)
{
    bool is_without_effect = queued == 0 && !pace->overlaps; /* nobody would have gone earlier */
    if (pace->trial > 0) {
        pace->trial--;
        if (pace->trial == 0) {
            judge(pace);
            pace->until_trial = TRIAL_EVERY;
        }
    } else if (is_without_effect) {
        return;
    } else if (pace->until_trial > 0) {
        pace->until_trial--;
    } else if (is_slow(pace)) {
        pace->trial = pace->overlaps ? TRIAL_ALONE : TRIAL_BESIDE;
    }
}

static void learn_waiting(struct pace *pace, const struct pace_batch *batch)
{
    bool has_paid =
            batch->count >= pace->expected || batch->count > batch->began + batch->began / 4;
    pace->expected = batch->count + batch->queued;
    if (!batch->was_waiting) {
        pace->skip -= pace->skip > 0;
    } else if (has_paid) {
        pace->skip_next = SKIP_FIRST;
    } else {
        pace->skip_next = MAX(pace->skip_next, (unsigned)SKIP_FIRST);
        pace->skip = pace->skip_next;
        pace->skip_next = MIN(pace->skip_next * 2, (unsigned)SKIP_MAX);
    }
}

void pace_done(struct pace *pace, const struct pace_batch *batch)
{
    average(&pace->sync_us, batch->sync_us, 8);
    learn_disk(pace, batch);
    if (!is_overlapping(pace)) {
        learn_waiting(pace, batch);
    }
    if (pace->overlaps && pace->trial == 0) {
        judge(pace); /* the disk may have changed its ways */
    }
    count_trial(pace, batch->queued);
}
