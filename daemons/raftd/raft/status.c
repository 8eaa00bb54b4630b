/* status.c: looking in. */
#include "daemons/raftd/raft/core.h"

void raft_get_status(const struct raft *raft, struct raft_status *ret_status)
{
    *ret_status = (struct raft_status){
        .self_id = raft->options.self_id,
        .leader_id = raft->leader_id,
        .term = raft->term,
        .vote = raft->vote,
        .role = raft->role,
        .is_learner = id_set_has(&raft_members_now(raft)->learners, raft->options.self_id),
        .transferring = raft->transfer_to != 0,
        .base_index = raft->log.base_index,
        .commit_index = raft->commit,
        .applied_index = raft->applied,
        .handed_index = raft->handed,
        .durable_index = raft->durable,
        .last_index = raft->log.last_index,
        .last_term = raft->log.last_term,
        .snapshot_index = raft->snapshot_index,
        .leader_changes = raft->leader_changes,
        .proposals_refused = raft->proposals_refused,
        .messages_ignored = raft->messages_ignored,
        .cached_bytes = raft->log.cached_bytes,
    };
}

void raft_get_members(const struct raft *raft, struct raft_members *ret_members)
{
    *ret_members = members_view(raft_members_now(raft));
}

bool raft_get_members_at(const struct raft *raft, uint64_t index, struct raft_members *ret_members)
{
    if (index < raft->log.base_index || index > raft->log.last_index) {
        return false;
    }
    *ret_members = members_view(member_history_at(&raft->history, index));
    return true;
}

uint64_t raft_term_at(const struct raft *raft, uint64_t index)
{
    return raft_log_term(&raft->log, index);
}

bool raft_get_peer_status(
        const struct raft *raft, size_t position, struct raft_peer_status *ret_peer)
{
    if (raft->role != RAFT_ROLE_LEADER || position >= raft->peer_count) {
        return false;
    }
    const struct raft_peer *peer = &raft->peers[position];
    *ret_peer = (struct raft_peer_status){
        .id = peer->id,
        .match_index = peer->match,
        .next_index = peer->next,
        .state = peer->state,
        .is_learner = !peer->is_voter,
        .is_active = peer->active,
    };
    return true;
}

uint64_t raft_cluster_time_ns(const struct raft *raft, uint64_t now_ns)
{
    return clusterclock_now(&raft->clock, now_ns);
}
