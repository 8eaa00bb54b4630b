#include "daemons/raftd/rates.h"

static const uint64_t stale_ns = 1000000000;

void rates_add(struct rates *rates, uint64_t bytes, uint64_t now_ns)
{
    if (rates->count == RATES_COUNT_MAX) {
        rates->bytes_sum -= rates->bytes[rates->first];
        rates->first = (rates->first + 1) % RATES_COUNT_MAX;
        rates->count--;
    }
    size_t at = (rates->first + rates->count) % RATES_COUNT_MAX;
    rates->at_ns[at] = now_ns;
    rates->bytes[at] = bytes;
    rates->bytes_sum += bytes;
    rates->count++;
}

static uint64_t per_second_milli(uint64_t amount, uint64_t span_ns)
{
    return (uint64_t)((double)amount * 1e12 / (double)span_ns);
}

struct rates_now rates_get(struct rates *rates, uint64_t now_ns)
{
    struct rates_now none = { 0, 0 };

    if (rates->count == 0) {
        return none;
    }
    uint64_t newest_ns = rates->at_ns[(rates->first + rates->count - 1) % RATES_COUNT_MAX];
    if (now_ns > newest_ns + stale_ns) {
        *rates = (struct rates){ .count = 0 };
        return none;
    }
    uint64_t span_ns = newest_ns - rates->at_ns[rates->first];
    if (span_ns == 0) {
        return none; /* one message, or several at once: of no span there is no rate */
    }
    return (struct rates_now){ per_second_milli(rates->count, span_ns),
        per_second_milli(rates->bytes_sum, span_ns) };
}
