/* sigbus.h: what happens when a page of the mapped state cannot be read: one line with file and offset, the state is
 * distrusted where the process may say so, the process ends with status 3. stored's next life rebuilds the state; a
 * gatewayd's next life has stored do so.
 *
 * A signal handler can be told what to guard through static memory only: one guard a process. */
#pragma once

#include "common/macros.h"

struct sigbus_guarded {
    const char *event; /* begins the line; static */
    const char *file;  /* copied */
    const char *
            mark; /* a file that is removed: it says that the state may be trusted; copied; NULL: none */
    const char *
            note; /* a file with note_number in decimal, for whoever comes after this process; copied; NULL: none */
    uint64_t note_number;
};

/* Before the file is mapped, for LMDB reads pages of it as it opens it: until sigbus_mapped each page that this thread cannot read
 * is taken for one of its. Calls replace one another. */
void sigbus_guard(const struct sigbus_guarded *what);
/* The place where this process has mapped the file is guarded from now on, and no other. False: it is not mapped. */
bool sigbus_mapped(void);
/* The memory is about to go. */
void sigbus_unguard(void);
