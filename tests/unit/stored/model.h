/* model.h: the keys API once more, as plainly as it can be said: a flat array of nodes with whole paths.
 *
 * It shares no code with the state machine and knows nothing of tables, ids or trash. Subtrees go at once. */
#pragma once

#include "common/buf.h"
#include "proto/op.h"

enum {
    MODEL_PATH_BYTES = 64,
    MODEL_VALUE_BYTES = 16,
    MODEL_NODES_MAX = 4096
};

struct model_node {
    char path[MODEL_PATH_BYTES];
    char value[MODEL_VALUE_BYTES];
    bool dir;
    uint64_t created;
    uint64_t modified;
    uint64_t deadline_s; /* 0: permanent */
};

struct model {
    struct model_node nodes[MODEL_NODES_MAX];
    size_t count;
    uint64_t etcd_index;
    uint64_t time_s;
    unsigned error; /* of the last op */
    char cause[128];
};

/* What is asked, in the model's own terms. */
struct model_op {
    enum op_kind kind;
    const char *path;
    const char *value;
    bool dir;
    bool recursive;
    bool refresh;
    bool has_ttl;
    uint64_t ttl_s;
    const char *prev_value; /* "": not given */
    uint64_t prev_index;
};

void model_apply(struct model *model, const struct model_op *op, uint64_t time_s);
/* As machine_tree prints it. */
void model_tree(struct model *model, struct buf *out);
