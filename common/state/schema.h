/* schema.h: how the tables of the state are laid out. For this folder, and for stored through state_write.h.
 *
 * nodes   parent directory id (u64, big endian) + name        node record
 *         own directory id + empty name                       self record of a directory
 *
 *         node record, host byte order (an LMDB file never moves between byte orders):
 *           0      1       4            8         16         24         32
 *           ├kind──┼─0─────┼─name_bytes─┼─created─┼─modified─┼─deadline─┼─[dir_id]─[long name]─[value]
 *         A name of more than 487 bytes is filed under its first 456 bytes + BLAKE2b-256 of the whole: 488
 *         bytes, longer than any short name's key, so nobody can craft a short name that meets it. Such
 *         names stand whole in the record; name_bytes is 0 for all others.
 *         self record: u64 parent's id, own name.
 * expiry  deadline (u64, big endian) + node key                -
 * events  etcd index (native u64)                              encoded event
 * members id (native u64)                                      u8 removed, encoded member
 * trash   directory id (native u64)                            -
 * meta    "state": struct schema_meta; "publication"; "counters"
 *
 * A directory whose self record is missing has been unlinked, and all below it with it. */
#pragma once

#include <assert.h>

#include "common/state/state.h"

enum schema_table {
    SCHEMA_NODES,
    SCHEMA_EXPIRY,
    SCHEMA_EVENTS,
    SCHEMA_MEMBERS,
    SCHEMA_AUTH,
    SCHEMA_TRASH,
    SCHEMA_META,
    SCHEMA_TABLE_COUNT,
};

enum {
    SCHEMA_FORMAT = 1,
    SCHEMA_ID_BYTES = 8,
    SCHEMA_LONG_PREFIX_BYTES = 456,
    SCHEMA_LONG_HASH_BYTES = 32,
    SCHEMA_LONG_NAME_BYTES = SCHEMA_LONG_PREFIX_BYTES + SCHEMA_LONG_HASH_BYTES,
    SCHEMA_NODE_KEY_BYTES_MAX = SCHEMA_ID_BYTES + SCHEMA_LONG_NAME_BYTES,
    SCHEMA_EXPIRY_KEY_BYTES_MAX = SCHEMA_ID_BYTES + SCHEMA_NODE_KEY_BYTES_MAX,
    SCHEMA_HEADER_BYTES = 32,
    SCHEMA_KIND_FILE = 1,
    SCHEMA_KIND_DIR = 2,
    SCHEMA_READERS_MAX = 1024,
};

static_assert(
        SCHEMA_LONG_NAME_BYTES == STATE_NAME_KEY_BYTES_MAX + 1, "lengths tell long from short");
static_assert(SCHEMA_EXPIRY_KEY_BYTES_MAX <= 511, "LMDB's limit on keys");

/* The record "state" of the meta table. */
struct schema_meta {
    uint64_t format;
    uint64_t cluster_id;
    uint64_t member_id;
    uint64_t applied_index;
    uint64_t applied_term;
    uint64_t etcd_index;
    uint64_t time_ns;
    uint64_t boottime_ns;
    uint64_t next_dir_id;
    uint64_t first_event_index; /* 0: no event yet */
    uint64_t event_count;
    uint64_t event_bytes;
    uint64_t complete_at; /* see state_meta */
    char boot_id[40];
    char cluster_version[32];
};
static_assert(sizeof(struct schema_meta) == 176, "kept on disk");

struct schema_key {
    uint8_t data[SCHEMA_EXPIRY_KEY_BYTES_MAX];
    size_t bytes;
};

/* LMDB's own types, named without its header. */
struct MDB_env;
struct MDB_txn;

struct state {
    struct MDB_env *env;
    uint64_t generation;
    unsigned dbi[SCHEMA_TABLE_COUNT];
    bool borrowed; /* the env is a writer's: state_close leaves it open */
};

struct state_read {
    struct state *state;
    struct MDB_txn *txn;
    bool active;
    struct children
            *idle; /* iterators kept for the next directory; their cursors are of this turn */
};

/* LMDB's code as ours; the err says what was being done. */
int schema_error(struct err *err, int code, const char *what);

/* Opens the env in `path` and all tables; creates both if create. flags are LMDB's, added to MDB_NOTLS. */
int schema_open_env(const char *path, size_t map_bytes, unsigned flags, bool create,
        struct state *state, struct err *err);

/* An environment that is one file without a lock: a copy that nobody changes. */
int state_open_file(const char *path, struct state **ret_state, struct err *err);

void schema_node_key(uint64_t dir_id, struct span name, struct schema_key *ret_key);
/* Prefix of the keys that sort at or behind `name`: no hash, at most SCHEMA_LONG_PREFIX_BYTES of it where long. */
void schema_seek_key(uint64_t dir_id, struct span name, struct schema_key *ret_key);
/* False where the record is damaged. `name` of the key is used where the record holds none. */
bool schema_node_decode(struct span key_name, struct span record, struct state_node *ret_node);
bool schema_self_decode(struct span record, uint64_t *ret_parent_id, struct span *ret_name);

static inline void schema_put_u64_be(uint8_t *out, uint64_t value)
{
    uint64_t big = __builtin_bswap64(value);
    memcpy(out, &big, sizeof big);
}

static inline uint64_t schema_get_u64_be(const uint8_t *in)
{
    uint64_t big;
    memcpy(&big, in, sizeof big);
    return __builtin_bswap64(big);
}
