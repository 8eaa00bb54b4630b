/* child.h: one daemon as a process: where its executable is, how it is started, what became of it. */
#pragma once

#include <sys/types.h>

#include "common/conf_listen.h"
#include "daemons/quorate/relay.h"

enum {
    CHILD_NAME_BYTES = 24,
    CHILD_PATH_BYTES = 4096
};

struct child {
    char name[CHILD_NAME_BYTES]; /* "raftd", "gatewayd.2" */
    char path[CHILD_PATH_BYTES]; /* of the executable */
    unsigned instance;           /* 1, 2, ... among its like */
    unsigned stop_rank;          /* the lowest is stopped first */
    bool is_gateway;             /* is given the client sockets */

    pid_t pid;  /* 0: does not run */
    bool ready;     /* said so in this life */
    bool was_ready; /* in this or an earlier one */
    bool told_to_stop;
    bool killed;
    uint64_t started_at_ms;
    uint64_t restart_at_ms;  /* 0: none due */
    uint64_t backoff_ms;     /* before the next restart */
    unsigned early_deaths;   /* in a row, without having been ready */
    unsigned storage_deaths; /* exits with status 3 */
    struct relay relay;
};

/* What every child is given. */
struct child_env {
    char **argv; /* quorate's own; the daemons read the same flags */
    const struct conf_listeners *listeners;
    const char *notify_socket; /* "@name" */
};

/* Finds the executable beside our own, or in ../NAME/ as the build directory has it. */
int child_find(struct child *child, const char *program, struct err *err);

/* Forks and executes. The child dies with us, does not see SIGINT (a terminal sends it to the whole group, and the order
 * of stopping is ours), and logs into the relay. */
int child_start(struct child *child, const struct child_env *env, struct err *err);

/* "status 2", "signal 9 (Killed)". Returns ret_text. */
const char *child_describe_end(int wait_status, char ret_text[64]);
