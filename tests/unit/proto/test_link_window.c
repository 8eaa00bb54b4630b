/* test_link_window.c: numbering, keeping, ordering. */
#include "proto/link_window.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/link_wire.h"

enum {
    SIZE = 4
};

static struct wire_message *message_of(uint8_t byte)
{
    struct wire_message *message = wire_message_new(1);
    wire_message_data(message)[0] = byte;
    return message;
}

static void put(struct send_window *window, const char *text)
{
    struct buf body = BUF_INIT;
    buf_append_str(&body, text);
    (void)send_window_put(window, 1, &body);
    assert_null(body.data); /* taken */
}

static void messages_are_kept_until_acknowledged(void **state UNUSED)
{
    struct send_window window;
    send_window_init(&window, SIZE, SIZE_MAX);
    put(&window, "one");
    put(&window, "two");
    put(&window, "three");
    assert_int_equal(send_window_ack(&window, 2, NULL), 2);
    assert_int_equal(send_window_count(&window), 1);
    assert_true(span_eq(buf_span(&send_window_get(&window, 3)->body), SPAN_LIT("three")));
    assert_int_equal(send_window_ack(&window, 1, NULL), 0); /* an old ack, come late */
    assert_int_equal(send_window_count(&window), 1);
    send_window_fini(&window);
}

static void a_window_is_full_at_its_bytes_too(void **state UNUSED)
{
    struct send_window window;
    send_window_init(&window, SIZE, 8);
    put(&window, "four");
    put(&window, "six");
    assert_false(send_window_is_full(&window));
    put(&window, "large"); /* the last one may exceed it */
    assert_true(send_window_is_full(&window));
    assert_int_equal(send_window_ack(&window, 1, NULL), 1);
    assert_true(send_window_is_full(&window));
    assert_int_equal(send_window_ack(&window, 2, NULL), 1);
    assert_false(send_window_is_full(&window));
    assert_int_equal(send_window_ack(&window, 3, NULL), 1);
    assert_int_equal(window.bytes, 0);
    send_window_fini(&window);
}

static void a_window_is_full_at_its_size_and_goes_round(void **state UNUSED)
{
    struct send_window window;
    send_window_init(&window, SIZE, SIZE_MAX);
    for (uint64_t seq = 1; seq <= 10 * SIZE; seq++) {
        put(&window, "x");
        if (send_window_is_full(&window)) {
            assert_int_equal(send_window_count(&window), SIZE);
            assert_int_equal(send_window_ack(&window, seq - 1, NULL), SIZE - 1);
        }
        assert_int_equal(window.last_seq, seq);
    }
    send_window_fini(&window);
}

static void an_ack_of_what_was_never_sent_is_refused(void **state UNUSED)
{
    struct send_window window;
    struct err err;
    send_window_init(&window, SIZE, SIZE_MAX);
    put(&window, "x");
    assert_int_equal(send_window_ack(&window, 2, &err), -EBADMSG);
    assert_int_equal(send_window_count(&window), 1);
    send_window_fini(&window);
}

static enum receive_verdict receive(struct receive_window *window, uint64_t seq)
{
    struct wire_message *message = message_of((uint8_t)seq);
    enum receive_verdict verdict = receive_window_put(window, seq, &message);
    assert_true((message == NULL) == (verdict == RECEIVE_AHEAD));
    (void)wire_message_free(message);
    return verdict;
}

static void assert_next(struct receive_window *window, uint8_t seq)
{
    struct wire_message *message = receive_window_next(window);
    assert_non_null(message);
    assert_int_equal(wire_message_body(message).data[0], seq);
    (void)wire_message_free(message);
}

static void messages_that_came_early_are_handed_out_in_order(void **state UNUSED)
{
    struct receive_window window;
    receive_window_init(&window, SIZE);
    assert_int_equal(receive(&window, 3), RECEIVE_AHEAD);
    assert_int_equal(receive(&window, 2), RECEIVE_AHEAD);
    assert_null(receive_window_next(&window));
    assert_int_equal(receive(&window, 1), RECEIVE_DELIVER);
    assert_next(&window, 2);
    assert_next(&window, 3);
    assert_null(receive_window_next(&window));
    assert_int_equal(window.received_seq, 3);
    receive_window_fini(&window);
}

static void nothing_is_handed_out_twice(void **state UNUSED)
{
    struct receive_window window;
    receive_window_init(&window, SIZE);
    assert_int_equal(receive(&window, 1), RECEIVE_DELIVER);
    assert_int_equal(receive(&window, 1), RECEIVE_DUPLICATE);
    assert_int_equal(receive(&window, 3), RECEIVE_AHEAD);
    assert_int_equal(receive(&window, 3), RECEIVE_DUPLICATE);
    assert_int_equal(receive(&window, 2), RECEIVE_DELIVER);
    assert_int_equal(receive(&window, 3), RECEIVE_DELIVER); /* before it was asked for */
    assert_null(receive_window_next(&window));
    assert_int_equal(window.received_seq, 3);
    receive_window_fini(&window);
}

static void what_lies_beyond_the_window_is_dropped(void **state UNUSED)
{
    struct receive_window window;
    receive_window_init(&window, SIZE);
    assert_int_equal(receive(&window, SIZE), RECEIVE_AHEAD);
    assert_int_equal(receive(&window, SIZE + 1), RECEIVE_TOO_FAR);
    assert_int_equal(receive(&window, UINT64_MAX), RECEIVE_TOO_FAR);
    receive_window_fini(&window); /* frees what still waits */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_kept_until_acknowledged),
        cmocka_unit_test(a_window_is_full_at_its_bytes_too),
        cmocka_unit_test(a_window_is_full_at_its_size_and_goes_round),
        cmocka_unit_test(an_ack_of_what_was_never_sent_is_refused),
        cmocka_unit_test(messages_that_came_early_are_handed_out_in_order),
        cmocka_unit_test(nothing_is_handed_out_twice),
        cmocka_unit_test(what_lies_beyond_the_window_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
