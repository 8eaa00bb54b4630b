/* follow.c: what a follower does with its leader's appends, heartbeats and snapshots.
 *
 * The message's term is ours by now and its sender the leader. An acknowledgement is a promise, so it is a vow; a
 * rejection promises nothing and goes at once. */
#include "daemons/raftd/raft/core.h"

static void acknowledge(struct raft *raft, uint64_t to, uint64_t index)
{
    raft_vow(raft, RAFT_MESSAGE_APPEND_REPLY, to)->index = index;
}

/* Entries that no leader of this term can have sent. */
static bool is_senseless(const struct raft_message *message)
{
    uint64_t term = message->log_term;
    for (size_t i = 0; i < message->entries.count; i++) {
        const struct raft_entry *entry = &message->entries.items[i];
        if (entry->index != message->index + 1 + i || entry->term < term || entry->term == 0 ||
                entry->term > message->term || entry->kind > RAFT_ENTRY_CONFIG) {
            return true;
        }
        term = entry->term;
    }
    return false;
}

static void reject(struct raft *raft, const struct raft_message *message)
{
    /* The hint skips a whole term of ours at a time: the last entry that could match. */
    uint64_t hint = raft_log_find_term(
            &raft->log, MIN(message->index, raft->log.last_index), message->log_term);
    struct raft_message *reply = raft_send(raft, RAFT_MESSAGE_APPEND_REPLY, message->from);
    reply->reject = true;
    reply->index = message->index;
    reply->hint_index = MAX(hint, raft->commit);
    reply->hint_term = raft_log_term(&raft->log, reply->hint_index);
}

/* How many of the entries are in our log already. */
static size_t count_known(const struct raft *raft, struct raft_entry_span entries)
{
    size_t known = 0;
    while (known < entries.count &&
            raft_log_term(&raft->log, entries.items[known].index) == entries.items[known].term) {
        known++;
    }
    return known;
}

/* Takes what is not in the log yet; *ret_matched is how far the log now matches the leader's. False if there is nothing
 * to answer: it contradicts what is committed here, or there is no room for it (an answer that says nothing new would
 * only make the leader try again at once). */
static bool take_entries(
        struct raft *raft, uint64_t index, struct raft_entry_span entries, uint64_t *ret_matched)
{
    size_t known = count_known(raft, entries);
    *ret_matched = index + known;
    if (known == entries.count) {
        return true;
    }
    if (!raft->writable) {
        return known > 0;
    }
    struct raft_entry_span fresh = { entries.items + known, entries.count - known };
    uint64_t first = fresh.items[0].index;
    if (first <= raft->commit) {
        raft->messages_ignored++;
        return false;
    }
    if (first <= raft->log.last_index) {
        raft_write_cut(raft, first - 1);
    }
    raft_write_append(raft, fresh, NULL);
    clusterclock_observe(&raft->clock, raft->log.last_time_ns, raft->now_ns);
    *ret_matched = index + entries.count;
    return true;
}

/* A member that was added to a running cluster begins without any configuration, and the entries alone would give it a
 * wrong one: the first members are in the leader's base. False if it still knows none. */
static bool learn_first_members(struct raft *raft, const struct raft_message *message)
{
    const struct members *members = member_history_at(&raft->history, raft->log.base_index);
    if (members->voters.count > 0) {
        return true;
    }
    if (message->index > 0 || raft->log.last_index > 0 || message->base.members.voters.count == 0) {
        return false;
    }
    struct raft_base base = { .members = message->base.members };
    raft_write_base(raft, &base);
    return true;
}

void raft_follow_on_append(struct raft *raft, const struct raft_message *message)
{
    uint64_t index = message->index;
    struct raft_entry_span entries = message->entries;
    if (is_senseless(message)) {
        raft->messages_ignored++;
        return;
    }
    if (!learn_first_members(raft, message)) {
        reject(raft, message);
        return;
    }
    if (index + entries.count <= raft->commit) {
        acknowledge(raft, message->from, raft->commit);
        return;
    }
    if (index < raft->commit) {
        /* What is committed matches; our log may not even reach back to where the message begins. */
        size_t skip = (size_t)(raft->commit - index);
        entries.items += skip;
        entries.count -= skip;
        index = raft->commit;
    } else if (index > raft->log.last_index ||
               raft_log_term(&raft->log, index) != message->log_term) {
        reject(raft, message);
        return;
    }
    uint64_t matched;
    if (!take_entries(raft, index, entries, &matched)) {
        return;
    }
    raft_apply_commit_to(raft, MIN(message->commit, matched));
    acknowledge(raft, message->from, matched);
}

static void take_time(struct raft *raft, uint64_t time_ns)
{
    if (time_ns != 0 && raft->clock_term != raft->term) {
        raft->clock_term = raft->term;
        clusterclock_follow(&raft->clock, time_ns, raft->now_ns);
    } else {
        clusterclock_observe(&raft->clock, time_ns, raft->now_ns);
    }
}

/* So that the leader keeps what there is no room for. */
static uint32_t space_reason(const struct raft *raft)
{
    return raft->writable ? RAFT_REFUSAL_NONE : RAFT_REFUSAL_NO_SPACE;
}

void raft_follow_on_heartbeat(struct raft *raft, const struct raft_message *message)
{
    take_time(raft, message->time_ns);
    if (message->commit <= raft->log.last_index) {
        raft_apply_commit_to(raft, message->commit);
    } else {
        raft->messages_ignored++; /* we once had it, and forgot: a disk that lost what it had synced */
    }
    if (message->context == 0) {
        return; /* a commit notice: no answer is wanted */
    }
    struct raft_message *reply = raft_send(raft, RAFT_MESSAGE_HEARTBEAT_REPLY, message->from);
    reply->context = message->context;
    reply->wall_ns = raft->wall_ns;
    reply->time_ns = raft->options.lease_read ? raft_lease_ns(raft) : 0;
    reply->index = raft->commit;
    reply->reason = space_reason(raft);
}

/* The leader may have heard nothing from us, whatever we answered: an answer to no round makes it send what we lack. */
void raft_follow_on_reachable(struct raft *raft, uint64_t peer_id)
{
    if (raft->leader_id == peer_id && raft->role == RAFT_ROLE_FOLLOWER) {
        struct raft_message *reply = raft_send(raft, RAFT_MESSAGE_HEARTBEAT_REPLY, peer_id);
        reply->wall_ns = raft->wall_ns;
        reply->index = raft->commit;
        reply->reason = space_reason(raft);
    }
}

void raft_follow_on_snapshot(struct raft *raft, const struct raft_message *message)
{
    const struct raft_base *base = &message->base;
    if (base->index <= raft->commit) {
        acknowledge(raft, message->from, raft->commit);
        return;
    }
    if (base->term == 0 || base->term > message->term || base->members.voters.count == 0) {
        raft->messages_ignored++;
        return;
    }
    if (base->index <= raft->log.last_index &&
            raft_log_term(&raft->log, base->index) == base->term) {
        /* The log has it all: nothing to load, it is just committed. */
        raft_apply_commit_to(raft, base->index);
        acknowledge(raft, message->from, base->index);
        return;
    }
    raft_write_base(raft, base);
    raft_apply_pause(raft);
    raft->commit = base->index;
    raft->snapshot_index = base->index;
    raft->snapshot_term = base->term;
    clusterclock_observe(&raft->clock, base->time_ns, raft->now_ns);
    acknowledge(raft, message->from, base->index);
}
