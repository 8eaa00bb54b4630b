/* disk.c: an array of entries, and a queue in front of it. */
#include "tests/sim/disk.h"

#include <stdlib.h>

struct sim_members sim_members_copy(struct raft_members members)
{
    struct sim_members copy = { .voters = members.voters.count,
        .learners = members.learners.count,
        .removed = members.removed.count };
    copy.ids = xcalloc(copy.voters + copy.learners + copy.removed, sizeof *copy.ids);
    uint64_t *out = copy.ids;
    const struct raft_ids sets[] = { members.voters, members.learners, members.removed };
    for (size_t i = 0; i < ARRAY_COUNT(sets); i++) {
        for (size_t j = 0; j < sets[i].count; j++) {
            *out++ = sets[i].items[j];
        }
    }
    return copy;
}

struct raft_members sim_members_view(const struct sim_members *members)
{
    return (struct raft_members){
        .voters = { members->ids, members->voters },
        .learners = { members->ids + members->voters, members->learners },
        .removed = { members->ids + members->voters + members->learners, members->removed },
    };
}

void sim_members_fini(struct sim_members *members)
{
    free(members->ids);
    *members = (struct sim_members){ 0 };
}

void sim_entries_append(struct sim_entries *entries, const struct raft_entry *entry)
{
    if (entries->count == entries->capacity) {
        entries->capacity = entries->capacity == 0 ? 16 : entries->capacity * 2;
        entries->items = xrealloc(entries->items, entries->capacity * sizeof *entries->items);
    }
    struct raft_entry *copy = &entries->items[entries->count++];
    *copy = *entry;
    uint8_t *data = xmalloc(entry->data.bytes);
    if (entry->data.bytes > 0) {
        memcpy(data, entry->data.data, entry->data.bytes);
    }
    copy->data.data = data;
}

static void entries_cut(struct sim_entries *entries, size_t count)
{
    while (entries->count > count) {
        entries->count--;
        free((void *)(uintptr_t)entries->items[entries->count].data.data);
    }
}

void sim_entries_fini(struct sim_entries *entries)
{
    entries_cut(entries, 0);
    free(entries->items);
    *entries = (struct sim_entries){ 0 };
}

void disk_init(struct disk *disk, struct raft_members members)
{
    *disk = (struct disk){ 0 };
    disk->base_members = sim_members_copy(members);
    disk->queue_end = &disk->queue;
}

static void write_fini(struct disk_write *write)
{
    sim_members_fini(&write->base_members);
    sim_entries_fini(&write->entries);
}

void disk_fini(struct disk *disk)
{
    disk_crash(disk, 0);
    sim_entries_fini(&disk->log);
    sim_members_fini(&disk->base_members);
}

void disk_queue(struct disk *disk, const struct raft_write *write)
{
    struct disk_write *queued = xcalloc(1, sizeof *queued);
    queued->seq = write->seq;
    queued->last_index = write->last_index;
    queued->last_term = write->last_term;
    queued->hard = write->hard;
    queued->cut = write->cut;
    queued->cut_index = write->cut_index;
    if (write->base != NULL) {
        queued->rebased = true;
        queued->base = *write->base;
        queued->base_members = sim_members_copy(write->base->members);
    }
    for (size_t i = 0; i < write->append.count; i++) {
        sim_entries_append(&queued->entries, &write->append.items[i]);
    }
    *disk->queue_end = queued;
    disk->queue_end = &queued->next;
    disk->queued++;
}

bool disk_sync_one(struct disk *disk, struct disk_write *ret_done)
{
    struct disk_write *write = disk->queue;
    if (write == NULL) {
        return false;
    }
    disk->queue = write->next;
    if (disk->queue == NULL) {
        disk->queue_end = &disk->queue;
    }
    disk->queued--;
    disk->hard = write->hard;
    if (write->rebased) {
        entries_cut(&disk->log, 0);
        sim_members_fini(&disk->base_members);
        disk->base = write->base;
        disk->base_members = write->base_members;
        write->base_members = (struct sim_members){ 0 };
    }
    if (write->cut) {
        INVARIANT_LE(disk->base.index, write->cut_index);
        entries_cut(&disk->log, (size_t)(write->cut_index - disk->base.index));
    }
    for (size_t i = 0; i < write->entries.count; i++) {
        INVARIANT_EQ(write->entries.items[i].index, disk_last_index(disk) + 1);
        sim_entries_append(&disk->log, &write->entries.items[i]);
    }
    INVARIANT_EQ(disk_last_index(disk), write->last_index);
    INVARIANT_LE(disk->hard.commit, disk_last_index(disk));
    *ret_done = *write;
    write_fini(write);
    free(write);
    return true;
}

void disk_crash(struct disk *disk, size_t kept)
{
    struct disk_write done;
    while (kept > 0 && disk_sync_one(disk, &done)) {
        kept--;
    }
    while (disk->queue != NULL) {
        struct disk_write *next = disk->queue->next;
        write_fini(disk->queue);
        free(disk->queue);
        disk->queue = next;
    }
    disk->queue_end = &disk->queue;
    disk->queued = 0;
}

uint64_t disk_last_index(const struct disk *disk)
{
    return disk->base.index + disk->log.count;
}

uint64_t disk_term(const struct disk *disk, uint64_t index)
{
    if (index == disk->base.index) {
        return disk->base.term;
    }
    if (index < disk->base.index || index > disk_last_index(disk)) {
        return 0;
    }
    return disk->log.items[index - disk->base.index - 1].term;
}

void disk_compact(struct disk *disk, uint64_t index, struct raft_members members)
{
    INVARIANT_LE(disk->base.index, index);
    INVARIANT_LE(index, disk_last_index(disk));
    struct sim_members copy = sim_members_copy(members);
    uint64_t term = disk_term(disk, index);
    size_t gone = (size_t)(index - disk->base.index);
    for (size_t i = 0; i < gone; i++) {
        free((void *)(uintptr_t)disk->log.items[i].data.data);
    }
    disk->base.time_ns = gone > 0 ? disk->log.items[gone - 1].time_ns : disk->base.time_ns;
    disk->log.count -= gone;
    memmove(disk->log.items, disk->log.items + gone, disk->log.count * sizeof *disk->log.items);
    disk->base.index = index;
    disk->base.term = term;
    sim_members_fini(&disk->base_members);
    disk->base_members = copy;
}
