/* wire_unix.h: a wire within the host: a Unix socket. See link_wire.h. */
#pragma once

#include "proto/link_wire.h"

int wire_unix_open(struct loop *loop, const struct link_config *config,
        const struct wire_handler *handler, struct link_wire **ret_wire, struct err *err);
