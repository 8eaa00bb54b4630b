/* hub.h: who waits for what, and who is to be told of an event.
 *
 * Watched paths form a tree: a node for each watched path and its ancestors, found by a keyed hash of (parent,
 * segment). An event walks down its own path, so it costs as much as the path is deep, however many watch; a
 * directory's deletion also walks the watched paths below it.
 *
 * The hub has an index, that of the last event it was given, and ignores what is at or below. A watcher is told an event
 * exactly when the event's index >= the watcher's next_index. Whether a watched node exists is given by whoever
 * adds the path's first watcher, and kept up by the events from then on; deleting an ancestor wakes a watcher only
 * if its node existed. Pure: owns memory, does no I/O. A watcher's memory is its holder's. */
#pragma once

#include "common/list.h"
#include "common/span.h"

struct event;
struct watch_hub;
struct watch_path;

struct watcher {
    struct list link;        /* among the watchers of the path */
    struct list due;         /* among those that are being told an event */
    struct watch_path *path; /* NULL: not in the hub */
    uint64_t next_index;
    bool recursive;
    bool stream; /* stays after an event; others leave the hub with it */
};

/* The watcher may be removed and freed, and others too. */
typedef void (*watch_deliver_fn)(void *user, struct watcher *watcher, const struct event *event);

/* The seed keys the hash, against paths chosen to collide. */
struct watch_hub *watch_hub_new(uint64_t index, const uint8_t seed[16]);
struct watch_hub *watch_hub_free(
        struct watch_hub *hub); /* watchers must be gone; always NULL, accepts NULL */

uint64_t watch_hub_index(const struct watch_hub *hub);
size_t watch_hub_count(const struct watch_hub *hub);

/* True when the hub keeps up itself whether the node exists, and watch_hub_add's `exists` is not asked for. */
bool watch_hub_tracks(const struct watch_hub *hub, struct span key);

/* The watcher's fields but link, due and path are set. */
void watch_hub_add(struct watch_hub *hub, struct watcher *watcher, struct span key, bool exists);
void watch_hub_remove(
        struct watch_hub *hub, struct watcher *watcher); /* harmless when it is not in the hub */

/* Tells the event to all it concerns, and advances the index. */
void watch_hub_publish(
        struct watch_hub *hub, const struct event *event, watch_deliver_fn deliver, void *user);

/* No event between the hub's index and this one is of interest. */
void watch_hub_advance(struct watch_hub *hub, uint64_t index);

/* The state went back to an earlier index; there must be no watchers. */
void watch_hub_reset(struct watch_hub *hub, uint64_t index);

/* Takes every watcher out, calling fn with event NULL. */
void watch_hub_drain(struct watch_hub *hub, watch_deliver_fn fn, void *user);
