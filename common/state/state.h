/* state.h: the replicated state on LMDB: schema, and the view that readers have of it.
 *
 * One environment a generation, member/state/<generation>/. Tables and keys as docs/architecture.md draws them. Only stored
 * writes (state_write.h); any number of processes read. All paths are "/" or "/a/b": clean, no trailing slash.
 *
 * A struct state_read is one read transaction that is begun and ended once a turn: everything it hands out (spans
 * too) lives until state_read_end. None may stay open over a turn of the loop. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct state;
struct state_read;

enum {
    STATE_ROOT_ID = 1,
    STATE_NAME_KEY_BYTES_MAX = 487, /* a longer name is stored under prefix + BLAKE2b, whole in the value */
    STATE_PATH_BYTES_MAX = 4096,
};

struct state_meta {
    uint64_t generation;
    uint64_t cluster_id;
    uint64_t member_id;
    uint64_t applied_index;
    uint64_t applied_term;
    uint64_t etcd_index;
    uint64_t time_ns;        /* cluster time of the last applied entry ... */
    uint64_t boottime_ns;    /* ... at this CLOCK_BOOTTIME ... */
    char boot_id[40];        /* ... of this boot */
    uint64_t first_event_index; /* oldest in the history table; 0: empty */
    char cluster_version[32];
    uint64_t complete_at;    /* below this applied_index the state is being rebuilt: what was acknowledged may be missing */
};

struct state_node {
    struct span name;        /* last path segment; of the root: empty */
    bool dir;
    uint64_t dir_id;         /* dirs: the id their children are filed under */
    uint64_t created_index;
    uint64_t modified_index;
    uint64_t deadline_ns;    /* 0: permanent */
    struct span value;       /* files */
};

/* Opens the environment in `dir` for reading. map_bytes 0: 256 GiB (16 GiB under sanitizers). */
int state_open_readonly(const char *dir, size_t map_bytes, struct state **ret_state, struct err *err);
struct state *state_close(struct state *state); /* always NULL, accepts NULL; no read may be open */

/* member/state/CURRENT: the live generation's number; -ENOENT before the first. state_dir: "member/state" of the data dir. */
int state_current_generation(const char *state_dir, uint64_t *ret_generation, struct err *err);

/* The directory of a generation's environment: <state_dir>/<16 hex digits>. */
void state_generation_path(const char *state_dir, uint64_t generation, char ret_path[STATE_PATH_BYTES_MAX]);

/* A reusable read transaction: begin renews it, end resets it. */
int state_read_new(struct state *state, struct state_read **ret_read, struct err *err);
struct state_read *state_read_free(struct state_read *read); /* always NULL, accepts NULL */
int state_read_begin(struct state_read *read, struct err *err);
void state_read_end(struct state_read *read);

int state_read_meta(struct state_read *read, struct state_meta *ret_meta, struct err *err);

/* 0, or -ENOENT / -ENOTDIR with *ret_bad_bytes = length of the path prefix that is missing / is a file
 * (v2-api 3.3 "get"). The root is a permanent directory with indexes 0. */
int state_read_lookup(struct state_read *read, struct span path, struct state_node *ret_node,
        size_t *ret_bad_bytes);

/* Children of a directory in bytewise order of their names, long names included. One iterator a struct; nested ones
 * are fine. `after` (may be empty): begin behind this name. */
struct state_children {
    struct state_read *read;
    void *cursor;
    void *sorted; /* of a directory with long names */
    uint64_t dir_id;
};
void state_children_begin(struct state_read *read, uint64_t dir_id, struct span after, struct state_children *ret_iter);
bool state_children_next(struct state_children *iter, struct state_node *ret_node); /* false: the end */
void state_children_end(struct state_children *iter);

/* History from etcd index `from` on: encoded events (proto/outcome.h), ascending. */
struct state_events {
    struct state_read *read;
    void *cursor;
    uint64_t next;
};
void state_events_begin(struct state_read *read, uint64_t from, struct state_events *ret_iter);
bool state_events_next(struct state_events *iter, uint64_t *ret_etcd_index, struct span *ret_event);
void state_events_end(struct state_events *iter);

/* Members, ascending by id, as encoded proto members; removed ids are skipped unless asked for. Calls fn until it returns false. */
void state_read_members(struct state_read *read, bool removed_too, bool (*fn)(void *user, uint64_t id, struct span member),
        void *user);

/* Counters folded in from gatewayds that are gone: an opaque array of u64, see common/counters.h. Empty when none. */
struct span state_read_counters(struct state_read *read);
