/* ledger.c: an array of entries, and a queue in front of it. */
#include "tests/sim/ledger.h"

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

void ledger_init(struct ledger *ledger, struct raft_members members)
{
    *ledger = (struct ledger){ 0 };
    ledger->base_members = sim_members_copy(members);
    ledger->queue_end = &ledger->queue;
}

struct ledger_write *ledger_write_free(struct ledger_write *write)
{
    sim_members_fini(&write->base_members);
    sim_members_fini(&write->snapshot_members);
    sim_entries_fini(&write->entries);
    free(write);
    return NULL;
}

static void drop_queue(struct ledger *ledger)
{
    while (ledger->queue != NULL) {
        struct ledger_write *next = ledger->queue->next;
        (void)ledger_write_free(ledger->queue);
        ledger->queue = next;
    }
    ledger->queue_end = &ledger->queue;
    ledger->queued = 0;
}

/* Those below index. */
static void drop_footings(struct ledger *ledger, uint64_t index)
{
    size_t gone = 0;
    while (gone < ledger->footing_count && ledger->footings[gone].base.index < index) {
        sim_members_fini(&ledger->footings[gone++].base_members);
    }
    ledger->footing_count -= gone;
    if (gone > 0) {
        memmove(ledger->footings, ledger->footings + gone,
                ledger->footing_count * sizeof *ledger->footings);
    }
}

void ledger_fini(struct ledger *ledger)
{
    drop_queue(ledger);
    drop_footings(ledger, UINT64_MAX);
    free(ledger->footings);
    sim_entries_fini(&ledger->log);
    sim_members_fini(&ledger->base_members);
}

static void set_base(struct ledger_write *queued, const struct raft_base *base)
{
    queued->rebased = true;
    queued->base = *base;
    queued->base_members = sim_members_copy(base->members);
}

static void append_queued(struct ledger *ledger, struct ledger_write *take_queued)
{
    *ledger->queue_end = take_queued;
    ledger->queue_end = &take_queued->next;
    ledger->queued++;
}

void ledger_queue(struct ledger *ledger, const struct raft_write *write)
{
    struct ledger_write *queued = xcalloc(1, sizeof *queued);
    queued->seq = write->seq;
    queued->last_index = write->last_index;
    queued->last_term = write->last_term;
    queued->hard = write->hard;
    queued->cut = write->cut;
    queued->cut_index = write->cut_index;
    if (write->base != NULL) {
        set_base(queued, write->base);
    }
    for (size_t i = 0; i < write->append.count; i++) {
        sim_entries_append(&queued->entries, &write->append.items[i]);
    }
    append_queued(ledger, queued);
}

void ledger_queue_snapshot(
        struct ledger *ledger, const struct raft_base *snapshot, const struct raft_base *moved)
{
    struct ledger_write *queued = xcalloc(1, sizeof *queued);
    queued->is_snapshot = true;
    queued->snapshot = (struct storage_snapshot){ snapshot->index, snapshot->term };
    queued->snapshot_time_ns = snapshot->time_ns;
    queued->snapshot_members = sim_members_copy(snapshot->members);
    if (moved != NULL) {
        set_base(queued, moved);
    }
    append_queued(ledger, queued);
}

/* Entries up to index go. */
static void drop_front(struct ledger *ledger, uint64_t index)
{
    INVARIANT_LE(ledger->base.index, index);
    INVARIANT_LE(index, ledger_last_index(ledger));
    size_t gone = (size_t)(index - ledger->base.index);
    for (size_t i = 0; i < gone; i++) {
        free((void *)(uintptr_t)ledger->log.items[i].data.data);
    }
    ledger->log.count -= gone;
    if (gone > 0) {
        memmove(ledger->log.items, ledger->log.items + gone,
                ledger->log.count * sizeof *ledger->log.items);
    }
}

static void take_snapshot(struct ledger *ledger, const struct ledger_write *write)
{
    ledger->footings =
            xrealloc(ledger->footings, (ledger->footing_count + 1) * sizeof *ledger->footings);
    ledger->footings[ledger->footing_count++] = (struct ledger_footing){
        .base = { .index = write->snapshot.index,
                .term = write->snapshot.term,
                .time_ns = write->snapshot_time_ns },
        .base_members = sim_members_copy(sim_members_view(&write->snapshot_members)),
    };
}

static void take_base(struct ledger *ledger, struct ledger_write *write)
{
    if (write->is_snapshot && write->base.index <= ledger->base.index) {
        return; /* it begins later already: what lay between was taken away */
    }
    drop_footings(ledger, write->base.index);
    if (write->is_snapshot) {
        drop_front(ledger, write->base.index);
    } else {
        entries_cut(&ledger->log, 0);
    }
    sim_members_fini(&ledger->base_members);
    ledger->base = write->base;
    ledger->base_members = sim_members_copy(sim_members_view(&write->base_members));
}

struct ledger_write *ledger_sync_one(struct ledger *ledger)
{
    struct ledger_write *write = ledger->queue;
    INVARIANT(write != NULL);
    ledger->queue = write->next;
    if (ledger->queue == NULL) {
        ledger->queue_end = &ledger->queue;
    }
    ledger->queued--;
    if (write->rebased) {
        take_base(ledger, write);
    }
    if (write->is_snapshot) {
        take_snapshot(ledger, write);
        return write;
    }
    ledger->hard = write->hard;
    if (write->cut) {
        INVARIANT_LE(ledger->base.index, write->cut_index);
        entries_cut(&ledger->log, (size_t)(write->cut_index - ledger->base.index));
    }
    for (size_t i = 0; i < write->entries.count; i++) {
        INVARIANT_EQ(write->entries.items[i].index, ledger_last_index(ledger) + 1);
        sim_entries_append(&ledger->log, &write->entries.items[i]);
    }
    INVARIANT_EQ(ledger_last_index(ledger), write->last_index);
    INVARIANT_LE(ledger->hard.commit, ledger_last_index(ledger));
    return write;
}

/* ---- Votes that go ahead -------------------------------------------------------------------------------------- */

const struct ledger_write *ledger_newest(const struct ledger *ledger)
{
    const struct ledger_write *newest = NULL;
    for (const struct ledger_write *write = ledger->queue; write != NULL; write = write->next) {
        newest = write->is_snapshot ? newest : write;
    }
    return newest;
}

struct raft_hard_state ledger_send_vote(struct ledger *ledger)
{
    const struct ledger_write *newest = ledger_newest(ledger);
    INVARIANT(newest != NULL);
    ledger->vote_seq = newest->seq;
    ledger->vote = newest->hard;
    ledger->vote.commit = ledger->hard.commit;
    return ledger->vote;
}

uint64_t ledger_sync_vote(struct ledger *ledger)
{
    uint64_t seq = ledger->vote_seq;
    INVARIANT(seq != 0);
    ledger->hard = ledger->vote;
    for (struct ledger_write *write = ledger->queue; write != NULL; write = write->next) {
        if (!write->is_snapshot && write->seq <= seq) {
            write->hard.term = ledger->vote.term;
            write->hard.vote = ledger->vote.vote;
        }
    }
    ledger->vote_seq = 0;
    return seq;
}

/* ---- What a restart may find ---------------------------------------------------------------------------------- */

static bool ids_equal(struct raft_ids a, struct raft_ids b)
{
    return a.count == b.count &&
           (a.count == 0 || memcmp(a.items, b.items, a.count * sizeof *a.items) == 0);
}

static bool base_equal(const struct ledger *ledger, const struct wal_base *base,
        const struct raft_members *members)
{
    struct raft_members own = sim_members_view(&ledger->base_members);
    return ledger->base.index == base->index && ledger->base.term == base->term &&
           ledger->base.time_ns == base->cluster_time_ns &&
           ids_equal(own.voters, members->voters) && ids_equal(own.learners, members->learners) &&
           ids_equal(own.removed, members->removed);
}

static bool entry_equal(const struct raft_entry *own, const struct raft_entry *read)
{
    return own->index == read->index && own->term == read->term && own->time_ns == read->time_ns &&
           own->kind == read->kind && own->data.bytes == read->data.bytes &&
           own->change.kind == read->change.kind && own->change.member_id == read->change.member_id;
}

static bool is_what_was_read(const struct ledger *ledger, const struct storage_recovered *recovered,
        const struct raft_members *members)
{
    bool is_equal = ledger->hard.term == recovered->hard.term &&
                    ledger->hard.vote == recovered->hard.vote &&
                    ledger->hard.commit == recovered->hard.commit &&
                    ledger->log.count == recovered->entry_count &&
                    base_equal(ledger, &recovered->base, members);
    for (size_t i = 0; is_equal && i < ledger->log.count; i++) {
        is_equal = entry_equal(&ledger->log.items[i], &recovered->entries[i]);
    }
    return is_equal;
}

void ledger_lose_front(struct ledger *ledger)
{
    ledger->may_begin_late = true;
}

uint64_t ledger_newest_footing(const struct ledger *ledger)
{
    size_t count = ledger->footing_count;
    return count == 0 ? 0 : ledger->footings[count - 1].base.index;
}

/* The log begins behind this recorded snapshot now. */
static void begin_behind(struct ledger *ledger, size_t position)
{
    struct ledger_footing *footing = &ledger->footings[position];
    drop_front(ledger, footing->base.index);
    ledger->base = footing->base;
    sim_members_fini(&ledger->base_members);
    ledger->base_members = sim_members_copy(sim_members_view(&footing->base_members));
}

static void begin_where_it_was_read(struct ledger *ledger, uint64_t index)
{
    for (size_t i = 0; i < ledger->footing_count && ledger->base.index < index; i++) {
        if (ledger->footings[i].base.index == index && index <= ledger_last_index(ledger)) {
            begin_behind(ledger, i);
        }
    }
}

static bool is_recorded(
        const struct storage_recovered *recovered, const struct storage_snapshot *snapshot)
{
    for (size_t i = 0; i < recovered->snapshot_count; i++) {
        if (recovered->snapshots[i].index == snapshot->index &&
                recovered->snapshots[i].term == snapshot->term) {
            return true;
        }
    }
    return false;
}

/* A snapshot that was recorded and not told of shows in nothing but itself, until the log begins behind it one day. What
 * was written before it is there too, though it may have changed nothing that shows. */
static void take_recorded(struct ledger *ledger, const struct storage_recovered *recovered)
{
    size_t position = 0;
    size_t taken = 0;
    for (const struct ledger_write *write = ledger->queue; write != NULL; write = write->next) {
        position++;
        taken = write->is_snapshot && is_recorded(recovered, &write->snapshot) ? position : taken;
    }
    for (; taken > 0; taken--) {
        (void)ledger_write_free(ledger_sync_one(ledger));
    }
}

bool ledger_restart(struct ledger *ledger, const struct storage_recovered *recovered,
        const struct raft_members *members)
{
    if (ledger->may_begin_late) {
        begin_where_it_was_read(ledger, recovered->base.index);
    }
    if (ledger->vote_seq != 0 && !is_what_was_read(ledger, recovered, members)) {
        (void)ledger_sync_vote(ledger);
    }
    while (!is_what_was_read(ledger, recovered, members)) {
        if (ledger->queue == NULL) {
            return false;
        }
        (void)ledger_write_free(ledger_sync_one(ledger));
    }
    take_recorded(ledger, recovered);
    drop_queue(ledger);
    ledger->vote_seq = 0;
    return is_what_was_read(ledger, recovered, members);
}

uint64_t ledger_last_index(const struct ledger *ledger)
{
    return ledger->base.index + ledger->log.count;
}

uint64_t ledger_term(const struct ledger *ledger, uint64_t index)
{
    if (index == ledger->base.index) {
        return ledger->base.term;
    }
    if (index < ledger->base.index || index > ledger_last_index(ledger)) {
        return 0;
    }
    return ledger->log.items[index - ledger->base.index - 1].term;
}
