/* trouble.c: what befalls the members of a history, and what operators do meanwhile. */
#include "tests/sim/sim.h"

#include <stdio.h>

void sim_say(const struct sim *sim, const char *what, const struct node *node)
{
    if (sim->verbose) {
        (void)printf("%8" PRIu64 " ms %s %" PRIu64 "\n", sim->now_ns / SIM_MS, what,
                node == NULL ? 0 : node->id);
    }
}

static bool has_id(struct raft_ids ids, uint64_t id)
{
    for (size_t i = 0; i < ids.count; i++) {
        if (ids.items[i] == id) {
            return true;
        }
    }
    return false;
}

/* One that waits to be added since it was refused, or a new one; NULL if there is no slot. */
static struct node *take_joiner(struct sim *sim, const struct raft_members *members)
{
    struct node *slot = NULL;
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        struct node *node = &sim->nodes[i];
        bool is_known = has_id(members->voters, node->id) || has_id(members->learners, node->id) ||
                        has_id(members->removed, node->id);
        if (node->id == 0 || node->gone) {
            slot = node;
        } else if (node->up && !is_known && ledger_last_index(&node->store.ledger) == 0 &&
                   node->store.ledger.queued == 0) {
            return node;
        }
    }
    if (slot == NULL) {
        return NULL;
    }
    if (slot->gone) {
        node_fini(slot); /* events that are still about are of an id that is no more */
    }
    node_init(sim, slot, ++sim->next_id, (struct raft_members){ 0 });
    node_start(sim, slot);
    return slot;
}

/* Of a voter only where the others that are heard from are a quorum of what remains: as the strict checks have it. */
static bool may_remove(const struct sim *sim, const struct node *leader,
        const struct raft_members *members, uint64_t id)
{
    if (!sim->is_steady || has_id(members->learners, id)) {
        return true;
    }
    size_t active = id != leader->id;
    struct raft_peer_status peer;
    for (size_t i = 0; raft_get_peer_status(leader->raft, i, &peer); i++) {
        active += peer.is_active && !peer.is_learner && peer.id != id && peer.id != sim->victim_id;
    }
    return members->voters.count > 3 && active >= (members->voters.count - 1) / 2 + 1;
}

void trouble_change_membership(struct sim *sim)
{
    struct node *leader = sim_find_leader(sim);
    if (leader == NULL) {
        return;
    }
    struct raft_members members;
    raft_get_members(leader->raft, &members);
    size_t count = members.voters.count + members.learners.count;
    if (rng_chance(&sim->rng, 500) && count < SIM_VOTERS_MAX) {
        struct node *joiner = take_joiner(sim, &members);
        if (joiner != NULL) {
            sim_say(sim, "add member", joiner);
            node_propose_change(
                    sim, leader, (struct raft_change){ RAFT_CHANGE_ADD_LEARNER, joiner->id });
        }
    } else if (count > 2) {
        size_t position = (size_t)rng_below(&sim->rng, members.voters.count);
        uint64_t id = members.voters.items[position];
        if (members.learners.count > 0 && rng_chance(&sim->rng, 300)) {
            id = members.learners.items[0];
        }
        if (may_remove(sim, leader, &members, id)) {
            sim_say(sim, "remove member", sim_find_node(sim, id));
            node_propose_change(sim, leader, (struct raft_change){ RAFT_CHANGE_REMOVE, id });
        }
    }
}

static void partition(struct sim *sim)
{
    unsigned kind = (unsigned)rng_below(&sim->rng, 4);
    uint64_t side = rng_next(&sim->rng);
    size_t one = (size_t)rng_below(&sim->rng, SIM_NODES_MAX);
    sim_say(sim, "partition", NULL);
    for (size_t from = 0; from < SIM_NODES_MAX; from++) {
        for (size_t to = 0; to < SIM_NODES_MAX; to++) {
            bool crosses = ((side >> from) & 1) != ((side >> to) & 1);
            switch (kind) {
            case 0: /* two halves */
                sim->cut[from][to] = crosses;
                break;
            case 1: /* one way */
                sim->cut[from][to] = crosses && ((side >> from) & 1) != 0;
                break;
            case 2: /* one node hears nobody */
                sim->cut[from][to] = to == one;
                break;
            default: /* single links, each way for itself */
                sim->cut[from][to] = rng_chance(&sim->rng, 250);
                break;
            }
        }
    }
}

void trouble_mend_links(struct sim *sim)
{
    memset(sim->cut, 0, sizeof sim->cut);
}

static void crash_all(struct sim *sim, enum node_end end)
{
    sim_say(sim, "crash all", NULL);
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        if (sim->nodes[i].up) {
            node_crash(sim, &sim->nodes[i], end);
        }
    }
}

void trouble_draw_weather(struct sim *sim)
{
    if (sim->is_steady) {
        sim->loss_permille = (unsigned)rng_below(&sim->rng, 50);
        sim->duplicate_permille = (unsigned)rng_below(&sim->rng, 50);
        sim->delay_ns_max = rng_between(&sim->rng, 1, 10) * SIM_MS;
        sim->sync_ns_max = rng_between(&sim->rng, 1, 30) * SIM_MS;
        return;
    }
    sim->loss_permille = rng_chance(&sim->rng, 500) ? (unsigned)rng_below(&sim->rng, 200) : 0;
    sim->duplicate_permille = (unsigned)rng_below(&sim->rng, 50);
    sim->delay_ns_max = rng_between(&sim->rng, 1, 40) * SIM_MS;
    sim->sync_ns_max = rng_between(&sim->rng, 1, rng_chance(&sim->rng, 100) ? 1500 : 30) * SIM_MS;
}

static void trouble_node(struct sim *sim, struct node *node, unsigned kind)
{
    if (node == NULL) {
        return;
    }
    switch (kind) {
    case 0:
        sim_say(sim, "crash process", node);
        node_crash(sim, node, rng_chance(&sim->rng, 300) ? NODE_END_CLEAN : NODE_END_PROCESS);
        break;
    case 1:
        sim_say(sim, "cut power", node);
        node_crash(sim, node, NODE_END_POWER);
        break;
    case 2:
        sim_say(sim, "pause", node);
        node->paused_until_ns = sim->now_ns + rng_between(&sim->rng, 10, 3000) * SIM_MS;
        break;
    case 3:
        node_stored_restart(sim, node, rng_chance(&sim->rng, 300));
        break;
    case 4: {
        bool log_is_full = rng_chance(&sim->rng, 700);
        sim_say(sim, log_is_full ? "disk full" : "state's disk full", node);
        node_set_full(node, log_is_full, !log_is_full);
        break;
    }
    case 5:
        sim_say(sim, "sync fails", node);
        disk_fail_sync(&node->store.disk, (unsigned)rng_between(&sim->rng, 1, sim->calm ? 2 : 5));
        break;
    case 6:
        sim_say(sim, "set clock", node);
        node_set_clock(sim, node);
        break;
    default:
        node_set_full(node, false, false);
        break;
    }
}

/* ---- Steady histories: one member in trouble at a time, so a quorum of any configuration is left ---------------- */

static void cut_off(struct sim *sim, const struct node *node)
{
    size_t slot = sim_slot(sim, node);
    bool hears = rng_chance(&sim->rng, 300);
    bool is_heard = !hears && rng_chance(&sim->rng, 300);
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        sim->cut[i][slot] = !hears;
        sim->cut[slot][i] = !is_heard;
    }
}

static void end_trouble(struct sim *sim)
{
    struct node *node = sim_find_node(sim, sim->victim_id);
    sim->victim_id = 0;
    trouble_mend_links(sim);
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        if (sim->nodes[i].id != 0 && !sim->nodes[i].gone && !sim->nodes[i].up) {
            node_start(sim, &sim->nodes[i]);
        }
    }
    if (node != NULL) {
        node->paused_until_ns = 0;
        node_set_full(node, false, false);
        disk_spare(&node->store.disk);
    }
}

static void begin_trouble(struct sim *sim)
{
    struct node *node =
            rng_chance(&sim->rng, 300) ? sim_find_leader(sim) : sim_random_node(sim, true);
    if (node == NULL) {
        return;
    }
    sim->victim_id = node->id;
    if (rng_chance(&sim->rng, 400)) {
        sim_say(sim, "cut off", node);
        cut_off(sim, node);
    } else {
        trouble_node(sim, node, (unsigned)rng_below(&sim->rng, 7));
    }
}

void trouble_steady(struct sim *sim)
{
    uint64_t draw = rng_below(&sim->rng, 100);
    if (draw < 40) {
        trouble_change_membership(sim);
    } else if (draw < 45) {
        struct node *leader = sim_find_leader(sim);
        if (leader != NULL) {
            node_transfer(sim, leader, 0);
        }
    } else if (sim->victim_id != 0) {
        sim_say(sim, "end of trouble", sim_find_node(sim, sim->victim_id));
        end_trouble(sim);
    } else {
        begin_trouble(sim);
    }
}

/* The same links fail and come back, a few times a second. */
static void flap(struct sim *sim)
{
    sim->flaps--;
    if (sim->flaps % 2 == 0) {
        trouble_mend_links(sim);
    } else {
        memcpy(sim->cut, sim->flapping, sizeof sim->cut);
    }
}

void trouble_step(struct sim *sim)
{
    if (sim->flaps > 0) {
        flap(sim);
    }
    uint64_t draw = rng_below(&sim->rng, 100);
    if (draw < 14) {
        trouble_node(sim, sim_random_node(sim, true), (unsigned)rng_below(&sim->rng, 2));
    } else if (draw < 18) {
        trouble_node(sim, sim_find_leader(sim), (unsigned)rng_below(&sim->rng, 3));
    } else if (draw < 46) {
        struct node *node = sim_random_node(sim, false);
        if (node != NULL) {
            sim_say(sim, "start", node);
            node_start(sim, node);
        }
    } else if (draw < 54) {
        partition(sim);
        memcpy(sim->flapping, sim->cut, sizeof sim->flapping);
        sim->flaps = rng_chance(&sim->rng, 300) ? (unsigned)rng_below(&sim->rng, 20) : 0;
    } else if (draw < 66) {
        sim->flaps = 0;
        trouble_mend_links(sim);
    } else if (draw < 74) {
        trouble_draw_weather(sim);
    } else if (draw < 86) {
        static const unsigned kinds[] = { 2, 3, 3, 4, 5, 6, 7, 7 };
        trouble_node(
                sim, sim_random_node(sim, true), kinds[rng_below(&sim->rng, ARRAY_COUNT(kinds))]);
    } else if (draw < 89) {
        struct node *leader = sim_find_leader(sim);
        struct node *target = sim_random_node(sim, true);
        if (leader != NULL && target != NULL) {
            sim_say(sim, "transfer to", target);
            node_transfer(sim, leader, rng_chance(&sim->rng, 500) ? target->id : 0);
        }
    } else if (draw < 90) {
        crash_all(sim, rng_chance(&sim->rng, 500) ? NODE_END_POWER : NODE_END_PROCESS);
    } else if (sim->with_membership) {
        trouble_change_membership(sim);
    }
}
