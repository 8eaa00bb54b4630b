/* sigbus.h: what happens when a page of the mapped state cannot be read: one line with file and offset, the state is
 * distrusted where the process may say so, the process ends with status 3. stored's next life rebuilds the state; a
 * gatewayd's next life has stored do so.
 *
 * A signal handler can be told what to guard through static memory only: one guard a process. */
#pragma once

#include "common/macros.h"

/* From now on the place where this process has mapped the file is guarded; nonce (may be NULL) is set to 0 when it happens.
 * `event` (static) begins the line. Calls replace one another. False: the file is not mapped. */
bool sigbus_guard(const char *event, const char *file, uint64_t *nonce);
/* Until the guard ends: what the handler writes into a file, a number in decimal, for whoever comes after this process.
 * path: from the working directory, static. */
void sigbus_leave_note(const char *path, uint64_t number);
/* The memory is about to go. */
void sigbus_unguard(void);
