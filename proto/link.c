/* link.c: sessions over a wire that may lose, double and reorder.
 *
 * A peer is a pipe; a link is a session on it. The dialer opens one with a hello under a new epoch:
 *
 *    dialer                                             listener
 *    pipe is there: hello (epoch e) ──────────────────▶ on_up
 *                                   again each 300 ms
 *                   on_up ◀────────────────── hello (e)
 *    messages and acks, numbered from 1 each way, every frame bearing e
 *
 * A refusal takes the place of the answer; the dialer then says hello anew after a second. A frame whose epoch is not
 * the session's is dropped and answered hello_required under that epoch: whoever still believes in that session
 * ends it, and a dialer opens another. A session ends with its pipe at the latest, and with it all that was not
 * acknowledged.
 *
 * All time is kept by one tick of 10 ms a hub, which runs only while something is due: acks owed, messages
 * unacknowledged, a hello unanswered. Loop thread only. */
#include "proto/link.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/list.h"
#include "common/loop.h"
#include "proto/hello.h"
#include "proto/limits.h"
#include "proto/link_frame.h"
#include "proto/link_window.h"
#include "proto/link_wire.h"
#include "version.h"

enum {
    WINDOW_DEFAULT = 32,
    STALL_MS_DEFAULT = 1000,
    TICK_MS = 10,
    LATE_TICK_MS = 100,
    RESEND_MS = 300,
    RESEND_BYTES_MAX = 1024 * 1024, /* at a time: a slow peer is not helped by more */
    REFUSED_RETRY_MS = 1000,
    HELLO_STALLS_MAX = 10, /* times stall_ms without an answer: the pipe is no good */
    ACK_MESSAGES = 8,
};

enum link_state {
    LINK_OPENING, /* in on_up: what is sent waits for the answer to the hello */
    LINK_UP,
    LINK_DOWN, /* its pipe is being closed; on_down follows */
};

struct link {
    struct peer *peer;
    void *user;
    uint64_t epoch;
    enum link_state state;
    struct send_window send;
    uint64_t progress_at_ms; /* when the last ack moved, or the window last filled from empty */
    bool wants_writable;
    struct receive_window receive;
    unsigned acks_owed; /* messages handed out that no frame has acknowledged */
    bool ack_now;       /* the peer seems to have missed an ack */
};

struct peer {
    struct list node;
    struct link_hub *hub;
    uint32_t pipe;
    int64_t uid;
    int64_t pid;
    struct link *link; /* NULL: no session */
    /* Dialer, without a session: */
    uint64_t offered_epoch; /* of our unanswered hello; 0: none */
    uint64_t offered_at_ms; /* the first time */
    uint64_t hello_at_ms;   /* say hello (again) then */
};

struct link_hub {
    struct loop *loop;
    const struct link_events *events;
    void *user;
    bool listen;
    unsigned window;
    uint64_t stall_ms;
    size_t frame_bytes_max;
    struct link_wire *wire;
    struct loop_timer *tick;
    bool is_ticking;
    uint64_t ticked_at_ms;
    bool tick_was_late;
    struct list peers;
    struct codec_scratch scratch;
    struct buf hello; /* encoded, for one frame */
};

/* --- frames out ------------------------------------------------------------------------------------------- */

static void send_frame(struct peer *peer, const struct link_frame *frame)
{
    uint8_t head[LINK_FRAME_HEAD_BYTES_MAX];
    size_t head_bytes = link_frame_put_head(frame, head);

    wire_send(peer->hub->wire, peer->pipe, span_of(head, head_bytes), frame->body);
}

static void send_control(struct peer *peer, enum link_control type, uint64_t epoch, uint64_t ack)
{
    static const uint8_t nil = 0xc0;

    send_frame(peer, &(struct link_frame){
                             .type = type, .epoch = epoch, .ack = ack, .body = span_of(&nil, 1) });
}

static void send_ack(struct link *link)
{
    send_control(link->peer, LINK_ACK, link->epoch, link->receive.received_seq);
    link->acks_owed = 0;
    link->ack_now = false;
}

static void send_message(struct link *link, uint64_t seq)
{
    struct send_slot *slot = send_window_get(&link->send, seq);

    slot->is_sent = true;
    slot->sent_at_ms = loop_now_ms(link->peer->hub->loop);
    send_frame(link->peer, &(struct link_frame){
                                   .type = slot->type,
                                   .epoch = link->epoch,
                                   .seq = seq,
                                   .ack = link->receive.received_seq,
                                   .body = buf_span(&slot->body),
                           });
    link->acks_owed = 0;
    link->ack_now = false;
}

static void send_hello(struct peer *peer, uint64_t epoch)
{
    struct link_hub *hub = peer->hub;
    struct hello hello = { 0 };

    hub->events->fill_hello(hub->user, &hello);
    hello.protocol = PROTO_VERSION;
    hello.version = SPAN_LIT(QUORATE_VERSION);
    hello.epoch = epoch;
    hello.pid = (uint64_t)getpid();
    SET(&hello, hello_tag_pid);
    buf_clear(&hub->hello);
    hello_encode(&hello, &hub->hello);
    send_frame(peer, &(struct link_frame){
                             .type = LINK_HELLO, .epoch = epoch, .body = buf_span(&hub->hello) });
}

static void send_refusal(struct peer *peer, uint64_t epoch, const struct err *why)
{
    struct buf text = BUF_INIT;

    link_text_encode(span_str(why->text), &text);
    send_frame(peer,
            &(struct link_frame){ .type = LINK_REFUSED, .epoch = epoch, .body = buf_span(&text) });
    buf_fini(&text);
}

/* --- the tick --------------------------------------------------------------------------------------------- */

static bool peer_needs_tick(const struct peer *peer)
{
    const struct link *link = peer->link;

    if (link == NULL) {
        return !peer->hub->listen;
    }
    return link->state == LINK_UP && (link->acks_owed > 0 || send_window_count(&link->send) > 0);
}

static void arm_tick(struct link_hub *hub)
{
    if (!hub->is_ticking) {
        hub->is_ticking = true;
        hub->ticked_at_ms = loop_now_ms(hub->loop);
        loop_timer_start(hub->tick, TICK_MS, TICK_MS);
    }
}

/* --- sessions --------------------------------------------------------------------------------------------- */

static struct link *link_new(struct peer *peer, uint64_t epoch)
{
    struct link *link = xcalloc(1, sizeof *link);

    link->peer = peer;
    link->epoch = epoch;
    link->state = LINK_OPENING;
    send_window_init(&link->send, peer->hub->window);
    receive_window_init(&link->receive, peer->hub->window);
    return link;
}

static struct link *link_free(struct link *link)
{
    if (link != NULL) {
        send_window_fini(&link->send);
        receive_window_fini(&link->receive);
        free(link);
    }
    return NULL;
}

/* Never within a callback of the link's user. */
static void end_session(struct peer *peer)
{
    struct link *link = MOVE(peer->link);

    if (link != NULL) {
        link->state = LINK_DOWN;
        peer->hub->events->on_down(peer->hub->user, link);
        link_free(link);
    }
}

static void break_pipe(struct peer *peer)
{
    if (peer->link != NULL) {
        peer->link->state = LINK_DOWN;
    }
    wire_close_pipe(peer->hub->wire, peer->pipe);
}

static void say_hello(struct peer *peer)
{
    uint64_t now_ms = loop_now_ms(peer->hub->loop);

    if (peer->offered_epoch == 0) {
        while (peer->offered_epoch == 0) {
            randombytes_buf(&peer->offered_epoch, sizeof peer->offered_epoch);
        }
        peer->offered_at_ms = now_ms;
    }
    peer->hello_at_ms = now_ms + RESEND_MS;
    send_hello(peer, peer->offered_epoch);
    arm_tick(peer->hub);
}

static void say_hello_later(struct peer *peer)
{
    peer->offered_epoch = 0;
    peer->hello_at_ms = loop_now_ms(peer->hub->loop) + REFUSED_RETRY_MS;
    arm_tick(peer->hub);
}

static void send_unsent(struct link *link)
{
    for (uint64_t seq = link->send.acked_seq + 1; seq <= link->send.last_seq; seq++) {
        if (!send_window_get(&link->send, seq)->is_sent) {
            send_message(link, seq);
        }
    }
}

static int check_hello(const struct hello *hello, uint64_t epoch, struct err *err)
{
    if (hello->epoch != epoch) {
        return err_set(err, -EBADMSG, "hello.epoch: not the frame's");
    }
    if (hello->protocol + 1 < PROTO_VERSION || hello->protocol > PROTO_VERSION + 1) {
        return err_set(err, -EPROTONOSUPPORT,
                "protocol %" PRIu64
                " of %.*s is not next to ours, %d: update one release at a time",
                hello->protocol, (int)hello->component.bytes, (const char *)hello->component.data,
                PROTO_VERSION);
    }
    return 0;
}

/* Opens the session that the peer's hello is about; on refusal there is none. */
static int open_session(struct peer *peer, const struct link_frame *frame, struct err *err)
{
    struct link_hub *hub = peer->hub;
    struct hello hello;

    codec_scratch_reset(&hub->scratch);
    TRY(hello_decode(frame->body, &hello, &hub->scratch, err));
    TRY(check_hello(&hello, frame->epoch, err));
    peer->link = link_new(peer, frame->epoch);
    int r = hub->events->on_up(hub->user, peer->link, &hello, err);
    if (r < 0) {
        peer->link = link_free(peer->link);
    }
    return r;
}

static void on_hello(struct peer *peer, const struct link_frame *frame)
{
    struct err err = { 0 };
    bool listen = peer->hub->listen;

    if (peer->link != NULL && peer->link->epoch == frame->epoch) {
        if (listen && peer->link->state == LINK_UP) {
            send_hello(peer, frame->epoch); /* our answer was lost */
        }
        return;
    }
    if (listen) {
        end_session(peer);
    } else if (peer->link != NULL || frame->epoch != peer->offered_epoch) {
        return; /* the answer to a hello given up since */
    }
    if (open_session(peer, frame, &err) < 0) {
        send_refusal(peer, frame->epoch, &err);
        if (!listen) {
            say_hello_later(peer);
        }
        return;
    }
    peer->offered_epoch = 0;
    if (peer->link->state == LINK_OPENING) { /* it may have been dropped in on_up */
        if (listen) {
            send_hello(peer, frame->epoch);
        }
        peer->link->state = LINK_UP;
        peer->link->progress_at_ms = loop_now_ms(peer->hub->loop);
        send_unsent(peer->link);
    }
}

static void on_refused(struct peer *peer, const struct link_frame *frame)
{
    struct link_hub *hub = peer->hub;
    bool ends = peer->link != NULL && peer->link->epoch == frame->epoch;
    char text[ERR_TEXT_BYTES];

    if (!ends && (peer->offered_epoch == 0 || frame->epoch != peer->offered_epoch)) {
        return;
    }
    link_text_decode(frame->body, text);
    end_session(peer);
    if (!hub->listen) {
        say_hello_later(peer);
    }
    if (hub->events->on_refused != NULL) {
        hub->events->on_refused(hub->user, text);
    }
}

/* --- frames in -------------------------------------------------------------------------------------------- */

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
    int freed = send_window_ack(&link->send, ack, err);

    if (freed > 0) {
        link->progress_at_ms = loop_now_ms(link->peer->hub->loop);
    }
    return freed;
}

/* A frame of a session that is not, or no longer, ours. */
static void on_stray(struct peer *peer, const struct link_frame *frame)
{
    bool is_message = frame->type <= LINK_MESSAGE_TYPE_MAX;

    if (peer->offered_epoch != 0 && frame->epoch == peer->offered_epoch) {
        return; /* the answer to our hello was lost, and will be given again */
    }
    if (is_message || frame->type == LINK_ACK) {
        send_control(peer, LINK_HELLO_REQUIRED, frame->epoch, 0);
    }
}

static int on_frame(struct peer *peer, const struct link_frame *frame,
        struct wire_message **take_message, struct err *err)
{
    struct link *link = peer->link;

    if (frame->type == LINK_HELLO) {
        on_hello(peer, frame);
        return 0;
    }
    if (frame->type == LINK_REFUSED) {
        on_refused(peer, frame);
        return 0;
    }
    if (link == NULL || link->epoch != frame->epoch) {
        on_stray(peer, frame);
        return 0;
    }
    if (link->state != LINK_UP) {
        return 0;
    }
    if (frame->type == LINK_HELLO_REQUIRED) {
        end_session(peer);
        if (!peer->hub->listen) {
            say_hello(peer);
        }
        return 0;
    }
    TRY(take_ack(link, frame->ack, err));
    if (frame->type <= LINK_MESSAGE_TYPE_MAX) {
        on_message(link, frame, take_message);
    }
    return 0;
}

/* --- the wire's events ------------------------------------------------------------------------------------ */

static struct peer *find_peer(struct link_hub *hub, uint32_t pipe)
{
    LIST_FOREACH (peer, &hub->peers, struct peer, node) {
        if (peer->pipe == pipe) {
            return peer;
        }
    }
    return NULL;
}

static void add_peer(struct link_hub *hub, const struct wire_event *event)
{
    struct peer *peer = xcalloc(1, sizeof *peer);

    peer->hub = hub;
    peer->pipe = event->pipe;
    peer->uid = event->uid;
    peer->pid = event->pid;
    list_append(&hub->peers, &peer->node);
    if (!hub->listen) {
        say_hello(peer);
    }
}

static void free_peer(struct peer *peer)
{
    list_remove(&peer->node);
    (void)link_free(peer->link);
    free(peer);
}

static void on_wire_message(struct peer *peer, struct wire_message *message)
{
    struct link_frame frame;
    struct err err;

    if (link_frame_parse(wire_message_body(message), &frame, &err) < 0 ||
            on_frame(peer, &frame, &message, &err) < 0) {
        break_pipe(peer); /* not one of us */
    }
    (void)wire_message_free(message);
}

static void on_wire_event(void *user, const struct wire_event *event)
{
    struct link_hub *hub = user;
    struct peer *peer = find_peer(hub, event->pipe);

    switch (event->kind) {
    case WIRE_PIPE_ADDED:
        add_peer(hub, event);
        break;
    case WIRE_PIPE_REMOVED:
        if (peer != NULL) {
            end_session(peer);
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
    }
}

static void after_drain(struct link *link)
{
    const struct link_events *events = link->peer->hub->events;

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

static void on_wire_drained(void *user)
{
    struct link_hub *hub = user;

    LIST_FOREACH (peer, &hub->peers, struct peer, node) {
        if (peer->link != NULL && peer->link->state == LINK_UP) {
            after_drain(peer->link);
        }
        if (peer_needs_tick(peer)) {
            arm_tick(hub);
        }
    }
}

/* --- time ------------------------------------------------------------------------------------------------- */

static void resend(struct link *link, uint64_t now_ms)
{
    size_t bytes = 0;

    for (uint64_t seq = link->send.acked_seq + 1;
            seq <= link->send.last_seq && bytes < RESEND_BYTES_MAX; seq++) {
        struct send_slot *slot = send_window_get(&link->send, seq);
        if (now_ms - slot->sent_at_ms < RESEND_MS) {
            return; /* later ones were sent later */
        }
        bytes += slot->body.bytes;
        send_message(link, seq);
    }
}

static void tick_link(struct link *link, uint64_t now_ms, bool may_judge)
{
    bool waits = may_judge && send_window_count(&link->send) > 0;

    if (waits && now_ms - link->progress_at_ms >= link->peer->hub->stall_ms) {
        break_pipe(link->peer);
        return;
    }
    if (waits) {
        resend(link, now_ms);
    }
    if (link->acks_owed > 0) {
        send_ack(link);
    }
}

static void tick_offer(struct peer *peer, uint64_t now_ms)
{
    uint64_t patience_ms = peer->hub->stall_ms * HELLO_STALLS_MAX;

    if (now_ms < peer->hello_at_ms) {
        return;
    }
    if (peer->offered_epoch != 0 && now_ms - peer->offered_at_ms >= patience_ms) {
        peer->hello_at_ms = now_ms + patience_ms;
        break_pipe(peer);
        return;
    }
    say_hello(peer);
}

/* A loop that was busy for long sees its timers before the acks that have come meanwhile: nobody is to be judged by
 * such a tick. Two in a row mean that it is always busy, and then it must do. */
static bool tick_may_judge(struct link_hub *hub, uint64_t now_ms)
{
    bool is_late = now_ms - hub->ticked_at_ms > LATE_TICK_MS;
    bool may = !is_late || hub->tick_was_late;

    hub->tick_was_late = is_late;
    hub->ticked_at_ms = now_ms;
    return may;
}

static void on_tick(void *user)
{
    struct link_hub *hub = user;
    uint64_t now_ms = loop_now_ms(hub->loop);
    bool may_judge = tick_may_judge(hub, now_ms);
    bool needed = false;

    LIST_FOREACH (peer, &hub->peers, struct peer, node) {
        if (peer->link == NULL) {
            if (!hub->listen) {
                tick_offer(peer, now_ms);
            }
        } else if (peer->link->state == LINK_UP) {
            tick_link(peer->link, now_ms, may_judge);
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
    hub->window = config->window == 0 ? WINDOW_DEFAULT : config->window;
    hub->stall_ms = config->stall_ms == 0 ? STALL_MS_DEFAULT : config->stall_ms;
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
    LIST_FOREACH (peer, &hub->peers, struct peer, node) {
        free_peer(peer);
    }
    codec_scratch_fini(&hub->scratch);
    buf_fini(&hub->hello);
    free(hub);
    return NULL;
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
        link->progress_at_ms = loop_now_ms(hub->loop);
    }
    uint64_t seq = send_window_put(&link->send, type, take_body);
    if (link->state == LINK_UP) {
        send_message(link, seq);
        arm_tick(hub);
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

void link_drop(struct link *link)
{
    if (link->state != LINK_DOWN) {
        break_pipe(link->peer);
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
