/* test_passed.c: what became of ops that were passed on to a leader. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemons/raftd/passed.h"

enum {
    OPS_MAX = 8,
    OP_BYTES = 32
};

struct fixture {
    struct passed *passed;
    uint64_t handed;
    char text[64][OP_BYTES];
    unsigned text_count;
};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);

    f->passed = passed_new();
    f->handed = 100;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    f->passed = passed_free(f->passed);
    free(f);
    return 0;
}

static struct span op(struct fixture *f, unsigned number)
{
    char *text = f->text[f->text_count++ % 64];

    (void)snprintf(text, OP_BYTES, "request %u of a gateway", number);
    return span_str(text);
}

static void add(struct fixture *f, uint64_t context, uint64_t term, unsigned first, unsigned count)
{
    struct span ops[OPS_MAX];

    for (unsigned i = 0; i < count; i++) {
        ops[i] = op(f, first + i);
    }
    passed_add(f->passed, kept_ops_new(context, 1000, ops, count), term);
}

static void hand_entry(
        struct fixture *f, uint64_t term, enum raft_entry_kind kind, struct span data)
{
    struct raft_entry entry = { .index = ++f->handed, .term = term, .kind = kind, .data = data };

    passed_on_entries(f->passed, (struct raft_entry_span){ &entry, 1 });
}

static void hand(struct fixture *f, uint64_t term, unsigned number)
{
    hand_entry(f, term, RAFT_ENTRY_OP, op(f, number));
}

/* The dead message's ops are these, and no other one is dead. */
static void expect_dead(struct fixture *f, uint64_t context, unsigned first, unsigned count)
{
    struct kept_ops *kept = passed_take_dead(f->passed);

    assert_non_null(kept);
    assert_true(kept->context == context);
    assert_int_equal(kept->ops.count, count);
    for (unsigned i = 0; i < count; i++) {
        assert_true(span_eq(kept->ops.items[i], op(f, first + i)));
    }
    kept = kept_ops_free(kept);
    assert_null(passed_take_dead(f->passed));
}

static void begin(struct fixture *f)
{
    hand_entry(f, 1, RAFT_ENTRY_EMPTY, (struct span){ 0 }); /* from here on there is no gap */
}

static void what_was_handed_on_is_not_offered_again(void **state)
{
    struct fixture *f = *state;

    begin(f);
    add(f, 7, 1, 1, 2);
    hand(f, 1, 1);
    hand(f, 1, 2);
    assert_null(passed_take(f->passed, 7));
    hand_entry(f, 2, RAFT_ENTRY_EMPTY, (struct span){ 0 });
    assert_null(passed_take_dead(f->passed));
}

static void an_entry_of_a_later_term_kills_what_was_not_seen(void **state)
{
    struct fixture *f = *state;

    begin(f);
    add(f, 7, 1, 1, 3);
    hand(f, 1, 1);
    assert_null(passed_take_dead(f->passed));
    hand_entry(f, 2, RAFT_ENTRY_EMPTY, (struct span){ 0 });
    expect_dead(f, 7, 2, 2);
}

static void an_entry_of_the_same_term_kills_nothing(void **state)
{
    struct fixture *f = *state;

    begin(f);
    add(f, 7, 2, 1, 1);
    hand_entry(f, 2, RAFT_ENTRY_EMPTY, (struct span){ 0 });
    hand(f, 2, 9);
    assert_null(passed_take_dead(f->passed));
    hand(f, 2, 1);
    assert_null(passed_take(f->passed, 7));
}

static void a_later_entry_kills_only_what_came_before_its_term(void **state)
{
    struct fixture *f = *state;

    begin(f);
    add(f, 7, 1, 1, 1);
    add(f, 8, 2, 2, 1);
    hand_entry(f, 2, RAFT_ENTRY_EMPTY, (struct span){ 0 });
    expect_dead(f, 7, 1, 1);
    hand(f, 2, 2);
    assert_null(passed_take(f->passed, 8));
}

static void an_op_that_comes_with_the_later_term_is_dead_before_it(void **state)
{
    struct fixture *f = *state;

    /* No leader of term 2 takes what was meant for term 1: the same op there is one that was offered again. */
    begin(f);
    add(f, 7, 1, 1, 1);
    hand(f, 2, 1);
    expect_dead(f, 7, 1, 1);
}

static void the_leaders_end_kills_what_was_passed_on_before_the_question(void **state)
{
    struct fixture *f = *state;
    uint64_t seq;

    begin(f);
    add(f, 7, 3, 1, 2);
    assert_false(passed_ask(f->passed, 3, &seq)); /* no link broke */
    passed_suspect(f->passed);
    assert_false(passed_ask(f->passed, 2, &seq));
    assert_true(passed_ask(f->passed, 3, &seq));
    assert_true(passed_ask(f->passed, 3, &seq)); /* until it is answered */
    add(f, 8, 3, 5, 1);                          /* behind the question: the answer does not tell */
    passed_on_end(f->passed, 3, seq, f->handed + 2);
    assert_false(passed_ask(f->passed, 3, &seq));
    hand(f, 3, 1);
    assert_null(passed_take_dead(f->passed)); /* one entry of that log is missing yet */
    hand(f, 3, 9);
    expect_dead(f, 7, 2, 1);
    hand(f, 3, 5);
    assert_null(passed_take(f->passed, 8));
}

static void a_break_after_the_question_makes_it_be_asked_again(void **state)
{
    struct fixture *f = *state;
    uint64_t first;
    uint64_t second;

    begin(f);
    add(f, 7, 3, 1, 1);
    passed_suspect(f->passed);
    assert_true(passed_ask(f->passed, 3, &first));
    add(f, 8, 3, 2, 1);
    passed_suspect(f->passed);
    passed_on_end(f->passed, 3, first, f->handed);
    expect_dead(f, 7, 1, 1);
    assert_true(passed_ask(f->passed, 3, &second));
    passed_on_end(f->passed, 3, second, f->handed);
    expect_dead(f, 8, 2, 1);
    assert_false(passed_ask(f->passed, 3, &second));
}

static void an_end_that_was_reached_already_kills_at_once(void **state)
{
    struct fixture *f = *state;
    uint64_t seq;

    begin(f);
    add(f, 7, 3, 1, 1);
    passed_suspect(f->passed);
    assert_true(passed_ask(f->passed, 3, &seq));
    passed_on_end(f->passed, 3, seq, f->handed);
    expect_dead(f, 7, 1, 1);
}

static void an_end_of_another_term_or_life_kills_nothing(void **state)
{
    struct fixture *f = *state;
    uint64_t seq;

    begin(f);
    add(f, 7, 3, 1, 1);
    passed_suspect(f->passed);
    assert_true(passed_ask(f->passed, 3, &seq));
    passed_on_end(f->passed, 2, seq, f->handed);
    passed_on_end(f->passed, 3, seq + 1, f->handed);
    assert_null(passed_take_dead(f->passed));
}

static void what_was_offered_again_is_not_killed_by_an_older_answer(void **state)
{
    struct fixture *f = *state;
    uint64_t seq;

    begin(f);
    add(f, 7, 3, 1, 1);
    passed_suspect(f->passed);
    assert_true(passed_ask(f->passed, 3, &seq));
    struct kept_ops *kept = passed_take(f->passed, 7); /* the leader refused it meanwhile ... */
    assert_non_null(kept);
    passed_add(f->passed, kept, 3); /* ... and took it then */
    passed_on_end(f->passed, 3, seq, f->handed);
    assert_null(passed_take_dead(f->passed));
}

static void a_gap_leaves_all_before_it_unknown(void **state)
{
    struct fixture *f = *state;

    begin(f);
    add(f, 7, 1, 1, 1);
    f->handed += 5; /* a snapshot: the op may be in it */
    hand_entry(f, 2, RAFT_ENTRY_EMPTY, (struct span){ 0 });
    assert_null(passed_take_dead(f->passed));
    assert_null(passed_take(f->passed, 7));
}

static void entries_that_come_again_tell_nothing_new(void **state)
{
    struct fixture *f = *state;

    begin(f);
    hand(f, 1, 1);
    add(f, 7, 1, 2, 1);
    f->handed--;
    hand_entry(f, 2, RAFT_ENTRY_EMPTY,
            (struct span){ 0 }); /* at the index of one that was handed on */
    assert_null(passed_take_dead(f->passed));
    struct kept_ops *kept = passed_take(f->passed, 7);
    assert_non_null(kept);
    (void)kept_ops_free(kept);
}

static void refused_ones_go_back_with_what_was_not_seen(void **state)
{
    struct fixture *f = *state;

    begin(f);
    add(f, 7, 1, 1, 3);
    hand(f, 1, 2);
    struct kept_ops *kept = passed_take(f->passed, 7);
    assert_int_equal(kept->ops.count, 2);
    assert_true(span_eq(kept->ops.items[0], op(f, 1)));
    assert_true(span_eq(kept->ops.items[1], op(f, 3)));
    (void)kept_ops_free(kept);
    hand(f, 1, 1); /* nothing to be found any more */
}

static void one_of_after_the_look_at_the_clock_is_not_old(void **state)
{
    struct fixture *f = *state;

    begin(f);
    add(f, 7, 1, 1, 1);
    passed_expire(f->passed, 1000 - 1, 50);
    struct kept_ops *kept = passed_take(f->passed, 7);
    assert_non_null(kept);
    (void)kept_ops_free(kept);
}

static void old_ones_are_forgotten(void **state)
{
    struct fixture *f = *state;

    begin(f);
    add(f, 7, 1, 1, 1);
    passed_expire(f->passed, 1000 + 50, 50);
    passed_expire(f->passed, 1000 + 51, 50);
    hand_entry(f, 2, RAFT_ENTRY_EMPTY, (struct span){ 0 });
    assert_null(passed_take_dead(f->passed));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(what_was_handed_on_is_not_offered_again),
        TEST(an_entry_of_a_later_term_kills_what_was_not_seen),
        TEST(an_entry_of_the_same_term_kills_nothing),
        TEST(a_later_entry_kills_only_what_came_before_its_term),
        TEST(an_op_that_comes_with_the_later_term_is_dead_before_it),
        TEST(the_leaders_end_kills_what_was_passed_on_before_the_question),
        TEST(a_break_after_the_question_makes_it_be_asked_again),
        TEST(an_end_that_was_reached_already_kills_at_once),
        TEST(an_end_of_another_term_or_life_kills_nothing),
        TEST(what_was_offered_again_is_not_killed_by_an_older_answer),
        TEST(a_gap_leaves_all_before_it_unknown),
        TEST(entries_that_come_again_tell_nothing_new),
        TEST(refused_ones_go_back_with_what_was_not_seen),
        TEST(one_of_after_the_look_at_the_clock_is_not_old),
        TEST(old_ones_are_forgotten),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
