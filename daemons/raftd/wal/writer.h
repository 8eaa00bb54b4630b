/* writer.h: the WAL thread. Takes everything that is queued, appends it as one batch in order, syncs once,
 * and hands the items back: group commit clocked by the disk and by no timer.
 *
 * Votes, cuts, appends and snapshot marks all go through this one queue, so the log's order is the raft
 * core's. Once an error other than -ENOSPC has occurred every later item comes back with it. Once an item has found no space,
 * so does every later one until writer_resume, whatever it would need: whoever is told that a write is done takes all before it
 * for done. Only what says of itself that it stands for nothing else is taken all the same.
 *
 * Threads: submit, inline, purge and stop from the owner's (loop) thread; on_done runs on the WAL thread and
 * should do no more than post to the loop. The writer keeps the next segment prepared by itself. */
#pragma once

#include "common/list.h"
#include "daemons/raftd/wal/wal.h"

struct writer;

/* The owner's memory. From submit until on_done has handed it back the item, and all that its write points
 * to, must stay as it is. */
struct writer_item {
    struct list link;
    struct wal_write write;
    uint64_t write_seq; /* the owner's number, untouched */
    bool is_ahead;      /* without entries: tried even behind what found no space */
    bool skip_sync; /* need not be durable (a moved commit index); synced with whatever comes next */
    int result; /* set when handed back: 0 (durable, skip_sync apart), -ENOSPC (nothing of it was
                           done), or the final error */
};

/* Hands back a list of items (link) in the order submitted; the receiver takes them out. One call a batch. err
 * is set (code != 0) once an item has failed, and valid for the call. */
typedef void (*writer_done_fn)(void *user, struct list *items, const struct err *err);

/* Starts the thread. wal is open for appending and outlives the writer. */
int writer_start(struct wal *wal, writer_done_fn on_done, void *user, struct writer **ret_writer,
        struct err *err);

/* Queues an item. Never blocks on the disk. */
void writer_submit(struct writer *writer, struct writer_item *item);

/* Appends and syncs on the caller's thread if nothing is queued or under way: saves two hand-overs when idle.
 * Returns the item's result (also in item->result; on_done is not called), or -EAGAIN: the thread is busy, or refuses for
 * lack of space; nothing was done, submit the item instead. */
int writer_write_inline(struct writer *writer, struct writer_item *item, struct err *err);

/* What a batch took to be written and synced of late, moving average; 0: none yet. */
uint64_t writer_sync_us(struct writer *writer);

/* Whether writer_write_inline would go ahead. */
bool writer_is_idle(struct writer *writer);

/* Has the thread purge (wal_purge_before) when it is next idle or after its batch. */
void writer_purge_before(struct writer *writer, uint64_t index);

/* What comes from now on is tried again. Only when all that was submitted has come back, and to be followed by what was
 * refused, in its order. */
void writer_resume(struct writer *writer);

/* Has the thread try again to secure the next segment's space (wal_has_space), for a tick while there is none. */
void writer_retry_space(struct writer *writer);

/* Finishes what is queued, calls on_done for it, joins the thread. Always NULL, accepts NULL. */
struct writer *writer_stop(struct writer *writer);
