/* keyspace.h: the state machine: what one entry does to the tree, the members and the history.
 *
 * Deterministic: the same entries in the same order give the same state and the same outcomes on every member, however they
 * are cut into batches. Time is the entry's, nothing else is asked for; all work of an entry is bounded:
 *
 *   1 the entry's time expires due keys    a sync entry at most 1,000, others at most 16
 *   2 the op is applied                    docs/api.md has the rules
 *   3 unlinked subtrees are freed          a sync entry at most 1,000 nodes, others at most 32
 *
 * Each event costs one etcd index, is encoded once, and goes into the history and into an outcome. An op that nobody
 * could have sent (a path that is not clean, an unknown kind) changes nothing and has error 300 as its outcome: the
 * log must stay applicable whatever was proposed. */
#pragma once

#include "common/state/state_write.h"
#include "daemons/stored/publication.h"
#include "proto/op.h"

enum {
    KEYSPACE_SYNC_EXPIRY_MAX = 1000,
    KEYSPACE_EXPIRY_MAX = 16,
    KEYSPACE_EXPIRY_BYTES_MAX =
            4 * 1024 * 1024, /* of events: large values expire a few at a time */
    KEYSPACE_SYNC_TRASH_MAX = 1000,
    KEYSPACE_TRASH_MAX = 32,
    V2_INTERNAL = 300,
};

struct keyspace;

/* limits of the history; borrowed for good. */
struct keyspace *keyspace_new(const struct state_history_limits *limits);
struct keyspace *keyspace_free(struct keyspace *keyspace); /* always NULL, accepts NULL */

/* What was remembered of the last transaction is void: after an abort, or with another writer. */
void keyspace_forget(struct keyspace *keyspace);

/* Applies one entry inside the writer's transaction and adds its outcomes. op NULL: an empty entry. A negative result is
 * the state's, never the op's: abort. */
int keyspace_apply(struct keyspace *keyspace, struct state_writer *writer, uint64_t raft_index,
        uint64_t raft_term, uint64_t time_ns, const struct op *op, struct publication *publication);

/* When a sync entry is due, as cluster time; 0: none. Inside a transaction. */
int keyspace_next_deadline(
        struct state_writer *writer, uint64_t *ret_deadline_ns, bool *ret_has_ttl_keys);
