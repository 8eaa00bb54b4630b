/* foreign.h: who it may be that speaks on a peer's port but is no peer, by its first bytes. Pure. */
#pragma once

#include "common/span.h"

enum {
    FOREIGN_BYTES = 4 /* as many are enough */
};

/* What it looks like and how to mend it, a static text; NULL: like nothing known. */
const char *foreign_text(struct span first);

/* The first bytes of a sealed connection (daemons/raftd/peer/seal.h). As a length they are more than any frame's. */
#define FOREIGN_SEAL_MAGIC "QSL1"
