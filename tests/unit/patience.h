/* patience.h: how long to wait for what is there within a set time on a machine of its own, before it counts as hanging.
 *
 * With more to run than there are processors, each gets its share: patience grows with the load, as that of the black-box suites
 * does (tests/harness/places.py). The load may come after the wait began: the machine is asked at its end. */
#pragma once

#include <sched.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/loop.h"

static inline uint64_t patience_ms(uint64_t ms)
{
    cpu_set_t processors;
    double load;

    if (getloadavg(&load, 1) != 1 || sched_getaffinity(0, sizeof processors, &processors) < 0) {
        return ms;
    }
    double share = load / CPU_COUNT(&processors);
    return share > 1 ? (uint64_t)((double)ms * share) : ms;
}

/* Of a loop: `on_end` when it has run for so long since patience_begin. */
struct patience {
    struct loop *loop;
    struct loop_timer *timer;
    uint64_t ms;
    uint64_t began_ms;
    loop_fn on_end;
    void *user;
};

static inline void patience_on_timer(void *user)
{
    struct patience *patience = user;
    uint64_t waited_ms = loop_now_ms(patience->loop) - patience->began_ms;
    uint64_t ms = patience_ms(patience->ms);

    if (waited_ms < ms) {
        loop_timer_start(patience->timer, ms - waited_ms, 0);
    } else {
        patience->on_end(patience->user);
    }
}

static inline struct patience *patience_new(
        struct loop *loop, uint64_t ms, loop_fn on_end, void *user)
{
    struct patience *patience = xcalloc(1, sizeof *patience);

    *patience = (struct patience){ .loop = loop, .ms = ms, .on_end = on_end, .user = user };
    patience->timer = loop_timer_new(loop, patience_on_timer, patience);
    return patience;
}

static inline void patience_begin(struct patience *patience)
{
    patience->began_ms = loop_now_ms(patience->loop);
    loop_timer_start(patience->timer, patience->ms, 0);
}

static inline void patience_end(struct patience *patience)
{
    loop_timer_stop(patience->timer);
}

static inline struct patience *patience_free(struct patience *patience)
{
    if (patience != NULL) {
        patience->timer = loop_timer_free(patience->timer);
        free(patience);
    }
    return NULL;
}
