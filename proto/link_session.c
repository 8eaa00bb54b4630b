/* link_session.c: one session: messages out, acks in, messages in, acks out.
 *
 * What time makes due (acks owed, messages unacknowledged) is done by the hub's tick. Acks ride on messages; alone
 * they go after ACK_MESSAGES messages, at the next tick, and at once to a peer that seems to have missed one. */
#include <errno.h>
#include <stdlib.h>

#include "common/loop.h"
#include "proto/limits.h"
#include "proto/link_parts.h"

enum {
    RESEND_BYTES_MAX = 1024 * 1024, /* at a time: a slow peer is not helped by more */
    ACK_MESSAGES = 8,
    WIRE_BYTES_AHEAD =
            1024 *
            1024, /* the wire copies what its socket does not take: it is not given more than that too early */
};

struct link *link_session_new(struct link_peer *peer, uint64_t epoch)
{
    struct link *link = xcalloc(1, sizeof *link);

    link->peer = peer;
    link->epoch = epoch;
    link->state = LINK_OPENING;
    send_window_init(&link->send, peer->hub->window, LINK_WINDOW_BYTES_MAX);
    receive_window_init(&link->receive, peer->hub->window);
    return link;
}

struct link *link_session_free(struct link *link)
{
    if (link != NULL) {
        send_window_fini(&link->send);
        receive_window_fini(&link->receive);
        free(link);
    }
    return NULL;
}

/* Says all that is owed, so one that cannot go now goes with the next. */
static void send_ack(struct link *link)
{
    if (!link_peer_reads(link->peer)) {
        return;
    }
    link_peer_send_control(link->peer, LINK_ACK, link->epoch, link->receive.received_seq);
    link->acks_owed = 0;
    link->ack_now = false;
}

static size_t waiting_bytes(const struct link *link)
{
    return wire_waiting_bytes(link->peer->hub->wire, link->peer->pipe);
}

static void send_message(struct link *link, uint64_t seq)
{
    struct send_slot *slot = send_window_get(&link->send, seq);

    slot->sent_at_ms = loop_now_ms(link->peer->hub->loop);
    link_peer_send(link->peer, &(struct link_frame){
                                       .type = slot->type,
                                       .epoch = link->epoch,
                                       .seq = seq,
                                       .ack = link->receive.received_seq,
                                       .body = buf_span(&slot->body),
                               });
    link->waiting_bytes = waiting_bytes(link);
    link->acks_owed = 0;
    link->ack_now = false;
}

/* A message that is large, or goes to somebody busy, is on its way for longer than a stall: what leaves is movement, too. */
static void note_taken(struct link *link)
{
    size_t bytes = waiting_bytes(link);

    if (bytes < link->waiting_bytes) {
        link->progress_at_ms = link_hub_heard_ms(link->peer->hub);
    }
    link->waiting_bytes = bytes;
}

/* As much as the wire is to be given now; the rest when its socket has taken some. */
static void send_waiting(struct link *link)
{
    while (link->sent_seq < link->send.last_seq && waiting_bytes(link) < WIRE_BYTES_AHEAD) {
        send_message(link, ++link->sent_seq);
    }
}

void link_session_start(struct link *link)
{
    link->state = LINK_UP;
    link->progress_at_ms = link_hub_heard_ms(link->peer->hub);
    send_waiting(link);
}

static void deliver(struct link *link, const struct link_frame *frame)
{
    struct link_hub *hub = link->peer->hub;

    link->acks_owed++;
    hub->events->on_message(hub->user, link, (unsigned)frame->type, frame->body);
}

/* Messages that came before one that was late. */
static void deliver_ahead(struct link *link)
{
    while (link->state == LINK_UP) {
        struct wire_message *message = receive_window_next(&link->receive);
        if (message == NULL) {
            return;
        }
        struct link_frame frame;
        INVARIANT_EQ(link_frame_parse(wire_message_body(message), &frame, NULL), 0);
        deliver(link, &frame);
        (void)wire_message_free(message);
    }
}

static void on_message(
        struct link *link, const struct link_frame *frame, struct wire_message **take_message)
{
    switch (receive_window_put(&link->receive, frame->seq, take_message)) {
    case RECEIVE_DELIVER:
        deliver(link, frame);
        deliver_ahead(link);
        break;
    case RECEIVE_DUPLICATE:
        link->ack_now = true;
        break;
    case RECEIVE_AHEAD:
    case RECEIVE_TOO_FAR:
        break;
    }
}

static int take_ack(struct link *link, uint64_t ack, struct err *err)
{
    if (ack > link->sent_seq) {
        return err_set(err, -EBADMSG, "frame.ack: %" PRIu64 ", but only %" PRIu64 " were sent", ack,
                link->sent_seq);
    }
    int freed = send_window_ack(&link->send, ack, err);

    if (freed > 0) {
        link->progress_at_ms = link_hub_heard_ms(link->peer->hub);
    }
    return freed;
}

int link_session_on_frame(struct link *link, const struct link_frame *frame,
        struct wire_message **take_message, struct err *err)
{
    TRY(take_ack(link, frame->ack, err));
    if (frame->type <= LINK_MESSAGE_TYPE_MAX) {
        on_message(link, frame, take_message);
    }
    return 0;
}

void link_session_after_drain(struct link *link)
{
    const struct link_events *events = link->peer->hub->events;

    note_taken(link);
    send_waiting(link);
    if (link->wants_writable && !send_window_is_full(&link->send)) {
        link->wants_writable = false;
        if (events->on_writable != NULL) {
            events->on_writable(link->peer->hub->user, link);
        }
    }
    if (link->state == LINK_UP && (link->acks_owed >= ACK_MESSAGES || link->ack_now)) {
        send_ack(link);
    }
}

static void resend(struct link *link, uint64_t now_ms)
{
    size_t bytes = 0;

    for (uint64_t seq = link->send.acked_seq + 1; seq <= link->sent_seq && bytes < RESEND_BYTES_MAX;
            seq++) {
        struct send_slot *slot = send_window_get(&link->send, seq);
        if (now_ms - slot->sent_at_ms < link->peer->hub->resend_ms) {
            return; /* the next round begins when all of the last is due */
        }
        bytes += slot->body.bytes;
        send_message(link, seq);
    }
}

bool link_session_needs_tick(const struct link *link)
{
    return link->state == LINK_UP && (link->acks_owed > 0 || send_window_count(&link->send) > 0);
}

void link_session_tick(struct link *link, uint64_t now_ms, bool may_judge)
{
    bool waits = may_judge && send_window_count(&link->send) > 0;

    if (waits && link_hub_heard_ms(link->peer->hub) - link->progress_at_ms >=
                         link->peer->hub->stall_ms) {
        link_peer_break(link->peer);
        return;
    }
    if (waits && waiting_bytes(link) == 0) {
        resend(link, now_ms); /* what has not left yet is not lost: the peer is slow */
    }
    if (link->acks_owed > 0) {
        send_ack(link);
    }
}

int link_send(struct link *link, unsigned type, struct buf *take_body)
{
    struct link_hub *hub = link->peer->hub;

    INVARIANT(type > 0 && type <= LINK_MESSAGE_TYPE_MAX);
    INVARIANT_LT(0, take_body->bytes);
    if (take_body->bytes + LINK_FRAME_HEAD_BYTES_MAX > hub->frame_bytes_max) {
        return -EMSGSIZE;
    }
    if (!link_can_send(link)) {
        link->wants_writable = true;
        return -EAGAIN;
    }
    if (send_window_count(&link->send) == 0) {
        link->progress_at_ms = link_hub_heard_ms(hub);
    }
    (void)send_window_put(&link->send, type, take_body);
    if (link->state == LINK_UP) {
        send_waiting(link);
        link_hub_arm_tick(hub);
    }
    return 0;
}

bool link_can_send(const struct link *link)
{
    return link->state != LINK_DOWN && !send_window_is_full(&link->send);
}

size_t link_unacknowledged(const struct link *link)
{
    return send_window_count(&link->send);
}

size_t link_held_bytes(const struct link *link)
{
    return link->send.bytes + waiting_bytes(link);
}

void link_drop(struct link *link)
{
    if (link->state != LINK_DOWN) {
        link_peer_break(link->peer);
    }
}

void link_set_user(struct link *link, void *user)
{
    link->user = user;
}

void *link_get_user(const struct link *link)
{
    return link->user;
}

int64_t link_peer_uid(const struct link *link)
{
    return link->peer->uid;
}

int64_t link_peer_pid(const struct link *link)
{
    return link->peer->pid;
}
