/* vec.h: room for one more, in arrays that are kept from step to step. */
#pragma once

#include <stdlib.h>

#include "common/buf.h"

/* Yields items with room for at least `count`; growth doubles. */
static inline void *vec_reserve(void *items, size_t *capacity, size_t count, size_t item_bytes)
{
    if (count <= *capacity) {
        return items;
    }
    size_t doubled = *capacity < 4 ? 8 : *capacity * 2;
    *capacity = MAX(doubled, count);
    return xrealloc(items, *capacity * item_bytes);
}

/* A pointer to the new, uninitialised last item; valid until the next push. */
#define VEC_PUSH(items, count, capacity)                                                           \
    ({                                                                                             \
        (items) = vec_reserve((items), &(capacity), (count) + 1, sizeof *(items));                 \
        &(items)[(count)++];                                                                       \
    })
