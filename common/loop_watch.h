/* loop_watch.h: tells when a descriptor can be read or written, on the loop thread. */
#pragma once

#include "common/macros.h"

struct loop;
struct loop_watch;

enum loop_watch_events {
    LOOP_READABLE = 1,
    LOOP_WRITABLE = 2,
};

/* events: what is ready, told again with each turn until it is not; a descriptor in error counts as both. */
typedef void (*loop_watch_fn)(void *user, unsigned events);

struct loop_watch *loop_watch_new(struct loop *loop, int fd, loop_watch_fn fn, void *user);
void loop_watch_set(struct loop_watch *watch, unsigned events); /* 0: nothing for now */
/* fn is not called again; the descriptor stays the caller's to close, afterwards. Always NULL, accepts NULL. */
struct loop_watch *loop_watch_free(struct loop_watch *watch);
