/* apply.h: the messages of apply.ipc, in the order of a start:
 *
 *   stored -> raftd   hello {cluster_id, member_id, applied_index, applied_term} (ids 0: empty state)
 *   raftd -> stored   state_go, or snapshot_load (answered by apply_done at its index, or snapshot_bad)
 *   raftd -> stored   apply ...      stored -> raftd   apply_done ...
 */
#pragma once

#define PROTO_DEF "proto/apply.def"
#include "proto/define.h"

enum entry_kind {
    ENTRY_EMPTY = 0,  /* a new leader's first */
    ENTRY_OP = 1,
    ENTRY_CONFIG = 2, /* an op of a member kind; raftd reads these, and no others */
};
