#include "tests/unit/wal/writer_bench.h"

#include <errno.h>
#include <unistd.h>

#include "tests/unit/patience.h"

enum {
    MOMENT_MS = 10
};

void bench_lock(struct bench *bench)
{
    INVARIANT_EQ(pthread_mutex_lock(&bench->mutex), 0);
}

void bench_unlock(struct bench *bench)
{
    INVARIANT_EQ(pthread_mutex_unlock(&bench->mutex), 0);
}

/* The log's mutex is for moments only: whoever calls the system may not hold it. It is made one that tells its holder
 * from others (set_up_check), so no time has to pass before we know. */
static void expect_unlocked(struct bench *bench)
{
    if (bench->wal == NULL) {
        return; /* being made: nobody else is there */
    }
    int r = pthread_mutex_lock(&bench->wal->mutex);
    if (r == 0) {
        (void)pthread_mutex_unlock(&bench->wal->mutex);
        return;
    }
    INVARIANT_EQ(r, EDEADLK);
    bench_lock(bench);
    bench->is_locked_out = true;
    bench_unlock(bench);
}

static void set_up_check(struct wal *wal)
{
    pthread_mutexattr_t attributes;
    (void)pthread_mutexattr_init(&attributes);
    (void)pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    (void)pthread_mutex_destroy(&wal->mutex);
    (void)pthread_mutex_init(&wal->mutex, &attributes);
    (void)pthread_mutexattr_destroy(&attributes);
}

static int gated_sync(void *user, int fd)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    bench_lock(bench);
    bench->first = bench->waiting++ == 0 ? bench->arrived : bench->first;
    unsigned number = bench->arrived++;
    (void)pthread_cond_broadcast(&bench->changed);
    while (bench->is_gate_closed && (number == bench->first || bench->passes == 0)) {
        (void)pthread_cond_wait(&bench->changed, &bench->mutex);
    }
    bench->passes -= bench->passes > 0;
    bench->waiting--;
    bool fails = bench->fails_first && number == bench->first;
    int r = fails ? -1 : bench->fault.io.sync_data(bench->fault.io.user, fd); /* it counts */
    int code = fails ? EIO : errno;
    bench_unlock(bench);
    errno = code;
    return r;
}

/* The other calls have the fault as their user; the table has one user for all. The fault is looked at and counted by
 * whichever of the writer's threads calls: under the mutex. */
static int pass_create(void *user, int dir_fd, const char *name)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    bench_lock(bench);
    int r = bench->fault.io.create(&bench->fault, dir_fd, name);
    bench_unlock(bench);
    return r;
}

static ssize_t pass_pwritev(
        void *user, int fd, const struct iovec *parts, int part_count, off_t offset)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    bench_lock(bench);
    ssize_t r = bench->fault.io.pwritev(&bench->fault, fd, parts, part_count, offset);
    bench_unlock(bench);
    return r;
}

static int pass_allocate(void *user, int fd, off_t bytes)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    bench_lock(bench);
    int r = bench->fault.io.allocate(&bench->fault, fd, bytes);
    bench_unlock(bench);
    return r;
}

static int pass_sync_file(void *user, int fd)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    bench_lock(bench);
    int r = bench->fault.io.sync_file(&bench->fault, fd);
    bench_unlock(bench);
    return r;
}

static int pass_rename(void *user, int dir_fd, const char *from, const char *to)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    bench_lock(bench);
    int r = bench->fault.io.rename(&bench->fault, dir_fd, from, to);
    bench_unlock(bench);
    return r;
}

static int pass_unlink(void *user, int dir_fd, const char *name)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    bench_lock(bench);
    int r = bench->fault.io.unlink(&bench->fault, dir_fd, name);
    bench_unlock(bench);
    return r;
}

static int pass_open(void *user, int dir_fd, const char *name, bool is_to_write)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    bench_lock(bench);
    bool fails = is_to_write && bench->opens_left == 0;
    bench->opens_left -= is_to_write && !fails;
    errno = EMFILE;
    int r = fails ? -1 : bench->fault.io.open(&bench->fault, dir_fd, name, is_to_write);
    bench_unlock(bench);
    return r;
}

static void pass_close(void *user, int fd)
{
    struct bench *bench = user;
    expect_unlocked(bench);
    bench->fault.io.close(&bench->fault, fd);
}

void bench_on_done(void *user, struct list *items, const struct err *err)
{
    struct bench *bench = user;
    bench_lock(bench);
    LIST_FOREACH (item, items, struct writer_item, link) {
        list_remove(&item->link);
        bench->done_results[bench->done_count] = item->result;
        bench->done_seqs[bench->done_count++] = item->write_seq;
    }
    bench->batch_count++;
    bench->last_code = err->code;
    (void)pthread_cond_broadcast(&bench->changed);
    while (bench->lingers) {
        (void)pthread_cond_wait(&bench->changed, &bench->mutex);
    }
    bench_unlock(bench);
}

void bench_set_lingers(struct bench *bench, bool lingers)
{
    bench_lock(bench);
    bench->lingers = lingers;
    (void)pthread_cond_broadcast(&bench->changed);
    bench_unlock(bench);
}

int bench_setup(void **state)
{
    struct bench *bench = xcalloc(1, sizeof(*bench));
    void *fixture = NULL;
    if (fixture_setup(&fixture) < 0) {
        return -1;
    }
    bench->fixture = fixture;
    fault_init(&bench->fault);
    bench->io = wal_io_system;
    bench->io.user = bench;
    bench->io.create = pass_create;
    bench->io.pwritev = pass_pwritev;
    bench->io.allocate = pass_allocate;
    bench->io.sync_data = gated_sync;
    bench->io.sync_file = pass_sync_file;
    bench->io.rename = pass_rename;
    bench->io.unlink = pass_unlink;
    bench->io.open = pass_open;
    bench->io.close = pass_close;
    bench->opens_left = UINT_MAX;
    (void)pthread_mutex_init(&bench->mutex, NULL);
    (void)pthread_cond_init(&bench->changed, NULL);
    struct wal_config config = { .dir = bench->fixture->dir,
        .segment_bytes = SEGMENT_BYTES,
        .reserve_bytes = 2048,
        .io = &bench->io };
    struct err err;
    if (wal_create(&config, &fixture_base, &fixture_hard, &bench->wal, &err) < 0) {
        return -1;
    }
    set_up_check(bench->wal);
    if (writer_start(bench->wal, bench_on_done, bench, &bench->writer, &err) < 0) {
        return -1;
    }
    *state = bench;
    return 0;
}

int bench_teardown(void **state)
{
    struct bench *bench = *state;
    bench->writer = writer_stop(bench->writer);
    bench->wal = wal_close(bench->wal);
    bool is_sound = !bench->is_locked_out;
    void *fixture = bench->fixture;
    (void)fixture_teardown(&fixture);
    (void)pthread_mutex_destroy(&bench->mutex);
    (void)pthread_cond_destroy(&bench->changed);
    free(bench);
    return is_sound ? 0 : -1;
}

struct writer_item *bench_item(struct bench *bench, unsigned i)
{
    struct wal_entry *entry = &bench->entries[i];
    *entry = (struct wal_entry){ .index = i + 1, .term = 1, .time_ns = (i + 1) * UINT64_C(10) };
    entry->kind = (uint8_t)(entry->index % 200);
    entry->data = span_of(bench->data[i], entry_data(entry->index, 1, bench->data[i]));
    bench->items[i].write = (struct wal_write){ .entries = entry, .entry_count = 1 };
    bench->items[i].write_seq = i;
    list_init(&bench->items[i].link);
    return &bench->items[i];
}

void bench_close_gate(struct bench *bench)
{
    bench_lock(bench);
    bench->is_gate_closed = true;
    bench_unlock(bench);
}

void bench_open_gate(struct bench *bench)
{
    bench_lock(bench);
    bench->is_gate_closed = false;
    (void)pthread_cond_broadcast(&bench->changed);
    bench_unlock(bench);
}

void bench_await_waiting_sync(struct bench *bench)
{
    bench_lock(bench);
    while (bench->waiting == 0) {
        (void)pthread_cond_wait(&bench->changed, &bench->mutex);
    }
    bench_unlock(bench);
}

unsigned bench_waiting_now(struct bench *bench)
{
    bench_lock(bench);
    unsigned waiting = bench->waiting;
    bench_unlock(bench);
    return waiting;
}

unsigned bench_done_now(struct bench *bench)
{
    bench_lock(bench);
    unsigned done = bench->done_count;
    bench_unlock(bench);
    return done;
}

void bench_set_disk_full(struct bench *bench, bool is_full)
{
    bench_lock(bench);
    bench->fault.is_disk_full = is_full;
    bench_unlock(bench);
}

void bench_let_through(struct bench *bench, unsigned count)
{
    bench_lock(bench);
    bench->passes = count;
    (void)pthread_cond_broadcast(&bench->changed);
    bench_unlock(bench);
}

void bench_await_more_waiting(struct bench *bench, unsigned before)
{
    for (uint64_t i = 0; i < patience_ms(MOMENT_MS) && bench_waiting_now(bench) == before; i++) {
        (void)usleep(1000);
    }
}

void bench_await_done(struct bench *bench, unsigned count)
{
    bench_lock(bench);
    while (bench->done_count < count) {
        (void)pthread_cond_wait(&bench->changed, &bench->mutex);
    }
    bench_unlock(bench);
}

void bench_expect_recovered(struct bench *bench, uint64_t last_index)
{
    bench->writer = writer_stop(bench->writer);
    bench->wal = wal_close(bench->wal);
    struct wal_config config = { .dir = bench->fixture->dir, .segment_bytes = SEGMENT_BYTES };
    struct model *model = model_new();
    assert_int_equal(fixture_recover(&config, false, model, NULL, NULL), 0);
    assert_int_equal(model->last_index, last_index);
    free(model);
}
