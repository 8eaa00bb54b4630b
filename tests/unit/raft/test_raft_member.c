/* test_raft_member.c: membership changes, learners, removal, leadership transfer. */
#include "tests/unit/raft/lab.h"

static bool has(struct raft_ids ids, uint64_t id)
{
    for (size_t i = 0; i < ids.count; i++) {
        if (ids.items[i] == id) {
            return true;
        }
    }
    return false;
}

static struct raft_members members_of(const struct lab *lab)
{
    struct raft_members members;
    raft_get_members(lab->raft, &members);
    return members;
}

static struct raft_entry change_entry(
        uint64_t index, uint64_t term, enum raft_change_kind kind, uint64_t id)
{
    return (struct raft_entry){
        .index = index, .term = term, .kind = RAFT_ENTRY_CONFIG, .change = { kind, id }
    };
}

/* Member 1 leads members 1..voters, its first entry is committed. */
static void start_leading(struct lab *lab, size_t voters)
{
    lab_start(lab, voters);
    lab_lead(lab);
    for (uint64_t peer = 2; peer <= voters; peer++) {
        lab_acknowledge(lab, peer, 1);
    }
    assert_int_equal(lab_status(lab).commit_index, 1);
}

static void commit_all(struct lab *lab, size_t voters)
{
    lab_sync(lab);
    for (uint64_t peer = 2; peer <= voters; peer++) {
        lab_acknowledge(lab, peer, lab_status(lab).last_index);
    }
}

static void no_change_before_an_own_entry_is_committed(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_lead(lab);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 9), RAFT_REFUSAL_CHANGE_PENDING);
    lab_acknowledge(lab, 2, 1);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 9), RAFT_REFUSAL_NONE);
}

static void one_change_at_a_time(void **state)
{
    struct lab *lab = *state;
    start_leading(lab, 3);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 8), RAFT_REFUSAL_NONE);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 9), RAFT_REFUSAL_CHANGE_PENDING);
    commit_all(lab, 3);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 9), RAFT_REFUSAL_NONE);
}

static void changes_that_make_no_sense_are_refused(void **state)
{
    struct lab *lab = *state;
    start_leading(lab, 1);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 1), RAFT_REFUSAL_CHANGE_INVALID);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 0), RAFT_REFUSAL_CHANGE_INVALID);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_PROMOTE, 1), RAFT_REFUSAL_CHANGE_INVALID);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_REMOVE, 9), RAFT_REFUSAL_CHANGE_INVALID);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_REMOVE, 1), RAFT_REFUSAL_CHANGE_INVALID);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 9), RAFT_REFUSAL_NONE);
    commit_all(lab, 1);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_REMOVE, 9), RAFT_REFUSAL_NONE);
    commit_all(lab, 1);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 9), RAFT_REFUSAL_CHANGE_INVALID);
    assert_true(has(members_of(lab).removed, 9));
}

static void learner_gets_entries_and_has_no_say(void **state)
{
    struct lab *lab = *state;
    start_leading(lab, 3);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 9), RAFT_REFUSAL_NONE);
    assert_true(lab->ready.members_changed);
    assert_non_null(lab_sent(lab, RAFT_MESSAGE_APPEND, 9));
    lab_sync(lab);
    lab_acknowledge(lab, 9, 2);
    assert_int_equal(lab_status(lab).commit_index, 1);
    lab_acknowledge(lab, 3, 2);
    assert_int_equal(lab_status(lab).commit_index, 2);
}

static void learner_that_has_caught_up_is_due_for_promotion_and_then_counts(void **state)
{
    struct lab *lab = *state;
    lab->options.promote_within = 3;
    start_leading(lab, 3);
    lab_propose(lab, 9);
    commit_all(lab, 3);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 9), RAFT_REFUSAL_NONE);
    commit_all(lab, 3);
    lab_acknowledge(lab, 9, 5);
    lab_tick(lab, 1);
    assert_int_equal(lab->ready.promote_id, 0);
    lab_acknowledge(lab, 9, 9);
    lab_tick(lab, 1);
    assert_int_equal(lab->ready.promote_id, 9);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_PROMOTE, 9), RAFT_REFUSAL_NONE);
    assert_true(has(members_of(lab).voters, 9));

    /* Four voters now: two are no quorum any more. */
    lab_sync(lab);
    uint64_t last = lab_status(lab).last_index;
    lab_acknowledge(lab, 2, last);
    assert_true(lab_status(lab).commit_index < last);
    lab_acknowledge(lab, 9, last);
    assert_int_equal(lab_status(lab).commit_index, last);
}

static void configuration_is_rolled_back_with_its_entry(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    struct raft_entry entries[] = { lab_entry(1, 1), change_entry(2, 1, RAFT_CHANGE_REMOVE, 3) };
    lab_deliver(lab,
            (struct raft_message){
                    .kind = RAFT_MESSAGE_APPEND, .from = 2, .term = 1, .entries = { entries, 2 } });
    assert_true(lab->ready.members_changed);
    assert_false(has(members_of(lab).voters, 3));
    assert_true(has(members_of(lab).removed, 3));

    struct raft_entry other = lab_entry(2, 2);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_APPEND,
                             .from = 3,
                             .term = 2,
                             .index = 1,
                             .log_term = 1,
                             .entries = { &other, 1 } });
    assert_true(lab->ready.members_changed);
    assert_true(has(members_of(lab).voters, 3));
    assert_false(has(members_of(lab).removed, 3));
}

static void configuration_of_the_log_is_in_force_after_a_restart(void **state)
{
    struct lab *lab = *state;
    const uint64_t ids[] = { 1, 2, 3 };
    struct raft_base base = { .members = { .voters = { ids, 3 } } };
    struct raft_hard_state hard = { .term = 1 };
    struct raft_entry entries[] = { change_entry(1, 1, RAFT_CHANGE_ADD_LEARNER, 4),
        change_entry(2, 1, RAFT_CHANGE_REMOVE, 2) };
    lab->options.self_id = 1;
    lab->raft = raft_new(&lab->options, &hard, &base);
    assert_int_equal(raft_load_entries(lab->raft, (struct raft_entry_span){ entries, 2 }), 0);
    struct raft_members members;
    assert_true(raft_get_members_at(lab->raft, 1, &members));
    assert_true(has(members.voters, 2) && has(members.learners, 4));
    assert_true(raft_get_members_at(lab->raft, 2, &members));
    assert_true(!has(members.voters, 2) && has(members.removed, 2));
    assert_false(raft_get_members_at(lab->raft, 3, &members));
}

static void joiner_learns_who_the_first_members_were(void **state)
{
    struct lab *lab = *state;
    start_leading(lab, 3);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 9), RAFT_REFUSAL_NONE);
    uint64_t probed = lab_sent(lab, RAFT_MESSAGE_APPEND, 9)->index;
    commit_all(lab, 3);
    lab_reject(lab, 9, probed, 0, 0);
    const struct raft_message *first = lab_sent(lab, RAFT_MESSAGE_APPEND, 9);
    assert_int_equal(first->index, 0);
    assert_int_equal(first->base.members.voters.count, 3);
    struct raft_message message = *first;
    struct raft_entry entries[2];
    memcpy(entries, first->entries.items, sizeof entries);
    uint64_t ids[3];
    memcpy(ids, first->base.members.voters.items, sizeof ids);
    message.entries.items = entries;
    message.base.members.voters.items = ids;
    message.to = 9;

    struct lab joiner = { .options = raft_options_default, .now_ns = 1 };
    joiner.options.self_id = 9;
    joiner.raft =
            raft_new(&joiner.options, &(struct raft_hard_state){ 0 }, &(struct raft_base){ 0 });
    (void)lab_step(&joiner, (struct raft_input){ .kind = RAFT_INPUT_MESSAGE, .message = &message });
    assert_non_null(joiner.ready.write.base);
    assert_int_equal(joiner.ready.write.base->index, 0);
    assert_int_equal(joiner.ready.write.base->members.voters.count, 3);
    assert_int_equal(joiner.ready.write.append.count, 2);
    assert_true(has(members_of(&joiner).learners, 9));
    assert_int_equal(members_of(&joiner).voters.count, 3);
    lab_sync(&joiner);
    assert_null(joiner.ready.install);
    lab_stop(&joiner);
}

static void joiner_takes_no_entries_before_it_knows_the_members(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 0);
    struct raft_entry entry = lab_entry(1, 1);
    lab_deliver(lab,
            (struct raft_message){
                    .kind = RAFT_MESSAGE_APPEND, .from = 2, .term = 1, .entries = { &entry, 1 } });
    assert_int_equal(lab_status(lab).last_index, 0);
    lab_tick(lab, 50);
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_FOLLOWER);
}

static void removed_member_stops_once_it_has_applied_that(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    assert_int_equal(lab_resume(lab, 0, 0), 0);
    struct raft_entry entry = change_entry(1, 1, RAFT_CHANGE_REMOVE, 1);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_APPEND,
                             .from = 2,
                             .term = 1,
                             .commit = 1,
                             .entries = { &entry, 1 } });
    lab_sync(lab);
    assert_false(lab->ready.removed);
    lab_applied(lab, 1);
    assert_true(lab->ready.removed);
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.refused[0].reason, RAFT_REFUSAL_STOPPED);
    lab_tick(lab, 50);
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_FOLLOWER);
}

static void removed_member_believes_only_a_quorum_of_the_others(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 5);
    for (int i = 0; i < 3; i++) {
        lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_REMOVED, .from = 2 });
        lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_REMOVED, .from = 8 });
    }
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_REMOVED, .from = 3 });
    assert_false(lab->ready.removed);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_REMOVED, .from = 4 });
    assert_true(lab->ready.removed);
}

static void word_of_a_leader_outweighs_those_who_say_removed(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 5);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_REMOVED, .from = 2 });
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_REMOVED, .from = 3 });
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 5, .term = 1 });
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_REMOVED, .from = 4 });
    assert_false(lab->ready.removed);
}

static void member_whose_removal_is_committed_is_turned_away(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    struct raft_entry entry = change_entry(1, 1, RAFT_CHANGE_REMOVE, 3);
    struct raft_message message = {
        .kind = RAFT_MESSAGE_APPEND, .from = 2, .term = 1, .entries = { &entry, 1 }
    };
    struct raft_message vote = {
        .kind = RAFT_MESSAGE_VOTE, .from = 3, .term = 9, .index = 9, .log_term = 8, .transfer = true
    };
    lab_deliver(lab, message);
    message.commit = 1;
    lab_deliver(lab, message);
    lab_deliver(lab, vote);
    assert_int_equal(lab_status(lab).term, 1);
    assert_non_null(lab_sent(lab, RAFT_MESSAGE_REMOVED, 3));
}

static void uncommitted_removal_turns_nobody_away(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    struct raft_entry entry = change_entry(1, 1, RAFT_CHANGE_REMOVE, 3);
    lab_deliver(lab,
            (struct raft_message){
                    .kind = RAFT_MESSAGE_APPEND, .from = 2, .term = 1, .entries = { &entry, 1 } });
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_VOTE,
                             .from = 3,
                             .term = 9,
                             .index = 9,
                             .log_term = 8,
                             .transfer = true });
    assert_non_null(lab_vowed(lab, RAFT_MESSAGE_VOTE_REPLY, 3));
}

static void leader_goes_on_until_its_own_removal_is_committed_then_hands_over(void **state)
{
    struct lab *lab = *state;
    start_leading(lab, 3);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_REMOVE, 1), RAFT_REFUSAL_NONE);
    lab_sync(lab);
    lab_acknowledge(lab, 2, 2);
    assert_int_equal(lab_status(lab).commit_index, 1); /* its own disk counts no more */
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_LEADER);
    lab_acknowledge(lab, 3, 2);
    assert_int_equal(lab_status(lab).commit_index, 2);
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_FOLLOWER);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2)->commit, 2);
    assert_int_equal(lab_count_sent(lab, RAFT_MESSAGE_TIMEOUT_NOW), 1);
}

static void voter_campaigns_while_its_removal_is_not_committed(void **state)
{
    (void)state;
    const uint64_t ids[] = { 1, 2 };
    struct raft_base base = { .members = { .voters = { ids, 2 } } };
    struct raft_entry entry = change_entry(1, 1, RAFT_CHANGE_REMOVE, 1);
    struct lab lab = { .options = raft_options_default, .now_ns = 1 };
    lab.options.self_id = 1;
    lab.raft = raft_new(&lab.options, &(struct raft_hard_state){ .term = 1 }, &base);
    assert_int_equal(raft_load_entries(lab.raft, (struct raft_entry_span){ &entry, 1 }), 0);
    lab_lead(&lab);
    assert_int_equal(lab_status(&lab).role, RAFT_ROLE_LEADER); /* by the vote of 2 alone */
    lab_acknowledge(&lab, 2, 2);
    assert_int_equal(lab_status(&lab).commit_index, 2);
    assert_int_equal(lab_status(&lab).role, RAFT_ROLE_FOLLOWER);
    lab_stop(&lab);
}

static void removed_peer_still_gets_the_entry_that_removes_it(void **state)
{
    struct lab *lab = *state;
    start_leading(lab, 3);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_REMOVE, 3), RAFT_REFUSAL_NONE);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 3)->entries.count, 1);
    lab_sync(lab);
    lab_acknowledge(lab, 3, 2);
    assert_int_equal(lab_status(lab).commit_index, 1); /* it has no say any more */
    lab_acknowledge(lab, 2, 2);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 3)->commit, 2);
    struct raft_peer_status peer;
    assert_true(raft_get_peer_status(lab->raft, 1, &peer));
    for (unsigned i = 0; i < 3 * lab->options.election_ticks; i++) {
        lab_acknowledge(lab, 2, 2); /* or the quorum check ends it */
        lab_tick(lab, 1);
    }
    assert_false(raft_get_peer_status(lab->raft, 1, &peer));
}

/* ---- Transfer ------------------------------------------------------------------------------------------------- */

static void transfer(struct lab *lab, uint64_t to)
{
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_TRANSFER, .peer_id = to });
}

static void successor_must_have_everything_first(void **state)
{
    struct lab *lab = *state;
    start_leading(lab, 3);
    lab_propose(lab, 2);
    transfer(lab, 3);
    assert_int_equal(lab_count_sent(lab, RAFT_MESSAGE_TIMEOUT_NOW), 0);
    lab_acknowledge(lab, 3, 2);
    assert_int_equal(lab_count_sent(lab, RAFT_MESSAGE_TIMEOUT_NOW), 0);
    lab_acknowledge(lab, 3, 3);
    assert_non_null(lab_sent(lab, RAFT_MESSAGE_TIMEOUT_NOW, 3));
}

static void leader_takes_nothing_while_it_hands_over_and_goes_on_if_that_fails(void **state)
{
    struct lab *lab = *state;
    start_leading(lab, 3);
    lab_read(lab, 1);
    transfer(lab, 0);
    assert_int_equal(lab->ready.reads_refused[0].reason, RAFT_REFUSAL_TRANSFERRING);
    assert_true(lab_status(lab).transferring);
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.refused[0].reason, RAFT_REFUSAL_TRANSFERRING);
    lab_read(lab, 2);
    assert_int_equal(lab->ready.reads_refused[0].reason, RAFT_REFUSAL_TRANSFERRING);
    for (unsigned i = 0; i < lab->options.election_ticks; i++) {
        lab_acknowledge(lab, 2, 1);
        lab_tick(lab, 1);
    }
    assert_false(lab_status(lab).transferring);
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.refused_count, 0);
}

static void leadership_goes_to_voters_only(void **state)
{
    struct lab *lab = *state;
    start_leading(lab, 3);
    assert_int_equal(lab_change(lab, RAFT_CHANGE_ADD_LEARNER, 9), RAFT_REFUSAL_NONE);
    commit_all(lab, 3);
    lab_acknowledge(lab, 9, 2);
    transfer(lab, 9);
    assert_false(lab_status(lab).transferring);
    transfer(lab, 7);
    assert_false(lab_status(lab).transferring);
    transfer(lab, 1);
    assert_false(lab_status(lab).transferring);
}

static void leader_without_space_hands_over(void **state)
{
    struct lab *lab = *state;
    start_leading(lab, 3);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_WRITABLE, .writable = false });
    assert_int_equal(lab_count_sent(lab, RAFT_MESSAGE_TIMEOUT_NOW), 1);
    lab_stop(lab);
    start_leading(lab, 1);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_WRITABLE, .writable = false });
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.refused[0].reason, RAFT_REFUSAL_NO_SPACE);
    lab_read(lab, 3);
    assert_int_equal(lab->ready.grant_count, 1); /* reads go on */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(no_change_before_an_own_entry_is_committed),
        LAB_TEST(one_change_at_a_time),
        LAB_TEST(changes_that_make_no_sense_are_refused),
        LAB_TEST(learner_gets_entries_and_has_no_say),
        LAB_TEST(learner_that_has_caught_up_is_due_for_promotion_and_then_counts),
        LAB_TEST(configuration_is_rolled_back_with_its_entry),
        LAB_TEST(configuration_of_the_log_is_in_force_after_a_restart),
        LAB_TEST(joiner_learns_who_the_first_members_were),
        LAB_TEST(joiner_takes_no_entries_before_it_knows_the_members),
        LAB_TEST(removed_member_stops_once_it_has_applied_that),
        LAB_TEST(removed_member_believes_only_a_quorum_of_the_others),
        LAB_TEST(word_of_a_leader_outweighs_those_who_say_removed),
        LAB_TEST(member_whose_removal_is_committed_is_turned_away),
        LAB_TEST(uncommitted_removal_turns_nobody_away),
        LAB_TEST(leader_goes_on_until_its_own_removal_is_committed_then_hands_over),
        cmocka_unit_test(voter_campaigns_while_its_removal_is_not_committed),
        LAB_TEST(removed_peer_still_gets_the_entry_that_removes_it),
        LAB_TEST(successor_must_have_everything_first),
        LAB_TEST(leader_takes_nothing_while_it_hands_over_and_goes_on_if_that_fails),
        LAB_TEST(leadership_goes_to_voters_only),
        LAB_TEST(leader_without_space_hands_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
