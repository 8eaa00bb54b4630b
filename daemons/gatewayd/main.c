/* main.c: gatewayd. Exit status: 0 stopped, 1 failed, 2 bad configuration, 3 the disk cannot be read or written,
 * 4 no space to begin. */
#include <errno.h>
#include <sodium.h>
#include <unistd.h>

#include "common/conf.h"
#include "common/log.h"
#include "daemons/gatewayd/gatewayd.h"

static void gatewayd_freep(struct gatewayd **gatewayd)
{
    *gatewayd = gatewayd_free(*gatewayd);
}

static int enter_run_dir(const struct conf *conf, struct err *err)
{
    TRY(conf_make_dirs(conf, err));
    if (chdir(conf->run_dir) < 0) {
        return err_errno(err, "enter the run directory %s", conf->run_dir);
    }
    return 0;
}

static int run(const struct conf *conf, struct err *err)
{
    CLEANUP(gatewayd_freep) struct gatewayd *gatewayd = NULL;

    if (sodium_init() < 0) {
        return err_set(err, -EIO, "no random numbers");
    }
    TRY(enter_run_dir(conf, err));
    TRY(gatewayd_new(conf, &gatewayd, err));
    return gatewayd_run(gatewayd, err);
}

int main(int argc, char **argv)
{
    CLEANUP(conf_fini) struct conf conf = { 0 };
    struct err err = { 0 };

    int status = conf_start(&conf, CONF_GATEWAYD, argc, argv);
    if (status >= 0) {
        return status;
    }
    int result = run(&conf, &err);
    if (result < 0) {
        log_event_err(LOG_LEVEL_CRIT, &err, "gatewayd.start.failed", "action=exit");
        return conf_exit_status(result);
    }
    return 0;
}
