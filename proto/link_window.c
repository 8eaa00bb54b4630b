#include "proto/link_window.h"

#include <errno.h>
#include <stdlib.h>

#include "proto/link_wire.h"

void send_window_init(struct send_window *window, unsigned size, size_t bytes_max)
{
    INVARIANT_LT(0, size);
    INVARIANT_LT(0, bytes_max);
    *window = (struct send_window){ .size = size, .bytes_max = bytes_max };
    window->slots = xcalloc(size, sizeof window->slots[0]);
}

void send_window_fini(struct send_window *window)
{
    for (unsigned i = 0; i < window->size; i++) {
        buf_fini(&window->slots[i].body);
    }
    free(window->slots);
    *window = (struct send_window){ 0 };
}

uint64_t send_window_put(struct send_window *window, unsigned type, struct buf *take_body)
{
    INVARIANT(!send_window_is_full(window));
    uint64_t seq = ++window->last_seq;
    struct send_slot *slot = &window->slots[seq % window->size];
    INVARIANT(slot->body.data == NULL);
    *slot = (struct send_slot){ .type = type, .body = *take_body };
    window->bytes += slot->body.bytes;
    *take_body = BUF_INIT;
    return seq;
}

struct send_slot *send_window_get(struct send_window *window, uint64_t seq)
{
    INVARIANT_LT(window->acked_seq, seq);
    INVARIANT_LE(seq, window->last_seq);
    return &window->slots[seq % window->size];
}

int send_window_ack(struct send_window *window, uint64_t ack, struct err *err)
{
    int freed = 0;

    if (ack > window->last_seq) {
        return err_set(err, -EBADMSG, "frame.ack: %" PRIu64 ", but only %" PRIu64 " were sent", ack,
                window->last_seq);
    }
    for (; window->acked_seq < ack; freed++) {
        struct send_slot *slot = send_window_get(window, window->acked_seq + 1);
        window->bytes -= slot->body.bytes;
        buf_fini(&slot->body);
        window->acked_seq++;
    }
    return freed;
}

void receive_window_init(struct receive_window *window, unsigned size)
{
    INVARIANT_LT(0, size);
    *window = (struct receive_window){ .size = size };
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers. */
    window->ahead = xcalloc(size, sizeof window->ahead[0]);
}

void receive_window_fini(struct receive_window *window)
{
    for (unsigned i = 0; i < window->size; i++) {
        (void)wire_message_free(window->ahead[i]);
    }
    free(window->ahead);
    *window = (struct receive_window){ 0 };
}

enum receive_verdict receive_window_put(
        struct receive_window *window, uint64_t seq, struct wire_message **take_message)
{
    struct wire_message **slot = &window->ahead[seq % window->size];

    if (seq <= window->received_seq) {
        return RECEIVE_DUPLICATE;
    }
    if (seq == window->received_seq + 1) {
        window->received_seq = seq;
        *slot = wire_message_free(*slot); /* it may have come ahead as well: never twice */
        return RECEIVE_DELIVER;
    }
    if (seq - window->received_seq > window->size) {
        return RECEIVE_TOO_FAR;
    }
    if (*slot != NULL) {
        return RECEIVE_DUPLICATE;
    }
    *slot = MOVE(*take_message);
    return RECEIVE_AHEAD;
}

struct wire_message *receive_window_next(struct receive_window *window)
{
    struct wire_message **slot = &window->ahead[(window->received_seq + 1) % window->size];

    if (*slot != NULL) {
        window->received_seq++;
    }
    return MOVE(*slot);
}
