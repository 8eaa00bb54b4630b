/* publication.h: the outcomes of one batch of entries, gathered while it is applied and encoded once.
 *
 * Reused from batch to batch; its memory shrinks back after a large one. Pure. */
#pragma once

#include "common/buf.h"
#include "proto/applied.h"
#include "proto/outcome.h"

struct publication {
    struct buf outcomes; /* encoded, one behind the other */
    size_t *ends;        /* of each in `outcomes` */
    size_t count;
    size_t capacity;
    struct span *spans; /* made by publication_encode */
    bool members_changed;
};

void publication_fini(struct publication *publication);
void publication_clear(struct publication *publication);
void publication_add(struct publication *publication, const struct outcome *outcome);
/* Appends the batch message: the caller has filled all of *batch but the outcomes. */
void publication_encode(struct publication *publication, struct batch *batch, struct buf *out);
