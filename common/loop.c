/* loop.c: the daemon's event loop.
 *
 * libuv runs timers, then prepare handles, then polls and runs what is ready. Turn-end callbacks therefore hang on
 * a prepare handle: it runs after everything that the last poll and the due timers started, and before the loop
 * may sleep; the sleep's length is taken afterwards, so a timer or a wake made by a turn-end callback counts.
 *
 * Foreign threads reach the loop through uv_async_send, which writes to one eventfd at most once until the loop has
 * looked: a busy loop is woken for free. */
#include "common/loop.h"

#include <malloc.h>
#include <pthread.h>
#include <uv.h>

#include "common/buf.h"

enum {
    MMAP_ABOVE_BYTES = 512 * 1024,
    TRIM_ABOVE_BYTES = 8 * 1024 * 1024,
};

struct callback {
    loop_fn fn;
    void *user;
};

struct callbacks {
    struct callback *items;
    size_t count;
    size_t capacity;
};

struct loop_signal {
    uv_signal_t handle;
    struct callback callback;
    struct loop_signal *next;
};

struct loop_timer {
    uv_timer_t handle;
    struct callback callback;
};

struct loop_waker {
    uv_async_t handle;
    struct callback callback;
};

struct loop {
    uv_loop_t uv;
    uv_async_t posted_async;
    uv_prepare_t turn_end;
    struct callbacks turn_ends;
    bool is_ending; /* in the turn-end callbacks of the last turn */
    struct loop_signal *signals;
    struct callbacks running; /* taken from `posted`; kept for its memory */

    pthread_mutex_t lock;
    struct callbacks posted; /* under lock */
};

static void callbacks_append(struct callbacks *list, loop_fn fn, void *user)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        list->items = xrealloc(list->items, list->capacity * sizeof list->items[0]);
    }
    list->items[list->count++] = (struct callback){ fn, user };
}

static void on_posted(uv_async_t *handle)
{
    struct loop *loop = handle->data;

    pthread_mutex_lock(&loop->lock);
    struct callbacks taken = loop->posted;
    loop->posted = loop->running;
    pthread_mutex_unlock(&loop->lock);

    for (size_t i = 0; i < taken.count; i++) {
        taken.items[i].fn(taken.items[i].user);
    }
    taken.count = 0;
    loop->running = taken;
}

static void run_turn_ends(struct loop *loop)
{
    /* By index: a callback may add another one. */
    for (size_t i = 0; i < loop->turn_ends.count; i++) {
        struct callback callback = loop->turn_ends.items[i];
        callback.fn(callback.user);
    }
}

static void on_turn_end(uv_prepare_t *handle)
{
    run_turn_ends(handle->data);
}

/* Left alone, glibc takes ever larger blocks from the heap once one such was freed, and a heap shrinks only from its end: what
 * a minute of large values took would never be given back. Blocks of their own cost page faults: with those of 128 KiB a write
 * of 200 KB takes half as much CPU again; with those of 1 MiB, 3,000 writes of 900 KB left 275 MiB behind. */
static void give_memory_back(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, MMAP_ABOVE_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, TRIM_ABOVE_BYTES);
}

struct loop *loop_new(void)
{
    struct loop *loop = xcalloc(1, sizeof *loop);

    give_memory_back();
    INVARIANT_EQ(pthread_mutex_init(&loop->lock, NULL), 0);
    INVARIANT_EQ(uv_loop_init(&loop->uv), 0);
    INVARIANT_EQ(uv_async_init(&loop->uv, &loop->posted_async, on_posted), 0);
    INVARIANT_EQ(uv_prepare_init(&loop->uv, &loop->turn_end), 0);
    INVARIANT_EQ(uv_prepare_start(&loop->turn_end, on_turn_end), 0);
    loop->posted_async.data = loop;
    loop->turn_end.data = loop;
    return loop;
}

static void signal_closed(uv_handle_t *handle)
{
    free(handle->data);
}

struct loop *loop_free(struct loop *loop)
{
    if (loop == NULL) {
        return NULL;
    }
    uv_close((uv_handle_t *)&loop->posted_async, NULL);
    uv_close((uv_handle_t *)&loop->turn_end, NULL);
    for (struct loop_signal *signal = loop->signals; signal != NULL;) {
        struct loop_signal *next = signal->next;
        uv_close((uv_handle_t *)&signal->handle, signal_closed);
        signal = next;
    }
    /* Closing ends within a turn or two; what still lives after that was not closed by its owner. */
    for (int turns = 0; turns < 8 && uv_loop_alive(&loop->uv) != 0; turns++) {
        (void)uv_run(&loop->uv, UV_RUN_NOWAIT);
    }
    INVARIANT_EQ(uv_loop_close(&loop->uv), 0);
    INVARIANT_EQ(pthread_mutex_destroy(&loop->lock), 0);
    free(loop->posted.items);
    free(loop->running.items);
    free(loop->turn_ends.items);
    free(loop);
    return NULL;
}

void loop_run(struct loop *loop)
{
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT);
    /* uv_stop leaves after the poll: what that last turn gathered is still due. */
    loop->is_ending = true;
    run_turn_ends(loop);
    loop->is_ending = false;
}

void loop_stop(struct loop *loop)
{
    if (!loop->is_ending) { /* it would end the next run instead */
        uv_stop(&loop->uv);
    }
}

void loop_post(struct loop *loop, loop_fn fn, void *user)
{
    pthread_mutex_lock(&loop->lock);
    callbacks_append(&loop->posted, fn, user);
    pthread_mutex_unlock(&loop->lock);
    (void)uv_async_send(&loop->posted_async);
}

void loop_unpost(struct loop *loop, loop_fn fn, loop_fn drop)
{
    size_t kept = 0;

    pthread_mutex_lock(&loop->lock);
    for (size_t i = 0; i < loop->posted.count; i++) {
        struct callback post = loop->posted.items[i];
        if (post.fn == fn) {
            drop(post.user);
        } else {
            loop->posted.items[kept++] = post;
        }
    }
    loop->posted.count = kept;
    pthread_mutex_unlock(&loop->lock);
}

void loop_on_turn_end(struct loop *loop, loop_fn fn, void *user)
{
    callbacks_append(&loop->turn_ends, fn, user);
}

void loop_off_turn_end(struct loop *loop, loop_fn fn, void *user)
{
    for (size_t i = 0; i < loop->turn_ends.count; i++) {
        struct callback *callback = &loop->turn_ends.items[i];
        if (callback->fn == fn && callback->user == user) {
            memmove(callback, callback + 1,
                    (loop->turn_ends.count - i - 1) * sizeof loop->turn_ends.items[0]);
            loop->turn_ends.count--;
            return;
        }
    }
}

static void signal_fired(uv_signal_t *handle, int number UNUSED)
{
    struct loop_signal *signal = handle->data;
    signal->callback.fn(signal->callback.user);
}

void loop_on_signal(struct loop *loop, int signal_number, loop_fn fn, void *user)
{
    struct loop_signal *signal = xcalloc(1, sizeof *signal);

    signal->callback = (struct callback){ fn, user };
    INVARIANT_EQ(uv_signal_init(&loop->uv, &signal->handle), 0);
    signal->handle.data = signal;
    INVARIANT_EQ(uv_signal_start(&signal->handle, signal_fired, signal_number), 0);
    signal->next = loop->signals;
    loop->signals = signal;
}

static void timer_fired(uv_timer_t *handle)
{
    struct loop_timer *timer = handle->data;
    timer->callback.fn(timer->callback.user);
}

struct loop_timer *loop_timer_new(struct loop *loop, loop_fn fn, void *user)
{
    struct loop_timer *timer = xcalloc(1, sizeof *timer);

    timer->callback = (struct callback){ fn, user };
    INVARIANT_EQ(uv_timer_init(&loop->uv, &timer->handle), 0);
    timer->handle.data = timer;
    return timer;
}

void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms, uint64_t repeat_ms)
{
    INVARIANT_EQ(uv_timer_start(&timer->handle, timer_fired, delay_ms, repeat_ms), 0);
}

void loop_timer_stop(struct loop_timer *timer)
{
    (void)uv_timer_stop(&timer->handle);
}

static void timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

struct loop_timer *loop_timer_free(struct loop_timer *timer)
{
    if (timer != NULL) {
        uv_close((uv_handle_t *)&timer->handle, timer_closed);
    }
    return NULL;
}

static void waker_woken(uv_async_t *handle)
{
    struct loop_waker *waker = handle->data;
    waker->callback.fn(waker->callback.user);
}

struct loop_waker *loop_waker_new(struct loop *loop, loop_fn fn, void *user)
{
    struct loop_waker *waker = xcalloc(1, sizeof *waker);

    waker->callback = (struct callback){ fn, user };
    INVARIANT_EQ(uv_async_init(&loop->uv, &waker->handle, waker_woken), 0);
    waker->handle.data = waker;
    return waker;
}

void loop_waker_wake(struct loop_waker *waker)
{
    (void)uv_async_send(&waker->handle);
}

static void waker_closed(uv_handle_t *handle)
{
    free(handle->data);
}

struct loop_waker *loop_waker_free(struct loop_waker *waker)
{
    if (waker != NULL) {
        uv_close((uv_handle_t *)&waker->handle, waker_closed);
    }
    return NULL;
}

uint64_t loop_now_ms(const struct loop *loop)
{
    return uv_now(&loop->uv);
}

void *loop_uv(struct loop *loop)
{
    return &loop->uv;
}
