#include "daemons/stored/generations.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/sigbus.h"
#include "common/sync_dir.h"
#include "daemons/stored/files.h"
#include "daemons/stored/mark.h"
#include "daemons/stored/snapshot.h"

struct generations {
    char *state_dir;
    char boot_id[40];
    size_t map_bytes;
    struct state_history_limits history;
    struct mark *mark;
    struct replica *replica;
    uint64_t number;  /* of the live one; 0: none */
    uint64_t highest; /* ever seen: numbers are not used twice */
    const char *reason;
    bool marked;   /* before the first write */
    bool doubted;  /* an I/O error was met elsewhere: no word for this one */
    bool poisoned; /* one was met here: never mark this state again */
};

static void data_path_of(
        const struct generations *generations, uint64_t number, char ret_path[STATE_PATH_BYTES_MAX])
{
    char dir[STATE_PATH_BYTES_MAX];

    state_generation_path(generations->state_dir, number, dir);
    (void)snprintf(ret_path, STATE_PATH_BYTES_MAX, "%.*s/data.mdb", STATE_PATH_BYTES_MAX - 16, dir);
}

int generations_open_built(struct generations *generations, const char *dir,
        struct replica **ret_replica, struct err *err)
{
    struct replica_config config = {
        .dir = dir,
        .map_bytes = generations->map_bytes,
        .history = generations->history,
        .boot_id = generations->boot_id,
    };
    return replica_open(&config, ret_replica, err);
}

static int open_live(struct generations *generations, uint64_t number, struct err *err)
{
    char dir[STATE_PATH_BYTES_MAX];
    char data_path[STATE_PATH_BYTES_MAX];

    state_generation_path(generations->state_dir, number, dir);
    data_path_of(generations, number, data_path);
    sigbus_guard(&(struct sigbus_guarded){ .event = "stored.state.unreadable",
            .file = data_path,
            .mark = mark_path(generations->mark) });
    int result = generations_open_built(generations, dir, &generations->replica, err);
    if (result < 0) {
        sigbus_unguard();
        return result;
    }
    (void)sigbus_mapped();
    generations->number = number;
    return 0;
}

/* Removes all environments but one, and finds the highest number. */
static int sweep(struct generations *generations, uint64_t kept, struct err *err)
{
    DIR *stream = opendir(generations->state_dir);
    struct dirent *entry;
    int result = 0;

    if (stream == NULL) {
        return err_errno(err, "open %s", generations->state_dir);
    }
    while (result == 0 && (entry = readdir(stream)) != NULL) {
        char dir[STATE_PATH_BYTES_MAX];
        char *end = NULL;
        uint64_t number = strtoull(entry->d_name, &end, 16);
        if (strlen(entry->d_name) != 16 || *end != '\0') {
            continue;
        }
        generations->highest = MAX(generations->highest, number);
        if (number != kept) {
            state_generation_path(generations->state_dir, number, dir);
            result = files_remove_dir(dir, err);
        }
    }
    (void)closedir(stream);
    return result;
}

/* True if the environment is as it was left. Its tables are not looked at before that is known. */
static bool is_trusted(struct generations *generations, uint64_t number)
{
    char data_path[STATE_PATH_BYTES_MAX];
    char dir[STATE_PATH_BYTES_MAX];
    uint64_t said_txn_id = 0;
    uint64_t found_txn_id = 0;

    data_path_of(generations, number, data_path);
    state_generation_path(generations->state_dir, number, dir);
    switch (mark_judge(generations->mark, number, data_path, &said_txn_id, &generations->reason)) {
    case MARK_CLEAN:
        return true;
    case MARK_MATCHES:
        if (state_writer_peek_txn_id(dir, &found_txn_id, NULL) == 0 &&
                found_txn_id == said_txn_id) {
            generations->reason = "it is as it was left";
            return true;
        }
        return false;
    case MARK_DISTRUSTED:
    default:
        return false;
    }
}

static int open_what_is_there(struct generations *generations, struct err *err)
{
    uint64_t number = 0;
    struct err ignored = { 0 };

    int result = state_current_generation(generations->state_dir, &number, err);
    if (result < 0 && result != -ENOENT && result != -EUCLEAN) {
        return result;
    }
    generations->highest = number;
    if (result == -EUCLEAN) {
        generations->reason = "CURRENT cannot be read";
    }
    if (result == 0 && !is_trusted(generations, number)) {
        number = 0;
    }
    if (number != 0 && open_live(generations, number, &ignored) < 0) {
        generations->reason = "it cannot be opened";
        number = 0;
    }
    if (number == 0) {
        mark_drop_word(generations->mark);
    }
    return sweep(generations, number, err);
}

int generations_open(const struct generations_config *config, struct generations **ret_generations,
        struct err *err)
{
    struct generations *generations = xcalloc(1, sizeof *generations);
    struct mark_config mark_config = {
        .state_dir = config->state_dir,
        .run_dir = config->run_dir,
        .shared_dir = config->shared_dir,
        .boot_id = config->boot_id,
        .sys_dir = config->sys_dir,
    };

    generations->state_dir = xstrdup(config->state_dir);
    generations->map_bytes = config->map_bytes;
    generations->history = config->history;
    (void)snprintf(generations->boot_id, sizeof generations->boot_id, "%s", config->boot_id);
    generations->mark = mark_new(&mark_config);
    int result = open_what_is_there(generations, err);
    if (result < 0) {
        (void)generations_abandon(generations);
        return result;
    }
    *ret_generations = generations;
    return 0;
}

static void close_live(struct generations *generations)
{
    sigbus_unguard();
    generations->replica = replica_close(generations->replica);
    generations->marked = false;
}

struct generations *generations_abandon(struct generations *generations)
{
    if (generations != NULL) {
        close_live(generations);
        generations->mark = mark_free(generations->mark);
        free(generations->state_dir);
        free(generations);
    }
    return NULL;
}

struct generations *generations_close(struct generations *generations)
{
    char data_path[STATE_PATH_BYTES_MAX];

    if (generations != NULL && generations->replica != NULL) {
        int result = generations->poisoned
                             ? -EIO
                             : state_writer_sync(replica_writer(generations->replica), NULL);
        close_live(generations);
        data_path_of(generations, generations->number, data_path);
        if (result == 0) {
            (void)mark_set_clean(generations->mark, generations->number, data_path, NULL);
        } else {
            mark_distrust(generations->mark);
        }
    }
    return generations_abandon(generations);
}

struct replica *generations_replica(struct generations *generations)
{
    return generations->replica;
}

uint64_t generations_number(const struct generations *generations)
{
    return generations->number;
}

const char *generations_reason(const struct generations *generations)
{
    return generations->reason;
}

static int before_write(struct generations *generations, struct err *err)
{
    char data_path[STATE_PATH_BYTES_MAX];
    uint64_t txn_id = state_writer_txn_id(replica_writer(generations->replica));

    if (generations->poisoned) {
        return err_set(err, -EIO, "the state met an I/O error before");
    }
    if (generations->marked) {
        return 0;
    }
    data_path_of(generations, generations->number, data_path);
    TRY(mark_set_dirty(
            generations->mark, generations->number, data_path, txn_id, !generations->doubted, err));
    generations->marked = true;
    return 0;
}

void generations_doubt(struct generations *generations)
{
    generations->doubted = true;
    mark_drop_word(generations->mark);
}

/* After an I/O error nobody knows what the disk holds. A full disk is no such error: LMDB's commit is all or nothing. */
static int after_write(struct generations *generations, int result)
{
    if (result == 0) {
        mark_set_txn_id(
                generations->mark, state_writer_txn_id(replica_writer(generations->replica)));
    } else if (result != -ENOSPC && result != -EDQUOT && result != -EBADMSG) {
        generations_distrust(generations);
    }
    return result;
}

int generations_apply(struct generations *generations, const struct apply *batch,
        uint64_t now_boottime_ns, struct replica_result *ret_result, struct err *err)
{
    TRY(before_write(generations, err));
    int result = replica_apply(generations->replica, batch, now_boottime_ns, ret_result, err);
    return after_write(generations, result);
}

int generations_set_ids(
        struct generations *generations, uint64_t cluster_id, uint64_t member_id, struct err *err)
{
    TRY(before_write(generations, err));
    int result = replica_set_ids(generations->replica, cluster_id, member_id, err);
    return after_write(generations, result);
}

static int put_counters(struct state_writer *writer, struct span record, struct err *err)
{
    TRY(state_writer_begin(writer, err));
    int result = state_write_record_put(writer, "counters", record);
    if (result < 0) {
        state_writer_abort(writer);
        return err_set(err, result, "save counters: %s", strerror(-result));
    }
    return state_writer_commit(writer, err);
}

int generations_put_counters(struct generations *generations, struct span record, struct err *err)
{
    TRY(before_write(generations, err));
    int result = put_counters(replica_writer(generations->replica), record, err);
    return after_write(generations, result);
}

int generations_prepare(struct generations *generations, uint64_t *ret_number,
        char ret_dir[STATE_PATH_BYTES_MAX], struct err *err)
{
    uint64_t number = generations->highest + 1;

    state_generation_path(generations->state_dir, number, ret_dir);
    TRY(files_remove_dir(ret_dir, err));
    TRY(files_make_dir(ret_dir, 0750, err));
    generations->highest = number;
    *ret_number = number;
    return 0;
}

static int build(const char *dir, size_t map_bytes, bool create, uint64_t cluster_id,
        uint64_t member_id, uint64_t complete_at, struct err *err)
{
    struct replica *replica = NULL;
    struct replica_config config = {
        .dir = dir,
        .map_bytes = map_bytes,
        .create = create,
        .boot_id = "",
    };

    TRY(replica_open(&config, &replica, err));
    int result = create ? 0 : replica_set_ids(replica, cluster_id, member_id, err);
    if (result == 0) {
        result = replica_set_complete_at(replica, complete_at, err);
    }
    if (result == 0) {
        result = state_writer_sync(replica_writer(replica), err);
    }
    replica = replica_close(replica);
    TRY(result);
    return sync_dir(dir, err);
}

int generations_build_empty(
        const char *dir, size_t map_bytes, uint64_t complete_at, struct err *err)
{
    return build(dir, map_bytes, true, 0, 0, complete_at, err);
}

int generations_build_loaded(const char *dir, size_t map_bytes, const char *snapshot_path_,
        uint64_t cluster_id, uint64_t member_id, uint64_t complete_at, struct err *err)
{
    struct snapshot_info info;

    TRY(snapshot_unpack(snapshot_path_, dir, &info, err));
    if (cluster_id != 0 && info.cluster_id != 0 && info.cluster_id != cluster_id) {
        return err_set(err, -EUCLEAN, "%s: it is of cluster %" PRIx64 ", this one is %" PRIx64,
                snapshot_path_, info.cluster_id, cluster_id);
    }
    return build(dir, map_bytes, false, cluster_id, member_id, complete_at, err);
}

static int set_current(struct generations *generations, uint64_t number, struct err *err)
{
    char text[32];

    int bytes = snprintf(text, sizeof text, "%016" PRIx64 "\n", number);
    return files_replace(generations->state_dir, "CURRENT", span_of(text, (size_t)bytes), err);
}

int generations_switch(struct generations *generations, uint64_t number, struct err *err)
{
    uint64_t old = generations->number;
    char dir[STATE_PATH_BYTES_MAX];

    TRY(set_current(generations, number, err));
    close_live(generations);
    generations->number = 0;
    generations->doubted = false;      /* the new one was synced */
    mark_drop_word(generations->mark); /* it is of the old one */
    TRY(open_live(generations, number, err));
    TRY(before_write(generations, err));
    if (old != 0) {
        state_generation_path(generations->state_dir, old, dir);
        TRY(files_remove_dir(dir, err));
    }
    return 0;
}

void generations_discard(struct generations *generations, uint64_t number)
{
    char dir[STATE_PATH_BYTES_MAX];

    state_generation_path(generations->state_dir, number, dir);
    (void)files_remove_dir(dir, NULL);
}

void generations_distrust(struct generations *generations)
{
    generations->poisoned = true;
    mark_distrust(generations->mark);
}
