/* link.c: the hub: events of the wire to its peers and their sessions, and the tick.
 *
 * All time is kept by one tick of 10 ms a hub, which runs only while something is due: acks owed, messages
 * unacknowledged, a hello unanswered. */
#include "proto/link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/loop.h"
#include "proto/limits.h"
#include "proto/link_parts.h"

enum {
    WINDOW_DEFAULT = 32,
    STALL_MS_DEFAULT = 1000,
    TICK_MS = 10,
    LATE_TICK_MS = 100,
    RESEND_MS_DEFAULT = 300,
    SILENT_STALLS_MAX = 10, /* times stall_ms without a hello, as a dialer waits for the answer */
};

void link_peer_send(struct link_peer *peer, const struct link_frame *frame)
{
    uint8_t head[LINK_FRAME_HEAD_BYTES_MAX];
    size_t head_bytes = link_frame_put_head(frame, head);

    wire_send(peer->hub->wire, peer->pipe, span_of(head, head_bytes), frame->body);
}

void link_peer_send_control(
        struct link_peer *peer, enum link_control type, uint64_t epoch, uint64_t ack)
{
    static const uint8_t nil = 0xc0;

    link_peer_send(
            peer, &(struct link_frame){
                          .type = type, .epoch = epoch, .ack = ack, .body = span_of(&nil, 1) });
}

bool link_peer_reads(const struct link_peer *peer)
{
    return wire_waiting_bytes(peer->hub->wire, peer->pipe) < UNREAD_BYTES_MAX;
}

void link_peer_break(struct link_peer *peer)
{
    if (peer->link != NULL) {
        peer->link->state = LINK_DOWN;
    }
    wire_close_pipe(peer->hub->wire, peer->pipe);
}

/* Between two ticks no more than LATE_TICK_MS count, whenever one looks: the count must never go back. */
uint64_t link_hub_heard_ms(const struct link_hub *hub)
{
    return hub->heard_ms + MIN(loop_now_ms(hub->loop) - hub->heard_at_ms, (uint64_t)LATE_TICK_MS);
}

static void count_heard(struct link_hub *hub)
{
    hub->heard_ms = link_hub_heard_ms(hub);
    hub->heard_at_ms = loop_now_ms(hub->loop);
}

void link_hub_arm_tick(struct link_hub *hub)
{
    if (!hub->is_ticking) {
        hub->is_ticking = true;
        count_heard(hub);
        loop_timer_start(hub->tick, TICK_MS, TICK_MS);
    }
}

static bool peer_needs_tick(const struct link_peer *peer)
{
    return peer->link == NULL || link_session_needs_tick(peer->link);
}

/* --- the wire's events ------------------------------------------------------------------------------------ */

static struct link_peer *find_peer(struct link_hub *hub, uint32_t pipe)
{
    LIST_FOREACH (peer, &hub->peers, struct link_peer, node) {
        if (peer->pipe == pipe) {
            return peer;
        }
    }
    return NULL;
}

static void add_peer(struct link_hub *hub, const struct wire_event *event)
{
    struct link_peer *peer = xcalloc(1, sizeof *peer);

    peer->hub = hub;
    peer->pipe = event->pipe;
    peer->uid = event->uid;
    peer->pid = event->pid;
    peer->silent_since_ms = loop_now_ms(hub->loop);
    list_append(&hub->peers, &peer->node);
    if (!hub->listen) {
        link_peer_say_hello(peer);
    } else {
        link_hub_arm_tick(hub);
    }
}

static void free_peer(struct link_peer *peer)
{
    list_remove(&peer->node);
    (void)link_session_free(peer->link);
    free(peer);
}

static int on_frame(struct link_peer *peer, const struct link_frame *frame,
        struct wire_message **take_message, struct err *err)
{
    struct link *link = peer->link;

    if (frame->type == LINK_HELLO) {
        link_peer_on_hello(peer, frame);
    } else if (frame->type == LINK_REFUSED) {
        link_peer_on_refused(peer, frame);
    } else if (link == NULL || link->epoch != frame->epoch) {
        link_peer_on_stray(peer, frame);
    } else if (link->state != LINK_UP) {
        return 0; /* its pipe is being closed */
    } else if (frame->type == LINK_HELLO_REQUIRED) {
        link_peer_on_hello_required(peer);
    } else {
        return link_session_on_frame(link, frame, take_message, err);
    }
    return 0;
}

static void on_wire_message(struct link_peer *peer, struct wire_message *message)
{
    struct link_frame frame;
    struct err err;

    peer->silent_since_ms = loop_now_ms(peer->hub->loop);
    if (link_frame_parse(wire_message_body(message), &frame, &err) < 0 ||
            on_frame(peer, &frame, &message, &err) < 0) {
        link_peer_break(peer); /* not one of us */
    }
    (void)wire_message_free(message);
}

static void on_wire_event(void *user, const struct wire_event *event)
{
    struct link_hub *hub = user;
    struct link_peer *peer = find_peer(hub, event->pipe);

    switch (event->kind) {
    case WIRE_PIPE_ADDED:
        add_peer(hub, event);
        break;
    case WIRE_PIPE_REMOVED:
        if (peer != NULL) {
            link_peer_end_session(peer);
            free_peer(peer);
        }
        break;
    case WIRE_MESSAGE:
        if (peer != NULL) {
            on_wire_message(peer, event->message);
        } else {
            (void)wire_message_free(event->message); /* of a pipe that is gone */
        }
        break;
    case WIRE_STRANGER:
        if (hub->events->on_stranger != NULL) {
            hub->events->on_stranger(hub->user, hub->path, event->uid, event->pid);
        }
        break;
    }
}

static void on_wire_drained(void *user)
{
    struct link_hub *hub = user;

    LIST_FOREACH (peer, &hub->peers, struct link_peer, node) {
        if (peer->link != NULL && peer->link->state == LINK_UP) {
            link_session_after_drain(peer->link);
        }
        if (peer_needs_tick(peer)) {
            link_hub_arm_tick(hub);
        }
    }
}

/* --- time ------------------------------------------------------------------------------------------------- */

/* A loop that was busy for long sees its timers before the acks that have come meanwhile: nobody is to be judged by
 * such a tick. Two in a row mean that it is always busy, and then it must do; but no gap counts for more than LATE_TICK_MS. */
static bool tick_may_judge(struct link_hub *hub, uint64_t now_ms)
{
    bool is_late = now_ms - hub->heard_at_ms > LATE_TICK_MS;
    bool may = !is_late || hub->tick_was_late;

    count_heard(hub);
    hub->tick_was_late = is_late;
    return may;
}

/* A listener does not keep a place for who says nothing: of a pair it is the only one. */
static void tick_without_session(struct link_peer *peer, uint64_t now_ms, bool may_judge)
{
    struct link_hub *hub = peer->hub;

    if (!hub->listen) {
        link_peer_tick_hello(peer, now_ms);
    } else if (may_judge && now_ms - peer->silent_since_ms >= hub->stall_ms * SILENT_STALLS_MAX) {
        peer->silent_since_ms = now_ms;
        link_peer_break(peer);
    }
}

static void on_tick(void *user)
{
    struct link_hub *hub = user;
    uint64_t now_ms = loop_now_ms(hub->loop);
    bool may_judge = tick_may_judge(hub, now_ms);
    bool needed = false;

    LIST_FOREACH (peer, &hub->peers, struct link_peer, node) {
        if (peer->link == NULL) {
            tick_without_session(peer, now_ms, may_judge);
        } else if (peer->link->state == LINK_UP) {
            link_session_tick(peer->link, now_ms, may_judge);
        }
        needed |= peer_needs_tick(peer);
    }
    if (!needed) {
        hub->is_ticking = false;
        loop_timer_stop(hub->tick);
    }
}

/* --- public ----------------------------------------------------------------------------------------------- */

int link_hub_open(struct loop *loop, const struct link_config *config, struct link_hub **ret_hub,
        struct err *err)
{
    struct link_hub *hub = xcalloc(1, sizeof *hub);

    hub->loop = loop;
    hub->events = config->events;
    hub->user = config->user;
    hub->listen = config->listen;
    (void)snprintf(hub->path, sizeof hub->path, "%s", config->path);
    hub->window = config->window == 0 ? WINDOW_DEFAULT : config->window;
    hub->stall_ms = config->stall_ms == 0 ? STALL_MS_DEFAULT : config->stall_ms;
    hub->resend_ms = config->resend_ms == 0 ? RESEND_MS_DEFAULT : config->resend_ms;
    hub->frame_bytes_max =
            config->frame_bytes_max == 0 ? LINK_IPC_BYTES_MAX : config->frame_bytes_max;
    hub->tick = loop_timer_new(loop, on_tick, hub);
    list_init(&hub->peers);
    const struct wire_handler handler = { on_wire_event, on_wire_drained, hub };
    int r = wire_open(loop, config, &handler, &hub->wire, err);
    if (r < 0) {
        (void)link_hub_close(hub);
        return r;
    }
    *ret_hub = hub;
    return 0;
}

struct link_hub *link_hub_close(struct link_hub *hub)
{
    if (hub == NULL) {
        return NULL;
    }
    hub->wire = wire_close(hub->wire);
    hub->tick = loop_timer_free(hub->tick);
    LIST_FOREACH (peer, &hub->peers, struct link_peer, node) {
        free_peer(peer);
    }
    codec_scratch_fini(&hub->scratch);
    buf_fini(&hub->hello);
    free(hub);
    return NULL;
}
