/* raft_side.c: the link to raftd.
 *
 *   stored -> raftd   hello { component, ids, applied index and term, generation }   no live state: ids and position 0
 *   raftd -> stored   state_go         the state goes on: an empty one is made where none is, ids are written
 *                                      into one without; answered by apply_done at its position
 *                     snapshot_load    the worker builds a new generation; answered by apply_done at its position,
 *                                      or snapshot_bad with the file renamed .broken: then another order follows
 *                     apply            only after one of these two; what comes before is dropped. One transaction, one
 *                                      publication, one apply_done each (a very large one: several)
 *                     snapshot_recorded   older snapshots are purged down to --max-snapshots
 *   stored -> raftd   snapshot_made    when a file is durable; and again for the newest after each state_go
 *
 * A batch that does not continue the state is answered by apply_done { refused } at our position, and so is everything
 * that waits behind it dropped. On a full disk the batch is kept and tried again each 100 ms, each time
 * answered by apply_done { no_space } at our position. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "daemons/stored/stored_impl.h"
#include "proto/link.h"

enum {
    RETRY_MS = 100,
    STATUS_FAILED = 1,
};

static void drop_pending(struct raft_side *raft)
{
    LIST_FOREACH (pending, &raft->pending, struct pending, node) {
        list_remove(&pending->node);
        free(pending);
    }
}

static void keep_pending(struct raft_side *raft, struct span body)
{
    struct pending *pending = xmalloc(sizeof *pending + body.bytes);

    list_init(&pending->node);
    pending->bytes = body.bytes;
    memcpy(pending->data, body.data, body.bytes);
    list_append(&raft->pending, &pending->node);
}

static void flush_done(struct raft_side *raft)
{
    if (!raft->done_due || raft->link == NULL || !link_can_send(raft->link)) {
        return;
    }
    buf_clear(&raft->out);
    apply_done_encode(&raft->done, &raft->out);
    if (link_send(raft->link, apply_done_type, &raft->out) == 0) {
        raft->done_due = false;
    }
}

/* Answers with our position. Where there is no credit the newest answer stands for those before it; a refusal is never
 * overwritten by less. */
static void send_done(struct stored *stored, const struct replica_result *result)
{
    struct raft_side *raft = &stored->raft;
    const struct schema_meta *meta = replica_meta(generations_replica(stored->generations));
    bool refused = result->refused || (raft->done_due && raft->done.refused);

    raft->done = (struct apply_done){
        .index = meta->applied_index,
        .term = meta->applied_term,
        .refused = refused,
        .next_deadline_ns = result->next_deadline_ns,
        .has_ttl_keys = result->has_ttl_keys,
        .no_space = raft->no_space,
    };
    raft->done.present = UINT64_MAX;
    raft->done_due = true;
    flush_done(raft);
}

static void send_position(struct stored *stored)
{
    struct replica_result result = { .refused = false };
    struct err err = { 0 };

    if (replica_deadline(generations_replica(stored->generations), &result, &err) < 0) {
        log_error_err(&err, "stored.deadline.unknown", "action=go_on");
    }
    send_done(stored, &result);
}

static void set_space(struct stored *stored, bool no_space, const struct err *err)
{
    if (no_space && !stored->raft.no_space) {
        log_error_err(err, "stored.disk.full", "action=refuse_writes retry_ms=%d", RETRY_MS);
    } else if (!no_space && stored->raft.no_space) {
        log_notice("stored.disk.has_space", "action=resume");
    }
    stored->raft.no_space = no_space;
}

/* What an error of the state means. */
static void on_apply_error(struct stored *stored, int result, const struct err *err)
{
    if (result == -ENOSPC || result == -EDQUOT) {
        set_space(stored, true, err);
        send_position(stored);
        loop_timer_start(stored->raft.timer, RETRY_MS, 0);
        stored->raft.paused = true;
        return;
    }
    if (result == -EBADMSG) {
        log_error_err(err, "stored.apply.malformed", "action=drop_link");
        drop_pending(&stored->raft);
        link_drop(stored->raft.link);
        return;
    }
    stored_fail(stored, CONF_EXIT_STORAGE, err, "stored.state.failed");
}

/* One transaction's worth of a message: 1 there is more, 0 all done, negative: see on_apply_error. */
static int apply_once(struct stored *stored, const struct apply *batch, struct err *err)
{
    struct replica *replica = generations_replica(stored->generations);
    uint64_t bytes_before = state_writer_file_bytes(replica_writer(replica));
    struct replica_result result;

    TRY(generations_apply(stored->generations, batch, clock_boottime_ns(), &result, err));
    set_space(stored, false, NULL);
    if (result.refused) {
        log_warning("stored.apply.refused",
                "applied_index=%" PRIu64 " prev_index=%" PRIu64 " action=ask_again",
                replica_meta(replica)->applied_index, batch->prev_index);
        drop_pending(&stored->raft);
    }
    if (result.applied_count > 0) {
        stored->batches++;
        stored->entries += result.applied_count;
        subscribers_publish(stored, replica_publication(replica));
    }
    if (!result.more) {
        send_done(stored, &result);
    }
    uint64_t grown = state_writer_file_bytes(replica_writer(replica)) - bytes_before;
    uint64_t pause_ms = jobs_pause_ms(stored, grown);
    if (pause_ms > 0) {
        stored->raft.paused = true;
        loop_timer_start(stored->raft.timer, pause_ms, 0);
    }
    return result.more;
}

/* True if the message is dealt with, false if it must be kept. */
static bool apply_message(struct stored *stored, struct span body)
{
    struct raft_side *raft = &stored->raft;
    struct err err = { 0 };
    struct apply batch;

    codec_scratch_reset(&raft->scratch);
    if (apply_decode(body, &batch, &raft->scratch, &err) < 0) {
        log_error_err(&err, "stored.apply.malformed", "action=drop_link");
        link_drop(raft->link);
        return true;
    }
    if (HAS(&batch, apply_tag_log_bytes)) {
        stored->snapshots.log_bytes = batch.log_bytes;
    }
    for (;;) {
        int result = apply_once(stored, &batch, &err);
        if (result < 0) {
            on_apply_error(stored, result, &err);
            return !raft->paused;
        }
        if (result == 0) {
            compaction_note(stored, body);
            jobs_consider_snapshot(stored);
            return true;
        }
        if (raft->paused) {
            return false;
        }
    }
}

static void apply_pending(struct stored *stored)
{
    struct raft_side *raft = &stored->raft;

    while (!raft->paused && !list_is_empty(&raft->pending) && stored->exit_status == 0) {
        struct pending *pending = CONTAINER_OF(raft->pending.next, struct pending, node);
        list_remove(&pending->node); /* a refusal empties the list */
        if (apply_message(stored, span_of(pending->data, pending->bytes))) {
            free(pending);
        } else {
            struct list *first = raft->pending.next;
            list_append(first, &pending->node); /* back to the front */
        }
    }
}

static void on_timer(void *user)
{
    struct stored *stored = user;

    stored->raft.paused = false;
    if (stored->raft.phase == PHASE_RUNNING) {
        apply_pending(stored);
    }
}

static void on_apply(struct stored *stored, struct span body)
{
    struct raft_side *raft = &stored->raft;

    if (raft->phase != PHASE_RUNNING || stored->exit_status != 0) {
        return;
    }
    if (raft->paused || !list_is_empty(&raft->pending) || !apply_message(stored, body)) {
        keep_pending(raft, body);
    }
}

static void set_running(struct stored *stored)
{
    stored->raft.phase = PHASE_RUNNING;
    send_position(stored);
    raft_side_tell_snapshot(stored);
}

/* An empty state is made on the loop: a few pages. */
static int make_empty(struct stored *stored, struct err *err)
{
    char dir[STATE_PATH_BYTES_MAX];
    uint64_t number;

    TRY(generations_prepare(stored->generations, &number, dir, err));
    TRY(generations_build_empty(dir, stored->config.map_bytes, 0, err));
    return generations_switch(stored->generations, number, err);
}

static int go(struct stored *stored, const struct state_go *order, struct err *err)
{
    if (generations_replica(stored->generations) == NULL) {
        TRY(make_empty(stored, err));
        subscribers_tell_generation(stored);
    }
    const struct schema_meta *meta = replica_meta(generations_replica(stored->generations));
    if (meta->cluster_id == 0 && meta->applied_index == 0) {
        TRY(generations_set_ids(stored->generations, order->cluster_id, order->member_id, err));
    } else if (meta->cluster_id != order->cluster_id || meta->member_id != order->member_id) {
        return err_set(err, -EPROTO,
                "the state is of member %" PRIx64 " of cluster %" PRIx64 ", raftd is %" PRIx64
                " of %" PRIx64,
                meta->member_id, meta->cluster_id, order->member_id, order->cluster_id);
    }
    return 0;
}

static void on_state_go(struct stored *stored, struct span body)
{
    struct raft_side *raft = &stored->raft;
    struct state_go order;
    struct err err = { 0 };

    if (state_go_decode(body, &order, &raft->scratch, &err) < 0 || raft->phase == PHASE_LOADING) {
        return;
    }
    int result = go(stored, &order, &err);
    if (result == 0) {
        log_notice("stored.state.live", "generation=%" PRIu64 " applied_index=%" PRIu64,
                generations_number(stored->generations),
                replica_meta(generations_replica(stored->generations))->applied_index);
        set_running(stored);
    } else if (result == -EPROTO || result == -ENOSPC) {
        log_error_err(&err, "stored.state.not_ready", "action=drop_link");
        link_drop(raft->link);
    } else {
        stored_fail(stored, CONF_EXIT_STORAGE, &err, "stored.state.failed");
    }
}

static void on_snapshot_load(struct stored *stored, struct span body)
{
    struct raft_side *raft = &stored->raft;
    struct snapshot_load order;

    if (snapshot_load_decode(body, &order, &raft->scratch, NULL) == 0) {
        raft->phase = PHASE_LOADING;
        drop_pending(raft);
        jobs_load(stored, order.index, order.term, order.complete_at);
    }
}

void raft_side_loaded(struct stored *stored)
{
    subscribers_tell_generation(stored);
    if (stored->raft.phase == PHASE_LOADING) {
        set_running(stored);
    }
}

void raft_side_load_failed(struct stored *stored, const struct job *job)
{
    struct raft_side *raft = &stored->raft;
    struct snapshot_bad bad = { .index = job->index, .term = job->term };

    if (raft->phase != PHASE_LOADING) {
        return;
    }
    raft->phase = PHASE_WAITING;
    bad.text = span_str(job->err.text);
    SET(&bad, snapshot_bad_tag_text);
    buf_clear(&raft->out);
    snapshot_bad_encode(&bad, &raft->out);
    if (link_send(raft->link, snapshot_bad_type, &raft->out) < 0) {
        link_drop(raft->link); /* raftd will order again after the next hello */
    }
}

void raft_side_tell_snapshot(struct stored *stored)
{
    struct raft_side *raft = &stored->raft;
    const struct snapshot_info *newest = &stored->snapshots.newest;
    struct snapshot_made made = {
        .index = newest->index, .term = newest->term, .bytes = newest->bytes
    };

    if (raft->phase != PHASE_RUNNING || newest->index == 0) {
        return;
    }
    buf_clear(&raft->out);
    snapshot_made_encode(&made, &raft->out);
    if (link_send(raft->link, snapshot_made_type, &raft->out) < 0) {
        log_warning("stored.snapshot.untold", "index=%" PRIu64 " action=tell_after_next_hello",
                newest->index);
    }
}

static void on_snapshot_recorded(struct stored *stored, struct span body)
{
    struct snapshot_recorded recorded;
    struct err err = { 0 };

    if (snapshot_recorded_decode(body, &recorded, &stored->raft.scratch, NULL) < 0) {
        return;
    }
    stored->snapshots.recorded_index = recorded.index;
    if (snapshot_purge(stored->snap_dir, stored->config.max_snapshots, recorded.term,
                recorded.index, &err) < 0) {
        log_warning_err(&err, "stored.snapshot.purge_failed", "action=go_on");
    }
}

static void on_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct stored *stored = user;

    if (link != stored->raft.link) {
        return;
    }
    codec_scratch_reset(&stored->raft.scratch);
    switch (type) {
    case apply_type:
        on_apply(stored, body);
        break;
    case state_go_type:
        on_state_go(stored, body);
        break;
    case snapshot_load_type:
        on_snapshot_load(stored, body);
        break;
    case snapshot_recorded_type:
        on_snapshot_recorded(stored, body);
        break;
    default:
        log_debug("stored.raftd.unknown_message", "type=%u", type);
    }
}

static int on_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct stored *stored = user;

    if (!span_eq(peer->component, SPAN_LIT("raftd"))) {
        return err_set(err, -EPROTO, "apply.ipc is between raftd and stored");
    }
    stored->raft.link = link;
    stored->raft.phase = PHASE_WAITING;
    stored->raft.cluster_id = peer->cluster_id;
    stored->raft.member_id = peer->member_id;
    stored->raft.done_due = false;
    log_info("stored.raftd.up", "pid=%" PRIu64, peer->pid);
    return 0;
}

static void on_down(void *user, struct link *link)
{
    struct stored *stored = user;

    if (stored->raft.link == link) {
        stored->raft.link = NULL;
        stored->raft.phase = PHASE_ALONE;
        stored->raft.done_due = false;
        drop_pending(&stored->raft);
        log_info("stored.raftd.down", "action=dial_again");
    }
}

static void on_writable(void *user, struct link *link)
{
    struct stored *stored = user;
    (void)link;
    flush_done(&stored->raft);
}

static void on_refused(void *user, const char *text)
{
    (void)user;
    log_warning("stored.raftd.refused", "reason=\"%s\" action=dial_again", text);
}

static const struct link_events raft_events = {
    .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .on_writable = on_writable,
    .on_refused = on_refused,
    .fill_hello = stored_fill_hello,
};

int raft_side_start(struct stored *stored, struct err *err)
{
    struct link_config config = {
        .pattern = LINK_PAIR,
        .path = "apply/apply.ipc",
        .events = &raft_events,
        .user = stored,
    };

    stored->raft.timer = loop_timer_new(stored->loop, on_timer, stored);
    return link_hub_open(stored->loop, &config, &stored->raft.hub, err);
}

void raft_side_stop(struct stored *stored)
{
    struct raft_side *raft = &stored->raft;

    raft->hub = link_hub_close(raft->hub);
    raft->link = NULL;
    raft->phase = PHASE_ALONE;
    raft->timer = loop_timer_free(raft->timer);
    drop_pending(raft);
    codec_scratch_fini(&raft->scratch);
    buf_fini(&raft->out);
}
