/* main.c: stored. Exit status: 0 stopped, 1 failed, 2 bad configuration, 3 the state cannot be written or relied on,
 * 4 no space to begin. */
#include <errno.h>
#include <signal.h>

#include "common/conf.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/notify.h"
#include "daemons/stored/stored.h"

static void stored_freep(struct stored **stored)
{
    *stored = stored_free(*stored);
}

static void loop_freep(struct loop **loop)
{
    *loop = loop_free(*loop);
}

static void on_stop(void *user)
{
    struct loop *loop = user;
    notify_stopping();
    log_info("stored.stop", "reason=signal");
    loop_stop(loop);
}

static int run(const struct conf *conf, struct err *err)
{
    CLEANUP(loop_freep) struct loop *loop = NULL;
    CLEANUP(stored_freep) struct stored *stored = NULL;
    struct stored_config config = {
        .data_dir = conf->data_dir,
        .run_dir = conf->run_dir,
        .shared_dir = "/dev/shm",
        .snapshot_count = conf->snapshot_count,
        .max_snapshots = conf->max_snapshots,
        .event_history = conf->event_history,
        .peer_uids = conf->ipc_uids.items,
        .peer_uid_count = conf->ipc_uids.count,
    };

    TRY(conf_make_dirs(conf, err));
    TRY(stored_new(&config, &stored, err));
    loop = loop_new();
    loop_on_signal(loop, SIGTERM, on_stop, loop);
    loop_on_signal(loop, SIGINT, on_stop, loop);
    TRY(stored_start(stored, loop, err));
    notify_ready();
    loop_run(loop);
    return stored_exit_status(stored);
}

int main(int argc, char **argv)
{
    CLEANUP(conf_fini) struct conf conf = { 0 };
    struct err err = { 0 };

    int status = conf_start(&conf, CONF_STORED, argc, argv);
    if (status >= 0) {
        return status;
    }
    int result = run(&conf, &err);
    if (result < 0) {
        log_event_err(LOG_LEVEL_CRIT, &err, "stored.start.failed", "action=exit");
        return result == -EUCLEAN ? CONF_EXIT_STORAGE : conf_exit_status(result);
    }
    return result;
}
