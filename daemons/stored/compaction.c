/* compaction.c: gives the disk back what the state no longer needs.
 *
 * LMDB's file never shrinks. When more than half of it is free pages, the worker makes a compact copy in the folder of the next
 * generation, while entries are applied to the live state as ever, and kept. Then the copy is fed with what was kept, a
 * batch a turn, and once it has all of it, it takes the live state's place. It needs no sync of its own: it is trusted by
 * the same word as any state that runs, and rebuilt from snapshot and log where that is lost. */
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "daemons/stored/stored_impl.h"

enum {
    KEPT_BYTES_MAX =
            64 * 1024 * 1024, /* of batches; more than that, and it is not the time for it */
    COMPACT_BYTES_MIN = 64 * 1024 * 1024,
    RETRY_MS = 60 * 1000,
};

static void drop_first(struct compaction *compaction)
{
    struct pending *first = CONTAINER_OF(compaction->batches.next, struct pending, node);

    list_remove(&first->node);
    compaction->bytes -= first->bytes;
    free(first);
}

static void give_up(struct stored *stored)
{
    struct compaction *compaction = &stored->compaction;

    while (!list_is_empty(&compaction->batches)) {
        drop_first(compaction);
    }
    compaction->recording = compaction->waits = false;
    compaction->failed_at_ms = clock_monotonic_ms();
    if (compaction->replica != NULL) {
        compaction->replica = replica_close(compaction->replica);
        generations_discard(stored->generations, compaction->number);
    }
}

void compaction_cancel(struct stored *stored)
{
    give_up(stored); /* a copy that is still being made is discarded when it is done */
}

/* Those that a transaction of an old reader still holds count too. */
static uint64_t free_bytes(struct state_writer *writer)
{
    uint64_t bytes = 0;
    return state_writer_free_bytes(writer, &bytes) == 0 ? bytes : 0;
}

void compaction_consider(struct stored *stored)
{
    struct compaction *compaction = &stored->compaction;
    struct state_writer *writer = replica_writer(generations_replica(stored->generations));
    uint64_t file_bytes = state_writer_file_bytes(writer);
    uint64_t least = stored->config.compact_bytes_min != 0 ? stored->config.compact_bytes_min
                                                           : (uint64_t)COMPACT_BYTES_MIN;
    struct err err = { 0 };

    if (compaction->recording || compaction->replica != NULL || file_bytes < least ||
            stored->raft.phase != PHASE_RUNNING || stored->snapshots.job.kind != JOB_NONE ||
            stored->raft.no_space || free_bytes(writer) <= file_bytes / 2) {
        return;
    }
    if (compaction->failed_at_ms != 0 &&
            clock_monotonic_ms() < compaction->failed_at_ms + RETRY_MS) {
        return;
    }
    uint64_t needed_bytes;
    if (!jobs_has_room(stored, writer, &needed_bytes)) {
        log_warning("stored.compaction.no_room",
                "needed_bytes=%" PRIu64 " action=try_again retry_ms=%d", needed_bytes, RETRY_MS);
        compaction->failed_at_ms = clock_monotonic_ms();
        return;
    }
    struct job job = { .kind = JOB_COMPACT, .writer = writer };
    if (generations_prepare(stored->generations, &compaction->number, job.dir, &err) < 0) {
        log_warning_err(&err, "stored.compaction.failed", "action=go_on");
        return;
    }
    job.number = compaction->number;
    compaction->recording = true;
    log_info("stored.compaction.begin", "file_bytes=%" PRIu64 " generation=%" PRIu64, file_bytes,
            compaction->number);
    (void)jobs_begin(stored, &job);
}

void compaction_note(struct stored *stored, struct span body)
{
    struct compaction *compaction = &stored->compaction;

    if (!compaction->recording) {
        return;
    }
    struct pending *batch = xmalloc(sizeof *batch + body.bytes);
    list_init(&batch->node);
    batch->bytes = body.bytes;
    memcpy(batch->data, body.data, body.bytes);
    list_append(&compaction->batches, &batch->node);
    compaction->bytes += body.bytes;
    if (compaction->bytes > KEPT_BYTES_MAX) {
        log_info("stored.compaction.given_up", "reason=too_busy");
        give_up(stored);
    }
}

static void take_over(struct stored *stored)
{
    struct compaction *compaction = &stored->compaction;
    struct err err = { 0 };
    uint64_t before =
            state_writer_file_bytes(replica_writer(generations_replica(stored->generations)));

    INVARIANT_EQ(stored->snapshots.job.kind, JOB_NONE); /* a thread would copy what is closed */
    compaction->replica = replica_close(compaction->replica);
    compaction->recording = false;
    if (generations_switch(stored->generations, compaction->number, &err) < 0) {
        stored_fail(stored, CONF_EXIT_STORAGE, &err, "stored.state.failed");
        return;
    }
    compaction->done_count++;
    log_notice("stored.compaction.done",
            "generation=%" PRIu64 " bytes_before=%" PRIu64 " bytes_after=%" PRIu64,
            compaction->number, before,
            state_writer_file_bytes(replica_writer(generations_replica(stored->generations))));
    subscribers_tell_generation(stored);
}

/* 0, or negative where the copy is of no use. */
static int feed(struct compaction *compaction, const struct pending *kept, struct err *err)
{
    struct codec_scratch scratch = { 0 };
    struct replica_result result = { .more = true };
    struct apply batch;

    int code = apply_decode(span_of(kept->data, kept->bytes), &batch, &scratch, err);
    while (code == 0 && result.more) {
        code = replica_apply(compaction->replica, &batch, clock_boottime_ns(), &result, err);
    }
    codec_scratch_fini(&scratch);
    return code;
}

static void on_turn(void *user)
{
    struct stored *stored = user;
    struct compaction *compaction = &stored->compaction;
    struct err err = { 0 };

    if (compaction->replica == NULL) {
        return; /* was cancelled */
    }
    uint64_t live = replica_meta(generations_replica(stored->generations))->applied_index;
    if (replica_meta(compaction->replica)->applied_index == live) {
        if (stored->snapshots.job.kind != JOB_NONE) {
            compaction->waits = true; /* a snapshot of the live state: it may not go yet */
            return;
        }
        while (!list_is_empty(&compaction->batches)) {
            drop_first(compaction);
        }
        take_over(stored);
        return;
    }
    bool empty = list_is_empty(&compaction->batches);
    if (empty || feed(compaction, CONTAINER_OF(compaction->batches.next, struct pending, node),
                         &err) < 0) {
        log_warning_err(&err, "stored.compaction.failed", "action=go_on");
        give_up(stored);
        return;
    }
    drop_first(compaction);
    loop_post(stored->loop, on_turn, stored);
}

void compaction_go_on(struct stored *stored)
{
    if (stored->compaction.waits) {
        stored->compaction.waits = false;
        on_turn(stored);
    }
}

void compaction_copied(struct stored *stored, const struct job *job)
{
    struct compaction *compaction = &stored->compaction;
    struct err err = job->err;
    int result = job->result;

    if (result == 0 && compaction->recording && compaction->number == job->number) {
        result = generations_open_built(stored->generations, job->dir, &compaction->replica, &err);
        if (result == 0) {
            on_turn(stored);
            return;
        }
    }
    if (result < 0) {
        log_warning_err(&err, "stored.compaction.failed", "action=go_on");
    }
    generations_discard(stored->generations, job->number);
    give_up(stored);
}
