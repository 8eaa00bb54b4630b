/* test_raft_vote.c: elections, pre-vote, quorum checks. */
#include "tests/unit/raft/lab.h"

static struct raft_message request(enum raft_message_kind kind, uint64_t from, uint64_t term,
        uint64_t index, uint64_t log_term)
{
    return (struct raft_message){
        .kind = kind, .from = from, .term = term, .index = index, .log_term = log_term
    };
}

static void lone_voter_leads_after_one_tick_and_one_sync(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 1);
    assert_int_equal(lab_resume(lab, 0, 0), 0);

    lab_tick(lab, 1);
    assert_int_equal(lab->ready.write.seq, 1);
    assert_true(lab->ready.write.hard_changed);
    assert_int_equal(lab->ready.write.hard.term, 1);
    assert_int_equal(lab->ready.write.hard.vote, 1);
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_CANDIDATE); /* its vote is not on disk yet */

    lab_sync(lab);
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_LEADER);
    assert_true(lab->ready.state_changed);
    assert_int_equal(lab->ready.write.append.count, 1);
    assert_int_equal(lab->ready.write.append.items[0].kind, RAFT_ENTRY_EMPTY);
    assert_int_equal(lab->ready.write.append.items[0].index, 1);
    assert_int_equal(lab->ready.write.append.items[0].term, 1);
    assert_int_equal(lab->ready.apply.count, 0);

    lab_propose(lab, 3);
    assert_int_equal(lab->ready.write.append.count, 3);
    assert_int_equal(lab->ready.send.count, 0);
    lab_sync(lab);
    assert_int_equal(lab_status(lab).commit_index, 4);
    assert_int_equal(lab->ready.apply.count, 4);
    assert_int_equal(lab->ready.apply_prev_index, 0);
}

static void lone_voter_grants_reads_without_any_message(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 1);
    lab_tick(lab, 1);
    lab_sync(lab);
    lab_read(lab, 5);
    assert_int_equal(lab->ready.grant_count, 0); /* nothing of its term is committed */
    lab_sync(lab);
    assert_int_equal(lab->ready.grant_count, 1);
    assert_int_equal(lab->ready.grants[0].context, 5);
    assert_int_equal(lab->ready.grants[0].index, 1);
    lab_read(lab, 6);
    assert_int_equal(lab->ready.grant_count, 1);
}

static void slow_disk_does_not_make_a_lone_voter_campaign_again(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 1);
    lab_tick(lab, 1);
    lab_tick(lab, 50);
    assert_int_equal(lab_status(lab).term, 1);
    lab_sync(lab);
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_LEADER);
}

static void follower_waits_at_least_an_election_timeout(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_tick(lab, lab->options.election_ticks - 1);
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_FOLLOWER);
    lab_tick(lab, lab->options.election_ticks + 1);
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_PRE_CANDIDATE);
}

static void pre_vote_changes_neither_term_nor_disk(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    while (lab_status(lab).role == RAFT_ROLE_FOLLOWER) {
        lab_tick(lab, 1);
    }
    assert_int_equal(lab->ready.write.seq, 0);
    assert_int_equal(lab_status(lab).term, 0);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_PRE_VOTE, 2)->term, 1);
    assert_non_null(lab_sent(lab, RAFT_MESSAGE_PRE_VOTE, 3));
}

static void refused_pre_votes_end_the_attempt(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    while (lab_status(lab).role == RAFT_ROLE_FOLLOWER) {
        lab_tick(lab, 1);
    }
    for (uint64_t from = 2; from <= 3; from++) {
        lab_deliver(
                lab, (struct raft_message){
                             .kind = RAFT_MESSAGE_PRE_VOTE_REPLY, .from = from, .reject = true });
    }
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_FOLLOWER);
    assert_int_equal(lab_status(lab).term, 0);
}

static void candidacy_is_announced_only_once_on_disk(void **state)
{
    struct lab *lab = *state;
    lab->options.pre_vote = false;
    lab_start(lab, 3);
    while (lab_status(lab).role == RAFT_ROLE_FOLLOWER) {
        lab_tick(lab, 1);
    }
    assert_int_equal(lab->ready.send.count, 0);
    assert_int_equal(lab_vowed(lab, RAFT_MESSAGE_VOTE, 2)->after_seq, lab->ready.write.seq);
    assert_int_equal(lab_vowed(lab, RAFT_MESSAGE_VOTE, 3)->after_seq, lab->ready.write.seq);

    /* A vote that comes while our own is not on disk makes one, not two. */
    lab_deliver(
            lab, (struct raft_message){ .kind = RAFT_MESSAGE_VOTE_REPLY, .from = 2, .term = 1 });
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_CANDIDATE);
    lab_sync(lab);
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_LEADER);
}

/* Stands in vain, waits for as long as it may without standing again, and is asked by member 2, whose log ends at `index`. */
static void be_asked_after_a_vain_candidacy(struct lab *lab, uint64_t index)
{
    const uint64_t terms[] = { 1, 1 };
    lab->options.pre_vote = false;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1 }, terms, 2);
    while (lab_status(lab).role == RAFT_ROLE_FOLLOWER) {
        lab_tick(lab, 1);
    }
    lab_sync(lab);
    for (uint64_t from = 2; from <= 3; from++) {
        lab_deliver(lab,
                (struct raft_message){
                        .kind = RAFT_MESSAGE_VOTE_REPLY, .from = from, .term = 2, .reject = true });
    }
    lab_tick(lab, lab->options.election_ticks - 1);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_VOTE,
                             .from = 2,
                             .term = 2,
                             .index = index,
                             .log_term = 1 });
    assert_true(lab_sent(lab, RAFT_MESSAGE_VOTE_REPLY, 2)->reject);
    lab_tick(lab, lab->options.election_ticks - 1);
}

static void who_was_in_the_way_of_a_longer_log_lets_it_go_first(void **state)
{
    struct lab *lab = *state;
    be_asked_after_a_vain_candidacy(lab, 3);
    assert_int_equal(lab_status(lab).term, 2);
}

static void a_log_that_is_no_longer_does_not_delay_a_candidacy(void **state)
{
    struct lab *lab = *state;
    be_asked_after_a_vain_candidacy(lab, 2);
    assert_true(lab_status(lab).term > 2);
}

static void one_voter_counts_once(void **state)
{
    struct lab *lab = *state;
    lab->options.pre_vote = false;
    lab_start(lab, 5);
    while (lab_status(lab).role == RAFT_ROLE_FOLLOWER) {
        lab_tick(lab, 1);
    }
    lab_sync(lab);
    for (int i = 0; i < 3; i++) {
        lab_deliver(lab,
                (struct raft_message){ .kind = RAFT_MESSAGE_VOTE_REPLY, .from = 2, .term = 1 });
        lab_deliver(lab, /* no member */
                (struct raft_message){ .kind = RAFT_MESSAGE_VOTE_REPLY, .from = 9, .term = 1 });
    }
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_CANDIDATE);
}

/* The disk is full: entries wait, and the vote behind them went ahead. */
static void a_vote_needs_its_term_on_disk_and_vouches_for_no_entry(void **state)
{
    struct lab *lab = *state;
    struct raft_entry entry = lab_entry(1, 1);
    lab_start(lab, 3);
    lab_deliver(lab,
            (struct raft_message){
                    .kind = RAFT_MESSAGE_APPEND, .from = 2, .term = 1, .entries = { &entry, 1 } });
    uint64_t entry_seq = lab->ready.write.seq;
    assert_false(lab_vowed(lab, RAFT_MESSAGE_APPEND_REPLY, 2)->hard_only);
    struct raft_message asked = request(RAFT_MESSAGE_VOTE, 3, 2, 1, 1);
    asked.transfer = true;
    lab_deliver(lab, asked);
    uint64_t vote_seq = lab->ready.write.seq;
    assert_true(entry_seq < vote_seq);
    const struct raft_vow *vow = lab_vowed(lab, RAFT_MESSAGE_VOTE_REPLY, 3);
    assert_true(vow->hard_only);
    assert_int_equal(vow->after_seq, vote_seq);

    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_SYNCED,
                                .synced = { .write_seq = vote_seq, .hard_only = true } });
    assert_int_equal(lab_status(lab).durable_index, 0);
    lab_deliver(lab, asked); /* again: it is on disk, so at once */
    assert_false(lab_sent(lab, RAFT_MESSAGE_VOTE_REPLY, 3)->reject);
    struct raft_entry next = lab_entry(2, 2);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_APPEND,
                             .from = 3,
                             .term = 2,
                             .index = 1,
                             .log_term = 1,
                             .entries = { &next, 1 } });
    assert_null(lab_sent(lab, RAFT_MESSAGE_APPEND_REPLY, 3)); /* that stands on the entries */
    vow = lab_vowed(lab, RAFT_MESSAGE_APPEND_REPLY, 3);
    assert_int_equal(vow->after_seq, lab->ready.write.seq);
    lab_sync_write(lab, entry_seq, 1, 1);
    assert_int_equal(lab_status(lab).durable_index, 1);
}

static void vote_is_a_vow_and_given_once_in_a_term(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, request(RAFT_MESSAGE_VOTE, 2, 5, 0, 0));
    assert_int_equal(lab->ready.send.count, 0);
    const struct raft_vow *vow = lab_vowed(lab, RAFT_MESSAGE_VOTE_REPLY, 2);
    assert_non_null(vow);
    assert_false(vow->message.reject);
    assert_int_equal(vow->after_seq, lab->ready.write.seq);
    assert_int_equal(lab->ready.write.hard.term, 5);
    assert_int_equal(lab->ready.write.hard.vote, 2);

    lab_deliver(lab, request(RAFT_MESSAGE_VOTE, 3, 5, 9, 4));
    assert_true(lab_sent(lab, RAFT_MESSAGE_VOTE_REPLY, 3)->reject);

    /* The same candidate again: still only after the write that holds the vote. */
    lab_deliver(lab, request(RAFT_MESSAGE_VOTE, 2, 5, 0, 0));
    assert_int_equal(lab->ready.write.seq, 0);
    assert_int_equal(lab_vowed(lab, RAFT_MESSAGE_VOTE_REPLY, 2)->after_seq, lab->seq);
    lab_sync(lab);
    lab_deliver(lab, request(RAFT_MESSAGE_VOTE, 2, 5, 0, 0));
    assert_false(lab_sent(lab, RAFT_MESSAGE_VOTE_REPLY, 2)->reject);
}

static void vote_survives_a_restart(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ 5, 2, 0 }, NULL, 0);
    lab_deliver(lab, request(RAFT_MESSAGE_VOTE, 3, 5, 9, 5));
    assert_true(lab_sent(lab, RAFT_MESSAGE_VOTE_REPLY, 3)->reject);
}

static void vote_is_refused_to_a_log_that_is_behind(void **state)
{
    (void)state;
    static const uint64_t terms[] = { 1, 2, 2 };
    static const struct {
        uint64_t index;
        uint64_t term;
        bool granted;
    } cases[] = { { 9, 1, false }, { 2, 2, false }, { 3, 2, true }, { 1, 3, true } };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct lab lab = { 0 };
        lab_start_with(&lab, 3, (struct raft_hard_state){ .term = 2 }, terms, 3);
        lab_deliver(&lab, request(RAFT_MESSAGE_VOTE, 2, 4, cases[i].index, cases[i].term));
        assert_int_equal(lab_vowed(&lab, RAFT_MESSAGE_VOTE_REPLY, 2) != NULL, cases[i].granted);
        lab_deliver(&lab, request(RAFT_MESSAGE_PRE_VOTE, 3, 5, cases[i].index, cases[i].term));
        assert_int_equal(lab_sent(&lab, RAFT_MESSAGE_PRE_VOTE_REPLY, 3)->reject, !cases[i].granted);
        lab_stop(&lab);
    }
}

static void who_hears_a_leader_ignores_candidates_but_not_a_transfer(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1 });
    lab_tick(lab, 3);
    lab_deliver(lab, request(RAFT_MESSAGE_VOTE, 3, 2, 9, 1));
    assert_int_equal(lab_status(lab).term, 1);
    assert_int_equal(lab->ready.send.count + lab->ready.vow_count, 0);

    struct raft_message transfer = request(RAFT_MESSAGE_VOTE, 3, 2, 9, 1);
    transfer.transfer = true;
    lab_deliver(lab, transfer);
    assert_int_equal(lab_status(lab).term, 2);
    assert_non_null(lab_vowed(lab, RAFT_MESSAGE_VOTE_REPLY, 3));
}

static void hopeless_candidate_does_not_delay_the_others(void **state)
{
    struct lab *lab = *state;
    static const uint64_t terms[] = { 1, 1, 1 };
    lab->options.pre_vote = false;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1 }, terms, 3);
    uint64_t term = 1;
    for (unsigned ticks = 0; lab_status(lab).role == RAFT_ROLE_FOLLOWER; ticks++) {
        assert_true(ticks < 2 * lab->options.election_ticks);
        lab_tick(lab, 1);
        if (lab_status(lab).role == RAFT_ROLE_FOLLOWER) {
            lab_deliver(lab, request(RAFT_MESSAGE_VOTE, 2, ++term, 1, 1)); /* a shorter log */
        }
    }
}

static void leader_that_hears_no_quorum_steps_down(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_tick(lab, lab->options.election_ticks); /* the first period counts as heard */
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_LEADER);
    lab_tick(lab, lab->options.election_ticks - 1);
    lab_acknowledge(lab, 3, 0);
    lab_tick(lab, 1);
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_LEADER);
    lab_tick(lab, lab->options.election_ticks);
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_FOLLOWER);
    assert_int_equal(lab_status(lab).leader_id, 0);
    assert_int_equal(lab_status(lab).term, 1);
}

static void leader_of_an_old_term_is_told_the_new_one(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 7 }, NULL, 0);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 6 });
    const struct raft_message *reply = lab_sent(lab, RAFT_MESSAGE_APPEND_REPLY, 2);
    assert_int_equal(reply->term, 7);
    assert_true(reply->reject);
    assert_int_equal(lab_status(lab).leader_id, 0);
}

static void leader_steps_down_before_a_newer_term(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_deliver(
            lab, (struct raft_message){
                         .kind = RAFT_MESSAGE_APPEND_REPLY, .from = 2, .term = 9, .reject = true });
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_FOLLOWER);
    assert_int_equal(lab->ready.write.hard.term, 9);
    assert_int_equal(lab->ready.write.hard.vote, 0);
}

static void second_leader_of_a_term_is_ignored(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1 });
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 3, .term = 1 });
    assert_int_equal(lab_status(lab).leader_id, 2);
    assert_int_equal(lab_status(lab).messages_ignored, 1);
}

static void messages_that_cannot_be_are_ignored(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    static const struct raft_message messages[] = {
        { .kind = RAFT_MESSAGE_VOTE, .from = 1, .term = 9 },
        { .kind = RAFT_MESSAGE_VOTE, .from = 0, .term = 9 },
        { .kind = RAFT_MESSAGE_VOTE, .from = 2, .term = UINT64_MAX },
        { .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1, .commit = UINT64_MAX },
        { .kind = (enum raft_message_kind)99, .from = 2, .term = 0 },
        { .kind = RAFT_MESSAGE_KIND_END, .from = 2, .term = 0 },
    };
    for (size_t i = 0; i < ARRAY_COUNT(messages); i++) {
        lab_deliver(lab, messages[i]);
        assert_int_equal(lab_status(lab).messages_ignored, i + 1);
        assert_int_equal(lab_status(lab).term, 0);
    }
}

static void timeout_now_makes_the_follower_campaign_past_pre_vote(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(
            lab, (struct raft_message){ .kind = RAFT_MESSAGE_TIMEOUT_NOW, .from = 3, .term = 1 });
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_FOLLOWER); /* 3 is not its leader */
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1 });
    lab_deliver(
            lab, (struct raft_message){ .kind = RAFT_MESSAGE_TIMEOUT_NOW, .from = 2, .term = 1 });
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_CANDIDATE);
    assert_int_equal(lab_status(lab).term, 2);
    assert_true(lab_vowed(lab, RAFT_MESSAGE_VOTE, 3)->message.transfer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(lone_voter_leads_after_one_tick_and_one_sync),
        LAB_TEST(lone_voter_grants_reads_without_any_message),
        LAB_TEST(slow_disk_does_not_make_a_lone_voter_campaign_again),
        LAB_TEST(follower_waits_at_least_an_election_timeout),
        LAB_TEST(pre_vote_changes_neither_term_nor_disk),
        LAB_TEST(refused_pre_votes_end_the_attempt),
        LAB_TEST(candidacy_is_announced_only_once_on_disk),
        LAB_TEST(who_was_in_the_way_of_a_longer_log_lets_it_go_first),
        LAB_TEST(a_log_that_is_no_longer_does_not_delay_a_candidacy),
        LAB_TEST(one_voter_counts_once),
        LAB_TEST(a_vote_needs_its_term_on_disk_and_vouches_for_no_entry),
        LAB_TEST(vote_is_a_vow_and_given_once_in_a_term),
        LAB_TEST(vote_survives_a_restart),
        cmocka_unit_test(vote_is_refused_to_a_log_that_is_behind),
        LAB_TEST(who_hears_a_leader_ignores_candidates_but_not_a_transfer),
        LAB_TEST(hopeless_candidate_does_not_delay_the_others),
        LAB_TEST(leader_that_hears_no_quorum_steps_down),
        LAB_TEST(leader_of_an_old_term_is_told_the_new_one),
        LAB_TEST(leader_steps_down_before_a_newer_term),
        LAB_TEST(second_leader_of_a_term_is_ignored),
        LAB_TEST(messages_that_cannot_be_are_ignored),
        LAB_TEST(timeout_now_makes_the_follower_campaign_past_pre_vote),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
