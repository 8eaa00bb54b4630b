/* jobs.c: what runs beside the loop: making a snapshot, and building a new state. One at a time, a thread each.
 *
 * A snapshot is due when more than snapshot_count entries were applied since the last one and the log behind it has grown to
 * its size: so the cost of copying, per write, does not depend on how large the state is. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "daemons/stored/files.h"
#include "daemons/stored/throttle.h"
#include "daemons/stored/stored_impl.h"

enum {
    RETRY_MS = 10000,
};

static void on_job_done(void *user);

static void *job_run(void *argument)
{
    struct job *job = argument;
    const struct snapshots *snapshots = &job->stored->snapshots;

    if (job->kind == JOB_MAKE_SNAPSHOT) {
        job->result = snapshot_make(job->writer, job->dir, &snapshots->stop, &job->made, &job->err);
    } else if (job->kind == JOB_COMPACT) {
        job->result = snapshot_copy_env(job->writer, job->dir, &snapshots->stop, &job->err);
    } else if (job->index == 0) {
        job->result = generations_build_empty(
                job->dir, job->stored->config.map_bytes, job->complete_at, &job->err);
    } else {
        job->result = generations_build_loaded(job->dir, job->stored->config.map_bytes, job->path,
                job->cluster_id, job->member_id, job->complete_at, &job->err);
    }
    loop_post(job->stored->loop, on_job_done, job->stored);
    return NULL;
}

static void job_start(struct stored *stored)
{
    struct job *job = &stored->snapshots.job;
    pthread_t thread;

    job->stored = stored;
    job->started_at_ms = clock_monotonic_ms();
    job->result = 0;
    int code = pthread_create(&thread, NULL, job_run, job);
    INVARIANT_EQ(code, 0); /* no memory for a thread's stack */
    job->thread = thread;
}

bool jobs_begin(struct stored *stored, const struct job *job)
{
    struct snapshots *snapshots = &stored->snapshots;

    if (snapshots->job.kind != JOB_NONE) {
        return false;
    }
    snapshots->job = *job;
    snapshots->file_bytes_at_start = state_writer_file_bytes(job->writer);
    job_start(stored);
    return true;
}

static bool log_has_grown(const struct snapshots *snapshots)
{
    return snapshots->log_bytes >= snapshots->newest.bytes;
}

bool jobs_has_room(const struct stored *stored, struct state_writer *writer, uint64_t *ret_bytes)
{
    uint64_t file_bytes = state_writer_file_bytes(writer);
    uint64_t free_bytes = 0;

    (void)state_writer_free_bytes(writer, &free_bytes);
    *ret_bytes = file_bytes - MIN(file_bytes, free_bytes);
    return files_space_bytes(stored->snap_dir) / 5 * 4 >= *ret_bytes;
}

/* So that there are never more than --max-snapshots the oldest goes before another is made: once the log is known to have the
 * newest, and not where that is the only one. */
static void make_room_for_another(struct stored *stored)
{
    const struct snapshot_info *newest = &stored->snapshots.newest;
    uint64_t kept = stored->config.max_snapshots;
    struct err err = { 0 };

    if (kept > 1 && stored->snapshots.recorded_index == newest->index &&
            snapshot_purge(stored->snap_dir, kept - 1, newest->term, newest->index, &err) < 0) {
        log_warning_err(&err, "stored.snapshot.purge_failed", "action=go_on");
    }
}

void jobs_consider_snapshot(struct stored *stored)
{
    struct snapshots *snapshots = &stored->snapshots;
    struct replica *replica = generations_replica(stored->generations);
    uint64_t applied = replica_meta(replica)->applied_index;
    uint64_t behind = applied > snapshots->newest.index ? applied - snapshots->newest.index : 0;

    if (snapshots->job.kind != JOB_NONE || behind <= stored->config.snapshot_count ||
            !log_has_grown(snapshots)) {
        return;
    }
    if (snapshots->failed_at_ms != 0 && clock_monotonic_ms() < snapshots->failed_at_ms + RETRY_MS) {
        return;
    }
    uint64_t needed_bytes;
    if (!jobs_has_room(stored, replica_writer(replica), &needed_bytes)) {
        snapshots->failed_at_ms = clock_monotonic_ms();
        log_error("stored.snapshot.no_room",
                "needed_bytes=%" PRIu64 " action=try_again retry_ms=%d", needed_bytes, RETRY_MS);
        return;
    }
    make_room_for_another(stored);
    struct job job = { .kind = JOB_MAKE_SNAPSHOT, .writer = replica_writer(replica) };
    (void)snprintf(job.dir, sizeof job.dir, "%s", stored->snap_dir);
    log_debug("stored.snapshot.begin", "applied_index=%" PRIu64, applied);
    (void)jobs_begin(stored, &job);
}

static void begin_load(struct stored *stored)
{
    struct snapshots *snapshots = &stored->snapshots;
    struct job *job = &snapshots->job;
    struct err err = { 0 };

    snapshots->load_due = false;
    *job = (struct job){
        .kind = JOB_LOAD,
        .index = snapshots->load_index,
        .term = snapshots->load_term,
        .complete_at = snapshots->load_complete_at,
        .cluster_id = stored->raft.cluster_id,
        .member_id = stored->raft.member_id,
    };
    snapshot_path(stored->snap_dir, job->term, job->index, job->path);
    if (generations_prepare(stored->generations, &job->number, job->dir, &err) < 0) {
        job->kind = JOB_NONE;
        stored_fail(stored, CONF_EXIT_STORAGE, &err, "stored.state.failed");
        return;
    }
    log_notice("stored.load.begin", "index=%" PRIu64 " term=%" PRIu64 " generation=%" PRIu64,
            job->index, job->term, job->number);
    job_start(stored);
}

void jobs_load(struct stored *stored, uint64_t index, uint64_t term, uint64_t complete_at)
{
    stored->snapshots.load_due = true;
    stored->snapshots.load_index = index;
    stored->snapshots.load_term = term;
    stored->snapshots.load_complete_at = complete_at;
    compaction_cancel(stored);
    if (stored->snapshots.job.kind == JOB_NONE) {
        begin_load(stored);
    }
}

/* What the disk did to one file of ours it may have done to another. */
static void heed_error(struct stored *stored, int result)
{
    if (result == -EIO) {
        generations_doubt(stored->generations);
    }
}

static void on_snapshot_made(struct stored *stored, const struct job *job)
{
    struct snapshots *snapshots = &stored->snapshots;

    if (job->result < 0) {
        snapshots->failed_at_ms = clock_monotonic_ms();
        log_error_err(
                &job->err, "stored.snapshot.failed", "action=try_again retry_ms=%d", RETRY_MS);
        return;
    }
    snapshots->failed_at_ms = 0;
    snapshots->newest = job->made;
    snapshots->log_bytes = 0;
    snapshots->made_count++;
    log_info("stored.snapshot.made",
            "index=%" PRIu64 " term=%" PRIu64 " bytes=%" PRIu64 " took_ms=%" PRIu64,
            job->made.index, job->made.term, job->made.bytes,
            clock_monotonic_ms() - job->started_at_ms);
    raft_side_tell_snapshot(stored);
}

/* One came from raftd, or one was set aside: raftd is to be told of what is there. */
static void look_for_newest(struct stored *stored)
{
    struct snapshot_info newest = { 0 };
    struct err err = { 0 };

    int result = snapshot_newest(stored->snap_dir, &newest, &err);
    if (result < 0 && result != -ENOENT) {
        log_warning_err(&err, "stored.snapshot.not_listed", "action=go_on");
    }
    stored->snapshots.newest = newest;
}

static void on_load_failed(struct stored *stored, const struct job *job)
{
    struct err err = { 0 };

    generations_discard(stored->generations, job->number);
    if (job->result == -EUCLEAN && snapshot_set_broken(job->path, &err) < 0) {
        log_warning_err(&err, "stored.snapshot.not_renamed", "action=go_on");
    }
    look_for_newest(stored);
    if (job->result == -EUCLEAN || job->result == -ENOENT) {
        log_error_err(&job->err, "stored.snapshot.broken",
                "index=%" PRIu64 " action=ask_for_another", job->index);
        raft_side_load_failed(stored, job);
        return;
    }
    stored_fail(stored, CONF_EXIT_STORAGE, &job->err, "stored.load.failed");
}

static void on_loaded(struct stored *stored, const struct job *job)
{
    struct err err = { 0 };

    int result = generations_switch(stored->generations, job->number, &err);
    if (result == 0) {
        result = generations_set_ids(stored->generations, job->cluster_id, job->member_id, &err);
    }
    if (result < 0) {
        stored_fail(stored, CONF_EXIT_STORAGE, &err, "stored.load.failed");
        return;
    }
    look_for_newest(stored);
    log_notice("stored.load.done", "index=%" PRIu64 " generation=%" PRIu64 " took_ms=%" PRIu64,
            job->index, job->number, clock_monotonic_ms() - job->started_at_ms);
    raft_side_loaded(stored);
}

static void on_job_done(void *user)
{
    struct stored *stored = user;
    struct job *job = &stored->snapshots.job;

    if (job->kind == JOB_NONE) {
        return; /* was waited for */
    }
    (void)pthread_join(job->thread, NULL);
    struct job done = *job;
    job->kind = JOB_NONE;
    heed_error(stored, done.result);
    if (done.kind == JOB_MAKE_SNAPSHOT) {
        on_snapshot_made(stored, &done);
        compaction_go_on(stored);
    } else if (done.kind == JOB_COMPACT) {
        compaction_copied(stored, &done);
    } else if (stored->snapshots.load_due) {
        generations_discard(stored->generations, done.number); /* another was ordered meanwhile */
    } else if (done.result < 0) {
        on_load_failed(stored, &done);
    } else {
        on_loaded(stored, &done);
    }
    if (stored->snapshots.load_due && stored->exit_status == 0) {
        begin_load(stored);
    }
}

void jobs_stop(struct stored *stored)
{
    struct job *job = &stored->snapshots.job;

    if (job->kind != JOB_NONE) {
        atomic_store(&stored->snapshots.stop, true);
        (void)pthread_join(job->thread, NULL);
        job->kind = JOB_NONE;
    }
}

uint64_t jobs_pause_ms(const struct stored *stored, uint64_t grown_bytes)
{
    const struct snapshots *snapshots = &stored->snapshots;

    bool copying = snapshots->job.kind == JOB_MAKE_SNAPSHOT || snapshots->job.kind == JOB_COMPACT;
    return copying ? throttle_ms(snapshots->file_bytes_at_start,
                             state_writer_file_bytes(snapshots->job.writer), grown_bytes)
                   : 0;
}
