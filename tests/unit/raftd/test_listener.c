/* test_listener.c: what the peer port does for whoever connects to it. */
#include "daemons/raftd/peer/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemons/raftd/peer/frame.h"
#include "tests/unit/raftd/peer_place.h"

enum {
    ANSWER_BYTES = 16 * 1024,
    ANSWERS_MAX = 8192, /* 128 MiB: no socket takes so much unread */
    LENGTH_BYTES = 4,
    EPOCH = 7,
};

struct bench {
    struct peer_place place;
    struct listener *listener;
    struct loop_timer *timer;
    int fd;
    unsigned answers;
    bool is_hung_up;
};

static void judge(void *user, const struct peer_hello *hello, struct peer_answer *ret_answer)
{
    (void)user;
    (void)hello;
    ret_answer->reason = PEER_REFUSED_STARTING;
}

static void on_message(void *user, uint64_t from, unsigned type, struct span body)
{
    (void)user;
    (void)from;
    (void)type;
    (void)body;
    fail_msg("nobody was welcomed");
}

static void fill_members(void *user, struct buf *out)
{
    struct bench *bench = user;

    memset(buf_reserve(out, ANSWER_BYTES), 'm', ANSWER_BYTES);
    out->bytes += ANSWER_BYTES;
    if (++bench->answers >= ANSWERS_MAX) {
        loop_stop(bench->place.loop);
    }
}

static void connect_to(struct bench *bench)
{
    bench->fd = loopback_dial(bench->place.port);
    assert_int_equal(fcntl(bench->fd, F_SETFL, O_NONBLOCK), 0);
}

/* As often as the socket takes it. */
static void ask_on(void *user)
{
    struct bench *bench = user;
    uint8_t frame[LENGTH_BYTES + PEER_HEAD_BYTES] = { 0, 0, 0, PEER_HEAD_BYTES };
    struct frame_head head = { .type = members_get_type, .epoch = EPOCH };

    frame_encode_head(&head, frame + LENGTH_BYTES);
    for (unsigned i = 0; i < 64 && !bench->is_hung_up; i++) {
        ssize_t sent = send(bench->fd, frame, sizeof frame, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            return;
        }
        if (sent < 0) {
            bench->is_hung_up = true;
            loop_stop(bench->place.loop);
        } else {
            assert_int_equal(sent, sizeof frame);
        }
    }
}

static int set_up(void **state)
{
    static const struct listener_events events = { judge, on_message, fill_members };
    struct bench *bench = xcalloc(1, sizeof *bench);
    struct peer_place *place = &bench->place;
    struct err err = { 0 };

    peer_place_init(place);
    assert_int_equal(listener_open(place->loop, place->security, &place->conf.listen_peer_urls, 100,
                             1000, &events, bench, &bench->listener, &err),
            0);
    bench->timer = loop_timer_new(bench->place.loop, ask_on, bench);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    (void)close(bench->fd);
    bench->timer = loop_timer_free(bench->timer);
    bench->listener = listener_close(bench->listener);
    peer_place_fini(&bench->place);
    free(bench);
    return 0;
}

static void who_asks_and_does_not_read_is_hung_up_on(void **state)
{
    struct bench *bench = *state;

    connect_to(bench);
    loop_timer_start(bench->timer, 0, 1);
    loop_run(bench->place.loop);
    assert_true(bench->is_hung_up);
    assert_true(bench->answers < ANSWERS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
                who_asks_and_does_not_read_is_hung_up_on, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
