/* writer.h: what the files of the write side share. For this folder only. */
#pragma once

#include "common/state/state_write.h"

struct MDB_cursor;

struct state_writer {
    struct state state;
    struct MDB_txn *txn;
    struct MDB_cursor *nodes; /* of the open transaction */
    struct schema_meta meta;
    struct schema_meta committed;
    uint64_t reserved_bytes; /* of the file: written, in use or not */
};

int writer_trash_add(struct state_writer *writer, uint64_t dir_id);
