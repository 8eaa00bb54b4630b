/* housekeeping.c: what happens without being asked: ticks, sync entries, this member's registration, and telling the
 * gatewayds how raft is doing. */
#include <stdlib.h>

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/loop.h"
#include "daemons/raftd/raftd_impl.h"
#include "proto/op.h"
#include "proto/propose.h"
#include "version.h"

enum {
    CHECK_MS = 100,
    OWN_OP_RETRY_MS = 2000, /* doubled each time, ... */
    OWN_OP_DOUBLINGS = 5,   /* ... so often at most */
    SYNC_SPACING_MS =
            1, /* between sync entries that follow each other, so that others get their turn */
};
/* While keys have TTLs the log gets a time this often: the floor for whoever leads next. */
#define TIME_FLOOR_NS (UINT64_C(10) * 1000000000U)

uint64_t raftd_request_timeout_ms(const struct raftd *raftd)
{
    return 5000 + 2 * raftd->conf->election_timeout_ms;
}

/* ---- Our own entries ---- */

static bool is_leader(const struct raftd *raftd)
{
    struct raft_status status;
    raft_get_status(raftd->raft, &status);
    return status.role == RAFT_ROLE_LEADER;
}

static void make_publish(struct raftd *raftd)
{
    const struct conf_list *urls = &raftd->conf->advertise_client_urls;
    struct op op = {
        .kind = OP_MEMBER_PUBLISH,
        .counter = raftd->start_wall_ns, /* one start's publication is not taken for another's */
        .member_id = raftd->membership.self_id,
        .name = span_str(raftd->conf->name),
    };

    op.client_urls.items = xcalloc(urls->count, sizeof *op.client_urls.items);
    op.client_urls.count = urls->count;
    for (size_t i = 0; i < urls->count; i++) {
        op.client_urls.items[i] = span_str(urls->items[i]);
    }
    SET(&op, op_tag_member_id);
    SET(&op, op_tag_name);
    SET(&op, op_tag_client_urls);
    op_encode(&op, &raftd->publish.bytes);
    free(op.client_urls.items);
}

static void make_version(struct raftd *raftd)
{
    struct op op = {
        .kind = OP_CLUSTER_VERSION,
        .counter = raftd->start_wall_ns,
        .version = span_str(ETCD_CLUSTER_VERSION),
    };

    SET(&op, op_tag_version);
    op_encode(&op, &raftd->version.bytes);
}

/* In our own log, as long as we lead, it will be committed: asking again would publish twice. On its way to a leader that stays, over
 * a link that has not broken, it comes to us when we have caught up; but a refusal may have been lost on the way back, so at
 * long intervals it is asked again even then. */
static bool is_under_way(struct raftd *raftd, const struct own_op *own,
        const struct raft_status *status, uint64_t now_ms)
{
    if (own->asked_at_ms == 0) {
        return false;
    }
    bool is_of_term = own->asked_term == status->term;
    if (is_of_term && own->asked_self) {
        return true;
    }
    uint64_t since_ms = now_ms - own->asked_at_ms;
    bool is_on_its_way =
            is_of_term && peers_reachable_ms(raftd->peers, status->leader_id) >= since_ms;
    unsigned doublings = is_on_its_way ? (unsigned)OWN_OP_DOUBLINGS
                                       : MIN(own->asked_count - 1, (unsigned)OWN_OP_DOUBLINGS);
    return since_ms < (uint64_t)OWN_OP_RETRY_MS << doublings;
}

static void propose_own(struct raftd *raftd, struct own_op *own, uint64_t now_ms)
{
    struct raft_status status;

    raft_get_status(raftd->raft, &status);
    if (own->done || status.leader_id == 0 || is_under_way(raftd, own, &status, now_ms)) {
        return;
    }
    struct span op = buf_span(&own->bytes);
    if (raftd_propose(raftd, OWN_CONTEXT, RAFT_ENTRY_OP, &op, 1) == RAFT_REFUSAL_NONE) {
        own->asked_at_ms = now_ms;
        own->asked_term = status.term;
        own->asked_self = status.role == RAFT_ROLE_LEADER;
        own->asked_count++;
    }
}

void housekeeping_on_own_refused(struct raftd *raftd)
{
    if (raftd->publish.asked_at_ms != 0 && !raftd->publish.asked_self) {
        raftd->publish.asked_count--;
        raftd->publish.asked_at_ms = 0; /* it is in no log: asked again with the next check */
    }
}

static void propose_registration(struct raftd *raftd)
{
    uint64_t now_ms = clock_monotonic_ms();

    propose_own(raftd, &raftd->publish, now_ms);
    if (is_leader(raftd)) {
        propose_own(raftd, &raftd->version, now_ms);
    }
}

static void propose_sync(struct raftd *raftd)
{
    struct op op = { .kind = OP_SYNC };
    struct buf bytes = BUF_INIT;
    struct raft_status status;

    op_encode(&op, &bytes);
    struct span span = buf_span(&bytes);
    /* The index is known before: a leader's entries follow its last. */
    raft_get_status(raftd->raft, &status);
    raftd->sync_index = status.last_index + 1;
    if (raftd_propose(raftd, OWN_CONTEXT, RAFT_ENTRY_OP, &span, 1) != RAFT_REFUSAL_NONE) {
        raftd->sync_index = 0;
    }
    buf_fini(&bytes);
}

/* Proposes a sync entry if one is due, else has the timer come back when one is. */
static void schedule_sync(struct raftd *raftd)
{
    uint64_t now_ns = raft_cluster_time_ns(raftd->raft, clock_boottime_ns());

    if (raftd->sync_index != 0 || raftd->next_deadline_ns == 0 || !is_leader(raftd)) {
        return;
    }
    if (now_ns >= raftd->next_deadline_ns) {
        propose_sync(raftd);
        return;
    }
    /* Rounded up: a timer that comes early would only come again. */
    uint64_t wait_ms = (raftd->next_deadline_ns - now_ns + 999999) / 1000000;
    loop_timer_start(raftd->expiry_timer, MIN(wait_ms, (uint64_t)60000), 0);
}

static void on_expiry_timer(void *user)
{
    schedule_sync(user);
}

/* ---- What the core and stored report ---- */

/* Whoever led then has set it: by the first bytes of an op, as membership.c does. */
static bool is_version(struct span op)
{
    return op.bytes >= 3 && (op.data[0] & 0xf0) == 0x80 && op.data[1] == op_tag_kind &&
           op.data[2] == OP_CLUSTER_VERSION;
}

/* The lines that tools built for etcd wait for. */
static void look_for_own(struct raftd *raftd, struct span data)
{
    char id[IDS_TEXT_BYTES];

    if (!raftd->publish.done && span_eq(data, buf_span(&raftd->publish.bytes))) {
        raftd->publish.done = true;
        log_line(LOG_LEVEL_INFO, "etcdserver", "published {Name:%s ClientURLs:[%s]} to cluster %s",
                raftd->conf->name,
                raftd->conf->advertise_client_urls.count > 0
                        ? raftd->conf->advertise_client_urls.items[0]
                        : "",
                ids_text(raftd->membership.cluster_id, id));
    } else if (!raftd->version.done && is_version(data)) {
        raftd->version.done = true;
        log_line(LOG_LEVEL_INFO, "etcdserver", "set the initial cluster version to %.3s",
                ETCD_CLUSTER_VERSION);
        log_line(LOG_LEVEL_INFO, "etcdserver/api", "enabled capabilities for version %.3s",
                ETCD_CLUSTER_VERSION);
    }
}

void housekeeping_on_entries(struct raftd *raftd, struct raft_entry_span entries)
{
    if (entries.count == 0) {
        return;
    }
    raftd->last_entry_time_ns = entries.items[entries.count - 1].time_ns;
    for (size_t i = 0; i < entries.count; i++) {
        struct span data = entries.items[i].data;
        if (membership_is_concerned(data) && entries.items[i].kind == RAFT_ENTRY_OP) {
            membership_note(&raftd->membership, entries.items[i].index, data);
        }
        if (!raftd->publish.done || !raftd->version.done) {
            look_for_own(raftd, data);
        }
    }
}

void housekeeping_on_applied(struct raftd *raftd, const struct apply_done *done)
{
    if (raftd->sync_index != 0 && done->index >= raftd->sync_index) {
        raftd->sync_index = 0;
    }
    raftd->next_deadline_ns = done->next_deadline_ns;
    raftd->has_ttl_keys = done->has_ttl_keys;
    if (raftd->next_deadline_ns == 0 || raftd->sync_index != 0) {
        return;
    }
    if (raft_cluster_time_ns(raftd->raft, clock_boottime_ns()) >= raftd->next_deadline_ns) {
        loop_timer_start(raftd->expiry_timer, SYNC_SPACING_MS, 0);
    } else {
        schedule_sync(raftd);
    }
}

/* Asked to stop, a leader goes once another leads, or when it has waited for one long enough. */
static void stop_when_handed_over(struct raftd *raftd, const struct raft_status *status)
{
    bool is_over = status->role != RAFT_ROLE_LEADER && status->leader_id != 0;

    if (raftd->is_stopping && (is_over || clock_monotonic_ms() >= raftd->stop_at_ms)) {
        raftd_fail(raftd, 0);
    }
}

void housekeeping_on_state_changed(struct raftd *raftd)
{
    struct raft_status status;

    raft_get_status(raftd->raft, &status);
    if (status.leader_id != raftd->last_leader_id) {
        raftd->last_leader_id = status.leader_id;
        raftd->leader_since_wall_ns = clock_wall_ns();
        raftd->sync_index = 0;
        char id[IDS_TEXT_BYTES];
        if (status.leader_id != 0) {
            log_notice("raftd.leader.known", "leader=%s term=%" PRIu64 " self=%d",
                    ids_text(status.leader_id, id), status.term,
                    status.leader_id == status.self_id);
            propose_registration(raftd);
            schedule_sync(raftd);
        } else {
            log_warning("raftd.leader.lost", "term=%" PRIu64 " action=elect", status.term);
        }
    }
    if (raftd->is_stopping) {
        stop_when_handed_over(raftd, &status);
    }
    gateways_retry(raftd->gateways);
    gateways_tell_state(raftd->gateways);
}

void housekeeping_on_reachable(struct raftd *raftd)
{
    propose_registration(raftd);
}

static void encode_u64(uint64_t value, uint8_t ret_bytes[8])
{
    for (unsigned i = 0; i < 8; i++) {
        ret_bytes[i] = (uint8_t)(value >> (56 - 8 * i));
    }
}

static void encode_follower(
        struct raftd *raftd, const struct raft_peer_status *peer, struct buf *out)
{
    struct follower_state state = { .id = peer->id,
        .match_index = peer->match_index,
        .next_index = peer->next_index,
        .progress = (uint64_t)peer->state };
    struct peer_stats stats = { 0 };
    uint8_t numbers[ARRAY_COUNT(stats.latency_us)][8];
    struct span items[ARRAY_COUNT(stats.latency_us)];

    (void)peers_get_stats(raftd->peers, peer->id, &stats);
    for (size_t i = 0; i < ARRAY_COUNT(items); i++) {
        encode_u64(stats.latency_us[i], numbers[i]);
        items[i] = span_of(numbers[i], sizeof numbers[i]);
    }
    state.latency_us = (struct span_list){ items, ARRAY_COUNT(items) };
    state.fail_count = stats.failed;
    state.success_count = stats.sent;
    state.present = UINT64_MAX;
    follower_state_encode(&state, out);
}

/* What the leader knows of the others: bytes one after the other, and where each ends. */
static void fill_followers(struct raftd *raftd, struct raft_state *state, struct buf *bytes)
{
    struct raft_peer_status peer;
    struct raft_members members;
    size_t ends[OP_URLS_MAX];
    size_t count = 0;

    raft_get_members(raftd->raft, &members);
    for (size_t i = 0; count < ARRAY_COUNT(ends) && raft_get_peer_status(raftd->raft, i, &peer);
            i++) {
        /* One that was removed is still told so for a while. */
        if (raft_ids_have(members.voters, peer.id) || raft_ids_have(members.learners, peer.id)) {
            encode_follower(raftd, &peer, bytes);
            ends[count++] = bytes->bytes;
        }
    }
    state->followers.items = xcalloc(count, sizeof *state->followers.items);
    state->followers.count = count;
    for (size_t i = 0, start = 0; i < count; start = ends[i], i++) {
        state->followers.items[i] = span_of(bytes->data + start, ends[i] - start);
    }
    SET(state, raft_state_tag_followers);
}

/* Since when this member can do what a write needs: reach its leader, or as leader a quorum. 0: it cannot. */
static uint64_t connected_since_ms(struct raftd *raftd, const struct raft_status *status)
{
    uint64_t now_ms = clock_monotonic_ms();
    struct raft_members members;
    uint64_t needed_ms = 0;

    if (status->role != RAFT_ROLE_LEADER) {
        uint64_t reachable_ms = peers_reachable_ms(raftd->peers, status->leader_id);
        return reachable_ms == 0 ? 0 : now_ms - reachable_ms;
    }
    raft_get_members(raftd->raft, &members);
    if (members.voters.count < 2) {
        return 1; /* a quorum of its own, ever since */
    }
    /* The longest time for which a quorum with ourselves has been within reach. */
    for (size_t i = 0; i < members.voters.count; i++) {
        uint64_t candidate_ms = peers_reachable_ms(raftd->peers, members.voters.items[i]);
        size_t others = 0;
        for (size_t j = 0; candidate_ms > 0 && j < members.voters.count; j++) {
            others += peers_reachable_ms(raftd->peers, members.voters.items[j]) >= candidate_ms;
        }
        if (others >= members.voters.count / 2) {
            needed_ms = MAX(needed_ms, candidate_ms);
        }
    }
    return needed_ms == 0 ? 0 : now_ms - needed_ms;
}

void housekeeping_fill_state(struct raftd *raftd, struct buf *out)
{
    struct raft_status status;
    struct storage_stats stats;

    raft_get_status(raftd->raft, &status);
    storage_get_stats(raftd->storage, &stats);
    struct raft_state state = {
        .member_id = status.self_id,
        .cluster_id = raftd->membership.cluster_id,
        .leader_id = status.leader_id,
        .term = status.term,
        .commit_index = status.commit_index,
        .role = (uint64_t)status.role,
        .leader_since_wall_ns = raftd->leader_since_wall_ns,
        .no_space = !raftd->told_writable,
        .writes_wait = raftd->backlog.is_full,
        .vote = status.vote,
        .leader_changes = status.leader_changes,
        .proposals_pending = gateways_waiting(raftd->gateways),
        .proposals_failed = status.proposals_refused,
        .wal_syncs = stats.writes,
        .wal_bytes = stats.disk_bytes,
        .wal_sync_us = stats.sync_us,
        .sent_appends = raftd->talk.sent_appends,
        .received_appends = raftd->talk.received_appends,
        .connected_since_ms = connected_since_ms(raftd, &status),
    };
    uint64_t now_ns = clock_monotonic_ns();
    struct rates_now sent = rates_get(&raftd->talk.sent_rates, now_ns);
    struct rates_now received = rates_get(&raftd->talk.received_rates, now_ns);
    state.sent_messages_milli = sent.messages_milli;
    state.sent_bytes_milli = sent.bytes_milli;
    state.received_messages_milli = received.messages_milli;
    state.received_bytes_milli = received.bytes_milli;
    struct buf followers = BUF_INIT;
    fill_followers(raftd, &state, &followers);
    SET(&state, raft_state_tag_sent_appends);
    SET(&state, raft_state_tag_received_appends);
    SET(&state, raft_state_tag_leader_since_wall_ns);
    SET(&state, raft_state_tag_no_space);
    SET(&state, raft_state_tag_writes_wait);
    SET(&state, raft_state_tag_vote);
    SET(&state, raft_state_tag_leader_changes);
    SET(&state, raft_state_tag_proposals_pending);
    SET(&state, raft_state_tag_proposals_failed);
    SET(&state, raft_state_tag_wal_syncs);
    SET(&state, raft_state_tag_wal_bytes);
    SET(&state, raft_state_tag_wal_sync_us);
    SET(&state, raft_state_tag_connected_since_ms);
    SET(&state, raft_state_tag_sent_messages_milli);
    SET(&state, raft_state_tag_sent_bytes_milli);
    SET(&state, raft_state_tag_received_messages_milli);
    SET(&state, raft_state_tag_received_bytes_milli);
    raft_state_encode(&state, out);
    free(state.followers.items);
    buf_fini(&followers);
}

/* ---- Timers ---- */

void housekeeping_stop_soon(struct raftd *raftd)
{
    struct raft_status status;
    struct raft_members members;
    struct raft_input input;

    raft_get_status(raftd->raft, &status);
    raft_get_members(raftd->raft, &members);
    if (status.role != RAFT_ROLE_LEADER || members.voters.count < 2 || raftd->is_stopping) {
        raftd_fail(raftd, 0);
        return;
    }
    raftd->is_stopping = true;
    raftd->stop_at_ms = clock_monotonic_ms() + raftd->conf->election_timeout_ms;
    raftd_input_init(&input, RAFT_INPUT_TRANSFER);
    (void)raftd_step(raftd, &input);
}

void housekeeping_on_removed(struct raftd *raftd)
{
    if (raftd->exit_status >= 0) {
        return;
    }
    log_line(LOG_LEVEL_NOTICE, "etcdserver",
            "the member has been permanently removed from the cluster");
    log_line(LOG_LEVEL_NOTICE, "etcdserver", "the data-dir used by this member must be removed: %s",
            raftd->conf->data_dir);
    raftd_fail(raftd, CONF_EXIT_REMOVED);
}

static void on_tick(void *user)
{
    struct raftd *raftd = user;
    struct raft_input input;
    struct raft_status status;

    raftd_input_init(&input, RAFT_INPUT_TICK);
    (void)raftd_step(raftd, &input);
    transfer_tick(raftd, clock_monotonic_ms());
    raft_get_status(raftd->raft, &status);
    membership_note_commit(&raftd->membership, status.commit_index);
    stop_when_handed_over(raftd, &status);
}

static void tell_writable(struct raftd *raftd)
{
    bool writable = raftd->disk_has_space && raftd->state_has_space;
    struct raft_input input;

    if (writable == raftd->told_writable) {
        return;
    }
    raftd->told_writable = writable;
    if (writable) {
        log_notice("raftd.space.back", "action=accept_writes");
    } else {
        log_error("raftd.space.none", "log=%d state=%d action=refuse_writes_until_space_is_made",
                raftd->disk_has_space, raftd->state_has_space);
    }
    raftd_input_init(&input, RAFT_INPUT_WRITABLE);
    input.writable = writable;
    (void)raftd_step(raftd, &input);
}

static void on_check(void *user)
{
    struct raftd *raftd = user;
    uint64_t now_ms = clock_monotonic_ms();

    storage_check(raftd->storage);
    tell_writable(raftd);
    applier_check(raftd->applier, now_ms);
    gateways_expire(raftd->gateways, now_ms, raftd_request_timeout_ms(raftd));
    gateways_retry(raftd->gateways);
    talk_ask_end(raftd);
    changes_tick(raftd, now_ms);
    propose_registration(raftd);
    uint64_t time_ns = raft_cluster_time_ns(raftd->raft, clock_boottime_ns());
    if (raftd->has_ttl_keys && raftd->sync_index == 0 && is_leader(raftd) &&
            time_ns > raftd->last_entry_time_ns + TIME_FLOOR_NS) {
        propose_sync(raftd);
    }
    schedule_sync(raftd);
    gateways_tell_state(raftd->gateways);
}

/* Everything that the turn's steps left for stored goes in one message. */
static void on_turn_end(void *user)
{
    struct raftd *raftd = user;
    applier_flush(raftd->applier, retention_log_bytes(raftd));
}

int housekeeping_start(struct raftd *raftd, struct err *err)
{
    (void)err;
    make_publish(raftd);
    make_version(raftd);
    loop_on_turn_end(raftd->loop, on_turn_end, raftd);
    raftd->tick_timer = loop_timer_new(raftd->loop, on_tick, raftd);
    raftd->check_timer = loop_timer_new(raftd->loop, on_check, raftd);
    raftd->expiry_timer = loop_timer_new(raftd->loop, on_expiry_timer, raftd);
    loop_timer_start(raftd->tick_timer, 0, raftd->conf->heartbeat_interval_ms);
    loop_timer_start(raftd->check_timer, CHECK_MS, CHECK_MS);
    return 0;
}

void housekeeping_stop(struct raftd *raftd)
{
    raftd->tick_timer = loop_timer_free(raftd->tick_timer);
    raftd->check_timer = loop_timer_free(raftd->check_timer);
    raftd->expiry_timer = loop_timer_free(raftd->expiry_timer);
    buf_fini(&raftd->publish.bytes);
    buf_fini(&raftd->version.bytes);
}
