/* network.c: messages under way. Each is lost, doubled, delayed (and so reordered) as the weather has it. */
#include <stdlib.h>

#include "tests/sim/sim.h"

struct sim_message *sim_message_copy(const struct node *from, const struct raft_message *message)
{
    struct sim_message *copy = xcalloc(1, sizeof *copy);
    copy->message = *message;
    for (size_t i = 0; i < message->entries.count; i++) {
        sim_entries_append(&copy->entries, &message->entries.items[i]);
    }
    copy->message.entries = (struct raft_entry_span){ copy->entries.items, copy->entries.count };
    copy->members = sim_members_copy(message->base.members);
    copy->message.base.members = sim_members_view(&copy->members);
    if (message->kind == RAFT_MESSAGE_SNAPSHOT) {
        for (size_t i = 0; i < from->snapshot_count; i++) {
            if (from->snapshots[i].index == message->base.index) {
                INVARIANT_EQ(from->snapshots[i].term, message->base.term);
                copy->snapshot = from->snapshots[i];
            }
        }
        INVARIANT(copy->snapshot.digest != 0);
    }
    return copy;
}

void sim_message_free(struct sim_message *message)
{
    if (message != NULL) {
        sim_entries_fini(&message->entries);
        sim_members_fini(&message->members);
        free(message);
    }
}

void network_post(struct sim *sim, struct node *from, struct sim_message *take_message)
{
    struct node *to = sim_find_node(sim, take_message->message.to);
    bool is_snapshot = take_message->message.kind == RAFT_MESSAGE_SNAPSHOT;
    check_sent(sim, from, &take_message->message);
    take_message->sent_at_ns = sim->now_ns;
    if (sim->links.are_thin) {
        links_post(sim, from, take_message);
        return;
    }
    if (to == NULL || sim->cut[sim_slot(sim, from)][sim_slot(sim, to)] ||
            rng_chance(&sim->rng, sim->loss_permille)) {
        if (is_snapshot) {
            node_end_snapshot(sim, from->id, take_message->message.to, false);
        }
        sim_message_free(take_message);
        return;
    }
    if (rng_chance(&sim->rng, sim->duplicate_permille) && !is_snapshot) {
        struct sim_event again = { .kind = EVENT_DELIVER,
            .node_id = to->id,
            .message = sim_message_copy(from, &take_message->message) };
        again.message->sent_at_ns = sim->now_ns;
        sim_schedule(sim, rng_below(&sim->rng, 20 * sim->delay_ns_max + 1), again);
    }
    uint64_t delay_ns = rng_below(&sim->rng, sim->delay_ns_max + 1);
    if (!sim->calm && rng_chance(&sim->rng, 20)) {
        delay_ns *= 30;
    } else if (!sim->calm && rng_chance(&sim->rng, 5)) {
        delay_ns = rng_below(&sim->rng, 4000 * SIM_MS); /* longer than an election timeout */
    }
    struct sim_event deliver = {
        .kind = EVENT_DELIVER, .node_id = to->id, .message = take_message
    };
    sim_schedule(sim, delay_ns, deliver);
}

void network_send(struct sim *sim, struct node *from, const struct raft_message *message)
{
    network_post(sim, from, sim_message_copy(from, message));
}
