/* propose.c: what enters the log, membership changes and leadership transfer included. */
#include "daemons/raftd/raft/core.h"

uint64_t raft_propose_stamp(struct raft *raft)
{
    if (raft->step_time) {
        raft->step_time = false;
        clusterclock_step(&raft->clock, raft->wall_ns, raft->now_ns);
    }
    /* Never below the last entry, whatever became of the one that had it. */
    return MAX(clusterclock_now(&raft->clock, raft->now_ns), raft->log.last_time_ns);
}

static bool is_proposable(struct raft_entry_span entries)
{
    for (size_t i = 0; i < entries.count; i++) {
        enum raft_entry_kind kind = entries.items[i].kind;
        if (kind != RAFT_ENTRY_OP && (kind != RAFT_ENTRY_CONFIG || entries.count > 1)) {
            return false;
        }
    }
    return entries.count > 0;
}

/* One change at a time, and none before this leader has committed something: else two majorities that do not
 * overlap could both be right. */
static enum raft_refusal check_change(const struct raft *raft, struct raft_change change)
{
    if (!raft_lead_is_ready(raft) || member_history_current_index(&raft->history) > raft->commit) {
        return RAFT_REFUSAL_CHANGE_PENDING;
    }
    return members_allow(raft_members_now(raft), change) ? RAFT_REFUSAL_NONE
                                                         : RAFT_REFUSAL_CHANGE_INVALID;
}

static enum raft_refusal lead_propose(struct raft *raft, struct raft_entry_span entries)
{
    INVARIANT(raft->role == RAFT_ROLE_LEADER);
    if (raft->transfer_to != 0) {
        return RAFT_REFUSAL_TRANSFERRING;
    }
    if (!raft->writable) {
        return RAFT_REFUSAL_NO_SPACE;
    }
    if (!clusterclock_is_settled(&raft->clock) && !raft->step_time) {
        return RAFT_REFUSAL_NO_LEADER; /* not yet: a TTL needs a time to count from */
    }
    size_t bytes = 0;
    for (size_t i = 0; i < entries.count; i++) {
        bytes += raft_entry_cost(&entries.items[i]);
    }
    if (raft->uncommitted_bytes > 0 &&
            raft->uncommitted_bytes + bytes > raft->options.uncommitted_bytes_max) {
        return RAFT_REFUSAL_OVERLOADED;
    }
    bool is_change = entries.items[0].kind == RAFT_ENTRY_CONFIG;
    if (is_change) {
        enum raft_refusal refusal = check_change(raft, entries.items[0].change);
        if (refusal != RAFT_REFUSAL_NONE) {
            return refusal;
        }
    }
    raft->uncommitted_bytes += bytes;
    struct raft_log_stamp stamp = { raft->term, raft_propose_stamp(raft) };
    raft_write_append(raft, entries, &stamp);
    if (is_change) {
        raft_lead_sync_peers(raft);
    }
    raft_replicate_all(raft);
    return RAFT_REFUSAL_NONE;
}

void raft_propose(struct raft *raft, const struct raft_proposal *proposal)
{
    INVARIANT(is_proposable(proposal->entries));
    enum raft_refusal refusal = RAFT_REFUSAL_NONE;
    if (raft->removed) {
        refusal = RAFT_REFUSAL_STOPPED;
    } else if (raft->role == RAFT_ROLE_LEADER) {
        refusal = lead_propose(raft, proposal->entries);
    } else if (raft->leader_id != 0) {
        struct raft_message *message = raft_send(raft, RAFT_MESSAGE_PROPOSE, raft->leader_id);
        message->context = proposal->context;
        message->entries = proposal->entries;
    } else {
        refusal = RAFT_REFUSAL_NO_LEADER;
    }
    if (refusal != RAFT_REFUSAL_NONE) {
        raft_refuse_proposal(raft, proposal->context, refusal);
    }
}

void raft_propose_on_message(struct raft *raft, const struct raft_message *message)
{
    if (!is_proposable(message->entries)) {
        raft->messages_ignored++;
        return;
    }
    /* Meant for the leader of one term: whoever passed it on may count on its never being proposed in another. */
    enum raft_refusal refusal = raft->role == RAFT_ROLE_LEADER && message->term == raft->term
                                        ? lead_propose(raft, message->entries)
                                        : RAFT_REFUSAL_NO_LEADER;
    if (refusal != RAFT_REFUSAL_NONE) {
        struct raft_message *reply = raft_send(raft, RAFT_MESSAGE_PROPOSE_REFUSED, message->from);
        reply->context = message->context;
        reply->reason = refusal;
    }
}

void raft_propose_on_refused(struct raft *raft, const struct raft_message *message)
{
    if (message->reason == RAFT_REFUSAL_NONE || message->reason > RAFT_REFUSAL_STOPPED) {
        raft->messages_ignored++;
        return;
    }
    raft_refuse_proposal(raft, message->context, (enum raft_refusal)message->reason);
}

/* The voter to hand over to when nobody was named: alive, and furthest. */
static struct raft_peer *best_successor(struct raft *raft)
{
    struct raft_peer *best = NULL;
    for (size_t i = 0; i < raft->peer_count; i++) {
        struct raft_peer *peer = &raft->peers[i];
        if (peer->is_voter && peer->active && (best == NULL || peer->match > best->match)) {
            best = peer;
        }
    }
    return best;
}

void raft_transfer_begin(struct raft *raft, uint64_t to)
{
    if (raft->role != RAFT_ROLE_LEADER) {
        return;
    }
    struct raft_peer *peer = to == 0 ? best_successor(raft) : raft_lead_find_peer(raft, to);
    if (peer == NULL || !peer->is_voter) {
        return;
    }
    raft->transfer_to = peer->id;
    raft->election_elapsed = 0; /* it has one election timeout */
    raft_read_refuse_all(raft, RAFT_REFUSAL_TRANSFERRING);
    raft_replicate(raft, peer);
    raft_transfer_check(raft, peer);
}

/* The successor must have everything: only then may it campaign. Said again with each heartbeat. */
void raft_transfer_check(struct raft *raft, const struct raft_peer *peer)
{
    if (peer->id == raft->transfer_to && peer->match == raft->log.last_index) {
        raft->lease_void = true;
        (void)raft_send(raft, RAFT_MESSAGE_TIMEOUT_NOW, peer->id);
    }
}

/* A learner that has nearly caught up is due to become a voter; the shell knows how to say so in an entry. */
void raft_promote_check(struct raft *raft)
{
    if (raft->transfer_to != 0 || !raft->writable) {
        return;
    }
    const struct members *members = raft_members_now(raft);
    for (size_t i = 0; i < raft->peer_count; i++) {
        const struct raft_peer *peer = &raft->peers[i];
        struct raft_change change = { RAFT_CHANGE_PROMOTE, peer->id };
        if (id_set_has(&members->learners, peer->id) && peer->active &&
                peer->state == RAFT_PROGRESS_REPLICATE && peer->match > 0 &&
                peer->match + raft->options.promote_within >= raft->log.last_index &&
                check_change(raft, change) == RAFT_REFUSAL_NONE) {
            raft->out.promote_id = peer->id;
            return;
        }
    }
}
