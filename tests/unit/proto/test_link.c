/* test_link.c: sessions begin, carry messages and end. Faults of the wire are in test_link_faults, peers
 * that do not speak our protocol in test_link_strangers. */
#include "proto/link.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/loopback.h"
#include "tests/unit/proto/link_harness.h"

/* --- beginning ---------------------------------------------------------------------------------------------- */

static void both_sides_learn_each_others_hello(void **state)
{
    struct harness *h = *state;
    LISTENER(h)->component = "stored";
    DIALER(h)->component = "raftd";
    harness_open_both(h, LINK_PAIR, NULL);
    assert_string_equal(LISTENER(h)->peer_component, "raftd");
    assert_string_equal(DIALER(h)->peer_component, "stored");
    assert_int_equal(link_peer_uid(LISTENER(h)->link), getuid());
    assert_int_equal(link_peer_pid(LISTENER(h)->link), getpid());
    assert_ptr_equal(link_get_user(DIALER(h)->link), DIALER(h));
}

static void a_dialer_may_come_before_its_listener(void **state)
{
    struct harness *h = *state;
    harness_open(h, DIALER(h), LINK_REQREP, false, NULL);
    harness_open(h, LISTENER(h), LINK_REQREP, true, NULL);
    RUN_UNTIL(h, both_up);
}

static bool dialer_refused(struct harness *h)
{
    return DIALER(h)->refusals > 0;
}

static void a_refused_dialer_hears_why_and_tries_again(void **state)
{
    struct harness *h = *state;
    LISTENER(h)->refuse_with = "cluster 1 is not cluster 2";
    harness_open(h, LISTENER(h), LINK_REQREP, true, NULL);
    harness_open(h, DIALER(h), LINK_REQREP, false, NULL);
    RUN_UNTIL(h, dialer_refused);
    assert_string_equal(DIALER(h)->refused_with, "cluster 1 is not cluster 2");
    assert_int_equal(DIALER(h)->ups, 0);
    RUN_UNTIL(h, both_up);
    assert_int_equal(DIALER(h)->refusals, 1);
}

static bool listener_refused(struct harness *h)
{
    return LISTENER(h)->refusals > 0;
}

static void a_listener_refused_by_its_dialer_hears_why(void **state)
{
    struct harness *h = *state;
    DIALER(h)->refuse_with = "too old";
    harness_open(h, LISTENER(h), LINK_PAIR, true, NULL);
    harness_open(h, DIALER(h), LINK_PAIR, false, NULL);
    RUN_UNTIL(h, listener_refused);
    assert_string_equal(LISTENER(h)->refused_with, "too old");
    assert_int_equal(LISTENER(h)->downs, 1);
    RUN_UNTIL(h, both_up);
}

static void a_path_in_use_is_an_error_that_names_it(void **state)
{
    struct harness *h = *state;
    struct link_hub *second = NULL;
    struct err err = { 0 };
    static const struct link_events none = { 0 };
    harness_open(h, LISTENER(h), LINK_PAIR, true, NULL);
    struct link_config config = {
        .pattern = LINK_PAIR, .listen = true, .path = h->path, .events = &none
    };
    assert_int_equal(link_hub_open(h->loop, &config, &second, &err), -EADDRINUSE);
    assert_null(second);
    assert_non_null(strstr(err.text, h->path));
    harness_open(h, DIALER(h), LINK_PAIR, false, NULL); /* and whoever had it keeps it */
    RUN_UNTIL(h, both_up);
}

/* --- messages ----------------------------------------------------------------------------------------------- */

static void messages_go_both_ways_in_order(void **state)
{
    struct harness *h = *state;
    for (int pattern = LINK_REQREP; pattern <= LINK_PAIR; pattern++) {
        LISTENER(h)->to_send = 1000; /* the first of them from within on_up */
        DIALER(h)->to_send = 1500;
        harness_open_both(h, (enum link_pattern)pattern, NULL);
        RUN_UNTIL(h, all_arrived);
        assert_false(LISTENER(h)->out_of_order || DIALER(h)->out_of_order);
        assert_int_equal(LISTENER(h)->ups, 1 + pattern);
        harness_close(LISTENER(h));
        harness_close(DIALER(h));
    }
}

static bool all_acknowledged(struct harness *h)
{
    return link_unacknowledged(DIALER(h)->link) == 0;
}

static void a_full_window_says_so_and_tells_when_it_opens(void **state)
{
    struct harness *h = *state;
    struct buf body = BUF_INIT;
    harness_open_both(h, LINK_REQREP, &(struct link_config){ .window = 3 });
    for (int i = 0; i < 3; i++) {
        assert_true(link_can_send(DIALER(h)->link));
        assert_int_equal(end_send(DIALER(h)), 0);
    }
    assert_false(link_can_send(DIALER(h)->link));
    assert_int_equal(link_unacknowledged(DIALER(h)->link), 3);
    end_encode(4, 10, &body);
    size_t bytes = body.bytes;
    assert_int_equal(link_send(DIALER(h)->link, 1, &body), -EAGAIN);
    assert_int_equal(body.bytes, bytes);
    RUN_UNTIL(h, all_acknowledged);
    assert_int_equal(DIALER(h)->writables, 1);
    assert_int_equal(link_send(DIALER(h)->link, 1, &body), 0);
    assert_null(body.data);
    RUN_UNTIL(h, all_acknowledged);
    assert_int_equal(DIALER(h)->writables, 1); /* nobody was turned away since */
}

static void who_hears_nothing_back_sends_32_messages_and_no_more(void **state)
{
    struct harness *h = *state;
    harness_open_both(h, LINK_REQREP, NULL);
    for (int i = 0; i < 32; i++) {
        assert_int_equal(end_send(DIALER(h)), 0);
    }
    assert_false(link_can_send(DIALER(h)->link));
    assert_int_equal(end_send(DIALER(h)), -EAGAIN);
    RUN_UNTIL(h, all_acknowledged);
}

static bool three_dialers_served(struct harness *h)
{
    return h->ends[1].received == 100 && h->ends[2].received == 100 && h->ends[3].received == 100;
}

static void each_of_many_dialers_has_a_link_of_its_own(void **state)
{
    struct harness *h = *state;
    LISTENER(h)->to_send = 100;
    harness_open(h, LISTENER(h), LINK_REQREP, true, &(struct link_config){ .window = 100 });
    for (size_t i = 1; i <= 3; i++) {
        harness_open(h, &h->ends[i], LINK_REQREP, false, NULL);
    }
    RUN_UNTIL(h, three_dialers_served);
    assert_int_equal(LISTENER(h)->ups, 3);
    for (size_t i = 1; i <= 3; i++) {
        assert_false(h->ends[i].out_of_order);
    }
}

static bool second_up(struct harness *h)
{
    return h->ends[2].link != NULL;
}

static void a_pair_has_one_peer_and_the_next_waits_its_turn(void **state)
{
    struct harness *h = *state;
    harness_open_both(h, LINK_PAIR, NULL);
    harness_open(h, &h->ends[2], LINK_PAIR, false, NULL);
    DIALER(h)->to_send = 200;
    assert_int_equal(end_send(DIALER(h)), 0);
    assert_null(h->ends[2].link);
    harness_close(DIALER(h));
    RUN_UNTIL(h, second_up);
    assert_int_equal(LISTENER(h)->ups, 2);
    assert_int_equal(LISTENER(h)->downs, 1);
}

/* --- limits ------------------------------------------------------------------------------------------------- */

static bool dialer_down(struct harness *h)
{
    return DIALER(h)->downs > 0;
}

static bool listener_down(struct harness *h)
{
    return LISTENER(h)->downs > 0;
}

static void a_frame_above_the_receivers_limit_breaks_the_pipe(void **state)
{
    struct harness *h = *state;
    struct buf body = BUF_INIT;
    harness_open(
            h, LISTENER(h), LINK_REQREP, true, &(struct link_config){ .frame_bytes_max = 4096 });
    harness_open(h, DIALER(h), LINK_REQREP, false, NULL);
    RUN_UNTIL(h, both_up);
    end_encode(1, 5000, &body);
    assert_int_equal(link_send(DIALER(h)->link, 1, &body), 0);
    RUN_UNTIL(h, dialer_down);
    assert_int_equal(LISTENER(h)->received, 0);
    RUN_UNTIL(h, both_up);
}

static void a_frame_above_the_own_limit_is_not_sent(void **state)
{
    struct harness *h = *state;
    struct buf body = BUF_INIT;
    harness_open_both(h, LINK_REQREP, &(struct link_config){ .frame_bytes_max = 4096 });
    end_encode(1, 5000, &body);
    assert_int_equal(link_send(DIALER(h)->link, 1, &body), -EMSGSIZE);
    assert_int_equal(link_unacknowledged(DIALER(h)->link), 0);
    buf_fini(&body);
}

static void large_frames_below_the_limit_arrive(void **state)
{
    struct harness *h = *state;
    struct buf body = BUF_INIT;
    harness_open_both(h, LINK_PAIR, NULL);
    end_encode(1, 20 * 1024 * 1024, &body);
    DIALER(h)->to_send = 1;
    assert_int_equal(link_send(DIALER(h)->link, 2 - 1, &body), 0);
    RUN_UNTIL(h, all_arrived);
}

/* --- ending ------------------------------------------------------------------------------------------------- */

static bool both_up_again(struct harness *h)
{
    return both_up(h) && LISTENER(h)->ups == 2 && DIALER(h)->ups == 2;
}

static void a_dropped_link_goes_down_on_both_sides_and_comes_again(void **state)
{
    struct harness *h = *state;
    harness_open_both(h, LINK_REQREP, NULL);
    link_drop(LISTENER(h)->link);
    assert_int_equal(LISTENER(h)->downs, 0); /* later, not within the call */
    assert_false(link_can_send(LISTENER(h)->link));
    assert_int_equal(end_send(LISTENER(h)), -EAGAIN);
    RUN_UNTIL(h, both_up_again);
    assert_int_equal(LISTENER(h)->downs, 1);
    assert_int_equal(DIALER(h)->downs, 1);
}

static void a_link_dropped_in_on_up_goes_down_and_comes_again(void **state)
{
    struct harness *h = *state;
    LISTENER(h)->drop_in_up = true;
    harness_open(h, LISTENER(h), LINK_PAIR, true, NULL);
    harness_open(h, DIALER(h), LINK_PAIR, false, NULL);
    RUN_UNTIL(h, both_up);
    assert_int_equal(LISTENER(h)->ups, 2);
    assert_int_equal(LISTENER(h)->downs, 1);
}

static void a_dialer_finds_a_restarted_listener(void **state)
{
    struct harness *h = *state;
    for (int pattern = LINK_REQREP; pattern <= LINK_PAIR; pattern++) {
        harness_open_both(h, (enum link_pattern)pattern, NULL);
        for (int i = 0; i < 3; i++) {
            DIALER(h)->downs = 0;
            harness_close(LISTENER(h));
            RUN_UNTIL(h, dialer_down);
            harness_open(h, LISTENER(h), (enum link_pattern)pattern, true, NULL);
            RUN_UNTIL(h, both_up);
        }
        LISTENER(h)->downs = 0;
        harness_close(DIALER(h));
        RUN_UNTIL(h, listener_down);
        harness_close(LISTENER(h));
    }
}

static void closing_calls_nobody_and_frees_what_is_under_way(void **state)
{
    struct harness *h = *state;
    harness_open_both(h, LINK_REQREP, NULL);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(end_send(DIALER(h)), 0);
        assert_int_equal(end_send(LISTENER(h)), 0);
    }
    harness_close(DIALER(h));
    harness_close(LISTENER(h));
    assert_int_equal(DIALER(h)->downs + LISTENER(h)->downs, 0);
}

/* --- between hosts ------------------------------------------------------------------------------------------- */

static void use_tcp(struct harness *h)
{
    (void)snprintf(h->path, sizeof h->path, "tcp://127.0.0.1:%u", loopback_free_port());
}

static void messages_go_both_ways_over_tcp(void **state)
{
    struct harness *h = *state;
    use_tcp(h);
    LISTENER(h)->to_send = 1000;
    DIALER(h)->to_send = 1500;
    harness_open_both(h, LINK_REQREP, NULL);
    RUN_UNTIL(h, all_arrived);
    assert_false(LISTENER(h)->out_of_order || DIALER(h)->out_of_order);
}

static void large_frames_arrive_over_tcp(void **state)
{
    struct harness *h = *state;
    struct buf body = BUF_INIT;
    use_tcp(h);
    harness_open_both(h, LINK_REQREP, NULL);
    for (uint64_t i = 1; i <= 3; i++) {
        end_encode(i, 7 * 1024 * 1024, &body);
        assert_int_equal(link_send(DIALER(h)->link, 1, &body), 0);
    }
    DIALER(h)->to_send = 3;
    RUN_UNTIL(h, all_arrived);
    assert_false(LISTENER(h)->out_of_order);
}

static void a_dialer_finds_a_restarted_listener_over_tcp(void **state)
{
    struct harness *h = *state;
    use_tcp(h);
    harness_open_both(h, LINK_REQREP, NULL);
    for (int i = 0; i < 3; i++) {
        DIALER(h)->downs = 0;
        harness_close(LISTENER(h));
        RUN_UNTIL(h, dialer_down);
        harness_open(h, LISTENER(h), LINK_REQREP, true, NULL);
        RUN_UNTIL(h, both_up);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, harness_setup, harness_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_sides_learn_each_others_hello),
        TEST(a_dialer_may_come_before_its_listener),
        TEST(a_refused_dialer_hears_why_and_tries_again),
        TEST(a_listener_refused_by_its_dialer_hears_why),
        TEST(a_path_in_use_is_an_error_that_names_it),
        TEST(messages_go_both_ways_in_order),
        TEST(a_full_window_says_so_and_tells_when_it_opens),
        TEST(who_hears_nothing_back_sends_32_messages_and_no_more),
        TEST(each_of_many_dialers_has_a_link_of_its_own),
        TEST(a_pair_has_one_peer_and_the_next_waits_its_turn),
        TEST(a_frame_above_the_receivers_limit_breaks_the_pipe),
        TEST(a_frame_above_the_own_limit_is_not_sent),
        TEST(large_frames_below_the_limit_arrive),
        TEST(a_dropped_link_goes_down_on_both_sides_and_comes_again),
        TEST(a_link_dropped_in_on_up_goes_down_and_comes_again),
        TEST(a_dialer_finds_a_restarted_listener),
        TEST(closing_calls_nobody_and_frees_what_is_under_way),
        TEST(messages_go_both_ways_over_tcp),
        TEST(large_frames_arrive_over_tcp),
        TEST(a_dialer_finds_a_restarted_listener_over_tcp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
