/* bench_wal: what a batch costs. Run it on the file system that is to be measured:
 *
 *   TMPDIR=/var/tmp bench_wal        prints a row for each size of batch, without and with a sync each,
 *                                    and what the hand-over to the log's thread adds
 *   TMPDIR=/var/tmp bench_wal read   how fast a log is read at a restart, and read back */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "daemons/raftd/wal/writer.h"
#include "tests/unit/wal/wal_fixture.h"

enum {
    DATA_BYTES = 300,
    BATCH_MAX = 256,
    SYNCED_BATCHES = 3000
};
#define UNSYNCED_BYTES (UINT64_C(256) << 20)

static uint8_t data[DATA_BYTES];

static struct wal *make_log(const char *dir)
{
    struct wal *wal = NULL;
    struct err err;
    struct wal_config config = { .dir = dir };
    if (wal_create(&config, &fixture_base, &fixture_hard, &wal, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return wal;
}

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static void print_row(const char *what, unsigned batch, uint64_t *took_ns, unsigned count)
{
    uint64_t sum_ns = 0;
    for (unsigned i = 0; i < count; i++) {
        sum_ns += took_ns[i];
    }
    qsort(took_ns, count, sizeof(took_ns[0]), by_value);
    double mean_us = (double)sum_ns / count / 1e3;
    (void)printf("%-22s %4u entries: mean %8.2f us, p50 %8.2f, p99 %8.2f, max %9.2f; %7.1f MB/s\n",
            what, batch, mean_us, (double)took_ns[count / 2] / 1e3,
            (double)took_ns[count * 99 / 100] / 1e3, (double)took_ns[count - 1] / 1e3,
            batch * DATA_BYTES / mean_us);
}

static void fill(struct wal_entry *entries, unsigned batch, uint64_t last_index)
{
    for (unsigned i = 0; i < batch; i++) {
        entries[i] = (struct wal_entry){
            .index = last_index + 1 + i, .term = 1, .data = span_of(data, DATA_BYTES)
        };
    }
}

static void bench_append(const char *dir, unsigned batch, bool is_synced)
{
    struct wal *wal = make_log(dir);
    struct wal_entry entries[BATCH_MAX];
    struct wal_write write = { .entries = entries, .entry_count = batch };
    unsigned count =
            is_synced ? SYNCED_BATCHES
                      : (unsigned)MIN(UNSYNCED_BYTES / (batch * DATA_BYTES), UINT64_C(200000));
    uint64_t *took_ns = xcalloc(count, sizeof(*took_ns));
    struct err err;
    for (unsigned i = 0; i < count; i++) {
        fill(entries, batch, wal_last_index(wal));
        uint64_t start = clock_monotonic_ns();
        INVARIANT(wal_append(wal, &write, 1, &err) == 0);
        if (is_synced) {
            INVARIANT(wal_sync(wal, &err) == 0);
        }
        took_ns[i] = clock_monotonic_ns() - start;
        if (wal_wants_prepare(wal)) {
            (void)wal_prepare_next(wal, &err);
        }
    }
    print_row(is_synced ? "append + fdatasync" : "append", batch, took_ns, count);
    free(took_ns);
    (void)wal_close(wal);
    fixture_remove(dir);
}

/* ---- With the thread ------------------------------------------------------------------------------------------ */

struct waiter {
    pthread_mutex_t mutex;
    pthread_cond_t done;
    bool is_done;
};

static void on_done(void *user, struct list *items, const struct err *err UNUSED)
{
    struct waiter *waiter = user;
    (void)pthread_mutex_lock(&waiter->mutex);
    LIST_FOREACH (item, items, struct writer_item, link) {
        list_remove(&item->link);
    }
    waiter->is_done = true;
    (void)pthread_cond_signal(&waiter->done);
    (void)pthread_mutex_unlock(&waiter->mutex);
}

static void write_one(
        struct writer *writer, struct waiter *waiter, struct writer_item *item, bool is_inline)
{
    if (is_inline) {
        struct err err;
        INVARIANT(writer_write_inline(writer, item, &err) == 0);
        return;
    }
    waiter->is_done = false;
    writer_submit(writer, item);
    (void)pthread_mutex_lock(&waiter->mutex);
    while (!waiter->is_done) {
        (void)pthread_cond_wait(&waiter->done, &waiter->mutex);
    }
    (void)pthread_mutex_unlock(&waiter->mutex);
}

static void bench_writer(const char *dir, bool is_inline)
{
    struct wal *wal = make_log(dir);
    struct writer *writer = NULL;
    struct waiter waiter = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false };
    uint64_t *took_ns = xcalloc(SYNCED_BATCHES, sizeof(*took_ns));
    struct err err;
    INVARIANT(writer_start(wal, on_done, &waiter, &writer, &err) == 0);
    for (unsigned i = 0; i < SYNCED_BATCHES; i++) {
        struct wal_entry entry;
        struct writer_item item = { .write = { .entries = &entry, .entry_count = 1 } };
        fill(&entry, 1, wal_last_index(wal));
        list_init(&item.link);
        uint64_t start = clock_monotonic_ns();
        write_one(writer, &waiter, &item, is_inline);
        took_ns[i] = clock_monotonic_ns() - start;
    }
    print_row(is_inline ? "writer, inline" : "writer, by its thread", 1, took_ns, SYNCED_BATCHES);
    (void)writer_stop(writer);
    (void)wal_close(wal);
    free(took_ns);
    fixture_remove(dir);
}

/* ---- Reading -------------------------------------------------------------------------------------------------- */

static int count_bytes(void *user, const struct wal_entry *entry)
{
    *(uint64_t *)user += entry->data.bytes;
    return 0;
}

static void print_rate(const char *what, uint64_t bytes, uint64_t took_ns)
{
    (void)printf("%-34s %8.1f ms for %6.1f MB: %7.1f MB/s\n", what, (double)took_ns / 1e6,
            (double)bytes / 1e6, (double)bytes * 1e3 / (double)took_ns);
}

static void bench_read(const char *dir)
{
    struct wal *wal = make_log(dir);
    struct wal_entry entries[64];
    struct wal_write write = { .entries = entries, .entry_count = 64 };
    struct err err;
    while (wal_last_index(wal) * DATA_BYTES < UNSYNCED_BYTES / 2) {
        fill(entries, 64, wal_last_index(wal));
        INVARIANT(wal_append(wal, &write, 1, &err) == 0);
    }
    INVARIANT(wal_sync(wal, &err) == 0);
    (void)wal_close(wal);

    struct wal_config config = { .dir = dir };
    struct wal_record record;
    uint64_t bytes = 0;
    uint64_t start = clock_monotonic_ns();
    INVARIANT(wal_open(&config, &wal, &err) == 0);
    while (wal_read(wal, &record, &err) > 0) {
        bytes += record.kind == WAL_RECORD_ENTRY ? record.entry.data.bytes : 0;
    }
    print_rate("read at a restart", bytes, clock_monotonic_ns() - start);
    start = clock_monotonic_ns();
    INVARIANT(wal_start_append(wal, &err) == 0);
    print_rate("rewrite of the last segment", wal->end, clock_monotonic_ns() - start);
    bytes = 0;
    start = clock_monotonic_ns();
    for (uint64_t next = 1; next <= wal_last_index(wal);) {
        int r = wal_read_entries(wal, next, UINT64_MAX, 1 << 20, count_bytes, &bytes, &err);
        INVARIANT(r > 0);
        next += (uint64_t)r;
    }
    print_rate("read back, 1 MiB a call", bytes, clock_monotonic_ns() - start);
    start = clock_monotonic_ns();
    for (uint64_t i = 0; i < 1000; i++) {
        INVARIANT(
                wal_read_entries(wal, 1 + i * 401, UINT64_MAX, 1, count_bytes, &bytes, &err) == 1);
    }
    (void)printf("%-34s %8.1f us each\n", "read back, one entry",
            (double)(clock_monotonic_ns() - start) / 1e6);
    (void)wal_close(wal);
    fixture_remove(dir);
}

int main(int argc, char **argv UNUSED)
{
    void *state = NULL;
    if (fixture_setup(&state) < 0) {
        return 1;
    }
    const struct fixture *fixture = state;
    if (argc > 1) {
        bench_read(fixture->dir);
    } else {
        unsigned batches[] = { 1, 64, 256 };
        for (size_t i = 0; i < ARRAY_COUNT(batches); i++) {
            bench_append(fixture->dir, batches[i], false);
            bench_append(fixture->dir, batches[i], true);
        }
        bench_writer(fixture->dir, true);
        bench_writer(fixture->dir, false);
    }
    return fixture_teardown(&state);
}
