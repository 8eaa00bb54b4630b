/* outbox.h: what a connection has been given to send and its socket has not taken: blocks of bytes, in order.
 *
 * Each block is freed when its last byte is sent, so what is held is what waits, however long the socket stays behind, and
 * the part of the first that has left. */
#pragma once

#include "common/buf.h"

struct iovec;
struct outbox_block;

/* Zero-initialised is empty and valid. */
struct outbox {
    struct outbox_block *blocks; /* a ring */
    size_t first;
    size_t count;
    size_t capacity;      /* a power of two */
    size_t sent_bytes;    /* of the first */
    size_t waiting_bytes; /* of all, those not counted */
};

void outbox_fini(struct outbox *outbox);

/* Takes a block that malloc gave. */
void outbox_append(struct outbox *outbox, uint8_t *take_data, size_t bytes);

/* The first blocks, up to `max`, as they are still to be sent; returns how many. */
size_t outbox_peek(const struct outbox *outbox, struct iovec *ret_parts, size_t max);

/* So many bytes have been sent. */
void outbox_drop(struct outbox *outbox, size_t bytes);
