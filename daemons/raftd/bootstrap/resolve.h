/* resolve.h: asks DNS who the members of a new cluster are. Blocks for as long as DNS takes. */
#pragma once

#include "common/buf.h"
#include "common/conf.h"

/* The records of --discovery-srv; `out` gets the value for --initial-cluster. QUORATE_RESOLVER=address:port in the
 * environment takes the place of the name servers in /etc/resolv.conf. */
int resolve_srv(const struct conf *conf, struct buf *out, struct err *err);
