/* wire_stream.h: a wire between hosts: "tcp://host:port", connected by nng. See link_wire.h. */
#pragma once

#include "proto/link_wire.h"

int wire_stream_open(struct loop *loop, const struct link_config *config,
        const struct wire_handler *handler, struct link_wire **ret_wire, struct err *err);
