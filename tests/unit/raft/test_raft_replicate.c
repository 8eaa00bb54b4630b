/* test_raft_replicate.c: appends sent and received, commit, snapshots. */
#include "tests/unit/raft/lab.h"

static const uint64_t ones[500] = { [0 ... 499] = 1 };

static struct raft_message append(uint64_t term, uint64_t index, uint64_t log_term,
        const struct raft_entry *entries, size_t count)
{
    return (struct raft_message){ .kind = RAFT_MESSAGE_APPEND,
        .from = 2,
        .term = term,
        .index = index,
        .log_term = log_term,
        .entries = { entries, count } };
}

/* ---- The follower --------------------------------------------------------------------------------------------- */

static void acknowledgement_waits_for_the_disk(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    struct raft_entry entries[] = { lab_entry(1, 1), lab_entry(2, 1) };
    lab_deliver(lab, append(1, 0, 0, entries, 2));
    assert_null(lab_sent(lab, RAFT_MESSAGE_APPEND_REPLY, 2));
    const struct raft_vow *vow = lab_vowed(lab, RAFT_MESSAGE_APPEND_REPLY, 2);
    assert_int_equal(vow->message.index, 2);
    assert_int_equal(vow->after_seq, lab->ready.write.seq);
    assert_int_equal(lab->ready.write.append.count, 2);
    assert_true(span_eq(lab->ready.write.append.items[1].data, SPAN_LIT("data")));

    /* The same append again has nothing to write, but the promise still waits for the same write. */
    lab_deliver(lab, append(1, 0, 0, entries, 2));
    assert_int_equal(lab->ready.write.seq, 0);
    assert_int_equal(lab_vowed(lab, RAFT_MESSAGE_APPEND_REPLY, 2)->after_seq, lab->seq);
    lab_sync(lab);
    lab_deliver(lab, append(1, 0, 0, entries, 2));
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND_REPLY, 2)->index, 2);
}

static void gap_is_rejected_with_where_the_log_ends(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1 }, ones, 3);
    lab_deliver(lab, append(1, 9, 1, NULL, 0));
    const struct raft_message *reply = lab_sent(lab, RAFT_MESSAGE_APPEND_REPLY, 2);
    assert_true(reply->reject);
    assert_int_equal(reply->index, 9);
    assert_int_equal(reply->hint_index, 3);
    assert_int_equal(reply->hint_term, 1);
}

static void hint_skips_a_whole_term_that_the_leader_lacks(void **state)
{
    struct lab *lab = *state;
    static const uint64_t terms[] = { 1, 1, 3, 3, 3, 3 };
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 3 }, terms, 6);
    lab_deliver(lab, append(5, 6, 2, NULL, 0));
    const struct raft_message *reply = lab_sent(lab, RAFT_MESSAGE_APPEND_REPLY, 2);
    assert_true(reply->reject);
    assert_int_equal(reply->hint_index, 2);
    assert_int_equal(reply->hint_term, 1);
}

static void conflicting_tail_is_cut_and_replaced_in_one_write(void **state)
{
    struct lab *lab = *state;
    static const uint64_t terms[] = { 1, 1, 2, 2, 2 };
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 2 }, terms, 5);
    struct raft_entry entries[] = { lab_entry(2, 1), lab_entry(3, 3) };
    lab_deliver(lab, append(3, 1, 1, entries, 2));
    assert_true(lab->ready.write.cut);
    assert_int_equal(lab->ready.write.cut_index, 2);
    assert_int_equal(lab->ready.write.append.count, 1);
    assert_int_equal(lab->ready.write.append.items[0].index, 3);
    assert_int_equal(lab->ready.write.hard.term, 3);
    assert_int_equal(lab->ready.write.last_index, 3);
    assert_int_equal(lab_status(lab).durable_index, 2);
    lab_sync(lab);
    assert_int_equal(lab_status(lab).durable_index, 3);
}

static void matching_entries_are_not_cut_by_a_late_append(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1 }, ones, 5);
    struct raft_entry entries[] = { lab_entry(2, 1) };
    lab_deliver(lab, append(1, 1, 1, entries, 1));
    assert_false(lab->ready.write.cut);
    assert_int_equal(lab_status(lab).last_index, 5);
    assert_int_equal(
            lab_sent(lab, RAFT_MESSAGE_APPEND_REPLY, 2)->index, 2); /* no more than it said */
}

static void what_is_committed_is_never_cut(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 3 }, ones, 5);
    struct raft_entry entries[] = { lab_entry(2, 2), lab_entry(3, 2), lab_entry(4, 2),
        lab_entry(5, 2) };
    lab_deliver(lab, append(2, 1, 1, entries, 4));
    assert_int_equal(raft_term_at(lab->raft, 3), 1);
    lab_deliver(lab, append(2, 1, 1, entries, 2));
    assert_false(lab->ready.write.cut);
    assert_int_equal(raft_term_at(lab->raft, 3), 1);
}

static void senseless_entries_are_ignored(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 4 }, ones, 2);
    struct raft_entry gap[] = { lab_entry(3, 1), lab_entry(5, 1) };
    struct raft_entry falling[] = { lab_entry(3, 3), lab_entry(4, 2) };
    struct raft_entry future[] = { lab_entry(3, 9) };
    struct raft_entry kind[] = { lab_entry(3, 4) };
    kind[0].kind = (enum raft_entry_kind)7;
    lab_deliver(lab, append(4, 2, 1, gap, 2));
    lab_deliver(lab, append(4, 2, 1, falling, 2));
    lab_deliver(lab, append(4, 2, 1, future, 1));
    lab_deliver(lab, append(4, 2, 1, kind, 1));
    assert_int_equal(lab_status(lab).last_index, 2);
    assert_int_equal(lab_status(lab).messages_ignored, 4);
}

static void commit_follows_the_leader_only_as_far_as_the_logs_match(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1 }, ones, 5);
    struct raft_message message = append(1, 3, 1, NULL, 0);
    message.commit = 5;
    lab_deliver(lab, message);
    assert_int_equal(lab_status(lab).commit_index, 3);
    lab_deliver(lab, (struct raft_message){
                             .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1, .commit = 9 });
    assert_int_equal(lab_status(lab).commit_index, 3);
}

static void full_disk_takes_no_entries_and_promises_none(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1 }, ones, 2);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_WRITABLE, .writable = false });
    struct raft_entry entries[] = { lab_entry(3, 1) };
    lab_deliver(lab, append(1, 2, 1, entries, 1));
    assert_int_equal(lab_status(lab).last_index, 2);
    assert_int_equal(lab->ready.send.count + lab->ready.vow_count, 0);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_WRITABLE, .writable = true });
    lab_deliver(lab, append(1, 2, 1, entries, 1));
    assert_int_equal(lab_status(lab).last_index, 3);
}

static void full_disk_is_told_with_each_heartbeats_answer(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    struct raft_message heartbeat = {
        .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1, .context = 1
    };
    lab_deliver(lab, heartbeat);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT_REPLY, 2)->reason, RAFT_REFUSAL_NONE);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_WRITABLE, .writable = false });
    lab_deliver(lab, heartbeat);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT_REPLY, 2)->reason, RAFT_REFUSAL_NO_SPACE);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_REACHABLE, .peer_id = 2 });
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT_REPLY, 2)->reason, RAFT_REFUSAL_NO_SPACE);
}

/* ---- The leader ----------------------------------------------------------------------------------------------- */

static void entries_go_to_peers_and_to_disk_at_the_same_time(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 1);
    lab_propose(lab, 2);
    assert_int_equal(lab->ready.write.append.count, 2);
    const struct raft_message *message = lab_sent(lab, RAFT_MESSAGE_APPEND, 2);
    assert_int_equal(message->entries.count, 2);
    assert_int_equal(message->index, 1);
    assert_int_equal(message->log_term, 1);
    assert_true(span_eq(message->entries.items[0].data, SPAN_LIT("proposed")));
}

static void leader_counts_itself_only_with_what_its_disk_has(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 1);
    lab_propose(lab, 1);
    lab_acknowledge(lab, 2, 2);
    assert_int_equal(lab_status(lab).commit_index, 1);
    lab_sync(lab);
    assert_int_equal(lab_status(lab).commit_index, 2);
}

static void quorum_of_others_commits_before_the_leaders_own_disk(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    assert_int_equal(lab_resume(lab, 0, 0), 0);
    lab_lead(lab);
    lab_propose(lab, 1);
    lab_acknowledge(lab, 2, 2);
    lab_acknowledge(lab, 3, 2);
    assert_int_equal(lab_status(lab).commit_index, 2);
    assert_int_equal(
            lab_status(lab).handed_index, 1); /* but only what is durable here is applied here */
    lab_sync(lab);
    assert_int_equal(lab_status(lab).handed_index, 2);
}

static void entries_of_older_terms_are_committed_only_with_one_of_its_own(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1 }, ones, 3);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 3);
    assert_int_equal(lab_status(lab).commit_index, 0);
    lab_acknowledge(lab, 2, 4);
    assert_int_equal(lab_status(lab).commit_index, 4);
}

static void commit_is_told_to_a_peer_that_gets_no_append(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 1);
    const struct raft_message *notice = lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2);
    assert_int_equal(notice->commit, 1);
    assert_int_equal(notice->context, 0); /* wants no answer */
}

static void commit_notice_is_not_answered(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 9 });
    assert_int_equal(lab->ready.send.count + lab->ready.vow_count, 0);
}

static void heartbeat_commits_nothing_that_the_peer_may_lack(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 1);
    lab_tick(lab, 1);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2)->commit, 1);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 3)->commit, 0);
}

static void unanswered_appends_are_limited(void **state)
{
    struct lab *lab = *state;
    lab->options.inflight_max = 3;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 1);
    size_t sent = 0;
    for (size_t count = 1; count <= 32; count *= 2) {
        lab_propose(lab, count); /* as many as there are unanswered: none waits for company */
        sent += lab_sent(lab, RAFT_MESSAGE_APPEND, 2) != NULL;
    }
    assert_int_equal(sent, 3);
    lab_acknowledge(lab, 2, 4); /* two answers at once: the rest goes in one append */
    assert_int_equal(lab_count_sent(lab, RAFT_MESSAGE_APPEND), 1);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, 8 + 16 + 32);
}

static void append_is_bounded_in_bytes(void **state)
{
    struct lab *lab = *state;
    lab->options.append_bytes_max = 250;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 1);
    lab_propose(lab, 6);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, 3);
    assert_int_equal(lab_count_sent(lab, RAFT_MESSAGE_APPEND), 2);
}

static void lost_append_is_found_out_by_the_next_heartbeat(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 1);
    lab_propose(lab, 2); /* lost */
    lab_beat(lab, 2, 0);
    const struct raft_message *probe = lab_sent(lab, RAFT_MESSAGE_APPEND, 2);
    assert_int_equal(probe->index, 3);
    assert_int_equal(probe->entries.count, 0);
    lab_reject(lab, 2, 3, 1, 1);
    const struct raft_message *again = lab_sent(lab, RAFT_MESSAGE_APPEND, 2);
    assert_int_equal(again->index, 1);
    assert_int_equal(again->entries.count, 2);
}

static void rejection_hint_skips_back_to_where_the_logs_can_meet(void **state)
{
    struct lab *lab = *state;
    static const uint64_t terms[] = { 1, 1, 2, 2, 4, 4 };
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 4 }, terms, 6);
    lab_lead(lab);
    /* The peer has term 3 from index 3 to 6: of ours it can only have what is of term 3 or less. */
    lab_reject(lab, 2, 6, 6, 3);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->index, 4);
}

static void entries_no_longer_in_memory_are_asked_from_disk(void **state)
{
    struct lab *lab = *state;
    lab->options.cache_bytes_max = 0;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 20 }, ones, 20);
    lab_lead(lab);
    lab_reject(lab, 2, 20, 5, 1);
    assert_int_equal(lab->ready.need_count, 1);
    assert_int_equal(lab->ready.needs[0].peer_id, 2);
    assert_int_equal(lab->ready.needs[0].first, 6);
    assert_int_equal(lab->ready.needs[0].end, 21);
    assert_null(lab_sent(lab, RAFT_MESSAGE_APPEND, 2));

    struct raft_entry entries[] = { lab_entry(6, 1), lab_entry(7, 1), lab_entry(8, 9) };
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_ENTRIES_READ,
                                .read = { 2, 6, { entries, 3 } } });
    const struct raft_message *message = lab_sent(lab, RAFT_MESSAGE_APPEND, 2);
    assert_int_equal(message->index, 5);
    assert_int_equal(message->entries.count, 2); /* the third is not of our log */
}

static void peer_behind_the_log_gets_a_snapshot(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 20 }, ones, 20);
    lab_snapshot_made(lab, 15, 1);
    lab_compacted(lab, 12, 1);
    lab_lead(lab);
    lab_reject(lab, 2, 20, 5, 1);
    const struct raft_message *message = lab_sent(lab, RAFT_MESSAGE_SNAPSHOT, 2);
    assert_int_equal(message->base.index, 15);
    assert_int_equal(message->base.term, 1);
    assert_int_equal(message->base.members.voters.count, 3);

    lab_propose(lab, 1); /* nothing else goes there meanwhile */
    assert_null(lab_sent(lab, RAFT_MESSAGE_APPEND, 2));
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_SNAPSHOT_SENT, .peer_id = 2 });
    lab_beat(lab, 2, 5);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->index, 15);
    lab_acknowledge(lab, 2, 15);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->index, 15);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, 7);
}

static void failed_snapshot_is_tried_again_once_the_peer_is_heard(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 20 }, ones, 20);
    lab_snapshot_made(lab, 20, 1);
    lab_compacted(lab, 20, 1);
    lab_lead(lab);
    lab_reject(lab, 2, 20, 0, 0);
    assert_non_null(lab_sent(lab, RAFT_MESSAGE_SNAPSHOT, 2));
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_SNAPSHOT_FAILED, .peer_id = 2 });
    assert_int_equal(lab->ready.send.count, 0);
    lab_beat(lab, 2, 0);
    assert_non_null(lab_sent(lab, RAFT_MESSAGE_SNAPSHOT, 2));
}

static void proposals_above_the_budget_are_refused_until_some_commit(void **state)
{
    struct lab *lab = *state;
    lab->options.uncommitted_bytes_max = 300;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 1);
    lab_propose(lab, 4);
    assert_int_equal(lab->ready.refused_count, 0);
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.refused[0].reason, RAFT_REFUSAL_OVERLOADED);
    assert_int_equal(lab->ready.refused[0].context, 77);
    lab_sync(lab);
    lab_acknowledge(lab, 2, 5);
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.refused_count, 0);
}

static void follower_passes_proposals_on_and_hears_of_their_refusal(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.refused[0].reason, RAFT_REFUSAL_NO_LEADER);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1 });
    lab_propose(lab, 2);
    assert_int_equal(lab->ready.refused_count, 0);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_PROPOSE, 2)->entries.count, 2);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_PROPOSE_REFUSED,
                             .from = 2,
                             .term = 1,
                             .context = 77,
                             .reason = RAFT_REFUSAL_OVERLOADED });
    assert_int_equal(lab->ready.refused[0].context, 77);
    assert_int_equal(lab->ready.refused[0].reason, RAFT_REFUSAL_OVERLOADED);
}

/* Else one that was delayed, or read again, could be proposed a second time by a leader who had been one before. */
static void leader_takes_only_what_was_meant_for_its_term(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_lead(lab);
    struct raft_status before;
    struct raft_status after;
    raft_get_status(lab->raft, &before);
    struct raft_entry entry = { .kind = RAFT_ENTRY_OP, .data = SPAN_LIT("x") };
    struct raft_message message = { .kind = RAFT_MESSAGE_PROPOSE,
        .from = 2,
        .term = before.term - 1,
        .context = 5,
        .entries = { &entry, 1 } };
    lab_deliver(lab, message);
    raft_get_status(lab->raft, &after);
    assert_true(after.last_index == before.last_index);
    assert_int_equal(
            lab_sent(lab, RAFT_MESSAGE_PROPOSE_REFUSED, 2)->reason, RAFT_REFUSAL_NO_LEADER);
    message.term = before.term;
    lab_deliver(lab, message);
    raft_get_status(lab->raft, &after);
    assert_true(after.last_index == before.last_index + 1);
}

static void a_peer_that_is_reachable_again_hears_from_the_leader_at_once(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_lead(lab);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_REACHABLE, .peer_id = 3 });
    assert_true(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 3)->context > 0);
    assert_null(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2));
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_REACHABLE, .peer_id = 99 });
    assert_int_equal(lab->ready.send.count, 0);
}

static void a_leader_that_is_reachable_again_hears_from_its_follower(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1 });
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_REACHABLE, .peer_id = 3 });
    assert_int_equal(lab->ready.send.count, 0);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_REACHABLE, .peer_id = 2 });
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT_REPLY, 2)->context, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(leader_takes_only_what_was_meant_for_its_term),
        LAB_TEST(acknowledgement_waits_for_the_disk),
        LAB_TEST(gap_is_rejected_with_where_the_log_ends),
        LAB_TEST(hint_skips_a_whole_term_that_the_leader_lacks),
        LAB_TEST(conflicting_tail_is_cut_and_replaced_in_one_write),
        LAB_TEST(matching_entries_are_not_cut_by_a_late_append),
        LAB_TEST(what_is_committed_is_never_cut),
        LAB_TEST(senseless_entries_are_ignored),
        LAB_TEST(commit_follows_the_leader_only_as_far_as_the_logs_match),
        LAB_TEST(full_disk_takes_no_entries_and_promises_none),
        LAB_TEST(entries_go_to_peers_and_to_disk_at_the_same_time),
        LAB_TEST(leader_counts_itself_only_with_what_its_disk_has),
        LAB_TEST(quorum_of_others_commits_before_the_leaders_own_disk),
        LAB_TEST(entries_of_older_terms_are_committed_only_with_one_of_its_own),
        LAB_TEST(commit_is_told_to_a_peer_that_gets_no_append),
        LAB_TEST(commit_notice_is_not_answered),
        LAB_TEST(heartbeat_commits_nothing_that_the_peer_may_lack),
        LAB_TEST(unanswered_appends_are_limited),
        LAB_TEST(append_is_bounded_in_bytes),
        LAB_TEST(full_disk_is_told_with_each_heartbeats_answer),
        LAB_TEST(lost_append_is_found_out_by_the_next_heartbeat),
        LAB_TEST(rejection_hint_skips_back_to_where_the_logs_can_meet),
        LAB_TEST(entries_no_longer_in_memory_are_asked_from_disk),
        LAB_TEST(peer_behind_the_log_gets_a_snapshot),
        LAB_TEST(failed_snapshot_is_tried_again_once_the_peer_is_heard),
        LAB_TEST(proposals_above_the_budget_are_refused_until_some_commit),
        LAB_TEST(follower_passes_proposals_on_and_hears_of_their_refusal),
        LAB_TEST(a_peer_that_is_reachable_again_hears_from_the_leader_at_once),
        LAB_TEST(a_leader_that_is_reachable_again_hears_from_its_follower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
