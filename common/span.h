/* span.h: a borrowed run of bytes. Never owns; whoever hands one out says how long it lives. */
#pragma once

#include <string.h>

#include "common/macros.h"

struct span {
    const uint8_t *data;
    size_t bytes;
};

#define SPAN_NONE ((struct span){ NULL, 0 })
/* A span over a string literal, its NUL excluded. */
#define SPAN_LIT(s) ((struct span){ (const uint8_t *)("" s), sizeof(s) - 1 })

static inline struct span span_of(const void *data, size_t bytes)
{
    return (struct span){ (const uint8_t *)data, bytes };
}

static inline struct span span_str(const char *text)
{
    return (struct span){ (const uint8_t *)text, strlen(text) };
}

static inline bool span_eq(struct span a, struct span b)
{
    return a.bytes == b.bytes && (a.bytes == 0 || memcmp(a.data, b.data, a.bytes) == 0);
}

/* Bytewise order, the shorter first where one begins the other. */
static inline int span_cmp(struct span a, struct span b)
{
    size_t common_bytes = a.bytes < b.bytes ? a.bytes : b.bytes;
    int order = common_bytes == 0 ? 0 : memcmp(a.data, b.data, common_bytes);
    if (order != 0) {
        return order;
    }
    return a.bytes < b.bytes ? -1 : a.bytes > b.bytes;
}

static inline bool span_starts_with(struct span s, struct span prefix)
{
    return s.bytes >= prefix.bytes &&
           (prefix.bytes == 0 || memcmp(s.data, prefix.data, prefix.bytes) == 0);
}

/* The part of s from offset on; offset <= s.bytes. */
static inline struct span span_from(struct span s, size_t offset)
{
    INVARIANT_LE(offset, s.bytes);
    return offset == 0 ? s : (struct span){ s.data + offset, s.bytes - offset };
}
