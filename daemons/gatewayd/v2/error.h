/* error.h: the v2 API's errors: code, message, HTTP status (docs/api.md, "Errors"). Pure. */
#pragma once

#include "common/buf.h"

enum {
    V2_UNAUTHORIZED = 110,
    V2_PREV_VALUE_REQUIRED = 201,
    V2_TTL_NOT_A_NUMBER = 202,
    V2_INDEX_NOT_A_NUMBER = 203,
    V2_INVALID_FIELD = 209,
    V2_INVALID_FORM = 210,
    V2_REFRESH_VALUE = 211,
    V2_REFRESH_TTL_REQUIRED = 212,
    V2_RAFT_INTERNAL = 300,
    V2_EVENT_INDEX_CLEARED = 401,
};

struct api_error {
    unsigned code;
    uint64_t index;    /* store index at that moment; 0: decided before the store was asked */
    struct span cause; /* left out when empty */
};

unsigned api_error_status(unsigned code);
const char *api_error_message(unsigned code);

/* {"errorCode":100,"message":"Key not found","cause":"/x","index":7} and a newline. */
void api_error_append(struct buf *out, const struct api_error *error);
