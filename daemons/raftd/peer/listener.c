#include "daemons/raftd/peer/listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "common/url.h"
#include "daemons/raftd/peer/frame.h"
#include "daemons/raftd/peer/security.h"
#include "proto/limits.h"
#include "proto/link_wire.h"
#include "version.h"

enum {
    SILENT_ELECTION_TIMEOUTS = 2,
    STRANGERS_MAX = 256, /* connections that nobody was welcomed on */
    REASON_REPEAT_MS = 10000,
    REASON_MS_MIN = 1000, /* between two lines of whatever reasons */
    REASON_BYTES = 256,
};

/* One URL. */
struct place {
    struct listener *listener;
    struct link_wire *wire;
    char *url;
};

/* One connection to us. */
struct guest {
    struct list node;
    struct place *place;
    uint32_t pipe;
    uint64_t member_id; /* 0: no hello yet, or not welcome */
    bool is_leaving;    /* hung up on */
    uint64_t channel;
    uint64_t epoch;
    uint64_t heard_at_ms;
    uint64_t ponged_at_ms;
    struct frame_parts parts;
};

struct listener {
    const struct listener_events *events;
    void *user;
    uint64_t heartbeat_ms;
    uint64_t election_ms;
    struct place *places;
    size_t place_count;
    struct list guests;
    char reason[REASON_BYTES]; /* told last */
    uint64_t reason_at_ms;
    uint64_t untold_count; /* since */
    struct codec_scratch scratch;
    struct buf out;
};

static struct guest *find_guest(struct listener *listener, const struct place *place, uint32_t pipe)
{
    LIST_FOREACH (guest, &listener->guests, struct guest, node) {
        if (guest->place == place && guest->pipe == pipe) {
            return guest;
        }
    }
    return NULL;
}

static void free_guest(struct guest *guest)
{
    list_remove(&guest->node);
    frame_parts_fini(&guest->parts);
    free(guest);
}

static void hang_up(struct guest *guest)
{
    guest->is_leaving = true;
    wire_close_pipe(guest->place->wire, guest->pipe);
}

/* Who asks and does not read the answers is no member: the next one ends it. */
static void send_frame(struct listener *listener, struct guest *guest, unsigned type)
{
    uint8_t head_bytes[PEER_HEAD_BYTES];
    struct frame_head head = { .type = type, .epoch = guest->epoch };

    if (wire_waiting_bytes(guest->place->wire, guest->pipe) >= UNREAD_BYTES_MAX) {
        hang_up(guest);
        return;
    }
    frame_encode_head(&head, head_bytes);
    wire_send(guest->place->wire, guest->pipe, span_of(head_bytes, sizeof head_bytes),
            buf_span(&listener->out));
}

static void send_pong(struct listener *listener, struct guest *guest, uint64_t sent_ns)
{
    struct peer_pong pong = { .sent_ns = sent_ns };

    guest->ponged_at_ms = clock_monotonic_ms();
    buf_clear(&listener->out);
    peer_pong_encode(&pong, &listener->out);
    send_frame(listener, guest, peer_pong_type);
}

/* An older connection of the same member for the same purpose is one that broke without our being told. */
static void replace_older(struct listener *listener, const struct guest *newer)
{
    LIST_FOREACH (guest, &listener->guests, struct guest, node) {
        if (guest != newer && guest->member_id == newer->member_id &&
                guest->channel == newer->channel) {
            guest->member_id = 0;
            hang_up(guest);
        }
    }
}

static void on_hello(struct listener *listener, struct guest *guest, struct span body)
{
    struct peer_hello hello;
    struct peer_answer answer = { .reason = PEER_WELCOME, .version = span_str(QUORATE_VERSION) };
    struct err err = { 0 };

    if (peer_hello_decode(body, &hello, &listener->scratch, &err) < 0) {
        log_warning_err(&err, "raftd.peer.malformed", "url=%s action=hang_up", guest->place->url);
        hang_up(guest);
        return;
    }
    guest->epoch = hello.epoch;
    listener->events->judge(listener->user, &hello, &answer);
    SET(&answer, peer_answer_tag_text);
    SET(&answer, peer_answer_tag_version);
    buf_clear(&listener->out);
    peer_answer_encode(&answer, &listener->out);
    send_frame(listener, guest, peer_answer_type);
    if (answer.reason == PEER_WELCOME) {
        guest->member_id = hello.member_id;
        guest->channel = hello.channel;
        replace_older(listener, guest);
    }
}

static void on_members_get(struct listener *listener, struct guest *guest)
{
    buf_clear(&listener->out);
    listener->events->fill_members(listener->user, &listener->out);
    send_frame(listener, guest, members_list_type);
}

static void on_ping(struct listener *listener, struct guest *guest, struct span body)
{
    struct peer_ping ping;

    if (peer_ping_decode(body, &ping, &listener->scratch, NULL) == 0) {
        send_pong(listener, guest, ping.sent_ns);
    }
}

static void on_frame(struct listener *listener, struct guest *guest, struct span frame)
{
    struct frame_head head;
    struct span body;
    struct span whole;
    uint64_t now_ms = clock_monotonic_ms();

    if (guest->is_leaving) {
        return;
    }
    guest->heard_at_ms = now_ms;
    codec_scratch_reset(&listener->scratch);
    if (frame_parse(frame, &head, &body) < 0) {
        hang_up(guest);
    } else if (head.type == peer_hello_type) {
        on_hello(listener, guest, body);
    } else if (head.type == members_get_type) {
        guest->epoch = head.epoch;
        on_members_get(listener, guest);
    } else if (guest->member_id == 0 || head.epoch != guest->epoch) {
        return; /* before the hello, or of another connection's life */
    } else if (head.type == peer_ping_type) {
        on_ping(listener, guest, body);
    } else {
        int result = frame_parts_add(&guest->parts, &head, body, &whole);
        if (result < 0) {
            log_warning("raftd.peer.malformed", "peer=%" PRIx64 " type=%u action=hang_up",
                    guest->member_id, head.type);
            hang_up(guest);
        } else if (result > 0) {
            listener->events->on_message(listener->user, guest->member_id, head.type, whole);
        } else if (now_ms - guest->ponged_at_ms >= listener->heartbeat_ms) {
            send_pong(listener, guest, 0);
        }
    }
}

/* Whoever opens connections and says no hello must not keep members out: the oldest such goes. */
static void make_room(struct listener *listener)
{
    struct guest *oldest = NULL;
    size_t count = 0;

    LIST_FOREACH (guest, &listener->guests, struct guest, node) {
        if (guest->member_id == 0 && !guest->is_leaving) {
            oldest = oldest == NULL ? guest : oldest;
            count++;
        }
    }
    if (count > STRANGERS_MAX) {
        hang_up(oldest);
    }
}

static void tell_reason(
        struct listener *listener, const struct place *place, const struct wire_event *event)
{
    uint64_t now_ms = clock_monotonic_ms();
    uint64_t since_ms = now_ms - listener->reason_at_ms;
    bool is_same = strncmp(event->reason, listener->reason, REASON_BYTES - 1) == 0;

    if (listener->reason[0] != '\0' &&
            since_ms < (uint64_t)(is_same ? REASON_REPEAT_MS : REASON_MS_MIN)) {
        listener->untold_count++;
        return;
    }
    log_warning("raftd.peer.unsafe",
            "from=%s url=%s reason=\"%s\" untold=%" PRIu64 " action=hang_up", event->remote,
            place->url, event->reason, listener->untold_count);
    (void)snprintf(listener->reason, sizeof listener->reason, "%s", event->reason);
    listener->reason_at_ms = now_ms;
    listener->untold_count = 0;
}

static void on_event(void *user, const struct wire_event *event)
{
    struct place *place = user;
    struct listener *listener = place->listener;
    struct guest *guest;

    switch (event->kind) {
    case WIRE_PIPE_ADDED:
        guest = xcalloc(1, sizeof *guest);
        guest->place = place;
        guest->pipe = event->pipe;
        guest->heard_at_ms = clock_monotonic_ms();
        list_append(&listener->guests, &guest->node);
        make_room(listener);
        break;
    case WIRE_PIPE_REMOVED:
        if (event->reason[0] != '\0') {
            tell_reason(listener, place, event);
        }
        guest = find_guest(listener, place, event->pipe);
        if (guest != NULL) {
            free_guest(guest);
        }
        break;
    case WIRE_MESSAGE:
        guest = find_guest(listener, place, event->pipe);
        if (guest != NULL) {
            on_frame(listener, guest, wire_message_body(event->message));
        }
        (void)wire_message_free(event->message);
        break;
    case WIRE_STRANGER: /* the kernel knows no users of other hosts */
    default:
        break;
    }
}

static void on_drained(void *user)
{
    (void)user;
}

static int open_place(struct listener *listener, struct security *security, struct loop *loop,
        struct place *place, const char *url, struct err *err)
{
    struct wire_handler handler = { .on_event = on_event, .on_drained = on_drained, .user = place };

    place->listener = listener;
    place->url = xstrdup(url);
    if (security_open_wire(security, loop, url, true, &handler, &place->wire, err) < 0) {
        return err_prefix(err, "listen for peers on %s", url);
    }
    return 0;
}

int listener_open(struct loop *loop, struct security *security, const struct conf_list *urls,
        uint64_t heartbeat_ms, uint64_t election_ms, const struct listener_events *events,
        void *user, struct listener **ret_listener, struct err *err)
{
    struct listener *listener = xcalloc(1, sizeof *listener);

    listener->events = events;
    listener->user = user;
    listener->heartbeat_ms = heartbeat_ms;
    listener->election_ms = election_ms;
    list_init(&listener->guests);
    listener->places = xcalloc(urls->count, sizeof *listener->places);
    for (size_t i = 0; i < urls->count; i++) {
        int result =
                open_place(listener, security, loop, &listener->places[i], urls->items[i], err);
        listener->place_count++;
        if (result < 0) {
            (void)listener_close(listener);
            return result;
        }
    }
    *ret_listener = listener;
    return 0;
}

struct listener *listener_close(struct listener *listener)
{
    if (listener == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < listener->place_count; i++) {
        listener->places[i].wire = wire_close(listener->places[i].wire);
        free(listener->places[i].url);
    }
    LIST_FOREACH (guest, &listener->guests, struct guest, node) {
        free_guest(guest);
    }
    free(listener->places);
    codec_scratch_fini(&listener->scratch);
    buf_fini(&listener->out);
    free(listener);
    return NULL;
}

void listener_tick(struct listener *listener, uint64_t now_ms, uint64_t late_ms)
{
    uint64_t limit_ms = SILENT_ELECTION_TIMEOUTS * listener->election_ms;

    LIST_FOREACH (guest, &listener->guests, struct guest, node) {
        guest->heard_at_ms += late_ms;
        if (now_ms > guest->heard_at_ms + limit_ms) {
            hang_up(guest);
        }
    }
}

void listener_drop(struct listener *listener, uint64_t member_id)
{
    LIST_FOREACH (guest, &listener->guests, struct guest, node) {
        if (guest->member_id == member_id) {
            guest->member_id = 0;
            hang_up(guest);
        }
    }
}

void listener_renew(struct listener *listener, bool is_tls)
{
    LIST_FOREACH (guest, &listener->guests, struct guest, node) {
        if (url_any_is_tls(&guest->place->url, 1) == is_tls) {
            guest->member_id = 0;
            hang_up(guest);
        }
    }
}
