/* keys.h: what a /v2/keys request asks for: a read, a watch, or an op for the log (docs/api.md, "Dispatch"). Pure. */
#pragma once

#include "daemons/gatewayd/v2/form.h"

struct op;

enum keys_kind {
    KEYS_READ,        /* from the local state */
    KEYS_QUORUM_READ, /* the same, once the state is known to be recent enough */
    KEYS_WATCH,
    KEYS_WRITE,
};

enum keys_kind keys_dispatch(enum http_method method, const struct form *form);

/* Fills the op but for its request id. Spans are borrowed from form and key. */
void keys_make_op(
        enum http_method method, const struct form *form, struct span key, struct op *ret_op);
