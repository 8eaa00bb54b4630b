/* tree.c: the ops on keys: the order of checks, causes and events of the v2 API. */
#include <errno.h>
#include <stdio.h>

#include "daemons/stored/keyspace_internal.h"

static const uint64_t second_ns = UINT64_C(1000000000);

/* Where a path leads. */
struct place {
    struct span path;
    bool root;
    int code;         /* 0: found; -ENOENT; -ENOTDIR */
    size_t bad_bytes; /* of the path: up to the first missing component, or up to the file in its way */
    uint64_t dir_id;        /* the deepest directory reached ... */
    size_t rest_at;         /* ... and where in the path the name below it begins */
    struct state_node node; /* when found */
};

static const struct span root_path = { (const uint8_t *)"/", 1 };

static bool path_is_clean(struct span path)
{
    if (path.bytes == 0 || path.data[0] != '/') {
        return false;
    }
    if (path.bytes > 1 && path.data[path.bytes - 1] == '/') {
        return false;
    }
    return memmem(path.data, path.bytes, "//", 2) == NULL;
}

static struct span place_prefix(const struct place *place)
{
    return span_of(place->path.data, place->bad_bytes);
}

static struct span name_at(struct span path, size_t at)
{
    const uint8_t *slash = memchr(path.data + at, '/', path.bytes - at);
    size_t end = slash != NULL ? (size_t)(slash - path.data) : path.bytes;
    return span_of(path.data + at, end - at);
}

static void remember_parent(
        struct keyspace *keyspace, struct span path, size_t name_at_, uint64_t dir_id)
{
    if (keyspace->parent_path.bytes != name_at_ ||
            memcmp(keyspace->parent_path.data, path.data, name_at_) != 0) {
        buf_clear(&keyspace->parent_path);
        buf_append(&keyspace->parent_path, path.data, name_at_);
    }
    keyspace->parent_id = dir_id;
}

/* Walks down from the root, or from the directory remembered where the path's last slash agrees with it. */
static int walk(struct keyspace *keyspace, struct span path, struct place *ret_place)
{
    struct place place = { .path = path, .dir_id = STATE_ROOT_ID, .rest_at = 1 };
    struct span remembered = buf_span(&keyspace->parent_path);

    if (path.bytes == 1) {
        place.root = true;
        place.node = (struct state_node){ .dir = true, .dir_id = STATE_ROOT_ID };
        *ret_place = place;
        return 0;
    }
    if (remembered.bytes > 0 && span_starts_with(path, remembered) &&
            memchr(path.data + remembered.bytes, '/', path.bytes - remembered.bytes) == NULL) {
        place.dir_id = keyspace->parent_id;
        place.rest_at = remembered.bytes;
    }
    for (;;) {
        struct span name = name_at(path, place.rest_at);
        size_t end = place.rest_at + name.bytes;
        int result = state_write_find(keyspace->writer, place.dir_id, name, &place.node);
        if (result < 0 && result != -ENOENT) {
            return result;
        }
        place.code = result;
        place.bad_bytes = end;
        if (result == -ENOENT) {
            break;
        }
        if (end == path.bytes) {
            if (place.rest_at > 1) {
                remember_parent(keyspace, path, place.rest_at, place.dir_id);
            }
            break;
        }
        if (!place.node.dir) {
            place.code = -ENOTDIR;
            break;
        }
        place.dir_id = place.node.dir_id;
        place.rest_at = end + 1;
    }
    *ret_place = place;
    return 0;
}

/* The error of a walk that did not arrive. */
static int fail_walk(struct keyspace *keyspace, const struct place *place)
{
    return keyspace_fail(keyspace, place->code == -ENOTDIR ? V2_NOT_A_DIRECTORY : V2_KEY_NOT_FOUND,
            place_prefix(place));
}

/* Overflow is permanent: nothing shows a time beyond 2262 truly. */
static uint64_t deadline_of(const struct keyspace *keyspace, const struct op *op)
{
    uint64_t now_ns = keyspace->meta->time_ns;

    if (!HAS(op, op_tag_ttl_s) || now_ns > INT64_MAX ||
            op->ttl_s > ((uint64_t)INT64_MAX - now_ns) / second_ns) {
        return 0;
    }
    return MAX(now_ns + op->ttl_s * second_ns, UINT64_C(1));
}

static struct event event_of(enum event_action action, struct span path, uint64_t created_index)
{
    return (struct event){ .action = action, .path = path, .created_index = created_index };
}

static void event_set_dir(struct event *event)
{
    event->dir = true;
    SET(event, event_tag_dir);
}

static void event_set_value(struct event *event, struct span value)
{
    event->value = value;
    SET(event, event_tag_value);
}

static void event_set_deadline(struct event *event, uint64_t deadline_ns)
{
    if (deadline_ns != 0) {
        event->deadline_ns = deadline_ns;
        SET(event, event_tag_deadline_ns);
    }
}

static void event_set_silent(struct event *event, bool silent)
{
    if (silent) {
        event->silent = true;
        SET(event, event_tag_silent);
    }
}

static void event_set_prev(struct event *event, const struct state_node *node)
{
    event->prev = true;
    SET(event, event_tag_prev);
    if (node->dir) {
        event->prev_dir = true;
        SET(event, event_tag_prev_dir);
    } else {
        event->prev_value = node->value;
        SET(event, event_tag_prev_value);
    }
    event->prev_created_index = node->created_index;
    SET(event, event_tag_prev_created_index);
    event->prev_modified_index = node->modified_index;
    SET(event, event_tag_prev_modified_index);
    if (node->deadline_ns != 0) {
        event->prev_deadline_ns = node->deadline_ns;
        SET(event, event_tag_prev_deadline_ns);
    }
}

/* Creates the directories that are missing above the path's last name; *place moves down. */
static int add_parents(struct keyspace *keyspace, struct place *place, uint64_t index)
{
    for (;;) {
        struct span name = name_at(place->path, place->rest_at);
        if (place->rest_at + name.bytes == place->path.bytes) {
            return 0;
        }
        struct state_node dir = { .name = name, .created_index = index, .modified_index = index };
        TRY(state_write_dir_add(keyspace->writer, place->dir_id, &dir));
        place->dir_id = dir.dir_id;
        place->rest_at += name.bytes + 1;
    }
}

/* Makes a new node at the place, in place of the file there if one was found. */
static int put_new(struct keyspace *keyspace, struct place *place, bool dir, struct span value,
        uint64_t deadline_ns)
{
    uint64_t index = keyspace->meta->etcd_index;
    uint64_t old_deadline_ns = place->code == 0 ? place->node.deadline_ns : 0;

    if (place->code == -ENOENT) {
        TRY(add_parents(keyspace, place, index));
        if (place->rest_at > 1) {
            remember_parent(keyspace, place->path, place->rest_at, place->dir_id);
        }
    }
    struct state_node node = {
        .name = name_at(place->path, place->rest_at),
        .created_index = index,
        .modified_index = index,
        .deadline_ns = deadline_ns,
    };
    if (!dir) {
        node.value = value;
        return state_write_put(keyspace->writer, place->dir_id, &node, old_deadline_ns);
    }
    if (place->code == 0) {
        TRY(state_write_remove(keyspace->writer, place->dir_id, &place->node));
    }
    return state_write_dir_add(keyspace->writer, place->dir_id, &node);
}

/* The value that a refresh keeps, out of the record's reach. */
static struct span keep_value(struct keyspace *keyspace, const struct state_node *node)
{
    buf_clear(&keyspace->value);
    buf_append_span(&keyspace->value, node->value);
    return buf_span(&keyspace->value);
}

static int apply_set(struct keyspace *keyspace, const struct op *op)
{
    struct place place;
    struct span value = op->value;

    TRY(walk(keyspace, op->path, &place));
    if (place.code == -ENOTDIR || (op->refresh && place.code == -ENOENT)) {
        return fail_walk(keyspace, &place);
    }
    if (place.root) {
        return keyspace_fail(keyspace, V2_ROOT_READ_ONLY, root_path);
    }
    if (place.code == 0 && place.node.dir) {
        return keyspace_fail(keyspace, V2_NOT_A_FILE, op->path);
    }
    if (op->refresh) {
        value = keep_value(keyspace, &place.node);
    }
    uint64_t deadline_ns = deadline_of(keyspace, op);
    struct event event = event_of(EVENT_SET, op->path, keyspace->meta->etcd_index + 1);
    if (op->dir) {
        event_set_dir(&event);
    } else {
        event_set_value(&event, value);
    }
    event_set_deadline(&event, deadline_ns);
    event_set_silent(&event, op->refresh);
    if (place.code == 0) {
        event_set_prev(&event, &place.node);
    }
    TRY(keyspace_event(keyspace, &event));
    return put_new(keyspace, &place, op->dir, value, deadline_ns);
}

static int create_at(struct keyspace *keyspace, const struct op *op, struct span path)
{
    struct place place;

    TRY(walk(keyspace, path, &place));
    if (place.root) {
        return keyspace_fail(keyspace, V2_ROOT_READ_ONLY, root_path);
    }
    if (place.code == -ENOTDIR) {
        return fail_walk(keyspace, &place);
    }
    if (place.code == 0) {
        return keyspace_fail(keyspace, V2_KEY_EXISTS, path);
    }
    uint64_t deadline_ns = deadline_of(keyspace, op);
    struct event event = event_of(EVENT_CREATE, path, keyspace->meta->etcd_index + 1);
    if (op->dir) {
        event_set_dir(&event);
    } else {
        event_set_value(&event, op->value);
    }
    event_set_deadline(&event, deadline_ns);
    TRY(keyspace_event(keyspace, &event));
    return put_new(keyspace, &place, op->dir, op->value, deadline_ns);
}

/* The name is the index that the op will have if it works. */
static int apply_create_in_order(struct keyspace *keyspace, const struct op *op)
{
    char name[32];

    (void)snprintf(name, sizeof name, "/%020" PRIu64, keyspace->meta->etcd_index + 1);
    buf_clear(&keyspace->path);
    if (op->path.bytes > 1) {
        buf_append_span(&keyspace->path, op->path);
    }
    buf_append_str(&keyspace->path, name);
    return create_at(keyspace, op, buf_span(&keyspace->path));
}

/* The change that update and compareAndSwap end in; a directory keeps the modified index it has. */
static int replace(struct keyspace *keyspace, const struct op *op, struct place *place,
        enum event_action action)
{
    struct state_node *node = &place->node;
    uint64_t old_deadline_ns = node->deadline_ns;
    uint64_t deadline_ns = deadline_of(keyspace, op);
    struct span value = op->value;

    if (op->refresh && !node->dir) {
        value = keep_value(keyspace, node);
    }
    struct event event = event_of(action, op->path, node->created_index);
    if (node->dir) {
        event_set_dir(&event);
    } else {
        event_set_value(&event, value);
    }
    event_set_deadline(&event, deadline_ns);
    event_set_silent(&event, op->refresh);
    event_set_prev(&event, node);
    TRY(keyspace_event(keyspace, &event));

    node->name = name_at(place->path, place->rest_at);
    node->deadline_ns = deadline_ns;
    node->value = SPAN_NONE;
    if (!node->dir) {
        node->modified_index = keyspace->meta->etcd_index;
        node->value = value;
    }
    return state_write_put(keyspace->writer, place->dir_id, node, old_deadline_ns);
}

static int apply_update(struct keyspace *keyspace, const struct op *op)
{
    struct place place;

    TRY(walk(keyspace, op->path, &place));
    if (place.root) {
        return keyspace_fail(keyspace, V2_ROOT_READ_ONLY, root_path);
    }
    if (place.code < 0) {
        return fail_walk(keyspace, &place);
    }
    if (place.node.dir && op->value.bytes > 0) {
        return keyspace_fail(keyspace, V2_NOT_A_FILE, op->path);
    }
    return replace(keyspace, op, &place, EVENT_UPDATE);
}

/* True if all that was given agrees; else the cause is set, without the part that agreed. */
static bool compare(struct keyspace *keyspace, const struct op *op, const struct state_node *node)
{
    bool value_differs = op->prev_value.bytes > 0 && !span_eq(op->prev_value, node->value);
    bool index_differs = op->prev_index != 0 && op->prev_index != node->modified_index;

    if (!value_differs && !index_differs) {
        return true;
    }
    (void)keyspace_fail(keyspace, V2_COMPARE_FAILED, SPAN_NONE);
    if (value_differs) {
        buf_append_byte(&keyspace->cause, '[');
        buf_append_span(&keyspace->cause, op->prev_value);
        buf_append_str(&keyspace->cause, " != ");
        buf_append_span(&keyspace->cause, node->value);
        buf_append_byte(&keyspace->cause, ']');
    }
    if (index_differs) {
        buf_appendf(&keyspace->cause, "%s[%" PRIu64 " != %" PRIu64 "]", value_differs ? " " : "",
                op->prev_index, node->modified_index);
    }
    return false;
}

static int apply_compare_and_swap(struct keyspace *keyspace, const struct op *op)
{
    struct place place;

    TRY(walk(keyspace, op->path, &place));
    if (place.root) {
        return keyspace_fail(keyspace, V2_ROOT_READ_ONLY, root_path);
    }
    if (place.code < 0) {
        return fail_walk(keyspace, &place);
    }
    if (place.node.dir) {
        return keyspace_fail(keyspace, V2_NOT_A_FILE, op->path);
    }
    if (!compare(keyspace, op, &place.node)) {
        return 0;
    }
    return replace(keyspace, op, &place, EVENT_COMPARE_AND_SWAP);
}

/* Takes a node away, with one event however much lies below it. */
static int unlink_node(struct keyspace *keyspace, uint64_t dir_id, struct span path,
        const struct state_node *node, enum event_action action)
{
    struct event event = event_of(action, path, node->created_index);
    struct state_node gone = *node;

    if (node->dir) {
        event_set_dir(&event);
        keyspace_forget(keyspace); /* it may be, or lie above, the directory remembered */
    }
    event_set_prev(&event, node);
    TRY(keyspace_event(keyspace, &event));
    gone.name = path; /* of the path's own bytes: the record's page may have moved */
    for (size_t at = path.bytes; at > 0; at--) {
        if (path.data[at - 1] == '/') {
            gone.name = span_from(path, at);
            break;
        }
    }
    return state_write_remove(keyspace->writer, dir_id, &gone);
}

static int apply_delete(struct keyspace *keyspace, const struct op *op)
{
    struct place place;

    TRY(walk(keyspace, op->path, &place));
    if (place.root) {
        return keyspace_fail(keyspace, V2_ROOT_READ_ONLY, root_path);
    }
    if (place.code < 0) {
        return fail_walk(keyspace, &place);
    }
    if (place.node.dir && !op->recursive) {
        if (!op->dir) {
            return keyspace_fail(keyspace, V2_NOT_A_FILE, op->path);
        }
        int has_children = state_write_has_children(keyspace->writer, place.node.dir_id);
        TRY(has_children);
        if (has_children > 0) {
            return keyspace_fail(keyspace, V2_DIR_NOT_EMPTY, op->path);
        }
    }
    return unlink_node(keyspace, place.dir_id, op->path, &place.node, EVENT_DELETE);
}

static int apply_compare_and_delete(struct keyspace *keyspace, const struct op *op)
{
    struct place place;

    TRY(walk(keyspace, op->path, &place));
    if (place.code < 0) {
        return fail_walk(keyspace, &place);
    }
    if (place.node.dir) {
        return keyspace_fail(keyspace, V2_NOT_A_FILE, place.root ? SPAN_NONE : op->path);
    }
    if (!compare(keyspace, op, &place.node)) {
        return 0;
    }
    return unlink_node(keyspace, place.dir_id, op->path, &place.node, EVENT_COMPARE_AND_DELETE);
}

int tree_apply(struct keyspace *keyspace, const struct op *op)
{
    if (!path_is_clean(op->path)) {
        return keyspace_fail(keyspace, V2_INTERNAL, SPAN_LIT("malformed path"));
    }
    switch (op->kind) {
    case OP_SET:
        return apply_set(keyspace, op);
    case OP_CREATE:
        return create_at(keyspace, op, op->path);
    case OP_CREATE_IN_ORDER:
        return apply_create_in_order(keyspace, op);
    case OP_UPDATE:
        return apply_update(keyspace, op);
    case OP_COMPARE_AND_SWAP:
        return apply_compare_and_swap(keyspace, op);
    case OP_DELETE:
        return apply_delete(keyspace, op);
    case OP_COMPARE_AND_DELETE:
        return apply_compare_and_delete(keyspace, op);
    default:
        return keyspace_fail(keyspace, V2_INTERNAL, SPAN_LIT("unknown operation"));
    }
}

int tree_expire(struct keyspace *keyspace, unsigned keys_max)
{
    size_t event_bytes = 0;

    for (unsigned i = 0; i < keys_max && event_bytes < KEYSPACE_EXPIRY_BYTES_MAX; i++) {
        struct state_node node;
        uint64_t dir_id;
        int due = state_write_expiry_due(keyspace->writer, keyspace->meta->time_ns, &dir_id, &node);
        TRY(due);
        if (due == 0) {
            break;
        }
        buf_clear(&keyspace->path);
        int result = node.created_index == 0 ? -ENOENT
                                             : state_write_path(keyspace->writer, dir_id, node.name,
                                                       &keyspace->path);
        if (result == -ENOENT) {
            TRY(state_write_expiry_drop(keyspace->writer)); /* went with a directory above it */
            continue;
        }
        TRY(result);
        TRY(unlink_node(keyspace, dir_id, buf_span(&keyspace->path), &node, EVENT_EXPIRE));
        event_bytes += keyspace->event.bytes;
        keyspace_publish_event(keyspace);
    }
    return 0;
}
