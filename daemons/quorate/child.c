#include "daemons/quorate/child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

enum {
    EXIT_CANNOT_EXECUTE = 127
};

int child_find(struct child *child, const char *program, struct err *err)
{
    /* Installed side by side; in the build directory; in /usr with the daemons out of the way of PATH. */
    static const char *const folders[] = { "", NULL, "../libexec/quorate/" }; /* NULL: ../NAME/ */
    char own[PATH_MAX];
    char folder[64];
    ssize_t bytes = readlink("/proc/self/exe", own, sizeof own - 1);

    if (bytes <= 0) {
        return err_errno(err, "readlink /proc/self/exe");
    }
    own[bytes] = '\0';
    *strrchr(own, '/') = '\0';
    for (size_t i = 0; i < ARRAY_COUNT(folders); i++) {
        if (folders[i] == NULL) {
            (void)snprintf(folder, sizeof folder, "../%s/", program);
        } else {
            (void)snprintf(folder, sizeof folder, "%s", folders[i]);
        }
        int r = snprintf(child->path, sizeof child->path, "%s/%s%s", own, folder, program);
        if (r > 0 && (size_t)r < sizeof child->path && access(child->path, X_OK) == 0) {
            return 0;
        }
    }
    return err_set(err, -ENOENT,
            "the executable %s is neither in %s nor in %s/../%s: build or install it there",
            program, own, own, program);
}

/* Puts the sockets at 3, 4, ... as the protocol wants them. They, and the pipe, are moved out of the way first: one may
 * stand where another is to go. */
static void place_listeners(const struct conf_listeners *listeners)
{
    enum {
        ABOVE_ALL = CONF_LISTEN_FD_FIRST + CONF_LISTEN_FDS_MAX
    };
    int moved[CONF_LISTEN_FDS_MAX];
    char names[CONF_LISTEN_FDS_MAX * sizeof "client-tls:"] = "";
    char number[16];
    size_t used = 0;

    for (size_t i = 0; i < listeners->count; i++) {
        moved[i] = fcntl(listeners->items[i].fd, F_DUPFD_CLOEXEC, ABOVE_ALL);
    }
    for (size_t i = 0; i < listeners->count; i++) {
        if (moved[i] < 0 || dup2(moved[i], CONF_LISTEN_FD_FIRST + (int)i) < 0) {
            _exit(EXIT_CANNOT_EXECUTE);
        }
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i == 0 ? "" : ":",
                listeners->items[i].tls ? "client-tls" : "client");
    }
    (void)snprintf(number, sizeof number, "%zu", listeners->count);
    (void)setenv("LISTEN_FDS", number, 1);
    (void)setenv("LISTEN_FDNAMES", names, 1);
    (void)snprintf(number, sizeof number, "%ld", (long)getpid());
    (void)setenv("LISTEN_PID", number, 1);
}

static void set_environment(const struct child *child, const struct child_env *env)
{
    static const char *const ours_alone[] = { "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
        "WATCHDOG_USEC", "WATCHDOG_PID", "QUORATE_RESTARTED" };
    char number[16];

    for (size_t i = 0; i < ARRAY_COUNT(ours_alone); i++) {
        (void)unsetenv(ours_alone[i]);
    }
    (void)snprintf(number, sizeof number, "%u", child->instance);
    (void)setenv("QUORATE_DAEMON", number, 1);
    (void)setenv("NOTIFY_SOCKET", env->notify_socket, 1);
    if (child->was_ready) {
        (void)setenv("QUORATE_RESTARTED", "1", 1); /* what is asked of a start was done by an earlier one */
    }
}

/* Between fork and exec. There is one thread, so all of libc may be used. */
NORETURN static void become(
        const struct child *child, const struct child_env *env, int log_fd, pid_t parent)
{
    sigset_t mask;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(EXIT_CANNOT_EXECUTE); /* the parent died before the line above: nobody would signal us */
    }
    (void)signal(SIGPIPE, SIG_DFL);
    (void)sigemptyset(&mask);
    (void)sigaddset(&mask, SIGINT);
    (void)sigprocmask(SIG_SETMASK, &mask, NULL);
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (dup2(log_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0 || null_fd < 0 ||
            dup2(null_fd, STDIN_FILENO) < 0) {
        _exit(EXIT_CANNOT_EXECUTE);
    }
    set_environment(child, env);
    if (child->is_gateway) {
        place_listeners(env->listeners);
    }
    (void)execv(child->path, env->argv);
    (void)fprintf(stderr, "cannot execute %s: %s\n", child->path, strerror(errno));
    _exit(EXIT_CANNOT_EXECUTE);
}

int child_start(struct child *child, const struct child_env *env, struct err *err)
{
    pid_t parent = getpid();
    int pipe_fds[2];

    if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
        return err_errno(err, "pipe for %s", child->name);
    }
    (void)fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK);
    pid_t pid = fork();
    if (pid == 0) {
        become(child, env, pipe_fds[1], parent);
    }
    (void)close(pipe_fds[1]);
    if (pid < 0) {
        int r = err_errno(err, "fork for %s", child->name);
        (void)close(pipe_fds[0]);
        return r;
    }
    INVARIANT(child->relay.fd < 0);
    child->relay.fd = pipe_fds[0];
    child->pid = pid;
    child->ready = false;
    child->told_to_stop = false;
    child->killed = false;
    child->restart_at_ms = 0;
    child->started_at_ms = clock_monotonic_ms();
    return 0;
}

const char *child_describe_end(int wait_status, char ret_text[64])
{
    if (WIFSIGNALED(wait_status)) {
        (void)snprintf(ret_text, 64, "signal %d (%s)", WTERMSIG(wait_status),
                strsignal(WTERMSIG(wait_status)));
    } else {
        (void)snprintf(ret_text, 64, "status %d", WEXITSTATUS(wait_status));
    }
    return ret_text;
}
