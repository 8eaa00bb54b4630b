/* throttle.h: how long writes wait while the state is copied. Pure.
 *
 * A copy keeps every page that it may still read, so until it ends the file grows by each page that is written. It may grow by a
 * quarter, or 64 MiB, for nothing; from there on by less and less: 256 MB a second at first, 16 once it has doubled (or, where
 * the free part is more than that, has grown by twice the free part), and never more slowly. */
#pragma once

#include <stdint.h>

enum {
    THROTTLE_MS_MAX = 250, /* raftd takes a second without progress for a stall */
};

/* How long the next batch waits, in ms: the file had start_bytes when the copy began, has now_bytes, and grown_bytes of that came
 * with the batch before. */
uint64_t throttle_ms(uint64_t start_bytes, uint64_t now_bytes, uint64_t grown_bytes);
