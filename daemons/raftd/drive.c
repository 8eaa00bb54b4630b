/* drive.c: feeds the core and does its duties, in the order in which raft.h lists them.
 *
 * Steps never nest: a write that completes within its own duty, or a callback that wants another step, is noted and taken
 * up when the duties are done. */
#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "daemons/raftd/failnote.h"
#include "daemons/raftd/raftd_impl.h"
#include "proto/hello.h"

void raftd_input_init(struct raft_input *input, enum raft_input_kind kind)
{
    *input = (struct raft_input){
        .kind = kind, .now_ns = clock_boottime_ns(), .wall_ns = clock_wall_ns()
    };
}

void raftd_fail(struct raftd *raftd, int exit_status)
{
    if (raftd->exit_status < 0) {
        raftd->exit_status = exit_status;
    }
    loop_stop(raftd->loop);
}

static void note_backlog(struct raftd *raftd, const struct raft_write *write)
{
    uint64_t bytes = 0;

    if (write->base != NULL) {
        backlog_on_cut(&raftd->backlog, 0); /* older entries are void */
    } else if (write->cut) {
        backlog_on_cut(&raftd->backlog, write->cut_index);
    }
    for (size_t i = 0; i < write->append.count; i++) {
        bytes += write->append.items[i].data.bytes;
    }
    if (write->append.count > 0) {
        backlog_on_append(&raftd->backlog, write->last_index, bytes);
    }
}

static void do_write(struct raftd *raftd, const struct raft_write *write)
{
    struct wal_base base;
    struct buf configuration = BUF_INIT;

    if (write->seq == 0) {
        return;
    }
    note_backlog(raftd, write);
    if (write->cut) {
        membership_note_cut(&raftd->membership, write->cut_index);
    }
    for (size_t i = 0; i < write->append.count; i++) {
        if (write->append.items[i].kind == RAFT_ENTRY_CONFIG) {
            membership_note(
                    &raftd->membership, write->append.items[i].index, write->append.items[i].data);
        }
    }
    if (write->base != NULL) {
        raftd->is_installing |= write->base->index > 0;
        membership_encode(&raftd->membership, &write->base->members, &configuration);
        base = (struct wal_base){
            .reset = true,
            .index = write->base->index,
            .term = write->base->term,
            .cluster_time_ns = write->base->time_ns,
            .cluster_id = raftd->membership.cluster_id,
            .member_id = raftd->membership.self_id,
            .configuration = buf_span(&configuration),
        };
    }
    storage_write(raftd->storage, write, write->base != NULL ? &base : NULL);
    buf_fini(&configuration);
}

/* Entries read back from the log, handed to the core as they were. */
struct read_back {
    struct raft_entry *entries;
    struct buf *data;
    size_t count;
    size_t capacity;
};

static int collect_entry(void *user, const struct wal_entry *entry)
{
    struct read_back *back = user;

    if (back->count == back->capacity) {
        back->capacity = MAX((size_t)64, back->capacity * 2);
        back->entries = xrealloc(back->entries, back->capacity * sizeof *back->entries);
        back->data = xrealloc(back->data, back->capacity * sizeof *back->data);
    }
    struct buf *data = &back->data[back->count];
    *data = BUF_INIT;
    buf_append_span(data, entry->data);
    back->entries[back->count++] = (struct raft_entry){
        .index = entry->index,
        .term = entry->term,
        .time_ns = entry->time_ns,
        .kind = (enum raft_entry_kind)entry->kind,
        .change = entry->kind == RAFT_ENTRY_CONFIG ? membership_change_of(entry->data)
                                                   : (struct raft_change){ 0 },
        .data = buf_span(data),
    };
    return 0;
}

static void answer_need(struct raftd *raftd, const struct raft_need *need)
{
    struct read_back back = { 0 };
    struct err err = { 0 };
    struct raft_input input;
    int result = storage_read(
            raftd->storage, need->first, need->end, need->bytes_max, collect_entry, &back, &err);

    if (result < 0) {
        log_error_err(&err, "raftd.log.unreadable", "first=%" PRIu64 " end=%" PRIu64, need->first,
                need->end);
        back.count = 0;
        if (result == -EBADMSG || result == -EIO) {
            raftd_fail(raftd, CONF_EXIT_STORAGE);
        }
    }
    raftd_input_init(&input, RAFT_INPUT_ENTRIES_READ);
    input.read.peer_id = need->peer_id;
    input.read.first = need->first;
    input.read.entries = (struct raft_entry_span){ back.entries, back.count };
    (void)raftd_step(raftd, &input);
    for (size_t i = 0; i < back.count; i++) {
        buf_fini(&back.data[i]);
    }
    free(back.entries);
    free(back.data);
}

/* To whoever leads next: that may have become known before the refusal came. */
static void offer_again(struct raftd *raftd, uint64_t context)
{
    uint64_t term = gateways_proposal_again(raftd->gateways, context);
    struct raft_status status;

    raft_get_status(raftd->raft, &status);
    raftd->must_retry |= term != 0 && status.term > term && status.leader_id != 0;
}

/* A proposal was not taken: by our core just now, or by the leader to whom it was passed on. */
static void on_refused(struct raftd *raftd, uint64_t context, enum raft_refusal reason)
{
    if (context == raftd->asking.context) {
        raftd->asking.refusal = reason;
    } else if (context == OWN_CONTEXT) {
        housekeeping_on_own_refused(raftd);
    } else if (changes_on_refused(raftd, context, reason)) {
        return;
    } else if (reason == RAFT_REFUSAL_NO_LEADER || reason == RAFT_REFUSAL_TRANSFERRING) {
        offer_again(raftd, context);
    } else if (reason == RAFT_REFUSAL_NO_SPACE) {
        gateways_proposal_refused(raftd->gateways, context, REFUSAL_NO_SPACE,
                "no space left on the leader's data disk");
    } else {
        gateways_proposal_refused(
                raftd->gateways, context, REFUSAL_OVERLOADED, REFUSAL_TOO_MANY_TEXT);
    }
}

static void do_answers(struct raftd *raftd, const struct raft_ready *ready)
{
    for (size_t i = 0; i < ready->grant_count; i++) {
        gateways_read_granted(raftd->gateways, ready->grants[i].context, ready->grants[i].index);
    }
    for (size_t i = 0; i < ready->read_refused_count; i++) {
        gateways_read_refused(raftd->gateways, ready->reads_refused[i].context);
    }
    for (size_t i = 0; i < ready->refused_count; i++) {
        on_refused(raftd, ready->refused[i].context, ready->refused[i].reason);
    }
}

/* What the duties leave to be done once this ready is no longer looked at. */
struct after {
    bool state_changed;
    bool members_changed;
    bool removed;
    uint64_t promote_id;
};

static void note_needs(struct raftd *raftd, const struct raft_ready *ready)
{
    if (raftd->need_count + ready->need_count > raftd->need_capacity) {
        raftd->need_capacity = (raftd->need_count + ready->need_count) * 2;
        raftd->needs = xrealloc(raftd->needs, raftd->need_capacity * sizeof *raftd->needs);
    }
    for (size_t i = 0; i < ready->need_count; i++) {
        raftd->needs[raftd->need_count++] = ready->needs[i];
    }
}

static void do_duties(struct raftd *raftd, const struct raft_ready *ready, struct after *after)
{
    talk_send(raftd, ready->send);
    do_write(raftd, &ready->write);
    talk_keep_vows(raftd, ready->vows, ready->vow_count);
    housekeeping_on_entries(raftd, ready->apply);
    applier_add(raftd->applier, ready->apply);
    raftd->must_retry |= gateways_on_entries(raftd->gateways, ready->apply);
    if (ready->install != NULL) {
        retention_on_install(raftd, ready->install);
    }
    do_answers(raftd, ready);
    note_needs(raftd, ready);
    after->state_changed |= ready->state_changed;
    after->members_changed |= ready->members_changed;
    after->removed |= ready->removed;
    if (ready->promote_id != 0) {
        after->promote_id = ready->promote_id;
    }
}

static int step_once(struct raftd *raftd, struct raft_input *input, struct after *after)
{
    struct raft_ready ready;
    int result = raft_step(raftd->raft, input, &ready);

    if (result < 0) {
        log_warning("raftd.step.refused", "input=%d result=%d", (int)input->kind, result);
    }
    do_duties(raftd, &ready, after);
    return result;
}

static void step_synced(struct raftd *raftd, struct after *after)
{
    struct raft_input input;

    raftd_input_init(&input, RAFT_INPUT_SYNCED);
    input.synced.write_seq = raftd->synced.write_seq;
    input.synced.last_index = raftd->synced.last_index;
    input.synced.last_term = raftd->synced.last_term;
    raftd->synced.pending = false;
    talk_release_vows(raftd, raftd->synced.write_seq);
    (void)step_once(raftd, &input, after);
}

static void answer_needs(struct raftd *raftd);

/* One answer a turn: a member that is far behind needs 64 appends of a mebibyte each ahead, and reading them all at once would
 * hold up every write. The answers make the core need more, which is taken up behind what waits. */
static void on_needs(void *user)
{
    struct raftd *raftd = user;

    INVARIANT_LT(0, raftd->need_count);
    struct raft_need need = raftd->needs[0];
    raftd->need_count--;
    memmove(raftd->needs, raftd->needs + 1, raftd->need_count * sizeof *raftd->needs);
    raftd->is_answering = false;
    if (raftd->exit_status < 0) {
        answer_need(raftd, &need);
        answer_needs(raftd);
    }
}

static void answer_needs(struct raftd *raftd)
{
    if (raftd->need_count > 0 && !raftd->is_answering) {
        raftd->is_answering = true;
        loop_post(raftd->loop, on_needs, raftd);
    }
}

int raftd_step(struct raftd *raftd, struct raft_input *input)
{
    struct after after = { 0 };

    INVARIANT(!raftd->in_step);
    raftd->in_step = true;
    int result = step_once(raftd, input, &after);
    while (raftd->synced.pending) {
        step_synced(raftd, &after);
    }
    raftd->in_step = false;
    if (after.removed) {
        housekeeping_on_removed(raftd);
    }
    answer_needs(raftd);
    if (after.members_changed) {
        talk_on_members_changed(raftd);
    }
    if (after.promote_id != 0) {
        changes_promote(raftd, after.promote_id);
    }
    if (after.state_changed) {
        housekeeping_on_state_changed(raftd);
    }
    if (raftd->must_retry) {
        raftd->must_retry = false;
        gateways_retry(raftd->gateways);
    }
    return result;
}

enum raft_refusal raftd_propose(struct raftd *raftd, uint64_t context, enum raft_entry_kind kind,
        const struct span *ops, size_t count)
{
    struct raft_input input;

    if (count > raftd->entry_capacity) {
        raftd->entry_capacity = count * 2;
        raftd->entries = xrealloc(raftd->entries, raftd->entry_capacity * sizeof *raftd->entries);
    }
    for (size_t i = 0; i < count; i++) {
        raftd->entries[i] = (struct raft_entry){ .kind = kind, .data = ops[i] };
        if (kind == RAFT_ENTRY_CONFIG) {
            raftd->entries[i].change = membership_change_of(ops[i]);
        }
    }
    raftd_input_init(&input, RAFT_INPUT_PROPOSE);
    input.proposal =
            (struct raft_proposal){ .context = context, .entries = { raftd->entries, count } };
    raftd->asking.context = context;
    raftd->asking.refusal = RAFT_REFUSAL_NONE;
    (void)raftd_step(raftd, &input);
    raftd->asking.context = 0; /* a refusal that comes later is the leader's */
    return raftd->asking.refusal;
}

/* ---- From the gatewayds ---- */

/* Whether stored is so far behind that clients' writes wait. */
static bool is_backlog_full(struct raftd *raftd)
{
    bool was_full = raftd->backlog.is_full;
    struct raft_status status;

    raft_get_status(raftd->raft, &status);
    bool is_full = backlog_is_full(&raftd->backlog, status.last_index, status.applied_index);
    if (is_full && !was_full) {
        log_warning("raftd.stored.behind",
                "applied_index=%" PRIu64 " last_index=%" PRIu64 " bytes=%" PRIu64
                " up=%d action=writes_wait",
                status.applied_index, status.last_index, raftd->backlog.bytes,
                applier_is_up(raftd->applier));
    } else if (was_full && !is_full) {
        log_notice("raftd.stored.caught_up",
                "applied_index=%" PRIu64 " last_index=%" PRIu64 " action=take_writes",
                status.applied_index, status.last_index);
    }
    return is_full;
}

static bool is_alone(const struct raftd *raftd)
{
    struct raft_members members;

    raft_get_members(raftd->raft, &members);
    return members.voters.count == 1;
}

static enum gateways_fate on_propose(
        void *user, uint64_t context, const struct span *ops, size_t count, uint64_t *ret_term)
{
    struct raftd *raftd = user;
    struct raft_status status;

    if (!raftd->stored_was_up) {
        return GATEWAYS_KEEP; /* its state may show that the log has lost something */
    }
    if (is_backlog_full(raftd)) {
        return GATEWAYS_KEEP;
    }
    enum raft_refusal refusal = raftd_propose(raftd, context, RAFT_ENTRY_OP, ops, count);
    switch (refusal) {
    case RAFT_REFUSAL_NONE:
        raft_get_status(raftd->raft, &status);
        *ret_term = status.term;
        return status.role == RAFT_ROLE_LEADER && is_alone(raftd) ? GATEWAYS_DONE
                                                                  : GATEWAYS_PROPOSED;
    case RAFT_REFUSAL_NO_LEADER:
    case RAFT_REFUSAL_TRANSFERRING:
        return GATEWAYS_KEEP;
    case RAFT_REFUSAL_NO_SPACE:
        gateways_refuse_ops(
                raftd->gateways, ops, count, REFUSAL_NO_SPACE, "no space left on the data disk");
        return GATEWAYS_DONE;
    case RAFT_REFUSAL_OVERLOADED:
        gateways_refuse_ops(raftd->gateways, ops, count, REFUSAL_OVERLOADED, REFUSAL_TOO_MANY_TEXT);
        return GATEWAYS_DONE;
    case RAFT_REFUSAL_STOPPED:
        gateways_refuse_ops(
                raftd->gateways, ops, count, REFUSAL_STOPPING, "this member was removed");
        return GATEWAYS_DONE;
    case RAFT_REFUSAL_CHANGE_PENDING:
    case RAFT_REFUSAL_CHANGE_INVALID:
    default:
        gateways_refuse_ops(raftd->gateways, ops, count, REFUSAL_BAD_OP, "not a key operation");
        return GATEWAYS_DONE;
    }
}

static void on_read_index(void *user, uint64_t context)
{
    struct raftd *raftd = user;
    struct raft_input input;

    if (!raftd->stored_was_up) {
        gateways_read_refused(raftd->gateways, context); /* asked again by gateways_retry */
        return;
    }
    raftd_input_init(&input, RAFT_INPUT_READ);
    input.reads = (struct raft_ids){ &context, 1 };
    (void)raftd_step(raftd, &input);
}

static void on_member_change(void *user, uint64_t context, struct span op)
{
    changes_begin(user, context, op);
}

static void fill_hello(void *user, struct hello *ret_hello)
{
    struct raftd *raftd = user;

    ret_hello->component = SPAN_LIT("raftd");
    ret_hello->cluster_id = raftd->membership.cluster_id;
    ret_hello->member_id = raftd->membership.self_id;
    ret_hello->start_wall_ns = raftd->start_wall_ns;
    SET(ret_hello, hello_tag_cluster_id);
    SET(ret_hello, hello_tag_member_id);
    SET(ret_hello, hello_tag_start_wall_ns);
}

static void fill_state(void *user, struct buf *out)
{
    housekeeping_fill_state(user, out);
}

const struct gateways_events raftd_gateways_events = {
    .propose = on_propose,
    .read_index = on_read_index,
    .member_change = on_member_change,
    .fill_hello = fill_hello,
    .fill_state = fill_state,
};

/* ---- From stored ---- */

static void on_stored_up(void *user, const struct hello *peer)
{
    struct raftd *raftd = user;

    retention_on_stored_up(raftd, peer);
    if (raftd->exit_status < 0) {
        gateways_retry(raftd->gateways);
    }
}

static void on_stored_down(void *user)
{
    struct raftd *raftd = user;
    struct raft_input input;

    raftd_input_init(&input, RAFT_INPUT_APPLY_PAUSE);
    (void)raftd_step(raftd, &input);
}

static void on_resume(void *user, uint64_t index, uint64_t term)
{
    retention_on_stored_at(user, index, term);
}

static void on_apply_done(void *user, const struct apply_done *done)
{
    struct raftd *raftd = user;
    struct raft_input input;

    raftd_input_init(&input, RAFT_INPUT_APPLIED);
    input.position.index = done->index;
    input.position.term = done->term;
    (void)raftd_step(raftd, &input);
    raftd->state_has_space = !done->no_space;
    backlog_on_applied(&raftd->backlog, done->index);
    housekeeping_on_applied(raftd, done);
    if (raftd->backlog.is_full && !is_backlog_full(raftd)) {
        gateways_retry(raftd->gateways);
    }
}

static void on_snapshot_made(void *user, const struct snapshot_made *made)
{
    retention_on_snapshot_made(user, made);
}

static void on_snapshot_bad(void *user, const struct snapshot_bad *bad)
{
    retention_on_snapshot_bad(user, bad);
}

const struct applier_events raftd_applier_events = {
    .fill_hello = fill_hello,
    .on_up = on_stored_up,
    .on_down = on_stored_down,
    .on_resume = on_resume,
    .on_done = on_apply_done,
    .on_snapshot_made = on_snapshot_made,
    .on_snapshot_bad = on_snapshot_bad,
};

/* ---- From the log ---- */

static void on_written(void *user, uint64_t write_seq, uint64_t last_index, uint64_t last_term)
{
    struct raftd *raftd = user;

    if (raftd->has_failnote) {
        raftd->has_failnote = false;
        failnote_remove(raftd->conf->wal_dir);
    }
    if (raftd->in_step) {
        raftd->synced.pending = true;
        raftd->synced.write_seq = write_seq;
        raftd->synced.last_index = last_index;
        raftd->synced.last_term = last_term;
        return;
    }
    struct raft_input input;
    talk_release_vows(raftd, write_seq);
    raftd_input_init(&input, RAFT_INPUT_SYNCED);
    input.synced.write_seq = write_seq;
    input.synced.last_index = last_index;
    input.synced.last_term = last_term;
    (void)raftd_step(raftd, &input);
}

static void on_vote_written(void *user, uint64_t write_seq)
{
    struct raftd *raftd = user;
    struct raft_input input;

    talk_release_votes(raftd, write_seq);
    raftd_input_init(&input, RAFT_INPUT_SYNCED);
    input.synced.write_seq = write_seq;
    input.synced.hard_only = true;
    (void)raftd_step(raftd, &input);
}

static void on_recorded(void *user, const struct storage_snapshot *snapshot)
{
    retention_on_recorded(user, snapshot);
}

static void on_space(void *user, bool has_space)
{
    struct raftd *raftd = user;

    raftd->disk_has_space = has_space; /* the core is told with the next round of housekeeping */
}

static void on_storage_failed(void *user, const struct err *err)
{
    struct raftd *raftd = user;
    bool noted = failnote_leave(raftd->conf->wal_dir, clock_wall_ns(), err->text);

    log_event_err(LOG_LEVEL_CRIT, err, "raftd.log.failed",
            "action=exit status=%d noted=%d what_the_disk_kept_is_read_at_the_next_start",
            CONF_EXIT_STORAGE, noted);
    raftd_fail(raftd, CONF_EXIT_STORAGE);
}

const struct storage_events raftd_storage_events = {
    .on_written = on_written,
    .on_vote_written = on_vote_written,
    .on_snapshot_recorded = on_recorded,
    .on_space = on_space,
    .on_failed = on_storage_failed,
};
