#include "common/state/lockwait.h"

#include <stdatomic.h>

/* Of the process: there is one environment that is written to. */
static atomic_uint_fast64_t begun_count;
static atomic_uint_fast64_t ended_count;

void lockwait_begin(void)
{
    atomic_fetch_add_explicit(&begun_count, 1, memory_order_relaxed);
}

void lockwait_end(void)
{
    atomic_fetch_add_explicit(&ended_count, 1, memory_order_release);
}

bool lockwait_look(uint64_t *ret_ended)
{
    /* The ends first: what begins between the two reads looks like one who waits, and is gone at the next look. */
    uint64_t ended = atomic_load_explicit(&ended_count, memory_order_acquire);

    *ret_ended = ended;
    return atomic_load_explicit(&begun_count, memory_order_relaxed) != ended;
}
