#include "daemons/quorate/trial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/url.h"
#include "daemons/quorate/child.h"

enum {
    SAID_BYTES = 16 * 1024, /* the last of what raftd said */
    EXIT_CANNOT_EXECUTE = 127
};

static bool names_keys(const struct conf *conf)
{
    return conf->cluster_key_file[0] != '\0' ||
           url_any_is_tls(conf->listen_peer_urls.items, conf->listen_peer_urls.count);
}

/* Between fork and exec: there is one thread. */
NORETURN static void become_raftd(const char *path, char **argv, int said_fd, pid_t parent)
{
    static char check[] = "--check";
    size_t count = 0;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (getppid() != parent || null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 ||
            dup2(null_fd, STDOUT_FILENO) < 0 || dup2(said_fd, STDERR_FILENO) < 0) {
        _exit(EXIT_CANNOT_EXECUTE);
    }
    while (argv[count] != NULL) {
        count++;
    }
    char **arguments = xcalloc(count + 2, sizeof *arguments);
    memcpy(arguments, argv, count * sizeof *arguments);
    arguments[count] = check;
    (void)execv(path, arguments);
    (void)dprintf(STDERR_FILENO, "cannot execute %s: %s\n", path, strerror(errno));
    _exit(EXIT_CANNOT_EXECUTE);
}

/* Reads to the end; of more than fits, the last is kept. */
static size_t read_said(int fd, char *ret_said)
{
    size_t used = 0;

    for (;;) {
        if (used == SAID_BYTES - 1) {
            used /= 2;
            memmove(ret_said, ret_said + SAID_BYTES - 1 - used, used);
        }
        ssize_t got = read(fd, ret_said + used, SAID_BYTES - 1 - used);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        used += (size_t)got;
    }
    while (used > 0 && ret_said[used - 1] == '\n') {
        used--;
    }
    ret_said[used] = '\0';
    return used;
}

/* What raftd says of flags and files is so the next time too; what else can end it may pass. */
static int judge(int wait_status, const char *said, bool tell_notes, struct err *err)
{
    bool is_refusal = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == CONF_EXIT_USAGE;
    int code = is_refusal ? -EINVAL : -EIO;
    const char *last = strrchr(said, '\n');
    char end[64];

    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0) {
        if (tell_notes && said[0] != '\0') {
            (void)fprintf(stderr, "%s\n", said);
        }
        return 0;
    }
    last = last == NULL ? said : last + 1;
    if (last[0] == '\0') {
        return err_set(err, code, "raftd --check: %s", child_describe_end(wait_status, end));
    }
    return err_set(err, code, "%s", last);
}

int trial_of_keys(const struct conf *conf, char **argv, bool tell_notes, struct err *err)
{
    struct child raftd = { .pid = 0 };
    pid_t parent = getpid();
    int wait_status = 0;
    int said_fds[2];

    if (!names_keys(conf)) {
        return 0;
    }
    TRY(child_find(&raftd, "raftd", err));
    if (pipe2(said_fds, O_CLOEXEC) < 0) {
        return err_errno(err, "pipe for raftd --check");
    }
    pid_t pid = fork();
    if (pid == 0) {
        become_raftd(raftd.path, argv, said_fds[1], parent);
    }
    int reason = errno;
    (void)close(said_fds[1]);
    if (pid < 0) {
        (void)close(said_fds[0]);
        return err_set(err, -reason, "fork for raftd --check: %s", strerror(reason));
    }
    char *said = xcalloc(1, SAID_BYTES);
    (void)read_said(said_fds[0], said);
    (void)close(said_fds[0]);
    while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) {
    }
    int r = judge(wait_status, said, tell_notes, err);
    free(said);
    return r;
}
