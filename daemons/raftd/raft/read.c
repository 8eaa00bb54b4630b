/* read.c: read indexes. An index is granted once it is certain that, after the read was asked for, we were still the
 * leader: then nothing committed earlier lies beyond it.
 *
 * One round of heartbeats confirms all reads that came before it began. Rounds clock themselves: while one is under
 * way, reads gather for the next, which begins when it is confirmed. A leader that has committed nothing in its own
 * term yet does not know what is committed, and lets reads wait. A follower asks the leader, many reads at once. */
#include "daemons/raftd/raft/core.h"

static void answer(struct raft *raft, const struct raft_read *read, uint64_t index)
{
    if (read->from == 0) {
        raft_grant_read(raft, read->context, index);
        return;
    }
    struct raft_message *reply = raft_send(raft, RAFT_MESSAGE_READ_REPLY, read->from);
    reply->context = read->context;
    reply->hint_index = read->epoch;
    reply->index = index;
}

static void refuse(struct raft *raft, const struct raft_read *read, enum raft_refusal reason)
{
    if (read->from == 0) {
        raft_refuse_read(raft, read->context, reason);
        return;
    }
    struct raft_message *reply = raft_send(raft, RAFT_MESSAGE_READ_REPLY, read->from);
    reply->context = read->context;
    reply->hint_index = read->epoch;
    reply->reject = true;
    reply->reason = reason;
}

void raft_read_refuse_all(struct raft *raft, enum raft_refusal reason)
{
    for (size_t i = 0; i < raft->read_count; i++) {
        refuse(raft, &raft->reads[i], reason);
    }
    raft->read_count = 0;
}

static void push(struct raft *raft, struct raft_read read)
{
    *VEC_PUSH(raft->reads, raft->read_count, raft->read_capacity) = read;
}

/* Grants what the quorum's newest round covers; yields whether any read waits for a round that has not begun. */
static bool grant_covered(struct raft *raft, uint64_t round)
{
    bool is_waiting = false;
    size_t kept = 0;
    for (size_t i = 0; i < raft->read_count; i++) {
        struct raft_read *read = &raft->reads[i];
        if (read->index == 0) {
            read->index = raft->commit;
            read->round = raft->round + 1;
        }
        if (read->round <= round) {
            answer(raft, read, read->index);
            continue;
        }
        is_waiting |= read->round > raft->round;
        raft->reads[kept++] = *read;
    }
    raft->read_count = kept;
    return is_waiting;
}

void raft_read_on_round(struct raft *raft)
{
    if (raft->read_count == 0 || !raft_lead_is_ready(raft)) {
        return;
    }
    uint64_t round = raft_lead_quorum_round(raft);
    while (grant_covered(raft, round) && round == raft->round) {
        raft_lead_begin_round(raft);
        round = raft_lead_quorum_round(raft); /* alone we are the quorum */
    }
}

void raft_read_begin(struct raft *raft, struct raft_ids contexts)
{
    enum raft_refusal refusal = RAFT_REFUSAL_NONE;
    if (raft->removed) {
        refusal = RAFT_REFUSAL_STOPPED;
    } else if (raft->leader_id == 0) {
        refusal = RAFT_REFUSAL_NO_LEADER;
    } else if (raft->transfer_to != 0) {
        refusal = RAFT_REFUSAL_TRANSFERRING;
    }
    bool is_leader = raft->role == RAFT_ROLE_LEADER;
    bool is_sure = refusal == RAFT_REFUSAL_NONE && is_leader && raft_lead_is_ready(raft) &&
                   raft_lead_has_lease(raft);
    uint64_t round = is_leader ? 0 : raft->read_round + 1;
    for (size_t i = 0; i < contexts.count; i++) {
        if (refusal != RAFT_REFUSAL_NONE) {
            raft_refuse_read(raft, contexts.items[i], refusal);
        } else if (is_sure) {
            raft_grant_read(raft, contexts.items[i], raft->commit);
        } else {
            push(raft, (struct raft_read){ .context = contexts.items[i], .round = round });
        }
    }
    if (refusal != RAFT_REFUSAL_NONE || is_sure || contexts.count == 0) {
        return;
    }
    if (is_leader) {
        raft_read_on_round(raft);
        return;
    }
    raft->read_round = round;
    raft->read_ticks = 0;
    struct raft_message *message = raft_send(raft, RAFT_MESSAGE_READ, raft->leader_id);
    message->context = round;
    message->hint_index = raft->read_epoch;
}

void raft_read_on_message(struct raft *raft, const struct raft_message *message)
{
    struct raft_read read = {
        .context = message->context, .from = message->from, .epoch = message->hint_index
    };
    if (raft->role != RAFT_ROLE_LEADER) {
        refuse(raft, &read, RAFT_REFUSAL_NO_LEADER);
    } else if (raft->transfer_to != 0) {
        refuse(raft, &read, RAFT_REFUSAL_TRANSFERRING);
    } else if (raft_lead_is_ready(raft) && raft_lead_has_lease(raft)) {
        answer(raft, &read, raft->commit);
    } else {
        push(raft, read);
        raft_read_on_round(raft);
    }
}

/* An answer to question N covers all reads asked with it or before it, whichever leader gave it. */
void raft_read_on_reply(struct raft *raft, const struct raft_message *message)
{
    if (raft->role == RAFT_ROLE_LEADER || message->hint_index != raft->read_epoch ||
            message->context > raft->read_round) {
        raft->messages_ignored++;
        return;
    }
    enum raft_refusal reason =
            message->reason > RAFT_REFUSAL_NONE && message->reason <= RAFT_REFUSAL_STOPPED
                    ? (enum raft_refusal)message->reason
                    : RAFT_REFUSAL_NO_LEADER;
    size_t kept = 0;
    for (size_t i = 0; i < raft->read_count; i++) {
        struct raft_read *read = &raft->reads[i];
        if (read->round > message->context) {
            raft->reads[kept++] = *read;
        } else if (message->reject) {
            raft_refuse_read(raft, read->context, reason);
        } else {
            raft_grant_read(raft, read->context, message->index);
        }
    }
    raft->read_count = kept;
}

/* Question or answer may be lost: asked again, for all that wait. */
void raft_read_tick(struct raft *raft)
{
    if (raft->role != RAFT_ROLE_FOLLOWER || raft->read_count == 0 || raft->leader_id == 0 ||
            ++raft->read_ticks < 2 * raft->options.heartbeat_ticks) {
        return;
    }
    raft->read_ticks = 0;
    struct raft_message *message = raft_send(raft, RAFT_MESSAGE_READ, raft->leader_id);
    message->context = ++raft->read_round;
    message->hint_index = raft->read_epoch;
}
