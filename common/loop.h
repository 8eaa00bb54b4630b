/* loop.h: one event loop a daemon, over libuv. The loop thread owns all the daemon's state; every callback here runs
 * on it. Only loop_post and loop_waker_wake may be called from other threads.
 *
 * A turn: poll and run callbacks; then all turn-end callbacks in the order they were added. Work gathered in a turn
 * (ops to propose, reads to serve, bytes to write) is done at its end, once, for all. */
#pragma once

#include "common/err.h"

struct loop;
struct loop_timer;
struct loop_waker;

typedef void (*loop_fn)(void *user);

struct loop *loop_new(void);
struct loop *loop_free(struct loop *loop); /* always NULL, accepts NULL; all handles must be closed */

void loop_run(struct loop *loop); /* until loop_stop */
void loop_stop(struct loop *loop);

/* Runs fn(user) on the loop thread soon. Any thread. */
void loop_post(struct loop *loop, loop_fn fn, void *user);
/* For who posts fn and goes: drop(user) at once for each post of it that has not run, and will not. Loop thread; not from a post. */
void loop_unpost(struct loop *loop, loop_fn fn, loop_fn drop);

/* Runs fn at each turn's end, until the loop is freed or the pair is taken off again (not from a turn-end callback). */
void loop_on_turn_end(struct loop *loop, loop_fn fn, void *user);
void loop_off_turn_end(struct loop *loop, loop_fn fn, void *user);

/* SIGTERM and the like become loop events. */
void loop_on_signal(struct loop *loop, int signal, loop_fn fn, void *user);

struct loop_timer *loop_timer_new(struct loop *loop, loop_fn fn, void *user);
/* First after delay_ms, then each repeat_ms (0: once). Starting again replaces. */
void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms, uint64_t repeat_ms);
void loop_timer_stop(struct loop_timer *timer);
struct loop_timer *loop_timer_free(struct loop_timer *timer); /* always NULL, accepts NULL */

/* A lasting loop_post: fn(user) runs on the loop thread at least once after each wake; wakes that come before it runs
 * are one. No lock, no allocation: for callbacks of foreign threads that come by the thousand. */
struct loop_waker *loop_waker_new(struct loop *loop, loop_fn fn, void *user);
void loop_waker_wake(struct loop_waker *waker); /* any thread */
/* Loop thread, once no other thread can wake it any more; fn is not called again. Always NULL, accepts NULL. */
struct loop_waker *loop_waker_free(struct loop_waker *waker);

/* Monotonic, cached at the start of the turn. */
uint64_t loop_now_ms(const struct loop *loop);

/* The uv_loop_t, for common/http and loop_watch.c, and nothing else. */
void *loop_uv(struct loop *loop);
