#include "daemons/raftd/wal/points.h"

#include <assert.h>

static_assert(sizeof(struct point) == 32, "a log of 1 GiB is to take 256 KiB of points");

static struct point *items_of(const struct points *points)
{
    struct point *items = (struct point *)(void *)points->items.data;
    return points->first == 0 ? items : items + points->first;
}

static size_t count_of(const struct points *points)
{
    return points->items.bytes / sizeof(struct point) - points->first;
}

/* Points from position `keep` on go. */
static void truncate_to(struct points *points, size_t keep)
{
    points->items.bytes = (points->first + keep) * sizeof(struct point);
}

/* The position of the first point whose entry lies above index. */
static size_t position_above(const struct points *points, uint64_t index)
{
    const struct point *items = items_of(points);
    size_t low = 0;
    size_t high = count_of(points);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (items[middle].index <= index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void points_fini(struct points *points)
{
    buf_fini(&points->items);
    *points = POINTS_INIT;
}

void points_note(struct points *points, uint64_t index, uint64_t seq, uint64_t batch_offset,
        uint64_t record_offset)
{
    size_t count = count_of(points);
    bool is_break = points->is_break_next || count == 0;
    if (!is_break) {
        const struct point *last = items_of(points) + count - 1;
        INVARIANT_LT(last->index, index);
        is_break = last->seq != seq;
        if (!is_break && record_offset - last->record_offset < POINTS_STRIDE_BYTES) {
            return;
        }
    }
    struct point point = {
        .index = index,
        .seq = seq,
        .batch_offset = batch_offset,
        .record_offset = record_offset & (UINT64_MAX >> 1),
        .is_break = is_break,
    };
    buf_append(&points->items, &point, sizeof(point));
    points->is_break_next = false;
}

void points_cut(struct points *points, uint64_t index)
{
    truncate_to(points, position_above(points, index));
    points->is_break_next = true;
}

void points_reset(struct points *points)
{
    buf_clear(&points->items);
    points->first = 0;
    points->is_break_next = true;
}

void points_drop_before(struct points *points, uint64_t seq)
{
    size_t count = count_of(points);
    const struct point *items = items_of(points);
    size_t drop = 0;
    while (drop < count && items[drop].seq < seq) {
        drop++;
    }
    points->first += drop;
    if (points->first > count / 2) {
        buf_drop_front(&points->items, points->first * sizeof(struct point));
        points->first = 0;
    }
}

void points_prepend(struct points *points, const struct points *older, uint64_t index_max)
{
    INVARIANT(count_of(points) == 0 || index_max < points_lowest(points));
    size_t take = position_above(older, index_max);
    struct points joined = POINTS_INIT;

    buf_append(&joined.items, items_of(older), take * sizeof(struct point));
    buf_append(&joined.items, items_of(points), count_of(points) * sizeof(struct point));
    joined.is_break_next = points->is_break_next;
    buf_fini(&points->items);
    *points = joined;
}

bool points_find(const struct points *points, uint64_t index, struct point *ret_point,
        uint64_t *ret_last_index)
{
    const struct point *items = items_of(points);
    size_t above = position_above(points, index);
    if (above == 0) {
        return false;
    }
    *ret_point = items[above - 1];
    while (above < count_of(points) && !items[above].is_break) {
        above++;
    }
    *ret_last_index = above < count_of(points) ? items[above].index - 1 : UINT64_MAX;
    return true;
}

uint64_t points_lowest(const struct points *points)
{
    return count_of(points) == 0 ? UINT64_MAX : items_of(points)[0].index;
}
