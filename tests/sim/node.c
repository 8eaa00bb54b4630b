/* node.c: a member: the shell around one core, its disk, its state machine. Does the duties of each ready as raft.h
 * demands; loses what a crash would lose. */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

enum {
    SNAPSHOT_EVERY = 40,
    APPLY_DELAY_MS_MAX = 20
};

static int node_step(struct sim *sim, struct node *node, struct raft_input *input);

static void schedule(
        struct sim *sim, const struct node *node, uint64_t delay_ns, struct event event)
{
    event.node_id = node->id;
    event.life = node->life;
    sim_schedule(sim, delay_ns, event);
}

void node_init(struct sim *sim, struct node *node, uint64_t id, struct raft_members members)
{
    *node = (struct node){ .id = id };
    node->boot_skew_ns = rng_below(&sim->rng, 1000) * 1000 * SIM_MS;
    node->wall_skew_ns = rng_below(&sim->rng, 1000) * SIM_MS;
    node->state.state = 1;
    disk_init(&node->disk, members);
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
    node->sync_scheduled = false;
    node->stored_up = false;
}

void node_fini(struct node *node)
{
    drop_volatile(node);
    disk_fini(&node->disk);
    free(node->vows);
    free(node->reads);
    node->raft = raft_free(node->raft);
}

void node_start(struct sim *sim, struct node *node)
{
    INVARIANT(!node->up);
    INVARIANT(!node->gone);
    node->up = true;
    node->life++;
    struct raft_options options = sim->core;
    options.self_id = node->id;
    options.seed = rng_next(&sim->rng);
    struct raft_base base = node->disk.base;
    base.members = sim_members_view(&node->disk.base_members);
    node->raft = raft_new(&options, &node->disk.hard, &base);
    size_t half = node->disk.log.count / 2;
    int first =
            raft_load_entries(node->raft, (struct raft_entry_span){ node->disk.log.items, half });
    int second = raft_load_entries(node->raft,
            (struct raft_entry_span){ node->disk.log.items + half, node->disk.log.count - half });
    if (first != 0 || second != 0) {
        check_fail(sim, "node %" PRIu64 " cannot load its log", node->id);
    }
    node->role_seen = RAFT_ROLE_FOLLOWER;
    node->term_seen = node->disk.hard.term;
    node->commit_seen = 0;
    for (size_t i = node->snapshot_count; i > 0; i--) {
        struct raft_input made = { .kind = RAFT_INPUT_SNAPSHOT_MADE,
            .position = { node->snapshots[i - 1].index, node->snapshots[i - 1].term } };
        (void)node_step(sim, node, &made);
    }
    schedule(sim, node, rng_below(&sim->rng, SIM_TICK_NS), (struct event){ .kind = EVENT_TICK });
    schedule(sim, node, rng_between(&sim->rng, 1, 300) * SIM_MS,
            (struct event){ .kind = EVENT_STORED_BACK });
}

void node_crash(struct sim *sim, struct node *node, bool with_power)
{
    INVARIANT(node->up);
    sim->totals[SIM_CRASHES]++;
    node->up = false;
    node->life++;
    node->raft = raft_free(node->raft);
    drop_volatile(node);
    disk_crash(&node->disk, (size_t)rng_below(&sim->rng, node->disk.queued + 1));
    if (with_power) {
        node->state = (struct sim_position){ .state = 1 };
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
                (struct event){ .kind = EVENT_CRASH });
    }
    if (ready->state_changed && node->role_seen == RAFT_ROLE_LEADER && sim->with_membership &&
            rng_chance(&sim->rng, 400)) {
        schedule(sim, node, rng_below(&sim->rng, 20 * SIM_MS),
                (struct event){ .kind = EVENT_CHANGE });
    }
}

/* ---- Duties --------------------------------------------------------------------------------------------------- */

static void queue_write(struct sim *sim, struct node *node, const struct raft_write *write)
{
    if (write->seq == 0) {
        return;
    }
    disk_queue(&node->disk, write);
    if (!node->sync_scheduled) {
        node->sync_scheduled = true;
        schedule(sim, node, rng_below(&sim->rng, sim->sync_ns_max + 1),
                (struct event){ .kind = EVENT_SYNC });
    }
}

static void keep_vow(struct node *node, const struct raft_vow *vow)
{
    if (node->vow_count == node->vow_capacity) {
        node->vow_capacity = node->vow_capacity == 0 ? 16 : node->vow_capacity * 2;
        node->vows = xrealloc(node->vows, node->vow_capacity * sizeof *node->vows);
    }
    node->vows[node->vow_count++] =
            (struct pending_vow){ vow->after_seq, sim_message_copy(node, &vow->message) };
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
        if (disk_term(&node->disk, entry->index) != entry->term) {
            check_fail(sim, "node %" PRIu64 " was handed %" PRIu64 " which its disk does not have",
                    node->id, entry->index);
        }
        sim_entries_append(&node->apply_queue, entry);
    }
    if (!node->apply_scheduled) {
        node->apply_scheduled = true;
        schedule(sim, node, rng_below(&sim->rng, APPLY_DELAY_MS_MAX * SIM_MS),
                (struct event){ .kind = EVENT_APPLY });
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
    input->now_ns = sim->now_ns + node->boot_skew_ns;
    input->wall_ns = UINT64_C(1700000000000000000) + sim->now_ns + node->wall_skew_ns;
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
        schedule(sim, node, SIM_MS, (struct event){ .kind = EVENT_STORED_BACK });
    }
    settle_reads(sim, node, &ready);
    for (size_t i = 0; i < ready.need_count; i++) {
        schedule(sim, node, rng_below(&sim->rng, 5 * SIM_MS),
                (struct event){ .kind = EVENT_READ_BACK, .need = ready.needs[i] });
    }
    if (ready.removed) {
        node_crash(sim, node, false);
        node->gone = true;
        return result;
    }
    if (ready.promote_id != 0) {
        node_propose_change(
                sim, node, (struct raft_change){ RAFT_CHANGE_PROMOTE, ready.promote_id });
    }
    return result;
}

/* ---- Events --------------------------------------------------------------------------------------------------- */

static void on_tick(struct sim *sim, struct node *node)
{
    schedule(sim, node, SIM_TICK_NS - SIM_MS + rng_below(&sim->rng, 2 * SIM_MS),
            (struct event){ .kind = EVENT_TICK });
    struct raft_input input = { .kind = RAFT_INPUT_TICK };
    (void)node_step(sim, node, &input);
}

static void keep_snapshot(struct node *node, struct sim_position position)
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
    if (message->message.kind != RAFT_MESSAGE_SNAPSHOT) {
        (void)node_step(sim, node, &input);
        return;
    }
    struct raft_status before;
    struct raft_status after;
    raft_get_status(node->raft, &before);
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
        keep_snapshot(
                node, (struct sim_position){ base->index, base->term, message->snapshot_state });
        node->stored_up = false;
        sim_entries_fini(&node->apply_queue);
    }
}

void node_end_snapshot(struct sim *sim, uint64_t from_id, uint64_t to_id, bool arrived)
{
    struct event ended = { .kind = EVENT_SNAPSHOT_ENDED,
        .node_id = from_id,
        .need = { .peer_id = to_id },
        .arrived = arrived };
    sim_schedule(sim, rng_between(&sim->rng, 1, 500) * SIM_MS, ended);
}

static void on_sync(struct sim *sim, struct node *node)
{
    struct disk_write done = { 0 };
    uint64_t count = rng_between(&sim->rng, 1, node->disk.queued);
    for (uint64_t i = 0; i < count; i++) {
        INVARIANT(disk_sync_one(&node->disk, &done));
    }
    node->sync_scheduled = node->disk.queued > 0;
    if (node->sync_scheduled) {
        schedule(sim, node, rng_below(&sim->rng, sim->sync_ns_max + 1),
                (struct event){ .kind = EVENT_SYNC });
    }
    size_t kept = 0;
    for (size_t i = 0; i < node->vow_count; i++) {
        if (node->vows[i].after_seq <= done.seq) {
            network_post(sim, node, node->vows[i].message);
        } else {
            node->vows[kept++] = node->vows[i];
        }
    }
    node->vow_count = kept;
    struct raft_input input = { .kind = RAFT_INPUT_SYNCED,
        .synced = { done.seq, done.last_index, done.last_term } };
    (void)node_step(sim, node, &input);
}

static void compact(struct sim *sim, struct node *node)
{
    size_t oldest = (size_t)rng_below(&sim->rng, node->snapshot_count);
    uint64_t index = node->snapshots[oldest].index;
    struct raft_status status;
    raft_get_status(node->raft, &status);
    struct raft_members members;
    if (index <= status.base_index || disk_term(&node->disk, index) == 0 ||
            !raft_get_members_at(node->raft, index, &members)) {
        return;
    }
    disk_compact(&node->disk, index, members);
    struct raft_input input = { .kind = RAFT_INPUT_LOG_COMPACTED,
        .position = { index, disk_term(&node->disk, index) } };
    (void)node_step(sim, node, &input);
}

static void make_snapshot(struct sim *sim, struct node *node)
{
    uint64_t newest = node->snapshot_count > 0 ? node->snapshots[0].index : 0;
    if (!sim->with_compaction || node->state.index < newest + SNAPSHOT_EVERY) {
        return;
    }
    keep_snapshot(node, node->state);
    struct raft_input input = { .kind = RAFT_INPUT_SNAPSHOT_MADE,
        .position = { node->state.index, node->state.term } };
    (void)node_step(sim, node, &input);
    if (node->up && rng_chance(&sim->rng, 700)) {
        compact(sim, node);
    }
}

static void on_apply(struct sim *sim, struct node *node)
{
    node->apply_scheduled = false;
    if (!node->stored_up || node->apply_queue.count == 0) {
        return;
    }
    for (size_t i = 0; i < node->apply_queue.count; i++) {
        const struct raft_entry *entry = &node->apply_queue.items[i];
        node->state.state = check_apply(sim, node, entry, node->state.state);
        node->state.index = entry->index;
        node->state.term = entry->term;
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
    uint64_t base = node->disk.base.index;
    struct raft_input input = { .kind = RAFT_INPUT_ENTRIES_READ,
        .read = { .peer_id = need->peer_id, .first = need->first } };
    if (need->first > base && need->first <= disk_last_index(&node->disk)) {
        uint64_t end = MIN(need->end, disk_last_index(&node->disk) + 1);
        size_t count = (size_t)rng_between(&sim->rng, 1, end - need->first);
        input.read.entries =
                (struct raft_entry_span){ node->disk.log.items + (need->first - base - 1), count };
    }
    (void)node_step(sim, node, &input);
}

static int resume_at(struct sim *sim, struct node *node, struct sim_position position)
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
    struct sim_position state = node->state;
    int result = state.index >= status.base_index ? resume_at(sim, node, state) : -ESTALE;
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
        schedule(sim, node, 20 * SIM_MS, (struct event){ .kind = EVENT_STORED_BACK });
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
        node->state = (struct sim_position){ .state = 1 };
    }
    if (rng_chance(&sim->rng, 700)) {
        struct raft_input input = { .kind = RAFT_INPUT_APPLY_PAUSE };
        (void)node_step(sim, node, &input);
    } else {
        on_stored_back(sim, node); /* so quick that nobody saw it go */
        return;
    }
    schedule(sim, node, rng_between(&sim->rng, 1, 1000) * SIM_MS,
            (struct event){ .kind = EVENT_STORED_BACK });
}

static void on_snapshot_ended(struct sim *sim, struct node *node, const struct event *event)
{
    struct raft_input input = { .kind = event->arrived ? RAFT_INPUT_SNAPSHOT_SENT
                                                       : RAFT_INPUT_SNAPSHOT_FAILED,
        .peer_id = event->need.peer_id };
    (void)node_step(sim, node, &input);
}

void node_event(struct sim *sim, struct node *node, struct event *event)
{
    switch (event->kind) {
    case EVENT_TICK:
        on_tick(sim, node);
        break;
    case EVENT_DELIVER:
        on_deliver(sim, node, event->message);
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
    static const uint8_t filler[DATA_BYTES_MAX];
    uint8_t data[COUNT_MAX][DATA_BYTES_MAX];
    struct raft_entry entries[COUNT_MAX] = { 0 };
    INVARIANT_LE(count, COUNT_MAX);
    for (size_t i = 0; i < count; i++) {
        uint64_t id = ++sim->proposals;
        size_t bytes = sizeof id + (size_t)rng_below(&sim->rng, DATA_BYTES_MAX - sizeof id);
        memcpy(data[i], filler, sizeof filler);
        memcpy(data[i], &id, sizeof id);
        entries[i].kind = RAFT_ENTRY_OP;
        entries[i].data = span_of(data[i], bytes);
    }
    struct raft_input input = { .kind = RAFT_INPUT_PROPOSE,
        .proposal = { ++sim->next_context, { entries, count } } };
    (void)node_step(sim, node, &input);
}

void node_propose_change(struct sim *sim, struct node *node, struct raft_change change)
{
    uint64_t id = ++sim->proposals;
    struct raft_entry entry = {
        .kind = RAFT_ENTRY_CONFIG, .change = change, .data = span_of(&id, sizeof id)
    };
    struct raft_input input = { .kind = RAFT_INPUT_PROPOSE,
        .proposal = { ++sim->next_context, { &entry, 1 } } };
    sim->totals[SIM_CHANGES]++;
    (void)node_step(sim, node, &input);
}

void node_read(struct sim *sim, struct node *node)
{
    uint64_t context = ++sim->next_context;
    if (node->read_count == node->read_capacity) {
        node->read_capacity = node->read_capacity == 0 ? 16 : node->read_capacity * 2;
        node->reads = xrealloc(node->reads, node->read_capacity * sizeof *node->reads);
    }
    node->reads[node->read_count++] = (struct pending_read){ context, sim->check.committed_last };
    struct raft_input input = { .kind = RAFT_INPUT_READ, .reads = { &context, 1 } };
    (void)node_step(sim, node, &input);
}

void node_transfer(struct sim *sim, struct node *node, uint64_t to)
{
    struct raft_input input = { .kind = RAFT_INPUT_TRANSFER, .peer_id = to };
    (void)node_step(sim, node, &input);
}

void node_set_writable(struct sim *sim, struct node *node, bool writable)
{
    struct raft_input input = { .kind = RAFT_INPUT_WRITABLE, .writable = writable };
    (void)node_step(sim, node, &input);
}
