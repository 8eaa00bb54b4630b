/* clocks.h: a member's clocks, over true (the simulation's) time: one that goes on while the host sleeps and begins anew
 * when it boots, a little fast or slow; and the wall clock, which is about right or, on the one member whose it is not,
 * anything. */
#pragma once

#include "tests/sim/rng.h"

enum {
    CLOCKS_DRIFT_PPM = 5000, /* at most, either way */
    CLOCKS_WALL_ERROR_MS = 100,
};

struct clocks {
    uint64_t boot_at_ns; /* true time when it read boot_ns */
    uint64_t boot_ns;
    int64_t drift_ppm;
    int64_t wall_error_ns; /* wall clock minus true time */
};

/* The host boots. */
static inline void clocks_boot(struct clocks *clocks, struct rng *rng, uint64_t true_ns)
{
    clocks->boot_at_ns = true_ns;
    clocks->boot_ns = rng_below(rng, UINT64_C(1000000000000));
    clocks->drift_ppm = (int64_t)rng_below(rng, 2 * CLOCKS_DRIFT_PPM + 1) - CLOCKS_DRIFT_PPM;
}

/* Someone, or NTP, sets the wall clock. */
static inline void clocks_set_wall(struct clocks *clocks, struct rng *rng)
{
    clocks->wall_error_ns = ((int64_t)rng_below(rng, 2 * CLOCKS_WALL_ERROR_MS + 1) -
                                    (int64_t)CLOCKS_WALL_ERROR_MS) *
                            INT64_C(1000000);
}

/* It is wrong: by seconds or by hours, ahead or behind. */
static inline void clocks_set_wall_wrong(struct clocks *clocks, struct rng *rng, bool is_ahead)
{
    int64_t error_ms = (int64_t)rng_below(rng, rng_chance(rng, 500) ? 4000 : 7200000);
    clocks->wall_error_ns = (is_ahead ? error_ms : -error_ms) * INT64_C(1000000);
}

static inline uint64_t clocks_boot_ns(const struct clocks *clocks, uint64_t true_ns)
{
    uint64_t elapsed_ns = true_ns - clocks->boot_at_ns;
    return clocks->boot_ns + elapsed_ns +
           (uint64_t)((int64_t)elapsed_ns * clocks->drift_ppm / 1000000);
}

static inline uint64_t clocks_wall_ns(const struct clocks *clocks, uint64_t true_ns)
{
    return UINT64_C(1700000000000000000) + true_ns + (uint64_t)clocks->wall_error_ns;
}
