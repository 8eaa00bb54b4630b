/* quorate: a whole member in the foreground. Looks before it touches, binds before it writes, then supervises. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/conf.h"
#include "common/conf_listen.h"
#include "daemons/quorate/child.h"
#include "daemons/quorate/datadir.h"
#include "daemons/quorate/hints.h"
#include "daemons/quorate/supervisor.h"
#include "daemons/quorate/trial.h"

enum {
    FD_LIMIT_MIN = 150
};

/* -EINVAL and -ENOTSUP mean that starting again with the same flags cannot help. */
static int exit_status_of(int code)
{
    return code == -EINVAL || code == -ENOTSUP ? CONF_EXIT_USAGE : CONF_EXIT_FAILED;
}

static int check_limits(struct err *err)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur <= FD_LIMIT_MIN) {
        return err_set(err, -EMFILE,
                "file descriptor limit[%llu] of etcd process is too low, and should be set higher "
                "than %d to ensure internal usage; raise it with ulimit -n, or LimitNOFILE= of a "
                "unit",
                (unsigned long long)limit.rlim_cur, FD_LIMIT_MIN);
    }
    return 0;
}

static int bind_all(const struct conf *conf, struct conf_listeners *listeners, struct err *err)
{
    TRY(conf_listen_take(listeners, err));
    bool were_given = listeners->count > 0;
    for (size_t i = 0; i < conf->listen_peer_urls.count; i++) {
        TRY(conf_listen_try(conf->listen_peer_urls.items[i], "listen-peer-urls", err));
    }
    for (size_t i = 0; i < conf->listen_client_urls.count && !were_given; i++) {
        TRY(conf_listen_bind(
                listeners, conf->listen_client_urls.items[i], "listen-client-urls", err));
    }
    return 0;
}

/* All that can be refused without having touched anything. */
static int prepare(struct conf *conf, char **argv, struct datadir *datadir,
        struct conf_listeners *listeners, struct err *err)
{
    TRY(check_limits(err));
    TRY(trial_of_keys(conf, argv, conf->action == CONF_ACTION_CHECK, err));
    TRY(datadir_check(conf, datadir, err));
    if (datadir->is_new) {
        TRY(conf_check_bootstrap(conf, err));
    }
    return bind_all(conf, listeners, err);
}

/* The shell that waits for us is to see the signal, as from etcd; process 1 cannot die of one. */
static int end_by(int signal_number)
{
    sigset_t mask;

    if (getpid() == 1) {
        return 0;
    }
    (void)signal(signal_number, SIG_DFL);
    (void)sigemptyset(&mask);
    (void)sigaddset(&mask, signal_number);
    (void)sigprocmask(SIG_UNBLOCK, &mask, NULL);
    (void)raise(signal_number);
    return 128 + signal_number;
}

static int supervise(const struct conf *conf, struct datadir *datadir,
        struct conf_listeners *listeners, char **argv, struct supervisor_end *ret_end,
        struct err *err)
{
    struct supervisor *supervisor = NULL;

    TRY(supervisor_new(
            conf, listeners, argv, &supervisor, err)); /* also: are the programs there? */
    int r = datadir_open(datadir, conf, err);
    if (r == 0) {
        supervisor_run(supervisor, ret_end);
    }
    supervisor_free(supervisor);
    return r;
}

static int check_only(struct conf *conf, char **argv, struct err *err)
{
    struct conf_listeners listeners = { .count = 0 };
    struct datadir datadir = DATADIR_INIT;

    conf_print_effective(conf, stdout);
    (void)fflush(stdout);
    int r = prepare(conf, argv, &datadir, &listeners, err);
    conf_listen_close(&listeners, true);
    if (r == 0) {
        (void)printf("ok: %s\n", datadir.is_new ? "would start a new member"
                                                : "would start the member that is there");
    }
    return r;
}

static int run(struct conf *conf, char **argv, struct supervisor_end *ret_end, struct err *err)
{
    struct conf_listeners listeners = { .count = 0 };
    struct datadir datadir = DATADIR_INIT;
    size_t notes_told = conf->note_count;

    int r = prepare(conf, argv, &datadir, &listeners, err);
    if (r == 0) {
        for (size_t i = notes_told; i < conf->note_count; i++) {
            log_line(conf->notes[i].level, conf->notes[i].package, "%s", conf->notes[i].text);
        }
        hints_warn_open(conf);
        r = supervise(conf, &datadir, &listeners, argv, ret_end, err);
    }
    conf_listen_close(&listeners, true);
    datadir_close(&datadir, conf, r < 0 || (ret_end->never_ready && ret_end->exit_status != 0));
    return r;
}

/* A backup is raftd's to make: it knows the log. */
static int back_up(char **argv)
{
    struct child raftd = { .pid = 0 };
    struct err err = { 0, "" };

    if (child_find(&raftd, "raftd", &err) == 0) {
        (void)execv(raftd.path, argv);
        (void)err_errno(&err, "execute %s", raftd.path);
    }
    (void)fprintf(stderr, "%s\n", err.text);
    return CONF_EXIT_FAILED;
}

int main(int argc, char **argv)
{
    struct conf conf = { .who = CONF_QUORATE };
    struct supervisor_end end = { 0, 0, true };
    struct err err = { 0, "" };

    (void)umask(S_IRWXG | S_IRWXO); /* started by hand, under one user: nobody else's business */
    int status = conf_start(&conf, CONF_QUORATE, argc, argv);
    if (status < 0 && conf.action == CONF_ACTION_RUN && conf.backup_dir[0] != '\0') {
        status = back_up(argv);
    } else if (status < 0) {
        int r = conf.action == CONF_ACTION_CHECK ? check_only(&conf, argv, &err)
                                                 : run(&conf, argv, &end, &err);
        if (r < 0) {
            (void)fprintf(stderr, "%s\n", err.text);
        }
        status = r < 0 ? exit_status_of(r) : end.exit_status;
    }
    conf_fini(&conf);
    return end.signal == 0 ? status : end_by(end.signal);
}
