/* raft.c: the life of a core, and where each input goes. */
#include "daemons/raftd/raft/raft.h"

#include <errno.h>

#include "daemons/raftd/raft/core.h"

const struct raft_options raft_options_default = {
    .tick_ns = 100000000,
    .election_ticks = 10,
    .heartbeat_ticks = 1,
    .pre_vote = true,
    .check_quorum = true,
    .fast_start = true,
    .inflight_max = 64,
    .append_bytes_max = 1 << 20,
    .probe_bytes_max = 4 << 10,
    .apply_bytes_max = 8 << 20,
    .apply_window_bytes_max = 16 << 20,
    .cache_bytes_max = 16 << 20,
    .uncommitted_bytes_max = 64 << 20,
    .promote_within = 1000,
};

struct raft *raft_new(const struct raft_options *options, const struct raft_hard_state *hard,
        const struct raft_base *base)
{
    INVARIANT(options->self_id != 0);
    INVARIANT_LT(0, options->heartbeat_ticks);
    INVARIANT_LE(2 * (uint64_t)options->heartbeat_ticks, options->election_ticks);
    INVARIANT_LT(0, options->inflight_max);
    struct raft *raft = xcalloc(1, sizeof *raft);
    raft->options = *options;
    raft->rng = options->seed ^ options->self_id * UINT64_C(0x9e3779b97f4a7c15);
    raft->read_epoch = raft->rng ^ UINT64_C(0x5851f42d4c957f2d);
    raft->writable = true;
    raft->term = hard->term;
    raft->vote = hard->vote;
    raft->hard_written = *hard;
    raft_log_reset(&raft->log, base->index, base->term, base->time_ns);
    member_history_reset(&raft->history, base->index, base->members);
    raft->base.time_ns = base->time_ns;
    raft->timeless_index = base->time_ns == 0 ? base->index : 0;
    raft->commit = base->index;
    raft->durable = base->index;
    raft_reset_election_timer(raft);
    return raft;
}

struct raft *raft_free(struct raft *raft)
{
    if (raft != NULL) {
        raft_lead_drop_peers(raft);
        raft_log_fini(&raft->log);
        member_history_fini(&raft->history);
        id_set_fini(&raft->removal_witnesses);
        raft_outbox_fini(&raft->out);
        free(raft->votes);
        free(raft->clocks);
        free(raft->cuts);
        free(raft->handed_items);
        free(raft->peers);
        free(raft->match_scratch);
        free(raft->offset_scratch);
        free(raft->reads);
        free(raft);
    }
    return NULL;
}

int raft_load_entries(struct raft *raft, struct raft_entry_span entries)
{
    INVARIANT(!raft->stepped);
    uint64_t term = raft->log.last_term;
    bool has_all_data = true;
    for (size_t i = 0; i < entries.count; i++) {
        const struct raft_entry *entry = &entries.items[i];
        has_all_data &= entry->data.bytes == 0 || entry->data.data != NULL;
        if (entry->index != raft->log.last_index + 1 + i || entry->term < term ||
                entry->term == 0 || entry->kind > RAFT_ENTRY_CONFIG) {
            return -EINVAL;
        }
        term = entry->term;
    }
    raft_outbox_begin(raft);
    raft_write_append(raft, entries, NULL);
    raft->durable = raft->log.last_index;
    raft->commit = MAX(raft->commit, MIN(raft->hard_written.commit, raft->log.last_index));
    raft_log_evict(&raft->log, raft->durable, has_all_data ? raft->options.cache_bytes_max : 0);
    return 0;
}

/* ---- Messages ------------------------------------------------------------------------------------------------- */

static bool is_from_leader(enum raft_message_kind kind)
{
    return kind == RAFT_MESSAGE_APPEND || kind == RAFT_MESSAGE_HEARTBEAT ||
           kind == RAFT_MESSAGE_SNAPSHOT;
}

static bool is_vote_request(enum raft_message_kind kind)
{
    return kind == RAFT_MESSAGE_VOTE || kind == RAFT_MESSAGE_PRE_VOTE;
}

/* These mean the same in whatever term they were said. */
static bool is_termless(enum raft_message_kind kind)
{
    return kind == RAFT_MESSAGE_PROPOSE || kind == RAFT_MESSAGE_PROPOSE_REFUSED ||
           kind == RAFT_MESSAGE_READ || kind == RAFT_MESSAGE_READ_REPLY;
}

static bool is_answer(enum raft_message_kind kind)
{
    return kind == RAFT_MESSAGE_APPEND_REPLY || kind == RAFT_MESSAGE_HEARTBEAT_REPLY;
}

/* Someone whose removal is committed is told so, unless we lead and still talk to it. True if that was all. */
static bool turn_away(struct raft *raft, const struct raft_message *message)
{
    if (!id_set_has(&member_history_at(&raft->history, raft->commit)->removed, message->from)) {
        return false;
    }
    if (raft_lead_find_peer(raft, message->from) != NULL && is_answer(message->kind)) {
        return false;
    }
    raft->messages_ignored++;
    (void)raft_send(raft, RAFT_MESSAGE_REMOVED, message->from);
    return true;
}

/* A message of a term before ours. Its sender learns ours where that can unblock it: a leader that was cut off must
 * step down, a candidate catch up. */
static void on_old_term(struct raft *raft, const struct raft_message *message)
{
    struct raft_message *reply;
    switch ((int)message->kind) {
    case RAFT_MESSAGE_APPEND:
    case RAFT_MESSAGE_HEARTBEAT:
    case RAFT_MESSAGE_SNAPSHOT:
        reply = raft_send(raft, RAFT_MESSAGE_APPEND_REPLY, message->from);
        reply->reject = true;
        break;
    case RAFT_MESSAGE_PRE_VOTE:
        reply = raft_send(raft, RAFT_MESSAGE_PRE_VOTE_REPLY, message->from);
        reply->reject = true;
        break;
    case RAFT_MESSAGE_VOTE:
        reply = raft_send(raft, RAFT_MESSAGE_VOTE_REPLY, message->from);
        reply->reject = true;
        break;
    default:
        raft->messages_ignored++;
        break;
    }
}

static void follow_term(struct raft *raft, const struct raft_message *message)
{
    bool was_follower = raft->role == RAFT_ROLE_FOLLOWER;
    uint32_t elapsed = raft->election_elapsed;
    uint32_t timeout = raft->election_timeout;
    raft_become_follower(raft, message->term, is_from_leader(message->kind) ? message->from : 0);
    if (was_follower && is_vote_request(message->kind)) {
        /* Only a vote we grant delays our own candidacy: else one who cannot win could keep us from it. */
        raft->election_elapsed = elapsed;
        raft->election_timeout = timeout;
    }
}

/* False if the message ends here. Afterwards its term is ours, or it is a pre-vote of a later one. */
static bool settle_term(struct raft *raft, const struct raft_message *message)
{
    enum raft_message_kind kind = message->kind;
    if (message->term < raft->term) {
        on_old_term(raft, message);
        return false;
    }
    if (message->term > raft->term) {
        if (is_vote_request(kind) && !message->transfer && raft_vote_in_lease(raft)) {
            raft->messages_ignored++;
            return false;
        }
        bool is_proposed = kind == RAFT_MESSAGE_PRE_VOTE ||
                           (kind == RAFT_MESSAGE_PRE_VOTE_REPLY && !message->reject);
        if (!is_proposed) {
            follow_term(raft, message);
        }
    }
    return true;
}

/* The message's term is ours: its sender is the leader of it, and we follow. False if that cannot be. */
static bool follow_sender(struct raft *raft, const struct raft_message *message)
{
    if (raft->role == RAFT_ROLE_LEADER ||
            (raft->leader_id != 0 && raft->leader_id != message->from)) {
        raft->messages_ignored++;
        return false;
    }
    if (raft->role != RAFT_ROLE_FOLLOWER || raft->leader_id == 0) {
        raft_become_follower(raft, raft->term, message->from);
    }
    raft->election_elapsed = 0;
    raft->heard_ns = raft->now_ns;
    id_set_clear(&raft->removal_witnesses);
    return true;
}

static void dispatch(struct raft *raft, const struct raft_message *message)
{
    switch (message->kind) {
    case RAFT_MESSAGE_PRE_VOTE:
    case RAFT_MESSAGE_VOTE:
        raft_vote_on_request(raft, message);
        break;
    case RAFT_MESSAGE_PRE_VOTE_REPLY:
    case RAFT_MESSAGE_VOTE_REPLY:
        raft_vote_on_reply(raft, message);
        break;
    case RAFT_MESSAGE_APPEND:
        raft_follow_on_append(raft, message);
        break;
    case RAFT_MESSAGE_HEARTBEAT:
        raft_follow_on_heartbeat(raft, message);
        break;
    case RAFT_MESSAGE_SNAPSHOT:
        raft_follow_on_snapshot(raft, message);
        break;
    case RAFT_MESSAGE_APPEND_REPLY:
        if (raft->role == RAFT_ROLE_LEADER) {
            raft_replicate_on_reply(raft, message);
        }
        break;
    case RAFT_MESSAGE_HEARTBEAT_REPLY:
        if (raft->role == RAFT_ROLE_LEADER) {
            raft_lead_on_heartbeat_reply(raft, message);
        }
        break;
    case RAFT_MESSAGE_TIMEOUT_NOW:
        raft_vote_on_timeout_now(raft, message);
        break;
    case RAFT_MESSAGE_PROPOSE:
        raft_propose_on_message(raft, message);
        break;
    case RAFT_MESSAGE_PROPOSE_REFUSED:
        raft_propose_on_refused(raft, message);
        break;
    case RAFT_MESSAGE_READ:
        raft_read_on_message(raft, message);
        break;
    case RAFT_MESSAGE_READ_REPLY:
        raft_read_on_reply(raft, message);
        break;
    case RAFT_MESSAGE_REMOVED:
        raft_vote_on_removed(raft, message);
        break;
    case RAFT_MESSAGE_KIND_END:
    default:
        raft->messages_ignored++;
        break;
    }
}

/* Numbers that no cluster reaches, and that must not come near where ours would wrap. */
static bool is_absurd(const struct raft_message *message)
{
    uint64_t highest = message->term | message->index | message->log_term | message->commit |
                       message->base.index | message->base.term;
    return highest >> 62 != 0;
}

static void on_message(struct raft *raft, const struct raft_message *message)
{
    if (raft->removed || is_absurd(message) || message->to != raft->options.self_id ||
            message->from == 0 || message->from == raft->options.self_id) {
        raft->messages_ignored++;
        return;
    }
    if (message->kind == RAFT_MESSAGE_REMOVED) {
        dispatch(raft, message);
        return;
    }
    if (turn_away(raft, message)) {
        return;
    }
    if (is_termless(message->kind) && message->term <= raft->term) {
        dispatch(raft, message);
        return;
    }
    if (!settle_term(raft, message)) {
        return;
    }
    if (is_from_leader(message->kind) && !follow_sender(raft, message)) {
        return;
    }
    dispatch(raft, message);
}

/* ---- Inputs --------------------------------------------------------------------------------------------------- */

static void on_tick(struct raft *raft)
{
    if (raft->role == RAFT_ROLE_LEADER) {
        raft_lead_tick(raft);
    } else {
        raft_vote_tick(raft);
    }
    raft_read_tick(raft);
}

static void on_synced(struct raft *raft, const struct raft_input *input)
{
    uint64_t seq = input->synced.write_seq;
    if (input->synced.hard_only) {
        raft->hard_synced_seq =
                seq <= raft->last_seq ? MAX(raft->hard_synced_seq, seq) : raft->hard_synced_seq;
    } else {
        raft_apply_synced(raft, seq, input->synced.last_index, input->synced.last_term);
    }
}

static void on_snapshot_made(struct raft *raft, uint64_t index, uint64_t term)
{
    if (index < raft->log.base_index || index > raft->log.last_index ||
            raft_log_term(&raft->log, index) != term || index <= raft->snapshot_index) {
        return;
    }
    raft_apply_commit_to(raft, index); /* made of applied entries only */
    raft->snapshot_index = index;
    raft->snapshot_term = term;
}

static void on_log_compacted(struct raft *raft, uint64_t index)
{
    if (index <= raft->log.base_index) {
        return;
    }
    INVARIANT_LE(index, MIN(raft->commit, raft->durable));
    raft->base.time_ns = raft->log.last_time_ns;
    raft_log_compact(&raft->log, index);
    member_history_compact(&raft->history, index);
}

static void on_writable(struct raft *raft, bool writable)
{
    raft->writable = writable;
    if (!writable) {
        raft_transfer_begin(raft, 0);
    }
}

static void first_step(struct raft *raft)
{
    raft->stepped = true;
    /* Before a crash we may have promised a leader its lease. */
    raft->heard_ns = raft->now_ns;
    clusterclock_observe(&raft->clock, raft->log.last_time_ns, raft->now_ns);
}

/* What the shell knows, or wants, of one peer. */
static void on_peer_news(struct raft *raft, enum raft_input_kind kind, uint64_t peer_id)
{
    if (kind == RAFT_INPUT_UNREACHABLE) {
        raft_replicate_on_unreachable(raft, peer_id);
    } else if (kind == RAFT_INPUT_REACHABLE && raft->role == RAFT_ROLE_LEADER) {
        raft_lead_on_reachable(raft, peer_id);
    } else if (kind == RAFT_INPUT_REACHABLE) {
        raft_follow_on_reachable(raft, peer_id);
    } else if (kind == RAFT_INPUT_SNAPSHOT_SENT) {
        raft_replicate_on_snapshot_sent(raft, peer_id);
    } else if (kind == RAFT_INPUT_SNAPSHOT_FAILED) {
        raft_replicate_on_snapshot_failed(raft, peer_id);
    } else {
        raft_transfer_begin(raft, peer_id);
    }
}

static int on_input(struct raft *raft, const struct raft_input *input)
{
    switch (input->kind) {
    case RAFT_INPUT_TICK:
        on_tick(raft);
        break;
    case RAFT_INPUT_MESSAGE:
        on_message(raft, input->message);
        break;
    case RAFT_INPUT_PROPOSE:
        raft_propose(raft, &input->proposal);
        break;
    case RAFT_INPUT_READ:
        raft_read_begin(raft, input->reads);
        break;
    case RAFT_INPUT_SYNCED:
        on_synced(raft, input);
        break;
    case RAFT_INPUT_APPLIED:
        raft_apply_on_applied(raft, input->position.index);
        break;
    case RAFT_INPUT_APPLY_RESUME:
        return raft_apply_resume(raft, input->position.index, input->position.term);
    case RAFT_INPUT_APPLY_PAUSE:
        raft_apply_pause(raft);
        break;
    case RAFT_INPUT_ENTRIES_READ:
        if (input->read.peer_id == 0) {
            raft_apply_on_read(raft, input->read.first, input->read.entries);
        } else {
            raft_replicate_on_read(
                    raft, input->read.peer_id, input->read.first, input->read.entries);
        }
        break;
    case RAFT_INPUT_SNAPSHOT_MADE:
        on_snapshot_made(raft, input->position.index, input->position.term);
        break;
    case RAFT_INPUT_LOG_COMPACTED:
        on_log_compacted(raft, input->position.index);
        break;
    case RAFT_INPUT_UNREACHABLE:
    case RAFT_INPUT_REACHABLE:
    case RAFT_INPUT_SNAPSHOT_SENT:
    case RAFT_INPUT_SNAPSHOT_FAILED:
    case RAFT_INPUT_TRANSFER:
        on_peer_news(raft, input->kind, input->peer_id);
        break;
    case RAFT_INPUT_WRITABLE:
        on_writable(raft, input->writable);
        break;
    case RAFT_INPUT_STEP_TIME:
        raft->step_time = true;
        break;
    default:
        INVARIANT(false);
    }
    return 0;
}

int raft_step(struct raft *raft, const struct raft_input *input, struct raft_ready *ret_ready)
{
    INVARIANT_LE(raft->now_ns, input->now_ns);
    raft->now_ns = input->now_ns;
    raft->wall_ns = input->wall_ns;
    if (!raft->stepped) {
        first_step(raft);
    }
    raft_log_evict(&raft->log, MIN(raft->durable, raft->commit), raft->options.cache_bytes_max);
    raft_outbox_begin(raft);
    int result = on_input(raft, input);
    raft_apply_hand(raft);
    raft_outbox_finish(raft, ret_ready);
    INVARIANT(raft->role != RAFT_ROLE_LEADER || raft->leader_id == raft->options.self_id);
    INVARIANT_LE(raft->log.base_index, raft->commit);
    return result;
}
