/* link_hello.c: how sessions begin and end.
 *
 * The dialer opens a session with a hello under a new epoch:
 *
 *    dialer                                             listener
 *    pipe is there: hello (epoch e) ──────────────────▶ on_up
 *               again until answered
 *                   on_up ◀────────────────── hello (e)
 *    messages and acks, numbered from 1 each way, every frame bearing e
 *
 * A refusal takes the place of the answer; the dialer then says hello anew after a second. A frame whose epoch is not
 * the session's is dropped and answered hello_required under that epoch: whoever still believes in that session
 * ends it, and a dialer opens another. A session ends with its pipe at the latest, and with it all that was not
 * acknowledged.
 *
 * To a peer that does not read nothing is said for a hello or a stray frame (link_peer_reads). */
#include <errno.h>
#include <sodium.h>
#include <unistd.h>

#include "common/loop.h"
#include "proto/hello.h"
#include "proto/link_parts.h"
#include "version.h"

enum {
    REFUSED_RETRY_MS = 1000,
    HELLO_STALLS_MAX = 10, /* times stall_ms without an answer: the pipe is no good */
};

static void send_hello(struct link_peer *peer, uint64_t epoch)
{
    struct link_hub *hub = peer->hub;
    struct hello hello = { 0 };

    if (!link_peer_reads(peer)) {
        return;
    }
    hub->events->fill_hello(hub->user, &hello);
    hello.protocol = PROTO_VERSION;
    hello.version = SPAN_LIT(QUORATE_VERSION);
    hello.epoch = epoch;
    hello.pid = (uint64_t)getpid();
    SET(&hello, hello_tag_pid);
    buf_clear(&hub->hello);
    hello_encode(&hello, &hub->hello);
    link_peer_send(
            peer, &(struct link_frame){
                          .type = LINK_HELLO, .epoch = epoch, .body = buf_span(&hub->hello) });
}

static void send_refusal(struct link_peer *peer, uint64_t epoch, const struct err *why)
{
    struct buf text = BUF_INIT;

    if (!link_peer_reads(peer)) {
        return;
    }
    link_text_encode(span_str(why->text), &text);
    link_peer_send(peer,
            &(struct link_frame){ .type = LINK_REFUSED, .epoch = epoch, .body = buf_span(&text) });
    buf_fini(&text);
}

void link_peer_end_session(struct link_peer *peer)
{
    struct link *link = MOVE(peer->link);

    if (link != NULL) {
        link->state = LINK_DOWN;
        peer->hub->events->on_down(peer->hub->user, link);
        link_session_free(link);
    }
}

void link_peer_say_hello(struct link_peer *peer)
{
    uint64_t now_ms = loop_now_ms(peer->hub->loop);

    if (peer->offered_epoch == 0) {
        while (peer->offered_epoch == 0) {
            randombytes_buf(&peer->offered_epoch, sizeof peer->offered_epoch);
        }
        peer->offered_at_ms = now_ms;
    }
    peer->hello_at_ms = now_ms + peer->hub->resend_ms;
    send_hello(peer, peer->offered_epoch);
    link_hub_arm_tick(peer->hub);
}

static void say_hello_later(struct link_peer *peer)
{
    peer->offered_epoch = 0;
    peer->hello_at_ms = loop_now_ms(peer->hub->loop) + REFUSED_RETRY_MS;
    link_hub_arm_tick(peer->hub);
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
static int open_session(struct link_peer *peer, const struct link_frame *frame, struct err *err)
{
    struct link_hub *hub = peer->hub;
    struct hello hello;

    codec_scratch_reset(&hub->scratch);
    TRY(hello_decode(frame->body, &hello, &hub->scratch, err));
    TRY(check_hello(&hello, frame->epoch, err));
    peer->link = link_session_new(peer, frame->epoch);
    int r = hub->events->on_up(hub->user, peer->link, &hello, err);
    if (r < 0) {
        peer->link = link_session_free(peer->link);
    }
    return r;
}

void link_peer_on_hello(struct link_peer *peer, const struct link_frame *frame)
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
        link_peer_end_session(peer);
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
        link_session_start(peer->link);
    }
}

void link_peer_on_refused(struct link_peer *peer, const struct link_frame *frame)
{
    struct link_hub *hub = peer->hub;
    bool ends = peer->link != NULL && peer->link->epoch == frame->epoch;
    char text[ERR_TEXT_BYTES];

    if (!ends && (peer->offered_epoch == 0 || frame->epoch != peer->offered_epoch)) {
        return;
    }
    link_text_decode(frame->body, text);
    link_peer_end_session(peer);
    if (!hub->listen) {
        say_hello_later(peer);
    }
    if (hub->events->on_refused != NULL) {
        hub->events->on_refused(hub->user, text);
    }
}

void link_peer_on_hello_required(struct link_peer *peer)
{
    link_peer_end_session(peer);
    if (!peer->hub->listen) {
        link_peer_say_hello(peer);
    }
}

void link_peer_on_stray(struct link_peer *peer, const struct link_frame *frame)
{
    bool is_message = frame->type <= LINK_MESSAGE_TYPE_MAX;

    if (peer->offered_epoch != 0 && frame->epoch == peer->offered_epoch) {
        return; /* the answer to our hello was lost, and will be given again */
    }
    if ((is_message || frame->type == LINK_ACK) && link_peer_reads(peer)) {
        link_peer_send_control(peer, LINK_HELLO_REQUIRED, frame->epoch, 0);
    }
}

void link_peer_tick_hello(struct link_peer *peer, uint64_t now_ms)
{
    uint64_t patience_ms = peer->hub->stall_ms * HELLO_STALLS_MAX;

    if (now_ms < peer->hello_at_ms) {
        return;
    }
    if (peer->offered_epoch != 0 && now_ms - peer->offered_at_ms >= patience_ms) {
        peer->hello_at_ms = now_ms + patience_ms;
        link_peer_break(peer);
        return;
    }
    link_peer_say_hello(peer);
}
