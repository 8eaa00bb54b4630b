/* strangers.h: tells the operator of users whose processes were hung up on: each user once, with the mend. */
#pragma once

#include "common/macros.h"

/* As link_events.on_stranger wants it; user is not looked at. Loop thread only. */
void strangers_tell(void *user, const char *path, int64_t uid, int64_t pid);
