/* compat.h: which versions may be in one cluster: neighbouring ones of one major version, so that a cluster is upgraded one
 * member after the other. Pure. */
#pragma once

#include "common/err.h"
#include "common/span.h"

/* Whether this version may join a cluster where a member of the other answered. -EINVAL. */
int compat_check(struct span theirs, const char *own, struct err *err);
