/* main.c: raftd. Exit status: 0 stopped, 1 failed, 2 bad configuration, 3 the log cannot be written or trusted,
 * 100 this member was removed from its cluster. */
#include <errno.h>

#include "common/conf.h"
#include "common/log.h"
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
    case -EIO:
    case -ENOSPC:
        return CONF_EXIT_STORAGE;
    default:
        return CONF_EXIT_FAILED;
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

int main(int argc, char **argv)
{
    CLEANUP(conf_fini) struct conf conf = { 0 };
    struct err err = { 0 };

    int status = conf_start(&conf, CONF_RAFTD, argc, argv);
    if (status >= 0) {
        return status;
    }
    int result = run(&conf, &err);
    if (result < 0) {
        log_event_err(LOG_LEVEL_CRIT, &err, "raftd.start.failed", "action=exit");
        return status_of(result);
    }
    return result;
}
