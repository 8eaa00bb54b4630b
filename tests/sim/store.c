/* store.c: the shell's storage.c, without its threads. */
#include "tests/sim/store.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemons/raftd/membership.h"
#include "daemons/raftd/wal/internal.h"

enum {
    RESERVE_BYTES = 2048,
    CLUSTER_ID = 0xc1,
    GROUP_MAX = 64
};

static void free_members(struct raft_members *members)
{
    free((void *)(uintptr_t)members->voters.items);
    free((void *)(uintptr_t)members->learners.items);
    free((void *)(uintptr_t)members->removed.items);
    *members = (struct raft_members){ 0 };
}

void store_recovered_fini(struct store_recovered *recovered)
{
    storage_recovered_fini(&recovered->log);
    free_members(&recovered->members);
}

static struct wal_config config_of(struct store *store)
{
    return (struct wal_config){ .dir = store->dir,
        .segment_bytes = store->segment_bytes,
        .reserve_bytes = RESERVE_BYTES,
        .io = &store->disk.io };
}

static struct wal_base base_of(
        const struct store *store, const struct raft_base *base, struct buf *configuration)
{
    static const struct membership nameless;
    buf_clear(configuration);
    membership_encode(&nameless, &base->members, configuration);
    return (struct wal_base){
        .index = base->index,
        .term = base->term,
        .cluster_time_ns = base->time_ns,
        .cluster_id = CLUSTER_ID,
        .member_id = store->member_id,
        .configuration = buf_span(configuration),
    };
}

/* ---- Life ----------------------------------------------------------------------------------------------------- */

void store_init(struct store *store, uint64_t member_id, struct raft_members members,
        uint64_t segment_bytes, uint64_t seed)
{
    CLEANUP(buf_fini) struct buf configuration = BUF_INIT;
    struct err err = { 0 };
    store->member_id = member_id;
    store->segment_bytes = segment_bytes;
    store->appended = 0;
    store->is_refusing = store->is_reserve_used = false;
    disk_init(&store->disk, seed);
    ledger_init(&store->ledger, members);
    struct wal_config config = config_of(store);
    struct wal_base base =
            base_of(store, &(struct raft_base){ .members = members }, &configuration);
    struct wal_hard_state hard = { 0 };
    if (wal_create(&config, &base, &hard, &store->wal, &err) < 0) {
        (void)fprintf(stderr, "sim: a new log in %s: %s\n", store->dir, err.text);
        abort();
    }
    store_stop(store, true);
}

void store_fini(struct store *store)
{
    if (store->wal != NULL) {
        store_stop(store, false);
    }
    disk_fini(&store->disk);
    ledger_fini(&store->ledger);
}

int store_start(struct store *store, struct store_recovered *ret_recovered, struct err *err)
{
    struct wal_config config = config_of(store);
    CLEANUP(membership_fini) struct membership membership = { 0 };

    *ret_recovered = (struct store_recovered){ 0 };
    store->appended = store->sync_count = 0;
    store->is_refusing = store->is_reserve_used = false;
    TRY(wal_open(&config, &store->wal, err));
    int r = recovery_read(store->wal, &ret_recovered->log, err);
    if (r == 0) {
        r = wal_start_append(store->wal, err);
    }
    if (r == 0) {
        r = membership_decode(buf_span(&ret_recovered->log.configuration), &membership, err);
    }
    if (r < 0) {
        storage_recovered_fini(&ret_recovered->log);
        store_stop(store, false);
        return r;
    }
    membership_roles(&membership, &ret_recovered->members);
    return 0;
}

void store_stop(struct store *store, bool is_clean)
{
    bool was_off = store->disk.is_off;
    store->disk.is_off |= !is_clean; /* nothing more is written */
    for (size_t i = 0; i < store->sync_count; i++) {
        if (!store->syncs[i].is_nothing) {
            (void)wal_sync_end(store->wal, &store->syncs[i].sync, -EIO, NULL);
        }
    }
    store->sync_count = 0;
    store->wal = wal_close(store->wal);
    store->disk.is_off = was_off;
}

bool store_lose_front(struct store *store)
{
    const struct wal_io *io = &store->disk.io;
    struct names_segment *segments = NULL;
    size_t count = 0;
    size_t needed = 0;

    INVARIANT(store->wal == NULL);
    uint64_t newest = ledger_newest_footing(&store->ledger);
    if (newest == 0 || names_list(io, -1, &segments, &count, NULL) < 0) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        needed = segments[i].first_index <= newest + 1 ? i : needed;
    }
    for (size_t i = 0; i < needed; i++) {
        char name[NAMES_SEGMENT_BYTES];
        names_format(&segments[i], name);
        (void)io->unlink(io->user, -1, name);
    }
    (void)io->sync_file(io->user, -1); /* what is taken away stays away, whatever the power does */
    free(segments);
    ledger_lose_front(&store->ledger);
    return needed > 0;
}

void store_cut_power(struct store *store)
{
    INVARIANT(store->wal == NULL);
    disk_cut_power(&store->disk);
}

/* ---- Writing -------------------------------------------------------------------------------------------------- */

/* A ledger's write as the log takes it, with the memory that it needs. */
struct outgoing {
    struct wal_base base;
    struct wal_hard_state hard;
    struct wal_snapshot snapshot;
    struct wal_entry *entries;
    struct buf configuration;
    struct buf snapshot_configuration;
};

static void outgoing_fini(struct outgoing *outgoing)
{
    free(outgoing->entries);
    buf_fini(&outgoing->configuration);
    buf_fini(&outgoing->snapshot_configuration);
}

static struct wal_write fill_write(
        const struct store *store, struct outgoing *out, const struct ledger_write *write)
{
    struct wal_write filled = { .has_cut = write->cut, .cut_index = write->cut_index };
    *out = (struct outgoing){ .configuration = BUF_INIT, .snapshot_configuration = BUF_INIT };
    if (write->rebased) {
        struct raft_base base = write->base;
        base.members = sim_members_view(&write->base_members);
        out->base = base_of(store, &base, &out->configuration);
        out->base.reset = !write->is_snapshot;
        filled.base = &out->base;
    }
    if (write->is_snapshot) {
        struct raft_base base = { .members = sim_members_view(&write->snapshot_members) };
        struct wal_base said = base_of(store, &base, &out->snapshot_configuration);
        out->snapshot = (struct wal_snapshot){ .index = write->snapshot.index,
            .term = write->snapshot.term,
            .is_base = true,
            .cluster_time_ns = write->snapshot_time_ns,
            .configuration = said.configuration };
        filled.snapshot = &out->snapshot;
        return filled;
    }
    if (write->rebased && write->base.index > 0) {
        out->snapshot =
                (struct wal_snapshot){ .index = write->base.index, .term = write->base.term };
        filled.snapshot = &out->snapshot;
    }
    out->hard = (struct wal_hard_state){ write->hard.term, write->hard.vote, write->hard.commit };
    filled.hard = &out->hard;
    out->entries = xcalloc(write->entries.count, sizeof *out->entries);
    for (size_t i = 0; i < write->entries.count; i++) {
        const struct raft_entry *entry = &write->entries.items[i];
        out->entries[i] = (struct wal_entry){ .index = entry->index,
            .term = entry->term,
            .time_ns = entry->time_ns,
            .kind = (uint8_t)entry->kind,
            .data = entry->data };
    }
    filled.entries = out->entries;
    filled.entry_count = write->entries.count;
    return filled;
}

bool store_may_append(const struct store *store)
{
    return store->ledger.queued > store->appended && !store->is_refusing &&
           store->sync_count < STORE_SYNCS_MAX;
}

/* Whether so much may not fit into the segment: then the log waits for all syncs, and nobody here would end them. */
static bool may_roll(const struct store *store, const struct wal_write *writes, size_t count)
{
    enum {
        WRITE_BYTES = 4096, /* without its entries: more than any */
        ENTRY_BYTES = 64
    };
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += WRITE_BYTES;
        for (size_t j = 0; j < writes[i].entry_count; j++) {
            bytes += ENTRY_BYTES + writes[i].entries[j].data.bytes;
        }
    }
    return store->wal->end + bytes + store->wal->reserve_bytes > store->wal->file.capacity;
}

static void run_sync(struct store *store, struct store_sync *sync)
{
    sync->result = sync->is_nothing ? 0 : wal_sync_run(store->wal, &sync->sync);
    sync->has_run = true;
}

static int begin_sync(
        struct store *store, size_t count, bool is_vote, bool is_early, struct err *err)
{
    struct store_sync *sync = &store->syncs[store->sync_count];
    *sync = (struct store_sync){ .count = count, .is_vote = is_vote };
    int r = wal_sync_begin(store->wal, &sync->sync, err);
    TRY(r);
    sync->is_nothing = r == 0;
    store->sync_count++;
    store->appended += count;
    if (is_early) {
        run_sync(store, sync);
    }
    return 0;
}

static bool is_out_of_space(const struct store *store)
{
    return store->is_at_end && store->disk.is_full;
}

static int append(
        const struct store *store, const struct wal_write *writes, size_t count, struct err *err)
{
    for (size_t i = 0; is_out_of_space(store) && i < count; i++) {
        if (writes[i].entry_count > 0) {
            return err_set(err, -ENOSPC, "the segment ends here, and no other can begin");
        }
    }
    return wal_append(store->wal, writes, count, err);
}

/* All at once or, where that does not fit any more, one by one, up to the first that finds no space. */
static int append_writes(struct store *store, const struct wal_write *writes, size_t count,
        size_t *ret_done, struct err *err)
{
    int r = append(store, writes, count, err);
    *ret_done = r == 0 ? count : 0;
    for (size_t i = 0; r == -ENOSPC && count > 1 && i < count; i++) {
        int one = append(store, &writes[i], 1, err);
        if (one < 0) {
            return one;
        }
        (*ret_done)++;
    }
    return r;
}

int store_append(struct store *store, size_t count, bool is_early, bool is_split, struct err *err)
{
    struct outgoing outgoing[GROUP_MAX];
    struct wal_write writes[GROUP_MAX] = { { .base = NULL } };
    const struct ledger_write *write = store->ledger.queue;
    int r = 0;

    for (size_t i = 0; i < store->appended; i++) {
        write = write->next;
    }
    count = MIN(MIN(count, store->ledger.queued - store->appended), (size_t)GROUP_MAX);
    for (size_t i = 0; i < count; i++, write = write->next) {
        writes[i] = fill_write(store, &outgoing[i], write);
    }
    if (store->sync_count == 0 || !may_roll(store, writes, count)) {
        size_t done = 0;
        size_t first = is_split ? count / 2 : 0;
        r = first > 0 ? append_writes(store, writes, first, &done, err) : 0;
        if (r == 0) {
            size_t rest = 0;
            r = append_writes(store, writes + first, count - first, &rest, err);
            done += rest;
        }
        store->is_refusing = r == -ENOSPC;
        if (done > 0 && (r == 0 || r == -ENOSPC)) {
            int begun = begin_sync(store, done, false, is_early, err);
            r = begun < 0 ? begun : r;
        }
    }
    for (size_t i = 0; i < count; i++) {
        outgoing_fini(&outgoing[i]);
    }
    return r;
}

/* As the shell does: only while nothing is on its way, so that what the vote must not be taken back by comes behind it. */
bool store_may_vote(const struct store *store)
{
    const struct ledger *ledger = &store->ledger;
    const struct ledger_write *newest = ledger_newest(ledger);
    return store->is_refusing && store->sync_count == 0 && newest != NULL &&
           (newest->hard.term != ledger->hard.term || newest->hard.vote != ledger->hard.vote);
}

int store_append_vote(struct store *store, bool is_early, struct err *err)
{
    struct raft_hard_state vote = ledger_send_vote(&store->ledger);
    struct wal_hard_state hard = { vote.term, vote.vote, vote.commit };
    struct wal_write write = { .hard = &hard };
    int r = wal_append(store->wal, &write, 1, err);
    store->is_reserve_used = r == -ENOSPC;
    if (r == -ENOSPC) {
        store->ledger.vote_seq = 0; /* nothing of it was done */
    }
    return r < 0 ? r : begin_sync(store, 0, true, is_early, err);
}

int store_sync(struct store *store, uint64_t *ret_vote_seq, struct err *err)
{
    INVARIANT_LT(0, store->sync_count);
    struct store_sync sync = store->syncs[0];
    if (!sync.has_run) {
        run_sync(store, &sync);
    }
    store->sync_count--;
    memmove(store->syncs, store->syncs + 1, store->sync_count * sizeof store->syncs[0]);
    if (!sync.is_nothing) {
        TRY(wal_sync_end(store->wal, &sync.sync, sync.result, err));
    }
    if (wal_wants_prepare(store->wal)) {
        (void)wal_prepare_next(store->wal, NULL);
    }
    store->appended -= sync.count;
    *ret_vote_seq = sync.is_vote ? ledger_sync_vote(&store->ledger) : 0;
    return (int)sync.count;
}

bool store_check_space(struct store *store)
{
    if (!wal_has_space(store->wal)) {
        (void)wal_prepare_next(store->wal, NULL);
    }
    bool has_space = wal_has_space(store->wal) && !is_out_of_space(store);
    store->is_refusing = store->is_refusing && !(has_space && store->sync_count == 0);
    return has_space;
}

/* ---- Reading -------------------------------------------------------------------------------------------------- */

static int collect_entry(void *user, const struct wal_entry *entry)
{
    struct raft_entry copy = { .index = entry->index,
        .term = entry->term,
        .time_ns = entry->time_ns,
        .kind = (enum raft_entry_kind)entry->kind,
        .data = entry->data };
    if (entry->kind == RAFT_ENTRY_CONFIG) {
        copy.change = membership_change_of(entry->data);
    }
    sim_entries_append(user, &copy);
    return 0;
}

int store_read(struct store *store, uint64_t first, uint64_t end, size_t bytes_max,
        struct sim_entries *ret_entries, struct err *err)
{
    int r = wal_read_entries(
            store->wal, first, end - 1, bytes_max, collect_entry, ret_entries, err);
    return r < 0 ? r : 0;
}
