/* outbox.c: collects what a step wants done, and hands it out in the order that keeps promises. */
#include "daemons/raftd/raft/core.h"

void raft_outbox_begin(struct raft *raft)
{
    struct raft_outbox *out = &raft->out;
    out->send_count = 0;
    out->vow_count = 0;
    out->grant_count = 0;
    out->read_refused_count = 0;
    out->refused_count = 0;
    out->need_count = 0;
    out->append_first = 0;
    out->cut_index = 0;
    out->cut = false;
    out->rebased = false;
    out->install = false;
    out->members_changed = false;
    out->time_begun = false;
    out->promote_id = 0;
    out->apply = (struct raft_entry_span){ NULL, 0 };
    out->term_before = raft->term;
    out->leader_before = raft->leader_id;
    out->role_before = raft->role;
}

void raft_outbox_fini(struct raft_outbox *out)
{
    free(out->sends);
    free(out->vows);
    free(out->grants);
    free(out->reads_refused);
    free(out->refused);
    free(out->needs);
}

struct raft_message *raft_send(struct raft *raft, enum raft_message_kind kind, uint64_t to)
{
    struct raft_outbox *out = &raft->out;
    struct raft_message *message = VEC_PUSH(out->sends, out->send_count, out->send_capacity);
    *message = (struct raft_message){
        .kind = kind, .from = raft->options.self_id, .to = to, .term = raft->term
    };
    return message;
}

struct raft_message *raft_vow(struct raft *raft, enum raft_message_kind kind, uint64_t to)
{
    struct raft_outbox *out = &raft->out;
    struct raft_vow *vow = VEC_PUSH(out->vows, out->vow_count, out->vow_capacity);
    vow->after_seq = 0; /* raft_outbox_finish knows */
    vow->hard_only = kind == RAFT_MESSAGE_VOTE_REPLY;
    vow->message = (struct raft_message){
        .kind = kind, .from = raft->options.self_id, .to = to, .term = raft->term
    };
    return &vow->message;
}

void raft_grant_read(struct raft *raft, uint64_t context, uint64_t index)
{
    struct raft_outbox *out = &raft->out;
    *VEC_PUSH(out->grants, out->grant_count, out->grant_capacity) =
            (struct raft_grant){ context, index };
}

void raft_refuse_read(struct raft *raft, uint64_t context, enum raft_refusal reason)
{
    struct raft_outbox *out = &raft->out;
    *VEC_PUSH(out->reads_refused, out->read_refused_count, out->read_refused_capacity) =
            (struct raft_refused){ context, reason };
}

void raft_refuse_proposal(struct raft *raft, uint64_t context, enum raft_refusal reason)
{
    struct raft_outbox *out = &raft->out;
    raft->proposals_refused++;
    *VEC_PUSH(out->refused, out->refused_count, out->refused_capacity) =
            (struct raft_refused){ context, reason };
}

void raft_write_append(
        struct raft *raft, struct raft_entry_span entries, const struct raft_log_stamp *stamp)
{
    uint64_t first = raft->log.last_index + 1;
    raft_log_append(&raft->log, entries, stamp);
    if (raft->out.append_first == 0) {
        raft->out.append_first = first;
    }
    for (size_t i = 0; i < entries.count; i++) {
        uint64_t time_ns = stamp != NULL ? stamp->time_ns : entries.items[i].time_ns;
        raft->timeless_index = time_ns == 0 ? first + i : raft->timeless_index;
        if (entries.items[i].kind == RAFT_ENTRY_CONFIG) {
            member_history_append(&raft->history, first + i, entries.items[i].change);
            raft->out.members_changed = true;
        }
    }
}

void raft_write_cut(struct raft *raft, uint64_t index)
{
    /* What is committed is never cut; and a step cuts before it appends. */
    INVARIANT_LE(raft->commit, index);
    INVARIANT_LT(index, raft->log.last_index);
    INVARIANT_EQ(raft->out.append_first, 0);
    raft_log_cut(&raft->log, index);
    raft->durable = MIN(raft->durable, index);
    if (index <= raft->timeless_index) {
        /* Cluster time began with what is cut: it will begin anew, and not there. */
        raft->timeless_index = index;
        raft->log.last_time_ns = 0;
        raft->clock = (struct clusterclock){ 0 };
    }
    raft->out.cut = true;
    raft->out.cut_index = index;
    if (member_history_cut(&raft->history, index)) {
        raft->out.members_changed = true;
    }
}

void raft_write_base(struct raft *raft, const struct raft_base *base)
{
    /* Either a snapshot beyond all we knew, or the very beginning of an empty log. */
    INVARIANT(raft->commit < base->index || raft->log.last_index == 0);
    INVARIANT_EQ(raft->out.append_first, 0);
    raft_log_reset(&raft->log, base->index, base->term, base->time_ns);
    member_history_reset(&raft->history, base->index, base->members);
    raft->base.time_ns = base->time_ns;
    raft->timeless_index = base->time_ns == 0 ? base->index : 0;
    raft->durable = 0; /* not even the base is, before its write is synced */
    raft->out.rebased = true;
    raft->out.members_changed = true;
}

/* Where the log begins now. */
static const struct raft_base *view_base(struct raft *raft)
{
    raft->base.index = raft->log.base_index;
    raft->base.term = raft->log.base_term;
    raft->base.members = members_view(member_history_at(&raft->history, raft->log.base_index));
    return &raft->base;
}

/* One write for all that this step changed. Cuts are remembered until synced: completions of the writes before them
 * must not vouch for what they removed, even if the same entry comes again. */
static void finish_write(struct raft *raft, struct raft_write *ret_write)
{
    struct raft_outbox *out = &raft->out;
    bool hard_changed =
            raft->term != raft->hard_written.term || raft->vote != raft->hard_written.vote;
    *ret_write = (struct raft_write){ .hard = { raft->term, raft->vote, raft->commit } };
    INVARIANT_LE(raft->hard_written.term, raft->term);
    INVARIANT_LE(raft->commit, raft->log.last_index);
    if (!hard_changed && out->append_first == 0 && !out->cut && !out->rebased) {
        return;
    }
    ret_write->seq = ++raft->last_seq;
    ret_write->hard_changed = hard_changed;
    raft->hard_written = ret_write->hard;
    raft->hard_seq = hard_changed ? ret_write->seq : raft->hard_seq;
    if (out->cut || out->rebased) {
        *VEC_PUSH(raft->cuts, raft->cut_count, raft->cut_capacity) =
                (struct raft_cut_mark){ ret_write->seq, out->rebased ? 0 : out->cut_index };
    }
    ret_write->cut = out->cut;
    ret_write->cut_index = out->cut_index;
    if (out->rebased) {
        raft->install_seq = raft->log.base_index > 0 ? ret_write->seq : 0;
        ret_write->base = view_base(raft);
    }
    if (out->append_first != 0) {
        ret_write->append =
                raft_log_slice(&raft->log, out->append_first, raft->log.last_index, SIZE_MAX);
    }
    ret_write->last_index = raft->log.last_index;
    ret_write->last_term = raft->log.last_term;
}

/* Vows whose write is synced already need not wait. A vote says nothing of our log but that the candidate's is no shorter:
 * entries that wait for the disk were looked at too, and whoever counts them asks for an acknowledgement of their own. */
static void finish_vows(struct raft *raft)
{
    struct raft_outbox *out = &raft->out;
    size_t kept = 0;
    for (size_t i = 0; i < out->vow_count; i++) {
        struct raft_vow *vow = &out->vows[i];
        uint64_t done =
                vow->hard_only ? MAX(raft->synced_seq, raft->hard_synced_seq) : raft->synced_seq;
        vow->after_seq = vow->hard_only ? raft->hard_seq : raft->last_seq;
        if (vow->after_seq <= done) {
            *VEC_PUSH(out->sends, out->send_count, out->send_capacity) = vow->message;
        } else {
            out->vows[kept++] = *vow;
        }
    }
    out->vow_count = kept;
}

/* Entries that were noted by index become views, now that the log's memory stays put. */
static void finish_entries(struct raft *raft)
{
    struct raft_outbox *out = &raft->out;
    for (size_t i = 0; i < out->send_count; i++) {
        struct raft_message *message = &out->sends[i];
        if (message->entries.count > 0 && message->entries.items == NULL) {
            message->entries = raft_log_slice(&raft->log, message->index + 1,
                    message->index + message->entries.count, SIZE_MAX);
        }
    }
}

void raft_outbox_finish(struct raft *raft, struct raft_ready *ret_ready)
{
    struct raft_outbox *out = &raft->out;
    *ret_ready = (struct raft_ready){ 0 };
    finish_write(raft, &ret_ready->write);
    finish_vows(raft);
    finish_entries(raft);
    ret_ready->send = (struct raft_message_span){ out->sends, out->send_count };
    ret_ready->vows = out->vows;
    ret_ready->vow_count = out->vow_count;
    ret_ready->apply = out->apply;
    if (out->apply.count > 0) {
        ret_ready->apply_prev_index = out->apply.items[0].index - 1;
        ret_ready->apply_prev_term = raft_log_term(&raft->log, ret_ready->apply_prev_index);
    }
    if (out->install) {
        ret_ready->install = view_base(raft);
    }
    ret_ready->grants = out->grants;
    ret_ready->grant_count = out->grant_count;
    ret_ready->reads_refused = out->reads_refused;
    ret_ready->read_refused_count = out->read_refused_count;
    ret_ready->refused = out->refused;
    ret_ready->refused_count = out->refused_count;
    ret_ready->needs = out->needs;
    ret_ready->need_count = out->need_count;
    ret_ready->state_changed = raft->term != out->term_before ||
                               raft->leader_id != out->leader_before ||
                               raft->role != out->role_before || out->time_begun;
    ret_ready->members_changed = out->members_changed;
    ret_ready->promote_id = out->promote_id;
    ret_ready->removed = raft->removed;
}
