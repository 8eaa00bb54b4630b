#include "daemons/stored/throttle.h"

#include "common/macros.h"

enum {
    /* What the file may grow by: at first, and at last. */
    BYTES_PER_MS_FIRST = 256 * 1024,
    BYTES_PER_MS_LAST = 16 * 1024,
    FREE_BYTES_MIN = 64 * 1024 * 1024,
};

/* slow_bytes > 0 of growth lie between the first pace and the last. Each part stays below 2^64. */
static uint64_t bytes_per_ms(uint64_t beyond_bytes, uint64_t slow_bytes)
{
    const uint64_t span = BYTES_PER_MS_FIRST - BYTES_PER_MS_LAST;

    if (beyond_bytes >= slow_bytes) {
        return BYTES_PER_MS_LAST;
    }
    uint64_t part = slow_bytes <= UINT64_MAX / span ? span * beyond_bytes / slow_bytes
                                                    : beyond_bytes / (slow_bytes / span);
    return BYTES_PER_MS_FIRST - MIN(part, span);
}

uint64_t throttle_ms(uint64_t start_bytes, uint64_t now_bytes, uint64_t grown_bytes)
{
    uint64_t free_bytes = MAX(start_bytes / 4, (uint64_t)FREE_BYTES_MIN);
    uint64_t growth_bytes = now_bytes - MIN(now_bytes, start_bytes);

    if (growth_bytes <= free_bytes) {
        return 0;
    }
    uint64_t slow_bytes = MAX(start_bytes, 2 * free_bytes) - free_bytes;
    uint64_t per_ms = bytes_per_ms(growth_bytes - free_bytes, slow_bytes);
    return MIN(grown_bytes / per_ms, (uint64_t)THROTTLE_MS_MAX);
}
