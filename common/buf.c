#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUF_CAPACITY_MIN = 64 };

static NORETURN void out_of_memory(size_t bytes)
{
    (void)fprintf(stderr, "out of memory: %zu bytes\n", bytes);
    abort();
}

void *xmalloc(size_t bytes)
{
    void *data = malloc(bytes > 0 ? bytes : 1);
    if (data == NULL) {
        out_of_memory(bytes);
    }
    return data;
}

void *xcalloc(size_t count, size_t bytes)
{
    void *data = calloc(count > 0 ? count : 1, bytes > 0 ? bytes : 1);
    if (data == NULL) {
        out_of_memory(bytes);
    }
    return data;
}

void *xrealloc(void *old, size_t bytes)
{
    void *data = realloc(old, bytes > 0 ? bytes : 1);
    if (data == NULL) {
        out_of_memory(bytes);
    }
    return data;
}

char *xstrdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    return memcpy(xmalloc(bytes), text, bytes);
}

void buf_fini(struct buf *buf)
{
    free(buf->data);
    *buf = BUF_INIT;
}

uint8_t *buf_reserve(struct buf *buf, size_t extra)
{
    INVARIANT_LE(extra, SIZE_MAX / 4);
    if (buf->capacity - buf->bytes < extra) {
        size_t capacity = MAX(buf->capacity * 2, (size_t)BUF_CAPACITY_MIN);
        while (capacity - buf->bytes < extra) {
            capacity *= 2;
        }
        buf->data = xrealloc(buf->data, capacity);
        buf->capacity = capacity;
    }
    return buf->data + buf->bytes;
}

void buf_append(struct buf *buf, const void *data, size_t bytes)
{
    if (bytes > 0) {
        memcpy(buf_reserve(buf, bytes), data, bytes);
        buf->bytes += bytes;
    }
}

void buf_append_span(struct buf *buf, struct span span)
{
    buf_append(buf, span.data, span.bytes);
}

void buf_append_str(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

void buf_append_u64_decimal(struct buf *buf, uint64_t value)
{
    char digits[20];
    size_t count = 0;
    do {
        digits[sizeof digits - ++count] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    buf_append(buf, digits + sizeof digits - count, count);
}

void buf_appendf(struct buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int needed = vsnprintf(NULL, 0, format, args);
    va_end(args);
    INVARIANT(needed >= 0);
    char *end = (char *)buf_reserve(buf, (size_t)needed + 1);
    INVARIANT(end != NULL);
    va_start(args, format);
    (void)vsnprintf(end, (size_t)needed + 1, format, args);
    va_end(args);
    buf->bytes += (size_t)needed;
}

void buf_drop_front(struct buf *buf, size_t bytes)
{
    INVARIANT_LE(bytes, buf->bytes);
    if (bytes > 0 && bytes < buf->bytes) {
        memmove(buf->data, buf->data + bytes, buf->bytes - bytes);
    }
    buf->bytes -= bytes;
}

void buf_fit(struct buf *buf)
{
    if (buf->bytes == 0) {
        buf_fini(buf);
    } else if (buf->bytes < buf->capacity) {
        buf->data = xrealloc(buf->data, buf->bytes);
        buf->capacity = buf->bytes;
    }
}

void buf_trim(struct buf *buf, size_t capacity_max)
{
    if (buf->bytes == 0 && buf->capacity > capacity_max) {
        buf_fini(buf);
    }
}
