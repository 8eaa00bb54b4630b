/* node_events.c: what happens to a member: ticks, messages, its state machine going and coming back. */
#include <errno.h>

#include "tests/sim/node.h"

static void on_tick(struct sim *sim, struct node *node)
{
    node_schedule(sim, node, SIM_TICK_NS - SIM_MS + rng_below(&sim->rng, 2 * SIM_MS),
            (struct sim_event){ .kind = EVENT_TICK });
    struct raft_input input = { .kind = RAFT_INPUT_TICK };
    (void)node_step(sim, node, &input);
    if (!node->up) {
        return;
    }
    node_check_votes_go(sim, node);
    bool has_space = store_check_space(&node->store);
    node_go_on_writing(sim, node);
    bool writable = has_space && !node->state_is_full;
    if (writable != node->told_writable) {
        node->told_writable = writable;
        struct raft_input told = { .kind = RAFT_INPUT_WRITABLE, .writable = writable };
        (void)node_step(sim, node, &told);
    }
    links_tick(sim, node);
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
        node_keep_snapshot(node, message->snapshot);
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
        node_make_snapshot(sim, node);
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
        node_schedule(sim, node, 20 * SIM_MS, (struct sim_event){ .kind = EVENT_STORED_BACK });
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
    node_schedule(sim, node, rng_between(&sim->rng, 1, 1000) * SIM_MS,
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
    case EVENT_LEFT:
        links_on_left(sim, node, event);
        break;
    case EVENT_WRITE:
        node_on_write(sim, node);
        break;
    case EVENT_SYNC:
        node_on_sync(sim, node);
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
