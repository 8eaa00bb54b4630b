/* test_link_faults.c: links over a wire that loses, doubles and reorders.
 *
 * The wire really is a Unix socket; what is sent on it passes wire_faults.c. A failing seed is replayed with
 * QUORATE_TEST_SEED=<seed>. */
#include "proto/link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/proto/link_harness.h"
#include "tests/unit/proto/wire_faults.h"

static int teardown(void **state)
{
    int r = harness_teardown(state);
    wire_faults_set(NULL, NULL);
    return r;
}

static bool is_message(const struct link_frame *frame)
{
    return frame->type <= LINK_MESSAGE_TYPE_MAX;
}

/* --- at random ---------------------------------------------------------------------------------------------- */

static enum wire_fault at_random(
        void *user, bool from_listener UNUSED, const struct link_frame *frame UNUSED)
{
    uint64_t *x = user; /* xorshift */
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    unsigned percent = (unsigned)(*x >> 32) % 100;
    return percent < 5    ? WIRE_DROP
           : percent < 10 ? WIRE_DOUBLE
           : percent < 15 ? WIRE_DELAY
                          : WIRE_PASS;
}

static void run_seed(struct harness *h, enum link_pattern pattern, uint64_t seed)
{
    uint64_t x = seed;
    struct link_config tune = { .resend_ms = 15, .stall_ms = 25000 };

    print_message("QUORATE_TEST_SEED=%lu\n", (unsigned long)seed);
    wire_faults_set(at_random, &x);
    LISTENER(h)->to_send = 400;
    DIALER(h)->to_send = 300;
    LISTENER(h)->messages = DIALER(h)->messages = 0;
    LISTENER(h)->ups = DIALER(h)->ups = 0;
    harness_open_both(h, pattern, &tune);
    RUN_UNTIL(h, all_arrived);
    assert_false(LISTENER(h)->out_of_order || DIALER(h)->out_of_order);
    assert_int_equal(LISTENER(h)->messages, 300);
    assert_int_equal(DIALER(h)->messages, 400);
    assert_int_equal(LISTENER(h)->ups, 1);
    assert_int_equal(DIALER(h)->ups, 1);
    harness_close(DIALER(h));
    harness_close(LISTENER(h));
    wire_faults_set(NULL, NULL);
}

static void messages_arrive_in_order_exactly_once_whatever_the_wire_does(void **state)
{
    const char *replay = getenv("QUORATE_TEST_SEED");
    if (replay != NULL) {
        run_seed(*state, LINK_REQREP, strtoull(replay, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= 6; seed++) {
        run_seed(*state, seed % 2 == 0 ? LINK_PAIR : LINK_REQREP, seed * 7919);
    }
}

/* --- one by one ------------------------------------------------------------------------------------------------ */

/* Drops the first `count` frames of a type from one side. */
struct dropper {
    bool from_listener;
    unsigned type_min;
    unsigned type_max;
    unsigned count;
    unsigned dropped;
};

static enum wire_fault drop_some(void *user, bool from_listener, const struct link_frame *frame)
{
    struct dropper *dropper = user;
    bool hit = from_listener == dropper->from_listener && frame->type >= dropper->type_min &&
               frame->type <= dropper->type_max && dropper->dropped < dropper->count;
    dropper->dropped += hit;
    return hit ? WIRE_DROP : WIRE_PASS;
}

/* How soon: test_link_time.c. */
static void a_lost_last_message_is_sent_again(void **state)
{
    struct harness *h = *state;
    struct dropper dropper = { false, 1, LINK_MESSAGE_TYPE_MAX, 1, 0 };
    harness_open_both(h, LINK_PAIR, NULL);
    wire_faults_set(drop_some, &dropper);
    DIALER(h)->to_send = 1;
    assert_int_equal(end_send(DIALER(h)), 0);
    RUN_UNTIL(h, all_arrived);
    assert_int_equal(dropper.dropped, 1);
    assert_int_equal(DIALER(h)->downs, 0);
}

static void a_lost_hello_is_said_again(void **state)
{
    struct harness *h = *state;
    struct dropper dropper = { false, LINK_HELLO, LINK_HELLO, 2, 0 };
    wire_faults_set(drop_some, &dropper);
    harness_open_both(h, LINK_REQREP, &(struct link_config){ .resend_ms = 15 });
    assert_int_equal(dropper.dropped, 2);
    assert_int_equal(LISTENER(h)->ups, 1);
}

static void a_lost_answer_to_the_hello_is_given_again(void **state)
{
    struct harness *h = *state;
    struct dropper dropper = { true, LINK_HELLO, LINK_HELLO, 2, 0 };
    wire_faults_set(drop_some, &dropper);
    LISTENER(h)->to_send = 10; /* these come before the answer does */
    harness_open_both(h, LINK_REQREP, &(struct link_config){ .resend_ms = 15 });
    RUN_UNTIL(h, all_arrived);
    assert_int_equal(dropper.dropped, 2);
    assert_int_equal(LISTENER(h)->ups, 1);
    assert_false(DIALER(h)->out_of_order);
}

static bool nothing_unacknowledged(struct harness *h)
{
    return link_unacknowledged(DIALER(h)->link) == 0;
}

static void lost_acks_cost_no_second_delivery(void **state)
{
    struct harness *h = *state;
    struct dropper dropper = { true, LINK_ACK, LINK_ACK, 3, 0 };
    harness_open_both(h, LINK_REQREP, &(struct link_config){ .resend_ms = 15 });
    wire_faults_set(drop_some, &dropper);
    DIALER(h)->to_send = 5;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(end_send(DIALER(h)), 0);
    }
    RUN_UNTIL(h, nothing_unacknowledged);
    assert_int_equal(dropper.dropped, 3);
    assert_int_equal(LISTENER(h)->messages, 5);
}

static bool dialer_down(struct harness *h)
{
    return DIALER(h)->downs == 1;
}

static bool both_up_again(struct harness *h)
{
    return both_up(h) && DIALER(h)->ups == 2;
}

static void a_pipe_on_which_nothing_moves_is_closed_and_dialled_anew(void **state)
{
    struct harness *h = *state;
    struct dropper dropper = { true, 1, LINK_TYPE_MAX, UINT32_MAX, 0 };
    harness_open_both(h, LINK_REQREP, &(struct link_config){ .resend_ms = 15, .stall_ms = 100 });
    wire_faults_set(drop_some, &dropper);
    assert_int_equal(end_send(DIALER(h)), 0);
    RUN_UNTIL(h, dialer_down);
    wire_faults_set(NULL, NULL);
    RUN_UNTIL(h, both_up_again);
}

static enum wire_fault hold_messages(
        void *user UNUSED, bool from_listener, const struct link_frame *frame)
{
    return !from_listener && is_message(frame) ? WIRE_HOLD : WIRE_PASS;
}

static bool two_arrived(struct harness *h)
{
    return LISTENER(h)->received == 2;
}

static atomic_bool lets_pass;

static enum wire_fault hold_until_told(
        void *user, bool from_listener, const struct link_frame *frame)
{
    return lets_pass ? WIRE_PASS : hold_messages(user, from_listener, frame);
}

static void messages_of_a_dead_session_never_reach_the_next(void **state)
{
    struct harness *h = *state;
    struct link_config tune = { .resend_ms = 10000 };
    harness_open_both(h, LINK_REQREP, &tune);
    lets_pass = false;
    wire_faults_set(hold_until_told, NULL);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(end_send(DIALER(h)), 0);
    }
    harness_close(LISTENER(h));
    RUN_UNTIL(h, dialer_down);
    harness_open(h, LISTENER(h), LINK_REQREP, true, &tune);
    RUN_UNTIL(h, both_up_again);
    lets_pass = true;
    assert_int_equal(wire_faults_release(), 3);
    assert_int_equal(end_send(DIALER(h)), 0); /* the three go out behind this */
    assert_int_equal(end_send(DIALER(h)), 0);
    RUN_UNTIL(h, two_arrived);
    assert_int_equal(LISTENER(h)->messages, 2);
    assert_false(LISTENER(h)->out_of_order);
    assert_int_equal(
            DIALER(h)->ups, 2); /* being told hello_required for the old one ends nothing */
}

/* --- what it costs ---------------------------------------------------------------------------------------------- */

static atomic_uint acks_alone;

static enum wire_fault count_acks(
        void *user UNUSED, bool from_listener UNUSED, const struct link_frame *frame)
{
    acks_alone += frame->type == LINK_ACK;
    return WIRE_PASS;
}

static bool eight_hundred_back(struct harness *h)
{
    return DIALER(h)->received == 800;
}

static void acks_ride_on_messages_that_go_their_way(void **state)
{
    struct harness *h = *state;
    LISTENER(h)->echo = true;
    harness_open_both(h, LINK_PAIR, NULL);
    acks_alone = 0;
    wire_faults_set(count_acks, NULL);
    DIALER(h)->to_send = 800;
    for (int i = 0; i < 16; i++) {
        assert_int_equal(end_send(DIALER(h)), 0);
    }
    DIALER(h)->ping_pong = true;
    RUN_UNTIL(h, eight_hundred_back);
    assert_in_range(acks_alone, 0, 40);
}

static void acks_alone_are_few(void **state)
{
    struct harness *h = *state;
    DIALER(h)->to_send = 800;
    acks_alone = 0;
    wire_faults_set(count_acks, NULL);
    harness_open_both(h, LINK_REQREP, NULL);
    RUN_UNTIL(h, all_arrived);
    assert_in_range(acks_alone, 1, 200);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, harness_setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(messages_arrive_in_order_exactly_once_whatever_the_wire_does),
        TEST(a_lost_last_message_is_sent_again),
        TEST(a_lost_hello_is_said_again),
        TEST(a_lost_answer_to_the_hello_is_given_again),
        TEST(lost_acks_cost_no_second_delivery),
        TEST(a_pipe_on_which_nothing_moves_is_closed_and_dialled_anew),
        TEST(messages_of_a_dead_session_never_reach_the_next),
        TEST(acks_ride_on_messages_that_go_their_way),
        TEST(acks_alone_are_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
