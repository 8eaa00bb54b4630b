#include "daemons/raftd/wal/writer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "common/buf.h"
#include "common/clock.h"
#include "daemons/raftd/wal/pace.h"

/* A batch closes at this many bytes of data, so that a long queue is made durable piece by piece. */
enum {
    GROUP_BYTES_MAX = 8 << 20
};

/* What one thread has in hand: taken from the queue, appended, synced, handed back. */
struct group {
    struct list items;
    size_t entry_count;
    uint64_t turn;   /* results are taken and handed back in this order */
    bool is_refused; /* something of it found no space, or was behind what did */
    bool has_sync;   /* one was begun */
    bool is_stuck;   /* the final error struck: err says which */
    struct wal_sync sync;
    struct err err;
    struct pace_batch pace;
};

struct writer {
    struct wal *wal;
    writer_done_fn on_done;
    void *user;
    pthread_t threads[WAL_SYNCS_MAX];
    struct buf writes; /* of struct wal_write; whoever is appending */

    pthread_mutex_t mutex; /* for the rest */
    pthread_cond_t wake;
    pthread_cond_t company; /* for whoever is_waiting */
    pthread_cond_t turned;
    unsigned thread_count;
    struct list queue;
    size_t queued_entries;
    struct pace pace;
    uint64_t turns_taken;
    uint64_t turns_done;
    uint64_t last_begun_ns;
    size_t enough;     /* entries, for whoever is_waiting */
    bool is_waiting;   /* whoever is appending waits for more before it takes the queue */
    bool is_appending; /* a thread, or the owner's, takes the queue and appends */
    bool is_refusing;  /* something found no space: nothing behind it is taken */
    bool is_stopping;
    bool is_space_due; /* the next segment's space is to be secured */
    bool is_purge_due;
    uint64_t purge_index;
};

/* ---- Appending: one at a time --------------------------------------------------------------------------------- */

static uint64_t data_bytes(const struct wal_write *write)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < write->entry_count; i++) {
        bytes += write->entries[i].data.bytes;
    }
    return bytes;
}

/* Moves the front of the queue, as much as makes a batch. Under mutex. */
static void take_items(struct writer *writer, struct group *group)
{
    uint64_t bytes = 0;
    buf_clear(&writer->writes);
    list_init(&group->items);
    while (!list_is_empty(&writer->queue) && bytes < GROUP_BYTES_MAX) {
        struct writer_item *item = CONTAINER_OF(writer->queue.next, struct writer_item, link);
        bytes += data_bytes(&item->write);
        group->entry_count += item->write.entry_count;
        buf_append(&writer->writes, &item->write, sizeof(item->write));
        list_remove(&item->link);
        list_append(&group->items, &item->link);
    }
    writer->queued_entries -= group->entry_count;
}

static void set_results(struct group *group, int result)
{
    LIST_FOREACH (item, &group->items, struct writer_item, link) {
        item->result = result;
    }
}

/* One by one, up to the first that finds no space, and behind it what may go ahead. */
static void append_one_by_one(struct writer *writer, struct group *group)
{
    bool is_over = group->is_refused;
    group->is_refused = true;
    LIST_FOREACH (item, &group->items, struct writer_item, link) {
        if (is_over && !item->is_ahead) {
            item->result = err_set(&group->err, -ENOSPC, "a write before this one waits for space");
            continue;
        }
        item->result = wal_append(writer->wal, &item->write, 1, &group->err);
        is_over |= item->result == -ENOSPC;
        if (item->result < 0 && item->result != -ENOSPC) {
            set_results(group, item->result); /* final: what was appended will not be synced */
            group->is_stuck = true;
            return;
        }
    }
}

/* All in one batch, where it fits on the disk. */
static void append_items(struct writer *writer, struct group *group)
{
    const struct wal_write *writes = (const struct wal_write *)(const void *)writer->writes.data;
    size_t write_count = writer->writes.bytes / sizeof(*writes);
    if (group->is_refused) {
        append_one_by_one(writer, group);
        return;
    }
    int r = wal_append(writer->wal, writes, write_count, &group->err);
    if (r == -ENOSPC && write_count > 1) {
        append_one_by_one(writer, group);
        return;
    }
    set_results(group, r);
    group->is_refused = r == -ENOSPC;
    group->is_stuck = r < 0 && r != -ENOSPC;
}

static bool needs_sync(const struct group *group)
{
    if (group->is_stuck) {
        return false;
    }
    LIST_FOREACH (item, &group->items, const struct writer_item, link) {
        if (item->result == 0 && !item->skip_sync) {
            return true;
        }
    }
    return false;
}

static void append_group(struct writer *writer, struct group *group)
{
    append_items(writer, group);
    if (needs_sync(group)) {
        int r = wal_sync_begin(writer->wal, &group->sync, &group->err);
        group->has_sync = r > 0;
        if (r < 0) {
            set_results(group, r);
        }
    }
}

/* ---- Syncing: as many at once as the pace allows --------------------------------------------------------------- */

/* Under mutex. */
static unsigned under_way(const struct writer *writer)
{
    return (unsigned)(writer->turns_taken - writer->turns_done);
}

/* Waits, with the mutex held, while more entries are worth it. Returns whether it waited. */
static bool await_company(struct writer *writer)
{
    uint64_t now_ns = clock_monotonic_ns();
    struct pace_wait wait = pace_wait(
            &writer->pace, &(struct pace_now){ .queued = writer->queued_entries,
                                   .under_way = under_way(writer),
                                   .since_last_us = (now_ns - writer->last_begun_ns) / 1000 });
    if (wait.wait_us == 0) {
        return false;
    }
    uint64_t until_ns = now_ns + wait.wait_us * 1000;
    struct timespec until = { .tv_sec = (time_t)(until_ns / 1000000000U),
        .tv_nsec = (long)(until_ns % 1000000000U) };
    int r = 0;
    writer->enough = wait.enough;
    writer->is_waiting = true;
    while (r == 0 && writer->queued_entries < wait.enough && !writer->is_stopping) {
        r = pthread_cond_timedwait(&writer->company, &writer->mutex, &until);
    }
    writer->is_waiting = false;
    return true;
}

/* Under mutex. */
static bool may_begin(const struct writer *writer)
{
    return !list_is_empty(&writer->queue) && !writer->is_appending &&
           under_way(writer) < pace_syncs(&writer->pace);
}

/* Under mutex: the group is the caller's to append. */
static void begin_group(struct writer *writer, struct group *group)
{
    writer->is_appending = true; /* nobody writes inline past a queue that waits */
    *group = (struct group){ .pace.began = writer->queued_entries };
    group->pace.was_waiting = await_company(writer);
    group->pace.was_beside = under_way(writer) > 0;
    writer->last_begun_ns = clock_monotonic_ns();
    group->is_refused = writer->is_refusing;
    group->turn = writer->turns_taken++;
    take_items(writer, group);
    group->pace.count = group->entry_count;
}

static void start_thread_if_due(struct writer *writer);

/* Under mutex. Someone else may append while this group is synced. */
static void end_appending(struct writer *writer, const struct group *group)
{
    writer->is_appending = false;
    writer->is_refusing |= group->is_refused;
    if (may_begin(writer)) {
        start_thread_if_due(writer);
        (void)pthread_cond_signal(&writer->wake);
    }
}

/* What has queued up by then came while the group was synced. What comes once its answers are told may be the same
 * clients again: counted twice, they would be waited for in vain. */
static void await_turn(struct writer *writer, struct group *group)
{
    (void)pthread_mutex_lock(&writer->mutex);
    while (writer->turns_done != group->turn) {
        (void)pthread_cond_wait(&writer->turned, &writer->mutex);
    }
    group->pace.queued = writer->queued_entries;
    (void)pthread_mutex_unlock(&writer->mutex);
}

/* Called and returns with the mutex held; the turn is the group's. */
static void end_group(struct writer *writer, const struct group *group)
{
    bool wants_prepare = wal_wants_prepare(writer->wal);
    if (group->has_sync) {
        pace_done(&writer->pace, &group->pace);
    }
    writer->turns_done++;
    writer->is_space_due |= wants_prepare;
    (void)pthread_cond_broadcast(&writer->turned);
}

/* Called and returns with the mutex held, works without it. */
static void write_group(struct writer *writer)
{
    struct group group;
    begin_group(writer, &group);
    (void)pthread_mutex_unlock(&writer->mutex);

    uint64_t began_ns = clock_monotonic_ns();
    append_group(writer, &group);
    (void)pthread_mutex_lock(&writer->mutex);
    end_appending(writer, &group);
    (void)pthread_mutex_unlock(&writer->mutex);

    int result = group.has_sync ? wal_sync_run(writer->wal, &group.sync) : 0;
    group.pace.sync_us = (clock_monotonic_ns() - began_ns) / 1000;
    await_turn(writer, &group);
    if (group.has_sync) {
        int r = wal_sync_end(writer->wal, &group.sync, result, &group.err);
        if (r < 0) {
            set_results(&group, r);
        }
    }
    writer->on_done(writer->user, &group.items, &group.err);
    INVARIANT(list_is_empty(&group.items));
    (void)pthread_mutex_lock(&writer->mutex);
    end_group(writer, &group);
}

/* What can wait: called and returns with the mutex held, works without it. A failure shows where it matters, in the
 * next append. */
static void keep_house(struct writer *writer)
{
    bool is_space_due = writer->is_space_due;
    bool is_purge_due = writer->is_purge_due;
    uint64_t purge_index = writer->purge_index;
    writer->is_space_due = writer->is_purge_due = false;
    (void)pthread_mutex_unlock(&writer->mutex);
    if (is_purge_due) {
        (void)wal_purge_before(writer->wal, purge_index, NULL);
    }
    if (is_space_due) {
        (void)wal_prepare_next(writer->wal, NULL);
    }
    (void)pthread_mutex_lock(&writer->mutex);
}

static bool has_house_work(const struct writer *writer)
{
    return writer->is_space_due || writer->is_purge_due;
}

static void *run(void *user)
{
    struct writer *writer = user;

    (void)pthread_mutex_lock(&writer->mutex);
    for (;;) {
        if (has_house_work(writer)) {
            keep_house(writer); /* first, or a busy log would never come to it */
        } else if (may_begin(writer)) {
            write_group(writer);
        } else if (writer->is_stopping && list_is_empty(&writer->queue)) {
            break;
        } else {
            (void)pthread_cond_wait(&writer->wake, &writer->mutex);
        }
    }
    (void)pthread_cond_broadcast(&writer->wake);
    (void)pthread_mutex_unlock(&writer->mutex);
    return NULL;
}

static int start_thread(struct writer *writer, struct err *err)
{
    pthread_t *thread = &writer->threads[writer->thread_count];
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
    int r = pthread_create(thread, NULL, run, writer);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0) {
        return err_set(err, -r, "start the log's thread: %s", strerror(r));
    }
    (void)pthread_setname_np(*thread, "wal");
    writer->thread_count++;
    return 0;
}

/* Under mutex: the pace allows one more than there are threads free for it. Without it the next that ends goes on. */
static void start_thread_if_due(struct writer *writer)
{
    if (under_way(writer) >= writer->thread_count && writer->thread_count < WAL_SYNCS_MAX &&
            !writer->is_stopping) {
        (void)start_thread(writer, NULL);
    }
}

static void writer_free(struct writer *writer)
{
    (void)pthread_mutex_destroy(&writer->mutex);
    (void)pthread_cond_destroy(&writer->wake);
    (void)pthread_cond_destroy(&writer->company);
    (void)pthread_cond_destroy(&writer->turned);
    buf_fini(&writer->writes);
    free(writer);
}

int writer_start(struct wal *wal, writer_done_fn on_done, void *user, struct writer **ret_writer,
        struct err *err)
{
    struct writer *writer = xcalloc(1, sizeof(*writer));
    writer->wal = wal;
    writer->on_done = on_done;
    writer->user = user;
    writer->is_space_due = true;
    writer->pace.syncs_max = WAL_SYNCS_MAX;
    list_init(&writer->queue);
    (void)pthread_mutex_init(&writer->mutex, NULL);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&writer->wake, NULL);
    (void)pthread_cond_init(&writer->company, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_cond_init(&writer->turned, NULL);
    int r = start_thread(writer, err);
    if (r < 0) {
        writer_free(writer);
        return r;
    }
    *ret_writer = writer;
    return 0;
}

struct writer *writer_stop(struct writer *writer)
{
    if (writer == NULL) {
        return NULL;
    }
    (void)pthread_mutex_lock(&writer->mutex);
    writer->is_stopping = true;
    (void)pthread_cond_broadcast(&writer->wake);
    (void)pthread_cond_signal(&writer->company);
    (void)pthread_mutex_unlock(&writer->mutex);
    for (unsigned i = 0; i < writer->thread_count; i++) { /* none is started any more */
        (void)pthread_join(writer->threads[i], NULL);
    }
    writer_free(writer);
    return NULL;
}

/* ---- The owner's side ----------------------------------------------------------------------------------------- */

void writer_submit(struct writer *writer, struct writer_item *item)
{
    (void)pthread_mutex_lock(&writer->mutex);
    INVARIANT(!writer->is_stopping);
    list_append(&writer->queue, &item->link);
    writer->queued_entries += item->write.entry_count;
    if (may_begin(writer)) {
        start_thread_if_due(writer);
        (void)pthread_cond_signal(&writer->wake);
    } else if (writer->is_waiting && writer->queued_entries >= writer->enough) {
        (void)pthread_cond_signal(&writer->company);
    }
    (void)pthread_mutex_unlock(&writer->mutex);
}

uint64_t writer_sync_us(struct writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    uint64_t sync_us = writer->pace.sync_us;
    (void)pthread_mutex_unlock(&writer->mutex);
    return sync_us;
}

/* Under mutex. */
static bool is_idle(const struct writer *writer)
{
    return list_is_empty(&writer->queue) && !writer->is_appending &&
           writer->turns_taken == writer->turns_done;
}

bool writer_is_idle(struct writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    bool is = is_idle(writer);
    (void)pthread_mutex_unlock(&writer->mutex);
    return is;
}

int writer_write_inline(struct writer *writer, struct writer_item *item, struct err *err)
{
    (void)pthread_mutex_lock(&writer->mutex);
    bool is_mine = is_idle(writer) && !writer->is_refusing;
    writer->is_appending |= is_mine;
    (void)pthread_mutex_unlock(&writer->mutex);
    if (!is_mine) {
        return -EAGAIN;
    }
    uint64_t began_ns = clock_monotonic_ns();
    item->result = wal_append(writer->wal, &item->write, 1, err);
    if (item->result == 0 && !item->skip_sync) {
        item->result = wal_sync(writer->wal, err);
    }
    uint64_t took_us = (clock_monotonic_ns() - began_ns) / 1000;
    bool wants_prepare = wal_wants_prepare(writer->wal);

    (void)pthread_mutex_lock(&writer->mutex);
    pace_done(&writer->pace, &(struct pace_batch){ .count = item->write.entry_count,
                                     .queued = writer->queued_entries,
                                     .sync_us = took_us });
    writer->is_appending = false;
    writer->is_refusing |= item->result == -ENOSPC;
    writer->is_space_due |= wants_prepare;
    if (has_house_work(writer) || !list_is_empty(&writer->queue)) {
        (void)pthread_cond_signal(&writer->wake);
    }
    (void)pthread_mutex_unlock(&writer->mutex);
    return item->result;
}

void writer_purge_before(struct writer *writer, uint64_t index)
{
    (void)pthread_mutex_lock(&writer->mutex);
    writer->purge_index = MAX(writer->purge_index, index);
    writer->is_purge_due = true;
    (void)pthread_cond_signal(&writer->wake);
    (void)pthread_mutex_unlock(&writer->mutex);
}

void writer_resume(struct writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    INVARIANT(list_is_empty(&writer->queue));
    writer->is_refusing = false;
    (void)pthread_mutex_unlock(&writer->mutex);
}

void writer_retry_space(struct writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    writer->is_space_due = true;
    (void)pthread_cond_signal(&writer->wake);
    (void)pthread_mutex_unlock(&writer->mutex);
}
