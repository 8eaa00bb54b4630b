#include "daemons/stored/stored.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/lockfile.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/sync_dir.h"
#include "daemons/stored/files.h"
#include "daemons/stored/lockwatch.h"
#include "daemons/stored/stored_impl.h"

enum {
    HISTORY_EVENTS_MIN = 65536,
    HISTORY_BYTES = 64 * 1024 * 1024,
};

static char *join(const char *dir, const char *name)
{
    struct buf path = BUF_INIT;
    buf_appendf(&path, "%s/%s", dir, name);
    buf_append_byte(&path, '\0');
    return (char *)path.data;
}

static int make_dirs(struct stored *stored, struct err *err)
{
    char *member = join(stored->config.data_dir, "member");
    int result = files_make_dir(member, 0700, err);

    free(member);
    TRY(result);
    TRY(files_make_dir(stored->state_dir, 0750, err));
    return files_make_dir(stored->snap_dir, 0770, err);
}

static int open_state(struct stored *stored, struct err *err)
{
    uint64_t history_count = MAX(stored->config.event_history, (uint64_t)HISTORY_EVENTS_MIN);
    struct generations_config config = {
        .state_dir = stored->state_dir,
        .run_dir = stored->config.run_dir,
        .shared_dir = stored->config.shared_dir,
        .boot_id = stored->boot_id,
        .map_bytes = stored->config.map_bytes,
        .history = {
            .window = stored->config.event_history,
            .count = history_count,
            .bytes = HISTORY_BYTES,
        },
    };

    TRY(generations_open(&config, &stored->generations, err));
    struct replica *replica = generations_replica(stored->generations);
    if (replica != NULL) {
        const struct schema_meta *meta = replica_meta(replica);
        log_info("stored.state.trusted",
                "generation=%" PRIu64 " applied_index=%" PRIu64 " etcd_index=%" PRIu64
                " reason=\"%s\"",
                generations_number(stored->generations), meta->applied_index, meta->etcd_index,
                generations_reason(stored->generations));
    } else if (generations_reason(stored->generations) != NULL) {
        log_warning("stored.state.distrusted", "reason=\"%s\" action=rebuild",
                generations_reason(stored->generations));
    }
    return 0;
}

static int set_up(struct stored *stored, struct err *err)
{
    char *lock = join(stored->state_dir, "LOCK");

    int result = make_dirs(stored, err);
    if (result == 0) {
        result = lockfile_open(lock, &stored->lock_fd, err);
    }
    free(lock);
    TRY(result);
    TRY(lockwatch_start(stored->state_dir, CONF_EXIT_STORAGE, &stored->lockwatch, err));
    snapshot_sweep(stored->snap_dir);
    /* A life before this one may have died between a snapshot's name and its sync, and raftd is told of what is there. */
    TRY(sync_dir(stored->snap_dir, err));
    result = snapshot_newest(stored->snap_dir, &stored->snapshots.newest, err);
    if (result < 0 && result != -ENOENT) {
        return result;
    }
    return open_state(stored, err);
}

int stored_new(const struct stored_config *config, struct stored **ret_stored, struct err *err)
{
    struct stored *stored = xcalloc(1, sizeof *stored);

    stored->config = *config;
    stored->lock_fd = -1;
    stored->state_dir = join(config->data_dir, "member/state");
    stored->snap_dir = join(config->data_dir, "member/snap");
    clock_boot_id(stored->boot_id);
    list_init(&stored->raft.pending);
    list_init(&stored->subscribers.all);
    list_init(&stored->compaction.batches);
    int result = set_up(stored, err);
    if (result < 0) {
        (void)stored_free(stored);
        return result;
    }
    *ret_stored = stored;
    return 0;
}

int stored_start(struct stored *stored, struct loop *loop, struct err *err)
{
    (void)signal(SIGPIPE, SIG_IGN); /* a reader of our pipes may go first */
    stored->loop = loop;
    if (chdir(stored->config.run_dir) < 0) {
        return err_errno(err, "enter the run directory %s", stored->config.run_dir);
    }
    TRY(subscribers_start(stored, err));
    TRY(status_page_start(stored, err));
    TRY(care_start(stored, err));
    return raft_side_start(stored, err);
}

struct stored *stored_free(struct stored *stored)
{
    if (stored == NULL) {
        return NULL;
    }
    if (stored->loop != NULL) {
        jobs_stop(stored);
        compaction_cancel(stored);
        if (stored->generations != NULL) {
            fold_counters(stored);
        }
        raft_side_stop(stored);
        care_stop(stored);
        status_page_stop(stored);
        subscribers_stop(stored);
    }
    stored->generations = stored->exit_status == CONF_EXIT_STORAGE
                                  ? generations_abandon(stored->generations)
                                  : generations_close(stored->generations);
    stored->lockwatch = lockwatch_stop(stored->lockwatch);
    if (stored->lock_fd >= 0) {
        (void)close(stored->lock_fd);
    }
    free(stored->state_dir);
    free(stored->snap_dir);
    free(stored);
    return NULL;
}

int stored_exit_status(const struct stored *stored)
{
    return stored->exit_status;
}

void stored_fail(struct stored *stored, int status, const struct err *err, const char *event)
{
    log_event_err(LOG_LEVEL_CRIT, err, event, "action=exit status=%d", status);
    stored->exit_status = status;
    if (status == CONF_EXIT_STORAGE && stored->generations != NULL) {
        generations_distrust(stored->generations);
    }
    loop_stop(stored->loop);
}

void stored_fill_hello(void *user, struct hello *ret_hello)
{
    struct stored *stored = user;
    struct replica *replica = generations_replica(stored->generations);

    ret_hello->component = SPAN_LIT("stored");
    if (replica != NULL) {
        const struct schema_meta *meta = replica_meta(replica);
        ret_hello->cluster_id = meta->cluster_id;
        ret_hello->member_id = meta->member_id;
        ret_hello->applied_index = meta->applied_index;
        ret_hello->applied_term = meta->applied_term;
        ret_hello->generation = generations_number(stored->generations);
        SET(ret_hello, hello_tag_cluster_id);
        SET(ret_hello, hello_tag_member_id);
        SET(ret_hello, hello_tag_applied_index);
        SET(ret_hello, hello_tag_applied_term);
        SET(ret_hello, hello_tag_generation);
    }
}
