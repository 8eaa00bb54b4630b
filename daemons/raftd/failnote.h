/* failnote.h: a note beside the log that writing or syncing it failed, for the operator and for the next life.
 *
 *   <wal dir>/FAILED     failures 2
 *                        last 2026-11-22T08:00:00Z
 *                        what fdatasync /var/lib/.../0000000000000001-0000000000000000.wal: Input/output error
 *
 * It is removed once a later life has synced the log again; until then each failure is counted on. Best effort: the disk that
 * failed may not take it, and then the last line of raftd's log is all there is. How often and when raftd is started again
 * is not decided here (daemons/quorate/policy.h). */
#pragma once

#include "common/macros.h"

enum {
    FAILNOTE_WHAT_BYTES = 512
};

struct failnote {
    unsigned failures;
    char last[32]; /* UTC */
    char what[FAILNOTE_WHAT_BYTES];
};

/* False: there is none that can be read. */
bool failnote_read(const char *wal_dir, struct failnote *ret_note);
/* Counts on from the one that is there. False: it could not be written. */
bool failnote_leave(const char *wal_dir, uint64_t wall_ns, const char *what);
void failnote_remove(const char *wal_dir);
