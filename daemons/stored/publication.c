#include "daemons/stored/publication.h"

#include <stdlib.h>

enum {
    KEPT_BYTES = 1024 * 1024
};

void publication_fini(struct publication *publication)
{
    buf_fini(&publication->outcomes);
    free(publication->ends);
    free(publication->spans);
    *publication = (struct publication){ .count = 0 };
}

void publication_clear(struct publication *publication)
{
    buf_clear(&publication->outcomes);
    buf_trim(&publication->outcomes, KEPT_BYTES);
    publication->count = 0;
    publication->members_changed = false;
}

void publication_add(struct publication *publication, const struct outcome *outcome)
{
    if (publication->count == publication->capacity) {
        publication->capacity = MAX(publication->capacity * 2, (size_t)64);
        publication->ends =
                xrealloc(publication->ends, publication->capacity * sizeof *publication->ends);
        publication->spans =
                xrealloc(publication->spans, publication->capacity * sizeof *publication->spans);
    }
    outcome_encode(outcome, &publication->outcomes);
    publication->ends[publication->count++] = publication->outcomes.bytes;
}

void publication_encode(struct publication *publication, struct batch *batch, struct buf *out)
{
    size_t start = 0;

    for (size_t i = 0; i < publication->count; i++) {
        size_t end = publication->ends[i];
        publication->spans[i] = span_of(publication->outcomes.data + start, end - start);
        start = end;
    }
    batch->outcomes = (struct span_list){ publication->spans, publication->count };
    batch->members_changed = publication->members_changed;
    if (batch->members_changed) {
        SET(batch, batch_tag_members_changed);
    }
    batch_encode(batch, out);
}
