/* lockwait.h: who waits for a lock of the environment.
 *
 * LMDB's locks lie in lock.mdb, which every reader must be able to write: a hostile or broken one can hold them for ever, and
 * LMDB has no call that gives up. So each call that may wait stands between begin and end here, and another thread can see that
 * one does not come back (daemons/stored/lockwatch.h). Any thread. */
#pragma once

#include "common/macros.h"

void lockwait_begin(void);
void lockwait_end(void);

/* Whether somebody is between begin and end; *ret_ended counts the ends: while it stands still, nobody came back. */
bool lockwait_look(uint64_t *ret_ended);
