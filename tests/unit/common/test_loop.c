/* test_loop.c: turns, posts from foreign threads, timers, signals. */
#include "common/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/loop_watch.h"
#include "tests/unit/loopback.h"

struct fixture {
    struct loop *loop;
    struct loop_timer *timer;
    struct loop_waker *waker;
    struct buf trace; /* one letter an event */
    unsigned count;
    unsigned limit;
    pthread_t threads[4];
    int fd;
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    f->loop = loop_new();
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    f->timer = loop_timer_free(f->timer);
    f->waker = loop_waker_free(f->waker);
    f->loop = loop_free(f->loop);
    buf_fini(&f->trace);
    free(f);
    return 0;
}

static void note(struct fixture *f, const char *letter)
{
    buf_append_str(&f->trace, letter);
}

static void assert_trace(struct fixture *f, const char *want)
{
    buf_append_byte(&f->trace, 0);
    assert_string_equal((const char *)f->trace.data, want);
}

static void post_b(void *user)
{
    note(user, "b");
}

static void post_a(void *user)
{
    struct fixture *f = user;
    note(f, "a");
    loop_post(f->loop, post_b, f);
}

static void end_first(void *user)
{
    struct fixture *f = user;
    if (f->trace.bytes > 0) {
        note(f, "1");
    }
}

static void end_second(void *user)
{
    struct fixture *f = user;
    if (f->trace.bytes > 0) {
        note(f, "2");
        if (++f->count == 2) {
            loop_stop(f->loop);
        }
    }
}

static void turn_end_callbacks_run_after_all_others_in_order(void **state)
{
    struct fixture *f = *state;
    loop_on_turn_end(f->loop, end_first, f);
    loop_on_turn_end(f->loop, end_second, f);
    loop_post(f->loop, post_a, f);
    loop_post(f->loop, post_b, f);
    loop_run(f->loop);
    /* What a post posts runs in the next turn; a stop still ends the turn it was called in. */
    assert_memory_equal(f->trace.data, "ab12b12", 7);
}

static void stop_now(void *user)
{
    struct fixture *f = user;
    note(f, "s");
    loop_stop(f->loop);
}

static void the_turn_that_stops_the_loop_is_ended_too(void **state)
{
    struct fixture *f = *state;
    loop_on_turn_end(f->loop, end_first, f);
    loop_post(f->loop, stop_now, f);
    loop_run(f->loop);
    assert_trace(f, "s1");
}

static void count_run(void *user)
{
    struct fixture *f = user;
    note(f, "r");
    loop_post(f->loop, stop_now, f);
}

static void end_stops(void *user)
{
    loop_stop(((struct fixture *)user)->loop);
}

static void a_stop_at_the_end_of_the_last_turn_does_not_end_the_next_run(void **state)
{
    struct fixture *f = *state;
    loop_post(f->loop, stop_now, f);
    loop_on_turn_end(f->loop, end_first, f);
    loop_on_turn_end(f->loop, end_stops, f);
    loop_run(f->loop);
    loop_off_turn_end(f->loop, end_stops, f);
    buf_clear(&f->trace);
    loop_post(f->loop, count_run, f);
    loop_run(f->loop);
    assert_trace(f, "r1s1");
}

static void a_turn_end_callback_taken_off_runs_no_more(void **state)
{
    struct fixture *f = *state;
    loop_on_turn_end(f->loop, end_first, f);
    loop_on_turn_end(f->loop, end_second, f);
    loop_off_turn_end(f->loop, end_first, f);
    loop_post(f->loop, stop_now, f);
    loop_run(f->loop);
    assert_trace(f, "s2");
}

static void count_post(void *user)
{
    struct fixture *f = user;
    if (++f->count == f->limit) {
        loop_stop(f->loop);
    }
}

static void *post_many(void *user)
{
    struct fixture *f = user;
    for (int i = 0; i < 5000; i++) {
        loop_post(f->loop, count_post, f);
    }
    return NULL;
}

static void posts_from_four_threads_all_arrive(void **state)
{
    struct fixture *f = *state;
    f->limit = 4 * 5000;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&f->threads[i], NULL, post_many, f), 0);
    }
    loop_run(f->loop);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(f->threads[i], NULL), 0);
    }
    assert_int_equal(f->count, f->limit);
}

static void drop(void *user)
{
    note(user, "d");
}

static void what_is_taken_back_is_dropped_and_does_not_run(void **state)
{
    struct fixture *f = *state;
    loop_post(f->loop, post_a, f);
    loop_post(f->loop, post_b, f);
    loop_post(f->loop, post_a, f);
    loop_post(f->loop, stop_now, f);
    loop_unpost(f->loop, post_a, drop);
    assert_memory_equal(f->trace.data, "dd", 2);
    loop_run(f->loop);
    assert_trace(f, "ddbs");
}

static void *wake_once(void *user)
{
    loop_waker_wake(((struct fixture *)user)->waker);
    return NULL;
}

static void a_waker_runs_its_callback_for_a_foreign_thread(void **state)
{
    struct fixture *f = *state;
    f->waker = loop_waker_new(f->loop, stop_now, f);
    assert_int_equal(pthread_create(&f->threads[0], NULL, wake_once, f), 0);
    loop_run(f->loop);
    assert_int_equal(pthread_join(f->threads[0], NULL), 0);
    assert_trace(f, "s");
}

static void tick(void *user)
{
    struct fixture *f = user;
    note(f, "t");
    if (++f->count == 3) {
        loop_timer_stop(f->timer);
        loop_post(f->loop, stop_now, f);
    }
}

static void a_repeating_timer_fires_until_stopped(void **state)
{
    struct fixture *f = *state;
    f->timer = loop_timer_new(f->loop, tick, f);
    loop_timer_start(f->timer, 1, 1);
    loop_run(f->loop);
    assert_trace(f, "ttts");
}

static void timer_stops_loop(void *user)
{
    struct fixture *f = user;
    note(f, "t");
    loop_stop(f->loop);
}

static void starting_a_timer_again_replaces_its_deadline(void **state)
{
    struct fixture *f = *state;
    f->timer = loop_timer_new(f->loop, timer_stops_loop, f);
    loop_timer_start(f->timer, 3600 * 1000, 0);
    loop_timer_start(f->timer, 1, 0);
    loop_run(f->loop);
    assert_trace(f, "t");
}

static void raise_signal(void *user UNUSED)
{
    (void)kill(getpid(), SIGUSR1);
}

static void a_signal_is_a_callback_on_the_loop(void **state)
{
    struct fixture *f = *state;
    loop_on_signal(f->loop, SIGUSR1, stop_now, f);
    loop_post(f->loop, raise_signal, f);
    loop_run(f->loop);
    assert_trace(f, "s");
}

static void free_timer_within(void *user)
{
    struct fixture *f = user;
    f->timer = loop_timer_free(f->timer);
    note(f, "f");
    loop_stop(f->loop);
}

static void a_timer_may_free_itself(void **state)
{
    struct fixture *f = *state;
    f->timer = loop_timer_new(f->loop, free_timer_within, f);
    loop_timer_start(f->timer, 0, 1);
    loop_run(f->loop);
    assert_null(f->timer);
    assert_trace(f, "f");
}

static void read_one(void *user, unsigned events)
{
    struct fixture *f = user;
    char byte;
    ssize_t got = read(f->fd, &byte, 1);

    assert_true((events & LOOP_READABLE) != 0);
    note(f, got == 1 ? "r" : got == 0 ? "e" : "x");
    if (got <= 0) {
        loop_stop(f->loop);
    }
}

/* The kernel tells the reset with what came before it; who reads a byte at a time comes to its end all the same. */
static void what_came_before_a_reset_is_told_until_it_is_read(void **state)
{
    static const struct linger at_once = { .l_onoff = 1 };
    struct fixture *f = *state;
    uint16_t port = loopback_free_port();
    struct sockaddr_in address = loopback_address(port);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)(void *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    int peer = loopback_dial(port);
    f->fd = accept(listener, NULL, NULL);
    (void)close(listener);
    assert_int_equal(write(peer, "abc", 3), 3);
    assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    (void)close(peer);

    struct loop_watch *watch = loop_watch_new(f->loop, f->fd, read_one, f);
    loop_watch_set(watch, LOOP_READABLE);
    loop_run(f->loop);
    watch = loop_watch_free(watch);
    (void)close(f->fd);
    assert_trace(f, "rrrx");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
                turn_end_callbacks_run_after_all_others_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(the_turn_that_stops_the_loop_is_ended_too, setup, teardown),
        cmocka_unit_test_setup_teardown(
                a_turn_end_callback_taken_off_runs_no_more, setup, teardown),
        cmocka_unit_test_setup_teardown(
                a_stop_at_the_end_of_the_last_turn_does_not_end_the_next_run, setup, teardown),
        cmocka_unit_test_setup_teardown(posts_from_four_threads_all_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(
                what_is_taken_back_is_dropped_and_does_not_run, setup, teardown),
        cmocka_unit_test_setup_teardown(
                a_waker_runs_its_callback_for_a_foreign_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(a_repeating_timer_fires_until_stopped, setup, teardown),
        cmocka_unit_test_setup_teardown(
                starting_a_timer_again_replaces_its_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(a_signal_is_a_callback_on_the_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timer_may_free_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(
                what_came_before_a_reset_is_told_until_it_is_read, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
