#include "tests/sim/links.h"

#include <stdlib.h>

#include "tests/sim/node.h"

/* Drawn so that none of the histories that `seeds` keeps has thin links: each goes on to show what it showed. */
#define LINKS_SALT UINT64_C(128)

enum {
    THIN_PERMILLE = 200,
    APPEND_HEARTBEATS_MAX = 30, /* that a full append takes */
    RATE_MIN = 800,             /* bytes a second: one entry takes less than an election timeout */
    RATE_MAX = 5000,            /* more would be bound by the way there and back, not by the rate */
    MESSAGE_BYTES = 16,         /* of any message, and of an entry besides its data */
    REDIAL_MS_MIN = 20,
    REDIAL_MS_MAX = 300,
    CLIENT_BYTES_PER_S = 7000, /* at their usual pace in calm times; twice that in others */
};

struct lane_item {
    struct lane_item *next;
    struct sim_message *message;
    uint64_t bytes; /* still to leave */
};

static uint64_t election_ns(void)
{
    return (uint64_t)SIM_ELECTION_TICKS * SIM_TICK_NS;
}

/* ---- The weather ------------------------------------------------------------------------------------------------ */

/* What a link brings over, breaks and all, of what is to arrive: a connection that carries little gets an append through, then
 * one that was too large for it, and it takes some halvings until the next one fits. */
static uint64_t useful_bytes_per_s(const struct links *links, uint64_t append_bytes_max)
{
    if (links->carried_bytes_max == 0) {
        return links->bytes_per_s;
    }
    uint64_t halvings = 0;
    for (uint64_t bytes = append_bytes_max; bytes > links->carried_bytes_max / 2; bytes /= 2) {
        halvings++;
    }
    uint64_t life_ms = links->carried_bytes_max * 1000 / links->bytes_per_s + REDIAL_MS_MAX +
                       3 * SIM_TICK_NS / SIM_MS;
    return links->carried_bytes_max * 1000 / life_ms / 2 / (halvings + 1);
}

void links_draw(struct sim *sim, bool always)
{
    struct links *links = &sim->links;
    struct rng *rng = &links->rng;
    struct raft_options *core = &sim->core;
    rng->state = machine_mix(LINKS_SALT, sim->seed);
    links->are_thin = (rng_chance(rng, THIN_PERMILLE) || always) && !sim->is_steady;
    if (!links->are_thin) {
        return;
    }
    uint64_t append_bytes_max = core->append_bytes_max;
    uint64_t heartbeats = rng_between(rng, 1, APPEND_HEARTBEATS_MAX);
    links->bytes_per_s = append_bytes_max * (1000 * SIM_MS / SIM_TICK_NS) / heartbeats;
    links->bytes_per_s = MAX((uint64_t)RATE_MIN, MIN(links->bytes_per_s, (uint64_t)RATE_MAX));
    core->inflight_max = (uint32_t)rng_between(rng, 1, 4);
    /* Of what is said again with each heartbeat a link carries twice as much. */
    core->probe_bytes_max =
            (size_t)rng_below(rng, links->bytes_per_s * SIM_TICK_NS / SIM_MS / 1000 / 2 + 1);
    links->waiting_bytes_max = append_bytes_max * rng_between(rng, 2, 5);
    links->snapshot_bytes = append_bytes_max * rng_between(rng, 1, 4);
    links->carried_bytes_max = rng_chance(rng, 400) ? rng_between(rng, 700, 1700) : 0;
    links->break_permille = (unsigned)rng_below(rng, 20);
    uint64_t load = links->carried_bytes_max != 0 ? 8 : 2; /* the rate is so many times that */
    links->client_pace = 1 + load * CLIENT_BYTES_PER_S / links->bytes_per_s;
}

/* ---- Queues ----------------------------------------------------------------------------------------------------- */

static bool is_snapshot(const struct sim_message *message)
{
    return message->message.kind == RAFT_MESSAGE_SNAPSHOT;
}

static enum link_lane lane_of(const struct raft_message *message)
{
    bool is_bulk = message->kind == RAFT_MESSAGE_APPEND || message->kind == RAFT_MESSAGE_PROPOSE ||
                   message->kind == RAFT_MESSAGE_SNAPSHOT;
    return is_bulk ? LINK_BULK : LINK_CONTROL;
}

static uint64_t bytes_of(const struct links *links, const struct sim_message *message)
{
    uint64_t bytes = is_snapshot(message) ? links->snapshot_bytes : MESSAGE_BYTES;
    for (size_t i = 0; i < message->entries.count; i++) {
        bytes += MESSAGE_BYTES + message->entries.items[i].data.bytes;
    }
    return bytes;
}

static struct sim_message *unlink_item(struct lane *lane, struct lane_item **at)
{
    struct lane_item *item = *at;
    struct sim_message *message = item->message;
    *at = item->next;
    lane->waiting_bytes -= is_snapshot(message) ? 0 : item->bytes;
    free(item);
    return message;
}

static void drop_all(struct lane *lane, bool snapshots_too)
{
    struct lane_item **at = &lane->first;
    while (*at != NULL) {
        if (is_snapshot((*at)->message) && !snapshots_too) {
            at = &(*at)->next;
        } else {
            sim_message_free(unlink_item(lane, at));
        }
    }
    lane->is_live = false;
    lane->is_leaving = false;
    lane->epoch++;
}

/* Of these two members, in this life of the sender's. */
static struct link *find_link(struct sim *sim, const struct node *from, const struct node *to)
{
    struct link *link = &sim->links.between[sim_slot(sim, from)][sim_slot(sim, to)];
    if (link->from_id != from->id || link->from_life != from->life || link->to_id != to->id) {
        for (size_t i = 0; i < LINK_LANE_COUNT; i++) {
            uint64_t epoch = link->lanes[i].epoch + 1;
            drop_all(&link->lanes[i], true);
            link->lanes[i] = (struct lane){ .epoch = epoch };
        }
        link->from_id = from->id;
        link->from_life = from->life;
        link->to_id = to->id;
        link->is_reachable = false;
    }
    return link;
}

void links_fini(struct sim *sim)
{
    for (size_t from = 0; from < SIM_NODES_MAX; from++) {
        for (size_t to = 0; to < SIM_NODES_MAX; to++) {
            for (size_t i = 0; i < LINK_LANE_COUNT; i++) {
                drop_all(&sim->links.between[from][to].lanes[i], true);
            }
        }
    }
}

static bool is_broken_by(const struct links *links, const struct lane *lane, unsigned kind)
{
    return kind == LINK_BULK && links->carried_bytes_max != 0 &&
           lane->carried_bytes + lane->first->bytes > links->carried_bytes_max;
}

static uint64_t bytes_to_leave(const struct links *links, const struct lane *lane, unsigned kind)
{
    return is_broken_by(links, lane, kind) ? links->carried_bytes_max - lane->carried_bytes
                                           : lane->first->bytes;
}

static void go_on(struct sim *sim, const struct node *from, const struct node *to, unsigned kind)
{
    struct links *links = &sim->links;
    struct lane *lane = &find_link(sim, from, to)->lanes[kind];
    if (!lane->is_live || lane->is_leaving || lane->first == NULL) {
        return;
    }
    lane->is_leaving = true;
    struct sim_event left = { .kind = EVENT_LEFT,
        .lane = { sim_slot(sim, to), kind, lane->epoch } };
    node_schedule(sim, from, bytes_to_leave(links, lane, kind) * 1000 * SIM_MS / links->bytes_per_s,
            left);
}

void links_post(struct sim *sim, struct node *from, struct sim_message *take_message)
{
    struct links *links = &sim->links;
    struct node *to = sim_find_node(sim, take_message->message.to);
    if (to == NULL) {
        sim_message_free(take_message); /* nobody waits for a snapshot's end: it was removed */
        return;
    }
    unsigned kind = lane_of(&take_message->message);
    struct lane *lane = &find_link(sim, from, to)->lanes[kind];
    bool is_kept = is_snapshot(take_message);
    if (!is_kept && (!lane->is_live || lane->waiting_bytes > links->waiting_bytes_max)) {
        sim_message_free(take_message);
        return;
    }
    struct lane_item **at = &lane->first;
    for (; *at != NULL; at = &(*at)->next) {
        /* A newer snapshot is sent instead of the one before. */
        if (is_kept && is_snapshot((*at)->message) && (at != &lane->first || !lane->is_leaving)) {
            sim_message_free(unlink_item(lane, at));
            break;
        }
    }
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = xcalloc(1, sizeof **at);
    (*at)->message = take_message;
    (*at)->bytes = bytes_of(links, take_message);
    lane->waiting_bytes += is_kept ? 0 : (*at)->bytes;
    go_on(sim, from, to, kind);
}

/* ---- Connections ------------------------------------------------------------------------------------------------ */

static bool is_blocked(const struct sim *sim, const struct node *from, const struct node *to)
{
    size_t a = sim_slot(sim, from);
    size_t b = sim_slot(sim, to);
    return !to->up || sim->cut[a][b] || sim->cut[b][a] || sim->now_ns < to->paused_until_ns;
}

/* What the shell tells its core: once when the first of the two connections breaks, and once when both are there again. */
static void tell(struct sim *sim, struct node *from, struct link *link)
{
    bool is_reachable = link->lanes[LINK_CONTROL].is_live && link->lanes[LINK_BULK].is_live;
    if (is_reachable == link->is_reachable || !from->up) {
        return;
    }
    link->is_reachable = is_reachable;
    struct raft_input input = {
        .kind = is_reachable ? RAFT_INPUT_REACHABLE : RAFT_INPUT_UNREACHABLE, .peer_id = link->to_id
    };
    (void)node_step(sim, from, &input);
}

static void break_lane(struct sim *sim, struct lane *lane)
{
    drop_all(lane, false);
    sim->totals[SIM_BREAKS]++;
    lane->dial_at_ns =
            sim->now_ns + rng_between(&sim->links.rng, REDIAL_MS_MIN, REDIAL_MS_MAX) * SIM_MS;
}

static void tend_lane(
        struct sim *sim, const struct node *from, const struct node *to, unsigned kind)
{
    struct links *links = &sim->links;
    struct lane *lane = &find_link(sim, from, to)->lanes[kind];
    bool blocked = is_blocked(sim, from, to);
    lane->heard_ns = blocked ? lane->heard_ns : sim->now_ns;
    if (lane->is_live) {
        bool breaks = !sim->calm && rng_chance(&links->rng, links->break_permille);
        if (breaks || to->life != lane->to_life || sim->now_ns - lane->heard_ns > election_ns()) {
            break_lane(sim, lane);
        }
    } else if (!blocked && sim->now_ns >= lane->dial_at_ns) {
        lane->is_live = true;
        lane->to_life = to->life;
        lane->carried_bytes = 0;
    }
    if (!blocked) {
        go_on(sim, from, to, kind);
    }
}

void links_tick(struct sim *sim, struct node *from)
{
    for (size_t i = 0; sim->links.are_thin && i < SIM_NODES_MAX; i++) {
        struct node *to = &sim->nodes[i];
        if (to->id == 0 || to->gone || to == from || !from->up) {
            continue;
        }
        for (unsigned kind = 0; kind < LINK_LANE_COUNT; kind++) {
            tend_lane(sim, from, to, kind);
        }
        tell(sim, from, find_link(sim, from, to));
    }
}

static void deliver(struct sim *sim, const struct node *to, struct lane *lane)
{
    uint64_t bytes = lane->first->bytes;
    struct sim_message *message = unlink_item(lane, &lane->first);
    uint64_t arrives_ns = sim->now_ns + rng_below(&sim->links.rng, sim->delay_ns_max + 1);
    lane->carried_bytes += bytes;
    lane->arrived_ns = MAX(lane->arrived_ns, arrives_ns);
    struct sim_event event = {
        .kind = EVENT_DELIVER, .node_id = to->id, .life = lane->to_life, .message = message
    };
    sim_schedule(sim, lane->arrived_ns - sim->now_ns, event);
}

void links_on_left(struct sim *sim, struct node *from, const struct sim_event *event)
{
    struct links *links = &sim->links;
    const struct node *to = &sim->nodes[event->lane.to];
    unsigned kind = event->lane.kind;
    struct link *link = find_link(sim, from, to);
    struct lane *lane = &link->lanes[kind];
    if (event->lane.epoch != lane->epoch) {
        return;
    }
    INVARIANT(lane->is_live);
    INVARIANT(lane->first != NULL);
    lane->is_leaving = false;
    if (is_blocked(sim, from, to)) {
        return; /* it is sent again once the way is clear */
    }
    if (is_broken_by(links, lane, kind)) {
        if (is_snapshot(lane->first->message)) {
            lane->first->bytes -= bytes_to_leave(links, lane, kind);
        }
        break_lane(sim, lane);
        tell(sim, from, link);
        return;
    }
    deliver(sim, to, lane);
    go_on(sim, from, to, kind);
}

/* ---- What may be expected ----------------------------------------------------------------------------------------- */

/* Of one member's log, what another one lacks. */
static uint64_t lacking_bytes(const struct node *node, const struct node *of)
{
    const struct ledger *ledger = &of->store.ledger;
    uint64_t bytes = 0;
    for (size_t i = 0; i < ledger->log.count; i++) {
        const struct raft_entry *entry = &ledger->log.items[i];
        if (entry->index > node->store.ledger.base.index &&
                ledger_term(&node->store.ledger, entry->index) != entry->term) {
            bytes += 2 * MESSAGE_BYTES + entry->data.bytes; /* each in an append of its own */
        }
    }
    return bytes;
}

uint64_t links_time_ns(struct sim *sim)
{
    const struct links *links = &sim->links;
    uint64_t bytes = 0;
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        for (size_t j = 0; j < SIM_NODES_MAX; j++) {
            const struct node *node = &sim->nodes[i];
            const struct node *of = &sim->nodes[j];
            if (node->id != 0 && !node->gone && of->up && sim_is_member(of, node->id)) {
                bytes = MAX(bytes, lacking_bytes(node, of));
            }
        }
    }
    bytes += sim->with_compaction ? links->snapshot_bytes : 0;
    if (links->carried_bytes_max == 0) {
        bytes *= 2; /* where too much waited some was dropped, and what followed it is sent again */
        bytes += links->waiting_bytes_max;
    } else {
        bytes += links->carried_bytes_max; /* on its way before that, and of no use any more */
    }
    return bytes * 1000 * SIM_MS / useful_bytes_per_s(links, sim->core.append_bytes_max);
}
