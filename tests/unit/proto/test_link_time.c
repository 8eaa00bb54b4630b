/* test_link_time.c: how long a lost frame can hold a message up, in virtual time: each frame of a conversation is lost in
 * its turn, then each two of them, and all the same everything arrives, once, in order, within a second of being sent.
 *
 * What bounds it: a message is sent again once it is unacknowledged for resend_ms (300), looked at each 10 ms. Two losses
 * of the same message cost that twice. Only then, after stall_ms (1,000) without any movement, is the pipe given up. */
#include "proto/link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/loop.h"
#include "proto/hello.h"
#include "proto/limits.h"
#include "tests/unit/proto/virtual_wire.h"

enum {
    NUMBERS_MAX = 128,
    MESSAGE = 1,
    RESEND_MS = 300,
    TICK_MS = 10,
    LATENCY_MS = 1,
    ONE_LOSS_MS = RESEND_MS + TICK_MS + 2 * LATENCY_MS,
    PROMISED_MS = 1000,
    MINUTE_MS = 60000,
};

struct side {
    struct side *other;
    struct link_hub *hub;
    struct link *link;
    uint64_t sent;
    uint64_t sent_at_ms[NUMBERS_MAX];
    uint64_t received;
    uint64_t slowest_ms; /* of what it received */
    unsigned ups;
    unsigned downs;
    bool answers; /* one message for each that comes */
};

static void say(struct side *side)
{
    struct buf body = BUF_INIT;

    assert_in_range(++side->sent, 1, NUMBERS_MAX - 1);
    buf_append_byte(&body, (uint8_t)side->sent); /* of msgpack, a small number */
    assert_int_equal(link_send(side->link, MESSAGE, &body), 0);
    side->sent_at_ms[side->sent] = virtual_now_ms();
}

static int on_up(
        void *user, struct link *link, const struct hello *peer UNUSED, struct err *err UNUSED)
{
    struct side *side = user;
    side->link = link;
    side->ups++;
    return 0;
}

static void on_down(void *user, struct link *link UNUSED)
{
    struct side *side = user;
    side->link = NULL;
    side->downs++;
}

static void on_message(void *user, struct link *link UNUSED, unsigned type UNUSED, struct span body)
{
    struct side *side = user;

    side->received++;
    assert_int_equal(body.bytes, 1);
    assert_int_equal(body.data[0], side->received);
    side->slowest_ms =
            MAX(side->slowest_ms, virtual_now_ms() - side->other->sent_at_ms[side->received]);
    if (side->answers) {
        say(side);
    }
}

static void fill_hello(void *user UNUSED, struct hello *ret_hello)
{
    ret_hello->component = SPAN_LIT("test");
}

static const struct link_events events = {
    .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .fill_hello = fill_hello,
};

/* Frames are counted from 1, hellos and acks too. */
struct losses {
    unsigned seen;
    unsigned first;
    unsigned second;
};

static bool lose_chosen(
        void *user, bool from_listener UNUSED, const struct link_frame *frame UNUSED)
{
    struct losses *losses = user;
    unsigned number = ++losses->seen;
    return number == losses->first || number == losses->second;
}

struct talk {
    struct side listener;
    struct side dialer;
    uint64_t up_after_ms;
};

static void open_side(struct side *side, bool listen)
{
    struct link_config config = {
        .pattern = LINK_PAIR, .listen = listen, .path = "virtual", .events = &events, .user = side
    };
    assert_int_equal(link_hub_open(virtual_loop(), &config, &side->hub, NULL), 0);
}

static void begin_talk(struct talk *talk, virtual_lose_fn lose, void *user)
{
    *talk = (struct talk){ .listener = { .other = &talk->dialer },
        .dialer = { .other = &talk->listener } };
    virtual_begin(lose, user);
    open_side(&talk->listener, true);
    open_side(&talk->dialer, false);
}

static void end_talk(struct talk *talk)
{
    (void)link_hub_close(talk->listener.hub);
    (void)link_hub_close(talk->dialer.hub);
}

/* The conversation of a quiet link: three at once, one alone, and after a while one more before an idle minute. Each is
 * answered. With beacons the listener says something every 100 ms besides, as stored does. */
static void converse(struct talk *talk, struct losses *losses, bool has_beacons)
{
    losses->seen = 0;
    begin_talk(talk, lose_chosen, losses);
    talk->listener.answers = true;
    while (talk->listener.link == NULL || talk->dialer.link == NULL) {
        virtual_pass(1);
        assert_true(++talk->up_after_ms < PROMISED_MS);
    }
    for (unsigned i = 0; i < 3; i++) {
        say(&talk->dialer);
    }
    virtual_pass(40);
    say(&talk->dialer);
    for (unsigned i = 0; i < 12; i++) {
        virtual_pass(100);
        if (has_beacons) {
            say(&talk->listener);
        }
    }
    say(&talk->dialer);
    virtual_pass(MINUTE_MS);
    assert_int_equal(talk->listener.received, talk->dialer.sent);
    assert_int_equal(talk->dialer.received, talk->listener.sent);
    assert_int_equal(link_unacknowledged(talk->listener.link), 0);
    assert_int_equal(link_unacknowledged(talk->dialer.link), 0);
    assert_int_equal(talk->listener.ups + talk->dialer.ups, 2);
    assert_int_equal(talk->listener.downs + talk->dialer.downs, 0);
    end_talk(talk);
}

/* The slowest message, and the slowest beginning, whichever frame is lost, and one more if wanted. */
static uint64_t slowest_of_all(bool has_beacons, bool two)
{
    uint64_t slowest_ms = 0;
    unsigned runs = 0;
    struct losses losses = { 0 };
    struct talk talk;

    converse(&talk, &losses, has_beacons);
    assert_in_range(MAX(talk.listener.slowest_ms, talk.dialer.slowest_ms), 1, LATENCY_MS);
    for (losses.first = 1; losses.first <= losses.seen; losses.first++) {
        losses.second = two ? losses.first + 1 : 0;
        do {
            converse(&talk, &losses, has_beacons);
            uint64_t message_ms = MAX(talk.listener.slowest_ms, talk.dialer.slowest_ms);
            uint64_t run_ms = MAX(message_ms, talk.up_after_ms);
            slowest_ms = MAX(slowest_ms, run_ms);
            runs++;
        } while (two && ++losses.second <= losses.seen);
    }
    print_message("%u runs, slowest %lu ms\n", runs, (unsigned long)slowest_ms);
    assert_true(runs > 10);
    return slowest_ms;
}

static void whichever_frame_is_lost_all_arrives_after_one_resend(void **state UNUSED)
{
    assert_in_range(slowest_of_all(false, false), RESEND_MS, ONE_LOSS_MS);
    assert_in_range(slowest_of_all(true, false), RESEND_MS, ONE_LOSS_MS);
}

static void whichever_two_frames_are_lost_all_arrives_within_a_second(void **state UNUSED)
{
    assert_in_range(slowest_of_all(false, true), RESEND_MS, PROMISED_MS - 1);
    assert_in_range(slowest_of_all(true, true), RESEND_MS, PROMISED_MS - 1);
}

static bool lose_all(void *user, bool from_listener, const struct link_frame *frame)
{
    const bool *is_cut = user;
    return *is_cut && from_listener && frame->type != LINK_HELLO;
}

static void a_pipe_that_gives_no_answer_is_given_up_after_a_second(void **state UNUSED)
{
    struct talk talk;
    bool is_cut = false;

    begin_talk(&talk, lose_all, &is_cut);
    virtual_pass(10);
    is_cut = true;
    say(&talk.dialer);
    virtual_pass(PROMISED_MS - 1);
    assert_int_equal(talk.dialer.downs, 0);
    virtual_pass(2 * TICK_MS);
    assert_int_equal(talk.dialer.downs, 1);
    assert_int_equal(talk.dialer.ups, 2); /* and dialled anew */
    end_talk(&talk);
}

/* A large message to a machine that is busy takes longer than a second: something moves all the time. */
static void a_pipe_that_takes_bytes_is_given_up_a_second_after_the_last(void **state UNUSED)
{
    struct talk talk;
    bool is_cut = false;

    begin_talk(&talk, lose_all, &is_cut);
    virtual_pass(10);
    is_cut = true;
    virtual_set_waiting(30);
    say(&talk.dialer);
    for (size_t left = 29; left > 0; left--) {
        virtual_pass(PROMISED_MS / 2);
        virtual_set_waiting(left);
    }
    assert_int_equal(talk.dialer.downs, 0);
    virtual_pass(PROMISED_MS - 1);
    assert_int_equal(talk.dialer.downs, 0);
    virtual_pass(2 * TICK_MS);
    assert_int_equal(talk.dialer.downs, 1);
    end_talk(&talk);
}

/* Who has no CPU does not hear: nobody is judged by that, however often it comes. */
static void time_in_which_nobody_listened_is_nobodys_stall(void **state UNUSED)
{
    struct talk talk;
    bool is_cut = false;

    begin_talk(&talk, lose_all, &is_cut);
    virtual_pass(10);
    is_cut = true;
    say(&talk.dialer);
    for (unsigned i = 0; i < 5; i++) {
        virtual_block(PROMISED_MS);
    }
    assert_int_equal(talk.dialer.downs, 0);
    is_cut = false;
    virtual_pass(2 * RESEND_MS);
    assert_int_equal(talk.listener.received, 1);
    assert_int_equal(link_unacknowledged(talk.dialer.link), 0);
    assert_int_equal(talk.dialer.downs, 0);

    /* But it ends, for one that is always late too. */
    is_cut = true;
    say(&talk.dialer);
    for (unsigned i = 0; i < 12; i++) {
        virtual_block(PROMISED_MS);
    }
    virtual_pass(1);
    assert_int_equal(talk.dialer.downs, 1);
    end_talk(&talk);
}

/* The ack is looked at when the loop does not know yet how late it is: the tick finds that out afterwards. */
static void an_ack_that_is_heard_late_is_no_stall(void **state UNUSED)
{
    struct talk talk;
    bool is_cut = false;

    begin_talk(&talk, lose_all, &is_cut);
    virtual_pass(10);
    talk.listener.answers = true;
    for (unsigned i = 0; i < 5; i++) {
        is_cut = false;
        say(&talk.dialer);
        virtual_pass(LATENCY_MS);
        is_cut = true; /* the next one's answer; the first one's is under way */
        say(&talk.dialer);
        virtual_oversleep(PROMISED_MS);
        assert_int_equal(link_unacknowledged(talk.dialer.link), 1);
        virtual_pass(PROMISED_MS / 2);
        assert_int_equal(talk.dialer.downs, 0);
        is_cut = false;
        virtual_pass(2 * RESEND_MS);
        assert_int_equal(link_unacknowledged(talk.dialer.link), 0);
    }
    assert_int_equal(talk.dialer.ups, 1);
    end_talk(&talk);
}

static bool count_acks(void *user, bool from_listener, const struct link_frame *frame)
{
    unsigned *acks = user;
    *acks += !from_listener && frame->type == LINK_ACK;
    return false;
}

/* Each message that comes again asks for another ack. What is owed is said once, when some was read. */
static void acks_are_not_heaped_up_for_who_does_not_read(void **state UNUSED)
{
    struct talk talk;
    unsigned acks = 0;

    begin_talk(&talk, count_acks, &acks);
    virtual_pass(10);
    virtual_set_waiting(UNREAD_BYTES_MAX);
    say(&talk.listener);
    virtual_pass(2 * ONE_LOSS_MS);
    assert_int_equal(talk.dialer.received, 1);
    assert_int_equal(acks, 0);
    virtual_set_waiting(UNREAD_BYTES_MAX - 1);
    virtual_pass(2 * LATENCY_MS);
    assert_int_equal(acks, 1);
    assert_int_equal(link_unacknowledged(talk.listener.link), 0);
    assert_int_equal(talk.dialer.downs + talk.listener.downs, 0);
    end_talk(&talk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whichever_frame_is_lost_all_arrives_after_one_resend),
        cmocka_unit_test(whichever_two_frames_are_lost_all_arrives_within_a_second),
        cmocka_unit_test(a_pipe_that_gives_no_answer_is_given_up_after_a_second),
        cmocka_unit_test(a_pipe_that_takes_bytes_is_given_up_a_second_after_the_last),
        cmocka_unit_test(time_in_which_nobody_listened_is_nobodys_stall),
        cmocka_unit_test(an_ack_that_is_heard_late_is_no_stall),
        cmocka_unit_test(acks_are_not_heaped_up_for_who_does_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
