/* vote.c: terms and elections.
 *
 * A candidacy and a vote are promises: they leave as vows, and our own vote for ourselves counts only once it is on
 * disk. With check_quorum, whoever has heard a leader within an election timeout does not even look at a request, so a
 * member that comes back from a partition disturbs nobody; a transfer is flagged and gets past that. */
#include "daemons/raftd/raft/core.h"

/* splitmix64: small, and good enough to spread timeouts. */
static uint64_t next_random(struct raft *raft)
{
    raft->rng += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = raft->rng;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void raft_reset_election_timer(struct raft *raft)
{
    uint32_t ticks = raft->options.election_ticks;
    raft->election_elapsed = 0;
    raft->election_timeout = ticks + (uint32_t)(next_random(raft) % ticks);
}

static void set_leader(struct raft *raft, uint64_t leader_id)
{
    if (raft->leader_id == leader_id) {
        return;
    }
    /* Nobody will answer what waits for the old one. */
    raft_read_refuse_all(raft, RAFT_REFUSAL_NO_LEADER);
    raft->leader_id = leader_id;
    if (leader_id != 0) {
        raft->leader_changes++;
    }
}

void raft_become_follower(struct raft *raft, uint64_t term, uint64_t leader_id)
{
    INVARIANT_LE(raft->term, term);
    if (raft->role == RAFT_ROLE_LEADER && !raft_has_time(raft)) {
        /* Nobody but us may know what we began it with. */
        raft->clock = (struct clusterclock){ 0 };
        if (raft->log.last_index > raft->timeless_index) {
            clusterclock_observe(&raft->clock, raft->log.last_time_ns, raft->now_ns);
        }
    }
    set_leader(raft, leader_id);
    raft_lead_drop_peers(raft);
    if (term > raft->term) {
        raft->term = term;
        raft->vote = 0;
    }
    raft->role = RAFT_ROLE_FOLLOWER;
    raft->campaign_seq = 0;
    raft->vote_count = 0;
    raft_reset_election_timer(raft);
}

bool raft_is_lone_voter(const struct raft *raft)
{
    const struct members *members = raft_members_now(raft);
    return members->voters.count == 1 && members->voters.items[0] == raft->options.self_id;
}

/* Nobody else leads or could: the only voter, for good. While the change that made it so is not committed, the leader that
 * proposed it, its own removal, may still read on the lease that we promised it. */
static bool is_alone(const struct raft *raft)
{
    return raft_is_lone_voter(raft) && member_history_current_index(&raft->history) <= raft->commit;
}

bool raft_vote_in_lease(const struct raft *raft)
{
    if (is_alone(raft)) {
        return raft->role == RAFT_ROLE_LEADER;
    }
    if (raft->options.lease_read && raft->now_ns - raft->heard_ns < raft_lease_ns(raft)) {
        /* Ticks may bunch after a stall; a leader's lease relies on the clock. */
        return true;
    }
    return raft->options.check_quorum && raft->leader_id != 0 &&
           raft->election_elapsed < raft->options.election_ticks;
}

/* A voter whose removal is in the log but not committed may still be needed: it may be the only one to have that entry.
 * (Its own vote counts no more.) */
static bool is_still_voter(const struct raft *raft)
{
    uint64_t self_id = raft->options.self_id;
    return id_set_has(&raft_members_now(raft)->voters, self_id) ||
           id_set_has(&member_history_at(&raft->history, raft->commit)->voters, self_id);
}

static bool may_campaign(const struct raft *raft)
{
    return is_still_voter(raft) && !raft->removed && raft->install_seq == 0 &&
           (raft->writable || raft_is_lone_voter(raft));
}

static void record_vote(struct raft *raft, uint64_t id, bool granted)
{
    for (size_t i = 0; i < raft->vote_count; i++) {
        if (raft->votes[i].id == id) {
            return; /* the first word counts */
        }
    }
    *VEC_PUSH(raft->votes, raft->vote_count, raft->vote_capacity) =
            (struct raft_vote_seen){ id, granted };
}

/* A message under way makes a clock look late, never early: of two the later is the better. */
static void record_clock(struct raft *raft, uint64_t id, uint64_t wall_ns)
{
    struct raft_clock_seen *clock = NULL;
    for (size_t i = 0; i < raft->clock_count; i++) {
        clock = raft->clocks[i].id == id ? &raft->clocks[i] : clock;
    }
    if (clock == NULL) {
        clock = VEC_PUSH(raft->clocks, raft->clock_count, raft->clock_capacity);
    } else if (wall_ns <= clock->wall_ns + (raft->now_ns - clock->seen_ns)) {
        return;
    }
    *clock = (struct raft_clock_seen){ id, wall_ns, raft->now_ns };
}

static void campaign(struct raft *raft, bool transfer);

/* Decides as soon as the voters' answers do. */
static void tally(struct raft *raft)
{
    const struct members *members = raft_members_now(raft);
    size_t granted = 0;
    size_t rejected = 0;
    for (size_t i = 0; i < raft->vote_count; i++) {
        if (id_set_has(&members->voters, raft->votes[i].id)) {
            granted += raft->votes[i].granted;
            rejected += !raft->votes[i].granted;
        }
    }
    size_t quorum = members_quorum(members);
    if (granted >= quorum && raft->role == RAFT_ROLE_PRE_CANDIDATE) {
        campaign(raft, false);
    } else if (granted >= quorum) {
        if (raft->campaign_seq == 0) { /* our candidacy is on disk */
            raft_lead_begin(raft);
        }
    } else if (rejected + quorum > members->voters.count) {
        raft_become_follower(raft, raft->term, 0);
    }
}

static void ask_for_votes(
        struct raft *raft, enum raft_message_kind kind, uint64_t term, bool transfer)
{
    const struct members *members = raft_members_now(raft);
    for (size_t i = 0; i < members->voters.count; i++) {
        uint64_t to = members->voters.items[i];
        if (to == raft->options.self_id) {
            continue;
        }
        struct raft_message *message =
                kind == RAFT_MESSAGE_VOTE ? raft_vow(raft, kind, to) : raft_send(raft, kind, to);
        message->term = term;
        message->index = raft->log.last_index;
        message->log_term = raft->log.last_term;
        message->transfer = transfer;
    }
}

static void pre_campaign(struct raft *raft)
{
    raft->clock_count = 0;
    raft_become_follower(raft, raft->term, 0);
    raft->role = RAFT_ROLE_PRE_CANDIDATE;
    ask_for_votes(raft, RAFT_MESSAGE_PRE_VOTE, raft->term + 1, false);
    record_vote(raft, raft->options.self_id, true); /* promises nothing: need not wait */
    tally(raft);
}

static void campaign(struct raft *raft, bool transfer)
{
    if (raft->role != RAFT_ROLE_PRE_CANDIDATE) {
        raft->clock_count = 0;
    }
    raft_become_follower(raft, raft->term + 1, 0);
    raft->role = RAFT_ROLE_CANDIDATE;
    raft->vote = raft->options.self_id;
    raft->campaign_seq = raft->last_seq + 1; /* this step's write */
    ask_for_votes(raft, RAFT_MESSAGE_VOTE, raft->term, transfer);
}

void raft_vote_synced(struct raft *raft)
{
    if (raft->campaign_seq == 0 || raft->synced_seq < raft->campaign_seq) {
        return;
    }
    raft->campaign_seq = 0;
    INVARIANT(raft->role == RAFT_ROLE_CANDIDATE);
    INVARIANT_EQ(raft->vote, raft->options.self_id);
    record_vote(raft, raft->options.self_id, true);
    tally(raft);
}

/* No leader for a whole timeout, and we may not become one: give up the old one, so that nobody waits for it. One that
 * is no voter asks around; should it have been removed meanwhile, that is how it is told. */
static void wait_for_leader(struct raft *raft)
{
    if (raft->election_elapsed < raft->election_timeout) {
        return;
    }
    raft_become_follower(raft, raft->term, 0);
    if (!raft->removed && !is_still_voter(raft)) {
        ask_for_votes(raft, RAFT_MESSAGE_PRE_VOTE, raft->term + 1, false);
    }
}

void raft_vote_tick(struct raft *raft)
{
    raft->election_elapsed++;
    if (!may_campaign(raft)) {
        wait_for_leader(raft);
        return;
    }
    if (raft->campaign_seq != 0) {
        return; /* the disk still writes our candidacy: another one would only queue behind it */
    }
    bool is_fast = raft->options.fast_start && is_alone(raft) && raft->role == RAFT_ROLE_FOLLOWER;
    if (!is_fast && (raft->election_elapsed < raft->election_timeout || raft_vote_in_lease(raft))) {
        return;
    }
    if (raft->options.pre_vote && !raft_is_lone_voter(raft)) {
        pre_campaign(raft);
    } else {
        campaign(raft, false);
    }
}

void raft_vote_on_timeout_now(struct raft *raft, const struct raft_message *message)
{
    if (raft->role != RAFT_ROLE_FOLLOWER || message->from != raft->leader_id ||
            !may_campaign(raft)) {
        raft->messages_ignored++;
        return;
    }
    campaign(raft, true);
}

static bool is_up_to_date(const struct raft *raft, const struct raft_message *message)
{
    return message->log_term > raft->log.last_term ||
           (message->log_term == raft->log.last_term && message->index >= raft->log.last_index);
}

/* Someone whose log is longer wants to lead, and we stand in its way with our own vote. Without pre-votes two such can go on
 * for long: each time we stand first, cannot win, and hinder the other in that term. So let it go first. */
static void make_way(struct raft *raft, const struct raft_message *message)
{
    bool is_behind = is_up_to_date(raft, message) && (message->log_term != raft->log.last_term ||
                                                             message->index > raft->log.last_index);
    if (raft->role != RAFT_ROLE_LEADER && raft->vote == raft->options.self_id && is_behind) {
        raft_reset_election_timer(raft);
    }
}

/* The term of a VOTE is ours by now; that of a PRE_VOTE is only proposed, and not below ours. */
void raft_vote_on_request(struct raft *raft, const struct raft_message *message)
{
    bool is_pre = message->kind == RAFT_MESSAGE_PRE_VOTE;
    bool is_free = raft->vote == message->from || (raft->vote == 0 && raft->leader_id == 0) ||
                   (is_pre && message->term > raft->term);
    bool granted = is_free && is_up_to_date(raft, message);
    if (is_pre) {
        struct raft_message *reply = raft_send(raft, RAFT_MESSAGE_PRE_VOTE_REPLY, message->from);
        reply->wall_ns = raft->wall_ns;
        reply->reject = !granted;
        reply->term = granted ? message->term : raft->term;
        return;
    }
    INVARIANT_EQ(raft->term, message->term);
    if (!granted) {
        make_way(raft, message);
        struct raft_message *reply = raft_send(raft, RAFT_MESSAGE_VOTE_REPLY, message->from);
        reply->wall_ns = raft->wall_ns;
        reply->reject = true;
        return;
    }
    raft->vote = message->from;
    raft->election_elapsed = 0;
    raft_vow(raft, RAFT_MESSAGE_VOTE_REPLY, message->from)->wall_ns = raft->wall_ns;
}

void raft_vote_on_reply(struct raft *raft, const struct raft_message *message)
{
    bool is_pre = message->kind == RAFT_MESSAGE_PRE_VOTE_REPLY;
    enum raft_role role = is_pre ? RAFT_ROLE_PRE_CANDIDATE : RAFT_ROLE_CANDIDATE;
    uint64_t term = is_pre && !message->reject ? raft->term + 1 : raft->term;
    if (raft->role != role || message->term != term) {
        return; /* late */
    }
    record_vote(raft, message->from, !message->reject);
    if (message->wall_ns != 0) {
        record_clock(raft, message->from, message->wall_ns);
    }
    tally(raft);
}

/* One member alone could be wrong, or lie: it takes a quorum of the others. */
void raft_vote_on_removed(struct raft *raft, const struct raft_message *message)
{
    const struct members *members = raft_members_now(raft);
    if (message->from == raft->leader_id) {
        raft_read_refuse_all(raft,
                RAFT_REFUSAL_NO_LEADER); /* it feeds us for a while, but answers no question */
    }
    if (!id_set_has(&members->voters, message->from)) {
        raft->messages_ignored++;
        return;
    }
    id_set_add(&raft->removal_witnesses, message->from);
    size_t others = members->voters.count;
    if (id_set_has(&members->voters, raft->options.self_id)) {
        others--;
    }
    size_t witnesses = 0;
    for (size_t i = 0; i < raft->removal_witnesses.count; i++) {
        witnesses += id_set_has(&members->voters, raft->removal_witnesses.items[i]);
    }
    if (witnesses >= others / 2 + 1) {
        raft->removed = true;
        raft_become_follower(raft, raft->term, 0);
    }
}
