/* rates.h: how many messages and bytes a second, over the last RATES_COUNT_MAX messages, as /v2/stats/self shows it.
 * Once the newest is older than a second there is no rate, and what was counted is forgotten. Pure. */
#pragma once

#include "common/macros.h"

enum {
    RATES_COUNT_MAX = 200
};

struct rates {
    uint64_t at_ns[RATES_COUNT_MAX]; /* monotonic */
    uint64_t bytes[RATES_COUNT_MAX];
    uint64_t bytes_sum;
    size_t first;
    size_t count;
};

/* Thousandths a second; 0: none. */
struct rates_now {
    uint64_t messages_milli;
    uint64_t bytes_milli;
};

void rates_add(struct rates *rates, uint64_t bytes, uint64_t now_ns);
struct rates_now rates_get(struct rates *rates, uint64_t now_ns);
