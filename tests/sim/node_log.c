/* node_log.c: a member's writes, from the queue to the disk and back as durable, and the promises that waited for them. */
#include <errno.h>

#include "tests/sim/node.h"

enum {
    SNAPSHOT_EVERY = 40
};

/* The log failed: the power went, or the process ends as raftd does. */
void node_end_by_disk(struct sim *sim, struct node *node, const struct err *err)
{
    if (!node->store.disk.has_failed) {
        check_fail(sim, "node %" PRIu64 " cannot write its log: %s", node->id, err->text);
    }
    sim->totals[SIM_DISK_FAILURES]++;
    node_crash(sim, node, node->store.disk.is_off ? NODE_END_POWER : NODE_END_PROCESS);
    if (sim->calm || (sim->is_steady && node->id != sim->victim_id)) {
        node_start(sim, node); /* it failed before, and shows only now */
    }
}

/* Entries wait for space, and now votes are asked for; and this member does not live to write the entries. */
static void ambush_full(struct sim *sim, const struct node *node)
{
    const struct node *leader = sim_find_leader(sim);
    if (!sim->with_ambush || sim->calm || leader == NULL || rng_chance(&sim->rng, 500)) {
        return;
    }
    node_schedule(sim, leader, rng_below(&sim->rng, 100 * SIM_MS),
            (struct sim_event){ .kind = EVENT_CRASH });
    if (rng_chance(&sim->rng, 500) && leader != node) {
        node_schedule(sim, node, rng_between(&sim->rng, 500, 5000) * SIM_MS,
                (struct sim_event){ .kind = EVENT_CRASH });
    }
}

/* Goes on with what is queued, unless something does already, or it waits for space or for a sync. */
void node_go_on_writing(struct sim *sim, struct node *node)
{
    if (node->is_writing || (!store_may_append(&node->store) && !store_may_vote(&node->store))) {
        return;
    }
    node->is_writing = true;
    node_schedule(
            sim, node, rng_below(&sim->rng, 2 * SIM_MS), (struct sim_event){ .kind = EVENT_WRITE });
}

void node_queue_write(struct sim *sim, struct node *node, const struct raft_write *write)
{
    if (write->seq == 0) {
        return;
    }
    ledger_queue(&node->store.ledger, write);
    node_go_on_writing(sim, node);
}

/* A vote needs no more room than the reserve has. */
void node_check_votes_go(struct sim *sim, struct node *node)
{
    enum {
        IDLE_TICKS_MAX = 2
    };
    if (node->is_writing || node->store.sync_count > 0 || node->store.is_reserve_used) {
        return;
    }
    for (size_t i = 0; i < node->vow_count; i++) {
        if (node->vows[i].hard_only && ++node->vows[i].idle_ticks > IDLE_TICKS_MAX) {
            check_fail(sim, "node %" PRIu64 ": a vote waits, and nothing is written", node->id);
        }
    }
}

/* The file is there, and durable. */
void node_keep_snapshot(struct node *node, struct machine position)
{
    if (node->snapshot_count > 0 && node->snapshots[0].index >= position.index) {
        return;
    }
    node->snapshot_count = MIN(node->snapshot_count + 1, (size_t)SIM_SNAPSHOTS_MAX);
    memmove(node->snapshots + 1, node->snapshots,
            (node->snapshot_count - 1) * sizeof *node->snapshots);
    node->snapshots[0] = position;
}

void node_on_write(struct sim *sim, struct node *node)
{
    struct err err = { 0 };
    struct store *store = &node->store;
    if (!sim->calm && sim->with_ambush && rng_chance(&sim->rng, 5)) {
        disk_arm(&store->disk, (unsigned)rng_below(&sim->rng, 10));
    }
    size_t before = store->sync_count;
    int r = 0;
    if (store_may_vote(store)) {
        r = store_append_vote(store, rng_chance(&sim->rng, 300), &err);
    } else if (store_may_append(store)) {
        size_t count = (size_t)rng_between(&sim->rng, 1, store->ledger.queued - store->appended);
        r = store_append(
                store, count, rng_chance(&sim->rng, 300), rng_chance(&sim->rng, 300), &err);
    }
    if (r < 0 && r != -ENOSPC) {
        node_end_by_disk(sim, node, &err);
        return;
    }
    node->is_writing = false;
    if (r == -ENOSPC) {
        ambush_full(sim, node);
    }
    if (store->sync_count == before) {
        return; /* no space, or it has to wait for those under way */
    }
    node_schedule(sim, node, rng_below(&sim->rng, sim->sync_ns_max + 1),
            (struct sim_event){ .kind = EVENT_SYNC });
    if (sim->with_many_syncs) {
        node_go_on_writing(sim, node);
    }
}

static void send_vows(struct sim *sim, struct node *node, uint64_t seq, bool hard_only)
{
    size_t kept = 0;
    for (size_t i = 0; i < node->vow_count; i++) {
        if (node->vows[i].after_seq <= seq && (node->vows[i].hard_only || !hard_only)) {
            network_post(sim, node, node->vows[i].message);
        } else {
            node->vows[kept++] = node->vows[i];
        }
    }
    node->vow_count = kept;
}

static void on_snapshot_recorded(
        struct sim *sim, struct node *node, const struct ledger_write *done)
{
    struct err err = { 0 };
    struct raft_input input = { .kind = RAFT_INPUT_SNAPSHOT_MADE,
        .position = { done->snapshot.index, done->snapshot.term } };
    node->snapshot_pending = false;
    (void)node_step(sim, node, &input);
    if (!done->rebased || !node->up) {
        return;
    }
    input = (struct raft_input){ .kind = RAFT_INPUT_LOG_COMPACTED,
        .position = { done->base.index, done->base.term } };
    (void)node_step(sim, node, &input);
    if (node->up && wal_purge_before(node->store.wal, done->base.index + 1, &err) < 0) {
        node_end_by_disk(sim, node, &err);
    }
}

static void on_written(struct sim *sim, struct node *node, const struct ledger_write *done)
{
    if (done->is_snapshot) {
        on_snapshot_recorded(sim, node, done);
        return;
    }
    send_vows(sim, node, done->seq, false);
    struct raft_input input = { .kind = RAFT_INPUT_SYNCED,
        .synced = { .write_seq = done->seq,
                .last_index = done->last_index,
                .last_term = done->last_term } };
    (void)node_step(sim, node, &input);
}

static void on_vote_written(struct sim *sim, struct node *node, uint64_t seq)
{
    struct raft_input input = { .kind = RAFT_INPUT_SYNCED,
        .synced = { .write_seq = seq, .hard_only = true } };
    sim->totals[SIM_VOTES_AHEAD]++;
    send_vows(sim, node, seq, true);
    (void)node_step(sim, node, &input);
}

void node_on_sync(struct sim *sim, struct node *node)
{
    struct err err = { 0 };
    uint64_t vote_seq = 0;
    int count = store_sync(&node->store, &vote_seq, &err);
    if (count < 0) {
        node_end_by_disk(sim, node, &err);
        return;
    }
    if (vote_seq != 0) {
        on_vote_written(sim, node, vote_seq);
    }
    /* One completion may stand for several writes. */
    bool is_one_by_one = rng_chance(&sim->rng, 700);
    uint64_t life = node->life;
    for (int i = 0; i < count && node->up && node->life == life; i++) {
        struct ledger_write *done = ledger_sync_one(&node->store.ledger);
        bool is_covered = !is_one_by_one && !done->is_snapshot && i + 1 < count &&
                          !node->store.ledger.queue->is_snapshot;
        if (!is_covered) {
            on_written(sim, node, done);
        }
        (void)ledger_write_free(done);
    }
    if (node->up) {
        node_go_on_writing(sim, node);
    }
}

/* Where the log is to begin once this snapshot is recorded; false: where it does. */
static bool draw_base(struct sim *sim, struct node *node, struct raft_base *ret_base)
{
    struct raft_status status;
    raft_get_status(node->raft, &status);
    size_t oldest =
            (size_t)rng_below(&sim->rng, MIN(node->snapshot_count, (size_t)SIM_SNAPSHOTS_KEPT));
    const struct machine *snapshot = &node->snapshots[oldest];
    *ret_base = (struct raft_base){
        .index = snapshot->index, .term = snapshot->term, .time_ns = snapshot->time_ns
    };
    return rng_chance(&sim->rng, 700) && snapshot->index > status.base_index &&
           raft_get_members_at(node->raft, snapshot->index, &ret_base->members);
}

void node_make_snapshot(struct sim *sim, struct node *node)
{
    uint64_t newest = node->snapshot_count > 0 ? node->snapshots[0].index : 0;
    struct raft_base base;
    struct raft_base taken = {
        .index = node->state.index, .term = node->state.term, .time_ns = node->state.time_ns
    };
    if (!sim->with_compaction || node->snapshot_pending ||
            node->state.index < newest + SNAPSHOT_EVERY) {
        return;
    }
    node_keep_snapshot(node, node->state);
    if (raft_term_at(node->raft, node->state.index) != node->state.term ||
            !raft_get_members_at(node->raft, node->state.index, &taken.members)) {
        return; /* a snapshot from elsewhere is being installed */
    }
    node->snapshot_pending = true;
    bool moves = draw_base(sim, node, &base);
    ledger_queue_snapshot(&node->store.ledger, &taken, moves ? &base : NULL);
    node_go_on_writing(sim, node);
}
