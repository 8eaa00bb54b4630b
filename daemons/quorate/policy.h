/* policy.h: what to do about a daemon that ended. Pure: time and the end are handed in.
 *
 * A daemon that served is back at once (100 ms); one that keeps dying waits twice as long each time, up to 5 s. Ten
 * lives in a row that ended early without ever being ready, and we give up. Status 2 is a configuration that no restart
 * mends, status 3 a disk that should be left alone for 30 s, and raftd's own status for "removed" ends the suite. Status 4 is
 * a start on a full disk: it is tried again for as long as it takes somebody to make room. */
#pragma once

#include "daemons/quorate/child.h"

enum policy_verdict {
    POLICY_RESTART, /* at child->restart_at_ms */
    POLICY_GIVE_UP, /* end the suite with *ret_exit_status */
    POLICY_REMOVED, /* end the suite with 0 */
};

enum {
    POLICY_BACKOFF_MS_MIN = 100,
    POLICY_BACKOFF_MS_MAX = 5000,
    POLICY_EARLY_MS = 5000,   /* an unready life shorter than this is a failed start */
    POLICY_SETTLED_MS = 1000, /* a ready life longer than this forgives all */
    POLICY_EARLY_DEATHS_MAX = 10,
    POLICY_STORAGE_WAIT_MS = 30000,
    POLICY_STORAGE_DEATHS_MAX = 3,
    POLICY_NO_SPACE_WAIT_MS = 5000,
};

enum policy_verdict policy_decide(struct child *child, int wait_status, uint64_t now_ms,
        int *ret_exit_status, char *ret_reason, size_t reason_bytes);
