#include "tests/unit/stored/model.h"

#include <stdio.h>
#include <stdlib.h>

static struct model_node *find(struct model *model, const char *path)
{
    for (size_t i = 0; i < model->count; i++) {
        if (strcmp(model->nodes[i].path, path) == 0) {
            return &model->nodes[i];
        }
    }
    return NULL;
}

static bool lies_below(const char *path, const char *dir)
{
    size_t bytes = strlen(dir);
    return strncmp(path, dir, bytes) == 0 && path[bytes] == '/';
}

static void remove_all(struct model *model, const char *path)
{
    char gone[MODEL_PATH_BYTES];
    size_t kept = 0;

    (void)snprintf(gone, sizeof gone, "%s", path); /* path may be of a node that goes */
    for (size_t i = 0; i < model->count; i++) {
        const char *at = model->nodes[i].path;
        if (strcmp(at, gone) != 0 && !lies_below(at, gone)) {
            model->nodes[kept++] = model->nodes[i];
        }
    }
    model->count = kept;
}

static void refuse(struct model *model, unsigned error, const char *cause)
{
    model->error = error;
    (void)snprintf(model->cause, sizeof model->cause, "%s", cause);
}

/* Walks from the root: 0, 100 or 104 with the cause. */
static unsigned walk(struct model *model, const char *path, char cause[MODEL_PATH_BYTES])
{
    for (size_t i = 1; path[1] != '\0' && i <= strlen(path); i++) {
        if (path[i] != '/' && path[i] != '\0') {
            continue;
        }
        (void)snprintf(cause, MODEL_PATH_BYTES, "%.*s", (int)i, path);
        const struct model_node *node = find(model, cause);
        if (node == NULL) {
            return 100;
        }
        if (path[i] == '/' && !node->dir) {
            return 104;
        }
    }
    return 0;
}

static struct model_node *add(struct model *model, const char *path, bool dir, const char *value)
{
    struct model_node *node = &model->nodes[model->count++];
    INVARIANT_LT(model->count, MODEL_NODES_MAX);
    *node = (struct model_node){ .dir = dir };
    (void)snprintf(node->path, sizeof node->path, "%s", path);
    (void)snprintf(node->value, sizeof node->value, "%s", dir ? "" : value);
    node->created = model->etcd_index;
    node->modified = model->etcd_index;
    return node;
}

static void add_with_parents(struct model *model, const char *path, const struct model_op *op,
        const char *value, uint64_t deadline_s)
{
    char parent[MODEL_PATH_BYTES];

    for (size_t i = 1; i < strlen(path); i++) {
        (void)snprintf(parent, sizeof parent, "%.*s", (int)i, path);
        if (path[i] == '/' && find(model, parent) == NULL) {
            (void)add(model, parent, true, "");
        }
    }
    add(model, path, op->dir, value)->deadline_s = deadline_s;
}

static void set(struct model *model, const struct model_op *op, uint64_t deadline_s)
{
    char cause[MODEL_PATH_BYTES];
    char value[MODEL_VALUE_BYTES];
    unsigned error = walk(model, op->path, cause);

    if (error == 104 || (error == 100 && op->refresh)) {
        refuse(model, error, cause);
        return;
    }
    if (strcmp(op->path, "/") == 0) {
        refuse(model, 107, "/");
        return;
    }
    const struct model_node *old = find(model, op->path);
    if (old != NULL && old->dir) {
        refuse(model, 102, op->path);
        return;
    }
    (void)snprintf(value, sizeof value, "%s", op->refresh ? old->value : op->value);
    model->etcd_index++;
    remove_all(model, op->path);
    add_with_parents(model, op->path, op, value, deadline_s);
}

static void create(
        struct model *model, const struct model_op *op, const char *path, uint64_t deadline_s)
{
    char cause[MODEL_PATH_BYTES];
    unsigned error = walk(model, path, cause);

    if (strcmp(path, "/") == 0) {
        refuse(model, 107, "/");
    } else if (error == 104) {
        refuse(model, 104, cause);
    } else if (error == 0) {
        refuse(model, 105, path);
    } else {
        model->etcd_index++;
        add_with_parents(model, path, op, op->value, deadline_s);
    }
}

static bool compare(struct model *model, const struct model_op *op, const struct model_node *node)
{
    char text[128] = "";
    bool value = op->prev_value[0] != '\0' && strcmp(op->prev_value, node->value) != 0;
    bool index = op->prev_index != 0 && op->prev_index != node->modified;

    if (value && index) {
        (void)snprintf(text, sizeof text, "[%s != %s] [%llu != %llu]", op->prev_value, node->value,
                (unsigned long long)op->prev_index, (unsigned long long)node->modified);
    } else if (value) {
        (void)snprintf(text, sizeof text, "[%s != %s]", op->prev_value, node->value);
    } else if (index) {
        (void)snprintf(text, sizeof text, "[%llu != %llu]", (unsigned long long)op->prev_index,
                (unsigned long long)node->modified);
    } else {
        return true;
    }
    refuse(model, 101, text);
    return false;
}

/* The node that update, swap and the deletes need; NULL: refused. */
static struct model_node *target(struct model *model, const struct model_op *op)
{
    char cause[MODEL_PATH_BYTES];

    if (strcmp(op->path, "/") == 0) {
        refuse(model, op->kind == OP_COMPARE_AND_DELETE ? 102 : 107,
                op->kind == OP_COMPARE_AND_DELETE ? "" : "/");
        return NULL;
    }
    unsigned error = walk(model, op->path, cause);
    if (error != 0) {
        refuse(model, error, cause);
        return NULL;
    }
    return find(model, op->path);
}

static void change(struct model *model, const struct model_op *op, uint64_t deadline_s)
{
    struct model_node *node = target(model, op);

    if (node == NULL) {
        return;
    }
    if (op->kind == OP_UPDATE ? node->dir && op->value[0] != '\0' : node->dir) {
        refuse(model, 102, op->path);
        return;
    }
    if (op->kind == OP_COMPARE_AND_SWAP && !compare(model, op, node)) {
        return;
    }
    model->etcd_index++;
    node->deadline_s = deadline_s;
    if (!node->dir) {
        node->modified = model->etcd_index;
        if (!op->refresh) {
            (void)snprintf(node->value, sizeof node->value, "%s", op->value);
        }
    }
}

static void take_away(struct model *model, const struct model_op *op)
{
    struct model_node *node = target(model, op);
    bool has_children = false;

    if (node == NULL) {
        return;
    }
    for (size_t i = 0; i < model->count; i++) {
        has_children |= lies_below(model->nodes[i].path, op->path);
    }
    if (op->kind == OP_COMPARE_AND_DELETE) {
        if (node->dir) {
            refuse(model, 102, op->path);
            return;
        }
        if (!compare(model, op, node)) {
            return;
        }
    } else if (node->dir && !op->dir && !op->recursive) {
        refuse(model, 102, op->path);
        return;
    } else if (node->dir && has_children && !op->recursive) {
        refuse(model, 108, op->path);
        return;
    }
    model->etcd_index++;
    remove_all(model, op->path);
}

static void expire(struct model *model)
{
    for (;;) {
        struct model_node *first = NULL;
        for (size_t i = 0; i < model->count; i++) {
            struct model_node *node = &model->nodes[i];
            bool due = node->deadline_s != 0 && node->deadline_s <= model->time_s;
            if (due && (first == NULL || node->deadline_s < first->deadline_s)) {
                first = node;
            }
        }
        if (first == NULL) {
            return;
        }
        model->etcd_index++;
        remove_all(model, first->path);
    }
}

void model_apply(struct model *model, const struct model_op *op, uint64_t time_s)
{
    char path[MODEL_PATH_BYTES];

    model->time_s = time_s > model->time_s ? time_s : model->time_s;
    model->error = 0;
    model->cause[0] = '\0';
    expire(model);
    uint64_t deadline_s = op->has_ttl ? model->time_s + op->ttl_s : 0;
    switch ((unsigned)op->kind) {
    case OP_SET:
        set(model, op, deadline_s);
        break;
    case OP_CREATE:
        create(model, op, op->path, deadline_s);
        break;
    case OP_CREATE_IN_ORDER:
        (void)snprintf(path, sizeof path, "%s/%020llu", op->path[1] != '\0' ? op->path : "",
                (unsigned long long)model->etcd_index + 1);
        create(model, op, path, deadline_s);
        break;
    case OP_UPDATE:
    case OP_COMPARE_AND_SWAP:
        change(model, op, deadline_s);
        break;
    case OP_DELETE:
    case OP_COMPARE_AND_DELETE:
        take_away(model, op);
        break;
    default:
        break;
    }
}

/* In the order of a walk: a directory's children follow it before its next sibling. */
static int compare_paths(const void *left, const void *right)
{
    const unsigned char *a = (const unsigned char *)((const struct model_node *)left)->path;
    const unsigned char *b = (const unsigned char *)((const struct model_node *)right)->path;

    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    int rank_a = *a == '/' ? 1 : *a == '\0' ? 0 : *a + 2;
    int rank_b = *b == '/' ? 1 : *b == '\0' ? 0 : *b + 2;
    return rank_a - rank_b;
}

void model_tree(struct model *model, struct buf *out)
{
    qsort(model->nodes, model->count, sizeof *model->nodes, compare_paths);
    for (size_t i = 0; i < model->count; i++) {
        const struct model_node *node = &model->nodes[i];
        if (node->dir) {
            buf_appendf(out, "%s dir", node->path);
        } else {
            buf_appendf(out, "%s '%s'", node->path, node->value);
        }
        buf_appendf(out, " m%" PRIu64 " c%" PRIu64 " d%" PRIu64 "\n", node->modified, node->created,
                node->deadline_s * UINT64_C(1000000000));
    }
}
