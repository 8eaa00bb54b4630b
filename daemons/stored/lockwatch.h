/* lockwatch.h: notices that a lock of the state is held by somebody who does not let go, and ends the process.
 *
 * The locks lie in a file that gatewayds can write (common/state/lockwait.h). Whoever holds one stalls the loop or the worker
 * inside LMDB, where nothing can be done about it. A thread looks on; after LOCKWATCH_MS without progress it takes the state's
 * MARK away, says so, and exits with status 3. The supervisor starts stored again, which finds a state that is not
 * trusted, removes it unopened, locks and all, and has a fresh generation made of snapshot and log: nothing is lost, since the
 * state is a cache of those.
 *
 * Looks are counted, not time: a process that was stopped, or a host that slept, judges nobody. */
#pragma once

#include "common/err.h"

enum {
    LOCKWATCH_LOOK_MS = 250,
    LOCKWATCH_LOOKS = 12,
    LOCKWATCH_MS = LOCKWATCH_LOOKS * LOCKWATCH_LOOK_MS,
};

struct lockwatch;

/* Before the state is opened: the lock may be held by then. */
int lockwatch_start(
        const char *state_dir, int exit_status, struct lockwatch **ret_watch, struct err *err);
struct lockwatch *lockwatch_stop(struct lockwatch *watch); /* always NULL, accepts NULL */
