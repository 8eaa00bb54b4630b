#include "daemons/raftd/bootstrap/standalone.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/ids.h"

enum {
    SELF = 7,
    FRESH = 99,
};

/* A log of three entries behind base 10, terms 4 and 5, the last two beyond the commit mark. */
static struct raft_entry log_entries[] = {
    { .index = 11, .term = 4, .time_ns = 1000 },
    { .index = 12, .term = 5, .time_ns = 2000 },
    { .index = 13, .term = 5, .time_ns = 3000 },
};

static struct storage_recovered log_of(uint64_t member_id)
{
    return (struct storage_recovered){
        .hard = { .term = 6, .vote = 3, .commit = 11 },
        .base = { .index = 10,
                .term = 4,
                .cluster_time_ns = 500,
                .cluster_id = 77,
                .member_id = member_id },
        .entries = log_entries,
        .entry_count = 3,
    };
}

static struct raft_members roles_of(
        const uint64_t *voters, size_t voter_count, const uint64_t *learners, size_t learner_count)
{
    return (struct raft_members){ .voters = { voters, voter_count },
        .learners = { learners, learner_count } };
}

static void assert_change(
        const struct standalone_plan *plan, size_t i, enum raft_change_kind kind, uint64_t id)
{
    assert_true(i < plan->entry_count);
    assert_int_equal(plan->entries[i].change.kind, kind);
    assert_true(plan->entries[i].change.member_id == id);
    assert_int_equal(plan->entries[i].kind, RAFT_ENTRY_CONFIG);
}

static void a_voter_removes_all_others_and_keeps_its_ids(void **state)
{
    (void)state;
    const uint64_t voters[] = { 3, SELF, 9 }, learners[] = { 12 };
    struct storage_recovered recovered = log_of(SELF);
    struct raft_members roles = roles_of(voters, 3, learners, 1);
    struct standalone_plan plan;

    assert_int_equal(standalone_make_plan(&recovered, &roles, FRESH, 0, &plan, NULL), 0);
    assert_int_equal(plan.entry_count, 3);
    assert_change(&plan, 0, RAFT_CHANGE_REMOVE, 3);
    assert_change(&plan, 1, RAFT_CHANGE_REMOVE, 9);
    assert_change(&plan, 2, RAFT_CHANGE_REMOVE, 12);
    assert_true(plan.self_id == SELF && plan.cluster_id == 77);
    standalone_plan_fini(&plan);
}

static void nothing_is_cut_and_all_of_the_log_counts_as_committed(void **state)
{
    (void)state;
    const uint64_t voters[] = { 3, SELF, 9 };
    struct storage_recovered recovered = log_of(SELF);
    struct raft_members roles = roles_of(voters, 3, NULL, 0);
    struct standalone_plan plan;

    assert_int_equal(standalone_make_plan(&recovered, &roles, FRESH, 0, &plan, NULL), 0);
    assert_int_equal(plan.entries[0].index, 14);
    assert_int_equal(plan.hard.commit, 15);
    /* In a term that no other log has entries of. */
    assert_int_equal(plan.hard.term, 7);
    assert_int_equal(plan.hard.vote, SELF);
    assert_int_equal(plan.entries[1].term, 7);
    standalone_plan_fini(&plan);
}

static void the_entries_bear_the_wall_clock_but_never_an_earlier_time_than_the_log(void **state)
{
    (void)state;
    const uint64_t voters[] = { 3, SELF };
    struct storage_recovered recovered = log_of(SELF);
    struct raft_members roles = roles_of(voters, 2, NULL, 0);
    struct standalone_plan plan;

    assert_int_equal(standalone_make_plan(&recovered, &roles, FRESH, 9000, &plan, NULL), 0);
    assert_int_equal(plan.entries[0].time_ns, 9000);
    standalone_plan_fini(&plan);
    assert_int_equal(standalone_make_plan(&recovered, &roles, FRESH, 2999, &plan, NULL), 0);
    assert_int_equal(plan.entries[0].time_ns, 3000);
    standalone_plan_fini(&plan);
}

static void the_only_member_has_nothing_to_do(void **state)
{
    (void)state;
    const uint64_t voters[] = { SELF };
    struct storage_recovered recovered = log_of(SELF);
    struct raft_members roles = roles_of(voters, 1, NULL, 0);
    struct standalone_plan plan;

    assert_int_equal(standalone_make_plan(&recovered, &roles, FRESH, 9000, &plan, NULL), 0);
    assert_int_equal(plan.entry_count, 0);
    assert_int_equal(plan.hard.term, 6);
    assert_int_equal(plan.hard.commit, 11);
}

static void a_learner_gets_its_vote_before_the_last_voter_goes(void **state)
{
    (void)state;
    const uint64_t voters[] = { 3 }, learners[] = { SELF };
    struct storage_recovered recovered = log_of(SELF);
    struct raft_members roles = roles_of(voters, 1, learners, 1);
    struct standalone_plan plan;

    assert_int_equal(standalone_make_plan(&recovered, &roles, FRESH, 0, &plan, NULL), 0);
    assert_int_equal(plan.entry_count, 2);
    assert_change(&plan, 0, RAFT_CHANGE_PROMOTE, SELF);
    assert_change(&plan, 1, RAFT_CHANGE_REMOVE, 3);
    standalone_plan_fini(&plan);
}

static void a_backup_becomes_a_new_member_of_a_new_cluster(void **state)
{
    (void)state;
    const uint64_t voters[] = { 3, SELF }, fresh = FRESH;
    struct storage_recovered recovered = log_of(0);
    struct raft_members roles = roles_of(voters, 2, NULL, 0);
    struct standalone_plan plan;

    assert_int_equal(standalone_make_plan(&recovered, &roles, FRESH, 0, &plan, NULL), 0);
    assert_int_equal(plan.entry_count, 4);
    assert_change(&plan, 0, RAFT_CHANGE_ADD_LEARNER, FRESH);
    assert_change(&plan, 1, RAFT_CHANGE_PROMOTE, FRESH);
    assert_change(&plan, 2, RAFT_CHANGE_REMOVE, 3);
    assert_change(&plan, 3, RAFT_CHANGE_REMOVE, SELF);
    assert_true(plan.self_id == FRESH && plan.cluster_id == ids_cluster(&fresh, 1));
    standalone_plan_fini(&plan);
}

static void a_removed_member_and_one_without_data_are_refused_with_the_mend(void **state)
{
    (void)state;
    const uint64_t voters[] = { 3 }, self[] = { SELF };
    struct storage_recovered recovered = log_of(SELF);
    struct raft_members roles = roles_of(voters, 1, NULL, 0);
    struct standalone_plan plan;
    struct err err = { 0 };

    assert_int_equal(standalone_make_plan(&recovered, &roles, FRESH, 0, &plan, &err), -EINVAL);
    assert_non_null(strstr(err.text, "has not got its cluster's data yet; take"));
    roles.removed = (struct raft_ids){ self, 1 };
    assert_int_equal(standalone_make_plan(&recovered, &roles, FRESH, 0, &plan, &err), -EINVAL);
    assert_non_null(strstr(
            err.text, "was removed from its cluster, and no id is valid again; make a backup"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_voter_removes_all_others_and_keeps_its_ids),
        cmocka_unit_test(nothing_is_cut_and_all_of_the_log_counts_as_committed),
        cmocka_unit_test(the_entries_bear_the_wall_clock_but_never_an_earlier_time_than_the_log),
        cmocka_unit_test(the_only_member_has_nothing_to_do),
        cmocka_unit_test(a_learner_gets_its_vote_before_the_last_voter_goes),
        cmocka_unit_test(a_backup_becomes_a_new_member_of_a_new_cluster),
        cmocka_unit_test(a_removed_member_and_one_without_data_are_refused_with_the_mend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
