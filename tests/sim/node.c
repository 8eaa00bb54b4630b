/* node.c: a member: the shell around one core, its disk, its state machine. Does the duties of each ready as raft.h
 * demands; loses what a crash would lose. */
#include <errno.h>
#include <stdlib.h>

#include "daemons/raftd/membership.h"
#include "proto/op.h"
#include "tests/sim/sim.h"

enum {
    SNAPSHOT_EVERY = 40,
    APPLY_DELAY_MS_MAX = 20
};

static int node_step(struct sim *sim, struct node *node, struct raft_input *input);

static void schedule(
        struct sim *sim, const struct node *node, uint64_t delay_ns, struct sim_event event)
{
    event.node_id = node->id;
    event.life = node->life;
    sim_schedule(sim, delay_ns, event);
}

void node_set_clock(struct sim *sim, struct node *node)
{
    if (sim_slot(sim, node) == sim->liar) {
        clocks_set_wall_wrong(&node->clocks, &sim->rng, sim->liar_is_ahead);
    } else {
        clocks_set_wall(&node->clocks, &sim->rng);
    }
}

void node_init(struct sim *sim, struct node *node, uint64_t id, struct raft_members members)
{
    *node = (struct node){ .id = id, .told_writable = true, .state = MACHINE_INIT };
    clocks_boot(&node->clocks, &sim->rng, sim->now_ns);
    node->without_lease = rng_chance(&sim->rng, 200);
    node_set_clock(sim, node);
    node->fronts = (struct rng){ machine_mix(sim->seed, id) };
    (void)snprintf(
            node->store.dir, sizeof node->store.dir, "%s/%zu", sim->dir, sim_slot(sim, node));
    node->store.is_at_end =
            sim->seed % 4 == 2; /* drawing it would change what the known seeds do */
    store_init(&node->store, id, members, sim->segment_bytes, rng_next(&sim->rng));
}

static void drop_volatile(struct node *node)
{
    for (size_t i = 0; i < node->vow_count; i++) {
        sim_message_free(node->vows[i].message);
    }
    node->vow_count = 0;
    node->read_count = 0;
    sim_entries_fini(&node->apply_queue);
    node->apply_scheduled = false;
    node->is_writing = false;
    node->snapshot_pending = false;
    node->stored_up = false;
}

void node_fini(struct node *node)
{
    drop_volatile(node);
    store_fini(&node->store);
    free(node->vows);
    free(node->reads);
    node->raft = raft_free(node->raft);
}

/* The snapshots that both the log and the folder know. */
static void recover_snapshots(struct node *node, const struct storage_recovered *recovered)
{
    size_t kept = 0;
    for (size_t i = 0; i < node->snapshot_count; i++) {
        bool is_known = false;
        for (size_t j = 0; j < recovered->snapshot_count; j++) {
            is_known |= recovered->snapshots[j].index == node->snapshots[i].index &&
                        recovered->snapshots[j].term == node->snapshots[i].term;
        }
        if (is_known &&
                raft_term_at(node->raft, node->snapshots[i].index) == node->snapshots[i].term) {
            node->snapshots[kept++] = node->snapshots[i];
        }
    }
    node->snapshot_count = kept;
}

static void load_core(struct sim *sim, struct node *node, const struct store_recovered *recovered)
{
    struct raft_options options = sim->core;
    options.self_id = node->id;
    options.lease_read &= !node->without_lease;
    options.seed = rng_next(&sim->rng);
    struct raft_base base = { .index = recovered->log.base.index,
        .term = recovered->log.base.term,
        .time_ns = recovered->log.base.cluster_time_ns,
        .members = recovered->members };
    node->raft = raft_new(&options, &recovered->log.hard, &base);
    struct raft_entry_span entries = { recovered->log.entries, recovered->log.entry_count };
    if (raft_load_entries(node->raft, entries) != 0) {
        check_fail(sim, "node %" PRIu64 " cannot load its log", node->id);
    }
}

/* Reads the log as raftd does; false if the disk failed meanwhile, and the node is down again. */
static bool recover(struct sim *sim, struct node *node)
{
    struct store_recovered recovered;
    struct err err = { 0 };
    if (store_start(&node->store, &recovered, &err) < 0) {
        if (!node->store.disk.has_failed && !node->store.disk.is_full) {
            check_fail(sim, "node %" PRIu64 " cannot start: %s", node->id, err.text);
        }
        sim->totals[SIM_DISK_FAILURES]++;
        if (node->store.disk.is_off) {
            store_cut_power(&node->store);
        }
        return false;
    }
    if (!ledger_restart(&node->store.ledger, &recovered.log, &recovered.members)) {
        check_fail(sim,
                "node %" PRIu64 " read from its disk what its log never was: base %" PRIu64
                " entries %zu term %" PRIu64 " vote %" PRIu64 " commit %" PRIu64,
                node->id, recovered.log.base.index, recovered.log.entry_count,
                recovered.log.hard.term, recovered.log.hard.vote, recovered.log.hard.commit);
    }
    sim->totals[SIM_RESTARTS]++;
    sim->totals[SIM_TORN] += recovered.log.torn_bytes > 0;
    load_core(sim, node, &recovered);
    recover_snapshots(node, &recovered.log);
    store_recovered_fini(&recovered);
    return true;
}

/* Trouble with the disk, while it is read and written anew or later. */
static void trouble_disk(struct sim *sim, struct node *node)
{
    disk_restart(&node->store.disk);
    if (sim->calm || sim->is_steady) {
        return;
    }
    if (rng_chance(&sim->rng, 30)) {
        disk_arm(&node->store.disk, (unsigned)rng_below(&sim->rng, 12));
    } else if (rng_chance(&sim->rng, 30)) {
        disk_fail_sync(&node->store.disk, (unsigned)rng_between(&sim->rng, 1, 30));
    }
}

/* Somebody takes away what a start does not need: older snapshots, and the log before the newest. */
static void lose_front(struct sim *sim, struct node *node)
{
    if (sim->calm || !sim->with_compaction || !rng_chance(&node->fronts, 100)) {
        return;
    }
    disk_restart(&node->store.disk);
    if (node->snapshot_count > 0 &&
            node->snapshots[0].index >= ledger_newest_footing(&node->store.ledger) &&
            store_lose_front(&node->store)) {
        sim->totals[SIM_FRONTS_LOST]++;
    }
}

void node_start(struct sim *sim, struct node *node)
{
    INVARIANT(!node->up);
    INVARIANT(!node->gone);
    lose_front(sim, node);
    trouble_disk(sim, node);
    if (!recover(sim, node)) {
        return;
    }
    node->up = true;
    node->life++;
    node->told_writable = true;
    node->role_seen = RAFT_ROLE_FOLLOWER;
    node->term_seen = node->store.ledger.hard.term;
    node->commit_seen = 0;
    for (size_t i = node->snapshot_count; i > 0; i--) {
        struct raft_input made = { .kind = RAFT_INPUT_SNAPSHOT_MADE,
            .position = { node->snapshots[i - 1].index, node->snapshots[i - 1].term } };
        (void)node_step(sim, node, &made);
    }
    schedule(
            sim, node, rng_below(&sim->rng, SIM_TICK_NS), (struct sim_event){ .kind = EVENT_TICK });
    schedule(sim, node, rng_between(&sim->rng, 1, 300) * SIM_MS,
            (struct sim_event){ .kind = EVENT_STORED_BACK });
}

void node_crash(struct sim *sim, struct node *node, enum node_end end)
{
    INVARIANT(node->up);
    sim->totals[SIM_CRASHES]++;
    node->up = false;
    node->life++;
    node->raft = raft_free(node->raft);
    drop_volatile(node);
    store_stop(&node->store, end == NODE_END_CLEAN);
    if (end == NODE_END_POWER) {
        store_cut_power(&node->store);
        node->state = MACHINE_INIT;
        clocks_boot(&node->clocks, &sim->rng, sim->now_ns);
    }
}

/* The log failed: the power went, or the process ends as raftd does. */
static void end_by_disk(struct sim *sim, struct node *node, const struct err *err)
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

/* Trouble at the worst moment: before a new term or vote is on disk, or when a leader has not committed anything yet. */
static void ambush(struct sim *sim, const struct node *node, const struct raft_ready *ready)
{
    if (!sim->with_ambush || sim->calm) {
        return;
    }
    if (ready->write.hard_changed && rng_chance(&sim->rng, 100)) {
        schedule(sim, node, rng_below(&sim->rng, 30 * SIM_MS),
                (struct sim_event){ .kind = EVENT_CRASH });
    }
    if (ready->state_changed && node->role_seen == RAFT_ROLE_LEADER && sim->with_membership &&
            rng_chance(&sim->rng, 400)) {
        schedule(sim, node, rng_below(&sim->rng, 20 * SIM_MS),
                (struct sim_event){ .kind = EVENT_CHANGE });
    }
}

/* Entries wait for space, and now votes are asked for; and this member does not live to write the entries. */
static void ambush_full(struct sim *sim, const struct node *node)
{
    const struct node *leader = sim_find_leader(sim);
    if (!sim->with_ambush || sim->calm || leader == NULL || rng_chance(&sim->rng, 500)) {
        return;
    }
    schedule(sim, leader, rng_below(&sim->rng, 100 * SIM_MS),
            (struct sim_event){ .kind = EVENT_CRASH });
    if (rng_chance(&sim->rng, 500) && leader != node) {
        schedule(sim, node, rng_between(&sim->rng, 500, 5000) * SIM_MS,
                (struct sim_event){ .kind = EVENT_CRASH });
    }
}

/* ---- Duties --------------------------------------------------------------------------------------------------- */

/* Goes on with what is queued, unless something does already, or it waits for space or for a sync. */
static void go_on_writing(struct sim *sim, struct node *node)
{
    if (node->is_writing || (!store_may_append(&node->store) && !store_may_vote(&node->store))) {
        return;
    }
    node->is_writing = true;
    schedule(
            sim, node, rng_below(&sim->rng, 2 * SIM_MS), (struct sim_event){ .kind = EVENT_WRITE });
}

static void queue_write(struct sim *sim, struct node *node, const struct raft_write *write)
{
    if (write->seq == 0) {
        return;
    }
    ledger_queue(&node->store.ledger, write);
    go_on_writing(sim, node);
}

static void keep_vow(struct node *node, const struct raft_vow *vow)
{
    if (node->vow_count == node->vow_capacity) {
        node->vow_capacity = node->vow_capacity == 0 ? 16 : node->vow_capacity * 2;
        node->vows = xrealloc(node->vows, node->vow_capacity * sizeof *node->vows);
    }
    node->vows[node->vow_count++] = (struct pending_vow){ .after_seq = vow->after_seq,
        .hard_only = vow->hard_only,
        .message = sim_message_copy(node, &vow->message) };
}

static void queue_apply(struct sim *sim, struct node *node, const struct raft_ready *ready)
{
    if (ready->apply.count == 0) {
        return;
    }
    const struct raft_entry_span *apply = &ready->apply;
    uint64_t expected = node->apply_queue.count > 0
                                ? node->apply_queue.items[node->apply_queue.count - 1].index + 1
                                : node->state.index + 1;
    if (!node->stored_up || apply->items[0].index != expected ||
            ready->apply_prev_index + 1 != expected) {
        check_fail(sim, "node %" PRIu64 " was handed %" PRIu64 " where %" PRIu64 " comes next",
                node->id, apply->items[0].index, expected);
    }
    for (size_t i = 0; i < apply->count; i++) {
        const struct raft_entry *entry = &apply->items[i];
        if (ledger_term(&node->store.ledger, entry->index) != entry->term) {
            check_fail(sim, "node %" PRIu64 " was handed %" PRIu64 " which its disk does not have",
                    node->id, entry->index);
        }
        sim_entries_append(&node->apply_queue, entry);
    }
    if (!node->apply_scheduled) {
        node->apply_scheduled = true;
        schedule(sim, node, rng_below(&sim->rng, (sim->calm ? 1 : APPLY_DELAY_MS_MAX) * SIM_MS),
                (struct sim_event){ .kind = EVENT_APPLY });
    }
}

static void settle_read(
        struct sim *sim, struct node *node, uint64_t context, const uint64_t *granted_index)
{
    for (size_t i = 0; i < node->read_count; i++) {
        if (node->reads[i].context != context) {
            continue;
        }
        if (granted_index != NULL && *granted_index < node->reads[i].committed) {
            check_fail(sim,
                    "node %" PRIu64 ": a read was granted at %" PRIu64 " though %" PRIu64
                    " was committed when it was asked for",
                    node->id, *granted_index, node->reads[i].committed);
        }
        if (granted_index != NULL && node->role_seen == RAFT_ROLE_LEADER && !sim->core.lease_read) {
            check_grant(sim, node, node->reads[i].asked_at_ns);
        }
        node->reads[i] = node->reads[--node->read_count];
        return;
    }
    check_fail(sim, "node %" PRIu64 ": read %" PRIu64 " was answered twice", node->id, context);
}

static void settle_reads(struct sim *sim, struct node *node, const struct raft_ready *ready)
{
    for (size_t i = 0; i < ready->grant_count; i++) {
        sim->totals[SIM_READS_GRANTED]++;
        settle_read(sim, node, ready->grants[i].context, &ready->grants[i].index);
    }
    for (size_t i = 0; i < ready->read_refused_count; i++) {
        sim->totals[SIM_READS_REFUSED]++;
        settle_read(sim, node, ready->reads_refused[i].context, NULL);
    }
}

static int node_step(struct sim *sim, struct node *node, struct raft_input *input)
{
    struct raft_ready ready;
    input->now_ns = clocks_boot_ns(&node->clocks, sim->now_ns);
    input->wall_ns = clocks_wall_ns(&node->clocks, sim->now_ns);
    int result = raft_step(node->raft, input, &ready);
    sim->totals[SIM_STEPS]++;
    check_step(sim, node, &ready);
    ambush(sim, node, &ready);

    for (size_t i = 0; i < ready.send.count; i++) {
        network_send(sim, node, &ready.send.items[i]);
    }
    queue_write(sim, node, &ready.write);
    for (size_t i = 0; i < ready.vow_count; i++) {
        keep_vow(node, &ready.vows[i]);
    }
    queue_apply(sim, node, &ready);
    if (ready.install != NULL) {
        node->stored_up = false;
        sim_entries_fini(&node->apply_queue);
        schedule(sim, node, SIM_MS, (struct sim_event){ .kind = EVENT_STORED_BACK });
    }
    settle_reads(sim, node, &ready);
    for (size_t i = 0; i < ready.need_count; i++) {
        schedule(sim, node, rng_below(&sim->rng, (sim->calm ? 1 : 5) * SIM_MS),
                (struct sim_event){ .kind = EVENT_READ_BACK, .need = ready.needs[i] });
    }
    if (ready.removed) {
        node_crash(sim, node, NODE_END_CLEAN);
        node->gone = true;
        return result;
    }
    if (ready.promote_id != 0) {
        check_promotion(sim, node, ready.promote_id);
        node_propose_change(
                sim, node, (struct raft_change){ RAFT_CHANGE_PROMOTE, ready.promote_id });
    }
    return result;
}

/* A vote needs no more room than the reserve has. */
static void check_votes_go(struct sim *sim, struct node *node)
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

/* ---- Events --------------------------------------------------------------------------------------------------- */

static void on_tick(struct sim *sim, struct node *node)
{
    schedule(sim, node, SIM_TICK_NS - SIM_MS + rng_below(&sim->rng, 2 * SIM_MS),
            (struct sim_event){ .kind = EVENT_TICK });
    struct raft_input input = { .kind = RAFT_INPUT_TICK };
    (void)node_step(sim, node, &input);
    if (!node->up) {
        return;
    }
    check_votes_go(sim, node);
    bool has_space = store_check_space(&node->store);
    go_on_writing(sim, node);
    bool writable = has_space && !node->state_is_full;
    if (writable != node->told_writable) {
        node->told_writable = writable;
        struct raft_input told = { .kind = RAFT_INPUT_WRITABLE, .writable = writable };
        (void)node_step(sim, node, &told);
    }
}

/* The file is there, and durable. */
static void keep_snapshot(struct node *node, struct machine position)
{
    if (node->snapshot_count > 0 && node->snapshots[0].index >= position.index) {
        return;
    }
    node->snapshot_count = MIN(node->snapshot_count + 1, (size_t)SIM_SNAPSHOTS_MAX);
    memmove(node->snapshots + 1, node->snapshots,
            (node->snapshot_count - 1) * sizeof *node->snapshots);
    node->snapshots[0] = position;
}

static void on_deliver(struct sim *sim, struct node *node, const struct sim_message *message)
{
    struct raft_input input = { .kind = RAFT_INPUT_MESSAGE, .message = &message->message };
    struct raft_status before;
    struct raft_status after;
    raft_get_status(node->raft, &before);
    if (message->message.kind == RAFT_MESSAGE_HEARTBEAT &&
            message->message.term >= node->beat_term) {
        bool is_same = message->message.term == node->beat_term;
        node->beat_sent_ns =
                is_same ? MAX(node->beat_sent_ns, message->sent_at_ns) : message->sent_at_ns;
        node->beat_term = message->message.term;
        node->beat_from = message->message.from;
    }
    if (message->message.kind != RAFT_MESSAGE_SNAPSHOT) {
        (void)node_step(sim, node, &input);
        if (node->up) {
            check_followed(sim, node, &message->message, before.commit_index);
        }
        return;
    }
    node_end_snapshot(sim, message->message.from, node->id, true);
    (void)node_step(sim, node, &input);
    if (!node->up) {
        return;
    }
    raft_get_status(node->raft, &after);
    const struct raft_base *base = &message->message.base;
    if (after.base_index == base->index && before.base_index != base->index) {
        /* The file was there before the message was looked at; here it begins to count. */
        sim->totals[SIM_SNAPSHOTS_INSTALLED]++;
        keep_snapshot(node, message->snapshot);
        node->stored_up = false;
        sim_entries_fini(&node->apply_queue);
    }
}

void node_end_snapshot(struct sim *sim, uint64_t from_id, uint64_t to_id, bool arrived)
{
    struct sim_event ended = { .kind = EVENT_SNAPSHOT_ENDED,
        .node_id = from_id,
        .need = { .peer_id = to_id },
        .arrived = arrived };
    sim_schedule(sim, rng_between(&sim->rng, 1, 500) * SIM_MS, ended);
}

static void on_write(struct sim *sim, struct node *node)
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
        end_by_disk(sim, node, &err);
        return;
    }
    node->is_writing = false;
    if (r == -ENOSPC) {
        ambush_full(sim, node);
    }
    if (store->sync_count == before) {
        return; /* no space, or it has to wait for those under way */
    }
    schedule(sim, node, rng_below(&sim->rng, sim->sync_ns_max + 1),
            (struct sim_event){ .kind = EVENT_SYNC });
    if (sim->with_many_syncs) {
        go_on_writing(sim, node);
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
        end_by_disk(sim, node, &err);
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

static void on_sync(struct sim *sim, struct node *node)
{
    struct err err = { 0 };
    uint64_t vote_seq = 0;
    int count = store_sync(&node->store, &vote_seq, &err);
    if (count < 0) {
        end_by_disk(sim, node, &err);
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
        go_on_writing(sim, node);
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

static void make_snapshot(struct sim *sim, struct node *node)
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
    keep_snapshot(node, node->state);
    if (raft_term_at(node->raft, node->state.index) != node->state.term ||
            !raft_get_members_at(node->raft, node->state.index, &taken.members)) {
        return; /* a snapshot from elsewhere is being installed */
    }
    node->snapshot_pending = true;
    bool moves = draw_base(sim, node, &base);
    ledger_queue_snapshot(&node->store.ledger, &taken, moves ? &base : NULL);
    go_on_writing(sim, node);
}

static void on_apply(struct sim *sim, struct node *node)
{
    node->apply_scheduled = false;
    if (!node->stored_up || node->apply_queue.count == 0) {
        return;
    }
    for (size_t i = 0; i < node->apply_queue.count; i++) {
        check_apply(sim, node, &node->apply_queue.items[i]);
    }
    sim_entries_fini(&node->apply_queue);
    struct raft_input input = { .kind = RAFT_INPUT_APPLIED,
        .position = { node->state.index, node->state.term } };
    (void)node_step(sim, node, &input);
    if (node->up) {
        make_snapshot(sim, node);
    }
}

static void on_read_back(struct sim *sim, struct node *node, const struct raft_need *need)
{
    struct sim_entries entries = { 0 };
    struct err err = { 0 };
    struct raft_input input = { .kind = RAFT_INPUT_ENTRIES_READ,
        .read = { .peer_id = need->peer_id, .first = need->first } };
    int r = store_read(&node->store, need->first, need->end, need->bytes_max, &entries, &err);
    if (r == -EBADMSG || r == -EIO) {
        check_fail(sim, "node %" PRIu64 " cannot read its log: %s", node->id, err.text);
    }
    if (r == 0 && entries.count > 0) {
        size_t count = (size_t)rng_between(&sim->rng, 1, entries.count);
        input.read.entries = (struct raft_entry_span){ entries.items, count };
    }
    (void)node_step(sim, node, &input);
    sim_entries_fini(&entries);
}

static int resume_at(struct sim *sim, struct node *node, struct machine position)
{
    struct raft_input input = { .kind = RAFT_INPUT_APPLY_RESUME,
        .position = { position.index, position.term } };
    node->state = position;
    node->stored_up = true; /* entries may come with this very step */
    sim_entries_fini(&node->apply_queue);
    int result = node_step(sim, node, &input);
    node->stored_up = result == 0 && node->up;
    return result;
}

static void on_stored_back(struct sim *sim, struct node *node)
{
    if (node->stored_up) {
        return;
    }
    struct raft_status status;
    raft_get_status(node->raft, &status);
    struct machine state = node->state;
    /* An empty state is filled from the newest snapshot where there is one: the log may be about to begin behind it. */
    bool is_to_load = state.index == 0 && node->snapshot_count > 0;
    int result =
            state.index >= status.base_index && !is_to_load ? resume_at(sim, node, state) : -ESTALE;
    if (result == -ERANGE) {
        check_fail(sim, "node %" PRIu64 " lost from its log what it had applied at %" PRIu64,
                node->id, state.index);
    }
    for (size_t i = 0; result != 0 && node->up && i < node->snapshot_count; i++) {
        if (node->snapshots[i].index >= status.base_index) {
            result = resume_at(sim, node, node->snapshots[i]);
        }
    }
    if (result != 0 && node->up) {
        node->state = state; /* the base is still being written */
        schedule(sim, node, 20 * SIM_MS, (struct sim_event){ .kind = EVENT_STORED_BACK });
    }
}

void node_stored_restart(struct sim *sim, struct node *node, bool state_lost)
{
    if (!node->stored_up) {
        return;
    }
    node->stored_up = false;
    sim_entries_fini(&node->apply_queue);
    if (state_lost) {
        node->state = MACHINE_INIT;
    }
    if (rng_chance(&sim->rng, 700)) {
        struct raft_input input = { .kind = RAFT_INPUT_APPLY_PAUSE };
        (void)node_step(sim, node, &input);
    } else {
        on_stored_back(sim, node); /* so quick that nobody saw it go */
        return;
    }
    schedule(sim, node, rng_between(&sim->rng, 1, 1000) * SIM_MS,
            (struct sim_event){ .kind = EVENT_STORED_BACK });
}

static void on_snapshot_ended(struct sim *sim, struct node *node, const struct sim_event *event)
{
    struct raft_input input = { .kind = event->arrived ? RAFT_INPUT_SNAPSHOT_SENT
                                                       : RAFT_INPUT_SNAPSHOT_FAILED,
        .peer_id = event->need.peer_id };
    (void)node_step(sim, node, &input);
}

void node_event(struct sim *sim, struct node *node, struct sim_event *event)
{
    switch (event->kind) {
    case EVENT_TICK:
        on_tick(sim, node);
        break;
    case EVENT_DELIVER:
        on_deliver(sim, node, event->message);
        break;
    case EVENT_WRITE:
        on_write(sim, node);
        break;
    case EVENT_SYNC:
        on_sync(sim, node);
        break;
    case EVENT_APPLY:
        on_apply(sim, node);
        break;
    case EVENT_READ_BACK:
        on_read_back(sim, node, &event->need);
        break;
    case EVENT_STORED_BACK:
        on_stored_back(sim, node);
        break;
    case EVENT_SNAPSHOT_ENDED:
        on_snapshot_ended(sim, node, event);
        break;
    case EVENT_CRASH:
    case EVENT_CHANGE:
    case EVENT_CLIENT:
    case EVENT_NEMESIS:
    default:
        INVARIANT(false);
    }
}

/* ---- What clients and operators do ---------------------------------------------------------------------------- */

void node_propose(struct sim *sim, struct node *node, size_t count)
{
    enum {
        COUNT_MAX = 8,
        DATA_BYTES_MAX = 300
    };
    static uint8_t data[COUNT_MAX][DATA_BYTES_MAX];
    struct raft_entry entries[COUNT_MAX] = { 0 };
    INVARIANT_LE(count, COUNT_MAX);
    for (size_t i = 0; i < count; i++) {
        struct machine_op op = { .value = ++sim->proposals,
            .key = (uint32_t)rng_below(&sim->rng, MACHINE_KEYS),
            .ttl_ms =
                    rng_chance(&sim->rng, 500) ? (uint32_t)rng_between(&sim->rng, 50, 30000) : 0 };
        machine_encode(&op, data[i]);
        size_t bytes =
                MACHINE_OP_BYTES + (size_t)rng_below(&sim->rng, DATA_BYTES_MAX - MACHINE_OP_BYTES);
        entries[i].kind = RAFT_ENTRY_OP;
        entries[i].data = span_of(data[i], bytes);
    }
    struct raft_input input = { .kind = RAFT_INPUT_PROPOSE,
        .proposal = { ++sim->next_context, { entries, count } } };
    (void)node_step(sim, node, &input);
}

static void encode_change(struct raft_change change, struct buf *out)
{
    static const enum op_kind kinds[] = {
        [RAFT_CHANGE_ADD_LEARNER] = OP_MEMBER_ADD,
        [RAFT_CHANGE_PROMOTE] = OP_MEMBER_PROMOTE,
        [RAFT_CHANGE_REMOVE] = OP_MEMBER_REMOVE,
    };
    struct op op = { .kind = kinds[change.kind], .member_id = change.member_id };
    SET(&op, op_tag_member_id);
    op_encode(&op, out);
}

void node_propose_change(struct sim *sim, struct node *node, struct raft_change change)
{
    struct buf data = BUF_INIT;
    encode_change(change, &data);
    struct raft_entry entry = { .kind = RAFT_ENTRY_CONFIG,
        .change = membership_change_of(buf_span(&data)),
        .data = buf_span(&data) };
    struct raft_input input = { .kind = RAFT_INPUT_PROPOSE,
        .proposal = { ++sim->next_context, { &entry, 1 } } };
    sim->totals[SIM_CHANGES]++;
    (void)node_step(sim, node, &input);
    buf_fini(&data);
}

void node_read(struct sim *sim, struct node *node)
{
    uint64_t context = ++sim->next_context;
    if (node->read_count == node->read_capacity) {
        node->read_capacity = node->read_capacity == 0 ? 16 : node->read_capacity * 2;
        node->reads = xrealloc(node->reads, node->read_capacity * sizeof *node->reads);
    }
    node->reads[node->read_count++] =
            (struct pending_read){ context, sim->now_ns, sim->check.committed_last };
    struct raft_input input = { .kind = RAFT_INPUT_READ, .reads = { &context, 1 } };
    (void)node_step(sim, node, &input);
}

void node_transfer(struct sim *sim, struct node *node, uint64_t to)
{
    struct raft_input input = { .kind = RAFT_INPUT_TRANSFER, .peer_id = to };
    (void)node_step(sim, node, &input);
}

void node_set_full(struct node *node, bool log_is_full, bool state_is_full)
{
    node->store.disk.is_full = log_is_full;
    node->state_is_full = state_is_full;
}
