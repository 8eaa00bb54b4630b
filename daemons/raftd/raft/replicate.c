/* replicate.c: what a leader sends to a peer next, and what the peer's answer means.
 *
 *   PROBE      where do our logs meet? One small append at a time, each answer moves `next`. It is said again with each
 *              heartbeat: were it large, a slow link would get more of them than it can carry, and nothing else.
 *   REPLICATE  they meet: appends are sent ahead of their answers, as many as inflight_max.
 *   SNAPSHOT   our log begins too late for it: a snapshot is under way, nothing else is sent.
 *
 * A peer whose disk is full says so with each heartbeat's answer: until it has room it gets probes without entries, so that
 * what it has counts, and nothing else.
 *
 *   PROBE --ack--> REPLICATE --reject, unreachable--> PROBE
 *   PROBE --entry gone--> SNAPSHOT --ack, failed, has it--> PROBE */
#include "daemons/raftd/raft/core.h"

static void become_probe(struct raft_peer *peer, uint64_t next)
{
    peer->state = RAFT_PROGRESS_PROBE;
    peer->next = MAX(next, peer->match + 1);
    peer->probe_sent = false;
    peer->inflight_count = 0;
}

static void become_replicate(struct raft_peer *peer)
{
    peer->state = RAFT_PROGRESS_REPLICATE;
    peer->next = peer->match + 1;
    peer->inflight_count = 0;
}

static void inflight_push(const struct raft *raft, struct raft_peer *peer, uint64_t index)
{
    INVARIANT_LT(peer->inflight_count, raft->options.inflight_max);
    uint32_t slot = (peer->inflight_head + peer->inflight_count) % raft->options.inflight_max;
    peer->inflight[slot] = index;
    peer->inflight_count++;
}

/* Whatever a link carries between two breaks, some whole appends come through: each break halves them, each answer doubles
 * them. */
static void shrink_appends(const struct raft *raft, struct raft_peer *peer)
{
    size_t least = MIN(raft->options.probe_bytes_max, raft->options.append_bytes_max);
    peer->append_bytes = MAX(peer->append_bytes / 2, least);
}

static void grow_appends(const struct raft *raft, struct raft_peer *peer)
{
    peer->append_bytes = MIN(2 * peer->append_bytes + 1, raft->options.append_bytes_max);
}

static void inflight_free_to(const struct raft *raft, struct raft_peer *peer, uint64_t index)
{
    while (peer->inflight_count > 0 && peer->inflight[peer->inflight_head] <= index) {
        peer->inflight_head = (peer->inflight_head + 1) % raft->options.inflight_max;
        peer->inflight_count--;
    }
}

static bool is_paused(const struct raft *raft, const struct raft_peer *peer)
{
    switch (peer->state) {
    case RAFT_PROGRESS_PROBE:
        return peer->probe_sent;
    case RAFT_PROGRESS_REPLICATE:
        return peer->no_space || peer->inflight_count >= raft->options.inflight_max;
    case RAFT_PROGRESS_SNAPSHOT:
    default:
        return true;
    }
}

/* Entries (next - 1, next - 1 + count]; items NULL means the log's own. */
static void send_append(
        struct raft *raft, struct raft_peer *peer, const struct raft_entry *items, size_t count)
{
    struct raft_message *message = raft_send(raft, RAFT_MESSAGE_APPEND, peer->id);
    message->index = peer->next - 1;
    message->log_term = raft_log_term(&raft->log, peer->next - 1);
    message->commit = raft->commit;
    message->entries = (struct raft_entry_span){ items, count };
    if (message->index == 0) {
        /* Whoever joins with nothing must know the first members: no entry names them. */
        message->base.members = members_view(member_history_at(&raft->history, 0));
    }
    uint64_t last = message->index + count;
    peer->commit_sent = MAX(peer->commit_sent, MIN(raft->commit, last));
    if (peer->state == RAFT_PROGRESS_PROBE) {
        peer->probe_sent = true;
    } else if (count > 0) {
        peer->next = last + 1;
        inflight_push(raft, peer, last);
    }
}

static void send_snapshot(struct raft *raft, struct raft_peer *peer)
{
    if (!peer->active || peer->no_space || raft->snapshot_index < raft->log.base_index ||
            raft->snapshot_index == 0) {
        return; /* nobody there to take it, no room for it, or none made yet: asked again with each heartbeat */
    }
    peer->state = RAFT_PROGRESS_SNAPSHOT;
    peer->snapshot_index = raft->snapshot_index;
    struct raft_message *message = raft_send(raft, RAFT_MESSAGE_SNAPSHOT, peer->id);
    message->base = (struct raft_base){
        .index = raft->snapshot_index,
        .term = raft->snapshot_term,
        .time_ns = raft->log.last_time_ns,
        .members = members_view(member_history_at(&raft->history, raft->snapshot_index)),
    };
}

static size_t bytes_max(const struct raft *raft, const struct raft_peer *peer)
{
    return peer->state == RAFT_PROGRESS_PROBE ? raft->options.probe_bytes_max : peer->append_bytes;
}

/* How many of them, from the first on, go with one append: with a probe none, if the first is large already. */
static size_t count_to_send(
        const struct raft *raft, const struct raft_peer *peer, struct raft_entry_span entries)
{
    size_t count = 0;
    size_t bytes = 0;

    if (peer->state != RAFT_PROGRESS_PROBE) {
        return entries.count;
    }
    while (count < entries.count) {
        bytes += raft_entry_cost(&entries.items[count]);
        if (bytes > raft->options.probe_bytes_max) {
            break;
        }
        count++;
    }
    return count;
}

static void ask_for_entries(struct raft *raft, struct raft_peer *peer)
{
    if (peer->read_pending) {
        return;
    }
    peer->read_pending = true;
    struct raft_outbox *out = &raft->out;
    *VEC_PUSH(out->needs, out->need_count, out->need_capacity) = (struct raft_need){
        .peer_id = peer->id,
        .first = peer->next,
        .end = raft_log_first_cached(&raft->log),
        .bytes_max = bytes_max(raft, peer),
    };
}

/* While something is unanswered, entries gather until they are as many as that: a busy peer gets few large appends,
 * and syncs few times; an idle one gets each at once. */
static bool is_gathering(const struct raft *raft, const struct raft_peer *peer)
{
    uint64_t unanswered = peer->next - 1 - peer->match;
    return peer->state == RAFT_PROGRESS_REPLICATE && peer->inflight_count > 0 &&
           raft->log.last_index + 1 - peer->next < unanswered;
}

/* Sends what the peer lacks, as far as its state lets us. */
void raft_replicate(struct raft *raft, struct raft_peer *peer)
{
    while (!is_paused(raft, peer)) {
        uint64_t last = raft->log.last_index;
        bool is_probe = peer->state == RAFT_PROGRESS_PROBE;
        INVARIANT_LE(peer->next, last + 1);
        INVARIANT_LT(peer->match, peer->next);
        if ((peer->next > last && !is_probe) || is_gathering(raft, peer)) {
            return;
        }
        if (peer->next - 1 < raft->log.base_index) {
            send_snapshot(raft, peer);
            return;
        }
        if (peer->next > last || peer->no_space) {
            send_append(raft, peer, NULL, 0);
            return;
        }
        if (peer->next < raft_log_first_cached(&raft->log)) {
            ask_for_entries(raft, peer);
            return;
        }
        struct raft_entry_span entries =
                raft_log_slice(&raft->log, peer->next, last, bytes_max(raft, peer));
        send_append(raft, peer, NULL, count_to_send(raft, peer, entries));
    }
}

void raft_replicate_all(struct raft *raft)
{
    for (size_t i = 0; i < raft->peer_count; i++) {
        raft_replicate(raft, &raft->peers[i]);
    }
}

/* The commit index moved and no append will carry the news. Heartbeats take no part in the pipeline. */
void raft_replicate_commit_notice(struct raft *raft, struct raft_peer *peer)
{
    uint64_t commit = MIN(peer->match, raft->commit);
    if (peer->state != RAFT_PROGRESS_REPLICATE || peer->inflight_count > 0 ||
            commit <= peer->commit_sent) {
        return;
    }
    struct raft_message *message = raft_send(raft, RAFT_MESSAGE_HEARTBEAT, peer->id);
    message->commit = commit;
    message->time_ns = raft_has_time(raft) ? clusterclock_now(&raft->clock, raft->now_ns) : 0;
    peer->commit_sent = commit;
}

static void on_reject(struct raft *raft, struct raft_peer *peer, const struct raft_message *message)
{
    if (message->index <= peer->match || message->index == 0) {
        return; /* it has acknowledged more since */
    }
    if (peer->state == RAFT_PROGRESS_REPLICATE) {
        become_probe(peer, peer->match + 1);
    } else if (peer->state == RAFT_PROGRESS_PROBE && peer->next - 1 == message->index) {
        uint64_t hint = MIN(message->hint_index, message->index - 1);
        if (hint > raft->log.base_index) {
            hint = raft_log_find_term(&raft->log, hint, message->hint_term);
        }
        become_probe(peer, hint + 1);
    } else {
        return; /* an answer to an older probe */
    }
    raft_replicate(raft, peer);
}

static void on_acknowledge(
        struct raft *raft, struct raft_peer *peer, const struct raft_message *message)
{
    bool is_news = message->index > peer->match;
    if (is_news) {
        peer->match = message->index;
        peer->next = MAX(peer->next, peer->match + 1);
    }
    switch (peer->state) {
    case RAFT_PROGRESS_PROBE:
        if (message->index == peer->match) {
            become_replicate(peer);
        }
        break;
    case RAFT_PROGRESS_SNAPSHOT:
        if (peer->match >= raft->log.base_index) {
            become_replicate(peer);
        }
        break;
    case RAFT_PROGRESS_REPLICATE:
    default:
        inflight_free_to(raft, peer, message->index);
        if (is_news) {
            grow_appends(raft, peer);
        }
        break;
    }
    if (is_news) {
        raft_lead_advance_commit(raft);
        if (raft->role != RAFT_ROLE_LEADER) {
            return; /* it committed our own removal */
        }
    }
    raft_replicate(raft, peer);
    raft_replicate_commit_notice(raft, peer);
    raft_transfer_check(raft, peer);
}

void raft_replicate_on_reply(struct raft *raft, const struct raft_message *message)
{
    struct raft_peer *peer = raft_lead_find_peer(raft, message->from);
    if (peer == NULL || message->index > raft->log.last_index) {
        raft->messages_ignored++;
        return;
    }
    peer->active = true;
    if (message->reject) {
        on_reject(raft, peer, message);
    } else {
        on_acknowledge(raft, peer, message);
    }
}

/* A heartbeat came back, so the peer lives: what is still unanswered may have been lost. */
void raft_replicate_on_heartbeat(
        struct raft *raft, struct raft_peer *peer, const struct raft_message *message)
{
    switch (peer->state) {
    case RAFT_PROGRESS_PROBE:
        peer->probe_sent = false;
        break;
    case RAFT_PROGRESS_SNAPSHOT:
        if (message->index >= peer->snapshot_index) {
            become_probe(
                    peer, message->index + 1); /* it is there; only its acknowledgement was lost */
        }
        break;
    case RAFT_PROGRESS_REPLICATE:
    default:
        if (peer->inflight_count > 0 && peer->next - 1 < raft->log.base_index) {
            become_probe(
                    peer, peer->match + 1); /* what comes next is gone from the log meanwhile */
        } else if (peer->inflight_count > 0) {
            /* Behind all that was sent, in its order: rejected if any of that was lost. */
            send_append(raft, peer, NULL, 0);
        }
        break;
    }
    if (peer->next > raft->log.last_index + 1) {
        peer->next = raft->log.last_index + 1;
    }
    raft_replicate(raft, peer);
    raft_replicate_commit_notice(raft, peer);
}

void raft_replicate_on_unreachable(struct raft *raft, uint64_t peer_id)
{
    struct raft_peer *peer = raft_lead_find_peer(raft, peer_id);
    if (peer == NULL || peer->state != RAFT_PROGRESS_REPLICATE) {
        return;
    }
    if (peer->inflight_count > 0) {
        shrink_appends(raft, peer);
    }
    become_probe(peer, peer->match + 1);
}

void raft_replicate_on_snapshot_sent(struct raft *raft, uint64_t peer_id)
{
    struct raft_peer *peer = raft_lead_find_peer(raft, peer_id);
    if (peer != NULL && peer->state == RAFT_PROGRESS_SNAPSHOT) {
        /* It may still be writing, or have lost it in a crash: it says so when probed behind the snapshot. */
        become_probe(peer, peer->snapshot_index + 1);
        peer->probe_sent = true;
    }
}

void raft_replicate_on_snapshot_failed(struct raft *raft, uint64_t peer_id)
{
    struct raft_peer *peer = raft_lead_find_peer(raft, peer_id);
    if (peer != NULL && peer->state == RAFT_PROGRESS_SNAPSHOT) {
        become_probe(peer, peer->match + 1);
        peer->probe_sent = true; /* not before it is heard from again */
    }
}

void raft_replicate_on_read(
        struct raft *raft, uint64_t peer_id, uint64_t first, struct raft_entry_span entries)
{
    struct raft_peer *peer =
            raft->role == RAFT_ROLE_LEADER ? raft_lead_find_peer(raft, peer_id) : NULL;
    if (peer == NULL || !peer->read_pending) {
        return;
    }
    peer->read_pending = false;
    size_t count = raft_apply_check_read(raft, first, entries);
    if (first == peer->next && count > 0 && !is_paused(raft, peer) && !peer->no_space &&
            first - 1 >= raft->log.base_index) {
        entries.count = count;
        send_append(raft, peer, entries.items, count_to_send(raft, peer, entries));
    } else if (first == peer->next && count == 0) {
        return; /* unreadable just now: asked again with the next heartbeat */
    }
    raft_replicate(raft, peer);
}
