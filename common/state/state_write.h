/* state_write.h: the write side of the state: stored's alone.
 *
 * One struct state_writer is one environment open for writing (no sync: the log is what is durable). All changes
 * happen between begin and commit or abort, by one thread. Every call returns 0 or a negative errno; after any
 * error but -ENOENT the transaction must be aborted, and the state is then as it was at begin. -ENOSPC: disk or
 * map is full, the same work may be tried again later.
 *
 * Spans handed out live until the next change. The tables are kept in step here (a node and its row in `expiry`, a
 * directory and its self record, events and their count); what the changes mean is the caller's affair.
 * state_writer_copy, _sync and _reader_* may be called from any thread. */
#pragma once

#include "common/state/schema.h"

struct state_writer;

int state_writer_open(const char *dir, size_t map_bytes, bool create, struct state_writer **ret_writer,
        struct err *err);
struct state_writer *state_writer_close(struct state_writer *writer); /* aborts; always NULL, accepts NULL */

/* The same environment for reading, valid as long as the writer; to be given to state_close all the same. An environment
 * must not be opened twice in a process. */
struct state *state_writer_reader(const struct state_writer *writer);

int state_writer_begin(struct state_writer *writer, struct err *err);
int state_writer_commit(struct state_writer *writer, struct err *err); /* aborts when it fails */
void state_writer_abort(struct state_writer *writer);                  /* harmless outside a transaction */

/* Inside a transaction: may be changed, is saved by commit. Outside: as last committed, read only. */
struct schema_meta *state_writer_meta(struct state_writer *writer);

/* Fills *ret_node, -ENOENT where there is none. */
int state_write_find(struct state_writer *writer, uint64_t dir_id, struct span name, struct state_node *ret_node);

/* Creates or replaces a file's record, or updates a directory's; old_deadline_ns is that of the replaced record. The
 * node's spans must not point into the state. */
int state_write_put(struct state_writer *writer, uint64_t dir_id, const struct state_node *node,
        uint64_t old_deadline_ns);

/* Creates a directory under a name that is free; sets node->dir_id. */
int state_write_dir_add(struct state_writer *writer, uint64_t parent_id, struct state_node *node);

/* Unlinks a node at once; what lies below a directory goes to the trash. */
int state_write_remove(struct state_writer *writer, uint64_t parent_id, const struct state_node *node);

/* 1: the directory has children. */
int state_write_has_children(struct state_writer *writer, uint64_t dir_id);

/* The first row of `expiry` that is due at now_ns: 1 and the node's place, or 0. Rows whose node is gone are reported too
 * (ret_node->created_index 0): drop them with state_write_expiry_drop. */
int state_write_expiry_due(struct state_writer *writer, uint64_t now_ns, uint64_t *ret_dir_id,
        struct state_node *ret_node);
int state_write_expiry_drop(struct state_writer *writer);
/* Deadline of the first row; 0: none. */
int state_write_expiry_first(struct state_writer *writer, uint64_t *ret_deadline_ns);

/* Appends the path of a directory's child; -ENOENT where an ancestor has been unlinked. */
int state_write_path(struct state_writer *writer, uint64_t dir_id, struct span name, struct buf *out);

/* Frees up to nodes_max nodes from the trash; returns how many. state_write_trash_is_empty: 1 or 0. */
int state_write_trash_free(struct state_writer *writer, unsigned nodes_max);
int state_write_trash_is_empty(struct state_writer *writer);

/* Appends to the history. etcd_index must rise. */
int state_write_event(struct state_writer *writer, uint64_t etcd_index, struct span event);
/* Removes up to events_max of the oldest while more than `count` or `bytes` are kept, but leaves `window`. */
struct state_history_limits {
    uint64_t window;
    uint64_t count;
    uint64_t bytes;
};
int state_write_prune(struct state_writer *writer, const struct state_history_limits *limits, unsigned events_max);

/* Records kept under an id (members) or a name (meta: "publication", "counters"). */
int state_write_member_find(struct state_writer *writer, uint64_t id, bool *ret_removed, struct span *ret_member);
int state_write_member_put(struct state_writer *writer, uint64_t id, bool removed, struct span member);
int state_write_record_find(struct state_writer *writer, const char *name, struct span *ret_record);
int state_write_record_put(struct state_writer *writer, const char *name, struct span record);

/* Rows of a table, inside a transaction. */
uint64_t state_write_rows(struct state_writer *writer, enum schema_table table);

/* The environment itself. */
int state_writer_sync(struct state_writer *writer, struct err *err);
int state_writer_copy(struct state_writer *writer, int fd, struct err *err); /* compact; any fd, a pipe too */
uint64_t state_writer_txn_id(const struct state_writer *writer);             /* of the last commit */
uint64_t state_writer_file_bytes(const struct state_writer *writer);
int state_writer_free_bytes(struct state_writer *writer, uint64_t *ret_bytes); /* pages nobody needs */

/* The transaction id of the environment in `dir`, without touching its tables: nothing but its two meta pages need be
 * sound. No other handle on it may be open in this process. */
int state_writer_peek_txn_id(const char *dir, uint64_t *ret_txn_id, struct err *err);

/* Frees the slots of readers whose process is gone. */
int state_writer_reader_check(struct state_writer *writer);
/* Calls fn for each reader with an open transaction. */
void state_writer_reader_list(struct state_writer *writer, void (*fn)(void *user, uint64_t pid, uint64_t txn_id),
        void *user);
