/* test_raft_apply.c: what is durable, what is handed to the state machine, snapshots installed. */
#include <errno.h>

#include "tests/unit/raft/lab.h"

static const uint64_t ones[100] = { [0 ... 99] = 1 };

static void append(struct lab *lab, uint64_t from, uint64_t term, uint64_t index, uint64_t log_term,
        uint64_t entry_term, size_t count, uint64_t commit)
{
    struct raft_entry entries[32];
    assert_true(count <= ARRAY_COUNT(entries));
    for (size_t i = 0; i < count; i++) {
        entries[i] = lab_entry(index + 1 + i, entry_term);
    }
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_APPEND,
                             .from = from,
                             .term = term,
                             .index = index,
                             .log_term = log_term,
                             .commit = commit,
                             .entries = { entries, count } });
}

static void completion_does_not_vouch_for_another_term(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    append(lab, 2, 1, 0, 0, 1, 5, 0); /* write 1: 1..5 of term 1 */
    append(lab, 3, 2, 2, 1, 2, 3, 0); /* write 2: cut to 2, 3..5 of term 2 */
    assert_true(lab->ready.write.cut);
    lab_sync_write(lab, 1, 5, 1);
    assert_int_equal(lab_status(lab).durable_index, 2);
    lab_sync_write(lab, 2, 5, 2);
    assert_int_equal(lab_status(lab).durable_index, 5);
}

static void completion_does_not_vouch_for_an_entry_that_was_cut_and_came_back(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    append(lab, 2, 1, 0, 0, 1, 5, 0); /* write 1: 1..5 of term 1 */
    append(lab, 3, 2, 2, 1, 2, 1, 0); /* write 2: cut to 2, 3 of term 2 */
    append(lab, 2, 3, 2, 1, 1, 3, 0); /* write 3: cut to 2, 3..5 of term 1 again */
    assert_int_equal(lab->ready.write.seq, 3);
    assert_int_equal(raft_term_at(lab->raft, 5), 1);
    /* Now the disk has 3..5, but write 2 may yet remove them and write 3 not bring them back. */
    lab_sync_write(lab, 1, 5, 1);
    assert_int_equal(lab_status(lab).durable_index, 2);
    lab_sync_write(lab, 2, 3, 2);
    assert_int_equal(lab_status(lab).durable_index, 2);
    lab_sync_write(lab, 3, 5, 1);
    assert_int_equal(lab_status(lab).durable_index, 5);
}

static void completions_that_are_not_due_are_ignored(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    append(lab, 2, 1, 0, 0, 1, 5, 0);
    lab_sync_write(lab, 9, 5, 1);
    assert_int_equal(lab_status(lab).durable_index, 0);
    lab_sync_write(lab, 1, 5, 1);
    lab_sync_write(lab, 1, 5, 1);
    assert_int_equal(lab_status(lab).durable_index, 5);
}

static void one_completion_stands_for_the_writes_before_it(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    append(lab, 2, 1, 0, 0, 1, 2, 0);
    append(lab, 2, 1, 2, 1, 1, 2, 0);
    lab_sync(lab);
    assert_int_equal(lab_status(lab).durable_index, 4);
}

static void entries_are_applied_up_to_the_lower_of_commit_and_durable(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    assert_int_equal(lab_resume(lab, 0, 0), 0);
    append(lab, 2, 1, 0, 0, 1, 4, 3);
    assert_int_equal(lab_status(lab).commit_index, 3);
    assert_int_equal(lab->ready.apply.count, 0);
    lab_sync(lab);
    assert_int_equal(lab->ready.apply.count, 3);
    assert_int_equal(lab->ready.apply.items[2].index, 3);
    append(lab, 2, 1, 4, 1, 1, 0, 4);
    assert_int_equal(lab->ready.apply.count, 1);
    assert_int_equal(lab->ready.apply_prev_index, 3);
    assert_int_equal(lab->ready.apply_prev_term, 1);
}

static void nothing_is_applied_before_the_state_machine_says_where_it_is(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 10 }, ones, 10);
    lab_tick(lab, 1);
    assert_int_equal(lab->ready.apply.count, 0);
    assert_int_equal(lab_resume(lab, 4, 1), 0);
    assert_int_equal(lab->ready.apply.count, 6);
    assert_int_equal(lab->ready.apply.items[0].index, 5);
}

static void what_was_applied_raises_a_commit_that_lagged_on_disk(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 2 }, ones, 10);
    assert_int_equal(lab_status(lab).commit_index, 2);
    assert_int_equal(lab_resume(lab, 7, 1), 0);
    assert_int_equal(lab_status(lab).commit_index, 7);
    assert_int_equal(lab->ready.apply.count, 0);
}

static void state_that_is_not_of_this_log_is_refused(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 2 }, ones, 10);
    assert_int_equal(lab_resume(lab, 11, 1), -ERANGE);
    assert_int_equal(lab_resume(lab, 9, 2), -ERANGE);
    assert_int_equal(lab_status(lab).commit_index, 2);
}

static void state_behind_the_log_is_told_where_it_begins(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 9 }, ones, 10);
    lab_snapshot_made(lab, 8, 1);
    lab_compacted(lab, 6, 1);
    assert_int_equal(lab_status(lab).base_index, 6);
    assert_int_equal(lab_resume(lab, 5, 1), -ESTALE);
    assert_int_equal(lab->ready.install->index, 6);
    assert_int_equal(lab->ready.install->term, 1);
    assert_int_equal(lab->ready.install->members.voters.count, 3);
    assert_int_equal(lab_resume(lab, 8, 1), 0);
    assert_int_equal(lab->ready.apply.count, 1);
}

static void entries_lost_on_the_way_are_handed_again(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 6 }, ones, 10);
    assert_int_equal(lab_resume(lab, 0, 0), 0);
    assert_int_equal(lab->ready.apply.count, 6);
    lab_applied(lab, 2);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_APPLY_PAUSE });
    lab_tick(lab, 1);
    assert_int_equal(lab->ready.apply.count, 0);
    assert_int_equal(lab_resume(lab, 2, 1), 0);
    assert_int_equal(lab->ready.apply.count, 4);
    assert_int_equal(lab->ready.apply.items[0].index, 3);
}

static void no_more_is_handed_than_the_window_holds(void **state)
{
    struct lab *lab = *state;
    lab->options.apply_bytes_max = 140; /* two entries */
    lab->options.apply_window_bytes_max = 270;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 10 }, ones, 10);
    assert_int_equal(lab_resume(lab, 0, 0), 0);
    assert_int_equal(lab->ready.apply.count, 2);
    lab_tick(lab, 1);
    assert_int_equal(lab->ready.apply.count, 2);
    lab_tick(lab, 1);
    assert_int_equal(lab->ready.apply.count, 0);
    lab_applied(lab, 2);
    assert_int_equal(lab->ready.apply.count, 2);
    assert_int_equal(lab->ready.apply.items[0].index, 5);
}

static void entries_to_apply_that_left_memory_are_asked_from_disk(void **state)
{
    struct lab *lab = *state;
    lab->options.cache_bytes_max = 0;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 10 }, ones, 12);
    assert_int_equal(lab_resume(lab, 3, 1), 0);
    assert_int_equal(lab->ready.need_count, 1);
    assert_int_equal(lab->ready.needs[0].peer_id, 0);
    assert_int_equal(lab->ready.needs[0].first, 4);
    assert_int_equal(lab->ready.needs[0].end, 11);
    lab_tick(lab, 1);
    assert_int_equal(lab->ready.need_count, 0); /* asked once */
    struct raft_entry entries[] = { lab_entry(4, 1), lab_entry(5, 1) };
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_ENTRIES_READ,
                                .read = { 0, 4, { entries, 2 } } });
    assert_int_equal(lab->ready.apply.count, 2);
    assert_int_equal(lab->ready.apply_prev_index, 3);
    lab_tick(lab, 1);
    assert_int_equal(lab->ready.needs[0].first, 6);

    /* Read for a state machine that has since gone and come back elsewhere. */
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_APPLY_PAUSE });
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_ENTRIES_READ,
                                .read = { 0, 6, { entries, 2 } } });
    assert_int_equal(lab->ready.apply.count, 0);
}

static void unreadable_entries_are_asked_for_again(void **state)
{
    struct lab *lab = *state;
    lab->options.cache_bytes_max = 0;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 10 }, ones, 12);
    assert_int_equal(lab_resume(lab, 3, 1), 0);
    struct raft_entry wrong[] = { lab_entry(4, 2) };
    (void)lab_step(lab,
            (struct raft_input){ .kind = RAFT_INPUT_ENTRIES_READ, .read = { 0, 4, { wrong, 1 } } });
    assert_int_equal(lab->ready.apply.count, 0);
    lab_tick(lab, 1);
    assert_int_equal(lab->ready.needs[0].first, 4);
}

/* ---- Snapshots ------------------------------------------------------------------------------------------------ */

static struct raft_message snapshot(uint64_t index, uint64_t term)
{
    static const uint64_t ids[] = { 1, 2, 4 };
    return (struct raft_message){ .kind = RAFT_MESSAGE_SNAPSHOT,
        .from = 2,
        .term = 3,
        .base = {
                .index = index, .term = term, .time_ns = 5, .members = { .voters = { ids, 3 } } } };
}

static void snapshot_replaces_the_log_and_is_loaded_once_its_base_is_on_disk(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 5 }, ones, 10);
    assert_int_equal(lab_resume(lab, 5, 1), 0);
    lab_deliver(lab, snapshot(50, 2));
    assert_int_equal(lab->ready.write.base->index, 50);
    assert_int_equal(lab->ready.write.base->members.voters.items[2], 4);
    assert_true(lab->ready.members_changed);
    assert_null(lab->ready.install);
    assert_int_equal(lab_vowed(lab, RAFT_MESSAGE_APPEND_REPLY, 2)->message.index, 50);
    assert_int_equal(lab_status(lab).last_index, 50);
    assert_int_equal(lab_resume(lab, 5, 1), -ESTALE);
    assert_null(lab->ready.install);

    lab_sync(lab);
    assert_int_equal(lab->ready.install->index, 50);
    assert_int_equal(lab->ready.install->term, 2);
    assert_int_equal(lab_resume(lab, 50, 2), 0);
    append(lab, 2, 3, 50, 2, 3, 1, 51);
    lab_sync(lab);
    assert_int_equal(lab->ready.apply.count, 1);
    assert_int_equal(lab->ready.apply_prev_index, 50);
    assert_int_equal(lab->ready.apply_prev_term, 2);
}

static void older_completion_does_not_make_a_base_durable(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    append(lab, 2, 1, 0, 0, 1, 5, 0);
    lab_deliver(lab, snapshot(50, 2));
    lab_sync_write(lab, 1, 5, 1);
    assert_null(lab->ready.install);
    assert_int_equal(lab_status(lab).durable_index, 0);
    lab_sync(lab);
    assert_non_null(lab->ready.install);
    assert_int_equal(lab_status(lab).durable_index, 50);
}

static void snapshot_that_the_log_has_only_commits(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 3, .commit = 5 }, ones, 10);
    lab_deliver(lab, snapshot(8, 1));
    assert_int_equal(lab->ready.write.seq, 0);
    assert_int_equal(lab_status(lab).commit_index, 8);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND_REPLY, 2)->index, 8);
    lab_deliver(lab, snapshot(4, 1)); /* an old one */
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND_REPLY, 2)->index, 8);
}

static void commit_restarts_at_the_base(void **state)
{
    struct lab *lab = *state;
    struct raft_hard_state hard = { .term = 4, .commit = 3 };
    const uint64_t ids[] = { 1, 2, 3 };
    struct raft_base base = { .index = 20, .term = 3, .members = { .voters = { ids, 3 } } };
    lab->options.self_id = 1;
    lab->raft = raft_new(&lab->options, &hard, &base);
    struct raft_entry wrong = lab_entry(22, 4);
    assert_int_equal(raft_load_entries(lab->raft, (struct raft_entry_span){ &wrong, 1 }), -EINVAL);
    struct raft_entry older = lab_entry(21, 2);
    assert_int_equal(raft_load_entries(lab->raft, (struct raft_entry_span){ &older, 1 }), -EINVAL);
    struct raft_entry next = lab_entry(21, 4);
    assert_int_equal(raft_load_entries(lab->raft, (struct raft_entry_span){ &next, 1 }), 0);
    assert_int_equal(lab_status(lab).commit_index, 20);
    assert_int_equal(lab_status(lab).durable_index, 21);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(completion_does_not_vouch_for_another_term),
        LAB_TEST(completion_does_not_vouch_for_an_entry_that_was_cut_and_came_back),
        LAB_TEST(completions_that_are_not_due_are_ignored),
        LAB_TEST(one_completion_stands_for_the_writes_before_it),
        LAB_TEST(entries_are_applied_up_to_the_lower_of_commit_and_durable),
        LAB_TEST(nothing_is_applied_before_the_state_machine_says_where_it_is),
        LAB_TEST(what_was_applied_raises_a_commit_that_lagged_on_disk),
        LAB_TEST(state_that_is_not_of_this_log_is_refused),
        LAB_TEST(state_behind_the_log_is_told_where_it_begins),
        LAB_TEST(entries_lost_on_the_way_are_handed_again),
        LAB_TEST(no_more_is_handed_than_the_window_holds),
        LAB_TEST(entries_to_apply_that_left_memory_are_asked_from_disk),
        LAB_TEST(unreadable_entries_are_asked_for_again),
        LAB_TEST(snapshot_replaces_the_log_and_is_loaded_once_its_base_is_on_disk),
        LAB_TEST(older_completion_does_not_make_a_base_durable),
        LAB_TEST(snapshot_that_the_log_has_only_commits),
        LAB_TEST(commit_restarts_at_the_base),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
