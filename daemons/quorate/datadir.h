/* datadir.h: whether a start may use the data directory, found out without touching it; then making and locking it.
 *
 * Refusals name the flag and the mend. -EINVAL: the directory is not one for us, and starting again cannot help;
 * another code: the host is in the way (rights, a lock, a disk). */
#pragma once

#include "common/conf.h"

struct datadir {
    bool is_new;          /* there is no log yet: the flags decide what cluster this becomes */
    bool was_missing;     /* the directory itself did not exist */
    bool run_was_missing; /* nor did the run directory */
    int lock_fd;          /* -1: not locked */
};

#define DATADIR_INIT ((struct datadir){ .lock_fd = -1 })

/* Looks only. Warnings go to the conf's notes. */
int datadir_check(struct conf *conf, struct datadir *ret_datadir, struct err *err);

/* Makes what is missing and takes member/LOCK. */
int datadir_open(struct datadir *datadir, const struct conf *conf, struct err *err);

/* Unlocks. Where `undo` is set and nothing but our own was put into a directory that was missing, it goes again; the run directory
 * only if it was missing too. */
void datadir_close(struct datadir *datadir, const struct conf *conf, bool undo);
