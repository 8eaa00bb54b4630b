/* lead.c: a leader's ticks, its peers, its quorums, and what is committed.
 *
 * An entry is committed once a quorum of the voters in force has it on disk (the leader itself counts with what its
 * own disk has) and it is of the leader's own term; older ones are committed with it. */
#include "daemons/raftd/raft/core.h"

enum {
    LEAVING_ELECTION_TIMEOUTS = 3
}; /* how long a removed member is still told about it */

struct raft_peer *raft_lead_find_peer(struct raft *raft, uint64_t id)
{
    for (size_t i = 0; i < raft->peer_count; i++) {
        if (raft->peers[i].id == id) {
            return &raft->peers[i];
        }
    }
    return NULL;
}

void raft_lead_drop_peers(struct raft *raft)
{
    for (size_t i = 0; i < raft->peer_count; i++) {
        free(raft->peers[i].inflight);
    }
    raft->peer_count = 0;
    raft->transfer_to = 0;
    raft->uncommitted_bytes = 0;
}

static void add_peer(struct raft *raft, uint64_t id)
{
    if (id == raft->options.self_id || raft_lead_find_peer(raft, id) != NULL) {
        return;
    }
    *VEC_PUSH(raft->peers, raft->peer_count, raft->peer_capacity) = (struct raft_peer){
        .id = id,
        .next = raft->log.last_index + 1,
        .active = true, /* until the first check proves otherwise */
        .inflight = xcalloc(raft->options.inflight_max, sizeof(uint64_t)),
        .append_bytes = raft->options.append_bytes_max,
    };
}

/* Brings the peers in line with the configuration in force. A removed one stays for a while, so that it learns. */
void raft_lead_sync_peers(struct raft *raft)
{
    const struct members *members = raft_members_now(raft);
    for (size_t i = 0; i < members->voters.count; i++) {
        add_peer(raft, members->voters.items[i]);
    }
    for (size_t i = 0; i < members->learners.count; i++) {
        add_peer(raft, members->learners.items[i]);
    }
    for (size_t i = 0; i < raft->peer_count; i++) {
        struct raft_peer *peer = &raft->peers[i];
        peer->is_voter = id_set_has(&members->voters, peer->id);
        bool is_member = peer->is_voter || id_set_has(&members->learners, peer->id);
        if (!is_member && peer->leaving_index == 0) {
            peer->leaving_index = member_history_current_index(&raft->history);
            peer->leaving_ticks = LEAVING_ELECTION_TIMEOUTS * raft->options.election_ticks;
        }
    }
}

/* A removed member that knows, or had its time to be told, is forgotten. */
static void release_leaving(struct raft *raft)
{
    uint32_t repeat_ticks = (LEAVING_ELECTION_TIMEOUTS - 1) * raft->options.election_ticks;
    for (size_t i = 0; i < raft->peer_count;) {
        struct raft_peer *peer = &raft->peers[i];
        bool is_due = peer->leaving_index != 0 && peer->leaving_index <= raft->commit;
        bool knows = peer->match >= peer->leaving_index && peer->commit_sent >= peer->leaving_index;
        if (!is_due ||
                (--peer->leaving_ticks > 0 && !(knows && peer->leaving_ticks <= repeat_ticks))) {
            i++;
            continue;
        }
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the last one takes the place of the freed one, or was it. */
        free(peer->inflight);
        *peer = raft->peers[--raft->peer_count];
    }
}

/* Room for how far each voter's clock is from a time, and our own if we are one of them. Returns how many there are. */
static size_t begin_offsets(struct raft *raft, uint64_t time_ns)
{
    const struct members *members = raft_members_now(raft);
    raft->offset_scratch = vec_reserve(raft->offset_scratch, &raft->offset_capacity,
            members->voters.count + 1, sizeof *raft->offset_scratch);
    if (!id_set_has(&members->voters, raft->options.self_id)) {
        return 0;
    }
    raft->offset_scratch[0] = (int64_t)(raft->wall_ns - time_ns);
    return 1;
}

/* Where cluster time stands as we begin: counted on from what was seen last, and by the clocks of those who elected us. */
static void begin_clock(struct raft *raft)
{
    const struct members *members = raft_members_now(raft);
    clusterclock_observe(&raft->clock, raft->log.last_time_ns, raft->now_ns);
    uint64_t time_ns = clusterclock_now(&raft->clock, raft->now_ns);
    size_t count = begin_offsets(raft, time_ns);
    for (size_t i = 0; i < raft->clock_count; i++) {
        const struct raft_clock_seen *clock = &raft->clocks[i];
        if (id_set_has(&members->voters, clock->id)) {
            uint64_t wall_ns = clock->wall_ns + (raft->now_ns - clock->seen_ns);
            raft->offset_scratch[count++] = (int64_t)(wall_ns - time_ns);
        }
    }
    clusterclock_lead(
            &raft->clock, raft->offset_scratch, count, members->voters.count, raft->now_ns);
    if (raft_is_lone_voter(raft) && !raft->led_before) {
        clusterclock_step(&raft->clock, raft->wall_ns, raft->now_ns);
    }
    raft->led_before = true;
}

void raft_lead_begin(struct raft *raft)
{
    INVARIANT(raft->role == RAFT_ROLE_CANDIDATE);
    INVARIANT_EQ(raft->peer_count, 0);
    raft->role = RAFT_ROLE_LEADER;
    raft->leader_id = raft->options.self_id;
    raft->leader_changes++;
    raft->election_elapsed = 0;
    raft->heartbeat_elapsed = 0;
    raft->round = 0;
    raft->lease_void = false;
    memset(raft->rounds, 0, sizeof raft->rounds);
    raft_lead_sync_peers(raft);

    begin_clock(raft);

    raft->lead_index = raft->log.last_index + 1;
    struct raft_entry first = { .kind = RAFT_ENTRY_EMPTY };
    struct raft_log_stamp stamp = { raft->term, raft_propose_stamp(raft) };
    raft_write_append(raft, (struct raft_entry_span){ &first, 1 }, &stamp);
    raft_lead_heartbeat(raft);
    raft_replicate_all(raft);
}

static void send_heartbeat(struct raft *raft, struct raft_peer *peer)
{
    peer->round_sent = raft->round;
    struct raft_message *message = raft_send(raft, RAFT_MESSAGE_HEARTBEAT, peer->id);

    message->context = raft->round;
    message->time_ns = raft_has_time(raft) ? clusterclock_now(&raft->clock, raft->now_ns) : 0;
    message->commit = MIN(peer->match, raft->commit);
    peer->commit_sent = MAX(peer->commit_sent, message->commit);
}

static void count_round(struct raft *raft)
{
    raft->round++;
    raft->rounds[raft->round % RAFT_ROUNDS_KEPT] = (struct raft_round){ raft->round, raft->now_ns };
}

void raft_lead_heartbeat(struct raft *raft)
{
    count_round(raft);
    for (size_t i = 0; i < raft->peer_count; i++) {
        send_heartbeat(raft, &raft->peers[i]);
    }
}

/* Rounds follow each other as fast as the fastest quorum answers. Whoever is slower is asked when it has answered: its link would
 * fill with rounds that nobody waits for. */
void raft_lead_begin_round(struct raft *raft)
{
    count_round(raft);
    for (size_t i = 0; i < raft->peer_count; i++) {
        struct raft_peer *peer = &raft->peers[i];
        if (peer->round_acked >= peer->round_sent) {
            send_heartbeat(raft, peer);
        }
    }
}

/* The round that is under way began while this peer had another one to answer. */
static void ask_for_round(struct raft *raft, struct raft_peer *peer)
{
    if (peer->round_acked >= peer->round_sent && peer->round_sent < raft->round &&
            raft_lead_quorum_round(raft) < raft->round) {
        send_heartbeat(raft, peer);
    }
}

/* Of the round that is under way: its answer only confirms that round later than others do. */
void raft_lead_on_reachable(struct raft *raft, uint64_t peer_id)
{
    struct raft_peer *peer = raft_lead_find_peer(raft, peer_id);
    if (peer != NULL) {
        send_heartbeat(raft, peer);
    }
}

/* The k-th highest of the voters' values, k being a quorum: what a quorum has reached. */
static uint64_t quorum_value(struct raft *raft, size_t member_offset, uint64_t own)
{
    const struct members *members = raft_members_now(raft);
    raft->match_scratch = vec_reserve(raft->match_scratch, &raft->match_capacity,
            members->voters.count, sizeof *raft->match_scratch);
    size_t count = 0;
    for (size_t i = 0; i < members->voters.count; i++) {
        uint64_t id = members->voters.items[i];
        uint64_t value = own;
        if (id != raft->options.self_id) {
            const struct raft_peer *peer = raft_lead_find_peer(raft, id);
            INVARIANT(peer != NULL);
            memcpy(&value, (const char *)peer + member_offset, sizeof value);
        }
        size_t j = count++;
        for (; j > 0 && raft->match_scratch[j - 1] < value; j--) {
            raft->match_scratch[j] = raft->match_scratch[j - 1];
        }
        raft->match_scratch[j] = value;
    }
    INVARIANT_LT(0, count);
    return raft->match_scratch[members_quorum(members) - 1];
}

uint64_t raft_lead_quorum_round(struct raft *raft)
{
    return quorum_value(raft, offsetof(struct raft_peer, round_acked), raft->round);
}

bool raft_lead_has_lease(struct raft *raft)
{
    if (!raft->options.lease_read || !raft->options.check_quorum || raft->lease_void) {
        return false;
    }
    uint64_t round = quorum_value(raft, offsetof(struct raft_peer, round_leased), raft->round);
    const struct raft_round *seen = &raft->rounds[round % RAFT_ROUNDS_KEPT];
    if (round == 0 || seen->round != round) {
        return false;
    }
    /* A tenth less than what the others wait: clocks run differently fast. */
    return raft->now_ns - seen->sent_ns < raft_lease_ns(raft) / 10 * 9;
}

/* We are not in the configuration that is now committed: see that all know, let the best go on. */
static void resign(struct raft *raft)
{
    const struct raft_peer *best = NULL;
    for (size_t i = 0; i < raft->peer_count; i++) {
        const struct raft_peer *peer = &raft->peers[i];
        if (peer->is_voter && peer->match == raft->log.last_index &&
                (best == NULL || peer->active > best->active)) {
            best = peer;
        }
    }
    if (best != NULL) {
        (void)raft_send(raft, RAFT_MESSAGE_TIMEOUT_NOW, best->id);
    }
    raft_become_follower(raft, raft->term, 0);
}

void raft_lead_advance_commit(struct raft *raft)
{
    INVARIANT(raft->role == RAFT_ROLE_LEADER);
    uint64_t index = quorum_value(raft, offsetof(struct raft_peer, match), raft->durable);
    if (index <= raft->commit || index < raft->lead_index) {
        return;
    }
    INVARIANT_EQ(raft_log_term(&raft->log, index), raft->term);
    raft_apply_commit_to(raft, index);
    for (size_t i = 0; i < raft->peer_count; i++) {
        raft_replicate_commit_notice(raft, &raft->peers[i]);
    }
    raft_read_on_round(raft); /* reads may have waited for the first commit of this term */
    if (!id_set_has(&raft_members_now(raft)->voters, raft->options.self_id) &&
            member_history_current_index(&raft->history) <= raft->commit) {
        resign(raft);
    }
}

/* True if a quorum has been heard from since the last check. */
static bool check_quorum(struct raft *raft)
{
    const struct members *members = raft_members_now(raft);
    size_t active = id_set_has(&members->voters, raft->options.self_id);
    for (size_t i = 0; i < raft->peer_count; i++) {
        active += raft->peers[i].is_voter && raft->peers[i].active;
        raft->peers[i].active = false;
    }
    return active >= members_quorum(members);
}

static void correct_clock(struct raft *raft)
{
    const struct members *members = raft_members_now(raft);
    uint64_t time_ns = clusterclock_now(&raft->clock, raft->now_ns);
    size_t count = begin_offsets(raft, time_ns);
    for (size_t i = 0; i < raft->peer_count; i++) {
        struct raft_peer *peer = &raft->peers[i];
        if (peer->is_voter && peer->wall_fresh) {
            /* Its clock went on since it was told: there may be no cluster time yet that did. */
            uint64_t wall_ns = peer->wall_ns + (raft->now_ns - peer->wall_seen_ns);
            raft->offset_scratch[count++] = (int64_t)(wall_ns - time_ns);
        }
        peer->wall_fresh = false;
    }
    bool was_settled = clusterclock_is_settled(&raft->clock);
    struct clusterclock *clock = &raft->clock;
    if (time_ns == 0) {
        clusterclock_begin(clock, raft->offset_scratch, count, members->voters.count, raft->now_ns);
    } else if (!was_settled) {
        clusterclock_settle(
                clock, raft->offset_scratch, count, members->voters.count, raft->now_ns);
    } else {
        clusterclock_round(clock, raft->offset_scratch, count, members->voters.count, raft->now_ns);
    }
    raft->out.time_begun = !was_settled && clusterclock_is_settled(clock);
}

void raft_lead_tick(struct raft *raft)
{
    raft->election_elapsed++;
    if (raft->election_elapsed >= raft->options.election_ticks) {
        raft->election_elapsed = 0;
        raft->transfer_to = 0; /* it has had its time */
        if (raft->options.check_quorum && !check_quorum(raft)) {
            raft_become_follower(raft, raft->term, 0);
            return;
        }
    }
    release_leaving(raft);
    if (++raft->heartbeat_elapsed < raft->options.heartbeat_ticks) {
        return;
    }
    raft->heartbeat_elapsed = 0;
    correct_clock(raft);
    raft_lead_heartbeat(raft);
    raft_read_on_round(raft);
    struct raft_peer *target = raft_lead_find_peer(raft, raft->transfer_to);
    if (target != NULL) {
        raft_transfer_check(raft, target);
    }
    raft_promote_check(raft);
}

/* What a clock said may be as old as the way there and back: after a time in which this process or a peer stood still it would
 * make cluster time seem ahead, or begin it in the past. */
static bool is_clock_recent(const struct raft *raft, uint64_t round)
{
    const struct raft_round *sent = &raft->rounds[round % RAFT_ROUNDS_KEPT];
    uint64_t half_election_ns = raft->options.election_ticks * raft->options.tick_ns / 2;
    uint64_t age_ns_max = MAX((uint64_t)CLUSTERCLOCK_STEP_NS, half_election_ns);
    return round != 0 && sent->round == round && raft->now_ns - sent->sent_ns <= age_ns_max;
}

void raft_lead_on_heartbeat_reply(struct raft *raft, const struct raft_message *message)
{
    struct raft_peer *peer = raft_lead_find_peer(raft, message->from);
    if (peer == NULL || message->context > raft->round) {
        raft->messages_ignored++;
        return;
    }
    peer->active = true;
    peer->no_space = message->reason == RAFT_REFUSAL_NO_SPACE;
    peer->round_acked = MAX(peer->round_acked, message->context);
    if (message->time_ns >= raft_lease_ns(raft)) {
        peer->round_leased = MAX(peer->round_leased, message->context);
    }
    if (is_clock_recent(raft, message->context)) {
        peer->wall_ns = message->wall_ns;
        peer->wall_seen_ns = raft->now_ns;
        peer->wall_fresh = true;
    }
    raft_replicate_on_heartbeat(raft, peer, message);
    raft_read_on_round(raft);
    ask_for_round(raft, peer);
}
