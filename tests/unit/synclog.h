/* synclog.h: what this process does to files for durability, in order, as text; and errors in place of it.
 *
 * A test that links synclog.c has the C library's fsync, fdatasync, rename, pwrite, pwritev and writev replaced, LMDB's calls of them
 * included. A line each, files by their last name:
 *
 *   sync NAME
 *   rename FROM TO
 *   write NAME          by pwrite, pwritev or writev; several in a row are one line
 *
 * Any thread. */
#pragma once

#include "common/buf.h"

void synclog_begin(void); /* forgets what was */
/* Ends the record; until the next begin. */
const char *synclog_text(void);

/* From now on each sync of a file whose path contains `part` (ends with it, if that ends with a slash: a folder), or write to it,
 * fails with EIO; NULL: none does. */
void synclog_fail(const char *part);
void synclog_fail_syncs(const char *part); /* the same, but writes are done */
unsigned synclog_failed(void); /* how many did, since then */
