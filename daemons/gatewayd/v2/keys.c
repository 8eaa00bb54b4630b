#include "daemons/gatewayd/v2/keys.h"

#include "proto/op.h"

enum keys_kind keys_dispatch(enum http_method method, const struct form *form)
{
    if (method == HTTP_HEAD) {
        return KEYS_READ;
    }
    if (method != HTTP_GET) {
        return KEYS_WRITE;
    }
    if (form->quorum) {
        return KEYS_QUORUM_READ; /* and `wait` is ignored */
    }
    return form->wait ? KEYS_WATCH : KEYS_READ;
}

static bool is_compared(const struct form *form)
{
    return form->has_prev_value || form->prev_index > 0;
}

static enum op_kind put_kind(const struct form *form)
{
    if (form->has_prev_exist && !form->prev_exist) {
        return OP_CREATE;
    }
    if (is_compared(form)) {
        return OP_COMPARE_AND_SWAP;
    }
    return form->has_prev_exist ? OP_UPDATE : OP_SET;
}

static void set_compare(const struct form *form, struct op *op)
{
    if (form->has_prev_value) {
        op->prev_value = form->prev_value;
        SET(op, op_tag_prev_value);
    }
    if (form->prev_index > 0) {
        op->prev_index = form->prev_index;
        SET(op, op_tag_prev_index);
    }
}

static void make_delete(const struct form *form, struct op *op)
{
    if (is_compared(form)) {
        op->kind = OP_COMPARE_AND_DELETE;
        set_compare(form, op);
        return;
    }
    op->kind = OP_DELETE;
    op->dir = form->dir || form->recursive;
    op->recursive = form->recursive;
    SET(op, op_tag_dir);
    SET(op, op_tag_recursive);
}

void keys_make_op(
        enum http_method method, const struct form *form, struct span key, struct op *ret_op)
{
    struct op op = { .path = key };

    SET(&op, op_tag_path);
    if (method == HTTP_DELETE) {
        make_delete(form, &op);
        *ret_op = op;
        return;
    }
    op.kind = method == HTTP_POST ? OP_CREATE_IN_ORDER : put_kind(form);
    if (form->value.bytes > 0) {
        op.value = form->value;
        SET(&op, op_tag_value);
    }
    if (form->dir) {
        op.dir = true;
        SET(&op, op_tag_dir);
    }
    if (form->has_ttl) {
        op.ttl_s = form->ttl_s;
        SET(&op, op_tag_ttl_s);
    }
    if (op.kind == OP_COMPARE_AND_SWAP) {
        set_compare(form, &op);
    }
    /* A create makes its node anew: there is nothing to refresh, and its event is told. */
    if (form->refresh && op.kind != OP_CREATE && op.kind != OP_CREATE_IN_ORDER) {
        op.refresh = true;
        SET(&op, op_tag_refresh);
    }
    *ret_op = op;
}
