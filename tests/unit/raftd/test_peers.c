/* test_peers.c: who is met at the peer port, and dialled in turn. */
#include "daemons/raftd/peer/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemons/raftd/peer/frame.h"
#include "tests/unit/patience.h"
#include "tests/unit/raftd/peer_place.h"

enum {
    CLUSTER = 0xc1,
    SELF = 1,
    FIRST_STRANGER = 100,
    STRANGERS = 200,
    KNOWN = 16, /* more members than a cluster has are not added behind our back */
    LENGTH_BYTES = 4,
    LIMIT_MS = 20000,
};

struct bench {
    struct peer_place place;
    struct peers *peers;
    struct loop_timer *poll;
    struct patience *patience;
    bool is_late;
    int fd;
    struct buf in;
    unsigned welcomes;
    unsigned refusals;
};

static enum peer_standing standing(void *user, uint64_t member_id)
{
    (void)user;
    (void)member_id;
    return PEER_STANDING_UNKNOWN;
}

static void on_message(void *user, uint64_t from, unsigned type, struct span body)
{
    (void)user;
    (void)from;
    (void)type;
    (void)body;
}

static void on_peer(void *user, uint64_t peer_id)
{
    (void)user;
    (void)peer_id;
}

static void fill_members(void *user, struct buf *out)
{
    (void)user;
    (void)out;
}

static const struct peers_events events = { standing, on_message, on_peer, on_peer, on_peer,
    fill_members };

static void take_answer(struct bench *bench, struct span frame)
{
    struct codec_scratch scratch = { 0 };
    struct peer_answer answer;
    struct frame_head head;
    struct span body;

    assert_int_equal(frame_parse(frame, &head, &body), 0);
    if (head.type == peer_answer_type) {
        assert_int_equal(peer_answer_decode(body, &answer, &scratch, NULL), 0);
        bench->welcomes += answer.reason == PEER_WELCOME;
        bench->refusals += answer.reason != PEER_WELCOME;
    }
    codec_scratch_fini(&scratch);
}

static void read_answers(void *user)
{
    struct bench *bench = user;
    ssize_t got = recv(bench->fd, buf_reserve(&bench->in, 65536), 65536, MSG_DONTWAIT);

    assert_true(got > 0 || (got < 0 && errno == EAGAIN));
    bench->in.bytes += got > 0 ? (size_t)got : 0;
    while (bench->in.bytes >= LENGTH_BYTES) {
        size_t bytes = (size_t)bench->in.data[2] << 8 | bench->in.data[3];
        if (bench->in.bytes < LENGTH_BYTES + bytes) {
            break;
        }
        take_answer(bench, span_of(bench->in.data + LENGTH_BYTES, bytes));
        buf_drop_front(&bench->in, LENGTH_BYTES + bytes);
    }
    if (bench->welcomes + bench->refusals == STRANGERS) {
        loop_stop(bench->place.loop);
    }
}

static void on_late(void *user)
{
    struct bench *bench = user;

    bench->is_late = true;
    loop_stop(bench->place.loop);
}

static void say_hello(const struct bench *bench, uint64_t member_id)
{
    uint8_t head_bytes[PEER_HEAD_BYTES];
    struct frame_head head = { .type = peer_hello_type, .epoch = member_id };
    struct peer_hello hello = { .protocol = PEER_PROTOCOL_VERSION,
        .version = SPAN_LIT("0"),
        .epoch = member_id,
        .cluster_id = CLUSTER,
        .member_id = member_id,
        .to_member_id = SELF };
    struct buf body = BUF_INIT;
    struct buf frame = BUF_INIT;

    frame_encode_head(&head, head_bytes);
    peer_hello_encode(&hello, &body);
    size_t bytes = sizeof head_bytes + body.bytes;
    buf_append(&frame, (uint8_t[]){ 0, 0, (uint8_t)(bytes >> 8), (uint8_t)bytes }, LENGTH_BYTES);
    buf_append(&frame, head_bytes, sizeof head_bytes);
    buf_append_span(&frame, buf_span(&body));
    assert_int_equal(send(bench->fd, frame.data, frame.bytes, MSG_NOSIGNAL), frame.bytes);
    buf_fini(&frame);
    buf_fini(&body);
}

static int set_up(void **state)
{
    static const struct peers_identity identity = { CLUSTER, SELF };
    struct bench *bench = xcalloc(1, sizeof *bench);
    struct peer_place *place = &bench->place;
    struct err err = { 0 };

    peer_place_init(place);
    place->conf.heartbeat_interval_ms = 1000;
    place->conf.election_timeout_ms = 10000;
    assert_int_equal(peers_open(place->loop, &place->conf, place->security, &events, bench,
                             &bench->peers, &err),
            0);
    peers_begin(bench->peers, &identity);
    bench->poll = loop_timer_new(bench->place.loop, read_answers, bench);
    bench->patience = patience_new(bench->place.loop, LIMIT_MS, on_late, bench);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    (void)close(bench->fd);
    bench->poll = loop_timer_free(bench->poll);
    bench->patience = patience_free(bench->patience);
    bench->peers = peers_close(bench->peers);
    peer_place_fini(&bench->place);
    buf_fini(&bench->in);
    free(bench);
    return 0;
}

static void no_number_of_unknown_members_is_met(void **state)
{
    struct bench *bench = *state;

    bench->fd = loopback_dial(bench->place.port);
    for (uint64_t i = 0; i < STRANGERS; i++) {
        say_hello(bench, FIRST_STRANGER + i);
    }
    loop_timer_start(bench->poll, 1, 1);
    patience_begin(bench->patience);
    loop_run(bench->place.loop);
    patience_end(bench->patience);
    assert_false(bench->is_late);
    assert_int_equal(bench->welcomes, KNOWN);
    assert_int_equal(bench->refusals, STRANGERS - KNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_number_of_unknown_members_is_met, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
