#include "proto/link_wire.h"

#include <stdlib.h>

#include "proto/wire_ops.h"
#include "proto/wire_stream.h"
#include "proto/wire_unix.h"

struct wire_message {
    size_t bytes;
    uint8_t data[];
};

struct wire_message *wire_message_new(size_t bytes)
{
    struct wire_message *message = xmalloc(sizeof *message + bytes);

    message->bytes = bytes;
    return message;
}

uint8_t *wire_message_data(struct wire_message *message)
{
    return message->data;
}

struct span wire_message_body(const struct wire_message *message)
{
    return span_of(message->data, message->bytes);
}

struct wire_message *wire_message_free(struct wire_message *message)
{
    free(message);
    return NULL;
}

int wire_open(struct loop *loop, const struct link_config *config,
        const struct wire_handler *handler, struct link_wire **ret_wire, struct err *err)
{
    bool is_remote = strncmp(config->path, "tcp://", 6) == 0;

    return is_remote ? wire_stream_open(loop, config, handler, ret_wire, err)
                     : wire_unix_open(loop, config, handler, ret_wire, err);
}

struct link_wire *wire_close(struct link_wire *wire)
{
    return wire == NULL ? NULL : wire->ops->close(wire);
}

void wire_send(struct link_wire *wire, uint32_t pipe, struct span head, struct span body)
{
    wire->ops->send(wire, pipe, head, body);
}

size_t wire_waiting_bytes(struct link_wire *wire, uint32_t pipe)
{
    return wire->ops->waiting_bytes(wire, pipe);
}

void wire_close_pipe(struct link_wire *wire, uint32_t pipe)
{
    wire->ops->close_pipe(wire, pipe);
}
