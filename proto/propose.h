/* propose.h: the messages of raftd.ipc. */
#pragma once

#define PROTO_DEF "proto/propose.def"
#include "proto/define.h"

enum refusal {
    REFUSAL_NO_SPACE = 1,
    REFUSAL_STOPPING = 2,
    REFUSAL_BAD_OP = 3,
    REFUSAL_OVERLOADED = 4,
};

/* What a client is told whose write finds no more room, at whichever daemon. */
#define REFUSAL_TOO_MANY_TEXT                                                                      \
    "etcdserver: too many requests; more writes are under way than this member can take in, "      \
    "send this one again later"

enum raft_state_role {
    RAFT_STATE_FOLLOWER = 0,
    RAFT_STATE_PRE_CANDIDATE = 1,
    RAFT_STATE_CANDIDATE = 2,
    RAFT_STATE_LEADER = 3,
};
