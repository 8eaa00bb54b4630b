/* snapshot_file.h: how a snapshot file is named and ends, for who makes, loads or copies one.
 *
 *    0                      data_bytes        +8       +8            +8      +8     +8           +32
 *    ├─compact LMDB copy────┼─"QRTSNAP1"──────┼─data_bytes──┼─index──┼─term──┼─cluster─┼─BLAKE2b-256──┤
 *
 * The hash covers everything before it, so any flipped bit and any truncation is found. */
#pragma once

#include <sodium.h>

#include "common/err.h"

struct snapshot_info {
    uint64_t index;
    uint64_t term;
    uint64_t cluster_id; /* 0: a backup's, of no cluster */
    uint64_t bytes;      /* of the file */
};

enum {
    SNAPSHOT_TRAILER_BYTES = 8 + 8 + 8 + 8 + 8 + 32,
    SNAPSHOT_PATH_BYTES_MAX = 4096
};

/* <dir>/<term>-<index>.snap, 16 hex digits each. */
void snapshot_path(
        const char *dir, uint64_t term, uint64_t index, char ret_path[SNAPSHOT_PATH_BYTES_MAX]);

/* What a file that is open has before its trailer. -EUCLEAN: it is too short to be a snapshot, or no file. */
int snapshot_data_bytes(int fd, const char *path, uint64_t *ret_bytes, struct err *err);

void snapshot_hash_init(crypto_generichash_state *ret_hash);

/* The trailer of data that `hash` has seen. info->bytes is not looked at. */
void snapshot_trailer_encode(const struct snapshot_info *info, uint64_t data_bytes,
        crypto_generichash_state hash, uint8_t ret_trailer[SNAPSHOT_TRAILER_BYTES]);

/* The trailer of a file (path: for err) against what was read before it. -EUCLEAN: damaged. */
int snapshot_trailer_check(const char *path, const uint8_t trailer[SNAPSHOT_TRAILER_BYTES],
        uint64_t data_bytes, crypto_generichash_state hash, struct snapshot_info *ret_info,
        struct err *err);
