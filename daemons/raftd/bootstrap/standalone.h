/* standalone.h: -force-new-cluster: makes the member of a log the only one of a cluster that keeps its data.
 *
 * The log goes on with entries that remove every other member, taken as committed, in a term of their own; of a backup,
 * which is nobody's, first an identity of its own and its registration. All of it is one write: a crash leaves the
 * log as it was or done, and doing it again changes nothing.
 *
 * Nothing is cut. What the log's commit mark covers lags behind what was acknowledged by a write or two, so an
 * entry behind it may be a client's; one that was never acknowledged is a write whose outcome nobody knew. */
#pragma once

#include "daemons/raftd/storage.h"

struct loop;
struct security;

/* What is to be added to a log. */
struct standalone_plan {
    struct raft_hard_state hard;
    uint64_t cluster_id; /* the log's own, or the new one of what was a backup */
    uint64_t self_id;
    struct raft_entry *entries; /* none: it is the only member already */
    struct buf *ops;            /* their payloads */
    size_t entry_count;
};

/* Pure. roles: at the log's end; fresh_id: the id that a backup gets; wall_ns: the time that the entries are stamped
 * with, where the log's is not later. -EINVAL: this log's member cannot go on alone; err says why, and the mend. */
int standalone_make_plan(const struct storage_recovered *recovered,
        const struct raft_members *roles, uint64_t fresh_id, uint64_t wall_ns,
        struct standalone_plan *ret_plan, struct err *err);
void standalone_plan_fini(struct standalone_plan *plan);

/* Makes the plan for an opened storage, sees that no other member runs (not for a backup: it is of another cluster), and
 * opens it for appending with the plan in it; recovered is brought in line. */
int standalone_open(struct loop *loop, struct security *security, struct storage *storage,
        struct storage_recovered *recovered, struct err *err);
