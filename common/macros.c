#include "common/macros.h"

#include <stdio.h>
#include <stdlib.h>

void invariant_failed(
        const char *file, int line, const char *text, uint64_t left, uint64_t right)
{
    (void)fprintf(stderr, "invariant broken at %s:%d: %s (left=%" PRIu64 " right=%" PRIu64 ")\n",
            file, line, text, left, right);
    abort();
}
