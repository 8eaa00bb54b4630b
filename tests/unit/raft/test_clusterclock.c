/* test_clusterclock.c: cluster time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/raftd/raft/clusterclock.h"
#include "tests/unit/raft/lab.h"

enum {
    MS = 1000000
};
static const uint64_t second_ns = 1000 * (uint64_t)MS;
static const uint64_t start_ns = UINT64_C(1700000000000000000);

static void time_runs_with_the_boot_clock_from_what_was_seen_last(void **state)
{
    (void)state;
    struct clusterclock clock = { 0 };
    assert_int_equal(clusterclock_now(&clock, 5 * second_ns), 0);
    clusterclock_observe(&clock, start_ns, 10 * second_ns);
    assert_int_equal(clusterclock_now(&clock, 13 * second_ns), start_ns + 3 * second_ns);
    clusterclock_observe(&clock, start_ns - second_ns, 14 * second_ns); /* an old heartbeat */
    assert_int_equal(clusterclock_now(&clock, 14 * second_ns), start_ns + 4 * second_ns);
    clusterclock_observe(&clock, start_ns + 2 * second_ns, 14 * second_ns);
    assert_int_equal(clusterclock_now(&clock, 15 * second_ns), start_ns + 3 * second_ns);
}

static void step_only_goes_forward(void **state)
{
    (void)state;
    struct clusterclock clock = { 0 };
    clusterclock_observe(&clock, start_ns, 0);
    clusterclock_step(&clock, start_ns - second_ns, 0);
    assert_int_equal(clusterclock_now(&clock, 0), start_ns);
    clusterclock_step(&clock, start_ns + second_ns, 0);
    assert_int_equal(clusterclock_now(&clock, 0), start_ns + second_ns);
}

/* Rounds of 100 ms, each with the same offsets; yields how far the clock has gone beyond the boot clock. */
static int64_t run_rounds(struct clusterclock *clock, const int64_t *offsets, size_t count,
        size_t voters, unsigned rounds)
{
    uint64_t boot_ns = clock->anchor_boot_ns;
    uint64_t begin_ns = clusterclock_now(clock, boot_ns);
    uint64_t begin_boot_ns = boot_ns;
    uint64_t before_ns = begin_ns;
    for (unsigned i = 0; i < rounds; i++) {
        int64_t copy[8];
        memcpy(copy, offsets, count * sizeof *copy);
        clusterclock_round(clock, copy, count, voters, boot_ns);
        boot_ns += 100 * (uint64_t)MS;
        uint64_t now_ns = clusterclock_now(clock, boot_ns);
        assert_true(now_ns >= before_ns);
        before_ns = now_ns;
    }
    return (int64_t)(before_ns - begin_ns) - (int64_t)(boot_ns - begin_boot_ns);
}

static struct clusterclock running(void)
{
    struct clusterclock clock = { 0 };
    clusterclock_observe(&clock, start_ns, second_ns);
    clusterclock_lead(&clock, NULL, 0, 3, second_ns);
    return clock;
}

static void small_offsets_are_slewed_by_one_percent(void **state)
{
    (void)state;
    struct clusterclock clock = running();
    assert_int_equal(run_rounds(&clock, (int64_t[]){ 500 * MS, 500 * MS }, 2, 3, 10), 10 * MS);
    assert_int_equal(run_rounds(&clock, (int64_t[]){ -500 * MS, -500 * MS }, 2, 3, 10), -10 * MS);
    assert_int_equal(run_rounds(&clock, (int64_t[]){ 5 * MS, 5 * MS }, 2, 3, 10), 0);
}

static void time_that_is_far_ahead_waits_for_the_clocks_but_never_goes_back(void **state)
{
    (void)state;
    struct clusterclock clock = running();
    int64_t behind = -3600 * (int64_t)second_ns;
    assert_int_equal(run_rounds(&clock, (int64_t[]){ behind, behind }, 2, 3, 10), -10 * MS);
}

static void median_far_ahead_is_stepped_to_after_three_rounds(void **state)
{
    (void)state;
    int64_t ahead = 60 * (int64_t)second_ns;
    struct clusterclock clock = running();
    assert_int_equal(run_rounds(&clock, (int64_t[]){ ahead, ahead, 0 }, 3, 3, 2), 0);
    assert_int_equal(run_rounds(&clock, (int64_t[]){ ahead, 0, ahead }, 3, 3, 1), ahead);
    clock = running();
    assert_int_equal(run_rounds(&clock, (int64_t[]){ ahead, ahead, 0 }, 3, 3, 2), 0);
    assert_int_equal(run_rounds(&clock, (int64_t[]){ 0, 0, ahead }, 3, 3, 1), 0); /* begins anew */
    assert_int_equal(run_rounds(&clock, (int64_t[]){ ahead, ahead, 0 }, 3, 3, 2), 0);
}

static void single_clock_far_ahead_changes_nothing(void **state)
{
    (void)state;
    int64_t ahead = 60 * (int64_t)second_ns;
    struct clusterclock clock = running();
    assert_int_equal(run_rounds(&clock, (int64_t[]){ ahead, 0, 0 }, 3, 3, 20), 0);
    assert_int_equal(
            run_rounds(&clock, (int64_t[]){ ahead, 0 }, 2, 3, 20), 0); /* one did not answer */
    assert_int_equal(run_rounds(&clock, (int64_t[]){ ahead, ahead, 0, 0 }, 4, 4, 20), 0);
}

static void fewer_than_a_quorum_of_clocks_decide_nothing(void **state)
{
    (void)state;
    struct clusterclock clock = running();
    int64_t ahead = 60 * (int64_t)second_ns;
    assert_int_equal(run_rounds(&clock, (int64_t[]){ ahead, ahead }, 2, 5, 20), 0);
}

static void lone_member_is_slewed_but_never_stepped_by_a_round(void **state)
{
    (void)state;
    struct clusterclock clock = running();
    int64_t ahead = 60 * (int64_t)second_ns;
    assert_int_equal(run_rounds(&clock, &ahead, 1, 1, 20), 0);
    assert_int_equal(run_rounds(&clock, (int64_t[]){ 500 * MS }, 1, 1, 10), 10 * MS);
}

static uint64_t begin_with(int64_t *walls_ns, size_t count, size_t voters, unsigned rounds)
{
    struct clusterclock clock = { 0 };
    for (unsigned i = 0; i < rounds; i++) {
        clusterclock_begin(&clock, walls_ns, count, voters, second_ns);
    }
    return clusterclock_now(&clock, second_ns);
}

static void a_new_clusters_time_begins_at_the_median_of_all(void **state)
{
    (void)state;
    assert_int_equal(begin_with((int64_t[]){ 9000, 5000, 100 }, 3, 3, 1), 5000);
    assert_int_equal(begin_with((int64_t[]){ 4, 1, 5, 2, 3 }, 5, 5, 1), 3);
}

static void a_new_clusters_time_waits_for_those_who_do_not_answer_and_then_takes_the_later_one(
        void **state)
{
    (void)state;
    assert_int_equal(begin_with((int64_t[]){ 9000, 5000 }, 2, 3, 2), 0);
    assert_int_equal(begin_with((int64_t[]){ 9000, 5000 }, 2, 3, 3), 9000);
    assert_int_equal(begin_with((int64_t[]){ 5000, 9000 }, 2, 2, 1), 9000);
    assert_int_equal(begin_with((int64_t[]){ 9000, 5000 }, 2, 5, 10), 0); /* no quorum */
}

/* Nobody led for an hour, and of the two that elected the leader one has a clock that is an hour behind. */
static void voters_that_disagree_whether_time_is_behind_wait_for_the_others(void **state)
{
    (void)state;
    int64_t hour = 3600 * (int64_t)second_ns;
    for (int i = 0; i < 3; i++) {
        struct clusterclock clock = { 0 };
        clusterclock_observe(&clock, start_ns, second_ns);
        clusterclock_lead(&clock, (int64_t[]){ 0, hour }, 2, 3, second_ns);
        assert_false(clusterclock_is_settled(&clock));
        assert_int_equal(clusterclock_now(&clock, second_ns), start_ns);
        if (i == 0) { /* the third one settles it, at once */
            clusterclock_settle(&clock, (int64_t[]){ 0, hour, hour }, 3, 3, second_ns);
            assert_int_equal(clusterclock_now(&clock, second_ns), start_ns + (uint64_t)hour);
        } else if (i == 1) {
            clusterclock_settle(&clock, (int64_t[]){ 0, hour, 0 }, 3, 3, second_ns);
            assert_int_equal(clusterclock_now(&clock, second_ns), start_ns);
        } else { /* it does not come: one of two ahead decides nothing */
            clusterclock_settle(&clock, (int64_t[]){ 0, hour }, 2, 3, second_ns);
            clusterclock_settle(&clock, (int64_t[]){ 0, hour }, 2, 3, second_ns);
            assert_false(clusterclock_is_settled(&clock));
            clusterclock_settle(&clock, (int64_t[]){ 0, hour }, 2, 3, second_ns);
            assert_int_equal(clusterclock_now(&clock, second_ns), start_ns);
        }
        assert_true(clusterclock_is_settled(&clock));
    }
    struct clusterclock agreed = { 0 };
    clusterclock_observe(&agreed, start_ns, second_ns);
    clusterclock_lead(&agreed, (int64_t[]){ hour, hour + 20 * MS }, 2, 3, second_ns);
    assert_true(clusterclock_is_settled(&agreed));
}

/* ---- In the core ---------------------------------------------------------------------------------------------- */

static void new_cluster_begins_at_the_wall_clock(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 1);
    lab_tick(lab, 1);
    lab_sync(lab);
    assert_int_equal(lab->ready.write.append.items[0].time_ns, lab->wall_ns);
}

static void lone_member_steps_to_its_wall_clock_at_its_start_only(void **state)
{
    struct lab *lab = *state;
    static const uint64_t terms[] = { 1, 1 };
    lab_start_with(lab, 1, (struct raft_hard_state){ .term = 1 }, terms, 2);
    lab_tick(lab, 1);
    lab_sync(lab);
    uint64_t first_ns = lab->ready.write.append.items[0].time_ns;
    assert_int_equal(first_ns, lab->wall_ns);
    lab->wall_ns += 3600 * second_ns; /* set by hand, while it runs */
    lab_tick(lab, 10);
    lab_propose(lab, 1);
    assert_int_equal(
            lab->ready.write.append.items[0].time_ns, first_ns + 10 * lab->options.tick_ns);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_STEP_TIME });
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.write.append.items[0].time_ns, lab->wall_ns);
}

static void new_leader_counts_on_from_the_last_heartbeat(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT,
                             .from = 2,
                             .term = 1,
                             .time_ns = start_ns / 2 });
    uint64_t heard_ns = lab->now_ns;
    lab_lead(lab);
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.write.append.items[0].time_ns,
            start_ns / 2 + (lab->now_ns - heard_ns)); /* not its own wall clock */
}

/* It has every entry that was committed, so what it does not know of was a time that nobody may count on from: one that a
 * leader began, say, whose entries went with it. */
static void time_of_a_new_leader_is_taken_as_it_is(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    struct raft_message heartbeat = { .kind = RAFT_MESSAGE_HEARTBEAT, .from = 2, .term = 1 };
    heartbeat.time_ns = start_ns + 3600 * second_ns;
    lab_deliver(lab, heartbeat);
    assert_int_equal(raft_cluster_time_ns(lab->raft, lab->now_ns), heartbeat.time_ns);

    heartbeat = (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT, .from = 3, .term = 2 };
    lab_deliver(lab, heartbeat); /* without a time: it has none to tell yet */
    assert_true(raft_cluster_time_ns(lab->raft, lab->now_ns) > start_ns);
    heartbeat.time_ns = start_ns;
    lab_deliver(lab, heartbeat);
    assert_int_equal(raft_cluster_time_ns(lab->raft, lab->now_ns), start_ns);
    heartbeat.time_ns = start_ns - 1; /* from here on never back: it was under way for longer */
    lab_deliver(lab, heartbeat);
    assert_int_equal(raft_cluster_time_ns(lab->raft, lab->now_ns), start_ns);
}

static void stamps_never_fall_below_the_last_entry(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    struct raft_entry entry = lab_entry(1, 1);
    entry.time_ns = start_ns * 2; /* some clock was wrong */
    lab_deliver(lab,
            (struct raft_message){
                    .kind = RAFT_MESSAGE_APPEND, .from = 2, .term = 1, .entries = { &entry, 1 } });
    lab_lead(lab);
    lab_propose(lab, 1);
    assert_true(lab->ready.write.append.items[0].time_ns >= start_ns * 2);
}

static void leader_steps_to_the_median_of_its_followers_clocks(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT,
                             .from = 2,
                             .term = 1,
                             .time_ns = start_ns / 2 });
    lab_lead(lab);
    for (unsigned i = 0; i < 4; i++) {
        lab_tick(lab, 1);
        lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT_REPLY,
                                 .from = 2,
                                 .term = 2,
                                 .context = 1,
                                 .wall_ns = lab->wall_ns + 7 * second_ns });
    }
    lab_propose(lab, 1);
    uint64_t stamp_ns = lab->ready.write.append.items[0].time_ns;
    assert_in_range(
            stamp_ns, lab->wall_ns - second_ns, lab->wall_ns + second_ns); /* the lower of two */
}

/* Nobody led for an hour. What the new leader stamps must not lie in the past: the step that puts it right would come
 * after the first keys were set, and take an hour of their lives. */
static void new_leader_begins_where_the_voters_clocks_are(void **state)
{
    (void)state;
    int64_t hour = 3600 * (int64_t)second_ns;
    struct clusterclock clock = { 0 };
    clusterclock_observe(&clock, start_ns, second_ns);
    clusterclock_lead(&clock, (int64_t[]){ hour, hour + 20 * MS }, 2, 3, second_ns);
    assert_int_equal(clusterclock_now(&clock, second_ns), start_ns + (uint64_t)hour);
    clusterclock_lead(
            &clock, (int64_t[]){ hour, 0 }, 2, 3, second_ns); /* one of two may be wrong */
    assert_int_equal(clusterclock_now(&clock, second_ns), start_ns + (uint64_t)hour);
    clusterclock_lead(&clock, (int64_t[]){ hour, hour }, 2, 5, second_ns); /* no quorum */
    assert_int_equal(clusterclock_now(&clock, second_ns), start_ns + (uint64_t)hour);
}

static void votes_bring_the_clocks_that_a_new_leader_begins_with(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT,
                             .from = 2,
                             .term = 1,
                             .time_ns = start_ns / 2 });
    while (lab_status(lab).role != RAFT_ROLE_PRE_CANDIDATE) {
        lab_tick(lab, 1);
    }
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_PRE_VOTE_REPLY,
                             .from = 2,
                             .term = 2,
                             .wall_ns = lab->wall_ns + 20 * MS });
    lab_sync(lab);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_VOTE_REPLY,
                             .from = 2,
                             .term = 2,
                             .wall_ns = lab->wall_ns - 3 * second_ns }); /* long under way */
    assert_int_equal(lab_status(lab).role, RAFT_ROLE_LEADER);
    assert_int_equal(lab->ready.write.append.items[0].time_ns, lab->wall_ns);
}

static void voter_tells_its_clock(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_PRE_VOTE, .from = 2, .term = 1 });
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_PRE_VOTE_REPLY, 2)->wall_ns, lab->wall_ns);
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_VOTE, .from = 2, .term = 1 });
    assert_int_equal(lab_vowed(lab, RAFT_MESSAGE_VOTE_REPLY, 2)->message.wall_ns, lab->wall_ns);
}

static void answer_heartbeat(struct lab *lab, uint64_t from, int64_t ahead_ns)
{
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT_REPLY,
                             .from = from,
                             .term = 1,
                             .context = 1,
                             .wall_ns = lab->wall_ns + (uint64_t)ahead_ns });
}

static void leader_of_a_new_cluster_takes_proposals_once_the_clocks_have_given_it_a_time(
        void **state)
{
    int64_t hour_ns = 3600 * (int64_t)second_ns;
    struct lab *lab = *state;
    lab->is_timeless = true;
    lab_start(lab, 3);
    lab_lead(lab);
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.refused_count, 1);
    assert_int_equal(lab->ready.refused[0].reason, RAFT_REFUSAL_NO_LEADER);
    /* Its own clock and another's are wrong, each its own way. */
    lab->wall_ns -= (uint64_t)hour_ns;
    answer_heartbeat(lab, 2, 2 * hour_ns);
    answer_heartbeat(lab, 3, hour_ns);
    lab_tick(lab, 1);
    assert_true(lab->ready.state_changed); /* what waits may be proposed */
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.refused_count, 0);
    assert_int_equal(lab->ready.write.append.items[0].time_ns, lab->wall_ns + (uint64_t)hour_ns);
}

/* The leader stood still, and finds the answers of before when it goes on. */
static void answer_that_was_long_under_way_tells_no_time(void **state)
{
    struct lab *lab = *state;
    lab->is_timeless = true;
    lab_start(lab, 3);
    lab_lead(lab);
    uint64_t then_ns = lab->wall_ns;
    lab->now_ns += 2 * second_ns;
    lab->wall_ns += 2 * second_ns;
    for (uint64_t peer = 2; peer <= 3; peer++) {
        lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT_REPLY,
                                 .from = peer,
                                 .term = 1,
                                 .context = 1,
                                 .wall_ns = then_ns });
    }
    lab_tick(lab, 1);
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.refused_count, 1); /* there is no time yet */
}

/* The leader stood still after the answers had come: they were true of then, and cluster time begins now. */
static void time_begins_where_the_clocks_are_by_now(void **state)
{
    struct lab *lab = *state;
    lab->is_timeless = true;
    lab_start(lab, 3);
    lab_lead(lab);
    answer_heartbeat(lab, 2, 0);
    answer_heartbeat(lab, 3, 0);
    lab->now_ns += 2 * second_ns;
    lab->wall_ns += 2 * second_ns;
    lab_tick(lab, 1);
    lab_propose(lab, 1);
    assert_int_equal(lab->ready.refused_count, 0);
    assert_int_equal(lab->ready.write.append.items[0].time_ns, lab->wall_ns);
}

/* A first leader may begin cluster time and be gone before anything that bears it is committed: the next one begins it
 * anew, perhaps hours earlier, and no member may remember the other beginning and jump there once it leads. */
static void beginning_is_told_once_it_is_committed(void **state)
{
    struct lab *lab = *state;
    lab->is_timeless = true;
    lab_start(lab, 3);
    lab_lead(lab);
    for (unsigned i = 0; i < 4; i++) {
        lab_tick(lab, 1);
        for (uint64_t peer = 2; peer <= 3; peer++) {
            lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT_REPLY,
                                     .from = peer,
                                     .term = 1,
                                     .context = 1 + i,
                                     .wall_ns = lab->wall_ns });
        }
    }
    lab_tick(lab, 1);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2)->time_ns, 0);
    lab_acknowledge(lab, 2, 1);
    lab_propose(lab, 1);
    assert_true(lab->ready.write.append.items[0].time_ns > 0);
    lab_sync(lab);
    lab_tick(lab, 1);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2)->time_ns, 0);
    lab_acknowledge(lab, 2, 2);
    lab_tick(lab, 1);
    assert_true(lab_sent(lab, RAFT_MESSAGE_HEARTBEAT, 2)->time_ns > 0);
}

static void beginning_that_is_cut_is_forgotten(void **state)
{
    struct lab *lab = *state;
    lab_start(lab, 3);
    struct raft_entry entries[] = { lab_entry(1, 1), lab_entry(2, 1) };
    entries[0].time_ns = 0;
    entries[1].time_ns = start_ns * 2;
    lab_deliver(lab,
            (struct raft_message){
                    .kind = RAFT_MESSAGE_APPEND, .from = 2, .term = 1, .entries = { entries, 2 } });
    assert_true(raft_cluster_time_ns(lab->raft, lab->now_ns) > 0);
    struct raft_entry other = lab_entry(2, 2);
    other.time_ns = start_ns;
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_APPEND,
                             .from = 3,
                             .term = 2,
                             .index = 1,
                             .log_term = 1,
                             .entries = { &other, 1 } });
    assert_int_equal(raft_cluster_time_ns(lab->raft, lab->now_ns), start_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_runs_with_the_boot_clock_from_what_was_seen_last),
        cmocka_unit_test(step_only_goes_forward),
        cmocka_unit_test(small_offsets_are_slewed_by_one_percent),
        cmocka_unit_test(time_that_is_far_ahead_waits_for_the_clocks_but_never_goes_back),
        cmocka_unit_test(median_far_ahead_is_stepped_to_after_three_rounds),
        cmocka_unit_test(single_clock_far_ahead_changes_nothing),
        cmocka_unit_test(fewer_than_a_quorum_of_clocks_decide_nothing),
        cmocka_unit_test(lone_member_is_slewed_but_never_stepped_by_a_round),
        cmocka_unit_test(a_new_clusters_time_begins_at_the_median_of_all),
        cmocka_unit_test(
                a_new_clusters_time_waits_for_those_who_do_not_answer_and_then_takes_the_later_one),
        cmocka_unit_test(voters_that_disagree_whether_time_is_behind_wait_for_the_others),
        LAB_TEST(leader_of_a_new_cluster_takes_proposals_once_the_clocks_have_given_it_a_time),
        LAB_TEST(new_cluster_begins_at_the_wall_clock),
        LAB_TEST(lone_member_steps_to_its_wall_clock_at_its_start_only),
        LAB_TEST(new_leader_counts_on_from_the_last_heartbeat),
        LAB_TEST(time_of_a_new_leader_is_taken_as_it_is),
        LAB_TEST(stamps_never_fall_below_the_last_entry),
        LAB_TEST(leader_steps_to_the_median_of_its_followers_clocks),
        cmocka_unit_test(new_leader_begins_where_the_voters_clocks_are),
        LAB_TEST(votes_bring_the_clocks_that_a_new_leader_begins_with),
        LAB_TEST(voter_tells_its_clock),
        LAB_TEST(time_begins_where_the_clocks_are_by_now),
        LAB_TEST(answer_that_was_long_under_way_tells_no_time),
        LAB_TEST(beginning_is_told_once_it_is_committed),
        LAB_TEST(beginning_that_is_cut_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
