/* outcome.h: events, the outcomes of entries, and members, as they travel and are kept. */
#pragma once

#include "proto/limits.h"

#define PROTO_DEF "proto/outcome.def"
#include "proto/define.h"

/* Numbers are kept in the history table: forever. */
enum event_action {
    EVENT_SET = 1,
    EVENT_CREATE = 2,
    EVENT_UPDATE = 3,
    EVENT_COMPARE_AND_SWAP = 4,
    EVENT_DELETE = 5,
    EVENT_COMPARE_AND_DELETE = 6,
    EVENT_EXPIRE = 7,
    EVENT_ACTION_COUNT,
};

/* The error codes of v2-api section 8 that the state machine itself gives. */
enum v2_error {
    V2_KEY_NOT_FOUND = 100,
    V2_COMPARE_FAILED = 101,
    V2_NOT_A_FILE = 102,
    V2_NOT_A_DIRECTORY = 104,
    V2_KEY_EXISTS = 105,
    V2_ROOT_READ_ONLY = 107,
    V2_DIR_NOT_EMPTY = 108,
};
