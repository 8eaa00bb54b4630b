#include "common/state/schema.h"

#include <assert.h>
#include <errno.h>
#include <lmdb.h>
#include <sodium.h>

#include "common/state/lockwait.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "schema_put_u64_be swaps");

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(SANITIZED)
#define MAP_BYTES_DEFAULT ((size_t)16 << 30)
#else
#define MAP_BYTES_DEFAULT ((size_t)256 << 30)
#endif

/* Native integer keys where nothing is ever searched by prefix: shorter comparisons. */
static const struct {
    const char *name;
    unsigned flags;
} tables[SCHEMA_TABLE_COUNT] = {
    [SCHEMA_NODES] = { "nodes", 0 },
    [SCHEMA_EXPIRY] = { "expiry", 0 },
    [SCHEMA_EVENTS] = { "events", MDB_INTEGERKEY },
    [SCHEMA_MEMBERS] = { "members", MDB_INTEGERKEY },
    [SCHEMA_AUTH] = { "auth", 0 },
    [SCHEMA_TRASH] = { "trash", MDB_INTEGERKEY },
    [SCHEMA_META] = { "meta", 0 },
};

int schema_error(struct err *err, int code, const char *what)
{
    int mapped = code > 0 ? -code : -EUCLEAN;

    if (code == MDB_MAP_FULL) {
        mapped = -ENOSPC; /* the map is far larger than any disk: full is full */
    } else if (code == MDB_NOTFOUND) {
        mapped = -ENOENT;
    } else if (code == MDB_READERS_FULL) {
        mapped = -EAGAIN;
    }
    return err_set(err, mapped, "state: %s: %s", what, mdb_strerror(code));
}

static int open_tables(struct state *state, bool create, bool read_only, struct err *err)
{
    MDB_txn *txn;
    int code = mdb_txn_begin(state->env, NULL, read_only ? MDB_RDONLY : 0, &txn);

    if (code != 0) {
        return schema_error(err, code, "begin");
    }
    for (size_t i = 0; i < SCHEMA_TABLE_COUNT; i++) {
        unsigned flags = tables[i].flags | (create ? MDB_CREATE : 0);
        code = mdb_dbi_open(txn, tables[i].name, flags, &state->dbi[i]);
        if (code != 0) {
            mdb_txn_abort(txn);
            return schema_error(err, code, tables[i].name);
        }
    }
    code = mdb_txn_commit(txn); /* a read-only one too: only a commit keeps the handles */
    return code == 0 ? 0 : schema_error(err, code, "open tables");
}

int schema_open_env(const char *path, size_t map_bytes, unsigned flags, bool create,
        struct state *state, struct err *err)
{
    int code = mdb_env_create(&state->env);

    if (code != 0) {
        return schema_error(err, code, "create env");
    }
    (void)mdb_env_set_maxdbs(state->env, SCHEMA_TABLE_COUNT);
    (void)mdb_env_set_maxreaders(state->env, SCHEMA_READERS_MAX);
    (void)mdb_env_set_mapsize(state->env, map_bytes != 0 ? map_bytes : MAP_BYTES_DEFAULT);
    lockwait_begin();
    code = mdb_env_open(state->env, path, flags | MDB_NOTLS, 0640);
    lockwait_end();
    if (code != 0) {
        mdb_env_close(state->env);
        state->env = NULL;
        return schema_error(err, code, path);
    }
    lockwait_begin();
    int result = open_tables(state, create, (flags & MDB_RDONLY) != 0, err);
    lockwait_end();
    if (result < 0) {
        mdb_env_close(state->env);
        state->env = NULL;
    }
    return result;
}

void schema_node_key(uint64_t dir_id, struct span name, struct schema_key *ret_key)
{
    schema_put_u64_be(ret_key->data, dir_id);
    if (name.bytes <= STATE_NAME_KEY_BYTES_MAX) {
        if (name.bytes > 0) {
            memcpy(ret_key->data + SCHEMA_ID_BYTES, name.data, name.bytes);
        }
        ret_key->bytes = SCHEMA_ID_BYTES + name.bytes;
        return;
    }
    uint8_t *hash = ret_key->data + SCHEMA_ID_BYTES + SCHEMA_LONG_PREFIX_BYTES;
    memcpy(ret_key->data + SCHEMA_ID_BYTES, name.data, SCHEMA_LONG_PREFIX_BYTES);
    (void)crypto_generichash(hash, SCHEMA_LONG_HASH_BYTES, name.data, name.bytes, NULL, 0);
    ret_key->bytes = SCHEMA_NODE_KEY_BYTES_MAX;
}

void schema_seek_key(uint64_t dir_id, struct span name, struct schema_key *ret_key)
{
    size_t bytes = MIN(name.bytes, (size_t)SCHEMA_LONG_PREFIX_BYTES);

    schema_put_u64_be(ret_key->data, dir_id);
    if (bytes > 0) {
        memcpy(ret_key->data + SCHEMA_ID_BYTES, name.data, bytes);
    }
    ret_key->bytes = SCHEMA_ID_BYTES + bytes;
}

bool schema_node_decode(struct span key_name, struct span record, struct state_node *ret_node)
{
    if (record.bytes < SCHEMA_HEADER_BYTES) {
        return false;
    }
    const uint8_t *at = record.data;
    uint32_t name_bytes;
    *ret_node = (struct state_node){ .dir = at[0] == SCHEMA_KIND_DIR, .name = key_name };
    memcpy(&name_bytes, at + 4, sizeof name_bytes);
    memcpy(&ret_node->created_index, at + 8, sizeof(uint64_t));
    memcpy(&ret_node->modified_index, at + 16, sizeof(uint64_t));
    memcpy(&ret_node->deadline_ns, at + 24, sizeof(uint64_t));

    struct span rest = span_from(record, SCHEMA_HEADER_BYTES);
    if (ret_node->dir) {
        if (rest.bytes < sizeof(uint64_t)) {
            return false;
        }
        memcpy(&ret_node->dir_id, rest.data, sizeof(uint64_t));
        rest = span_from(rest, sizeof(uint64_t));
    }
    if (name_bytes > 0) {
        if (rest.bytes < name_bytes) {
            return false;
        }
        ret_node->name = span_of(rest.data, name_bytes);
        rest = span_from(rest, name_bytes);
    }
    ret_node->value = rest;
    return true;
}

bool schema_self_decode(struct span record, uint64_t *ret_parent_id, struct span *ret_name)
{
    if (record.bytes < sizeof(uint64_t)) {
        return false;
    }
    memcpy(ret_parent_id, record.data, sizeof(uint64_t));
    *ret_name = span_from(record, sizeof(uint64_t));
    return true;
}
