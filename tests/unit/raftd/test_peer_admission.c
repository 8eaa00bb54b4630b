/* test_peer_admission.c: who is let in on a peer URL, what is heard of those who are not, and when a peer counts as
 * reachable. The other members are played here, byte by byte, over real sockets. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/conf.h"
#include "daemons/raftd/peer/frame.h"
#include "daemons/raftd/peer/peers.h"
#include "daemons/raftd/peer/security.h"
#include "tests/unit/loopback.h"
#include "tests/unit/proto/link_harness.h"

enum {
    CLUSTER = 0xc1,
    SELF = 1,
    OTHER = 2,
    EPOCH = 77,
    LENGTH_BYTES = 4,
    HEARTBEAT_MS = 100,
    ELECTION_MS = 600 * 1000, /* nobody is silent for so long */
    SHORT_MS = 200,
};

/* A connection, whoever made it. */
struct wire_end {
    int fd; /* -1: none */
    struct buf in;
    bool is_closed; /* by the other side */
};

struct bench {
    struct harness *harness;
    struct conf conf;
    char url[64];
    char *urls[1];
    char none[1]; /* what is not given */
    char far_url[64];
    int far_fd; /* where the other member listens */
    struct security *security;
    struct peers *peers;
    enum peer_standing standing; /* of everybody */
    unsigned messages;
    unsigned reachable;
    unsigned unreachable;
    struct wire_end end;                          /* of a visitor */
    struct wire_end channels[PEER_CHANNEL_COUNT]; /* of us, at the other member */
    struct wire_end coming;                       /* to it, without a hello yet */
    uint64_t reason;                              /* of the answer */
    bool is_answered;
    bool is_listed;
};

static struct bench *the_bench; /* for harness_run's claims */

/* ---- Ours ---- */

static enum peer_standing on_standing(void *user, uint64_t member_id UNUSED)
{
    const struct bench *bench = user;
    return bench->standing;
}

static void on_message(
        void *user, uint64_t from UNUSED, unsigned type UNUSED, struct span body UNUSED)
{
    struct bench *bench = user;
    bench->messages++;
}

static void on_unreachable(void *user, uint64_t peer_id UNUSED)
{
    struct bench *bench = user;
    bench->unreachable++;
}

static void on_reachable(void *user, uint64_t peer_id UNUSED)
{
    struct bench *bench = user;
    bench->reachable++;
}

static void on_removed(void *user UNUSED, uint64_t by_peer_id UNUSED)
{
    fail();
}

static void fill_members(void *user UNUSED, struct buf *out)
{
    struct members_list list = { .cluster_id = CLUSTER };
    members_list_encode(&list, out);
}

static const struct peers_events events = {
    .standing = on_standing,
    .on_message = on_message,
    .on_unreachable = on_unreachable,
    .on_reachable = on_reachable,
    .on_removed = on_removed,
    .fill_members = fill_members,
};

/* ---- Sockets ---- */

/* On a port that was free. */
static int listen_somewhere(char ret_url[64])
{
    struct sockaddr_in address = loopback_address(0);
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, bytes), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    (void)snprintf(ret_url, 64, "http://127.0.0.1:%u", ntohs(address.sin_port));
    return fd;
}

static void visit(struct bench *bench)
{
    uint16_t port = (uint16_t)strtoul(strrchr(bench->url, ':') + 1, NULL, 10);

    bench->end = (struct wire_end){ .fd = loopback_dial(port) };
}

static void leave(struct wire_end *end)
{
    if (end->fd >= 0) {
        (void)close(end->fd);
    }
    buf_fini(&end->in);
    *end = (struct wire_end){ .fd = -1 };
}

/* What a connection takes while the loop does not run: the rest is written when it does. */
static void put(struct wire_end *end, struct span bytes)
{
    assert_int_equal(send(end->fd, bytes.data, bytes.bytes, MSG_NOSIGNAL), bytes.bytes);
}

static void say(struct wire_end *end, unsigned type, uint64_t epoch, struct buf *take_body)
{
    struct frame_head head = { .type = type, .epoch = epoch };
    uint8_t begin[LENGTH_BYTES + PEER_HEAD_BYTES];
    uint32_t length = htonl((uint32_t)(PEER_HEAD_BYTES + take_body->bytes));

    memcpy(begin, &length, LENGTH_BYTES);
    frame_encode_head(&head, begin + LENGTH_BYTES);
    put(end, span_of(begin, sizeof begin));
    if (take_body->bytes > 0) {
        put(end, buf_span(take_body));
    }
    buf_fini(take_body);
}

/* Reads what is there. True: *ret_head and *ret_body are the next frame, to be dropped by drop_frame. */
static bool next_frame(struct wire_end *end, struct frame_head *ret_head, struct span *ret_body)
{
    uint32_t length;

    if (end->fd >= 0 && !end->is_closed) {
        uint8_t *room = buf_reserve(&end->in, 65536);
        ssize_t got = recv(end->fd, room, 65536, MSG_DONTWAIT);
        end->in.bytes += got > 0 ? (size_t)got : 0;
        end->is_closed = got == 0 || (got < 0 && errno != EAGAIN);
    }
    if (end->in.bytes < LENGTH_BYTES) {
        return false;
    }
    memcpy(&length, end->in.data, LENGTH_BYTES);
    if (end->in.bytes < LENGTH_BYTES + ntohl(length)) {
        return false;
    }
    struct span frame = span_of(end->in.data + LENGTH_BYTES, ntohl(length));
    assert_int_equal(frame_parse(frame, ret_head, ret_body), 0);
    return true;
}

static void drop_frame(struct wire_end *end, struct span body)
{
    buf_drop_front(&end->in, LENGTH_BYTES + PEER_HEAD_BYTES + body.bytes);
}

/* ---- Claims ---- */

static void hear(struct bench *bench)
{
    struct codec_scratch scratch = { 0 };
    struct peer_answer answer;
    struct frame_head head;
    struct span body;

    while (next_frame(&bench->end, &head, &body)) {
        if (head.type == peer_answer_type) {
            assert_int_equal(peer_answer_decode(body, &answer, &scratch, NULL), 0);
            bench->reason = answer.reason;
            bench->is_answered = true;
        }
        bench->is_listed |= head.type == members_list_type;
        drop_frame(&bench->end, body);
    }
    codec_scratch_fini(&scratch);
}

static bool is_answered(struct harness *harness UNUSED)
{
    hear(the_bench);
    return the_bench->is_answered;
}

static bool is_listed(struct harness *harness UNUSED)
{
    hear(the_bench);
    return the_bench->is_listed;
}

static bool is_closed(struct harness *harness UNUSED)
{
    hear(the_bench);
    return the_bench->end.is_closed;
}

static void welcome(struct bench *bench, struct wire_end *end, struct span encoded)
{
    struct codec_scratch scratch = { 0 };
    struct peer_answer answer = {
        .reason = PEER_WELCOME, .cluster_id = CLUSTER, .member_id = OTHER
    };
    struct peer_hello hello;
    struct buf out = BUF_INIT;

    assert_int_equal(peer_hello_decode(encoded, &hello, &scratch, NULL), 0);
    assert_int_equal(hello.to_member_id, OTHER);
    assert_in_range(hello.channel, 0, PEER_CHANNEL_COUNT - 1);
    drop_frame(end, encoded);
    peer_answer_encode(&answer, &out);
    say(end, peer_answer_type, hello.epoch, &out);
    leave(&bench->channels[hello.channel]);
    bench->channels[hello.channel] = *end;
    *end = (struct wire_end){ .fd = -1 };
    codec_scratch_fini(&scratch);
}

/* The other member, who welcomes whoever says a hello, one after the other. */
static void be_the_other(struct bench *bench)
{
    struct wire_end *end = &bench->coming;
    struct frame_head head;
    struct span body;

    if (end->fd < 0) {
        end->fd = accept4(bench->far_fd, NULL, NULL, SOCK_CLOEXEC);
    }
    if (end->fd >= 0 && next_frame(end, &head, &body)) {
        welcome(bench, end, body);
    } else if (end->is_closed) {
        leave(end);
    }
}

static bool is_reachable(struct harness *harness UNUSED)
{
    be_the_other(the_bench);
    return peers_is_reachable(the_bench->peers, OTHER);
}

static bool is_unreachable(struct harness *harness UNUSED)
{
    return !peers_is_reachable(the_bench->peers, OTHER);
}

static bool say_on_control(struct bench *bench)
{
    return peers_send(bench->peers, OTHER, PEER_CONTROL, log_end_type, SPAN_LIT("x"));
}

static bool is_nothing_said(struct harness *harness UNUSED)
{
    return !say_on_control(the_bench);
}

/* ---- Life ---- */

static int set_up(void **state)
{
    struct bench *bench = xcalloc(1, sizeof *bench);
    struct err err = { 0 };
    void *harness = NULL;

    if (harness_setup(&harness) != 0) {
        return -1;
    }
    bench->harness = harness;
    the_bench = bench;
    (void)close(listen_somewhere(bench->url));
    bench->far_fd = listen_somewhere(bench->far_url);
    bench->urls[0] = bench->url;
    bench->end.fd = bench->coming.fd = -1;
    for (size_t i = 0; i < PEER_CHANNEL_COUNT; i++) {
        bench->channels[i].fd = -1;
    }
    bench->conf.name = bench->conf.discovery_srv = bench->conf.cluster_key_file = bench->none;
    bench->conf.peer_tls.trusted_ca_file = bench->none;
    bench->conf.heartbeat_interval_ms = HEARTBEAT_MS;
    bench->conf.election_timeout_ms = ELECTION_MS;
    bench->conf.listen_peer_urls = (struct conf_list){ bench->urls, 1 };
    if (security_new(&bench->conf, &bench->security, &err) < 0 ||
            peers_open(bench->harness->loop, &bench->conf, bench->security, &events, bench,
                    &bench->peers, &err) < 0) {
        fail_msg("%s", err.text);
    }
    peers_begin(bench->peers, &(struct peers_identity){ CLUSTER, SELF });
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    void *harness = bench->harness;

    leave(&bench->end);
    leave(&bench->coming);
    for (size_t i = 0; i < PEER_CHANNEL_COUNT; i++) {
        leave(&bench->channels[i]);
    }
    (void)close(bench->far_fd);
    bench->peers = peers_close(bench->peers);
    bench->security = security_free(bench->security);
    free(bench);
    return harness_teardown(&harness);
}

static void say_hello(struct bench *bench, uint64_t cluster_id, uint64_t from, uint64_t to)
{
    struct buf out = BUF_INIT;
    struct peer_hello hello = {
        .protocol = PEER_PROTOCOL_VERSION,
        .version = SPAN_LIT("1"),
        .epoch = EPOCH,
        .cluster_id = cluster_id,
        .member_id = from,
        .to_member_id = to,
        .channel = PEER_BULK,
    };
    peer_hello_encode(&hello, &out);
    say(&bench->end, peer_hello_type, EPOCH, &out);
}

static void say_something(struct bench *bench, uint64_t epoch)
{
    struct buf out = BUF_INIT;

    buf_append_str(&out, "whatever");
    say(&bench->end, log_end_type, epoch, &out);
}

/* Whoever connects may ask who is here: once that is answered, all that was said before has been heard. */
static void await_heard(struct bench *bench)
{
    struct members_get get = { .protocol = PEER_PROTOCOL_VERSION };
    struct buf out = BUF_INIT;

    members_get_encode(&get, &out);
    say(&bench->end, members_get_type, EPOCH, &out);
    bench->is_listed = false;
    harness_run(bench->harness, is_listed, "the question is answered");
}

/* ---- Tests ---- */

static void who_is_no_member_of_this_cluster_or_means_another_is_not_heard(void **state)
{
    struct bench *bench = *state;
    static const struct {
        uint64_t cluster_id;
        uint64_t from;
        uint64_t to;
        enum peer_standing standing;
        enum peer_refusal reason;
    } rows[] = {
        { CLUSTER, OTHER, SELF, PEER_STANDING_MEMBER, PEER_WELCOME },
        { CLUSTER, OTHER, SELF, PEER_STANDING_UNKNOWN, PEER_WELCOME },
        { CLUSTER + 1, OTHER, SELF, PEER_STANDING_MEMBER, PEER_REFUSED_CLUSTER },
        { CLUSTER, OTHER, SELF + 7, PEER_STANDING_MEMBER, PEER_REFUSED_ADDRESS },
        { CLUSTER, SELF, SELF, PEER_STANDING_MEMBER, PEER_REFUSED_ADDRESS },
        { CLUSTER, OTHER, SELF, PEER_STANDING_REMOVED, PEER_REFUSED_REMOVED },
        { CLUSTER, OTHER, SELF, PEER_STANDING_STRANGER, PEER_REFUSED_UNKNOWN },
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        bench->standing = rows[i].standing;
        bench->is_answered = false;
        bench->messages = 0;
        visit(bench);
        say_hello(bench, rows[i].cluster_id, rows[i].from, rows[i].to);
        harness_run(bench->harness, is_answered, "the hello is answered");
        assert_int_equal(bench->reason, rows[i].reason);
        say_something(bench, EPOCH);
        await_heard(bench);
        assert_int_equal(bench->messages, rows[i].reason == PEER_WELCOME);
        leave(&bench->end);
    }
}

static void what_is_said_before_a_hello_or_of_another_epoch_is_dropped(void **state)
{
    struct bench *bench = *state;

    visit(bench);
    say_something(bench, EPOCH);
    await_heard(bench);
    assert_int_equal(bench->messages, 0);
    say_hello(bench, CLUSTER, OTHER, SELF);
    harness_run(bench->harness, is_answered, "the hello is answered");
    say_something(bench, EPOCH - 1);
    await_heard(bench);
    assert_int_equal(bench->messages, 0);
    say_something(bench, EPOCH);
    await_heard(bench);
    assert_int_equal(bench->messages, 1);
}

/* The length alone is enough: no memory is asked for it. */
static void a_frame_above_two_mebibytes_ends_its_connection(void **state)
{
    struct bench *bench = *state;
    uint32_t length = htonl(2 * 1024 * 1024 + 1);

    visit(bench);
    put(&bench->end, span_of(&length, sizeof length));
    harness_run(bench->harness, is_closed, "the connection is closed");
    leave(&bench->end);
    visit(bench);
    await_heard(bench); /* nobody else's */
}

static void a_peer_is_reachable_while_both_connections_live(void **state)
{
    struct bench *bench = *state;
    char *urls[] = { bench->far_url };

    peers_want_begin(bench->peers);
    peers_want(bench->peers, OTHER, urls, 1);
    peers_want_end(bench->peers);
    harness_run(bench->harness, is_reachable, "the other member is reachable");
    assert_int_equal(bench->reachable, 1);
    assert_true(say_on_control(bench));

    leave(&bench->channels[PEER_BULK]);
    harness_run(bench->harness, is_unreachable, "it is not, without the bulk connection");
    assert_int_equal(bench->unreachable, 1);
    harness_run(bench->harness, is_reachable, "the other member is reachable again");
    assert_int_equal(bench->reachable, 2);

    /* Whom only heartbeats reach is to miss them. */
    bench->conf.election_timeout_ms = SHORT_MS; /* of this rule: connections have theirs */
    leave(&bench->channels[PEER_BULK]);
    harness_run(bench->harness, is_nothing_said, "nothing more is said");
    assert_true(bench->channels[PEER_CONTROL].fd >= 0);
    assert_int_equal(bench->unreachable, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_is_no_member_of_this_cluster_or_means_another_is_not_heard),
        TEST(what_is_said_before_a_hello_or_of_another_epoch_is_dropped),
        TEST(a_frame_above_two_mebibytes_ends_its_connection),
        TEST(a_peer_is_reachable_while_both_connections_live),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
