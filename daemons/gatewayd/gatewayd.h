/* gatewayd.h: the client API of a member: HTTP in, reads from the state, ops to raftd, outcomes from stored.
 *
 * All state is the loop thread's. Nothing here outlives a restart: counters lie in the run dir, everything else is the
 * log's and the state's. */
#pragma once

#include "common/err.h"

struct conf;
struct gatewayd;

/* Opens the listening descriptors (the parent's, or our own), the counters page and the links. The current directory
 * must be the run dir. `conf` is borrowed for the gatewayd's life. */
int gatewayd_new(const struct conf *conf, struct gatewayd **ret_gatewayd, struct err *err);

/* Serves until SIGTERM or SIGINT, and then until what is under way has been answered (3 s at most). */
int gatewayd_run(struct gatewayd *gatewayd, struct err *err);

struct gatewayd *gatewayd_free(struct gatewayd *gatewayd); /* always NULL, accepts NULL */
