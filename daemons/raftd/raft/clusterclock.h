/* clusterclock.h: cluster time, as far as it is logic.
 *
 * Cluster time runs with CLOCK_BOOTTIME from the last value that the cluster has seen (in an entry or a heartbeat) and
 * never goes back, though what one member takes for it may: a new leader's word counts, who has all that was committed. Only a leader corrects it: towards the median of a quorum's wall clocks, by 1 % while the two are
 * less than a second apart or cluster time is ahead; by a step forward once the median was more than a second ahead for
 * three rounds. A leader that begins looks first, at the clocks that came with the votes: after a time without any leader
 * it would stamp its first entries with the past, and the step that follows would take their keys' lives. A cluster of one
 * steps to its own wall clock when it starts to lead first, never later. A new cluster has no time at first, and its
 * leader takes no proposals until the members' clocks have given it one; nor does a leader whose voters disagree whether
 * time is behind, until the others were heard.
 * So no election, restart or single bad clock expires anything early.
 *
 * Pure: every call is given CLOCK_BOOTTIME and, where it matters, CLOCK_REALTIME. */
#pragma once

#include "common/macros.h"

enum {
    CLUSTERCLOCK_STEP_NS = 1000000000, /* an offset above is stepped over, not slewed */
    CLUSTERCLOCK_STEP_ROUNDS = 3,
    CLUSTERCLOCK_DEADBAND_NS =
            10000000,                /* smaller offsets are left alone: the network's own noise */
    CLUSTERCLOCK_SLEW_DIVISOR = 100, /* 1 % */
};

struct clusterclock {
    uint64_t anchor_ns;      /* cluster time ... */
    uint64_t anchor_boot_ns; /* ... at this CLOCK_BOOTTIME */
    int slew;                /* -1, 0, 1: slower, as is, faster, since the anchor */
    unsigned ahead_rounds;   /* the median was more than a step ahead, in a row */
    unsigned begin_rounds;   /* a quorum's clocks were there, not all, for a time not settled yet */
    bool is_disputed; /* of those who elected us some say that cluster time is behind, some not */
};

/* Cluster time at boot_ns; a boot_ns before the anchor counts as the anchor's. 0 while nothing is known. */
uint64_t clusterclock_now(const struct clusterclock *clock, uint64_t boot_ns);

/* A time from the leader, in an entry or a heartbeat: counts on from the latest of these. */
void clusterclock_observe(struct clusterclock *clock, uint64_t time_ns, uint64_t boot_ns);

/* The first time that a new leader tells: taken as it is. Who remembers a later one has it of a leader whose entries went with
 * it; to jump there, once it leads itself, would take the lives of keys that were set since. 0: nothing happens. */
void clusterclock_follow(struct clusterclock *clock, uint64_t time_ns, uint64_t boot_ns);

/* Steps forward to time_ns, if that is forward. */
void clusterclock_step(struct clusterclock *clock, uint64_t time_ns, uint64_t boot_ns);

/* Begins a leadership; no corrections are pending. Offsets as for a round, as the election brought them: steps forward at
 * once if their median is ahead, in a cluster of more than one that has a time. */
void clusterclock_lead(struct clusterclock *clock, int64_t *offsets_ns, size_t count, size_t voters,
        uint64_t boot_ns);

/* Whether time may be given out: a leader that begins may have to hear more clocks first. */
bool clusterclock_is_settled(const struct clusterclock *clock);

/* One round of a leader whose voters' clocks disagreed: ends that once all have answered, or a quorum three times, with the
 * step to their median if that is ahead. */
void clusterclock_settle(struct clusterclock *clock, int64_t *offsets_ns, size_t count,
        size_t voters, uint64_t boot_ns);

/* One round of a leader that knows no time: `walls_ns` are the clocks of the members that answered (sorted in place). Begins
 * at their median once all have answered, or a quorum three times; of two in the middle at the later one, since a time
 * that has to be stepped forward afterwards cuts short what was given meanwhile. */
void clusterclock_begin(struct clusterclock *clock, int64_t *walls_ns, size_t count, size_t voters,
        uint64_t boot_ns);

/* One round of the leader: `offsets_ns` are wall clock minus cluster time of the members that answered (sorted in
 * place), `voters` the number that there are. Fewer than a quorum decide nothing. */
void clusterclock_round(struct clusterclock *clock, int64_t *offsets_ns, size_t count,
        size_t voters, uint64_t boot_ns);
