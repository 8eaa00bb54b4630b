#include "daemons/quorate/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/notify.h"
#include "daemons/quorate/hints.h"
#include "daemons/quorate/policy.h"

enum {
    STOP_RANKS = 3,
    HINTS_AFTER_MS = 1500,
    SAME_SIGNAL_MS = 500,  /* timeout(1) and init systems signal the process and then its group */
    POLL_FIXED = 2,        /* signals, notify socket */
    MESSAGES_AT_ONCE = 64, /* whoever sends more does not keep us from the rest */
};

/* What each rank may take before it is killed: together they stay below the five seconds promised. */
static const uint64_t stop_share_ms[STOP_RANKS] = { 2000, 1200, 1200 };

struct supervisor {
    const struct conf *conf;
    struct child_env env;
    char notify_name[64];
    int signal_fd;
    int notify_fd;
    sigset_t old_mask;
    struct child *children;
    size_t child_count;

    bool was_ready; /* all daemons said so, once */
    bool hints_told;
    uint64_t hints_at_ms;

    bool stopping;
    uint64_t stopping_since_ms;
    unsigned stop_rank;        /* that is being stopped */
    uint64_t stop_deadline_ms; /* of this rank; 0: not begun */
    struct supervisor_end end;
};

static struct child *add_child(struct supervisor *supervisor, const char *program,
        unsigned instance, unsigned stop_rank, bool is_gateway)
{
    struct child *child = &supervisor->children[supervisor->child_count++];

    *child = (struct child){
        .instance = instance, .stop_rank = stop_rank, .is_gateway = is_gateway, .relay = RELAY_INIT
    };
    if (is_gateway && supervisor->conf->gateways > 1) {
        (void)snprintf(child->name, sizeof child->name, "%s.%u", program, instance);
    } else {
        (void)snprintf(child->name, sizeof child->name, "%s", program);
    }
    return child;
}

/* A datagram socket with a name that the kernel chose, in the abstract namespace: no path can be too long for it. */
static int open_notify(struct supervisor *supervisor, struct err *err)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    socklen_t bytes = sizeof address;
    const int on = 1;

    supervisor->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (supervisor->notify_fd < 0 ||
            setsockopt(supervisor->notify_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0 ||
            bind(supervisor->notify_fd, (struct sockaddr *)&address, sizeof address.sun_family) <
                    0 ||
            getsockname(supervisor->notify_fd, (struct sockaddr *)&address, &bytes) < 0) {
        return err_errno(err, "notify socket");
    }
    size_t name_bytes = bytes - offsetof(struct sockaddr_un, sun_path);
    INVARIANT(name_bytes >= 2 && name_bytes < sizeof supervisor->notify_name);
    memcpy(supervisor->notify_name, address.sun_path, name_bytes);
    supervisor->notify_name[0] = '@';
    supervisor->notify_name[name_bytes] = '\0';
    supervisor->env.notify_socket = supervisor->notify_name;
    return 0;
}

static int open_signals(struct supervisor *supervisor, struct err *err)
{
    sigset_t mask;

    (void)sigemptyset(&mask);
    (void)sigaddset(&mask, SIGTERM);
    (void)sigaddset(&mask, SIGINT);
    (void)sigaddset(&mask, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &mask, &supervisor->old_mask);
    (void)signal(SIGCHLD, SIG_DFL); /* inherited as ignored, the kernel would reap for us */
    supervisor->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    return supervisor->signal_fd < 0 ? err_errno(err, "signalfd") : 0;
}

static int find_programs(struct supervisor *supervisor, struct err *err)
{
    unsigned gateways = (unsigned)supervisor->conf->gateways;

    TRY(child_find(add_child(supervisor, "raftd", 1, 1, false), "raftd", err));
    TRY(child_find(add_child(supervisor, "stored", 1, 2, false), "stored", err));
    for (unsigned i = 1; i <= gateways; i++) {
        TRY(child_find(add_child(supervisor, "gatewayd", i, 0, true), "gatewayd", err));
    }
    return 0;
}

int supervisor_new(const struct conf *conf, const struct conf_listeners *listeners, char **argv,
        struct supervisor **ret_supervisor, struct err *err)
{
    struct supervisor *supervisor = xcalloc(1, sizeof *supervisor);

    supervisor->conf = conf;
    supervisor->env = (struct child_env){ .argv = argv, .listeners = listeners };
    supervisor->signal_fd = -1;
    supervisor->notify_fd = -1;
    supervisor->children = xcalloc(conf->gateways + 2, sizeof *supervisor->children);
    int r = find_programs(supervisor, err);
    if (r == 0) {
        r = open_notify(supervisor, err);
    }
    if (r == 0) {
        r = open_signals(supervisor, err);
    }
    if (r < 0) {
        supervisor_free(supervisor);
        return r;
    }
    *ret_supervisor = supervisor;
    return 0;
}

struct supervisor *supervisor_free(struct supervisor *supervisor)
{
    if (supervisor == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < supervisor->child_count; i++) {
        relay_close(&supervisor->children[i].relay, supervisor->children[i].name);
        buf_fini(&supervisor->children[i].relay.line);
    }
    if (supervisor->signal_fd >= 0) {
        (void)close(supervisor->signal_fd);
        (void)sigprocmask(SIG_SETMASK, &supervisor->old_mask, NULL);
    }
    if (supervisor->notify_fd >= 0) {
        (void)close(supervisor->notify_fd);
    }
    free(supervisor->children);
    free(supervisor);
    return NULL;
}

/* 0 is nobody's: it stands for children that do not run. */
static struct child *find_child(struct supervisor *supervisor, pid_t pid)
{
    for (size_t i = 0; pid > 0 && i < supervisor->child_count; i++) {
        if (supervisor->children[i].pid == pid) {
            return &supervisor->children[i];
        }
    }
    return NULL;
}

static void begin_stop(struct supervisor *supervisor, int exit_status, int signal)
{
    if (supervisor->stopping) {
        return;
    }
    supervisor->stopping = true;
    supervisor->stopping_since_ms = clock_monotonic_ms();
    supervisor->end.exit_status = exit_status;
    supervisor->end.signal = signal;
    notify_stopping();
}

static void kill_child(struct child *child)
{
    INVARIANT(child->pid > 0); /* 0 would be all of us */
    (void)kill(child->pid, SIGKILL);
    child->killed = true;
}

static void start_child(struct supervisor *supervisor, struct child *child)
{
    struct err err = { 0, "" };

    if (child_start(child, &supervisor->env, &err) < 0) {
        /* No process or descriptor to be had: that may pass, so try again as after a death. */
        log_error_err(&err, "quorate.daemon.start_failed", "daemon=%s retry_ms=%d", child->name,
                POLICY_BACKOFF_MS_MAX);
        child->restart_at_ms = clock_monotonic_ms() + POLICY_BACKOFF_MS_MAX;
        return;
    }
    log_debug("quorate.daemon.started", "daemon=%s pid=%ld", child->name, (long)child->pid);
}

static void on_child_end(struct supervisor *supervisor, struct child *child, int wait_status)
{
    uint64_t now_ms = clock_monotonic_ms();
    int exit_status = 0;
    char end[64];
    char reason[256];

    relay_close(&child->relay, child->name); /* its last words come before ours about it */
    child->pid = 0;
    (void)child_describe_end(wait_status, end);
    if (supervisor->stopping) {
        log_debug("quorate.daemon.stopped", "daemon=%s with=\"%s\"", child->name, end);
        return;
    }
    switch (policy_decide(child, wait_status, now_ms, &exit_status, reason, sizeof reason)) {
    case POLICY_REMOVED:
        log_notice("quorate.member.removed", "action=stop");
        begin_stop(supervisor, 0, 0);
        break;
    case POLICY_GIVE_UP:
        log_line(LOG_LEVEL_CRIT, "quorate", "giving up: %s", reason);
        begin_stop(supervisor, exit_status, 0);
        break;
    case POLICY_RESTART:
        log_warning("quorate.daemon.ended",
                "daemon=%s with=\"%s\" lived_ms=%" PRIu64 " restart_in_ms=%" PRIu64 "%s%s",
                child->name, end, now_ms - child->started_at_ms, child->restart_at_ms - now_ms,
                reason[0] == '\0' ? "" : " note=", reason);
        break;
    }
}

static void reap(struct supervisor *supervisor)
{
    int wait_status;
    pid_t pid;

    /* As process 1 we are the parent of every orphan: what is not ours is reaped and forgotten. */
    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
        struct child *child = find_child(supervisor, pid);
        if (child != NULL) {
            on_child_end(supervisor, child, wait_status);
        }
    }
}

static void on_stop_signal(struct supervisor *supervisor, int signal)
{
    if (supervisor->stopping &&
            clock_monotonic_ms() - supervisor->stopping_since_ms < SAME_SIGNAL_MS) {
        return;
    }
    if (supervisor->stopping) {
        log_line(LOG_LEVEL_NOTICE, "quorate", "received another signal, killing the daemons");
        for (size_t i = 0; i < supervisor->child_count; i++) {
            if (supervisor->children[i].pid != 0) {
                kill_child(&supervisor->children[i]);
            }
        }
        return;
    }
    log_line(LOG_LEVEL_NOTICE, "osutil", "received %s signal, shutting down...",
            signal == SIGTERM ? "terminated" : "interrupt");
    begin_stop(supervisor, 0, signal);
}

/* Stop signals before deaths: a signal sent to the whole group ends the daemons too, and those are then no crashes. */
static void take_signals(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;
    bool deaths = false;

    while (read(supervisor->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD) {
            deaths = true;
        } else {
            on_stop_signal(supervisor, (int)info.ssi_signo);
        }
    }
    if (deaths) {
        reap(supervisor);
    }
}

static bool all_are_ready(const struct supervisor *supervisor)
{
    for (size_t i = 0; i < supervisor->child_count; i++) {
        if (!supervisor->children[i].ready) {
            return false;
        }
    }
    return true;
}

static void tell_hints(struct supervisor *supervisor)
{
    if (!supervisor->hints_told) {
        supervisor->hints_told = true;
        hints_print(supervisor->conf);
    }
}

static void on_message(struct supervisor *supervisor, struct child *child, const char *text)
{
    static const char end_pid[] = "X_QUORATE_END_PID=";

    if (strncmp(text, "READY=1", 7) == 0) {
        child->ready = child->was_ready = true;
        child->early_deaths = 0;
        if (!supervisor->was_ready && !supervisor->stopping && all_are_ready(supervisor)) {
            supervisor->was_ready = true;
            log_notice("quorate.ready", "name=%s daemons=%zu", supervisor->conf->name,
                    supervisor->child_count);
            tell_hints(supervisor);
        }
    } else if (strncmp(text, end_pid, sizeof end_pid - 1) == 0) {
        struct child *victim =
                find_child(supervisor, (pid_t)strtol(text + sizeof end_pid - 1, NULL, 10));
        if (victim != NULL && victim->is_gateway) {
            log_warning("quorate.daemon.stuck", "daemon=%s reported_by=%s action=kill",
                    victim->name, child->name);
            kill_child(victim);
        }
    }
}

/* The sender is known by what the kernel says of it, never by the text. Anybody on the host can send. */
static void take_messages(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < MESSAGES_AT_ONCE; i++) {
        char text[512];
        union {
            struct cmsghdr header;
            char room[CMSG_SPACE(sizeof(struct ucred))];
        } control;
        struct iovec part = { text, sizeof text - 1 };
        struct msghdr message = { .msg_iov = &part,
            .msg_iovlen = 1,
            .msg_control = &control,
            .msg_controllen = sizeof control };
        ssize_t bytes = recvmsg(supervisor->notify_fd, &message, MSG_CMSG_CLOEXEC);
        if (bytes < 0) {
            return;
        }
        text[bytes] = '\0';
        const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (header == NULL || header->cmsg_type != SCM_CREDENTIALS) {
            continue;
        }
        struct ucred sender;
        memcpy(&sender, CMSG_DATA(header), sizeof sender);
        struct child *child = find_child(supervisor, sender.pid);
        if (child != NULL) {
            on_message(supervisor, child, text);
        }
    }
}

static bool any_running(const struct supervisor *supervisor)
{
    for (size_t i = 0; i < supervisor->child_count; i++) {
        if (supervisor->children[i].pid != 0) {
            return true;
        }
    }
    return false;
}

/* Tells those of the rank to stop, kills them when their time is over. True once none is left. */
static bool stop_one_rank(struct supervisor *supervisor, uint64_t now_ms)
{
    bool done = true;

    for (size_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        if (child->stop_rank != supervisor->stop_rank || child->pid == 0) {
            continue;
        }
        done = false;
        if (!child->told_to_stop) {
            child->told_to_stop = true;
            (void)kill(child->pid, SIGTERM);
            (void)kill(child->pid, SIGCONT); /* one that was stopped could not hear */
        } else if (!child->killed && now_ms >= supervisor->stop_deadline_ms) {
            log_warning("quorate.daemon.stop_timeout", "daemon=%s action=kill", child->name);
            kill_child(child);
        }
    }
    return done;
}

static void advance_stop(struct supervisor *supervisor, uint64_t now_ms)
{
    while (supervisor->stop_rank < STOP_RANKS) {
        if (supervisor->stop_deadline_ms == 0) {
            supervisor->stop_deadline_ms = now_ms + stop_share_ms[supervisor->stop_rank];
        }
        if (!stop_one_rank(supervisor, now_ms)) {
            return;
        }
        supervisor->stop_rank++;
        supervisor->stop_deadline_ms = 0;
    }
}

static void do_what_is_due(struct supervisor *supervisor, uint64_t now_ms)
{
    if (supervisor->stopping) {
        advance_stop(supervisor, now_ms);
        return;
    }
    for (size_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        if (child->pid == 0 && child->restart_at_ms != 0 && child->restart_at_ms <= now_ms) {
            start_child(supervisor, child);
        }
    }
    if (now_ms >= supervisor->hints_at_ms) {
        tell_hints(supervisor);
    }
}

/* Milliseconds until something is due; -1: nothing is. */
static int next_due_ms(const struct supervisor *supervisor, uint64_t now_ms)
{
    uint64_t due_ms = UINT64_MAX;

    if (supervisor->stopping) {
        due_ms = supervisor->stop_deadline_ms == 0 ? UINT64_MAX : supervisor->stop_deadline_ms;
        /* All of the rank were killed already: their deaths wake us. */
        return due_ms == UINT64_MAX ? -1 : due_ms <= now_ms ? 50 : (int)(due_ms - now_ms) + 1;
    }
    for (size_t i = 0; i < supervisor->child_count; i++) {
        const struct child *child = &supervisor->children[i];
        if (child->pid == 0 && child->restart_at_ms != 0) {
            due_ms = MIN(due_ms, child->restart_at_ms);
        }
    }
    if (!supervisor->hints_told) {
        due_ms = MIN(due_ms, supervisor->hints_at_ms);
    }
    if (due_ms == UINT64_MAX) {
        return -1;
    }
    return due_ms <= now_ms ? 0 : (int)(due_ms - now_ms);
}

static void wait_and_take(struct supervisor *supervisor, struct pollfd *pollfds)
{
    pollfds[0] = (struct pollfd){ .fd = supervisor->signal_fd, .events = POLLIN };
    pollfds[1] = (struct pollfd){ .fd = supervisor->notify_fd, .events = POLLIN };
    for (size_t i = 0; i < supervisor->child_count; i++) {
        pollfds[POLL_FIXED + i] =
                (struct pollfd){ .fd = supervisor->children[i].relay.fd, .events = POLLIN };
    }
    if (poll(pollfds, POLL_FIXED + supervisor->child_count,
                next_due_ms(supervisor, clock_monotonic_ms())) <= 0) {
        return;
    }
    if (pollfds[1].revents != 0) {
        take_messages(supervisor);
    }
    for (size_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        if (pollfds[POLL_FIXED + i].revents != 0 && !relay_drain(&child->relay, child->name)) {
            relay_close(&child->relay, child->name);
        }
    }
    if (pollfds[0].revents != 0) {
        take_signals(supervisor);
    }
}

void supervisor_run(struct supervisor *supervisor, struct supervisor_end *ret_end)
{
    struct pollfd *pollfds = xcalloc(POLL_FIXED + supervisor->child_count, sizeof *pollfds);

    supervisor->hints_at_ms = clock_monotonic_ms() + HINTS_AFTER_MS;
    for (size_t i = 0; i < supervisor->child_count; i++) {
        start_child(supervisor, &supervisor->children[i]);
    }
    /* Listening is what readiness means to whoever waits for us: a leader may need other members, who may wait too. */
    notify_ready();
    while (!supervisor->stopping || any_running(supervisor)) {
        wait_and_take(supervisor, pollfds);
        do_what_is_due(supervisor, clock_monotonic_ms());
    }
    free(pollfds);
    supervisor->end.never_ready = !supervisor->was_ready;
    *ret_end = supervisor->end;
}
