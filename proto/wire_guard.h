/* wire_guard.h: what stands between a pipe's messages and its stream: TLS, or a seal. Bytes of the stream go in, bytes of
 * messages come out, and back; whoever opens the wire brings it (daemons/raftd/peer/security.h).
 *
 * Loop thread only. What is sent before the guard is ready waits in the pipe. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct wire_guard;

struct wire_guard_ops {
    /* Takes bytes of the stream (first none: who dials may have to begin), appends what they open to to `plain`, and to
     * `out` what is to be sent, also when it fails. -ECONNRESET: an orderly end; other errors: nothing of this
     * connection is to be trusted, the err says why and how to mend it. */
    int (*receive)(struct wire_guard *guard, struct span bytes, struct buf *plain, struct buf *out,
            struct err *err);
    bool (*is_ready)(struct wire_guard *guard);
    int (*send)(struct wire_guard *guard, struct span plain, struct buf *out, struct err *err);
    struct wire_guard *(*free)(struct wire_guard *guard); /* always NULL */
};

struct wire_guard {
    const struct wire_guard_ops *ops;
};

enum {
    WIRE_HOST_BYTES = 256
};

/* Copied by the wire. */
struct wire_guard_source {
    struct wire_guard *(*make)(
            const struct wire_guard_source *source, bool listens); /* loop thread */
    void *user;                                                    /* outlives the wire */
    char host[WIRE_HOST_BYTES]; /* that is dialled, as its URL names it */
};
