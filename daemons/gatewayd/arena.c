#include "daemons/gatewayd/arena.h"

#include <stdarg.h>

#include "common/buf.h"

enum {
    ARENA_BLOCK_BYTES = 64 * 1024,
    ARENA_BLOCKS_KEPT = 4
};

struct arena_block {
    struct arena_block *next;
    size_t bytes;
    _Alignas(16) uint8_t data[];
};

static struct arena_block *block_new(size_t bytes)
{
    size_t capacity = MAX(bytes, (size_t)ARENA_BLOCK_BYTES);
    struct arena_block *block = xmalloc(sizeof *block + capacity);
    block->next = NULL;
    block->bytes = capacity;
    return block;
}

void arena_fini(struct arena *arena)
{
    while (arena->first != NULL) {
        struct arena_block *next = arena->first->next;
        free(arena->first);
        arena->first = next;
    }
    *arena = (struct arena){ 0 };
}

/* Behind this link: some ordinary blocks are kept for what comes, the rest is given back. */
static void free_blocks(struct arena_block **link)
{
    unsigned kept = 0;

    while (*link != NULL) {
        struct arena_block *block = *link;
        if (block->bytes == ARENA_BLOCK_BYTES && kept < ARENA_BLOCKS_KEPT) {
            kept++;
            link = &block->next;
        } else {
            *link = block->next;
            free(block);
        }
    }
}

void arena_reset(struct arena *arena)
{
    if (arena->first == arena->current) {
        /* One block did for the turn, which is the ordinary case. */
        arena->used = 0;
        if (arena->first == NULL || arena->first->bytes == ARENA_BLOCK_BYTES) {
            return;
        }
    }
    free_blocks(&arena->first);
    arena->current = arena->first;
    arena->used = 0;
}

struct arena_mark arena_mark(const struct arena *arena)
{
    return (struct arena_mark){ arena->current, arena->used };
}

void arena_rewind(struct arena *arena, struct arena_mark mark)
{
    if (mark.block == NULL) {
        arena_reset(arena);
        return;
    }
    if (arena->current != mark.block) {
        free_blocks(&mark.block->next);
    }
    arena->current = mark.block;
    arena->used = mark.used;
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    size_t rounded = (bytes + 7) & ~(size_t)7;

    while (arena->current == NULL || arena->current->bytes - arena->used < rounded) {
        struct arena_block *next = arena->current == NULL ? NULL : arena->current->next;
        if (next == NULL || next->bytes < rounded) {
            struct arena_block *block = block_new(rounded);
            block->next = next;
            if (arena->current == NULL) {
                arena->first = block;
            } else {
                arena->current->next = block;
            }
            next = block;
        }
        arena->current = next;
        arena->used = 0;
    }
    void *data = arena->current->data + arena->used;
    arena->used += rounded;
    return data;
}

void arena_shrink(struct arena *arena, void *latest, size_t used)
{
    size_t offset = (size_t)((uint8_t *)latest - arena->current->data);
    size_t rounded = (used + 7) & ~(size_t)7;

    INVARIANT_LE(offset + rounded, arena->used);
    arena->used = offset + rounded;
}

struct span arena_copy(struct arena *arena, struct span text)
{
    uint8_t *data = arena_alloc(arena, text.bytes);
    if (text.bytes > 0) {
        memcpy(data, text.data, text.bytes);
    }
    return span_of(data, text.bytes);
}

struct span arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    INVARIANT(format != NULL);
    va_start(args, format);
    int needed = vsnprintf(NULL, 0, format, args);
    va_end(args);
    INVARIANT(needed >= 0);
    char *text = arena_alloc(arena, (size_t)needed + 1);
    va_start(args, format);
    (void)vsnprintf(text, (size_t)needed + 1, format, args);
    va_end(args);
    return span_of(text, (size_t)needed);
}
