/* replica.h: this member's copy of the state: one environment, fed with batches of entries.
 *
 * A batch, or as much of it as one transaction should hold, becomes one write transaction that also records position,
 * clock and the encoded publication. Applying is idempotent by raft index: what is applied already is passed over.
 * After an error the state is as before, and the same batch may be given again. Loop thread only. */
#pragma once

#include "common/state/state_write.h"
#include "proto/apply.h"

enum {
    REPLICA_OUTCOME_BYTES_MAX =
            8 * 1024 * 1024, /* of outcomes in a transaction: then the next begins */
};

struct replica;

struct replica_config {
    const char *dir;  /* of the environment */
    size_t map_bytes; /* 0: default */
    bool create;
    struct state_history_limits history;
    const char *boot_id; /* of the running kernel; copied */
};

int replica_open(
        const struct replica_config *config, struct replica **ret_replica, struct err *err);
struct replica *replica_close(struct replica *replica); /* always NULL, accepts NULL */

struct state_writer *replica_writer(struct replica *replica);
/* As last committed. */
const struct schema_meta *replica_meta(const struct replica *replica);

/* Writes the ids of cluster and member into the state. */
/* Of a state that is being rebuilt: reads are to wait until `index` is applied. */
int replica_set_complete_at(struct replica *replica, uint64_t index, struct err *err);
int replica_set_ids(
        struct replica *replica, uint64_t cluster_id, uint64_t member_id, struct err *err);

struct replica_result {
    bool refused;           /* the batch does not continue the state: nothing was done */
    bool more;              /* give the same batch again: it has more */
    unsigned applied_count; /* entries; 0: all were known */
    uint64_t next_deadline_ns;
    bool has_ttl_keys;
};

/* now_boottime_ns: CLOCK_BOOTTIME, told so that this stays testable. 0, or -EBADMSG (a malformed batch), -ENOSPC, -EIO ... */
int replica_apply(struct replica *replica, const struct apply *batch, uint64_t now_boottime_ns,
        struct replica_result *ret_result, struct err *err);

/* Deadlines as of the last commit, for the first message after a hello. */
int replica_deadline(struct replica *replica, struct replica_result *ret_result, struct err *err);

/* The last publication, encoded (proto/applied.h batch): of this process or of the one before it. Empty: none yet. Lives
 * until the next call on the replica. */
struct span replica_publication(struct replica *replica);
