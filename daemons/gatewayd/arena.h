/* arena.h: memory that lives until the end of a turn. Blocks are kept from turn to turn; one that was larger than
 * ordinary is given back. Zero-initialised is valid. */
#pragma once

#include "common/span.h"

struct arena_block;

struct arena {
    struct arena_block *first;   /* kept over resets */
    struct arena_block *current; /* being filled */
    size_t used;                 /* of the current block */
};

void arena_fini(struct arena *arena);
void arena_reset(struct arena *arena); /* everything handed out is gone */

/* What has been handed out since the mark was made is gone. Not across a reset. */
struct arena_mark {
    struct arena_block *block;
    size_t used;
};
struct arena_mark arena_mark(const struct arena *arena);
void arena_rewind(struct arena *arena, struct arena_mark mark);

/* Aligned to 8 bytes; never NULL. */
void *arena_alloc(struct arena *arena, size_t bytes);

/* Gives back the tail of the latest allocation, of which only `used` bytes are needed. */
void arena_shrink(struct arena *arena, void *latest, size_t used);

struct span arena_copy(struct arena *arena, struct span text);
struct span arena_printf(struct arena *arena, const char *format, ...) PRINTF_LIKE(2, 3);
