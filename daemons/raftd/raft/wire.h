/* wire.h: the core's messages as they travel between members (proto/peer.def). A library of its own: the core itself
 * knows nothing of encodings.
 *
 * What comes from outside is checked here as far as its form goes (-EBADMSG); whether it makes sense, the core judges. */
#pragma once

#include "common/err.h"
#include "daemons/raftd/raft/raft.h"
#include "proto/codec.h"

/* Reasons beyond the core's own are the shells' (changes.c): the core ignores them. */
enum {
    RAFT_WIRE_REASON_MAX = 255
};

/* Reads what a configuration entry does from its data; RAFT_CHANGE_NOTHING if it cannot be read. */
typedef struct raft_change (*raft_wire_change_fn)(struct span data);

/* Memory that is kept from message to message; zero-initialised is valid. */
struct raft_wire {
    struct buf bytes;
    struct span *spans;
    size_t span_capacity;
    struct raft_entry *entries;
    size_t entry_capacity;
    uint64_t *ids;
    size_t id_capacity;
    struct codec_scratch scratch;
    struct codec_scratch entry_scratch;
};

void raft_wire_fini(struct raft_wire *wire);

/* Appends the encoded message. */
void raft_wire_encode(struct raft_wire *wire, const struct raft_message *message, struct buf *out);

/* *ret_message points into input and wire: valid until the next call with this wire. */
int raft_wire_decode(struct raft_wire *wire, struct span input, raft_wire_change_fn read_change,
        struct raft_message *ret_message, struct err *err);
