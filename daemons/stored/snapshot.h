/* snapshot.h: snapshot files: <dir>/<term>-<index>.snap, 16 hex digits each.
 *
 * The format is in common/snapshot_file.h. Index and term are read from the copy itself. Made as .tmp, synced, renamed; a
 * bad file is renamed .broken and never purged.
 *
 * These calls take as long as the state is large: they run on the worker, not on the loop. */
#pragma once

#include <stdatomic.h>

#include "common/snapshot_file.h"
#include "common/state/state_write.h"

/* Copies the writer's environment as it is now. -ECANCELED: `stop` (NULL: never) became true meanwhile, and nothing is left;
 * what is complete by then is not given its name either. */
int snapshot_make(struct state_writer *writer, const char *dir, const atomic_bool *stop,
        struct snapshot_info *ret_info, struct err *err);

/* Reads the whole file; -EUCLEAN where it is damaged. */
int snapshot_verify(const char *path, struct snapshot_info *ret_info, struct err *err);

/* Verifies the file while it becomes data.mdb in dest_dir (which exists), synced. -EUCLEAN: damaged, and dest_dir holds
 * nothing to be used. */
int snapshot_unpack(
        const char *path, const char *dest_dir, struct snapshot_info *ret_info, struct err *err);

/* The writer's environment, compact, as data.mdb in dest_dir, synced. -ECANCELED: as above; dest_dir holds nothing to be used. */
int snapshot_copy_env(struct state_writer *writer, const char *dest_dir, const atomic_bool *stop,
        struct err *err);

int snapshot_set_broken(const char *path, struct err *err);

/* Keeps the `kept` newest (0: all) and removes older ones, of those not newer than (term, index). Returns how many remain. */
int snapshot_purge(const char *dir, uint64_t kept, uint64_t term, uint64_t index, struct err *err);
/* The newest file by name; -ENOENT. */
int snapshot_newest(const char *dir, struct snapshot_info *ret_info, struct err *err);
/* Removes what an interrupted life left behind: .tmp files. */
void snapshot_sweep(const char *dir);
