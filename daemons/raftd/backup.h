/* backup.h: a copy of a member's data that a new cluster can be begun with: its newest whole snapshot and the log
 * behind it, without the member's and the cluster's ids. The member may run meanwhile: what it had acknowledged when
 * the copy was begun is in it. Started with -force-new-cluster the copy becomes the one member of a new cluster;
 * without, raftd refuses it.
 *
 *    <backup-dir>/member/snap/<term>-<index>.snap   absent where the log goes back to the beginning
 *    <backup-dir>/member/wal/                       or <backup-wal-dir>: appears last, under its name only once all is synced
 *
 * Nothing of the source is changed, not even where it is found to be damaged. Blocks; any thread. */
#pragma once

#include "common/err.h"

struct backup_config {
    const char *data_dir;
    const char *wal_dir;
    const char *backup_dir;     /* empty or not there, as the next */
    const char *backup_wal_dir; /* "": <backup_dir>/member/wal */
};

struct backup_report {
    uint64_t snapshot_index; /* 0: the log goes back to the beginning */
    uint64_t snapshot_term;
    uint64_t last_index; /* of the log */
    uint64_t last_term;
    uint64_t bytes; /* of snapshot and entries */
};

/* 0: all of it is on disk. -ENOENT: no data there; -EEXIST: the target is not empty; -EBADMSG, -EUCLEAN: the source is
 * damaged, err says where. After an error nothing is left of the target. */
int backup_make(
        const struct backup_config *config, struct backup_report *ret_report, struct err *err);
