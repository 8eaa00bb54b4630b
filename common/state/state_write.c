/* state_write.c: transactions, nodes and directories.
 *
 * Space is reserved ahead by writing zeros behind the last page in use, a page a call. The size of the first write
 * into a stretch of a file fixes the size of the page cache's folios there, and every later write of one
 * page walks all buffers of its folio: with LMDB's own long first writes a random PUT among 1 M keys cost 10.3 us,
 * with these 6.4 (ext4, Linux 6.18). */
#include "common/state/state_write.h"

#include <errno.h>
#include <lmdb.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/state/lockwait.h"
#include "common/state/writer.h"

static MDB_val val_of(const void *data, size_t bytes)
{
    return (MDB_val){ .mv_size = bytes, .mv_data = (void *)(uintptr_t)data };
}

enum {
    RESERVE_LOW_BYTES = 512 * 1024,
    RESERVE_STEP_BYTES = 1024 * 1024,
    RESERVE_WRITE_BYTES = 4096,
};

/* Failing is harmless: a disk that is full will say so again when LMDB writes. */
static void reserve_space(struct state_writer *writer)
{
    static const uint8_t zeros[RESERVE_WRITE_BYTES];
    uint64_t used_bytes = state_writer_file_bytes(writer);
    uint64_t until = used_bytes + RESERVE_STEP_BYTES;
    int fd;

    if (used_bytes + RESERVE_LOW_BYTES <= writer->reserved_bytes ||
            mdb_env_get_fd(writer->state.env, &fd) != 0) {
        return;
    }
    for (uint64_t at = MAX(writer->reserved_bytes, used_bytes); at < until;
            at += RESERVE_WRITE_BYTES) {
        if (pwrite(fd, zeros, sizeof zeros, (off_t)at) != (ssize_t)sizeof zeros) {
            return;
        }
        writer->reserved_bytes = at + RESERVE_WRITE_BYTES;
    }
}

static void find_reserved(struct state_writer *writer)
{
    struct stat stat;
    int fd;

    if (mdb_env_get_fd(writer->state.env, &fd) == 0 && fstat(fd, &stat) == 0) {
        writer->reserved_bytes = (uint64_t)stat.st_size / RESERVE_WRITE_BYTES * RESERVE_WRITE_BYTES;
    }
}

/* LMDB calls a short write an I/O error, and on a full disk writes are short. What it did write has used up the rest of
 * the space, so one more page tells. */
static bool disk_is_full(struct state_writer *writer)
{
    static const uint8_t zeros[RESERVE_WRITE_BYTES];
    int fd;

    find_reserved(writer);
    if (mdb_env_get_fd(writer->state.env, &fd) != 0) {
        return false;
    }
    ssize_t written = pwrite(fd, zeros, sizeof zeros, (off_t)writer->reserved_bytes);
    return written < 0 ? errno == ENOSPC || errno == EDQUOT : written < (ssize_t)sizeof zeros;
}

/* LMDB's readers enter themselves into its lock file: whose group may read the data must be able to write that, and only that.
 * LMDB makes both files with one mode. */
static int let_readers_lock(const char *dir, struct err *err)
{
    char path[STATE_PATH_BYTES_MAX + sizeof "/data.mdb"];
    struct stat data;

    (void)snprintf(path, sizeof path, "%s/data.mdb", dir);
    if (stat(path, &data) < 0) {
        return err_errno(err, "state: stat %s", path);
    }
    (void)snprintf(path, sizeof path, "%s/lock.mdb", dir);
    bool is_shared = (data.st_mode & S_IRGRP) != 0;
    return !is_shared || chmod(path, 0660) == 0 ? 0 : err_errno(err, "state: chmod %s", path);
}

int state_writer_open(const char *dir, size_t map_bytes, bool create,
        struct state_writer **ret_writer, struct err *err)
{
    struct state_writer *writer = xcalloc(1, sizeof *writer);

    int result = schema_open_env(dir, map_bytes, MDB_NOSYNC, create, &writer->state, err);
    if (result < 0) {
        free(writer);
        return result;
    }
    find_reserved(writer);
    result = let_readers_lock(dir, err);
    if (result == 0) {
        result = state_writer_begin(writer, err);
    }
    if (result == 0) {
        struct span record;
        result = state_write_record_find(writer, "state", &record);
        if (result == 0 && record.bytes == sizeof writer->meta) {
            memcpy(&writer->meta, record.data, sizeof writer->meta);
            writer->committed = writer->meta;
            state_writer_abort(writer);
        } else if (result == -ENOENT && create) {
            writer->meta = (struct schema_meta){ .format = SCHEMA_FORMAT,
                .next_dir_id = STATE_ROOT_ID + 1 };
            result = state_writer_commit(writer, err);
        } else {
            result = err_set(err, -EUCLEAN, "state: %s holds no state", dir);
        }
    }
    if (result == 0 && writer->meta.format != SCHEMA_FORMAT) {
        result = err_set(err, -EUCLEAN, "state: %s has format %" PRIu64 ", this program %d", dir,
                writer->meta.format, SCHEMA_FORMAT);
    }
    if (result < 0) {
        (void)state_writer_close(writer);
        return result;
    }
    *ret_writer = writer;
    return 0;
}

struct state_writer *state_writer_close(struct state_writer *writer)
{
    if (writer != NULL) {
        state_writer_abort(writer);
        mdb_env_close(writer->state.env);
        free(writer);
    }
    return NULL;
}

struct state *state_writer_reader(const struct state_writer *writer)
{
    struct state *state = xmalloc(sizeof *state);
    *state = writer->state;
    state->borrowed = true;
    return state;
}

int state_writer_begin(struct state_writer *writer, struct err *err)
{
    INVARIANT(writer->txn == NULL);
    reserve_space(writer);
    lockwait_begin();
    int code = mdb_txn_begin(writer->state.env, NULL, 0, &writer->txn);
    lockwait_end();
    if (code != 0) {
        writer->txn = NULL;
        return schema_error(err, code, "begin writing");
    }
    code = mdb_cursor_open(writer->txn, writer->state.dbi[SCHEMA_NODES], &writer->nodes);
    if (code != 0) {
        state_writer_abort(writer);
        return schema_error(err, code, "begin writing");
    }
    writer->meta = writer->committed;
    return 0;
}

int state_writer_commit(struct state_writer *writer, struct err *err)
{
    INVARIANT(writer->txn != NULL);
    struct span record = span_of(&writer->meta, sizeof writer->meta);
    int result = state_write_record_put(writer, "state", record);
    if (result < 0) {
        state_writer_abort(writer);
        return err_set(err, result, "state: save meta: %s", strerror(-result));
    }
    int code = mdb_txn_commit(writer->txn); /* frees it, and aborts if it fails */
    writer->txn = NULL;
    if (code != 0) {
        writer->meta = writer->committed;
        if (code == EIO && disk_is_full(writer)) {
            code = ENOSPC;
        }
        return schema_error(err, code, "commit");
    }
    writer->committed = writer->meta;
    return 0;
}

void state_writer_abort(struct state_writer *writer)
{
    if (writer->txn != NULL) {
        mdb_txn_abort(writer->txn);
        writer->txn = NULL;
        writer->meta = writer->committed;
    }
}

struct schema_meta *state_writer_meta(struct state_writer *writer)
{
    return &writer->meta;
}

int state_write_find(
        struct state_writer *writer, uint64_t dir_id, struct span name, struct state_node *ret_node)
{
    struct schema_key node_key;
    MDB_val value;

    schema_node_key(dir_id, name, &node_key);
    MDB_val key = val_of(node_key.data, node_key.bytes);
    int code = mdb_cursor_get(writer->nodes, &key, &value, MDB_SET);
    if (code != 0) {
        return schema_error(NULL, code, "find node");
    }
    return schema_node_decode(name, span_of(value.mv_data, value.mv_size), ret_node) ? 0 : -EUCLEAN;
}

static int expiry_row_put(
        struct state_writer *writer, const struct schema_key *node_key, uint64_t deadline_ns)
{
    uint8_t row[SCHEMA_EXPIRY_KEY_BYTES_MAX];
    MDB_val nothing = val_of("", 0);

    schema_put_u64_be(row, deadline_ns);
    memcpy(row + SCHEMA_ID_BYTES, node_key->data, node_key->bytes);
    MDB_val key = val_of(row, SCHEMA_ID_BYTES + node_key->bytes);
    int code = mdb_put(writer->txn, writer->state.dbi[SCHEMA_EXPIRY], &key, &nothing, 0);
    return code == 0 ? 0 : schema_error(NULL, code, "put expiry");
}

static int expiry_row_remove(
        struct state_writer *writer, const struct schema_key *node_key, uint64_t deadline_ns)
{
    uint8_t row[SCHEMA_EXPIRY_KEY_BYTES_MAX];

    schema_put_u64_be(row, deadline_ns);
    memcpy(row + SCHEMA_ID_BYTES, node_key->data, node_key->bytes);
    MDB_val key = val_of(row, SCHEMA_ID_BYTES + node_key->bytes);
    int code = mdb_del(writer->txn, writer->state.dbi[SCHEMA_EXPIRY], &key, NULL);
    return code == 0 || code == MDB_NOTFOUND ? 0 : schema_error(NULL, code, "drop expiry");
}

/* Fills a record in place: `out` has exactly the bytes that state_write_put reserved. */
static void node_encode(const struct state_node *node, size_t long_bytes, uint8_t *out)
{
    uint32_t name_bytes = (uint32_t)long_bytes;

    memset(out, 0, SCHEMA_ID_BYTES);
    out[0] = node->dir ? SCHEMA_KIND_DIR : SCHEMA_KIND_FILE;
    memcpy(out + 4, &name_bytes, sizeof name_bytes);
    memcpy(out + 8, &node->created_index, sizeof(uint64_t));
    memcpy(out + 16, &node->modified_index, sizeof(uint64_t));
    memcpy(out + 24, &node->deadline_ns, sizeof(uint64_t));
    out += SCHEMA_HEADER_BYTES;
    if (node->dir) {
        memcpy(out, &node->dir_id, sizeof(uint64_t));
        out += sizeof(uint64_t);
    }
    if (long_bytes > 0) {
        memcpy(out, node->name.data, long_bytes);
        out += long_bytes;
    }
    if (node->value.bytes > 0) {
        memcpy(out, node->value.data, node->value.bytes);
    }
}

int state_write_put(struct state_writer *writer, uint64_t dir_id, const struct state_node *node,
        uint64_t old_deadline_ns)
{
    struct schema_key node_key;
    size_t long_bytes = node->name.bytes > STATE_NAME_KEY_BYTES_MAX ? node->name.bytes : 0;

    INVARIANT(!node->dir || node->value.bytes == 0);
    schema_node_key(dir_id, node->name, &node_key);
    MDB_val key = val_of(node_key.data, node_key.bytes);
    MDB_val value = val_of(NULL, SCHEMA_HEADER_BYTES + (node->dir ? sizeof(uint64_t) : 0) +
                                         long_bytes + node->value.bytes);
    int code = mdb_cursor_put(writer->nodes, &key, &value, MDB_RESERVE);
    if (code != 0) {
        return schema_error(NULL, code, "put node");
    }
    node_encode(node, long_bytes, value.mv_data);
    if (old_deadline_ns == node->deadline_ns) {
        return 0;
    }
    if (old_deadline_ns != 0) {
        TRY(expiry_row_remove(writer, &node_key, old_deadline_ns));
    }
    return node->deadline_ns == 0 ? 0 : expiry_row_put(writer, &node_key, node->deadline_ns);
}

static int self_put(
        struct state_writer *writer, uint64_t dir_id, uint64_t parent_id, struct span name)
{
    struct schema_key self;

    schema_node_key(dir_id, SPAN_NONE, &self);
    MDB_val key = val_of(self.data, self.bytes);
    MDB_val value = val_of(NULL, sizeof parent_id + name.bytes);
    int code = mdb_cursor_put(writer->nodes, &key, &value, MDB_RESERVE);
    if (code != 0) {
        return schema_error(NULL, code, "put directory");
    }
    memcpy(value.mv_data, &parent_id, sizeof parent_id);
    if (name.bytes > 0) {
        memcpy((uint8_t *)value.mv_data + sizeof parent_id, name.data, name.bytes);
    }
    return 0;
}

int state_write_dir_add(struct state_writer *writer, uint64_t parent_id, struct state_node *node)
{
    node->dir = true;
    node->dir_id = writer->meta.next_dir_id++;
    TRY(state_write_put(writer, parent_id, node, 0));
    return self_put(writer, node->dir_id, parent_id, node->name);
}

static int remove_key(struct state_writer *writer, const struct schema_key *node_key)
{
    MDB_val key = val_of(node_key->data, node_key->bytes);
    int code = mdb_del(writer->txn, writer->state.dbi[SCHEMA_NODES], &key, NULL);
    return code == 0 ? 0 : schema_error(NULL, code, "remove node");
}

int state_write_remove(
        struct state_writer *writer, uint64_t parent_id, const struct state_node *node)
{
    struct schema_key node_key;
    struct schema_key self;
    uint64_t dir_id = node->dir ? node->dir_id : 0;
    uint64_t deadline_ns = node->deadline_ns;

    schema_node_key(parent_id, node->name, &node_key); /* before the name's page may change */
    int has_children = dir_id != 0 ? state_write_has_children(writer, dir_id) : 0;
    TRY(has_children);
    TRY(remove_key(writer, &node_key));
    if (deadline_ns != 0) {
        TRY(expiry_row_remove(writer, &node_key, deadline_ns));
    }
    if (dir_id == 0) {
        return 0;
    }
    schema_node_key(dir_id, SPAN_NONE, &self);
    TRY(remove_key(writer, &self));
    return has_children > 0 ? writer_trash_add(writer, dir_id) : 0;
}

int state_write_has_children(struct state_writer *writer, uint64_t dir_id)
{
    struct schema_key self;
    MDB_val value;

    schema_node_key(dir_id, SPAN_NONE, &self);
    MDB_val key = val_of(self.data, self.bytes);
    int code = mdb_cursor_get(writer->nodes, &key, &value, MDB_SET_RANGE);
    if (code == 0 && key.mv_size == SCHEMA_ID_BYTES && schema_get_u64_be(key.mv_data) == dir_id) {
        code = mdb_cursor_get(writer->nodes, &key, &value, MDB_NEXT);
    }
    if (code == MDB_NOTFOUND) {
        return 0;
    }
    if (code != 0) {
        return schema_error(NULL, code, "look into directory");
    }
    return schema_get_u64_be(key.mv_data) == dir_id;
}

int state_write_path(
        struct state_writer *writer, uint64_t dir_id, struct span name, struct buf *out)
{
    struct span *names = NULL;
    size_t count = 0;
    size_t capacity = 0;
    int result = 0;

    while (dir_id != STATE_ROOT_ID) {
        struct schema_key self;
        MDB_val value;
        schema_node_key(dir_id, SPAN_NONE, &self);
        MDB_val key = val_of(self.data, self.bytes);
        int code = mdb_cursor_get(writer->nodes, &key, &value, MDB_SET);
        if (code != 0) {
            result = schema_error(NULL, code, "walk up");
            break;
        }
        if (count == capacity) {
            capacity = MAX(capacity * 2, (size_t)8);
            names = xrealloc(names, capacity * sizeof *names);
        }
        if (!schema_self_decode(span_of(value.mv_data, value.mv_size), &dir_id, &names[count])) {
            result = -EUCLEAN;
            break;
        }
        count++;
    }
    while (result == 0 && count > 0) {
        buf_append_byte(out, '/');
        buf_append_span(out, names[--count]);
    }
    if (result == 0) {
        buf_append_byte(out, '/');
        buf_append_span(out, name);
    }
    free(names);
    return result;
}
