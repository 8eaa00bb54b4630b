/* test_raft_read.c: read indexes. */
#include "tests/unit/raft/lab.h"

static void beat(struct lab *lab, uint64_t from, uint64_t round)
{
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT_REPLY,
                             .from = from,
                             .term = lab_status(lab).term,
                             .context = round,
                             .time_ns = lab->options.tick_ns * lab->options.election_ticks });
}

static void start_leading(struct lab *lab)
{
    lab_start(lab, 3);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 1);
    assert_int_equal(lab_status(lab).commit_index, 1);
    beat(lab, 2, 1); /* the round that came with the leadership */
}

static void read_waits_for_a_commit_of_the_leaders_term(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_lead(lab);
    beat(lab, 2, 1);
    lab_read(lab, 5);
    assert_null(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2));
    lab_acknowledge(lab, 2, 1);
    assert_int_equal(lab->ready.grant_count, 0);
    const struct raft_message *round = lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2);
    assert_int_equal(round->context, 2);
    beat(lab, 2, 2);
    assert_int_equal(lab->ready.grants[0].context, 5);
    assert_int_equal(lab->ready.grants[0].index, 1);
}

static void round_that_began_before_the_read_does_not_confirm_it(void **state)
{
    struct lab *lab = *state;
    start_leading(lab);
    lab_read(lab, 5); /* round 2 */
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2)->context, 2);
    lab_read(lab, 6);
    lab_read(lab, 7);
    assert_int_equal(lab->ready.send.count, 0); /* they gather for the next round */
    beat(lab, 3, 1);
    assert_int_equal(lab->ready.grant_count, 0);
    beat(lab, 2, 2);
    assert_int_equal(lab->ready.grant_count, 1);
    assert_int_equal(lab->ready.grants[0].context, 5);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2)->context, 3);
    beat(lab, 2, 3);
    assert_int_equal(lab->ready.grant_count, 2);
}

/* Reads at a leader whose other link was quick filled this one with rounds until it broke. */
static void peer_that_has_a_round_to_answer_is_asked_for_no_other(void **state)
{
    struct lab *lab = *state;
    start_leading(lab);
    for (uint64_t round = 2; round < 100; round++) {
        lab_read(lab, round);
        assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2)->context, round);
        assert_null(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 3));
        beat(lab, 2, round);
        assert_int_equal(lab->ready.grant_count, 1);
    }
    /* No round is under way: its answer is followed by none. */
    beat(lab, 3, 1);
    assert_null(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 3));
    /* Now it takes part; a tick's heartbeat goes to all, whatever they have answered. */
    lab_read(lab, 100);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 3)->context, 100);
    lab_tick(lab, 1);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 3)->context, 101);
}

static void round_goes_on_with_a_peer_that_was_still_answering_another(void **state)
{
    struct lab *lab = *state;
    start_leading(lab);
    lab_read(lab, 5); /* the third has the leadership's round to answer */
    assert_null(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 3));
    beat(lab, 3, 1); /* and the second is silent from here on */
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 3)->context, 2);
    beat(lab, 3, 2);
    assert_int_equal(lab->ready.grants[0].context, 5);
    assert_null(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 3));
}

static void grant_covers_what_was_committed_when_it_was_asked(void **state)
{
    struct lab *lab = *state;
    start_leading(lab);
    lab_propose(lab, 2);
    lab_sync(lab);
    lab_acknowledge(lab, 3, 3);
    lab_read(lab, 5);
    beat(lab, 2, 2);
    assert_int_equal(lab->ready.grants[0].index, 3);
}

static void reads_are_refused_when_the_leader_steps_down(void **state)
{
    struct lab *lab = *state;
    start_leading(lab);
    lab_read(lab, 5);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_READ,
                             .from = 3,
                             .term = 1,
                             .context = 8,
                             .hint_index = 44 });
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 2 });
    assert_int_equal(lab->ready.read_refused_count, 1);
    assert_int_equal(lab->ready.reads_refused[0].context, 5);
    assert_int_equal(lab->ready.reads_refused[0].reason, RAFT_REFUSAL_NO_LEADER);
    const struct raft_message *reply = lab_sent(lab, RAFT_MESSAGE_READ_REPLY, 3);
    assert_true(reply->reject);
    assert_int_equal(reply->context, 8);
    assert_int_equal(reply->hint_index, 44);
}

static void read_without_a_leader_is_refused(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_read(lab, 5);
    assert_int_equal(lab->ready.reads_refused[0].reason, RAFT_REFUSAL_NO_LEADER);
}

static void leader_answers_a_followers_question(void **state)
{
    struct lab *lab = *state;
    start_leading(lab);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_READ,
                             .from = 3,
                             .term = 1,
                             .context = 8,
                             .hint_index = 44 });
    beat(lab, 2, 2);
    const struct raft_message *reply = lab_sent(lab, RAFT_MESSAGE_READ_REPLY, 3);
    assert_false(reply->reject);
    assert_int_equal(reply->index, 1);
    assert_int_equal(reply->hint_index, 44);
    assert_int_equal(lab->ready.grant_count, 0);
}

static void follower_asks_the_leader_and_one_answer_serves_all_before_it(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1 });
    lab_read(lab, 5);
    uint64_t first = lab_sent(lab, RAFT_MESSAGE_READ, 2)->context;
    lab_read(lab, 6);
    uint64_t second = lab_sent(lab, RAFT_MESSAGE_READ, 2)->context;
    uint64_t epoch = lab_sent(lab, RAFT_MESSAGE_READ, 2)->hint_index;
    assert_int_equal(second, first + 1);

    struct raft_message reply = { .kind = RAFT_MESSAGE_READ_REPLY,
        .from = 2,
        .term = 1,
        .context = second,
        .hint_index = epoch + 1,
        .index = 4 };
    lab_deliver(lab, reply); /* an answer to an earlier life of this member */
    assert_int_equal(lab->ready.grant_count, 0);
    reply.hint_index = epoch;
    reply.context = first;
    lab_deliver(lab, reply);
    assert_int_equal(lab->ready.grant_count, 1);
    assert_int_equal(lab->ready.grants[0].context, 5);
    reply.context = second;
    lab_read(lab, 7);
    lab_deliver(lab, reply);
    assert_int_equal(lab->ready.grant_count, 1);
    assert_int_equal(lab->ready.grants[0].context, 6);
}

static void lost_question_is_asked_again(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1 });
    lab_read(lab, 5);
    struct raft_message question = *lab_sent(lab, RAFT_MESSAGE_READ, 2);
    lab_tick(lab, 2);
    const struct raft_message *again = lab_sent(lab, RAFT_MESSAGE_READ, 2);
    assert_true(again->context > question.context);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_READ_REPLY,
                             .from = 2,
                             .term = 1,
                             .context = again->context,
                             .hint_index = again->hint_index,
                             .index = 4 });
    assert_int_equal(lab->ready.grants[0].context, 5);
}

static void follower_that_loses_its_leader_refuses_what_waits(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1 });
    lab_read(lab, 5);
    size_t refused = 0;
    for (unsigned i = 0; i < 2 * lab->options.election_ticks; i++) {
        lab_tick(lab, 1);
        refused += lab->ready.read_refused_count;
    }
    assert_int_equal(refused, 1);
}

/* It is fed until it knows, and so does not miss its leader. */
static void who_is_told_of_its_removal_by_its_leader_refuses_what_waits(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 5); /* two witnesses are not enough to believe it */
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1 });
    lab_read(lab, 5);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_REMOVED, .from = 3, .term = 1 });
    assert_int_equal(lab->ready.read_refused_count, 0);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_REMOVED, .from = 2, .term = 1 });
    assert_int_equal(lab->ready.read_refused_count, 1);
}

static void start_with_lease(struct lab *lab)
{
    lab->options.lease_read = true;
    start_leading(lab);
}

static void lease_grants_at_once_while_a_quorum_has_answered_lately(void **state)
{
    struct lab *lab = *state;
    start_with_lease(lab);
    lab_read(lab, 5);
    assert_int_equal(lab->ready.grant_count, 1);
    assert_int_equal(lab->ready.send.count, 0);

    /* The clock counts, not the ticks: a process that was stopped must not trust its lease. */
    lab->now_ns += lab->options.tick_ns * lab->options.election_ticks;
    lab_read(lab, 6);
    assert_int_equal(lab->ready.grant_count, 0);
    beat(lab, 2, 2);
    assert_int_equal(lab->ready.grant_count, 1);
}

static void lease_counts_on_those_who_promise_it_only(void **state)
{
    struct lab *lab = *state;
    lab->options.lease_read = true;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 1);
    struct raft_message beat = {
        .kind = RAFT_MESSAGE_HEARTBEAT_REPLY, .from = 2, .term = 1, .context = 1
    };
    lab_deliver(lab, beat); /* it keeps no leases */
    lab_read(lab, 5);
    assert_int_equal(lab->ready.grant_count, 0);
    beat.context = 2;
    beat.time_ns = lab->options.tick_ns * lab->options.election_ticks - 1; /* shorter ones */
    lab_deliver(lab, beat);
    assert_int_equal(lab->ready.grant_count, 1); /* by its round */
    lab_read(lab, 6);
    assert_int_equal(lab->ready.grant_count, 0);
    beat.context = 3;
    beat.time_ns++;
    lab_deliver(lab, beat);
    lab_read(lab, 7);
    assert_int_equal(lab->ready.grant_count, 1);
    assert_int_equal(lab->ready.send.count, 0);
}

static void follower_says_for_how_long_it_keeps_a_lease(void **state)
{
    struct lab *lab = *state;
    struct raft_message beat = {
        .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1, .context = 1
    };
    lab_start(lab, 3);
    lab_deliver(lab, beat);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT_REPLY, 2)->time_ns, 0);
    lab_stop(lab);
    lab->options.lease_read = true;
    lab_start(lab, 3);
    lab_deliver(lab, beat);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT_REPLY, 2)->time_ns,
            lab->options.tick_ns * lab->options.election_ticks);
}

static void lease_is_void_once_a_successor_was_told_to_campaign(void **state)
{
    struct lab *lab = *state;
    start_with_lease(lab);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_TRANSFER, .peer_id = 2 });
    for (unsigned i = 0; i < lab->options.election_ticks; i++) {
        lab_tick(lab, 1);
        beat(lab, 2, 2 + i);
    }
    assert_false(lab_status(lab).transferring);
    lab_read(lab, 5);
    assert_int_equal(lab->ready.grant_count, 0); /* it takes a round */
}

static void restarted_member_respects_a_lease_it_may_have_granted(void **state)
{
    struct lab *lab = *state;
    lab->options.lease_read = true;
    lab_start(lab, 3);
    struct raft_message vote = { .kind = RAFT_MESSAGE_VOTE, .from = 2, .term = 2 };
    lab_deliver(lab, vote);
    assert_int_equal(lab_status(lab).term, 0);
    lab->now_ns += lab->options.tick_ns * lab->options.election_ticks;
    lab_deliver(lab, vote);
    assert_int_equal(lab_status(lab).term, 2);
}

/* Of members 1 and 2 the second leads, and its own removal is its last entry. */
static struct raft_entry_span last_entries(void)
{
    static struct raft_entry entries[2];
    entries[0] = lab_entry(1, 1);
    entries[1] = (struct raft_entry){
        .index = 2, .term = 1, .kind = RAFT_ENTRY_CONFIG, .change = { RAFT_CHANGE_REMOVE, 2 }
    };
    return (struct raft_entry_span){ entries, 2 };
}

static void be_left_alone(struct lab *lab, uint64_t commit)
{
    lab->options.lease_read = true;
    lab_start(lab, 2);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_APPEND,
                             .from = 2,
                             .term = 1,
                             .commit = commit,
                             .entries = last_entries() });
    lab_sync(lab);
}

static void last_voter_of_a_change_that_is_not_committed_keeps_the_leaders_lease(void **state)
{
    struct lab *lab = *state;
    be_left_alone(lab, 1);
    lab_tick(lab, lab->options.election_ticks - 1);
    assert_int_equal(lab_status(lab).term, 1);
    lab_tick(lab, 2 * lab->options.election_ticks);
    assert_true(lab_status(lab).term > 1);
}

static void so_it_does_after_a_restart(void **state)
{
    struct lab *lab = *state;
    const struct raft_hard_state hard = { .term = 1, .vote = 2, .commit = 1 };
    lab->options.lease_read = true;
    lab_start_with(lab, 2, hard, NULL, 0);
    assert_int_equal(raft_load_entries(lab->raft, last_entries()), 0);
    lab_tick(lab, lab->options.election_ticks - 1);
    assert_int_equal(lab_status(lab).term, 1);
}

static void last_voter_of_a_committed_change_leads_at_once(void **state)
{
    struct lab *lab = *state;
    be_left_alone(lab, 2);
    lab_tick(lab, 1);
    assert_int_equal(lab_status(lab).term, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(read_waits_for_a_commit_of_the_leaders_term),
        LAB_TEST(round_that_began_before_the_read_does_not_confirm_it),
        LAB_TEST(peer_that_has_a_round_to_answer_is_asked_for_no_other),
        LAB_TEST(round_goes_on_with_a_peer_that_was_still_answering_another),
        LAB_TEST(grant_covers_what_was_committed_when_it_was_asked),
        LAB_TEST(reads_are_refused_when_the_leader_steps_down),
        LAB_TEST(read_without_a_leader_is_refused),
        LAB_TEST(leader_answers_a_followers_question),
        LAB_TEST(follower_asks_the_leader_and_one_answer_serves_all_before_it),
        LAB_TEST(lost_question_is_asked_again),
        LAB_TEST(follower_that_loses_its_leader_refuses_what_waits),
        LAB_TEST(who_is_told_of_its_removal_by_its_leader_refuses_what_waits),
        LAB_TEST(lease_grants_at_once_while_a_quorum_has_answered_lately),
        LAB_TEST(lease_counts_on_those_who_promise_it_only),
        LAB_TEST(follower_says_for_how_long_it_keeps_a_lease),
        LAB_TEST(lease_is_void_once_a_successor_was_told_to_campaign),
        LAB_TEST(restarted_member_respects_a_lease_it_may_have_granted),
        LAB_TEST(last_voter_of_a_change_that_is_not_committed_keeps_the_leaders_lease),
        LAB_TEST(so_it_does_after_a_restart),
        LAB_TEST(last_voter_of_a_committed_change_leads_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
