/* test_wire_guard.c: a wire between hosts whose bytes pass a guard. The guard here is a toy: each side says one letter, and
 * then every byte is turned by XOR. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/loop.h"
#include "proto/link_wire.h"
#include "proto/wire_guard.h"
#include "tests/unit/loopback.h"
#include "tests/unit/patience.h"

enum {
    TURN = 0x5a,
    FRAME_BYTES_MAX = 1024 * 1024,
    PATIENCE_MS = 20000,
    LIE_BYTES = 200 * 1000,
};

/* ---- The toy ---- */

static bool toy_lies; /* who dials says the wrong letter, and much more */
static size_t lie_bytes = LIE_BYTES;

struct toy {
    struct wire_guard base;
    bool listens;
    bool is_ready;
    bool has_spoken;
};

static struct toy *toy_of(struct wire_guard *base)
{
    return CONTAINER_OF(base, struct toy, base);
}

static void turn(struct span bytes, struct buf *out)
{
    for (size_t i = 0; i < bytes.bytes; i++) {
        buf_append_byte(out, bytes.data[i] ^ TURN);
    }
}

static int toy_receive(struct wire_guard *base, struct span bytes, struct buf *plain,
        struct buf *out, struct err *err)
{
    struct toy *toy = toy_of(base);

    if (!toy->listens && !toy->has_spoken) {
        toy->has_spoken = true;
        buf_append_byte(out, toy_lies ? 'x' : 'd');
        for (size_t i = 0; toy_lies && i < lie_bytes; i++) {
            buf_append_byte(out, 'x');
        }
    }
    if (bytes.bytes > 0 && !toy->is_ready) {
        if (bytes.data[0] != (toy->listens ? 'd' : 'l')) {
            buf_append_byte(out, '!');
            return err_set(err, -EPROTO, "no letter of ours; say another one");
        }
        if (toy->listens) {
            buf_append_byte(out, 'l');
        }
        toy->is_ready = true;
        bytes = span_from(bytes, 1);
    }
    turn(bytes, plain);
    return 0;
}

static bool toy_is_ready(struct wire_guard *base)
{
    return toy_of(base)->is_ready;
}

static int toy_send(struct wire_guard *base, struct span plain, struct buf *out, struct err *err)
{
    (void)err;
    assert_true(toy_of(base)->is_ready);
    turn(plain, out);
    return 0;
}

static struct wire_guard *toy_free(struct wire_guard *base)
{
    free(toy_of(base));
    return NULL;
}

static struct wire_guard *toy_make(const struct wire_guard_source *source, bool listens)
{
    static const struct wire_guard_ops ops = { toy_receive, toy_is_ready, toy_send, toy_free };
    struct toy *toy = xcalloc(1, sizeof *toy);

    assert_string_equal(source->host, "somewhere");
    toy->base.ops = &ops;
    toy->listens = listens;
    return &toy->base;
}

static const struct wire_guard_source guards = { .make = toy_make, .host = "somewhere" };

/* ---- Two ends ---- */

struct end {
    struct bench *bench;
    struct link_wire *wire;
    uint32_t pipe;
    unsigned added;
    unsigned removed;
    bool heard_after_end; /* a message of a pipe that was removed */
    char reason[256];
    char remote[64];
    struct buf got; /* messages, one after another */
    size_t wanted_bytes;
};

struct bench {
    struct loop *loop;
    struct patience *patience;
    struct end ends[2]; /* dials, listens */
    char address[64];
    uint16_t port;
    bool is_late;
    bool stops_at_pipe; /* run ends with the first, not yet ready */
};

static void stop_if_done(struct bench *bench)
{
    for (unsigned i = 0; i < 2; i++) {
        if (bench->ends[i].got.bytes < bench->ends[i].wanted_bytes) {
            return;
        }
    }
    loop_stop(bench->loop);
}

static void on_event(void *user, const struct wire_event *event)
{
    struct end *end = user;

    if (event->kind == WIRE_PIPE_ADDED) {
        end->pipe = event->pipe;
        end->added++;
        (void)snprintf(end->remote, sizeof end->remote, "%s", event->remote);
        /* Said before the guards know each other. */
        wire_send(end->wire, end->pipe, SPAN_LIT("hello "), SPAN_LIT("there, "));
        if (end->bench->stops_at_pipe) {
            loop_stop(end->bench->loop);
        }
    } else if (event->kind == WIRE_PIPE_REMOVED) {
        end->removed++;
        (void)snprintf(end->reason, sizeof end->reason, "%s", event->reason);
        loop_stop(end->bench->loop);
    } else if (event->kind == WIRE_MESSAGE) {
        end->heard_after_end |= end->removed > 0;
        buf_append_span(&end->got, wire_message_body(event->message));
        (void)wire_message_free(event->message);
        stop_if_done(end->bench);
    }
}

static void on_drained(void *user)
{
    (void)user;
}

static void on_late(void *user)
{
    struct bench *bench = user;
    bench->is_late = true;
    loop_stop(bench->loop);
}

static void open_end(struct bench *bench, unsigned side)
{
    struct link_config config = { .pattern = LINK_REQREP,
        .listen = side == 1,
        .path = bench->address,
        .frame_bytes_max = FRAME_BYTES_MAX,
        .guards = &guards };
    struct wire_handler handler = { on_event, on_drained, &bench->ends[side] };
    struct err err = { 0 };

    bench->ends[side].bench = bench;
    if (wire_open(bench->loop, &config, &handler, &bench->ends[side].wire, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static int set_up(void **state)
{
    struct bench *bench = xcalloc(1, sizeof *bench);

    bench->loop = loop_new();
    bench->patience = patience_new(bench->loop, PATIENCE_MS, on_late, bench);
    bench->port = loopback_free_port();
    (void)snprintf(bench->address, sizeof bench->address, "tcp://127.0.0.1:%u", bench->port);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    for (unsigned i = 0; i < 2; i++) {
        bench->ends[i].wire = wire_close(bench->ends[i].wire);
        buf_fini(&bench->ends[i].got);
    }
    bench->patience = patience_free(bench->patience);
    bench->loop = loop_free(bench->loop);
    free(bench);
    return 0;
}

static void run(struct bench *bench)
{
    patience_begin(bench->patience);
    loop_run(bench->loop);
    patience_end(bench->patience);
    assert_false(bench->is_late);
}

/* ---- Claims ---- */

static void what_is_said_before_the_guards_are_ready_comes_after(void **state)
{
    struct bench *bench = *state;

    open_end(bench, 1);
    open_end(bench, 0);
    bench->ends[0].wanted_bytes = bench->ends[1].wanted_bytes = strlen("hello there, ");
    run(bench);
    for (unsigned i = 0; i < 2; i++) {
        struct end *end = &bench->ends[i];
        assert_true(span_eq(buf_span(&end->got), SPAN_LIT("hello there, ")));
        assert_int_equal(strncmp(end->remote, "127.0.0.1:", 10), 0);
        assert_int_equal(wire_waiting_bytes(end->wire, end->pipe), 0);
    }
}

static void messages_of_every_size_come_whole_and_in_order(void **state)
{
    static const size_t sizes[] = { 1, 16, 65531, 65532, 65533, 70000, FRAME_BYTES_MAX - 1, 3 };
    struct bench *bench = *state;
    struct buf expected = BUF_INIT;

    open_end(bench, 1);
    open_end(bench, 0);
    bench->ends[0].wanted_bytes = bench->ends[1].wanted_bytes = strlen("hello there, ");
    run(bench);
    buf_append_str(&expected, "hello there, ");
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
            size_t from = expected.bytes;
            for (size_t j = 0; j < sizes[i]; j++) {
                buf_append_byte(&expected, (uint8_t)(j * 7 + i + round));
            }
            struct span message = span_from(buf_span(&expected), from);
            for (unsigned side = 0; side < 2; side++) {
                wire_send(bench->ends[side].wire, bench->ends[side].pipe, span_of(message.data, 1),
                        span_from(message, 1));
            }
        }
    }
    bench->ends[0].wanted_bytes = bench->ends[1].wanted_bytes = expected.bytes;
    run(bench);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(span_eq(buf_span(&bench->ends[i].got), buf_span(&expected)));
        assert_int_equal(bench->ends[i].removed, 0);
    }
    buf_fini(&expected);
}

static void who_the_guard_refuses_is_hung_up_on_with_its_answer_and_the_reason_is_told(void **state)
{
    struct bench *bench = *state;
    char answer[8];

    open_end(bench, 1);
    int fd = loopback_dial(bench->port);
    assert_int_equal(write(fd, "x", 1), 1);
    run(bench);
    assert_int_equal(bench->ends[1].removed, 1);
    assert_string_equal(bench->ends[1].reason, "no letter of ours; say another one");
    assert_int_equal(bench->ends[1].got.bytes, 0);
    assert_int_equal(read(fd, answer, sizeof answer), 1);
    assert_int_equal(answer[0], '!');
    assert_int_equal(read(fd, answer, sizeof answer), 0);
    (void)close(fd);
}

static void why_it_was_refused_reaches_who_still_talks(void **state)
{
    struct bench *bench = *state;

    toy_lies = true;
    open_end(bench, 1);
    for (unsigned round = 0; round < 10; round++) {
        bench->ends[0].reason[0] = '\0';
        bench->ends[0].removed = 0;
        open_end(bench, 0);
        while (bench->ends[0].removed == 0) {
            run(bench);
        }
        bench->ends[0].wire = wire_close(bench->ends[0].wire);
        /* Closing with something unread would have reset the connection, and the answer with it. */
        assert_string_equal(bench->ends[0].reason, "no letter of ours; say another one");
    }
    toy_lies = false;
}

/* The word and the end come together, and the end is what a send meets first. */
static void why_it_was_refused_is_read_after_a_send_that_failed(void **state)
{
    struct bench *bench = *state;
    struct sockaddr_in address = loopback_address(bench->port);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int least = 1;
    char first;

    assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &least, sizeof least), 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    toy_lies = true;
    lie_bytes = 16 * 1000 * 1000; /* more than the kernel takes: the rest waits to be sent */
    open_end(bench, 0);
    int fd = accept(listener, NULL, NULL);
    (void)close(listener);
    bench->stops_at_pipe = true;
    run(bench);
    bench->stops_at_pipe = false;
    assert_int_equal(recv(fd, &first, 1, MSG_PEEK), 1);
    assert_int_equal(send(fd, "!", 1, 0), 1);
    (void)close(fd); /* with much unread: a reset */
    run(bench);
    assert_string_equal(bench->ends[0].reason, "no letter of ours; say another one");
    toy_lies = false;
    lie_bytes = LIE_BYTES;
}

static void who_hangs_up_in_the_handshake_is_told_of(void **state)
{
    struct bench *bench = *state;
    struct sockaddr_in address = loopback_address(bench->port);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    open_end(bench, 0);
    int fd = accept(listener, NULL, NULL);
    (void)close(listener);
    (void)close(fd);
    run(bench);
    assert_non_null(strstr(bench->ends[0].reason, "the other side hung up in the handshake; "));
}

static void who_only_looks_whether_the_port_is_open_did_nothing_wrong(void **state)
{
    struct bench *bench = *state;

    open_end(bench, 1);
    (void)close(loopback_dial(bench->port));
    run(bench);
    assert_string_equal(bench->ends[1].reason, "");
}

static void who_hangs_up_later_did_nothing_wrong(void **state)
{
    struct bench *bench = *state;

    open_end(bench, 1);
    int fd = loopback_dial(bench->port);
    assert_int_equal(write(fd, "d\x5a\x5a\x5a\x5b", 5), 5); /* the letter, and a length of 1 */
    assert_int_equal(write(fd, "\x3b", 1), 1);
    bench->ends[1].wanted_bytes = 1;
    run(bench);
    assert_true(span_eq(buf_span(&bench->ends[1].got), SPAN_LIT("a")));
    (void)close(fd);
    run(bench);
    assert_int_equal(bench->ends[1].removed, 1);
    assert_string_equal(bench->ends[1].reason, "");
}

static void a_length_that_cannot_be_is_told_behind_a_guard_too(void **state)
{
    struct bench *bench = *state;

    open_end(bench, 1);
    int fd = loopback_dial(bench->port);
    assert_int_equal(write(fd, "d\x1d\x1f\x0e\x7a", 5), 5); /* "GET " */
    run(bench);
    assert_non_null(strstr(bench->ends[1].reason, "an HTTP request on the peer port"));
    (void)close(fd);
}

/* The reset is there when what came before it is read: our answer finds it first. */
static void who_speaks_and_resets_at_once_is_not_heard_after_its_end(void **state)
{
    static const struct linger at_once = { .l_onoff = 1 };
    struct bench *bench = *state;

    open_end(bench, 1);
    int fd = loopback_dial(bench->port);
    bench->stops_at_pipe = true;
    run(bench);
    assert_int_equal(write(fd, "d\x5a\x5a\x5a\x5b\x3b", 6), 6); /* the letter, and a message */
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    (void)close(fd);
    while (bench->ends[1].removed == 0) {
        run(bench); /* which stops at the message, too */
    }
    assert_int_equal(bench->ends[1].removed, 1);
    assert_false(bench->ends[1].heard_after_end);
}

static void what_came_before_a_length_that_cannot_be_is_handed_on(void **state)
{
    struct bench *bench = *state;

    open_end(bench, 1);
    int fd = loopback_dial(bench->port);
    /* The letter; a message of a byte; "GET ". */
    assert_int_equal(write(fd, "d\x5a\x5a\x5a\x5b\x3b\x1d\x1f\x0e\x7a", 10), 10);
    run(bench);
    assert_int_equal(bench->ends[1].removed, 1);
    assert_true(span_eq(buf_span(&bench->ends[1].got), SPAN_LIT("a")));
    (void)close(fd);
}

static void a_wire_may_be_closed_in_the_middle_of_a_handshake(void **state)
{
    struct bench *bench = *state;

    open_end(bench, 1);
    int fd = loopback_dial(bench->port);
    bench->stops_at_pipe = true;
    run(bench);
    assert_int_equal(bench->ends[1].added, 1);
    bench->ends[1].wire = wire_close(bench->ends[1].wire);
    (void)close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_said_before_the_guards_are_ready_comes_after),
        TEST(messages_of_every_size_come_whole_and_in_order),
        TEST(who_the_guard_refuses_is_hung_up_on_with_its_answer_and_the_reason_is_told),
        TEST(why_it_was_refused_reaches_who_still_talks),
        TEST(why_it_was_refused_is_read_after_a_send_that_failed),
        TEST(who_hangs_up_in_the_handshake_is_told_of),
        TEST(who_only_looks_whether_the_port_is_open_did_nothing_wrong),
        TEST(who_hangs_up_later_did_nothing_wrong),
        TEST(a_length_that_cannot_be_is_told_behind_a_guard_too),
        TEST(who_speaks_and_resets_at_once_is_not_heard_after_its_end),
        TEST(what_came_before_a_length_that_cannot_be_is_handed_on),
        TEST(a_wire_may_be_closed_in_the_middle_of_a_handshake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
