/* test_channel.c: a connection to a member that is far away. */
#include "daemons/raftd/peer/channel.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/conf.h"
#include "common/loop.h"
#include "daemons/raftd/peer/frame.h"
#include "daemons/raftd/peer/security.h"

enum {
    HEARTBEAT_MS = 50,
    ELECTION_MS = 5000,
    ANSWER_MS = 300, /* the way there and back */
    GUESTS_MAX = 256,
    LENGTH_BYTES = 4,
    LIMIT_MS = 60000,
};

/* One connection of the channel's, at the other end. */
struct guest {
    int fd;
    uint64_t said_at_ms; /* the hello came; 0: not yet */
    uint64_t epoch;
    bool is_answered;
};

struct bench {
    struct conf conf;
    struct loop *loop;
    struct security *security;
    struct channel *channel;
    struct loop_timer *far_end;
    struct loop_timer *hurry;
    struct loop_timer *limit;
    int listening;
    struct guest guests[GUESTS_MAX];
    unsigned guest_count;
    bool is_up;
    bool is_late;
};

static void fill_hello(void *user, struct peer_hello *ret_hello)
{
    (void)user;
    ret_hello->version = SPAN_LIT("0");
}

static void on_up(void *user, struct channel *channel)
{
    struct bench *bench = user;

    (void)channel;
    bench->is_up = true;
    loop_stop(bench->loop);
}

static void on_down(void *user, struct channel *channel, const char *reason)
{
    (void)user;
    (void)channel;
    (void)reason;
}

static void on_refused(
        void *user, struct channel *channel, const struct peer_answer *answer, const char *url)
{
    (void)user;
    (void)channel;
    (void)answer;
    (void)url;
}

static void on_unsafe(void *user, struct channel *channel, const char *reason, const char *url)
{
    (void)user;
    (void)channel;
    (void)reason;
    (void)url;
}

static void on_pong(void *user, struct channel *channel, uint64_t round_trip_ns)
{
    (void)user;
    (void)channel;
    (void)round_trip_ns;
}

static const struct channel_events events = { fill_hello, on_up, on_down, on_refused, on_unsafe,
    on_pong };

static void answer(struct guest *guest)
{
    uint8_t head_bytes[PEER_HEAD_BYTES];
    struct frame_head head = { .type = peer_answer_type, .epoch = guest->epoch };
    struct peer_answer welcome = { .reason = PEER_WELCOME };
    struct buf body = BUF_INIT;
    struct buf frame = BUF_INIT;

    frame_encode_head(&head, head_bytes);
    peer_answer_encode(&welcome, &body);
    size_t bytes = sizeof head_bytes + body.bytes;
    buf_append(&frame, (uint8_t[]){ 0, 0, (uint8_t)(bytes >> 8), (uint8_t)bytes }, LENGTH_BYTES);
    buf_append(&frame, head_bytes, sizeof head_bytes);
    buf_append_span(&frame, buf_span(&body));
    (void)send(guest->fd, frame.data, frame.bytes, MSG_NOSIGNAL); /* it may have hung up */
    guest->is_answered = true;
    buf_fini(&frame);
    buf_fini(&body);
}

static void listen_to(struct guest *guest, uint64_t now_ms)
{
    uint8_t bytes[4096];
    struct frame_head head;
    struct span body;
    ssize_t got = recv(guest->fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (got > LENGTH_BYTES && guest->said_at_ms == 0) {
        struct span frame = span_of(bytes + LENGTH_BYTES, (size_t)got - LENGTH_BYTES);
        assert_int_equal(frame_parse(frame, &head, &body), 0);
        assert_int_equal(head.type, peer_hello_type);
        guest->epoch = head.epoch;
        guest->said_at_ms = now_ms;
    }
    if (guest->said_at_ms != 0 && !guest->is_answered && now_ms - guest->said_at_ms >= ANSWER_MS) {
        answer(guest);
    }
}

static void on_far_end(void *user)
{
    struct bench *bench = user;
    uint64_t now_ms = clock_monotonic_ms();
    int fd = accept4(bench->listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0) {
        assert_true(bench->guest_count < GUESTS_MAX);
        bench->guests[bench->guest_count++].fd = fd;
    }
    for (unsigned i = 0; i < bench->guest_count; i++) {
        listen_to(&bench->guests[i], now_ms);
    }
    channel_tick(bench->channel, now_ms, 0);
}

/* As often as that member's own hellos come. */
static void on_hurry(void *user)
{
    struct bench *bench = user;
    channel_hurry(bench->channel);
}

static void on_late(void *user)
{
    struct bench *bench = user;

    bench->is_late = true;
    loop_stop(bench->loop);
}

static char *listen_somewhere(struct bench *bench)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t bytes = sizeof address;
    char url[64];

    bench->listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(bench->listening, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(bench->listening, GUESTS_MAX), 0);
    assert_int_equal(getsockname(bench->listening, (struct sockaddr *)&address, &bytes), 0);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u", ntohs(address.sin_port));
    return xstrdup(url);
}

static int set_up(void **state)
{
    static char nothing[] = "";
    struct bench *bench = xcalloc(1, sizeof *bench);
    struct err err = { 0 };

    bench->conf.cluster_key_file = nothing;
    bench->conf.discovery_srv = nothing;
    bench->loop = loop_new();
    assert_int_equal(security_new(&bench->conf, &bench->security, &err), 0);
    struct channel_config config = { .loop = bench->loop,
        .security = bench->security,
        .kind = PEER_CONTROL,
        .heartbeat_ms = HEARTBEAT_MS,
        .election_ms = ELECTION_MS,
        .events = &events,
        .user = bench };
    bench->channel = channel_new(&config);
    char *url = listen_somewhere(bench);
    channel_set_urls(bench->channel, &url, 1);
    free(url);
    bench->far_end = loop_timer_new(bench->loop, on_far_end, bench);
    bench->hurry = loop_timer_new(bench->loop, on_hurry, bench);
    bench->limit = loop_timer_new(bench->loop, on_late, bench);
    loop_timer_start(bench->far_end, 0, 5);
    loop_timer_start(bench->limit, LIMIT_MS, 0);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    for (unsigned i = 0; i < bench->guest_count; i++) {
        (void)close(bench->guests[i].fd);
    }
    (void)close(bench->listening);
    bench->far_end = loop_timer_free(bench->far_end);
    bench->hurry = loop_timer_free(bench->hurry);
    bench->limit = loop_timer_free(bench->limit);
    bench->channel = channel_free(bench->channel);
    bench->security = security_free(bench->security);
    bench->loop = loop_free(bench->loop);
    free(bench);
    return 0;
}

static void member_whose_hellos_come_sooner_than_its_answers_is_reached(void **state)
{
    struct bench *bench = *state;

    loop_timer_start(bench->hurry, ANSWER_MS / 2, ANSWER_MS / 2);
    loop_run(bench->loop);
    assert_true(bench->is_up);
    assert_false(bench->is_late);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
                member_whose_hellos_come_sooner_than_its_answers_is_reached, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
