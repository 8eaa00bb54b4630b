/* node_step.c: a step of a member's core: does the duties of each ready as raft.h demands. */
#include <stdlib.h>

#include "tests/sim/node.h"

enum {
    APPLY_DELAY_MS_MAX = 20
};

/* Trouble at the worst moment: before a new term or vote is on disk, or when a leader has not committed anything yet. */
static void ambush(struct sim *sim, const struct node *node, const struct raft_ready *ready)
{
    if (!sim->with_ambush || sim->calm) {
        return;
    }
    if (ready->write.hard_changed && rng_chance(&sim->rng, 100)) {
        node_schedule(sim, node, rng_below(&sim->rng, 30 * SIM_MS),
                (struct sim_event){ .kind = EVENT_CRASH });
    }
    if (ready->state_changed && node->role_seen == RAFT_ROLE_LEADER && sim->with_membership &&
            rng_chance(&sim->rng, 400)) {
        node_schedule(sim, node, rng_below(&sim->rng, 20 * SIM_MS),
                (struct sim_event){ .kind = EVENT_CHANGE });
    }
}

/* ---- Duties ---------------------------------------------------------------------------------------------------- */

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
        node_schedule(sim, node,
                rng_below(&sim->rng, (sim->calm ? 1 : APPLY_DELAY_MS_MAX) * SIM_MS),
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

int node_step(struct sim *sim, struct node *node, struct raft_input *input)
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
    node_queue_write(sim, node, &ready.write);
    for (size_t i = 0; i < ready.vow_count; i++) {
        keep_vow(node, &ready.vows[i]);
    }
    queue_apply(sim, node, &ready);
    if (ready.install != NULL) {
        node->stored_up = false;
        sim_entries_fini(&node->apply_queue);
        node_schedule(sim, node, SIM_MS, (struct sim_event){ .kind = EVENT_STORED_BACK });
    }
    settle_reads(sim, node, &ready);
    for (size_t i = 0; i < ready.need_count; i++) {
        node_schedule(sim, node, rng_below(&sim->rng, (sim->calm ? 1 : 5) * SIM_MS),
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
