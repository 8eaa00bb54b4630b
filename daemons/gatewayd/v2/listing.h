/* listing.h: a node and what is below it, read from the state and written as the answer of a get.
 *
 * Walks with a stack of its own, so neither depth nor breadth of the tree costs stack; hidden nodes are left out where
 * a parent is listed. Runs on the loop and, for large listings, on a thread with a read of its own. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct state_read;

/* Memory kept from one listing to the next. Zero-initialised is valid. */
struct listing {
    struct buf path; /* escaped key of the node at hand */
    struct frame *frames;
    size_t frame_capacity;
};

struct listing_request {
    struct span key; /* "/a/b" */
    bool recursive;
    uint64_t now_ns;  /* cluster time, for ttl */
    size_t bytes_max; /* of the answer; 0: no limit */
};

void listing_fini(struct listing *listing);

/* Appends {"action":"get","node":...} and a newline. 0; -ENOENT or -ENOTDIR with *ret_bad_bytes of the key being what is missing
 * or is a file; -EFBIG: the answer would exceed bytes_max, `out` is as it was. */
int listing_render(struct listing *listing, struct state_read *read,
        const struct listing_request *request, struct buf *out, size_t *ret_bad_bytes);
