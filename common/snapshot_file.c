#include "common/snapshot_file.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

enum {
    HASH_BYTES = 32,
    HEAD_BYTES = SNAPSHOT_TRAILER_BYTES - HASH_BYTES,
};

static const char magic[8] = { 'Q', 'R', 'T', 'S', 'N', 'A', 'P', '1' };

void snapshot_path(
        const char *dir, uint64_t term, uint64_t index, char ret_path[SNAPSHOT_PATH_BYTES_MAX])
{
    (void)snprintf(ret_path, SNAPSHOT_PATH_BYTES_MAX, "%s/%016" PRIx64 "-%016" PRIx64 ".snap", dir,
            term, index);
}

int snapshot_data_bytes(int fd, const char *path, uint64_t *ret_bytes, struct err *err)
{
    struct stat stat;

    if (fstat(fd, &stat) < 0) {
        return err_errno(err, "stat %s", path);
    }
    if (!S_ISREG(stat.st_mode) || stat.st_size < SNAPSHOT_TRAILER_BYTES) {
        return err_set(err, -EUCLEAN, "%s: not a snapshot, or cut", path);
    }
    *ret_bytes = (uint64_t)stat.st_size - SNAPSHOT_TRAILER_BYTES;
    return 0;
}

void snapshot_hash_init(crypto_generichash_state *ret_hash)
{
    (void)crypto_generichash_init(ret_hash, NULL, 0, HASH_BYTES);
}

static void finish_hash(crypto_generichash_state *hash, const uint8_t *head, uint8_t *ret_hash)
{
    (void)crypto_generichash_update(hash, head, HEAD_BYTES);
    (void)crypto_generichash_final(hash, ret_hash, HASH_BYTES);
}

void snapshot_trailer_encode(const struct snapshot_info *info, uint64_t data_bytes,
        crypto_generichash_state hash, uint8_t ret_trailer[SNAPSHOT_TRAILER_BYTES])
{
    memcpy(ret_trailer, magic, sizeof magic);
    memcpy(ret_trailer + 8, &data_bytes, sizeof data_bytes);
    memcpy(ret_trailer + 16, &info->index, sizeof info->index);
    memcpy(ret_trailer + 24, &info->term, sizeof info->term);
    memcpy(ret_trailer + 32, &info->cluster_id, sizeof info->cluster_id);
    finish_hash(&hash, ret_trailer, ret_trailer + HEAD_BYTES);
}

int snapshot_trailer_check(const char *path, const uint8_t trailer[SNAPSHOT_TRAILER_BYTES],
        uint64_t data_bytes, crypto_generichash_state hash, struct snapshot_info *ret_info,
        struct err *err)
{
    uint8_t found[HASH_BYTES];
    uint64_t said_bytes;

    finish_hash(&hash, trailer, found);
    memcpy(&said_bytes, trailer + 8, sizeof said_bytes);
    if (memcmp(trailer, magic, sizeof magic) != 0 || said_bytes != data_bytes) {
        return err_set(err, -EUCLEAN, "%s: not a snapshot, or cut", path);
    }
    if (memcmp(trailer + HEAD_BYTES, found, sizeof found) != 0) {
        return err_set(err, -EUCLEAN, "%s: its checksum does not match", path);
    }
    memcpy(&ret_info->index, trailer + 16, sizeof ret_info->index);
    memcpy(&ret_info->term, trailer + 24, sizeof ret_info->term);
    memcpy(&ret_info->cluster_id, trailer + 32, sizeof ret_info->cluster_id);
    ret_info->bytes = data_bytes + SNAPSHOT_TRAILER_BYTES;
    return 0;
}
