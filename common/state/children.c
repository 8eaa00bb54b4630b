/* children.c: walks over directories, history and members.
 *
 * Keys sort by name, but for long names: these are filed by 456 bytes of prefix and a hash. All names that share
 * such a prefix lie together, so a run of them is gathered and sorted when its first one is met; the
 * order between runs is right as it is. */
#include "common/state/children.h"

#include <lmdb.h>
#include <stdlib.h>

#include "common/state/schema.h"

struct children {
    MDB_cursor *cursor;
    struct children *next_idle;
    struct state_node *run; /* sorted nodes that share a long prefix */
    size_t run_count;
    size_t run_at;
    size_t run_capacity;
    uint64_t dir_id;
    bool here; /* the cursor stands on the node that comes next */
    bool done;
};

static bool cursor_node(
        struct children *walk, MDB_val *key, MDB_val *value, struct state_node *ret_node)
{
    const uint8_t *data = key->mv_data;

    if (key->mv_size < SCHEMA_ID_BYTES || schema_get_u64_be(data) != walk->dir_id) {
        return false;
    }
    struct span name = span_of(data + SCHEMA_ID_BYTES, key->mv_size - SCHEMA_ID_BYTES);
    return schema_node_decode(name, span_of(value->mv_data, value->mv_size), ret_node);
}

/* The node under the cursor or the one after it, in the order of keys. */
static bool next_by_key(struct children *walk, struct state_node *ret_node)
{
    MDB_val key;
    MDB_val value;

    if (walk->done) {
        return false;
    }
    int code = mdb_cursor_get(walk->cursor, &key, &value, walk->here ? MDB_GET_CURRENT : MDB_NEXT);
    walk->here = false;
    if (code != 0 || !cursor_node(walk, &key, &value, ret_node)) {
        walk->done = true;
        return false;
    }
    return true;
}

static int compare_names(const void *a, const void *b)
{
    const struct state_node *left = a;
    const struct state_node *right = b;
    return span_cmp(left->name, right->name);
}

static void run_append(struct children *walk, const struct state_node *node)
{
    if (walk->run_count == walk->run_capacity) {
        walk->run_capacity = MAX(walk->run_capacity * 2, (size_t)16);
        walk->run = xrealloc(walk->run, walk->run_capacity * sizeof *walk->run);
    }
    walk->run[walk->run_count++] = *node;
}

/* Gathers all nodes that share the long prefix of `first`; the cursor ends on the one behind them. */
static void gather_run(struct children *walk, const struct state_node *first)
{
    struct span prefix = span_of(first->name.data, SCHEMA_LONG_PREFIX_BYTES);
    struct state_node node;

    walk->run_count = 0;
    walk->run_at = 0;
    run_append(walk, first);
    while (next_by_key(walk, &node)) {
        if (!span_starts_with(node.name, prefix)) {
            walk->here = true;
            break;
        }
        run_append(walk, &node);
    }
    qsort(walk->run, walk->run_count, sizeof *walk->run, compare_names);
}

static bool next_by_name(struct children *walk, struct state_node *ret_node)
{
    struct state_node node;

    if (walk->run_at == walk->run_count) {
        walk->run_count = 0;
        walk->run_at = 0;
        if (!next_by_key(walk, &node)) {
            return false;
        }
        if (node.name.bytes < SCHEMA_LONG_PREFIX_BYTES) {
            *ret_node = node;
            return true;
        }
        gather_run(walk, &node);
    }
    *ret_node = walk->run[walk->run_at++];
    return true;
}

static struct children *children_take(struct state_read *read)
{
    struct children *walk = read->idle;

    if (walk != NULL) {
        read->idle = walk->next_idle;
        walk->run_count = 0;
        walk->run_at = 0;
        return walk;
    }
    walk = xcalloc(1, sizeof *walk);
    int code = mdb_cursor_open(read->txn, read->state->dbi[SCHEMA_NODES], &walk->cursor);
    INVARIANT_EQ(code, 0); /* only a finished transaction or no memory could say no */
    return walk;
}

/* Puts the cursor on the first child behind `after`. */
static void children_seek(struct children *walk, struct span after)
{
    struct schema_key seek;
    MDB_val value;

    schema_seek_key(walk->dir_id, after, &seek);
    MDB_val key = { .mv_size = seek.bytes, .mv_data = seek.data };
    walk->here = true;
    walk->done = mdb_cursor_get(walk->cursor, &key, &value, MDB_SET_RANGE) != 0;
    if (walk->done) {
        return;
    }
    if (after.bytes < SCHEMA_LONG_PREFIX_BYTES) {
        /* The node itself, or without `after` the directory's self record, is not wanted. */
        walk->here = !span_eq(span_of(key.mv_data, key.mv_size), span_of(seek.data, seek.bytes));
        return;
    }
    struct state_node node;
    while (next_by_name(walk, &node)) {
        if (span_cmp(node.name, after) > 0) {
            if (walk->run_at > 0) {
                walk->run_at--;
            } else {
                walk->here = true;
            }
            return;
        }
    }
}

void state_children_begin(struct state_read *read, uint64_t dir_id, struct span after,
        struct state_children *ret_iter)
{
    struct children *walk = children_take(read);

    INVARIANT(read->active);
    walk->dir_id = dir_id;
    children_seek(walk, after);
    *ret_iter = (struct state_children){ .read = read, .cursor = walk, .dir_id = dir_id };
}

bool state_children_next(struct state_children *iter, struct state_node *ret_node)
{
    return next_by_name(iter->cursor, ret_node);
}

void state_children_end(struct state_children *iter)
{
    struct children *walk = iter->cursor;

    if (walk != NULL) {
        walk->next_idle = iter->read->idle;
        iter->read->idle = walk;
        iter->cursor = NULL;
    }
}

void children_free_idle(struct state_read *read)
{
    while (read->idle != NULL) {
        struct children *walk = read->idle;
        read->idle = walk->next_idle;
        mdb_cursor_close(walk->cursor);
        free(walk->run);
        free(walk);
    }
}

void state_events_begin(struct state_read *read, uint64_t from, struct state_events *ret_iter)
{
    MDB_cursor *cursor = NULL;

    int code = mdb_cursor_open(read->txn, read->state->dbi[SCHEMA_EVENTS], &cursor);
    INVARIANT_EQ(code, 0);
    *ret_iter = (struct state_events){ .read = read, .cursor = cursor, .next = from };
}

bool state_events_next(struct state_events *iter, uint64_t *ret_etcd_index, struct span *ret_event)
{
    MDB_val key = { .mv_size = sizeof iter->next, .mv_data = &iter->next };
    MDB_val value;

    if (mdb_cursor_get(iter->cursor, &key, &value, MDB_SET_RANGE) != 0) {
        return false;
    }
    memcpy(ret_etcd_index, key.mv_data, sizeof *ret_etcd_index);
    *ret_event = span_of(value.mv_data, value.mv_size);
    iter->next = *ret_etcd_index + 1;
    return true;
}

void state_events_end(struct state_events *iter)
{
    if (iter->cursor != NULL) {
        mdb_cursor_close(iter->cursor);
        iter->cursor = NULL;
    }
}

/* A member's record begins with its flag: removed ids can be passed over without decoding. */
void state_read_members(struct state_read *read, bool removed_too,
        bool (*fn)(void *user, uint64_t id, struct span member), void *user)
{
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;

    int code = mdb_cursor_open(read->txn, read->state->dbi[SCHEMA_MEMBERS], &cursor);
    INVARIANT_EQ(code, 0);
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
        const uint8_t *data = value.mv_data;
        uint64_t id;
        if (value.mv_size == 0 || (data[0] != 0 && !removed_too)) {
            continue;
        }
        memcpy(&id, key.mv_data, sizeof id);
        if (!fn(user, id, span_of(data + 1, value.mv_size - 1))) {
            break;
        }
    }
    mdb_cursor_close(cursor);
}
