/* main.c: raftd. Exit status: 0 stopped, 1 failed, 2 bad configuration, 3 the log cannot be written or trusted,
 * 4 no space to begin, 100 this member was removed from its cluster. */
#include <errno.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/conf.h"
#include "common/log.h"
#include "daemons/raftd/backup.h"
#include "daemons/raftd/failnote.h"
#include "daemons/raftd/peer/security.h"
#include "daemons/raftd/raftd.h"

static void raftd_freep(struct raftd **raftd)
{
    *raftd = raftd_free(*raftd);
}

static int status_of(int result)
{
    switch (result) {
    case -EINVAL:
        return CONF_EXIT_USAGE;
    case -EBADMSG:
        return CONF_EXIT_STORAGE;
    default:
        return conf_exit_status(result);
    }
}

static int run(const struct conf *conf, struct err *err)
{
    CLEANUP(raftd_freep) struct raftd *raftd = NULL;

    TRY(conf_make_dirs(conf, err));
    TRY(raftd_new(conf, &raftd, err));
    TRY(raftd_start(raftd, err));
    return raftd_loop(raftd);
}

/* What flags say, and whether the keys that they name are good. */
static int check_only(const struct conf *conf)
{
    struct security *security = NULL;
    struct err err = { 0 };

    conf_print_effective(conf, stdout);
    (void)fflush(stdout);
    int result = security_new(conf, &security, &err);
    if (result < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
    }
    (void)security_free(security);
    return result < 0 ? status_of(result) : 0;
}

/* A copy instead of a life. */
static int back_up(const struct conf *conf)
{
    struct backup_config config = { conf->data_dir, conf->wal_dir, conf->backup_dir,
        conf->backup_wal_dir };
    struct backup_report report;
    struct err err = { 0 };

    if (backup_make(&config, &report, &err) < 0) {
        (void)fprintf(stderr, "no backup was made: %s\n", err.text);
        return CONF_EXIT_FAILED;
    }
    (void)printf("backup of %s in %s: snapshot index %" PRIu64 ", last index %" PRIu64
                 ", last term %" PRIu64 ", %" PRIu64 " bytes\n",
            conf->data_dir, conf->backup_dir, report.snapshot_index, report.last_index,
            report.last_term, report.bytes);
    return fflush(stdout) == 0 ? 0 : CONF_EXIT_FAILED;
}

int main(int argc, char **argv)
{
    CLEANUP(conf_fini) struct conf conf = { 0 };
    struct err err = { 0 };

    int status = conf_start(&conf, CONF_RAFTD, argc, argv);
    if (status >= 0) {
        return status;
    }
    if (conf.action == CONF_ACTION_CHECK) {
        return check_only(&conf);
    }
    if (conf.backup_dir[0] != '\0') {
        return back_up(&conf);
    }
    int result = run(&conf, &err);
    if (result < 0) {
        if (result == -EIO) {
            (void)failnote_leave(conf.wal_dir, clock_wall_ns(), err.text);
        }
        log_event_err(LOG_LEVEL_CRIT, &err, "raftd.start.failed", "action=exit");
        return status_of(result);
    }
    return result;
}
