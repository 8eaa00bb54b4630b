/* wire_ops.h: what the kinds of wire have in common: the first member of each. */
#pragma once

#include "proto/link_wire.h"

struct wire_ops {
    struct link_wire *(*close)(struct link_wire *wire); /* always NULL */
    void (*send)(struct link_wire *wire, uint32_t pipe, struct span head, struct span body);
    size_t (*waiting_bytes)(struct link_wire *wire, uint32_t pipe);
    void (*close_pipe)(struct link_wire *wire, uint32_t pipe);
};

struct link_wire {
    const struct wire_ops *ops;
};
