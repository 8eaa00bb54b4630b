/* discovery.h: finds the members of a new cluster by a registry that all of them were given the URL of.
 *
 * Blocks until as many members as the registry asks for have registered, which may take days; a stop signal ends the
 * process, since nothing was written by then. What is not this member's fault is tried again for as long as it takes. */
#pragma once

#include "common/buf.h"
#include "common/conf.h"

/* Registers this member, waits for the others; `out` gets the value for --initial-cluster. */
int discovery_run(const struct conf *conf, struct buf *out, struct err *err);
