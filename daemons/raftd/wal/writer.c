#include "daemons/raftd/wal/writer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "common/buf.h"
#include "common/clock.h"
#include "daemons/raftd/wal/gather.h"

/* A batch closes at this many bytes of data, so that a long queue is made durable piece by piece. */
enum {
    GROUP_BYTES_MAX = 8 << 20
};

struct writer {
    struct wal *wal;
    writer_done_fn on_done;
    void *user;
    pthread_t thread;
    struct buf writes; /* of struct wal_write; whoever is busy */

    pthread_mutex_t mutex; /* for the rest */
    pthread_cond_t wake;
    struct list queue;
    size_t queued_entries;
    struct gather gather;
    bool is_gathering; /* the thread waits for more before it takes the queue */
    bool is_busy;      /* someone, this thread or the owner's, appends and syncs */
    bool is_stopping;
    bool is_space_due; /* the next segment's space is to be secured */
    bool is_purge_due;
    uint64_t purge_index;
};

/* ---- Writing: whoever is busy --------------------------------------------------------------------------------- */

static uint64_t data_bytes(const struct wal_write *write)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < write->entry_count; i++) {
        bytes += write->entries[i].data.bytes;
    }
    return bytes;
}

/* Moves the front of `from`, as much as makes a batch, to the empty `group`. */
static void take_group(struct writer *writer, struct list *from, struct list *group)
{
    uint64_t bytes = 0;
    buf_clear(&writer->writes);
    while (!list_is_empty(from) && bytes < GROUP_BYTES_MAX) {
        struct writer_item *item = CONTAINER_OF(from->next, struct writer_item, link);
        bytes += data_bytes(&item->write);
        buf_append(&writer->writes, &item->write, sizeof(item->write));
        list_remove(&item->link);
        list_append(group, &item->link);
    }
}

static void set_results(struct list *group, int result)
{
    LIST_FOREACH (item, group, struct writer_item, link) {
        item->result = result;
    }
}

/* All in one batch or, where that does not fit on the disk any more, each for itself. */
static int append_group(struct writer *writer, struct list *group, struct err *err)
{
    const struct wal_write *writes = (const struct wal_write *)(const void *)writer->writes.data;
    size_t write_count = writer->writes.bytes / sizeof(*writes);
    int r = wal_append(writer->wal, writes, write_count, err);
    if (r != -ENOSPC || write_count == 1) {
        set_results(group, r);
        return r;
    }
    bool has_any = false;
    LIST_FOREACH (item, group, struct writer_item, link) {
        item->result = wal_append(writer->wal, &item->write, 1, err);
        has_any |= item->result == 0;
        if (item->result < 0 && item->result != -ENOSPC) {
            set_results(group, item->result); /* final: what was appended will not be synced */
            return item->result;
        }
    }
    return has_any ? 0 : -ENOSPC;
}

static bool needs_sync(const struct list *group)
{
    LIST_FOREACH (item, group, const struct writer_item, link) {
        if (item->result == 0 && !item->skip_sync) {
            return true;
        }
    }
    return false;
}

static void write_group(struct writer *writer, struct list *group, struct err *err)
{
    if (append_group(writer, group, err) < 0 || !needs_sync(group)) {
        return;
    }
    int r = wal_sync(writer->wal, err);
    if (r < 0) {
        set_results(group, r);
    }
}

static void write_all(struct writer *writer, struct list *items)
{
    while (!list_is_empty(items)) {
        struct list group;
        struct err err = { .code = 0 };
        list_init(&group);
        take_group(writer, items, &group);
        write_group(writer, &group, &err);
        writer->on_done(writer->user, &group, &err);
        INVARIANT(list_is_empty(&group));
    }
}

/* ---- The thread ----------------------------------------------------------------------------------------------- */

/* Waits, with the mutex held, while more entries are worth it. Returns whether it waited. */
static bool gather_company(struct writer *writer)
{
    uint64_t wait_us = gather_wait_us(&writer->gather, writer->queued_entries);
    if (wait_us == 0) {
        return false;
    }
    uint64_t until_ns = clock_monotonic_ns() + wait_us * 1000;
    struct timespec until = { .tv_sec = (time_t)(until_ns / 1000000000U),
        .tv_nsec = (long)(until_ns % 1000000000U) };
    int r = 0;
    writer->is_gathering = true;
    while (r == 0 && writer->queued_entries < writer->gather.expected && !writer->is_stopping) {
        r = pthread_cond_timedwait(&writer->wake, &writer->mutex, &until);
    }
    writer->is_gathering = false;
    return true;
}

static void take_queue(struct writer *writer, struct list *ret_items)
{
    list_init(ret_items);
    writer->queued_entries = 0;
    LIST_FOREACH (item, &writer->queue, struct writer_item, link) {
        list_remove(&item->link);
        list_append(ret_items, &item->link);
    }
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
        bool may_write = !writer->is_busy && !list_is_empty(&writer->queue);
        if (may_write) {
            struct list items;
            writer->is_busy = true; /* nobody writes inline past a queue that waits */
            size_t began_with = writer->queued_entries;
            bool was_waiting = gather_company(writer);
            size_t count = writer->queued_entries;
            take_queue(writer, &items);
            (void)pthread_mutex_unlock(&writer->mutex);
            uint64_t began_ns = clock_monotonic_ns();
            write_all(writer, &items);
            bool wants_prepare = wal_wants_prepare(writer->wal);
            (void)pthread_mutex_lock(&writer->mutex);
            gather_done(
                    &writer->gather, &(struct gather_batch){ .count = count,
                                             .began = began_with,
                                             .was_waiting = was_waiting,
                                             .queued = writer->queued_entries,
                                             .sync_us = (clock_monotonic_ns() - began_ns) / 1000 });
            writer->is_busy = false;
            writer->is_space_due |= wants_prepare;
        }
        if (has_house_work(writer)) {
            keep_house(writer);
        } else if (!may_write && writer->is_stopping && !writer->is_busy) {
            break;
        } else if (!may_write) {
            (void)pthread_cond_wait(&writer->wake, &writer->mutex);
        }
    }
    (void)pthread_mutex_unlock(&writer->mutex);
    return NULL;
}

static int start_thread(struct writer *writer, struct err *err)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
    int r = pthread_create(&writer->thread, NULL, run, writer);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0) {
        return err_set(err, -r, "start the log's thread: %s", strerror(r));
    }
    (void)pthread_setname_np(writer->thread, "wal");
    return 0;
}

static void writer_free(struct writer *writer)
{
    (void)pthread_mutex_destroy(&writer->mutex);
    (void)pthread_cond_destroy(&writer->wake);
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
    list_init(&writer->queue);
    (void)pthread_mutex_init(&writer->mutex, NULL);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&writer->wake, &attributes);
    (void)pthread_condattr_destroy(&attributes);
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
    (void)pthread_cond_signal(&writer->wake);
    (void)pthread_mutex_unlock(&writer->mutex);
    (void)pthread_join(writer->thread, NULL);
    writer_free(writer);
    return NULL;
}

/* ---- The owner's side ----------------------------------------------------------------------------------------- */

void writer_submit(struct writer *writer, struct writer_item *item)
{
    (void)pthread_mutex_lock(&writer->mutex);
    INVARIANT(!writer->is_stopping);
    bool was_empty = list_is_empty(&writer->queue);
    list_append(&writer->queue, &item->link);
    writer->queued_entries += item->write.entry_count;
    if ((was_empty && !writer->is_busy) || writer->is_gathering) {
        (void)pthread_cond_signal(&writer->wake);
    }
    (void)pthread_mutex_unlock(&writer->mutex);
}

uint64_t writer_sync_us(struct writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    uint64_t sync_us = writer->gather.sync_us;
    (void)pthread_mutex_unlock(&writer->mutex);
    return sync_us;
}

bool writer_is_idle(struct writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    bool is_idle = !writer->is_busy && list_is_empty(&writer->queue);
    (void)pthread_mutex_unlock(&writer->mutex);
    return is_idle;
}

int writer_write_inline(struct writer *writer, struct writer_item *item, struct err *err)
{
    (void)pthread_mutex_lock(&writer->mutex);
    bool is_mine = !writer->is_busy && list_is_empty(&writer->queue);
    writer->is_busy |= is_mine;
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
    gather_done(&writer->gather, &(struct gather_batch){ .count = item->write.entry_count,
                                         .queued = writer->queued_entries,
                                         .sync_us = took_us });
    writer->is_busy = false;
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

void writer_retry_space(struct writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    writer->is_space_due = true;
    (void)pthread_cond_signal(&writer->wake);
    (void)pthread_mutex_unlock(&writer->mutex);
}
