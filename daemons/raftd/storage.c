#include "daemons/raftd/storage.h"

#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "daemons/raftd/wal/writer.h"

enum {
    INLINE_BYTES_MAX = 64 * 1024,
    INLINE_SYNC_US_MAX =
            500, /* above, the WAL thread's gathering is worth more than the hand-over it costs */
};

/* One queued write with copies of all it points to. */
struct item {
    struct writer_item writer; /* first: the WAL thread hands this back */
    uint64_t last_index;
    uint64_t last_term;
    bool is_snapshot;
    bool is_vote; /* goes ahead of the write whose write_seq it bears */
    struct wal_hard_state hard;
    struct wal_base base;
    struct wal_snapshot snapshot;
    struct wal_entry *entries;
    struct buf bytes; /* the entries' data, the base's and the snapshot's configuration */
};

struct storage {
    struct wal *wal;
    struct writer *writer;
    struct loop *loop;
    const struct storage_events *events;
    void *user;
    struct list
            waiting; /* found the disk full, or came behind what did; to be submitted again in this order */
    size_t submitted;           /* with the writer */
    struct wal_hard_state hard; /* as it is on disk */
    struct storage_stats stats;
    bool failed;
};

/* What the WAL thread hands to the loop. */
struct completion {
    struct storage *storage;
    struct list items;
    struct err err;
};

int storage_exists(const struct conf *conf, struct err *err)
{
    return wal_exists(conf->wal_dir, err);
}

static struct wal_entry to_wal_entry(const struct raft_entry *entry)
{
    return (struct wal_entry){
        .index = entry->index,
        .term = entry->term,
        .time_ns = entry->time_ns,
        .kind = (uint8_t)entry->kind,
        .data = entry->data,
    };
}

int storage_create(const struct conf *conf, const struct wal_base *base,
        const struct raft_hard_state *hard, const struct raft_entry *entries, size_t entry_count,
        struct storage **ret_storage, struct err *err)
{
    struct wal_config config = { .dir = conf->wal_dir };
    struct wal_hard_state wal_hard = { hard->term, hard->vote, hard->commit };
    struct storage *storage = xcalloc(1, sizeof *storage);
    struct wal_entry *copies = xcalloc(entry_count, sizeof *copies);
    struct wal_write write = { .entries = copies, .entry_count = entry_count };

    list_init(&storage->waiting);
    for (size_t i = 0; i < entry_count; i++) {
        copies[i] = to_wal_entry(&entries[i]);
    }
    int result = wal_create_with(&config, base, &wal_hard, &write, &storage->wal, err);
    free(copies);
    if (result < 0) {
        (void)storage_close(storage);
        return result;
    }
    storage->hard = wal_hard;
    *ret_storage = storage;
    return 0;
}

int storage_open(const struct conf *conf, struct storage **ret_storage,
        struct storage_recovered *ret_recovered, struct err *err)
{
    struct wal_config config = { .dir = conf->wal_dir };
    struct storage *storage = xcalloc(1, sizeof *storage);

    list_init(&storage->waiting);
    int result = wal_open(&config, &storage->wal, err);
    if (result == 0) {
        result = recovery_read(storage->wal, ret_recovered, err);
    }
    if (result < 0) {
        (void)storage_close(storage);
        return result;
    }
    const struct raft_hard_state *hard = &ret_recovered->hard;
    storage->hard = (struct wal_hard_state){ hard->term, hard->vote, hard->commit };
    *ret_storage = storage;
    return 0;
}

int storage_open_append(struct storage *storage, const struct wal_write *first, struct err *err)
{
    TRY(wal_start_append(storage->wal, err));
    if (first == NULL) {
        return 0;
    }
    TRY(wal_append(storage->wal, first, 1, err));
    storage->hard = first->hard != NULL ? *first->hard : storage->hard;
    return wal_sync(storage->wal, err);
}

static void item_free(struct item *item)
{
    free(item->entries);
    buf_fini(&item->bytes);
    free(item);
}

static void storage_fail(struct storage *storage, const struct err *err)
{
    if (!storage->failed) {
        storage->failed = true;
        storage->events->on_failed(storage->user, err);
    }
}

/* What waits must not take back a vote that went ahead of it. */
static void note_vote(struct storage *storage, const struct item *vote)
{
    LIST_FOREACH (item, &storage->waiting, struct item, writer.link) {
        if (!item->is_snapshot && item->writer.write_seq <= vote->writer.write_seq) {
            item->hard.term = vote->hard.term;
            item->hard.vote = vote->hard.vote;
        }
    }
}

static void finish_vote(struct storage *storage, const struct item *vote, const struct err *err)
{
    if (vote->writer.result == 0) {
        storage->hard = vote->hard;
        note_vote(storage, vote);
        storage->events->on_vote_written(storage->user, vote->writer.write_seq);
    } else if (vote->writer.result != -ENOSPC) { /* else the reserve is used up too */
        storage_fail(storage, err);
    }
}

/* One item came back from the log: tell the core, keep it for later, or give up. Consumes it. */
static void finish_item(struct storage *storage, struct item *item, const struct err *err)
{
    if (item->is_vote) {
        finish_vote(storage, item, err);
        item_free(item);
        return;
    }
    if (item->writer.result == -ENOSPC) {
        list_append(&storage->waiting, &item->writer.link);
        if (storage->stats.has_space) {
            storage->stats.has_space = false;
            storage->events->on_space(storage->user, false);
        }
        return;
    }
    if (item->writer.result < 0) {
        storage_fail(storage, err);
    } else if (item->is_snapshot) {
        struct storage_snapshot snapshot = { item->snapshot.index, item->snapshot.term };
        storage->events->on_snapshot_recorded(storage->user, &snapshot);
    } else {
        storage->stats.writes++;
        storage->hard = item->hard;
        storage->events->on_written(
                storage->user, item->writer.write_seq, item->last_index, item->last_term);
    }
    item_free(item);
}

/* Gives the newest vote that waits for space to the log ahead of all that waits. Only while the writer has none of that:
 * then nothing is written between the vote and what it must not be taken back by. */
static void send_vote_ahead(struct storage *storage)
{
    if (storage->submitted > 0 || storage->failed) {
        return;
    }
    const struct item *newest = NULL;
    LIST_FOREACH (item, &storage->waiting, struct item, writer.link) {
        newest = item->is_snapshot ? newest : item;
    }
    bool is_due = newest != NULL && (newest->hard.term != storage->hard.term ||
                                            newest->hard.vote != storage->hard.vote);
    if (!is_due) {
        return;
    }
    struct item *vote = xcalloc(1, sizeof *vote);
    vote->is_vote = true;
    vote->writer.is_ahead = true;
    vote->writer.write_seq = newest->writer.write_seq;
    /* The commit index that goes with what waits may name entries that are not there, or others. */
    vote->hard =
            (struct wal_hard_state){ newest->hard.term, newest->hard.vote, storage->hard.commit };
    vote->writer.write.hard = &vote->hard;
    storage->submitted++;
    writer_submit(storage->writer, &vote->writer);
}

static void on_completion(void *user)
{
    struct completion *completion = user;
    struct storage *storage = completion->storage;

    /* A callback may write again, inline: the list is our own by now. */
    while (!list_is_empty(&completion->items)) {
        struct item *item = CONTAINER_OF(completion->items.next, struct item, writer.link);
        list_remove(&item->writer.link);
        storage->submitted--;
        finish_item(storage, item, &completion->err);
    }
    send_vote_ahead(storage);
    free(completion);
}

static void drop_completion(void *user)
{
    struct completion *completion = user;

    LIST_FOREACH (item, &completion->items, struct item, writer.link) {
        item_free(item);
    }
    free(completion);
}

/* WAL thread: only packs up and posts. */
static void on_done(void *user, struct list *items, const struct err *err)
{
    struct storage *storage = user;
    struct completion *completion = xcalloc(1, sizeof *completion);

    completion->storage = storage;
    completion->err = *err;
    list_init(&completion->items);
    while (!list_is_empty(items)) {
        struct list *node = items->next;
        list_remove(node);
        list_append(&completion->items, node);
    }
    loop_post(storage->loop, on_completion, completion);
}

int storage_start(struct storage *storage, struct loop *loop, const struct storage_events *events,
        void *user, struct err *err)
{
    storage->loop = loop;
    storage->events = events;
    storage->user = user;
    storage->stats.has_space = true;
    return writer_start(storage->wal, on_done, storage, &storage->writer, err);
}

struct storage *storage_close(struct storage *storage)
{
    if (storage == NULL) {
        return NULL;
    }
    storage->writer = writer_stop(storage->writer);
    if (storage->loop != NULL) {
        loop_unpost(storage->loop, on_completion, drop_completion);
    }
    LIST_FOREACH (item, &storage->waiting, struct item, writer.link) {
        item_free(item);
    }
    storage->wal = wal_close(storage->wal);
    free(storage);
    return NULL;
}

/* The write as the log takes it; entries and configuration still point into the core's memory. */
static void fill_write(
        struct item *item, const struct raft_write *write, const struct wal_base *base)
{
    struct wal_write *out = &item->writer.write;

    item->last_index = write->last_index;
    item->last_term = write->last_term;
    item->writer.write_seq = write->seq;
    item->hard = (struct wal_hard_state){ write->hard.term, write->hard.vote, write->hard.commit };
    out->hard = &item->hard;
    if (base != NULL) {
        item->base = *base;
        out->base = &item->base;
        if (base->reset && base->index > 0) {
            /* A base that came from another member stands on its snapshot: both are known, or neither. */
            item->snapshot = (struct wal_snapshot){ .index = base->index, .term = base->term };
            out->snapshot = &item->snapshot;
        }
    }
    out->has_cut = write->cut;
    out->cut_index = write->cut_index;
    item->entries = xmalloc(write->append.count * sizeof *item->entries);
    for (size_t i = 0; i < write->append.count; i++) {
        item->entries[i] = to_wal_entry(&write->append.items[i]);
    }
    out->entries = item->entries;
    out->entry_count = write->append.count;
}

static size_t data_bytes(const struct item *item)
{
    size_t bytes = item->base.configuration.bytes + item->snapshot.configuration.bytes;
    for (size_t i = 0; i < item->writer.write.entry_count; i++) {
        bytes += item->entries[i].data.bytes;
    }
    return bytes;
}

static void copy_span(struct buf *bytes, struct span *span)
{
    uint8_t *start = bytes->data + bytes->bytes;
    buf_append_span(bytes, *span);
    span->data = start;
}

/* Makes the item independent of the core's memory, for as long as the WAL thread needs it. */
static void own_data(struct item *item, size_t bytes)
{
    (void)buf_reserve(&item->bytes, bytes);
    copy_span(&item->bytes, &item->base.configuration);
    copy_span(&item->bytes, &item->snapshot.configuration);
    for (size_t i = 0; i < item->writer.write.entry_count; i++) {
        copy_span(&item->bytes, &item->entries[i].data);
    }
}

/* True if the item was done here and now (or failed so). */
static bool write_inline(struct storage *storage, struct item *item, size_t bytes)
{
    struct err err = { 0 };

    if (bytes > INLINE_BYTES_MAX || writer_sync_us(storage->writer) > INLINE_SYNC_US_MAX ||
            !list_is_empty(&storage->waiting)) {
        return false;
    }
    int result = writer_write_inline(storage->writer, &item->writer, &err);
    if (result == -EAGAIN) {
        return false;
    }
    if (result == -ENOSPC) {
        own_data(item, bytes);
    }
    finish_item(storage, item, &err);
    return true;
}

/* Behind what waits for space everything waits: a write that is done stands for all before it, and with it the promises that
 * hang on them. While the writer has any left they go through it, and come back in their order. */
static void submit(struct storage *storage, struct item *item)
{
    if (!list_is_empty(&storage->waiting) && storage->submitted == 0) {
        list_append(&storage->waiting, &item->writer.link);
        return;
    }
    storage->submitted++;
    writer_submit(storage->writer, &item->writer);
}

void storage_write(
        struct storage *storage, const struct raft_write *write, const struct wal_base *base)
{
    struct item *item = xcalloc(1, sizeof *item);

    fill_write(item, write, base);
    size_t bytes = data_bytes(item);
    storage->stats.bytes_appended += bytes;
    if (storage->failed) {
        item_free(item);
        return;
    }
    if (!write_inline(storage, item, bytes)) {
        own_data(item, bytes);
        submit(storage, item);
    }
    send_vote_ahead(storage);
}

void storage_record_snapshot(
        struct storage *storage, const struct wal_snapshot *snapshot, const struct wal_base *base)
{
    struct item *item = xcalloc(1, sizeof *item);

    item->is_snapshot = true;
    item->snapshot = *snapshot;
    item->writer.write.snapshot = &item->snapshot;
    if (base != NULL) {
        item->base = *base;
        item->writer.write.base = &item->base;
    }
    own_data(item, data_bytes(item));
    submit(storage, item);
}

void storage_purge_before(struct storage *storage, uint64_t index)
{
    writer_purge_before(storage->writer, index);
}

int storage_read(struct storage *storage, uint64_t first, uint64_t end, size_t bytes_max,
        wal_entry_fn fn, void *user, struct err *err)
{
    INVARIANT_LT(first, end);
    return wal_read_entries(storage->wal, first, end - 1, bytes_max, fn, user, err);
}

static void retry_waiting(struct storage *storage)
{
    if (list_is_empty(&storage->waiting)) {
        return;
    }
    writer_resume(storage->writer);
    while (!list_is_empty(&storage->waiting)) {
        struct list *node = storage->waiting.next;
        list_remove(node);
        storage->submitted++;
        writer_submit(storage->writer, &CONTAINER_OF(node, struct item, writer.link)->writer);
    }
}

void storage_check(struct storage *storage)
{
    if (!wal_has_space(storage->wal)) {
        (void)wal_prepare_next(storage->wal, NULL); /* nobody writes meanwhile who would try it */
    }
    bool has_space = wal_has_space(storage->wal);

    storage->stats.disk_bytes = wal_disk_bytes(storage->wal);
    if (has_space && storage->submitted == 0) {
        retry_waiting(storage);
    }
    send_vote_ahead(storage); /* if the reserve was used up */
    if (has_space != storage->stats.has_space) {
        storage->stats.has_space = has_space;
        storage->events->on_space(storage->user, has_space);
    }
}

void storage_get_stats(const struct storage *storage, struct storage_stats *ret_stats)
{
    *ret_stats = storage->stats;
    ret_stats->sync_us = writer_sync_us(storage->writer);
}
