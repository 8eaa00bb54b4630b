/* log.c: terms of the whole log as runs, its newest entries in shared blocks. */
#include "daemons/raftd/raft/log.h"

#include "daemons/raftd/raft/vec.h"

static void drop_blocks(struct raft_log *log)
{
    for (size_t i = 0; i < log->block_count; i++) {
        free(log->blocks[log->block_head + i].data);
    }
    log->block_head = 0;
    log->block_count = 0;
    log->item_head = 0;
    log->item_count = 0;
    log->cached_bytes = 0;
}

void raft_log_reset(struct raft_log *log, uint64_t base_index, uint64_t base_term, uint64_t time_ns)
{
    drop_blocks(log);
    log->run_count = 0;
    log->base_index = base_index;
    log->base_term = base_term;
    log->last_index = base_index;
    log->last_term = base_term;
    log->last_time_ns = MAX(log->last_time_ns, time_ns);
}

void raft_log_fini(struct raft_log *log)
{
    drop_blocks(log);
    free(log->blocks);
    free(log->items);
    free(log->runs);
    *log = (struct raft_log){ 0 };
}

/* The position of the run that holds index, which is behind the base. */
static size_t find_run(const struct raft_log *log, uint64_t index)
{
    size_t low = 0;
    size_t high = log->run_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (log->runs[middle].first_index <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    INVARIANT_LT(low, log->run_count);
    INVARIANT_LE(log->runs[low].first_index, index);
    return low;
}

uint64_t raft_log_term(const struct raft_log *log, uint64_t index)
{
    if (index == log->last_index) {
        return log->last_term;
    }
    if (index == log->base_index) {
        return log->base_term;
    }
    if (index < log->base_index || index > log->last_index) {
        return 0;
    }
    return log->runs[find_run(log, index)].term;
}

uint64_t raft_log_find_term(const struct raft_log *log, uint64_t index, uint64_t term)
{
    index = MIN(index, log->last_index);
    while (index > log->base_index) {
        const struct raft_log_run *run = &log->runs[find_run(log, index)];
        if (run->term <= term) {
            return index;
        }
        index = MAX(run->first_index, log->base_index + 1) - 1;
    }
    return MAX(index, log->base_index);
}

/* Room for `count` more items behind the present ones, at an amortised constant cost. */
static void reserve_items(struct raft_log *log, size_t count)
{
    if (log->item_head + log->item_count + count <= log->item_capacity) {
        return;
    }
    if (log->item_head > 0) {
        memmove(log->items, log->items + log->item_head, log->item_count * sizeof *log->items);
        log->item_head = 0;
    }
    /* Half stays free, or the move would come again too soon. */
    log->items = vec_reserve(
            log->items, &log->item_capacity, 2 * (log->item_count + count), sizeof *log->items);
}

static struct raft_log_block *push_block(struct raft_log *log)
{
    if (log->block_head + log->block_count == log->block_capacity && log->block_head > 0) {
        memmove(log->blocks, log->blocks + log->block_head, log->block_count * sizeof *log->blocks);
        log->block_head = 0;
    }
    log->blocks = vec_reserve(
            log->blocks, &log->block_capacity, 2 * (log->block_count + 1), sizeof *log->blocks);
    return &log->blocks[log->block_head + log->block_count++];
}

static void append_item(struct raft_log *log, const struct raft_entry *entry)
{
    INVARIANT_EQ(entry->index, log->last_index + 1);
    INVARIANT_LE(log->last_term, entry->term);
    if (log->run_count == 0 || log->runs[log->run_count - 1].term != entry->term) {
        *VEC_PUSH(log->runs, log->run_count, log->run_capacity) =
                (struct raft_log_run){ entry->index, entry->term };
    }
    log->items[log->item_head + log->item_count++] = *entry;
    log->last_index = entry->index;
    log->last_term = entry->term;
    log->last_time_ns = entry->time_ns;
}

void raft_log_append(
        struct raft_log *log, struct raft_entry_span entries, const struct raft_log_stamp *stamp)
{
    if (entries.count == 0) {
        return;
    }
    size_t data_bytes = 0;
    for (size_t i = 0; i < entries.count; i++) {
        data_bytes += entries.items[i].data.data != NULL ? entries.items[i].data.bytes : 0;
    }
    reserve_items(log, entries.count);
    uint8_t *data = data_bytes > 0 ? xmalloc(data_bytes) : NULL;
    struct raft_log_block *block = push_block(log);
    block->first_index = log->last_index + 1;
    block->last_index = log->last_index + entries.count;
    block->data = data;
    block->bytes = data_bytes + entries.count * sizeof *log->items;
    log->cached_bytes += block->bytes;

    for (size_t i = 0; i < entries.count; i++) {
        struct raft_entry entry = entries.items[i];
        if (stamp != NULL) {
            entry.index = log->last_index + 1;
            entry.term = stamp->term;
            entry.time_ns = stamp->time_ns;
        }
        if (entry.data.bytes > 0 && entry.data.data != NULL) {
            INVARIANT(data != NULL); /* counted above */
            memcpy(data, entry.data.data, entry.data.bytes);
            entry.data.data = data;
            data += entry.data.bytes;
        } else {
            entry.data.data = NULL;
        }
        append_item(log, &entry);
    }
}

void raft_log_cut(struct raft_log *log, uint64_t index)
{
    INVARIANT_LE(log->base_index, index);
    if (index >= log->last_index) {
        return;
    }
    uint64_t term = raft_log_term(log, index);
    uint64_t first_cached = raft_log_first_cached(log);
    log->item_count = index >= first_cached ? (size_t)(index - first_cached + 1) : 0;
    while (log->block_count > 0) {
        struct raft_log_block *block = &log->blocks[log->block_head + log->block_count - 1];
        if (block->first_index <= index) {
            block->last_index = MIN(block->last_index, index);
            break;
        }
        log->cached_bytes -= block->bytes;
        free(block->data);
        log->block_count--;
    }
    while (log->run_count > 0 && log->runs[log->run_count - 1].first_index > index) {
        log->run_count--;
    }
    log->last_index = index;
    log->last_term = term;
}

struct raft_entry_span raft_log_slice(
        const struct raft_log *log, uint64_t first, uint64_t last, size_t bytes_max)
{
    uint64_t first_cached = raft_log_first_cached(log);
    INVARIANT_LE(first_cached, first);
    INVARIANT_LE(first, last);
    INVARIANT_LE(last, log->last_index);
    const struct raft_entry *items = log->items + log->item_head + (first - first_cached);
    size_t count_max = (size_t)(last - first + 1);
    size_t count = 1;
    size_t bytes = raft_entry_cost(&items[0]);
    while (count < count_max && bytes + raft_entry_cost(&items[count]) <= bytes_max) {
        bytes += raft_entry_cost(&items[count++]);
    }
    return (struct raft_entry_span){ items, count };
}

void raft_log_evict(struct raft_log *log, uint64_t limit, size_t bytes_max)
{
    while (log->cached_bytes > bytes_max && log->block_count > 0) {
        struct raft_log_block *block = &log->blocks[log->block_head];
        if (block->last_index > limit) {
            return;
        }
        size_t count = (size_t)(block->last_index - raft_log_first_cached(log) + 1);
        INVARIANT_LE(count, log->item_count);
        log->item_head += count;
        log->item_count -= count;
        log->cached_bytes -= block->bytes;
        free(block->data);
        log->block_head++;
        log->block_count--;
    }
}

void raft_log_compact(struct raft_log *log, uint64_t index)
{
    INVARIANT_LE(log->base_index, index);
    INVARIANT_LE(index, log->last_index);
    log->base_term = raft_log_term(log, index);
    log->base_index = index;
    size_t gone = 0;
    while (gone + 1 < log->run_count && log->runs[gone + 1].first_index <= index + 1) {
        gone++;
    }
    if (index == log->last_index) {
        log->run_count = 0;
    } else if (gone > 0) {
        log->run_count -= gone;
        memmove(log->runs, log->runs + gone, log->run_count * sizeof *log->runs);
    }
}
