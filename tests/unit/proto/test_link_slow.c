/* test_link_slow.c: links to a process that does not read for a while. */
#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/link_parts.h"
#include "tests/unit/proto/link_harness.h"

enum {
    MESSAGES = 20,
    MIB = 1024 * 1024,
    QUIET_MS = 300,
    STALL_MS = 3600 * 1000, /* nobody is given up, however little the machine lets it do */
    FLOOD_MESSAGE_BYTES = 2 * MIB,
    FLOOD_MESSAGES = 100,
};

static bool dialer_up(struct harness *h)
{
    return DIALER(h)->link != NULL;
}

/* The listener as a process of its own, which can be stopped. */
static pid_t start_listener(struct harness *h)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
        h->loop = loop_new();
        harness_open(h, LISTENER(h), LINK_REQREP, true, NULL);
        loop_run(h->loop);
        _exit(LISTENER(h)->out_of_order);
    }
    return pid;
}

static void on_quiet_over(void *user)
{
    loop_stop(user);
}

static bool all_acknowledged(struct harness *h)
{
    return DIALER(h)->link == NULL || link_unacknowledged(DIALER(h)->link) == 0;
}

static void what_has_not_left_yet_is_not_sent_again(void **state)
{
    struct harness *h = *state;
    const struct link_config tune = { .resend_ms = 15, .stall_ms = STALL_MS };
    pid_t listener = start_listener(h);
    harness_open(h, DIALER(h), LINK_REQREP, false, &tune);
    RUN_UNTIL(h, dialer_up);
    assert_int_equal(kill(listener, SIGSTOP), 0);
    for (uint64_t i = 1; i <= MESSAGES; i++) {
        struct buf body = BUF_INIT;
        end_encode(i, MIB, &body);
        assert_int_equal(link_send(DIALER(h)->link, 1, &body), 0);
    }
    struct loop_timer *quiet = loop_timer_new(h->loop, on_quiet_over, h->loop);
    loop_timer_start(quiet, QUIET_MS, 0);
    loop_run(h->loop);
    quiet = loop_timer_free(quiet);
    const struct link_peer *peer = DIALER(h)->link->peer;
    size_t waiting = wire_waiting_bytes(peer->hub->wire, peer->pipe);
    assert_true(waiting > 0);
    assert_in_range(waiting, 1, 2 * (MIB + 100)); /* one more when it is not yet a MiB */
    assert_in_range(link_held_bytes(DIALER(h)->link), MESSAGES * MIB, (MESSAGES + 2) * (MIB + 100));
    assert_int_equal(kill(listener, SIGCONT), 0);
    RUN_UNTIL(h, all_acknowledged);
    assert_int_equal(DIALER(h)->downs, 0);
    assert_int_equal(kill(listener, SIGKILL), 0);
    assert_int_equal(waitpid(listener, NULL, 0), listener);
}

static void more_bytes_than_a_link_takes_wait_for_its_acks(void **state)
{
    struct harness *h = *state;
    const struct link_config tune = { .stall_ms = STALL_MS };
    pid_t listener = start_listener(h);
    harness_open(h, DIALER(h), LINK_REQREP, false, &tune);
    RUN_UNTIL(h, dialer_up);
    assert_int_equal(kill(listener, SIGSTOP), 0);
    int result = 0;
    uint64_t sent = 0;
    while (result == 0) {
        struct buf body = BUF_INIT;
        end_encode(sent + 1, 8 * MIB, &body);
        result = link_send(DIALER(h)->link, 1, &body);
        sent += result == 0;
        buf_fini(&body);
    }
    assert_int_equal(sent, 8); /* of the 32 that it would take of smaller ones */
    assert_int_equal(DIALER(h)->writables, 0);
    assert_int_equal(kill(listener, SIGCONT), 0);
    RUN_UNTIL(h, all_acknowledged);
    assert_int_equal(DIALER(h)->downs, 0);
    assert_true(DIALER(h)->writables > 0);
    assert_int_equal(kill(listener, SIGKILL), 0);
    assert_int_equal(waitpid(listener, NULL, 0), listener);
}

/* Allocated now; 0 where another allocator (a sanitizer's) stands in for libc's. */
static size_t allocated_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void flood(struct harness *h)
{
    struct end *dialer = DIALER(h);
    int result = 0;

    while (result == 0 && dialer->link != NULL && dialer->sent < FLOOD_MESSAGES) {
        struct buf body = BUF_INIT;
        end_encode(dialer->sent + 1, FLOOD_MESSAGE_BYTES, &body);
        result = link_send(dialer->link, 1, &body);
        dialer->sent += result == 0;
        buf_fini(&body);
    }
}

static size_t peak_bytes;

static bool flood_is_over(struct harness *h)
{
    flood(h);
    peak_bytes = MAX(peak_bytes, allocated_bytes());
    return DIALER(h)->sent == FLOOD_MESSAGES && all_acknowledged(h);
}

/* 200 MiB, of which there is always more than the socket takes. */
static void what_has_been_sent_is_not_held_until_all_has(void **state)
{
    struct harness *h = *state;
    const struct link_config tune = { .stall_ms = STALL_MS };
    pid_t listener = start_listener(h);
    harness_open(h, DIALER(h), LINK_REQREP, false, &tune);
    RUN_UNTIL(h, dialer_up);
    size_t before = allocated_bytes();
    peak_bytes = 0;
    RUN_UNTIL(h, flood_is_over);
    assert_int_equal(DIALER(h)->downs, 0);
    assert_int_equal(DIALER(h)->sent, FLOOD_MESSAGES);
    /* The window's 64 MiB, where bufs double, and little that waits for the socket. */
    assert_in_range(peak_bytes, 0, before + 150 * (size_t)MIB);
    assert_int_equal(kill(listener, SIGKILL), 0);
    assert_int_equal(waitpid(listener, NULL, 0), listener);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, harness_setup, harness_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_has_not_left_yet_is_not_sent_again),
        TEST(more_bytes_than_a_link_takes_wait_for_its_acks),
        TEST(what_has_been_sent_is_not_held_until_all_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
