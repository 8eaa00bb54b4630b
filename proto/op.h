/* op.h: what can be asked of the state machine. */
#pragma once

#include "proto/limits.h"

#define PROTO_DEF "proto/op.def"
#include "proto/define.h"

/* Numbers are kept in logs and snapshots: forever. */
enum op_kind {
    OP_SYNC = 1,            /* nothing but the entry's time: expiry and trash move on */
    OP_SET = 2,             /* v2-api 3.3; with `refresh` the plain refresh of section 5 */
    OP_CREATE = 3,          /* PUT prevExist=false */
    OP_CREATE_IN_ORDER = 4, /* POST */
    OP_UPDATE = 5,          /* PUT prevExist=true */
    OP_COMPARE_AND_SWAP = 6,
    OP_DELETE = 7,
    OP_COMPARE_AND_DELETE = 8,
    OP_MEMBER_ADD = 9,      /* these three are the payloads of configuration entries */
    OP_MEMBER_UPDATE = 10,
    OP_MEMBER_REMOVE = 11,
    OP_MEMBER_PUBLISH = 12, /* name and client URLs of a member: at every start */
    OP_CLUSTER_VERSION = 13,
    OP_MEMBER_PROMOTE = 14, /* a learner becomes a voter; costs no etcd index */
};
