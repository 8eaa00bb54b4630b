/* sim.c: the queue of events, and the phases of a history: some seconds of trouble, then everything is
 * mended and the cluster must get on within ten election timeouts; three times over. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    PHASES = 3,
    TROUBLE_MS_MAX = 20000,
    HEALED_ELECTION_TIMEOUTS = 10,
    STALLED_ELECTION_TIMEOUTS = 10,
    SETTLED_ELECTION_TIMEOUTS = 3, /* from an election until all are sent what they lack */
};

const char *const sim_total_names[SIM_TOTALS_COUNT] = {
    [SIM_STEPS] = "steps",
    [SIM_COMMITTED] = "committed",
    [SIM_ELECTIONS] = "elections",
    [SIM_CRASHES] = "crashes",
    [SIM_SNAPSHOTS_INSTALLED] = "snapshots_installed",
    [SIM_CHANGES] = "changes",
    [SIM_READS_GRANTED] = "reads_granted",
    [SIM_READS_REFUSED] = "reads_refused",
    [SIM_EXPIRED] = "expired",
    [SIM_RESTARTS] = "restarts",
    [SIM_TORN] = "torn",
    [SIM_FRONTS_LOST] = "fronts_lost",
    [SIM_DISK_FAILURES] = "disk_failures",
    [SIM_VOTES_AHEAD] = "votes_ahead",
    [SIM_BREAKS] = "breaks",
};

/* ---- The queue of events -------------------------------------------------------------------------------------- */

static bool is_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void swap(struct sim_event *a, struct sim_event *b)
{
    struct sim_event held = *a;
    *a = *b;
    *b = held;
}

void sim_schedule(struct sim *sim, uint64_t delay_ns, struct sim_event event)
{
    if (sim->event_count == sim->event_capacity) {
        sim->event_capacity = sim->event_capacity == 0 ? 256 : sim->event_capacity * 2;
        sim->heap = xrealloc(sim->heap, sim->event_capacity * sizeof *sim->heap);
    }
    event.at_ns = sim->now_ns + delay_ns;
    event.order = ++sim->order;
    size_t i = sim->event_count++;
    sim->heap[i] = event;
    while (i > 0 && is_before(&sim->heap[i], &sim->heap[(i - 1) / 2])) {
        swap(&sim->heap[i], &sim->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
}

static bool next_event(struct sim *sim, uint64_t until_ns, struct sim_event *ret_event)
{
    if (sim->event_count == 0 || sim->heap[0].at_ns > until_ns) {
        return false;
    }
    *ret_event = sim->heap[0];
    sim->heap[0] = sim->heap[--sim->event_count];
    for (size_t i = 0;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2; child++) {
            if (child < sim->event_count && is_before(&sim->heap[child], &sim->heap[least])) {
                least = child;
            }
        }
        if (least == i) {
            return true;
        }
        swap(&sim->heap[i], &sim->heap[least]);
        i = least;
    }
}

/* ---- Nodes ---------------------------------------------------------------------------------------------------- */

struct node *sim_find_node(struct sim *sim, uint64_t id)
{
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        if (sim->nodes[i].id == id) {
            return &sim->nodes[i];
        }
    }
    return NULL;
}

struct node *sim_random_node(struct sim *sim, bool up)
{
    struct node *found = NULL;
    uint64_t seen = 0;
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        struct node *node = &sim->nodes[i];
        if (node->id != 0 && !node->gone && node->up == up && rng_below(&sim->rng, ++seen) == 0) {
            found = node;
        }
    }
    return found;
}

struct node *sim_find_leader(struct sim *sim)
{
    struct node *leader = NULL;
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        struct node *node = &sim->nodes[i];
        if (node->up && node->role_seen == RAFT_ROLE_LEADER &&
                (leader == NULL || node->term_seen > leader->term_seen)) {
            leader = node;
        }
    }
    return leader;
}

/* One that believes it leads: it may have been deposed. */
static struct node *any_leader(struct sim *sim)
{
    struct node *found = NULL;
    uint64_t seen = 0;
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        struct node *node = &sim->nodes[i];
        if (node->up && node->role_seen == RAFT_ROLE_LEADER && rng_below(&sim->rng, ++seen) == 0) {
            found = node;
        }
    }
    return found;
}

static size_t count_nodes(const struct sim *sim)
{
    size_t count = 0;
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        count += sim->nodes[i].id != 0 && !sim->nodes[i].gone;
    }
    return count;
}

static void client(struct sim *sim)
{
    struct node *node = rng_chance(&sim->rng, 700) ? any_leader(sim) : sim_random_node(sim, true);
    if (node == NULL || sim->now_ns < node->paused_until_ns) {
        return;
    }
    if (rng_chance(&sim->rng, 300)) {
        node_read(sim, node);
    } else {
        node_propose(sim, node, (size_t)rng_between(&sim->rng, 1, sim->calm ? 2 : 5));
    }
}

/* ---- A history ------------------------------------------------------------------------------------------------ */

static void dispatch(struct sim *sim, struct sim_event *event)
{
    if (event->kind == EVENT_CLIENT) {
        client(sim);
        uint64_t pace = MAX(sim->links.client_pace, UINT64_C(1));
        sim_schedule(sim, rng_between(&sim->rng, 1, 60) * SIM_MS * pace, *event);
        return;
    }
    if (event->kind == EVENT_NEMESIS) {
        if (!sim->calm && sim->is_steady) {
            trouble_steady(sim);
        } else if (!sim->calm) {
            trouble_step(sim);
        }
        sim_schedule(sim, rng_between(&sim->rng, 10, sim->flaps > 0 ? 300 : 800) * SIM_MS, *event);
        return;
    }
    struct node *node = sim_find_node(sim, event->node_id);
    bool is_void = node == NULL || !node->up || (event->life != 0 && event->life != node->life);
    if (is_void) {
        if (event->message != NULL && event->message->message.kind == RAFT_MESSAGE_SNAPSHOT) {
            node_end_snapshot(sim, event->message->message.from, event->node_id, false);
        }
        sim_message_free(event->message);
        return;
    }
    if (sim->now_ns < node->paused_until_ns) {
        /* A stopped process finds it all at once when it goes on. */
        sim_schedule(sim, node->paused_until_ns - sim->now_ns, *event);
        return;
    }
    if (event->kind == EVENT_CRASH) {
        sim_say(sim, "ambush", node);
        node_crash(sim, node, rng_chance(&sim->rng, 500) ? NODE_END_POWER : NODE_END_PROCESS);
        node_start(sim, node);
        return;
    }
    if (event->kind == EVENT_CHANGE) {
        trouble_change_membership(sim);
        return;
    }
    node_event(sim, node, event);
    sim_message_free(event->message);
}

static void run_until(struct sim *sim, uint64_t until_ns)
{
    struct sim_event event;
    while (next_event(sim, until_ns, &event)) {
        sim->now_ns = event.at_ns;
        dispatch(sim, &event);
    }
    sim->now_ns = until_ns;
}

/* With a quorum there is always a leader soon, whatever changes meanwhile. */
static void run_steady(struct sim *sim, uint64_t until_ns)
{
    uint64_t election_ns = (uint64_t)SIM_ELECTION_TICKS * SIM_TICK_NS;
    uint64_t committed = 0;
    uint64_t since_ns = sim->now_ns;
    while (sim->now_ns < until_ns) {
        run_until(sim, MIN(until_ns, sim->now_ns + 200 * SIM_MS));
        if (sim->check.committed_last > committed) {
            committed = sim->check.committed_last;
            since_ns = sim->now_ns;
        } else if (sim->now_ns - since_ns > STALLED_ELECTION_TIMEOUTS * election_ns) {
            check_fail(sim,
                    "a quorum was there, and for %d election timeouts nothing was committed",
                    STALLED_ELECTION_TIMEOUTS);
        }
    }
}

static void heal(struct sim *sim)
{
    sim_say(sim, "heal", NULL);
    sim->victim_id = 0;
    sim->flaps = 0;
    sim->calm = true;
    trouble_mend_links(sim);
    sim->loss_permille = 0;
    sim->duplicate_permille = 0;
    sim->delay_ns_max = 5 * SIM_MS;
    sim->sync_ns_max = 5 * SIM_MS;
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        struct node *node = &sim->nodes[i];
        if (node->id == 0 || node->gone) {
            continue;
        }
        node->paused_until_ns = 0;
        node_set_full(node, false, false);
        if (!node->up) {
            node_start(sim, node);
        } else {
            disk_spare(&node->store.disk);
        }
    }
}

/* How many members of the leader's configuration have not applied `index`; more than all of them without a leader. */
static size_t count_behind(struct sim *sim, uint64_t index, bool of_voters)
{
    struct node *leader = sim_find_leader(sim);
    if (leader == NULL) {
        return SIZE_MAX;
    }
    struct raft_members members;
    raft_get_members(leader->raft, &members);
    size_t learner_count = of_voters ? 0 : members.learners.count;
    size_t behind = 0;
    for (size_t i = 0; i < members.voters.count + learner_count; i++) {
        uint64_t id = i < members.voters.count ? members.voters.items[i]
                                               : members.learners.items[i - members.voters.count];
        const struct node *node = sim_find_node(sim, id);
        behind += node == NULL || !node->up || node->state.index < index;
    }
    return behind;
}

static bool is_applied_by_quorum(struct sim *sim, uint64_t index)
{
    struct node *leader = sim_find_leader(sim);
    struct raft_members members;
    if (leader == NULL) {
        return false;
    }
    raft_get_members(leader->raft, &members);
    return count_behind(sim, index, true) < (members.voters.count + 1) / 2;
}

bool sim_is_member(const struct node *of, uint64_t id)
{
    struct raft_members members;
    bool is = false;
    raft_get_members(of->raft, &members);
    for (size_t i = 0; i < members.voters.count; i++) {
        is |= members.voters.items[i] == id;
    }
    for (size_t i = 0; i < members.learners.count; i++) {
        is |= members.learners.items[i] == id;
    }
    return is;
}

static bool is_member(struct sim *sim, uint64_t id)
{
    const struct node *leader = sim_find_leader(sim);
    return leader != NULL && sim_is_member(leader, id);
}

/* Those that are behind may have far to go, but none stands still. */
static void expect_none_left_behind(struct sim *sim, uint64_t target, uint64_t time_ns)
{
    uint64_t before[SIM_NODES_MAX];
    uint64_t window_ends_ns = 0;
    while (count_behind(sim, target, false) > 0) {
        if (sim->now_ns >= window_ends_ns) {
            for (size_t i = 0; i < SIM_NODES_MAX; i++) {
                const struct node *node = &sim->nodes[i];
                if (window_ends_ns != 0 && !node->gone && node->state.index < target &&
                        node->state.index <= before[i] && is_member(sim, node->id)) {
                    check_fail(sim,
                            "node %" PRIu64 " stands still at %" PRIu64 " after the end of trouble",
                            node->id, node->state.index);
                }
                before[i] = node->state.index;
            }
            window_ends_ns = sim->now_ns + time_ns;
        }
        run_until(sim, sim->now_ns + 50 * SIM_MS);
    }
}

/* Members have what was there at the end of trouble once there is a leader, and the links had time for what was missing. */
static void expect_all_caught_up(struct sim *sim)
{
    uint64_t election_ns = (uint64_t)SIM_ELECTION_TICKS * SIM_TICK_NS;
    uint64_t links_ns = links_time_ns(sim) + SETTLED_ELECTION_TIMEOUTS * election_ns;
    uint64_t elected_ns_max = sim->now_ns + HEALED_ELECTION_TIMEOUTS * election_ns;
    uint64_t began_ns = sim->now_ns;
    uint64_t elected_ns = began_ns;
    uint64_t term = 0;
    uint64_t target = sim->check.committed_last;
    while (count_behind(sim, target, false) > 0) {
        const struct node *leader = sim_find_leader(sim);
        if (leader == NULL || leader->term_seen != term) {
            elected_ns = MIN(sim->now_ns, elected_ns_max);
            term = leader == NULL ? 0 : leader->term_seen;
        }
        if (sim->now_ns > elected_ns + links_ns) {
            check_fail(sim,
                    "%" PRIu64 " is not everywhere %" PRIu64 " ms after the end of trouble: the "
                    "links need %" PRIu64 " for what was missing",
                    target, (sim->now_ns - began_ns) / SIM_MS, links_ns / SIM_MS);
        }
        run_until(sim, sim->now_ns + 50 * SIM_MS);
    }
}

/* Clients are slow here, and what they write is behind what is under way already. */
static void expect_progress_on_thin_links(struct sim *sim)
{
    enum {
        WRITES = 5,
        CLIENT_TURNS = 20, /* not each writes, nor finds the leader */
        CLIENT_TURN_MS = 60,
    };
    expect_all_caught_up(sim);
    uint64_t election_ns = (uint64_t)SIM_ELECTION_TICKS * SIM_TICK_NS;
    uint64_t target = sim->check.committed_last + WRITES;
    uint64_t deadline_ns = sim->now_ns + HEALED_ELECTION_TIMEOUTS * election_ns +
                           links_time_ns(sim) +
                           CLIENT_TURNS * CLIENT_TURN_MS * SIM_MS * sim->links.client_pace;
    while (!is_applied_by_quorum(sim, target)) {
        if (sim->now_ns > deadline_ns) {
            check_fail(sim, "clients do not get on after the end of trouble");
        }
        run_until(sim, sim->now_ns + 50 * SIM_MS);
    }
}

static void expect_progress(struct sim *sim)
{
    if (sim->links.are_thin) {
        expect_progress_on_thin_links(sim);
        return;
    }
    uint64_t election_ns = (uint64_t)SIM_ELECTION_TICKS * SIM_TICK_NS;
    uint64_t deadline_ns = sim->now_ns + HEALED_ELECTION_TIMEOUTS * election_ns;
    uint64_t target = sim->check.committed_last + 20; /* clients go on all the while */
    while (!is_applied_by_quorum(sim, target)) {
        if (sim->now_ns > deadline_ns) {
            check_fail(sim, "no progress within %d election timeouts after the end of trouble",
                    HEALED_ELECTION_TIMEOUTS);
        }
        run_until(sim, sim->now_ns + 50 * SIM_MS);
    }
    expect_none_left_behind(sim, target, HEALED_ELECTION_TIMEOUTS * election_ns);
}

static void expect_no_read_forgotten(struct sim *sim)
{
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        const struct node *node = &sim->nodes[i];
        for (size_t j = 0; node->up && j < node->read_count; j++) {
            if (node->reads[j].committed + 200 < sim->check.committed_last) {
                check_fail(sim, "node %" PRIu64 " forgot a read", node->id);
            }
        }
    }
}

static void draw_core(struct sim *sim)
{
    struct rng *rng = &sim->rng;
    sim->core = raft_options_default;
    sim->core.tick_ns = SIM_TICK_NS;
    sim->core.election_ticks = SIM_ELECTION_TICKS;
    sim->core.pre_vote = rng_chance(rng, 800);
    sim->core.check_quorum = rng_chance(rng, 800);
    sim->core.lease_read = sim->core.check_quorum && rng_chance(rng, 400);
    sim->core.inflight_max = (uint32_t)rng_between(rng, 1, 16);
    sim->core.append_bytes_max = (size_t)rng_between(rng, 500, 3000);
    sim->core.apply_bytes_max = (size_t)rng_between(rng, 100, 5000);
    sim->core.apply_window_bytes_max = (size_t)rng_between(rng, 100, 10000);
    sim->core.cache_bytes_max = (size_t)rng_between(rng, 0, 20000);
    sim->core.probe_bytes_max = (size_t)rng_between(&(struct rng){ ~sim->seed }, 0, 3000);
    sim->core.promote_within = 10;
    sim->with_membership = rng_chance(rng, 500);
    sim->with_ambush = rng_chance(rng, 500);
    sim->with_compaction = rng_chance(rng, 700);
    sim->with_many_syncs = rng_chance(rng, 400);
    sim->segment_bytes = rng_between(rng, 2, 16) * 4096;
    sim->liar = (size_t)rng_below(rng, SIM_NODES_MAX / 2);
    sim->liar_is_ahead = rng_chance(rng, 700);
}

static void begin(struct sim *sim, const struct sim_options *options)
{
    static const unsigned sizes[] = { 1, 2, 3, 3, 3, 4, 5, 5, 7 };
    unsigned count = options->members != 0 ? options->members
                                           : sizes[rng_below(&sim->rng, ARRAY_COUNT(sizes))];
    uint64_t ids[SIM_VOTERS_MAX];
    count = sim->is_steady ? MAX(count, 3U) : count;
    INVARIANT_LE(count, SIM_VOTERS_MAX);
    for (unsigned i = 0; i < count; i++) {
        ids[i] = ++sim->next_id;
    }
    struct raft_members members = { .voters = { ids, count } };
    sim->was_alone = count == 1;
    for (unsigned i = 0; i < count; i++) {
        node_init(sim, &sim->nodes[i], ids[i], members);
        node_start(sim, &sim->nodes[i]);
    }
    sim_schedule(sim, 0, (struct sim_event){ .kind = EVENT_CLIENT });
    sim_schedule(sim, 0, (struct sim_event){ .kind = EVENT_NEMESIS });
}

void sim_run(uint64_t seed, const struct sim_options *options, struct sim *sim)
{
    *sim = (struct sim){
        .seed = seed, .rng = { seed }, .verbose = options->verbose, .dir = options->dir
    };
    draw_core(sim);
    sim->is_steady = options->steady || rng_chance(&sim->rng, 100);
    sim->with_membership |= sim->is_steady;
    sim->with_ambush &= !sim->is_steady;
    links_draw(sim, options->thin);
    trouble_draw_weather(sim);
    begin(sim, options);
    for (int phase = 0; phase < PHASES; phase++) {
        sim->calm = false;
        trouble_draw_weather(sim);
        uint64_t until_ns = sim->now_ns + rng_between(&sim->rng, 1000, TROUBLE_MS_MAX) * SIM_MS;
        if (sim->is_steady) {
            run_steady(sim, until_ns);
        } else {
            run_until(sim, until_ns);
        }
        heal(sim);
        expect_progress(sim);
        run_until(sim, sim->now_ns + 4000 * SIM_MS); /* longer than any pause */
        expect_no_read_forgotten(sim);
        INVARIANT_LT(0, count_nodes(sim));
    }
}

void sim_fini(struct sim *sim)
{
    struct sim_event event;
    while (next_event(sim, UINT64_MAX, &event)) {
        sim_message_free(event.message);
    }
    free(sim->heap);
    links_fini(sim);
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        if (sim->nodes[i].id != 0) {
            node_fini(&sim->nodes[i]);
        }
    }
    check_fini(&sim->check);
}
