/* promises.h: what clang's analyzer cannot know of functions in other files, included before each file that tests/lint
 * checks, and by nothing else. */
#pragma once

#include "common/err.h"
#include "common/state/schema.h"

#define NEGATIVE_(call)                                                                            \
    ({                                                                                             \
        int negative_ = (call);                                                                    \
        if (negative_ >= 0) {                                                                      \
            __builtin_unreachable();                                                               \
        }                                                                                          \
        negative_;                                                                                 \
    })

/* They return the code they were given, and that is negative. */
#define err_set(...)      NEGATIVE_(err_set(__VA_ARGS__))
#define err_errno(...)    NEGATIVE_(err_errno(__VA_ARGS__))
#define err_mend(...)     NEGATIVE_(err_mend(__VA_ARGS__))
#define err_prefix(...)   NEGATIVE_(err_prefix(__VA_ARGS__))
#define schema_error(...) NEGATIVE_(schema_error(__VA_ARGS__))
