/* node.c: a member: the shell around one core, its disk, its state machine. Its life, in which it loses what a crash would
 * lose, and what clients and operators ask of it. */
#include <stdlib.h>

#include "daemons/raftd/membership.h"
#include "proto/op.h"
#include "tests/sim/node.h"

void node_schedule(
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
    node_schedule(
            sim, node, rng_below(&sim->rng, SIM_TICK_NS), (struct sim_event){ .kind = EVENT_TICK });
    node_schedule(sim, node, rng_between(&sim->rng, 1, 300) * SIM_MS,
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
