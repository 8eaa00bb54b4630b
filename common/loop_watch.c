#include "common/loop_watch.h"

#include <stdlib.h>
#include <uv.h>

#include "common/buf.h"
#include "common/loop.h"

struct loop_watch {
    uv_poll_t handle;
    loop_watch_fn fn;
    void *user;
    unsigned events;
};

static void start(struct loop_watch *watch);

static void on_poll(uv_poll_t *handle, int status, int uv_events)
{
    struct loop_watch *watch = handle->data;
    unsigned events = 0;

    if (status < 0) {
        /* libuv has stopped the handle. But who reads only a part now, or finds something to read before the error, comes back. */
        start(watch);
        events = LOOP_READABLE | LOOP_WRITABLE;
    }
    if ((uv_events & UV_READABLE) != 0) {
        events |= LOOP_READABLE;
    }
    if ((uv_events & UV_WRITABLE) != 0) {
        events |= LOOP_WRITABLE;
    }
    watch->fn(watch->user, events);
}

static void start(struct loop_watch *watch)
{
    int uv_events = ((watch->events & LOOP_READABLE) != 0 ? UV_READABLE : 0) |
                    ((watch->events & LOOP_WRITABLE) != 0 ? UV_WRITABLE : 0);

    INVARIANT_EQ(uv_poll_start(&watch->handle, uv_events, on_poll), 0);
}

struct loop_watch *loop_watch_new(struct loop *loop, int fd, loop_watch_fn fn, void *user)
{
    struct loop_watch *watch = xcalloc(1, sizeof *watch);

    watch->fn = fn;
    watch->user = user;
    INVARIANT_EQ(uv_poll_init(loop_uv(loop), &watch->handle, fd), 0);
    watch->handle.data = watch;
    return watch;
}

void loop_watch_set(struct loop_watch *watch, unsigned events)
{
    if (events == watch->events) {
        return;
    }
    watch->events = events;
    if (events == 0) {
        INVARIANT_EQ(uv_poll_stop(&watch->handle), 0);
    } else {
        start(watch);
    }
}

static void watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

struct loop_watch *loop_watch_free(struct loop_watch *watch)
{
    if (watch != NULL) {
        uv_close((uv_handle_t *)&watch->handle, watch_closed);
    }
    return NULL;
}
