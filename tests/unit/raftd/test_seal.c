/* test_seal.c: two sides of a sealed connection in memory, and who tries to be one of them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/raftd/peer/seal.h"

#define KEY_A "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define KEY_B "ffeeddccbbaa99887766554433221100FFEEDDCCBBAA99887766554433221100"

static struct seal_keys keys_of(const char *text)
{
    struct seal_keys keys;

    assert_int_equal(seal_keys_parse(span_str(text), "file", &keys, NULL), 0);
    return keys;
}

/* Side 0 dials. */
struct pair {
    struct seal *seals[2];
    struct buf plain[2];
    struct buf flight[2]; /* to be received by that side */
    struct err errs[2];
    int results[2];
    size_t piece_bytes; /* received at once; 0: all */
    struct buf sent[2]; /* all that a side has said */
};

static void feed(struct pair *pair, unsigned side, struct span bytes)
{
    struct buf out = BUF_INIT;

    if (pair->results[side] == 0) {
        pair->results[side] =
                seal_receive(pair->seals[side], bytes, &pair->plain[side], &out, &pair->errs[side]);
    }
    buf_append_span(&pair->flight[1 - side], buf_span(&out));
    buf_append_span(&pair->sent[side], buf_span(&out));
    buf_fini(&out);
}

static void exchange(struct pair *pair)
{
    while (pair->flight[0].bytes + pair->flight[1].bytes > 0) {
        for (unsigned side = 0; side < 2; side++) {
            CLEANUP(buf_fini) struct buf taken = pair->flight[side];
            pair->flight[side] = BUF_INIT;
            struct span left = buf_span(&taken);
            while (left.bytes > 0) {
                size_t bytes =
                        pair->piece_bytes == 0 ? left.bytes : MIN(left.bytes, pair->piece_bytes);
                feed(pair, side, span_of(left.data, bytes));
                left = span_from(left, bytes);
            }
        }
    }
}

static void open_pair(struct pair *pair, const char *dials, const char *listens)
{
    struct seal_keys keys[2] = { keys_of(dials), keys_of(listens) };

    pair->seals[0] = seal_new(&keys[0], false);
    pair->seals[1] = seal_new(&keys[1], true);
    feed(pair, 0, SPAN_NONE);
    exchange(pair);
}

static void close_pair(struct pair *pair)
{
    for (unsigned side = 0; side < 2; side++) {
        pair->seals[side] = seal_free(pair->seals[side]);
        buf_fini(&pair->plain[side]);
        buf_fini(&pair->flight[side]);
        buf_fini(&pair->sent[side]);
    }
    *pair = (struct pair){ 0 };
}

static void seal_text(struct pair *pair, unsigned from, struct span text)
{
    struct buf out = BUF_INIT;

    assert_true(seal_is_ready(pair->seals[from]));
    assert_int_equal(seal_send(pair->seals[from], text, &out, NULL), 0);
    buf_append_span(&pair->flight[1 - from], buf_span(&out));
    buf_append_span(&pair->sent[from], buf_span(&out));
    buf_fini(&out);
}

static void assert_they_talk(struct pair *pair)
{
    for (unsigned side = 0; side < 2; side++) {
        if (pair->results[side] < 0) {
            fail_msg("%s", pair->errs[side].text);
        }
        seal_text(pair, side, SPAN_LIT("first, "));
        seal_text(pair, side, SPAN_LIT("second"));
    }
    exchange(pair);
    assert_true(span_eq(buf_span(&pair->plain[0]), SPAN_LIT("first, second")));
    assert_true(span_eq(buf_span(&pair->plain[1]), SPAN_LIT("first, second")));
}

static void sides_with_one_key_talk_whatever_the_pieces(void **state)
{
    (void)state;
    for (size_t piece = 0; piece < 12; piece++) {
        struct pair pair = { .piece_bytes = piece };
        open_pair(&pair, KEY_A, KEY_A);
        assert_they_talk(&pair);
        close_pair(&pair);
    }
}

static void what_is_said_cannot_be_read_and_is_never_the_same(void **state)
{
    struct pair pairs[2] = { { .piece_bytes = 0 }, { .piece_bytes = 0 } };
    (void)state;

    for (unsigned i = 0; i < 2; i++) {
        open_pair(&pairs[i], KEY_A, KEY_A);
        assert_they_talk(&pairs[i]);
        for (unsigned side = 0; side < 2; side++) {
            assert_null(memmem(pairs[i].sent[side].data, pairs[i].sent[side].bytes, "second", 6));
        }
    }
    for (unsigned side = 0; side < 2; side++) {
        /* But for the four bytes that say what it is. */
        assert_int_equal(pairs[0].sent[side].bytes, pairs[1].sent[side].bytes);
        assert_int_not_equal(
                memcmp(pairs[0].sent[side].data + 4, pairs[1].sent[side].data + 4, 32), 0);
    }
    close_pair(&pairs[0]);
    close_pair(&pairs[1]);
}

static void large_messages_come_whole(void **state)
{
    struct pair pair = { .piece_bytes = 1021 };
    size_t bytes = 5 * SEAL_PLAIN_BYTES_MAX / 2;
    uint8_t *large = xmalloc(bytes);
    (void)state;

    for (size_t i = 0; i < bytes; i++) {
        large[i] = (uint8_t)(i * 31 >> 3);
    }
    open_pair(&pair, KEY_A, KEY_A);
    seal_text(&pair, 0, span_of(large, bytes));
    exchange(&pair);
    assert_true(span_eq(buf_span(&pair.plain[1]), span_of(large, bytes)));
    close_pair(&pair);
    free(large);
}

static void assert_refuses(const struct pair *pair, unsigned side, const char *says)
{
    assert_int_equal(pair->results[side], -EPROTO);
    assert_false(seal_is_ready(pair->seals[side]));
    assert_int_equal(pair->plain[side].bytes, 0);
    if (strstr(pair->errs[side].text, says) == NULL ||
            strstr(pair->errs[side].text, "; ") == NULL) {
        fail_msg("says: %s", pair->errs[side].text);
    }
}

static void another_key_is_refused_before_a_word_is_said(void **state)
{
    struct pair pair = { 0 };
    (void)state;

    open_pair(&pair, KEY_A, KEY_B);
    assert_refuses(&pair, 1, "the other side seals with another cluster key");
    assert_false(seal_is_ready(pair.seals[0]));
    assert_int_equal(pair.sent[1].bytes, 0);
    close_pair(&pair);
}

static void a_second_key_is_taken_but_not_dialled_with(void **state)
{
    struct pair pair = { 0 };
    (void)state;

    open_pair(&pair, KEY_A, KEY_B "\n" KEY_A "\n");
    assert_they_talk(&pair);
    close_pair(&pair);
    open_pair(&pair, KEY_A "\r\n" KEY_B, KEY_A);
    assert_they_talk(&pair);
    close_pair(&pair);
    open_pair(&pair, KEY_B "\n" KEY_A, KEY_A);
    assert_refuses(&pair, 1, "another cluster key");
    close_pair(&pair);
}

static void what_was_recorded_opens_in_no_other_connection(void **state)
{
    struct pair recorded = { 0 };
    (void)state;

    open_pair(&recorded, KEY_A, KEY_A);
    assert_they_talk(&recorded);

    struct seal_keys keys = keys_of(KEY_A);
    struct pair replay = { .seals = { seal_new(&keys, false), seal_new(&keys, true) } };
    feed(&replay, 1, buf_span(&recorded.sent[0]));
    assert_int_equal(replay.results[1], -EPROTO);
    assert_int_equal(replay.plain[1].bytes, 0);
    feed(&replay, 0, SPAN_NONE);
    feed(&replay, 0, buf_span(&recorded.sent[1]));
    assert_refuses(&replay, 0, "another cluster key"); /* the proof is not over our public key */
    close_pair(&replay);

    /* Nor does what was said come back as an answer. */
    struct pair echo = { .seals = { seal_new(&keys, false), seal_new(&keys, true) } };
    feed(&echo, 0, SPAN_NONE);
    struct buf own = BUF_INIT;
    buf_append_span(&own, buf_span(&echo.sent[0]));
    feed(&echo, 0, buf_span(&own));
    assert_refuses(&echo, 0, "another cluster key");
    buf_fini(&own);
    close_pair(&echo);
    close_pair(&recorded);
}

/* One frame of side 0 in flight, and the next. */
static void two_frames(struct pair *pair, struct buf ret_frames[2])
{
    open_pair(pair, KEY_A, KEY_A);
    for (unsigned i = 0; i < 2; i++) {
        seal_text(pair, 0, i == 0 ? SPAN_LIT("one") : SPAN_LIT("two"));
        ret_frames[i] = pair->flight[1];
        pair->flight[1] = BUF_INIT;
    }
}

static void frames_left_out_doubled_or_moved_do_not_open(void **state)
{
    static const int orders[][3] = { { 1, 0, -1 }, { 0, 0, 1 }, { 1, -1, -1 } };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(orders); i++) {
        struct pair pair = { 0 };
        struct buf frames[2];
        two_frames(&pair, frames);
        for (size_t j = 0; j < 3 && orders[i][j] >= 0; j++) {
            feed(&pair, 1, buf_span(&frames[orders[i][j]]));
        }
        assert_int_equal(pair.results[1], -EPROTO);
        assert_non_null(strstr(pair.errs[1].text, "does not open"));
        assert_true(pair.plain[1].bytes <= 3);
        buf_fini(&frames[0]);
        buf_fini(&frames[1]);
        close_pair(&pair);
    }
}

static void a_changed_bit_opens_nothing(void **state)
{
    (void)state;
    for (size_t bit = 0;; bit++) {
        struct pair pair = { 0 };
        struct buf frames[2];
        two_frames(&pair, frames);
        bool is_over = bit / 8 >= frames[0].bytes;
        if (!is_over) {
            frames[0].data[bit / 8] ^= (uint8_t)(1U << bit % 8);
            feed(&pair, 1, buf_span(&frames[0]));
            feed(&pair, 1, buf_span(&frames[1]));
            /* A longer length waits for bytes that never come; a shorter one and all else is refused. */
            assert_true(pair.results[1] == -EPROTO || bit < 32);
            assert_int_equal(pair.plain[1].bytes, 0);
        }
        buf_fini(&frames[0]);
        buf_fini(&frames[1]);
        close_pair(&pair);
        if (is_over) {
            return;
        }
    }
}

static void any_changed_bit_of_the_handshake_ends_it_without_a_word(void **state)
{
    struct seal_keys keys = keys_of(KEY_A);
    (void)state;

    for (size_t bit = 0; bit < (4 + 32 + 16) * 8; bit++) {
        struct pair pair = { .seals = { seal_new(&keys, false), seal_new(&keys, true) } };
        feed(&pair, 0, SPAN_NONE);
        pair.flight[1].data[bit / 8] ^= (uint8_t)(1U << bit % 8);
        exchange(&pair);
        assert_int_equal(pair.results[1], -EPROTO);
        assert_int_equal(pair.sent[1].bytes, 0);
        assert_false(seal_is_ready(pair.seals[0]) || seal_is_ready(pair.seals[1]));
        close_pair(&pair);
    }
}

static void any_changed_bit_of_the_answer_is_refused_at_once(void **state)
{
    struct seal_keys keys = keys_of(KEY_A);
    (void)state;

    for (size_t bit = 0; bit < (4 + 32 + 16) * 8; bit++) {
        struct pair pair = { .seals = { seal_new(&keys, false), seal_new(&keys, true) } };
        feed(&pair, 0, SPAN_NONE);
        feed(&pair, 1, buf_span(&pair.flight[1]));
        buf_clear(&pair.flight[1]);
        pair.flight[0].data[bit / 8] ^= (uint8_t)(1U << bit % 8);
        exchange(&pair);
        assert_int_equal(pair.results[0], -EPROTO);
        assert_false(seal_is_ready(pair.seals[0]));
        close_pair(&pair);
    }
}

static void a_handshake_that_is_cut_just_waits(void **state)
{
    struct seal_keys keys = keys_of(KEY_A);
    struct pair pair = { .seals = { seal_new(&keys, false), seal_new(&keys, true) } };
    (void)state;

    feed(&pair, 0, SPAN_NONE);
    for (size_t bytes = 0; bytes < pair.sent[0].bytes; bytes++) {
        struct pair other = { .seals = { NULL, seal_new(&keys, true) } };
        feed(&other, 1, span_of(pair.sent[0].data, bytes));
        assert_int_equal(other.results[1], 0);
        assert_int_equal(other.sent[1].bytes, 0);
        assert_false(seal_is_ready(other.seals[1]));
        close_pair(&other);
    }
    close_pair(&pair);
}

static void who_does_not_seal_is_told_apart(void **state)
{
    static const struct {
        const char *bytes;
        size_t count;
        const char *says;
    } rows[] = {
        { "GET / HTTP/1.1\r\n\r\n", 18, "an HTTP request on the peer port" },
        { "\x16\x03\x01\x02\x00", 5, "a TLS handshake where none is spoken" },
        { "\x00\x00\x00\x20\x09", 5, "the other side does not seal its connections" },
        { "QSL2....................................................", 56, "does not seal" },
    };
    struct seal_keys keys = keys_of(KEY_A);
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        for (unsigned side = 0; side < 2; side++) {
            struct pair pair = { .seals = { seal_new(&keys, false), seal_new(&keys, true) } };
            feed(&pair, side, span_of(rows[i].bytes, rows[i].count));
            assert_refuses(&pair, side, rows[i].says);
            feed(&pair, side, SPAN_LIT("more"));
            assert_int_equal(pair.results[side], -EPROTO);
            close_pair(&pair);
        }
    }
}

static void a_key_file_is_hex_and_nothing_else(void **state)
{
    static const char *const bad[] = { "", "\n", "00", KEY_A "0", KEY_A "00", KEY_A " ", " " KEY_A,
        "x" KEY_A, KEY_A KEY_A, KEY_A "\n" KEY_B "\n" KEY_A, KEY_A "\nx" };
    struct seal_keys keys;
    struct err err = { 0 };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(seal_keys_parse(span_str(bad[i]), "/some/file", &keys, &err), -EINVAL);
        assert_non_null(strstr(err.text, "/some/file holds no cluster key; "));
        assert_null(strstr(err.text, "0011"));
    }
    keys = keys_of(KEY_A "\n" KEY_B "\n");
    assert_int_equal(keys.count, 2);
    assert_int_equal(keys.keys[1][0], 0xff);
    assert_int_equal(keys_of(KEY_A).count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sides_with_one_key_talk_whatever_the_pieces),
        cmocka_unit_test(what_is_said_cannot_be_read_and_is_never_the_same),
        cmocka_unit_test(large_messages_come_whole),
        cmocka_unit_test(another_key_is_refused_before_a_word_is_said),
        cmocka_unit_test(a_second_key_is_taken_but_not_dialled_with),
        cmocka_unit_test(what_was_recorded_opens_in_no_other_connection),
        cmocka_unit_test(frames_left_out_doubled_or_moved_do_not_open),
        cmocka_unit_test(a_changed_bit_opens_nothing),
        cmocka_unit_test(any_changed_bit_of_the_handshake_ends_it_without_a_word),
        cmocka_unit_test(any_changed_bit_of_the_answer_is_refused_at_once),
        cmocka_unit_test(a_handshake_that_is_cut_just_waits),
        cmocka_unit_test(who_does_not_seal_is_told_apart),
        cmocka_unit_test(a_key_file_is_hex_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
