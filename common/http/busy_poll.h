/* busy_poll.h: whether a server that has nothing to do looks again at once, or sleeps. Pure.
 *
 * A client that asks its next question as soon as it has its answer is back within some tens of
 * microseconds. To sleep meanwhile costs two wake-ups, of the server's thread and often of its core, which is more
 * than a read takes: looking again for BUSY_POLL_NS is then both faster and no dearer. For all other
 * clients it would be waste, so it is done only while most of the last gaps between an answer and the next question
 * were that short; they are measured whether the server sleeps or not. Nor is it done while answers wait for others: who gives
 * them wants the core, and wakes the server anyway. */
#pragma once

#include "common/macros.h"

enum {
    BUSY_POLL_NS = 50 * 1000,      /* at most, after an answer */
    BUSY_POLL_WAKE_NS = 50 * 1000, /* what a sleeping server's wake-up may add to a gap */
};

/* All zero at first. */
struct busy_poll {
    uint64_t answered_ns; /* when the last answers were given; 0: a question came since */
    uint8_t short_gaps;   /* the last eight, a bit each */
    bool was_awake;       /* looked again after those answers */
    bool is_on;
};

/* What a turn of the loop brought. */
struct busy_poll_turn {
    uint64_t now_ns;
    bool asked;    /* at least one request came */
    bool answered; /* at least one answer went out */
    bool awaits;   /* others are soon to wake the server */
};

/* Called at a turn's end; true: the next turn is to begin at once. A turn that brought neither needs to be told only
 * while is_on. */
bool busy_poll_goes_on(struct busy_poll *poll, const struct busy_poll_turn *turn);
