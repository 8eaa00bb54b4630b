/* bench_apply.c: what a PUT costs stored: decode, apply, event, history, publication, commit. Run by hand:
 *
 *   bench_apply DIR [KEYS [BATCH [WRITES]]]
 *
 * Fills an empty state in DIR with KEYS keys of 256 bytes, overwrites random ones, then deletes all at once and
 * goes on writing other keys while sync entries free them. */
#include <stdlib.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "daemons/stored/replica.h"
#include "proto/op.h"

enum {
    VALUE_BYTES = 256,
    BATCH_MAX = 4096
};

struct feed {
    struct replica *replica;
    struct buf bytes;
    size_t ends[BATCH_MAX];
    struct span items[BATCH_MAX];
    uint64_t index;
    uint64_t deadline_ns;
};

static void add_op(struct feed *feed, size_t position, struct op op)
{
    struct buf op_bytes = BUF_INIT;

    op.instance = 7;
    op.counter = feed->index;
    op_encode(&op, &op_bytes);
    struct entry entry = { .index = feed->index++, .term = 1, .time_ns = 1000, .kind = ENTRY_OP };
    entry.data = buf_span(&op_bytes);
    SET(&entry, entry_tag_data);
    entry_encode(&entry, &feed->bytes);
    feed->ends[position] = feed->bytes.bytes;
    buf_fini(&op_bytes);
}

static void add_put(struct feed *feed, size_t position, uint64_t key)
{
    static const uint8_t value[VALUE_BYTES] = { 'v' };
    char path[64];

    int path_bytes = snprintf(path, sizeof path, "/bench/key%07" PRIu64, key);
    struct op op = { .kind = OP_SET };
    op.path = span_of(path, (size_t)path_bytes);
    op.value = span_of(value, sizeof value);
    SET(&op, op_tag_path);
    SET(&op, op_tag_value);
    add_op(feed, position, op);
}

static uint64_t apply(struct feed *feed, size_t count)
{
    struct err err = { 0 };
    struct replica_result result;
    struct apply batch = { .prev_term = feed->index - count == 1 ? 0 : 1 };

    batch.prev_index = feed->index - count - 1;
    for (size_t i = 0, start = 0; i < count; start = feed->ends[i], i++) {
        feed->items[i] = span_of(feed->bytes.data + start, feed->ends[i] - start);
    }
    batch.entries = (struct span_list){ feed->items, count };
    uint64_t begin_ns = clock_monotonic_ns();
    int code = replica_apply(feed->replica, &batch, 1, &result, &err);
    if (code < 0 || result.refused) {
        (void)fprintf(stderr, "apply: %d %s\n", code, err.text);
        exit(1);
    }
    buf_clear(&feed->bytes);
    feed->deadline_ns = result.next_deadline_ns;
    return clock_monotonic_ns() - begin_ns;
}

/* What others' batches cost while a subtree is freed. */
static void empty_trash(struct feed *feed, size_t batch)
{
    uint64_t worst_ns = 0;
    uint64_t spent_ns = 0;
    unsigned batches = 0;
    struct op op = { .kind = OP_DELETE, .path = SPAN_LIT("/bench"), .recursive = true };
    SET(&op, op_tag_path);
    SET(&op, op_tag_recursive);

    add_op(feed, 0, op);
    uint64_t delete_ns = apply(feed, 1);
    do {
        op = (struct op){ .kind = OP_SYNC };
        add_op(feed, 0, op);
        for (size_t i = 1; i < batch; i++) {
            op = (struct op){ .kind = OP_SET, .path = SPAN_LIT("/other") };
            SET(&op, op_tag_path);
            add_op(feed, i, op);
        }
        uint64_t took_ns = apply(feed, batch);
        worst_ns = MAX(worst_ns, took_ns);
        spent_ns += took_ns;
        batches++;
    } while (feed->deadline_ns != 0);
    (void)printf("recursive delete: %.1f us; then %u batches of %zu, mean %.0f us, worst %.0f us\n",
            (double)delete_ns / 1e3, batches, batch, (double)spent_ns / batches / 1e3,
            (double)worst_ns / 1e3);
}

int main(int argc, char **argv)
{
    struct err err = { 0 };
    static struct feed feed = { .index = 1 };
    uint64_t keys = argc > 2 ? strtoull(argv[2], NULL, 10) : 10000;
    size_t batch = argc > 3 ? strtoull(argv[3], NULL, 10) : 64;
    uint64_t writes = argc > 4 ? strtoull(argv[4], NULL, 10) : 200000;
    struct replica_config config = { .dir = argc > 1 ? argv[1] : ".",
        .create = true,
        .boot_id = "x",
        .history = { .window = 1000, .count = 65536, .bytes = 64 << 20 } };

    (void)mkdir(config.dir, 0700);
    if (replica_open(&config, &feed.replica, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (uint64_t key = 0; key < keys;) {
        size_t count = 0;
        while (count < 1000 && key < keys) {
            add_put(&feed, count++, key++);
        }
        (void)apply(&feed, count);
    }
    uint64_t spent_ns = 0;
    uint64_t random = 88172645463325252U;
    for (uint64_t done = 0; done < writes; done += batch) {
        for (size_t i = 0; i < batch; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            add_put(&feed, i, random % keys);
        }
        spent_ns += apply(&feed, batch);
    }
    (void)printf("keys=%" PRIu64 " batch=%zu writes=%" PRIu64 " us_per_put=%.2f file_mb=%" PRIu64
                 "\n",
            keys, batch, writes, (double)spent_ns / 1e3 / (double)writes,
            state_writer_file_bytes(replica_writer(feed.replica)) >> 20);
    empty_trash(&feed, batch);
    (void)replica_close(feed.replica);
    buf_fini(&feed.bytes);
    return 0;
}
