/* state_tables.c: the write side of everything beside the tree: expiry, trash, history, records, the environment. */
#include <errno.h>
#include <lmdb.h>
#include <stdlib.h>

#include "common/state/lockwait.h"
#include "common/state/writer.h"

static MDB_val val_of(const void *data, size_t bytes)
{
    return (MDB_val){ .mv_size = bytes, .mv_data = (void *)(uintptr_t)data };
}

/* The first row of a table: 1, or 0 where it is empty. */
static int first_row(
        struct state_writer *writer, enum schema_table table, MDB_val *ret_key, MDB_val *ret_value)
{
    MDB_cursor *cursor = NULL;

    int code = mdb_cursor_open(writer->txn, writer->state.dbi[table], &cursor);
    if (code == 0) {
        code = mdb_cursor_get(cursor, ret_key, ret_value, MDB_FIRST);
        mdb_cursor_close(cursor);
    }
    if (code == MDB_NOTFOUND) {
        return 0;
    }
    return code == 0 ? 1 : schema_error(NULL, code, "read first row");
}

int state_write_expiry_first(struct state_writer *writer, uint64_t *ret_deadline_ns)
{
    MDB_val key;
    MDB_val value;

    int found = first_row(writer, SCHEMA_EXPIRY, &key, &value);
    TRY(found);
    *ret_deadline_ns = found > 0 ? schema_get_u64_be(key.mv_data) : 0;
    return 0;
}

int state_write_expiry_due(struct state_writer *writer, uint64_t now_ns, uint64_t *ret_dir_id,
        struct state_node *ret_node)
{
    MDB_val row;
    MDB_val value;

    int found = first_row(writer, SCHEMA_EXPIRY, &row, &value);
    TRY(found);
    if (found == 0 || schema_get_u64_be(row.mv_data) > now_ns) {
        return 0;
    }
    const uint8_t *node_key = (const uint8_t *)row.mv_data + SCHEMA_ID_BYTES;
    MDB_val key = val_of(node_key, row.mv_size - SCHEMA_ID_BYTES);
    *ret_dir_id = schema_get_u64_be(node_key);
    int code = mdb_cursor_get(writer->nodes, &key, &value, MDB_SET);
    if (code == MDB_NOTFOUND) {
        *ret_node = (struct state_node){ .created_index = 0 };
        return 1;
    }
    if (code != 0) {
        return schema_error(NULL, code, "find expired node");
    }
    struct span name = span_of(node_key + SCHEMA_ID_BYTES, key.mv_size - SCHEMA_ID_BYTES);
    return schema_node_decode(name, span_of(value.mv_data, value.mv_size), ret_node) ? 1 : -EUCLEAN;
}

int state_write_expiry_drop(struct state_writer *writer)
{
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;

    int code = mdb_cursor_open(writer->txn, writer->state.dbi[SCHEMA_EXPIRY], &cursor);
    if (code == 0) {
        code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
        code = code == 0 ? mdb_cursor_del(cursor, 0) : code;
        mdb_cursor_close(cursor);
    }
    return code == 0 ? 0 : schema_error(NULL, code, "drop expiry");
}

int writer_trash_add(struct state_writer *writer, uint64_t dir_id)
{
    MDB_val key = val_of(&dir_id, sizeof dir_id);
    MDB_val nothing = val_of("", 0);

    int code = mdb_put(writer->txn, writer->state.dbi[SCHEMA_TRASH], &key, &nothing, 0);
    return code == 0 ? 0 : schema_error(NULL, code, "put trash");
}

int state_write_trash_is_empty(struct state_writer *writer)
{
    MDB_val key;
    MDB_val value;
    int found = first_row(writer, SCHEMA_TRASH, &key, &value);
    return found < 0 ? found : found == 0;
}

/* Removes the node under the cursor, its row in `expiry`, and passes a directory's id on to the trash. */
static int free_child(struct state_writer *writer, const MDB_val *key, const MDB_val *value)
{
    const uint8_t *data = key->mv_data;
    struct span name = span_of(data + SCHEMA_ID_BYTES, key->mv_size - SCHEMA_ID_BYTES);
    struct state_node node;

    if (!schema_node_decode(name, span_of(value->mv_data, value->mv_size), &node)) {
        return -EUCLEAN;
    }
    if (node.deadline_ns != 0) {
        uint8_t row[SCHEMA_EXPIRY_KEY_BYTES_MAX];
        schema_put_u64_be(row, node.deadline_ns);
        memcpy(row + SCHEMA_ID_BYTES, key->mv_data, key->mv_size);
        MDB_val row_key = val_of(row, SCHEMA_ID_BYTES + key->mv_size);
        int code = mdb_del(writer->txn, writer->state.dbi[SCHEMA_EXPIRY], &row_key, NULL);
        if (code != 0 && code != MDB_NOTFOUND) {
            return schema_error(NULL, code, "drop expiry");
        }
    }
    if (node.dir) {
        TRY(writer_trash_add(writer, node.dir_id));
    }
    int code = mdb_cursor_del(writer->nodes, 0);
    return code == 0 ? 0 : schema_error(NULL, code, "free node");
}

/* Frees what is filed under dir_id, its self record too; returns the count, which is below nodes_max only when
 * nothing is left. */
static int free_dir(struct state_writer *writer, uint64_t dir_id, unsigned nodes_max)
{
    struct schema_key self;
    unsigned freed = 0;

    schema_node_key(dir_id, SPAN_NONE, &self);
    while (freed < nodes_max) {
        MDB_val key = val_of(self.data, self.bytes);
        MDB_val value;
        int code = mdb_cursor_get(writer->nodes, &key, &value, MDB_SET_RANGE);
        if (code == MDB_NOTFOUND || (code == 0 && schema_get_u64_be(key.mv_data) != dir_id)) {
            break;
        }
        if (code != 0) {
            return schema_error(NULL, code, "read trash");
        }
        if (key.mv_size ==
                SCHEMA_ID_BYTES) { /* not counted: it belongs to the directory's own node */
            code = mdb_cursor_del(writer->nodes, 0);
            if (code != 0) {
                return schema_error(NULL, code, "free directory");
            }
            continue;
        }
        TRY(free_child(writer, &key, &value));
        freed++;
    }
    return (int)freed;
}

int state_write_trash_free(struct state_writer *writer, unsigned nodes_max)
{
    unsigned freed = 0;

    while (freed < nodes_max) {
        MDB_val key;
        MDB_val value;
        uint64_t dir_id;
        int found = first_row(writer, SCHEMA_TRASH, &key, &value);
        TRY(found);
        if (found == 0) {
            break;
        }
        memcpy(&dir_id, key.mv_data, sizeof dir_id);
        int count = free_dir(writer, dir_id, nodes_max - freed);
        TRY(count);
        freed += (unsigned)count;
        if (freed < nodes_max) {
            MDB_val done = val_of(&dir_id, sizeof dir_id);
            int code = mdb_del(writer->txn, writer->state.dbi[SCHEMA_TRASH], &done, NULL);
            if (code != 0) {
                return schema_error(NULL, code, "empty trash");
            }
            freed++; /* an empty directory is work too */
        }
    }
    return (int)freed;
}

int state_write_event(struct state_writer *writer, uint64_t etcd_index, struct span event)
{
    MDB_val key = val_of(&etcd_index, sizeof etcd_index);
    MDB_val value = val_of(event.data, event.bytes);

    int code = mdb_put(writer->txn, writer->state.dbi[SCHEMA_EVENTS], &key, &value, MDB_APPEND);
    if (code != 0) {
        return schema_error(NULL, code, "append event");
    }
    if (writer->meta.first_event_index == 0) {
        writer->meta.first_event_index = etcd_index;
    }
    writer->meta.event_count++;
    writer->meta.event_bytes += event.bytes;
    return 0;
}

static bool history_is_long(
        const struct schema_meta *meta, const struct state_history_limits *limits)
{
    return meta->event_count > limits->window &&
           (meta->event_count > limits->count || meta->event_bytes > limits->bytes);
}

int state_write_prune(
        struct state_writer *writer, const struct state_history_limits *limits, unsigned events_max)
{
    struct schema_meta *meta = &writer->meta;
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;

    if (!history_is_long(meta, limits)) {
        return 0;
    }
    int code = mdb_cursor_open(writer->txn, writer->state.dbi[SCHEMA_EVENTS], &cursor);
    if (code != 0) {
        return schema_error(NULL, code, "prune history");
    }
    code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    while (code == 0 && history_is_long(meta, limits) && events_max-- > 0) {
        meta->event_count--;
        meta->event_bytes -= value.mv_size;
        code = mdb_cursor_del(cursor, 0);
        code = code == 0 ? mdb_cursor_get(cursor, &key, &value, MDB_FIRST) : code;
    }
    if (code == 0) {
        memcpy(&meta->first_event_index, key.mv_data, sizeof(uint64_t));
    }
    mdb_cursor_close(cursor);
    return code == 0 ? 0 : schema_error(NULL, code, "prune history");
}

int state_write_member_find(
        struct state_writer *writer, uint64_t id, bool *ret_removed, struct span *ret_member)
{
    MDB_val key = val_of(&id, sizeof id);
    MDB_val value;

    int code = mdb_get(writer->txn, writer->state.dbi[SCHEMA_MEMBERS], &key, &value);
    if (code != 0) {
        return schema_error(NULL, code, "find member");
    }
    if (value.mv_size == 0) {
        return -EUCLEAN;
    }
    const uint8_t *data = value.mv_data;
    *ret_removed = data[0] != 0;
    *ret_member = span_of(data + 1, value.mv_size - 1);
    return 0;
}

int state_write_member_put(
        struct state_writer *writer, uint64_t id, bool removed, struct span member)
{
    MDB_val key = val_of(&id, sizeof id);
    MDB_val value = val_of(NULL, member.bytes + 1);

    int code = mdb_put(writer->txn, writer->state.dbi[SCHEMA_MEMBERS], &key, &value, MDB_RESERVE);
    if (code != 0) {
        return schema_error(NULL, code, "put member");
    }
    uint8_t *data = value.mv_data;
    data[0] = removed;
    memcpy(data + 1, member.data, member.bytes);
    return 0;
}

int state_write_record_find(struct state_writer *writer, const char *name, struct span *ret_record)
{
    MDB_val key = val_of(name, strlen(name));
    MDB_val value;

    int code = mdb_get(writer->txn, writer->state.dbi[SCHEMA_META], &key, &value);
    if (code != 0) {
        return schema_error(NULL, code, "find record");
    }
    *ret_record = span_of(value.mv_data, value.mv_size);
    return 0;
}

int state_write_record_put(struct state_writer *writer, const char *name, struct span record)
{
    MDB_val key = val_of(name, strlen(name));
    MDB_val value = val_of(record.data, record.bytes);

    int code = mdb_put(writer->txn, writer->state.dbi[SCHEMA_META], &key, &value, 0);
    return code == 0 ? 0 : schema_error(NULL, code, "put record");
}

uint64_t state_write_rows(struct state_writer *writer, enum schema_table table)
{
    MDB_stat stat = { 0 };
    (void)mdb_stat(writer->txn, writer->state.dbi[table], &stat);
    return stat.ms_entries;
}

int state_writer_sync(struct state_writer *writer, struct err *err)
{
    int code = mdb_env_sync(writer->state.env, 1);
    return code == 0 ? 0 : schema_error(err, code, "sync");
}

int state_writer_copy(struct state_writer *writer, int fd, struct err *err)
{
    MDB_txn *txn = NULL;

    /* A copy takes its time; what it may wait for is the lock under which it finds a reader's slot. So that is tried first. */
    lockwait_begin();
    int code = mdb_txn_begin(writer->state.env, NULL, MDB_RDONLY, &txn);
    lockwait_end();
    if (code == 0) {
        mdb_txn_abort(txn);
        code = mdb_env_copyfd2(writer->state.env, fd, MDB_CP_COMPACT);
    }
    return code == 0 ? 0 : schema_error(err, code, "copy");
}

int state_writer_peek_txn_id(const char *dir, uint64_t *ret_txn_id, struct err *err)
{
    MDB_env *env;
    MDB_envinfo info;

    int code = mdb_env_create(&env);
    if (code == 0) {
        code = mdb_env_open(env, dir, MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0640);
        code = code == 0 ? mdb_env_info(env, &info) : code;
        mdb_env_close(env);
    }
    if (code != 0) {
        return schema_error(err, code, dir);
    }
    *ret_txn_id = info.me_last_txnid;
    return 0;
}

uint64_t state_writer_txn_id(const struct state_writer *writer)
{
    MDB_envinfo info;
    (void)mdb_env_info(writer->state.env, &info);
    return info.me_last_txnid;
}

uint64_t state_writer_file_bytes(const struct state_writer *writer)
{
    MDB_envinfo info;
    MDB_stat stat;
    (void)mdb_env_info(writer->state.env, &info);
    (void)mdb_env_stat(writer->state.env, &stat);
    return (info.me_last_pgno + 1) * (uint64_t)stat.ms_psize;
}

/* Table 0 is LMDB's list of free pages: each row holds a count and then the pages' numbers. Only a reader may walk it. */
static int count_free_pages(MDB_txn *txn, uint64_t *ret_pages)
{
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;

    *ret_pages = 0;
    int code = mdb_cursor_open(txn, 0, &cursor);
    while (code == 0 && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        size_t count;
        memcpy(&count, value.mv_data, sizeof count);
        *ret_pages += count;
    }
    if (cursor != NULL) {
        mdb_cursor_close(cursor);
    }
    return code == MDB_NOTFOUND ? 0 : code;
}

int state_writer_free_bytes(struct state_writer *writer, uint64_t *ret_bytes)
{
    MDB_txn *txn;
    MDB_stat stat;
    uint64_t pages = 0;

    (void)mdb_env_stat(writer->state.env, &stat);
    lockwait_begin();
    int code = mdb_txn_begin(writer->state.env, NULL, MDB_RDONLY, &txn);
    lockwait_end();
    if (code == 0) {
        code = count_free_pages(txn, &pages);
        mdb_txn_abort(txn);
    }
    *ret_bytes = pages * stat.ms_psize;
    return code == 0 ? 0 : schema_error(NULL, code, "count free pages");
}

int state_writer_reader_check(struct state_writer *writer)
{
    int dead = 0;

    lockwait_begin();
    int code = mdb_reader_check(writer->state.env, &dead);
    lockwait_end();
    return code == 0 ? dead : schema_error(NULL, code, "check readers");
}

struct reader_walk {
    void (*fn)(void *user, uint64_t pid, uint64_t txn_id);
    void *user;
};

/* LMDB tells its readers as text only: "pid thread txnid", with "-" where none is open. */
static int on_reader_text(const char *text, void *user)
{
    struct reader_walk *walk = user;
    unsigned long long pid;
    unsigned long long thread;
    unsigned long long txn_id;

    /* NOLINTNEXTLINE(cert-err34-c): LMDB's numbers. */
    if (sscanf(text, "%llu %llx %llu", &pid, &thread, &txn_id) == 3) {
        walk->fn(walk->user, pid, txn_id);
    }
    return 0;
}

void state_writer_reader_list(struct state_writer *writer,
        void (*fn)(void *user, uint64_t pid, uint64_t txn_id), void *user)
{
    struct reader_walk walk = { fn, user };
    (void)mdb_reader_list(writer->state.env, on_reader_text, &walk);
}
