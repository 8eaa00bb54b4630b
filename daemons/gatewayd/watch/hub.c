#include "daemons/gatewayd/watch/hub.h"

#include <assert.h>
#include <sodium.h>

#include "common/buf.h"
#include "daemons/gatewayd/watch/match.h"
#include "proto/outcome.h"

enum {
    HUB_BUCKETS_MIN = 64,
    TREE_DEPTH_MAX = 64
};

static_assert(crypto_shorthash_KEYBYTES == 16, "the seed is a key");

/* A path and its ancestors are a node each, down to TREE_DEPTH_MAX. What lies deeper is one node, the tail, below the node
 * of that depth: a key of 1 MiB may have 500,000 segments, and a watch should not cost 70 MB and half a second. */
struct watch_path {
    struct watch_path *parent; /* NULL: the root */
    struct watch_path *next_in_bucket;
    struct list children;
    struct list sibling;
    struct list exact;     /* watchers */
    struct list recursive; /* watchers */
    uint64_t hash;
    uint32_t holders; /* watchers and children */
    uint32_t watchers;
    bool exists; /* kept up while watchers > 0 */
    uint32_t name_bytes;
    uint8_t name[];
};

struct watch_hub {
    uint64_t index;
    size_t count;
    struct watch_path *root; /* always there */
    struct watch_path **buckets;
    size_t bucket_count; /* a power of two */
    size_t path_count;
    uint8_t seed[16];
};

static uint64_t hash_segment(
        const struct watch_hub *hub, const struct watch_path *parent, struct span name)
{
    uint64_t hash;
    (void)crypto_shorthash((uint8_t *)&hash, name.data, name.bytes, hub->seed);
    return hash ^ (parent->hash * UINT64_C(0x9e3779b97f4a7c15));
}

static struct watch_path *path_new(struct watch_path *parent, struct span name, uint64_t hash)
{
    struct watch_path *path = xcalloc(1, sizeof *path + name.bytes);

    path->parent = parent;
    path->hash = hash;
    path->name_bytes = (uint32_t)name.bytes;
    if (name.bytes > 0) {
        memcpy(path->name, name.data, name.bytes);
    }
    list_init(&path->children);
    list_init(&path->sibling);
    list_init(&path->exact);
    list_init(&path->recursive);
    if (parent != NULL) {
        list_append(&parent->children, &path->sibling);
        parent->holders++;
    }
    return path;
}

static void grow_buckets(struct watch_hub *hub)
{
    size_t count = hub->bucket_count * 2;
    struct watch_path **buckets = xcalloc(count, sizeof(struct watch_path *));

    for (size_t i = 0; i < hub->bucket_count; i++) {
        for (struct watch_path *path = hub->buckets[i]; path != NULL;) {
            struct watch_path *next = path->next_in_bucket;
            struct watch_path **bucket = &buckets[path->hash & (count - 1)];
            path->next_in_bucket = *bucket;
            *bucket = path;
            path = next;
        }
    }
    free(hub->buckets);
    hub->buckets = buckets;
    hub->bucket_count = count;
}

static struct watch_path *find_child(const struct watch_hub *hub, const struct watch_path *parent,
        struct span name, uint64_t hash)
{
    struct watch_path *path = hub->buckets[hash & (hub->bucket_count - 1)];
    while (path != NULL && (path->hash != hash || path->parent != parent ||
                                   !span_eq(span_of(path->name, path->name_bytes), name))) {
        path = path->next_in_bucket;
    }
    return path;
}

/* Where a walk along a key stands. Zero-initialised is its beginning. */
struct walk {
    size_t at;
    size_t depth;
};

/* Takes the next segment of a key, or the tail; false at the end. Keys are clean: "/" or "/a/b". */
static bool next_segment(struct span key, struct walk *walk, struct span *ret_name)
{
    if (walk->at + 1 >= key.bytes) {
        return false;
    }
    const uint8_t *name = key.data + walk->at + 1;
    size_t bytes = key.bytes - walk->at - 1;
    const uint8_t *slash = ++walk->depth > TREE_DEPTH_MAX ? NULL : memchr(name, '/', bytes);
    if (slash != NULL) {
        bytes = (size_t)(slash - name);
    }
    *ret_name = span_of(name, bytes);
    walk->at += 1 + bytes;
    return true;
}

static struct watch_path *find_path(const struct watch_hub *hub, struct span key)
{
    struct watch_path *path = hub->root;
    struct walk walk = { 0 };
    struct span name;

    while (path != NULL && next_segment(key, &walk, &name)) {
        path = find_child(hub, path, name, hash_segment(hub, path, name));
    }
    return path;
}

static struct watch_path *make_path(struct watch_hub *hub, struct span key)
{
    struct watch_path *path = hub->root;
    struct walk walk = { 0 };
    struct span name;

    while (next_segment(key, &walk, &name)) {
        uint64_t hash = hash_segment(hub, path, name);
        struct watch_path *child = find_child(hub, path, name, hash);
        if (child == NULL) {
            if (hub->path_count >= hub->bucket_count) {
                grow_buckets(hub);
            }
            child = path_new(path, name, hash);
            struct watch_path **bucket = &hub->buckets[hash & (hub->bucket_count - 1)];
            child->next_in_bucket = *bucket;
            *bucket = child;
            hub->path_count++;
        }
        path = child;
    }
    return path;
}

/* Drops one holder; frees the path, and in turn its ancestors, once nobody holds them. */
static void release_path(struct watch_hub *hub, struct watch_path *path)
{
    INVARIANT(path->holders > 0);
    path->holders--;
    while (path->holders == 0 && path->parent != NULL) {
        struct watch_path *parent = path->parent;
        struct watch_path **link = &hub->buckets[path->hash & (hub->bucket_count - 1)];
        while (*link != path) {
            link = &(*link)->next_in_bucket;
        }
        *link = path->next_in_bucket;
        list_remove(&path->sibling);
        free(path);
        hub->path_count--;
        parent->holders--;
        path = parent;
    }
}

struct watch_hub *watch_hub_new(uint64_t index, const uint8_t seed[16])
{
    struct watch_hub *hub = xcalloc(1, sizeof *hub);

    hub->index = index;
    memcpy(hub->seed, seed, sizeof hub->seed);
    hub->bucket_count = HUB_BUCKETS_MIN;
    hub->buckets = xcalloc(hub->bucket_count, sizeof(struct watch_path *));
    hub->root = path_new(NULL, SPAN_NONE, 1);
    return hub;
}

struct watch_hub *watch_hub_free(struct watch_hub *hub)
{
    if (hub != NULL) {
        INVARIANT_EQ(hub->count, 0);
        INVARIANT_EQ(hub->path_count, 0);
        free(hub->root);
        free(hub->buckets);
        free(hub);
    }
    return NULL;
}

uint64_t watch_hub_index(const struct watch_hub *hub)
{
    return hub->index;
}

size_t watch_hub_count(const struct watch_hub *hub)
{
    return hub->count;
}

bool watch_hub_tracks(const struct watch_hub *hub, struct span key)
{
    const struct watch_path *path = find_path(hub, key);
    return path != NULL && path->watchers > 0;
}

void watch_hub_add(struct watch_hub *hub, struct watcher *watcher, struct span key, bool exists)
{
    struct watch_path *path = make_path(hub, key);

    if (path->watchers == 0) {
        path->exists = exists;
    }
    path->watchers++;
    path->holders++;
    watcher->path = path;
    list_init(&watcher->due);
    list_append(watcher->recursive ? &path->recursive : &path->exact, &watcher->link);
    hub->count++;
}

void watch_hub_remove(struct watch_hub *hub, struct watcher *watcher)
{
    struct watch_path *path = watcher->path;

    if (path != NULL) {
        list_remove(&watcher->link);
        list_remove(&watcher->due);
        watcher->path = NULL;
        path->watchers--;
        hub->count--;
        release_path(hub, path);
    }
}

static void collect(struct list *watchers, uint64_t etcd_index, struct list *due)
{
    LIST_FOREACH (watcher, watchers, struct watcher, link) {
        if (etcd_index >= watcher->next_index) {
            list_append(due, &watcher->due);
        }
    }
}

/* All watched paths below `top`, which the event took away with it. Walks by links, not by recursion: a path may
 * be as deep as a key is long. */
static void collect_taken(struct watch_path *top, uint64_t etcd_index, struct list *due)
{
    struct watch_path *path = top;

    for (;;) {
        if (!list_is_empty(&path->children)) {
            path = CONTAINER_OF(path->children.next, struct watch_path, sibling);
        } else {
            while (path != top && path->sibling.next == &path->parent->children) {
                path = path->parent;
            }
            if (path == top) {
                return;
            }
            path = CONTAINER_OF(path->sibling.next, struct watch_path, sibling);
        }
        if (path->exists) {
            path->exists = false;
            collect(&path->exact, etcd_index, due);
            collect(&path->recursive, etcd_index, due);
        }
    }
}

static void collect_recursive(
        struct watch_path *path, const struct event *event, size_t path_bytes, struct list *due)
{
    if (path->watchers > 0) {
        path->exists = true; /* something is, or was until now, below it */
        if (!list_is_empty(&path->recursive) &&
                !watch_is_hidden(event->path, span_of(event->path.data, path_bytes))) {
            collect(&path->recursive, event->etcd_index, due);
        }
    }
}

static void collect_exact(
        struct watch_path *path, const struct event *event, bool removed, struct list *due)
{
    collect(&path->exact, event->etcd_index, due);
    collect(&path->recursive, event->etcd_index, due);
    path->exists = !removed;
}

/* As watch_is_below, of tails, which begin without a slash and are never the root. */
static bool is_under(struct span tail, struct span above)
{
    return tail.bytes > above.bytes && tail.data[above.bytes] == '/' &&
           span_starts_with(tail, above);
}

/* The event's path goes on with `tail` behind the deepest node of the tree: those that watch on it, above it and below it
 * are all among the children there. */
static void collect_tails(struct watch_path *parent, const struct event *event, struct span tail,
        bool removed, struct list *due)
{
    size_t above_bytes = event->path.bytes - tail.bytes;

    LIST_FOREACH (path, &parent->children, struct watch_path, sibling) {
        struct span name = span_of(path->name, path->name_bytes);
        if (span_eq(name, tail)) {
            collect_exact(path, event, removed, due);
        } else if (is_under(tail, name)) {
            collect_recursive(path, event, above_bytes + name.bytes, due);
        } else if (removed && path->exists && watch_took_subtree(event) && is_under(name, tail)) {
            path->exists = false;
            collect(&path->exact, event->etcd_index, due);
            collect(&path->recursive, event->etcd_index, due);
        }
    }
}

/* Walks the event's own path from the root down and then, for a directory that went, below it. */
static void collect_due(struct watch_hub *hub, const struct event *event, struct list *due)
{
    bool removed = event->action == EVENT_DELETE || event->action == EVENT_EXPIRE ||
                   event->action == EVENT_COMPARE_AND_DELETE;
    struct watch_path *path = hub->root;
    struct walk walk = { 0 };
    struct span name;

    while (next_segment(event->path, &walk, &name)) {
        collect_recursive(path, event, (size_t)(name.data - event->path.data) - 1, due);
        if (walk.depth > TREE_DEPTH_MAX) {
            collect_tails(path, event, name, removed, due);
            return;
        }
        path = find_child(hub, path, name, hash_segment(hub, path, name));
        if (path == NULL) {
            return;
        }
    }
    collect_exact(path, event, removed, due);
    if (removed && watch_took_subtree(event)) {
        collect_taken(path, event->etcd_index, due);
    }
}

void watch_hub_publish(
        struct watch_hub *hub, const struct event *event, watch_deliver_fn deliver, void *user)
{
    struct list due;

    if (event->etcd_index <= hub->index) {
        return;
    }
    hub->index = event->etcd_index;
    if (hub->count == 0 || watch_is_untold(event)) {
        return;
    }
    list_init(&due);
    collect_due(hub, event, &due);
    while (!list_is_empty(&due)) {
        struct watcher *watcher = CONTAINER_OF(due.next, struct watcher, due);
        list_remove(&watcher->due);
        if (!watcher->stream) {
            watch_hub_remove(hub, watcher);
        }
        deliver(user, watcher, event);
    }
}

void watch_hub_advance(struct watch_hub *hub, uint64_t index)
{
    hub->index = MAX(hub->index, index);
}

void watch_hub_reset(struct watch_hub *hub, uint64_t index)
{
    INVARIANT_EQ(hub->count, 0);
    hub->index = index;
}

void watch_hub_drain(struct watch_hub *hub, watch_deliver_fn fn, void *user)
{
    /* Down to a leaf, whose watchers go; with the last one the leaf goes too. */
    while (hub->count > 0) {
        struct watch_path *path = hub->root;
        while (!list_is_empty(&path->children)) {
            path = CONTAINER_OF(path->children.next, struct watch_path, sibling);
        }
        struct list *watchers = list_is_empty(&path->exact) ? &path->recursive : &path->exact;
        INVARIANT(!list_is_empty(watchers));
        struct watcher *watcher = CONTAINER_OF(watchers->next, struct watcher, link);
        watch_hub_remove(hub, watcher);
        fn(user, watcher, NULL);
    }
}
