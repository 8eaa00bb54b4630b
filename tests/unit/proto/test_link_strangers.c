/* test_link_strangers.c: links and whoever else can connect, or listens where a daemon should. */
#include "proto/link.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/limits.h"
#include "proto/link_parts.h"
#include "tests/unit/proto/link_harness.h"

/* --- as a dialer ---------------------------------------------------------------------------------------------- */

/* A process that can connect, but does not speak our protocol. */
struct stranger {
    int fd;
    int listening; /* where it is a listener */
    uint8_t received[256];
    size_t received_bytes;
    struct link_frame reply;
    bool gone;
};

static struct stranger stranger;

static void stranger_dials(struct harness *h)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", h->path);
    stranger = (struct stranger){ .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };
    assert_true(stranger.fd >= 0);
    assert_int_equal(
            connect(stranger.fd, (const struct sockaddr *)(void *)&address, sizeof address), 0);
}

static void stranger_writes(struct span bytes)
{
    assert_int_equal(send(stranger.fd, bytes.data, bytes.bytes, MSG_NOSIGNAL), bytes.bytes);
}

static void stranger_says(struct span frame)
{
    const uint8_t length[4] = { 0, 0, 0, (uint8_t)frame.bytes };
    stranger_writes(span_of(length, sizeof length));
    stranger_writes(frame);
}

static void stranger_reads(void)
{
    struct stranger *s = &stranger;
    ssize_t n = recv(s->fd, s->received + s->received_bytes, sizeof s->received - s->received_bytes,
            MSG_DONTWAIT);
    s->gone |= n == 0 || (n < 0 && errno == ECONNRESET);
    s->received_bytes += n > 0 ? (size_t)n : 0;
}

static bool stranger_replied(struct harness *h UNUSED)
{
    stranger_reads();
    return stranger.received_bytes > 4 &&
           link_frame_parse(span_of(stranger.received + 4, stranger.received_bytes - 4),
                   &stranger.reply, NULL) == 0;
}

static bool stranger_gone(struct harness *h UNUSED)
{
    stranger_reads();
    return stranger.gone;
}

static void stranger_leaves(void)
{
    (void)close(stranger.fd);
}

static void a_message_without_a_hello_is_answered_hello_required(void **state)
{
    struct harness *h = *state;
    harness_open(h, LISTENER(h), LINK_REQREP, true, NULL);
    stranger_dials(h);
    stranger_says(SPAN_LIT("\x95\x01\x07\x01\x00\x80"));
    RUN_UNTIL(h, stranger_replied);
    assert_int_equal(stranger.reply.type, LINK_HELLO_REQUIRED);
    assert_int_equal(stranger.reply.epoch, 7);
    assert_int_equal(LISTENER(h)->ups, 0);
    stranger_leaves();
}

enum {
    STRAY_BYTES_MAX = 4 * 1024 * 1024,
};

static size_t stray_bytes;

/* As many as the socket takes now, until there were enough. */
static bool strays_are_sent(struct harness *h UNUSED)
{
    static const char stray[] = "\x00\x00\x00\x06\x95\x01\x07\x01\x00\x80";
    char many[4096];
    size_t one = sizeof stray - 1;
    size_t bytes = sizeof many / one * one;

    for (size_t at = 0; at < bytes; at += one) {
        memcpy(many + at, stray, one);
    }
    for (;;) {
        size_t begun = stray_bytes % one;
        ssize_t sent = send(stranger.fd, many + begun, bytes - begun, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            return false;
        }
        stray_bytes += (size_t)sent;
        if (stray_bytes >= STRAY_BYTES_MAX) {
            return true;
        }
    }
}

static void answers_that_nobody_reads_are_not_heaped_up(void **state)
{
    struct harness *h = *state;
    harness_open(h, LISTENER(h), LINK_REQREP, true, NULL);
    stranger_dials(h);
    RUN_UNTIL(h, strays_are_sent);
    struct link_hub *hub = LISTENER(h)->hub;
    assert_false(list_is_empty(&hub->peers));
    const struct link_peer *peer = CONTAINER_OF(hub->peers.next, struct link_peer, node);
    assert_in_range(wire_waiting_bytes(hub->wire, peer->pipe), 1, UNREAD_BYTES_MAX + 100);
    stranger_leaves();
}

/* --- a listener of another mind ------------------------------------------------------------------------------ */

static int listen_as_stranger(struct harness *h)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", h->path);
    assert_int_equal(bind(fd, (const struct sockaddr *)(void *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static bool stranger_is_dialled(struct harness *h UNUSED)
{
    if (stranger.fd < 0) {
        stranger.fd = accept(stranger.listening, NULL, NULL);
    }
    return stranger.fd >= 0;
}

static bool stranger_heard_hello(struct harness *h)
{
    return stranger_replied(h) && stranger.reply.type == LINK_HELLO;
}

static void stranger_answers(unsigned type, struct span body)
{
    uint8_t head[LINK_FRAME_HEAD_BYTES_MAX];
    struct buf frame = BUF_INIT;
    struct link_frame answer = { .type = type, .epoch = stranger.reply.epoch };
    buf_append(&frame, head, link_frame_put_head(&answer, head));
    buf_append_span(&frame, body);
    stranger_says(buf_span(&frame));
    buf_fini(&frame);
}

static bool dialer_is_up(struct harness *h)
{
    return DIALER(h)->link != NULL;
}

static bool dialer_is_down(struct harness *h)
{
    return DIALER(h)->downs == 1;
}

/* Hangs up on everybody who calls, six times. */
static bool six_hung_up_on(struct harness *h UNUSED)
{
    int fd = accept(stranger.listening, NULL, NULL);
    if (fd >= 0) {
        (void)close(fd);
        stranger.received_bytes++;
    }
    return stranger.received_bytes == 6;
}

static void a_dialer_is_patient_with_who_hangs_up_on_it(void **state)
{
    struct harness *h = *state;
    stranger = (struct stranger){ .listening = listen_as_stranger(h) };
    assert_int_equal(fcntl(stranger.listening, F_SETFL, O_NONBLOCK), 0);
    uint64_t began_ms = loop_now_ms(h->loop);
    harness_open(h, DIALER(h), LINK_REQREP, false, NULL);
    RUN_UNTIL(h, six_hung_up_on);
    assert_true(loop_now_ms(h->loop) - began_ms >= 200);
    (void)close(stranger.listening);
}

static void a_dialer_told_hello_required_begins_a_new_session(void **state)
{
    struct harness *h = *state;
    int listening = listen_as_stranger(h);
    assert_int_equal(fcntl(listening, F_SETFL, O_NONBLOCK), 0);
    stranger = (struct stranger){ .fd = -1, .listening = listening };
    harness_open(h, DIALER(h), LINK_REQREP, false, NULL);
    RUN_UNTIL(h, stranger_is_dialled);
    RUN_UNTIL(h, stranger_heard_hello);
    uint64_t first_epoch = stranger.reply.epoch;
    stranger_answers(LINK_HELLO, stranger.reply.body); /* its own, repeated */
    RUN_UNTIL(h, dialer_is_up);
    stranger_answers(LINK_HELLO_REQUIRED, SPAN_LIT("\xc0"));
    stranger.received_bytes = 0;
    RUN_UNTIL(h, dialer_is_down);
    RUN_UNTIL(h, stranger_heard_hello);
    assert_true(stranger.reply.epoch != first_epoch);
    assert_int_equal(DIALER(h)->refusals, 0);
    stranger_leaves();
    (void)close(listening);
}

static void a_hello_that_does_not_decode_is_refused(void **state)
{
    struct harness *h = *state;
    harness_open(h, LISTENER(h), LINK_REQREP, true, NULL);
    stranger_dials(h);
    stranger_says(SPAN_LIT("\x95\xcc\xf0\x07\x00\x00\x81\x01\x05"));
    RUN_UNTIL(h, stranger_replied);
    assert_int_equal(stranger.reply.type, LINK_REFUSED);
    assert_int_equal(LISTENER(h)->ups, 0);
    stranger_leaves();
}

static void garbage_breaks_its_own_pipe_and_no_other(void **state)
{
    struct harness *h = *state;
    harness_open_both(h, LINK_REQREP, NULL);
    stranger_dials(h);
    stranger_says(SPAN_LIT("\xdd\x01\x00\x00\x00"));
    RUN_UNTIL(h, stranger_gone);
    stranger_leaves();
    stranger_dials(h);
    stranger_writes(SPAN_LIT("\x00\x00\x00\x00")); /* an empty message */
    RUN_UNTIL(h, stranger_gone);
    stranger_leaves();
    stranger_dials(h);
    stranger_writes(SPAN_LIT("\xff\xff\xff\xff")); /* one of 4 GiB */
    RUN_UNTIL(h, stranger_gone);
    stranger_leaves();
    DIALER(h)->to_send = 1;
    assert_int_equal(end_send(DIALER(h)), 0);
    RUN_UNTIL(h, all_arrived);
    assert_int_equal(LISTENER(h)->downs, 0);
}

static void who_says_nothing_does_not_keep_a_pairs_only_place(void **state)
{
    struct harness *h = *state;
    struct link_config tune = { .stall_ms = 20 };
    harness_open(h, LISTENER(h), LINK_PAIR, true, &tune);
    stranger_dials(h);
    RUN_UNTIL(h, stranger_gone);
    stranger_leaves();
    harness_open(h, DIALER(h), LINK_PAIR, false, &tune);
    RUN_UNTIL(h, both_up);
}

static void a_peer_of_another_user_is_closed_before_it_speaks(void **state)
{
    struct harness *h = *state;
    uint64_t uids[] = { getuid() + 1U, getuid() + 2U };
    struct link_config tune = { .peer_uids = uids, .peer_uid_count = 2 };
    harness_open(h, LISTENER(h), LINK_REQREP, true, &tune);
    stranger_dials(h);
    RUN_UNTIL(h, stranger_gone);
    stranger_leaves();
    assert_int_equal(LISTENER(h)->strangers, 1);
    assert_int_equal(LISTENER(h)->stranger_uid, getuid());
    harness_close(LISTENER(h));
    uids[1] = getuid();
    harness_open_both(h, LINK_REQREP, &tune);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, harness_setup, harness_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_message_without_a_hello_is_answered_hello_required),
        TEST(answers_that_nobody_reads_are_not_heaped_up),
        TEST(a_dialer_told_hello_required_begins_a_new_session),
        TEST(a_hello_that_does_not_decode_is_refused),
        TEST(garbage_breaks_its_own_pipe_and_no_other),
        TEST(who_says_nothing_does_not_keep_a_pairs_only_place),
        TEST(a_peer_of_another_user_is_closed_before_it_speaks),
        TEST(a_dialer_is_patient_with_who_hangs_up_on_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
