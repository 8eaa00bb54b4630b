/* test_frame.c: frames between members, and messages put together from them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/raftd/peer/frame.h"

static void a_head_comes_back_as_it_was(void **state)
{
    const struct frame_head head = {
        .type = 7, .flags = PEER_FLAG_MORE, .epoch = 0x0123456789abcdefU
    };
    uint8_t bytes[PEER_HEAD_BYTES + 3] = { 0 };
    struct frame_head found;
    struct span body;

    (void)state;
    frame_encode_head(&head, bytes);
    memcpy(bytes + PEER_HEAD_BYTES, "abc", 3);
    assert_int_equal(frame_parse(span_of(bytes, sizeof bytes), &found, &body), 0);
    assert_int_equal(found.type, head.type);
    assert_int_equal(found.flags, head.flags);
    assert_true(found.epoch == head.epoch);
    assert_true(span_eq(body, SPAN_LIT("abc")));
}

static void what_is_too_short_is_no_frame(void **state)
{
    uint8_t bytes[PEER_HEAD_BYTES] = { 0 };
    struct frame_head head;
    struct span body;

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++) {
        assert_int_equal(frame_parse(span_of(bytes, i), &head, &body), -EBADMSG);
    }
    assert_int_equal(frame_parse(span_of(bytes, sizeof bytes), &head, &body), 0);
    assert_int_equal(body.bytes, 0);
}

static void a_single_frame_is_the_message_itself(void **state)
{
    struct frame_parts parts = { 0 };
    struct frame_head head = { .type = 1 };
    struct span whole;

    (void)state;
    assert_int_equal(frame_parts_add(&parts, &head, SPAN_LIT("one"), &whole), 1);
    assert_true(span_eq(whole, SPAN_LIT("one")));
    frame_parts_fini(&parts);
}

static void fragments_become_one_message_and_then_the_next(void **state)
{
    struct frame_parts parts = { 0 };
    struct frame_head more = { .type = 1, .flags = PEER_FLAG_MORE };
    struct frame_head last = { .type = 1 };
    struct span whole;

    (void)state;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(frame_parts_add(&parts, &more, SPAN_LIT("ab"), &whole), 0);
        assert_int_equal(frame_parts_add(&parts, &more, SPAN_LIT("cd"), &whole), 0);
        assert_int_equal(frame_parts_add(&parts, &last, SPAN_LIT("e"), &whole), 1);
        assert_true(span_eq(whole, SPAN_LIT("abcde")));
    }
    frame_parts_fini(&parts);
}

static void fragments_of_two_messages_are_not_mixed(void **state)
{
    struct frame_parts parts = { 0 };
    struct frame_head more = { .type = 1, .flags = PEER_FLAG_MORE };
    struct frame_head other = { .type = 2 };
    struct span whole;

    (void)state;
    assert_int_equal(frame_parts_add(&parts, &more, SPAN_LIT("ab"), &whole), 0);
    assert_int_equal(frame_parts_add(&parts, &other, SPAN_LIT("c"), &whole), -EBADMSG);
    frame_parts_fini(&parts);
}

static void a_message_without_end_is_given_up_at_its_limit(void **state)
{
    struct frame_parts parts = { 0 };
    struct frame_head more = { .type = 1, .flags = PEER_FLAG_MORE };
    struct buf piece = BUF_INIT;
    struct span whole;
    size_t taken = 0;
    int result;

    (void)state;
    memset(buf_reserve(&piece, PEER_FRAME_BYTES_MAX), 'x', PEER_FRAME_BYTES_MAX);
    piece.bytes = PEER_FRAME_BYTES_MAX;
    while ((result = frame_parts_add(&parts, &more, buf_span(&piece), &whole)) == 0) {
        taken += piece.bytes;
        assert_true(taken <= PEER_MESSAGE_BYTES_MAX);
    }
    assert_int_equal(result, -EBADMSG);
    assert_true(taken > PEER_MESSAGE_BYTES_MAX - PEER_FRAME_BYTES_MAX);
    buf_fini(&piece);
    frame_parts_fini(&parts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_comes_back_as_it_was),
        cmocka_unit_test(what_is_too_short_is_no_frame),
        cmocka_unit_test(a_single_frame_is_the_message_itself),
        cmocka_unit_test(fragments_become_one_message_and_then_the_next),
        cmocka_unit_test(fragments_of_two_messages_are_not_mixed),
        cmocka_unit_test(a_message_without_end_is_given_up_at_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
