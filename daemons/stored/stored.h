/* stored.h: the daemon that keeps the state: fed by raftd, read by gatewayds through LMDB, told to them by batches.
 *
 *   apply/apply.ipc     dials raftd: entries in, positions and snapshots out
 *   applied.ipc         gatewayds subscribe: batches, beacons, generations out
 *   stored-status.ipc   status out
 *
 * One loop thread owns everything; one worker at a time makes or loads a snapshot. The process may be killed on any line. */
#pragma once

#include "common/err.h"

struct loop;
struct stored;

struct stored_config {
    const char *data_dir;
    const char *run_dir;    /* entered: sockets have short relative names */
    const char *shared_dir; /* tmpfs to fall back on: /dev/shm */
    uint64_t snapshot_count;
    uint64_t max_snapshots; /* 0: all are kept */
    uint64_t event_history;
    size_t map_bytes;           /* 0: default */
    const uint64_t *peer_uids;  /* users whose processes may connect; borrowed */
    size_t peer_uid_count;      /* 0: any */
    uint64_t compact_bytes_min; /* smaller states are never compacted; 0: 64 MiB */
};

/* Locks and judges the state, opens what is trusted, makes folders that are missing. No socket yet. */
int stored_new(const struct stored_config *config, struct stored **ret_stored, struct err *err);
/* Opens the sockets on the loop, which the caller keeps until after stored_free. */
int stored_start(struct stored *stored, struct loop *loop, struct err *err);
/* Syncs the state and marks it clean. Always NULL, accepts NULL. */
struct stored *stored_free(struct stored *stored);

/* What made the loop stop: 0 nothing, else the exit status. */
int stored_exit_status(const struct stored *stored);
