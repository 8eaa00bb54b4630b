/* fuzz_wal.c: the log's reader on files from a hostile disk. The first byte chooses: the rest is a segment file as it
 * is, or the bytes of records whose checksums we put right, so that what lies behind the checksums is reached too.
 * Whatever comes: an error or records in a sound order, and a log that goes on; never a crash. */
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "daemons/raftd/wal/internal.h"

enum {
    SEGMENT_BYTES = 8 << 10,
    FILE_BYTES_MAX = 64 << 10,
    SALT = 0x5a17
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* ---- A file --------------------------------------------------------------------------------------------------- */

static void put_u32(struct buf *file, uint32_t value)
{
    buf_append(file, &value, sizeof(value));
}

/* Any payload under a right checksum. */
static void put_record(struct buf *file, uint32_t type, struct span payload, uint32_t *crc)
{
    size_t start = file->bytes;
    put_u32(file, (uint32_t)payload.bytes);
    put_u32(file, type);
    put_u32(file, 0);
    buf_append_span(file, payload);
    *crc = crc32c(*crc, file->data + start, 8);
    *crc = crc32c(*crc, payload.data, payload.bytes);
    memcpy(file->data + start + 8, crc, sizeof(*crc));
    while (file->bytes % RECORD_ALIGN != 0) {
        buf_append_byte(file, 0);
    }
}

static struct span take(struct span *data, size_t bytes)
{
    struct span taken = span_of(data->data, MIN(bytes, data->bytes));
    *data = span_from(*data, taken.bytes);
    return taken;
}

static uint8_t take_byte(struct span *data)
{
    struct span taken = take(data, 1);
    return taken.bytes == 0 ? 0 : taken.data[0];
}

/* A byte for the type, one for the length, the payload; a type of 0 ends the batch. An entry gets the index it should
 * have if its length is odd. */
static uint32_t put_records(struct buf *file, struct span *data, uint64_t *index, uint32_t *crc)
{
    uint32_t count = 0;
    while (data->bytes > 0 && file->bytes < FILE_BYTES_MAX) {
        uint32_t type = take_byte(data) % 10;
        if (type == 0) {
            break;
        }
        uint8_t payload[256] = { 0 };
        size_t payload_bytes = take_byte(data);
        struct span taken = take(data, payload_bytes);
        memcpy(payload, taken.data == NULL ? payload : taken.data, taken.bytes);
        if (type == RECORD_ENTRY && payload_bytes % 2 == 1) {
            payload_bytes = MAX(payload_bytes, (size_t)28);
            memset(payload, 0, 4);
            memcpy(payload + 4, index, sizeof(*index));
            ++*index;
        }
        put_record(file, type, span_of(payload, payload_bytes), crc);
        count++;
    }
    return count;
}

static void put_batch(
        struct buf *file, struct span *data, uint64_t *index, bool is_head, uint32_t *crc)
{
    struct record_batch batch = {
        .crc_before = *crc,
        .salt = SALT,
        .offset = file->bytes,
        .synced = is_head ? 0 : file->bytes / 256 * take_byte(data),
    };
    CLEANUP(buf_fini) struct buf records = BUF_INIT;
    /* The header comes first and has to know the records' size: once for that, once for the checksums. */
    for (int pass = 0; pass < 2; pass++) {
        struct span rest = *data;
        uint64_t next = *index;
        uint32_t chain = *crc;
        uint8_t header[RECORD_BATCH_BYTES];
        batch.batch_bytes = (uint32_t)(RECORD_BATCH_BYTES + records.bytes);
        (void)record_put_batch(header, &batch, &chain);
        buf_clear(&records);
        batch.count = 0;
        if (is_head) {
            uint8_t segment[RECORD_SEGMENT_BYTES];
            uint8_t *end = record_put_segment(segment,
                    &(struct record_segment){ .version = RECORD_VERSION, .first_index = 1 },
                    &chain);
            buf_append(&records, segment, (size_t)(end - segment));
            batch.count = 1;
        }
        batch.count += put_records(&records, &rest, &next, &chain);
        if (pass == 1) {
            buf_append(file, header, sizeof(header));
            buf_append_span(file, buf_span(&records));
            *crc = chain;
            *data = rest;
            *index = next;
        }
    }
}

static void make_file(struct buf *file, struct span data)
{
    bool is_raw = take_byte(&data) % 4 == 0;
    if (is_raw) {
        buf_append_span(file, data);
        return;
    }
    uint64_t index = 1;
    uint32_t crc = 0;
    put_batch(file, &data, &index, true, &crc);
    while (data.bytes > 0 && file->bytes < FILE_BYTES_MAX) {
        put_batch(file, &data, &index, false, &crc);
    }
}

/* ---- A log ---------------------------------------------------------------------------------------------------- */

static int remove_one(
        const char *path, const struct stat *status UNUSED, int flag UNUSED, struct FTW *ftw UNUSED)
{
    return remove(path);
}

static const char *fresh_dir(char ret_dir[64])
{
    const char *roots[] = { "/dev/shm/quorate-fuzz-XXXXXX", "/tmp/quorate-fuzz-XXXXXX" };
    for (size_t i = 0; i < ARRAY_COUNT(roots); i++) {
        (void)snprintf(ret_dir, 64, "%s", roots[i]);
        if (mkdtemp(ret_dir) != NULL) {
            return ret_dir;
        }
    }
    abort();
}

static int no_sync(void *user UNUSED, int fd UNUSED)
{
    return 0;
}

static int see_entry(void *user, const struct wal_entry *entry)
{
    uint64_t *next = user;
    INVARIANT_EQ(entry->index, *next);
    ++*next;
    return 0;
}

static void go_on(struct wal *wal)
{
    struct err err;
    if (wal_start_append(wal, &err) < 0) {
        return;
    }
    uint64_t next = wal_first_index(wal);
    if (next <= wal_last_index(wal)) {
        (void)wal_read_entries(wal, next, UINT64_MAX, SIZE_MAX, see_entry, &next, &err);
    }
    bool has_room_for_more = wal_last_index(wal) < UINT64_MAX - 1;
    struct wal_entry entry = { .index = wal_last_index(wal) + 1, .data = SPAN_LIT("x") };
    struct wal_write write = { .entries = &entry, .entry_count = 1 };
    if (has_room_for_more && wal_append(wal, &write, 1, &err) == 0) {
        (void)wal_sync(wal, &err);
    }
}

static void open_log(const char *dir)
{
    struct wal_io io = wal_io_system;
    io.sync_data = io.sync_file = no_sync;
    struct wal_config config = { .dir = dir, .segment_bytes = SEGMENT_BYTES, .io = &io };
    struct wal *wal = NULL;
    struct err err;
    if (wal_open(&config, &wal, &err) < 0) {
        return;
    }
    struct wal_record record;
    int r;
    while ((r = wal_read(wal, &record, &err)) > 0) {
    }
    if (r == 0) {
        go_on(wal);
    }
    (void)wal_close(wal);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    CLEANUP(buf_fini) struct buf file = BUF_INIT;
    char dir[64];
    char path[128];

    make_file(&file, span_of(data, bytes));
    (void)snprintf(path, sizeof(path), "%s/%016x-%016x.wal", fresh_dir(dir), 0, 1);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    if (fd < 0 || write(fd, file.data, file.bytes) != (ssize_t)file.bytes) {
        abort();
    }
    (void)close(fd);
    open_log(dir);
    (void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return 0;
}
