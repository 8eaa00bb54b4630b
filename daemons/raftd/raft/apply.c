/* apply.c: what is durable here, what is committed, and what the state machine gets: entries up to the lower of both,
 * in order, no more at a time than its window. */
#include <errno.h>

#include "daemons/raftd/raft/core.h"

/* How much of the log a completed write vouches for. Of what was cut since, nothing, even where the same entry has
 * come again: the disk has not seen it come. */
static uint64_t credited_index(const struct raft *raft, uint64_t last_index, uint64_t last_term)
{
    uint64_t index = last_index;
    for (size_t i = 0; i < raft->cut_count; i++) {
        index = MIN(index, raft->cuts[i].index);
    }
    if (index > raft->log.last_index) {
        return 0;
    }
    if (index == last_index && raft_log_term(&raft->log, index) != last_term) {
        return 0;
    }
    return index;
}

void raft_apply_synced(struct raft *raft, uint64_t seq, uint64_t last_index, uint64_t last_term)
{
    if (seq <= raft->synced_seq || seq > raft->last_seq) {
        return;
    }
    raft->synced_seq = seq;
    size_t done = 0;
    while (done < raft->cut_count && raft->cuts[done].seq <= seq) {
        done++;
    }
    if (done > 0) {
        raft->cut_count -= done;
        memmove(raft->cuts, raft->cuts + done, raft->cut_count * sizeof *raft->cuts);
    }
    raft->durable = MAX(raft->durable, credited_index(raft, last_index, last_term));
    INVARIANT_LE(raft->durable, raft->log.last_index);
    if (raft->install_seq != 0 && raft->install_seq <= seq) {
        raft->install_seq = 0;
        raft->out.install = true;
    }
    raft_vote_synced(raft);
    if (raft->role == RAFT_ROLE_LEADER) {
        raft_lead_advance_commit(raft);
    }
}

/* A leader's budget for what is proposed and not committed gets back what just was. */
static void release_uncommitted(struct raft *raft, uint64_t first, uint64_t last)
{
    if (raft->uncommitted_bytes == 0) {
        return;
    }
    first = MAX(first, raft_log_first_cached(&raft->log));
    if (last == raft->log.last_index) {
        raft->uncommitted_bytes = 0;
        return;
    }
    if (first > last) {
        return;
    }
    struct raft_entry_span entries = raft_log_slice(&raft->log, first, last, SIZE_MAX);
    for (size_t i = 0; i < entries.count; i++) {
        raft->uncommitted_bytes -= MIN(raft->uncommitted_bytes, raft_entry_cost(&entries.items[i]));
    }
}

void raft_apply_commit_to(struct raft *raft, uint64_t index)
{
    index = MIN(index, raft->log.last_index);
    if (index <= raft->commit) {
        return;
    }
    release_uncommitted(raft, raft->commit + 1, index);
    raft->commit = index;
}

void raft_apply_pause(struct raft *raft)
{
    raft->applying = false;
    raft->apply_read_pending = false;
    raft->handed_head = 0;
    raft->handed_count = 0;
    raft->handed_bytes = 0;
}

static void note_applied(struct raft *raft, uint64_t index)
{
    raft->applied = index;
    if (id_set_has(&raft_members_now(raft)->removed, raft->options.self_id) &&
            id_set_has(&member_history_at(&raft->history, index)->removed, raft->options.self_id)) {
        raft->removed = true;
        raft_become_follower(raft, raft->term, 0);
    }
}

int raft_apply_resume(struct raft *raft, uint64_t index, uint64_t term)
{
    raft_apply_pause(raft);
    if (index < raft->log.base_index) {
        /* While the base is being written, ready.install follows with its completion. */
        raft->out.install = raft->install_seq == 0;
        return -ESTALE;
    }
    if (index > raft->log.last_index || raft_log_term(&raft->log, index) != term) {
        return -ERANGE;
    }
    if (raft->install_seq != 0) {
        return -ESTALE;
    }
    raft_apply_commit_to(raft, index); /* what has been applied was committed */
    raft->applying = true;
    raft->handed = index;
    note_applied(raft, index);
    return 0;
}

void raft_apply_on_applied(struct raft *raft, uint64_t index)
{
    if (!raft->applying || index > raft->handed || index < raft->applied) {
        return; /* of an earlier life of the state machine */
    }
    while (raft->handed_count > 0 && raft->handed_items[raft->handed_head].last_index <= index) {
        raft->handed_bytes -= raft->handed_items[raft->handed_head].bytes;
        raft->handed_head++;
        raft->handed_count--;
    }
    note_applied(raft, index);
}

static void push_handed(struct raft *raft, struct raft_handed handed)
{
    if (raft->handed_head > 0 && raft->handed_head + raft->handed_count == raft->handed_capacity) {
        memmove(raft->handed_items, raft->handed_items + raft->handed_head,
                raft->handed_count * sizeof *raft->handed_items);
        raft->handed_head = 0;
    }
    raft->handed_items = vec_reserve(raft->handed_items, &raft->handed_capacity,
            raft->handed_head + 2 * raft->handed_count + 1, sizeof *raft->handed_items);
    raft->handed_items[raft->handed_head + raft->handed_count++] = handed;
    raft->handed_bytes += handed.bytes;
}

static void hand(struct raft *raft, struct raft_entry_span entries)
{
    INVARIANT_EQ(entries.items[0].index, raft->handed + 1);
    struct raft_handed handed = { raft->handed + entries.count, 0 };
    for (size_t i = 0; i < entries.count; i++) {
        handed.bytes += raft_entry_cost(&entries.items[i]);
    }
    push_handed(raft, handed);
    raft->handed = handed.last_index;
    raft->out.apply = entries;
}

void raft_apply_hand(struct raft *raft)
{
    uint64_t limit = MIN(raft->commit, raft->durable);
    if (!raft->applying || raft->apply_read_pending || raft->handed >= limit ||
            raft->out.apply.count > 0 ||
            (raft->handed_bytes > 0 &&
                    raft->handed_bytes >= raft->options.apply_window_bytes_max)) {
        return;
    }
    uint64_t first = raft->handed + 1;
    uint64_t first_cached = raft_log_first_cached(&raft->log);
    if (first < first_cached) {
        uint64_t end = MIN(first_cached, limit + 1);
        raft->apply_read_pending = true;
        struct raft_outbox *out = &raft->out;
        *VEC_PUSH(out->needs, out->need_count, out->need_capacity) = (struct raft_need){
            .peer_id = 0,
            .first = first,
            .end = end,
            .bytes_max = raft->options.apply_bytes_max,
        };
        return;
    }
    hand(raft, raft_log_slice(&raft->log, first, limit, raft->options.apply_bytes_max));
}

size_t raft_apply_check_read(
        const struct raft *raft, uint64_t first, struct raft_entry_span entries)
{
    size_t count = 0;
    while (count < entries.count && entries.items[count].index == first + count &&
            first + count > raft->log.base_index && entries.items[count].term != 0 &&
            raft_log_term(&raft->log, first + count) == entries.items[count].term) {
        count++;
    }
    return count;
}

void raft_apply_on_read(struct raft *raft, uint64_t first, struct raft_entry_span entries)
{
    if (!raft->applying || !raft->apply_read_pending) {
        return;
    }
    raft->apply_read_pending = false;
    if (first != raft->handed + 1) {
        return;
    }
    uint64_t limit = MIN(raft->commit, raft->durable);
    entries.count = raft_apply_check_read(raft, first, entries);
    if (entries.count > 0 && first + entries.count - 1 > limit) {
        entries.count = first <= limit ? (size_t)(limit - first + 1) : 0;
    }
    if (entries.count > 0) {
        hand(raft, entries);
    }
}
