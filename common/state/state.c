/* state.c: opening the state for reading, and its read transactions. */
#include "common/state/state.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/state/children.h"
#include "common/state/schema.h"

void state_generation_path(
        const char *state_dir, uint64_t generation, char ret_path[STATE_PATH_BYTES_MAX])
{
    (void)snprintf(ret_path, STATE_PATH_BYTES_MAX, "%s/%016" PRIx64, state_dir, generation);
}

/* The generation is the directory's name, so a copied environment needs no edit. */
static uint64_t generation_of_dir(const char *dir)
{
    const char *slash = strrchr(dir, '/');
    const char *name = slash != NULL ? slash + 1 : dir;
    char *end = NULL;

    uint64_t generation = strtoull(name, &end, 16);
    return strlen(name) == 16 && *end == '\0' ? generation : 0;
}

int state_open_readonly(
        const char *dir, size_t map_bytes, struct state **ret_state, struct err *err)
{
    struct state *state = xcalloc(1, sizeof *state);

    int result = schema_open_env(dir, map_bytes, MDB_RDONLY, false, state, err);
    if (result < 0) {
        free(state);
        return result;
    }
    state->generation = generation_of_dir(dir);
    *ret_state = state;
    return 0;
}

int state_open_file(const char *path, struct state **ret_state, struct err *err)
{
    struct state *state = xcalloc(1, sizeof *state);

    int result =
            schema_open_env(path, 0, MDB_RDONLY | MDB_NOSUBDIR | MDB_NOLOCK, false, state, err);
    if (result < 0) {
        free(state);
        return result;
    }
    *ret_state = state;
    return 0;
}

struct state *state_close(struct state *state)
{
    if (state != NULL) {
        if (!state->borrowed) {
            mdb_env_close(state->env);
        }
        free(state);
    }
    return NULL;
}

int state_current_generation(const char *state_dir, uint64_t *ret_generation, struct err *err)
{
    char path[STATE_PATH_BYTES_MAX];
    char text[32] = "";

    (void)snprintf(path, sizeof path, "%s/CURRENT", state_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_errno(err, "open %s", path);
    }
    ssize_t bytes = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (bytes < 0) {
        return err_errno(err, "read %s", path);
    }
    char *end = NULL;
    uint64_t generation = strtoull(text, &end, 16);
    if (end != text + 16 || *end != '\n' || generation == 0) {
        return err_set(err, -EUCLEAN, "%s: not a generation's number", path);
    }
    *ret_generation = generation;
    return 0;
}

int state_read_new(struct state *state, struct state_read **ret_read, struct err *err)
{
    MDB_txn *txn;

    int code = mdb_txn_begin(state->env, NULL, MDB_RDONLY, &txn);
    if (code != 0) {
        return schema_error(err, code, "begin reading");
    }
    mdb_txn_reset(txn);
    struct state_read *read = xcalloc(1, sizeof *read);
    read->state = state;
    read->txn = txn;
    *ret_read = read;
    return 0;
}

struct state_read *state_read_free(struct state_read *read)
{
    if (read != NULL) {
        state_read_end(read);
        mdb_txn_abort(read->txn);
        free(read);
    }
    return NULL;
}

int state_read_begin(struct state_read *read, struct err *err)
{
    INVARIANT(!read->active);
    int code = mdb_txn_renew(read->txn);
    if (code != 0) {
        return schema_error(err, code, "begin reading");
    }
    read->active = true;
    return 0;
}

void state_read_end(struct state_read *read)
{
    if (read->active) {
        children_free_idle(read);
        mdb_txn_reset(read->txn);
        read->active = false;
    }
}

int state_read_meta(struct state_read *read, struct state_meta *ret_meta, struct err *err)
{
    MDB_val key = { .mv_size = 5, .mv_data = (void *)(uintptr_t) "state" };
    MDB_val value;
    struct schema_meta meta;

    int code = mdb_get(read->txn, read->state->dbi[SCHEMA_META], &key, &value);
    if (code != 0) {
        return schema_error(err, code, "read meta");
    }
    if (value.mv_size < sizeof meta) {
        return err_set(err, -EUCLEAN, "state: meta of %zu bytes", value.mv_size);
    }
    memcpy(&meta, value.mv_data, sizeof meta);
    *ret_meta = (struct state_meta){
        .generation = read->state->generation,
        .cluster_id = meta.cluster_id,
        .member_id = meta.member_id,
        .applied_index = meta.applied_index,
        .applied_term = meta.applied_term,
        .etcd_index = meta.etcd_index,
        .time_ns = meta.time_ns,
        .boottime_ns = meta.boottime_ns,
        .first_event_index = meta.first_event_index,
        .complete_at = meta.complete_at,
    };
    memcpy(ret_meta->boot_id, meta.boot_id, sizeof ret_meta->boot_id);
    memcpy(ret_meta->cluster_version, meta.cluster_version, sizeof ret_meta->cluster_version);
    ret_meta->boot_id[sizeof ret_meta->boot_id - 1] = '\0';
    ret_meta->cluster_version[sizeof ret_meta->cluster_version - 1] = '\0';
    return 0;
}

/* 0, -ENOENT, or the error of a damaged record. */
static int read_child(
        struct state_read *read, uint64_t dir_id, struct span name, struct state_node *ret_node)
{
    struct schema_key node_key;
    MDB_val value;

    schema_node_key(dir_id, name, &node_key);
    MDB_val key = { .mv_size = node_key.bytes, .mv_data = node_key.data };
    int code = mdb_get(read->txn, read->state->dbi[SCHEMA_NODES], &key, &value);
    if (code != 0) {
        return schema_error(NULL, code, "read node");
    }
    return schema_node_decode(name, span_of(value.mv_data, value.mv_size), ret_node) ? 0 : -EUCLEAN;
}

int state_read_lookup(struct state_read *read, struct span path, struct state_node *ret_node,
        size_t *ret_bad_bytes)
{
    struct state_node node = { .dir = true, .dir_id = STATE_ROOT_ID };
    size_t at = path.bytes > 1 ? 1 : path.bytes; /* of the component that comes next */

    while (at < path.bytes) {
        if (!node.dir) {
            *ret_bad_bytes = at - 1;
            return -ENOTDIR;
        }
        const uint8_t *slash = memchr(path.data + at, '/', path.bytes - at);
        size_t end = slash != NULL ? (size_t)(slash - path.data) : path.bytes;
        uint64_t dir_id = node.dir_id;
        int result = read_child(read, dir_id, span_of(path.data + at, end - at), &node);
        if (result < 0) {
            *ret_bad_bytes = end;
            return result;
        }
        at = end + 1;
    }
    *ret_node = node;
    return 0;
}

struct span state_read_counters(struct state_read *read)
{
    MDB_val key = { .mv_size = 8, .mv_data = (void *)(uintptr_t) "counters" };
    MDB_val value;

    if (mdb_get(read->txn, read->state->dbi[SCHEMA_META], &key, &value) != 0) {
        return SPAN_NONE;
    }
    return span_of(value.mv_data, value.mv_size);
}
