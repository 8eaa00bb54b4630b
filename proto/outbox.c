#include "proto/outbox.h"

#include <stdlib.h>
#include <sys/uio.h>

enum {
    CAPACITY_MIN = 16
};

struct outbox_block {
    uint8_t *data;
    size_t bytes;
};

static struct outbox_block *block_at(const struct outbox *outbox, size_t i)
{
    return &outbox->blocks[(outbox->first + i) & (outbox->capacity - 1)];
}

static void grow(struct outbox *outbox)
{
    size_t capacity = MAX(outbox->capacity * 2, (size_t)CAPACITY_MIN);
    struct outbox_block *blocks = xmalloc(capacity * sizeof blocks[0]);

    for (size_t i = 0; i < outbox->count; i++) {
        blocks[i] = *block_at(outbox, i);
    }
    free(outbox->blocks);
    outbox->blocks = blocks;
    outbox->first = 0;
    outbox->capacity = capacity;
}

void outbox_append(struct outbox *outbox, uint8_t *take_data, size_t bytes)
{
    INVARIANT_LT(0, bytes);
    if (outbox->count == outbox->capacity) {
        grow(outbox);
    }
    *block_at(outbox, outbox->count++) = (struct outbox_block){ take_data, bytes };
    outbox->waiting_bytes += bytes;
}

size_t outbox_peek(const struct outbox *outbox, struct iovec *ret_parts, size_t max)
{
    size_t count = MIN(outbox->count, max);

    for (size_t i = 0; i < count; i++) {
        const struct outbox_block *block = block_at(outbox, i);
        size_t sent = i == 0 ? outbox->sent_bytes : 0;
        ret_parts[i] = (struct iovec){ block->data + sent, block->bytes - sent };
    }
    return count;
}

static void drop_first(struct outbox *outbox)
{
    free(block_at(outbox, 0)->data);
    outbox->first = (outbox->first + 1) & (outbox->capacity - 1);
    outbox->count--;
    outbox->sent_bytes = 0;
}

void outbox_drop(struct outbox *outbox, size_t bytes)
{
    INVARIANT_LE(bytes, outbox->waiting_bytes);
    outbox->waiting_bytes -= bytes;
    while (bytes > 0) {
        size_t left = block_at(outbox, 0)->bytes - outbox->sent_bytes;
        if (bytes < left) {
            outbox->sent_bytes += bytes;
            return;
        }
        bytes -= left;
        drop_first(outbox);
    }
}

void outbox_fini(struct outbox *outbox)
{
    while (outbox->count > 0) {
        drop_first(outbox);
    }
    free(outbox->blocks);
    *outbox = (struct outbox){ 0 };
}
