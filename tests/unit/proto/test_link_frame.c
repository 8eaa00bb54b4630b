/* test_link_frame.c: the frame's head, refusals' texts, and what is neither. */
#include "proto/link_frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_comes_back(uint64_t type, uint64_t epoch, uint64_t seq, uint64_t ack)
{
    uint8_t head[LINK_FRAME_HEAD_BYTES_MAX];
    struct link_frame out;
    struct buf bytes = BUF_INIT;
    struct link_frame in = { .type = type, .epoch = epoch, .seq = seq, .ack = ack };

    buf_append(&bytes, head, link_frame_put_head(&in, head));
    buf_append_str(&bytes, "\x81\x01\x02");
    assert_int_equal(codec_scan(buf_span(&bytes), NULL), 0); /* it is msgpack */
    assert_int_equal(link_frame_parse(buf_span(&bytes), &out, NULL), 0);
    assert_int_equal(out.type, type);
    assert_int_equal(out.epoch, epoch);
    assert_int_equal(out.seq, seq);
    assert_int_equal(out.ack, ack);
    assert_true(span_eq(out.body, SPAN_LIT("\x81\x01\x02")));
    buf_fini(&bytes);
}

static void a_frame_comes_back_as_it_was(void **state UNUSED)
{
    assert_comes_back(1, 1, 1, 0);
    assert_comes_back(199, UINT64_MAX, UINT64_MAX, UINT64_MAX);
    assert_comes_back(LINK_ACK, 127, 0, 128);
    assert_comes_back(LINK_HELLO, UINT64_C(1) << 32, 0, 0);
}

static void all_forms_of_a_number_are_read(void **state UNUSED)
{
    struct link_frame out;
    struct span input = SPAN_LIT("\x95\xcc\x05\xcd\x01\x00\xce\x00\x01\x00\x00\x07\xc0");
    assert_int_equal(link_frame_parse(input, &out, NULL), 0);
    assert_int_equal(out.type, 5);
    assert_int_equal(out.epoch, 256);
    assert_int_equal(out.seq, 65536);
    assert_int_equal(out.ack, 7);
}

static void assert_refused(struct span input, const char *text)
{
    struct link_frame out;
    struct err err;
    assert_int_equal(link_frame_parse(input, &out, &err), -EBADMSG);
    if (strstr(err.text, text) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, text);
    }
}

static void what_is_not_a_frame_is_refused_by_field(void **state UNUSED)
{
    assert_refused(SPAN_LIT(""), "frame: not a list of five");
    assert_refused(SPAN_LIT("\x94\x01\x01\x01\x01"), "frame: not a list of five");
    assert_refused(SPAN_LIT("\x95"), "frame.type: cut short");
    assert_refused(SPAN_LIT("\x95\xa1x\x01\x01\x01\xc0"), "frame.type: not an unsigned number");
    assert_refused(SPAN_LIT("\x95\x01\xcf\x01\x01"), "frame.epoch: cut short");
    assert_refused(SPAN_LIT("\x95\x01\x00\x01\x01\xc0"), "frame.epoch: 0");
    assert_refused(SPAN_LIT("\x95\x01\x01\xff\x01\xc0"), "frame.seq: not an unsigned number");
    assert_refused(SPAN_LIT("\x95\x01\x01\x01\xc2\xc0"), "frame.ack: not an unsigned number");
    assert_refused(SPAN_LIT("\x95\x01\x01\x01\x01"), "frame.body: missing");
    assert_refused(SPAN_LIT("\x95\x00\x01\x01\x01\xc0"), "frame.type: 0");
    assert_refused(SPAN_LIT("\x95\xcd\x01\x00\x01\x01\x01\xc0"), "frame.type: 256");
    assert_refused(SPAN_LIT("\x95\x01\x01\x00\x01\xc0"), "frame.seq: 0 with type 1");
    assert_refused(SPAN_LIT("\x95\xcc\xf3\x01\x01\x01\xc0"), "frame.seq: 1 with type 243");
}

static void control_types_of_later_versions_are_frames(void **state UNUSED)
{
    struct link_frame out;
    assert_int_equal(link_frame_parse(SPAN_LIT("\x95\xcc\xff\x01\x00\x01\xc0"), &out, NULL), 0);
    assert_int_equal(out.type, 255);
}

static void assert_text(const char *text, const char *want)
{
    struct buf body = BUF_INIT;
    char out[ERR_TEXT_BYTES];
    link_text_encode(span_str(text), &body);
    assert_int_equal(codec_scan(buf_span(&body), NULL), 0);
    link_text_decode(buf_span(&body), out);
    assert_string_equal(out, want);
    buf_fini(&body);
}

static void a_refusals_text_comes_back_printable(void **state UNUSED)
{
    char text[ERR_TEXT_BYTES * 2];
    char want[ERR_TEXT_BYTES];
    assert_text("", "");
    assert_text("cluster 1 is not cluster 2", "cluster 1 is not cluster 2");
    assert_text("line\nfeed\033[31m\xff", "line?feed?[31m?");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    memset(want, 'x', sizeof want - 1);
    want[sizeof want - 1] = '\0';
    assert_text(text, want);
}

static void a_body_that_is_no_text_reads_as_empty(void **state UNUSED)
{
    char out[ERR_TEXT_BYTES];
    static const struct span bodies[] = { SPAN_LIT(""), SPAN_LIT("\xc0"), SPAN_LIT("\xc4\x05x"),
        SPAN_LIT("\xa1x"), SPAN_LIT("\xc6\xff\xff\xff\xff") };
    for (size_t i = 0; i < ARRAY_COUNT(bodies); i++) {
        link_text_decode(bodies[i], out);
        assert_string_equal(out, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_comes_back_as_it_was),
        cmocka_unit_test(all_forms_of_a_number_are_read),
        cmocka_unit_test(what_is_not_a_frame_is_refused_by_field),
        cmocka_unit_test(control_types_of_later_versions_are_frames),
        cmocka_unit_test(a_refusals_text_comes_back_printable),
        cmocka_unit_test(a_body_that_is_no_text_reads_as_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
