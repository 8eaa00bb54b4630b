/* generations.h: the environments under member/state: which one lives, whether it is trusted, and how another takes its place.
 *
 *   <state dir>/CURRENT               16 hex digits and a newline: the live generation
 *   <state dir>/<16 hex digits>/      its environment
 *   <state dir>/MARK                  whether it is trusted (mark.h)
 *
 * A new generation is built beside the live one, by the worker, and is complete and synced before it takes over: CURRENT is
 * replaced, then MARK written, then the old one removed. A crash between any two of these leaves the old state,
 * the new one, or one that is not trusted and rebuilt: never a mixture.
 *
 * All writes to the live state go through here, so that the mark is set before and the word after each. Loop thread
 * only, but for generations_build_* which touch only the new folder. */
#pragma once

#include "daemons/stored/replica.h"

struct generations;

struct generations_config {
    const char *state_dir; /* exists; locked by the caller */
    const char *run_dir;
    const char *shared_dir; /* /dev/shm */
    const char *boot_id;
    const char *sys_dir; /* NULL: /sys */
    size_t map_bytes; /* 0: default */
    struct state_history_limits history;
};

/* Judges what is there and opens it if it is trusted; else it is removed unopened. A live generation may thus be missing
 * (generations_replica NULL). */
int generations_open(const struct generations_config *config, struct generations **ret_generations,
        struct err *err);

/* Syncs the live state and marks it clean; on an error it is left as after a kill. Always NULL, accepts NULL. */
struct generations *generations_close(struct generations *generations);
/* Leaves everything as a kill would. */
struct generations *generations_abandon(struct generations *generations);

struct replica *generations_replica(struct generations *generations); /* NULL: no live state */
uint64_t generations_number(const struct generations *generations);   /* 0: no live state */
/* What was decided at open: static text, for the log; NULL: there was nothing to judge. */
const char *generations_reason(const struct generations *generations);

/* replica_apply and replica_set_ids on the live state. */
int generations_apply(struct generations *generations, const struct apply *batch,
        uint64_t now_boottime_ns, struct replica_result *ret_result, struct err *err);
int generations_set_ids(
        struct generations *generations, uint64_t cluster_id, uint64_t member_id, struct err *err);

/* What the counters of gatewayds that are gone come to (common/counters.h), into the live state. */
int generations_put_counters(struct generations *generations, struct span record, struct err *err);

/* The next generation's number, its folder made and empty. */
int generations_prepare(struct generations *generations, uint64_t *ret_number,
        char ret_dir[STATE_PATH_BYTES_MAX], struct err *err);
/* Fills that folder: with an empty state, or with a snapshot, whose ids become the given ones. Reads wait until complete_at
 * is applied (0: they need not). Worker thread. */
int generations_build_empty(
        const char *dir, size_t map_bytes, uint64_t complete_at, struct err *err);
int generations_build_loaded(const char *dir, size_t map_bytes, const char *snapshot_path,
        uint64_t cluster_id, uint64_t member_id, uint64_t complete_at, struct err *err);
/* Opens what was built, to be brought up to the live state; to be closed before the switch. */
int generations_open_built(struct generations *generations, const char *dir,
        struct replica **ret_replica, struct err *err);
/* The folder becomes the live state; the old one is removed. */
int generations_switch(struct generations *generations, uint64_t number, struct err *err);
/* Gives the prepared folder up. */
void generations_discard(struct generations *generations, uint64_t number);

/* The disk gave an I/O error, but not for the state's file: what was written there and never synced may be gone too. It is
 * used on, and after a kill not trusted; a clean end, which syncs it, is. */
void generations_doubt(struct generations *generations);

/* An I/O error was met: the state must not be trusted again. */
void generations_distrust(struct generations *generations);
