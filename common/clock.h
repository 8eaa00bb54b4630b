/* clock.h: the host's clocks, read in one place. Only thin shells call this; pure cores are told. */
#pragma once

#include "common/macros.h"

uint64_t clock_monotonic_ns(void);
uint64_t clock_monotonic_ms(void);
uint64_t clock_boottime_ns(void); /* goes on while the host sleeps */
uint64_t clock_wall_ns(void);     /* since the epoch, UTC */

/* How much later `now` is than `since`; 0 where the clock was looked at before that came to be: what was begun meanwhile is
 * young, and not as old as a negative difference would make it. */
static inline uint64_t clock_passed(uint64_t since, uint64_t now)
{
    return now > since ? now - since : 0;
}

enum {
    CLOCK_BOOT_ID_BYTES = 37
};
/* The kernel's id of this boot, as text with its NUL; empty when it cannot be read. */
void clock_boot_id(char ret_id[CLOCK_BOOT_ID_BYTES]);
