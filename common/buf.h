/* buf.h: a growable run of bytes that its holder owns.
 *
 * Zero-initialised is empty and valid. Growth doubles. Running out of memory aborts: our limits are
 * checked where input comes in, so an allocation that fails here is a host out of memory, and a
 * daemon that is restarted recovers from disk. */
#pragma once

#include "common/span.h"

struct buf {
    uint8_t *data;
    size_t bytes;    /* in use */
    size_t capacity; /* allocated */
};

#define BUF_INIT ((struct buf){ NULL, 0, 0 })

void buf_fini(struct buf *buf); /* frees; leaves an empty, valid buf */

/* Makes room for `extra` bytes past the end and returns a pointer to the end. */
uint8_t *buf_reserve(struct buf *buf, size_t extra);

void buf_append(struct buf *buf, const void *data, size_t bytes);
void buf_append_span(struct buf *buf, struct span span);
void buf_append_str(struct buf *buf, const char *text);
void buf_append_u64_decimal(struct buf *buf, uint64_t value);
void buf_appendf(struct buf *buf, const char *format, ...) PRINTF_LIKE(2, 3);

/* Removes the first `bytes` bytes. */
void buf_drop_front(struct buf *buf, size_t bytes);

/* Gives back what is allocated behind the bytes in use. */
void buf_fit(struct buf *buf);

/* Gives back memory above `capacity_max` when the buf is empty. */
void buf_trim(struct buf *buf, size_t capacity_max);

static inline void buf_append_byte(struct buf *buf, uint8_t byte)
{
    if (buf->bytes == buf->capacity) {
        (void)buf_reserve(buf, 1);
    }
    buf->data[buf->bytes++] = byte;
}

static inline void buf_clear(struct buf *buf)
{
    buf->bytes = 0;
}

static inline struct span buf_span(const struct buf *buf)
{
    return (struct span){ buf->data, buf->bytes };
}

/* malloc and friends that abort instead of returning NULL. */
void *xmalloc(size_t bytes);
void *xcalloc(size_t count, size_t bytes);
void *xrealloc(void *old, size_t bytes);
char *xstrdup(const char *text);
