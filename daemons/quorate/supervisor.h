/* supervisor.h: the member's daemons as one: started together, restarted alone, stopped in order.
 *
 * Stopping: first the gatewayds (they answer what they took), then raftd, then stored; each has its share of five
 * seconds and is killed after it. One thread; waits in poll for signals, log lines and readiness. */
#pragma once

#include "common/conf.h"
#include "common/conf_listen.h"

struct supervisor;

/* Finds the executables and opens signals and the notify socket; starts nothing. */
int supervisor_new(const struct conf *conf, const struct conf_listeners *listeners, char **argv,
        struct supervisor **ret_supervisor, struct err *err);
struct supervisor *supervisor_free(struct supervisor *supervisor); /* always NULL, accepts NULL */

struct supervisor_end {
    int exit_status;
    int signal;       /* that ended us, 0: none */
    bool never_ready; /* the suite never got as far as serving */
};

/* Until all have ended. */
void supervisor_run(struct supervisor *supervisor, struct supervisor_end *ret_end);
