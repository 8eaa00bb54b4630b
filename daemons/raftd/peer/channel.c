#include "daemons/raftd/peer/channel.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/url.h"
#include "daemons/raftd/peer/frame.h"
#include "daemons/raftd/peer/security.h"
#include "proto/link_wire.h"

enum {
    DIAL_HEARTBEATS = 3, /* an attempt takes no longer */
    DIAL_MS_MIN = 50,
    REFUSED_RETRY_MS = 1000,
    WAITING_BYTES_MAX = 64 * 1024 * 1024, /* beyond, messages are dropped */
};

enum channel_state {
    CHANNEL_IDLE,
    CHANNEL_DIALLING,
    CHANNEL_GREETING,
    CHANNEL_LIVE,
    CHANNEL_BROKEN, /* until the next tick closes it: a wire cannot be closed from its own event */
};

struct channel {
    struct channel_config config;
    enum channel_state state;
    char **urls;
    size_t url_count;
    size_t url_next;
    size_t url_now;
    struct link_wire *wire;
    uint32_t pipe;
    uint64_t epoch;
    uint64_t dial_at_ms;    /* idle: when to dial */
    uint64_t dialled_at_ms; /* dialling: since when */
    uint64_t give_up_at_ms; /* dialling */
    uint64_t patience_ms;   /* how old an attempt is before a hurry replaces it by a new one */
    uint64_t heard_at_ms;   /* greeting, live */
    struct codec_scratch scratch;
    struct buf out;
};

struct channel *channel_new(const struct channel_config *config)
{
    struct channel *channel = xcalloc(1, sizeof *channel);

    channel->config = *config;
    channel->patience_ms = config->heartbeat_ms;
    return channel;
}

static void free_urls(struct channel *channel)
{
    for (size_t i = 0; i < channel->url_count; i++) {
        free(channel->urls[i]);
    }
    free(channel->urls);
    channel->urls = NULL;
    channel->url_count = 0;
}

struct channel *channel_free(struct channel *channel)
{
    if (channel != NULL) {
        channel->wire = wire_close(channel->wire);
        free_urls(channel);
        codec_scratch_fini(&channel->scratch);
        buf_fini(&channel->out);
        free(channel);
    }
    return NULL;
}

bool channel_is_live(const struct channel *channel)
{
    return channel->state == CHANNEL_LIVE;
}

enum peer_channel channel_kind(const struct channel *channel)
{
    return channel->config.kind;
}

/* The attempt or the connection is over; the next tick closes it, and dials the next URL once delay_ms have passed. */
static void give_up(struct channel *channel, uint64_t delay_ms, const char *reason)
{
    bool was_live = channel->state == CHANNEL_LIVE;

    channel->state = CHANNEL_BROKEN;
    channel->dial_at_ms = clock_monotonic_ms() + delay_ms;
    if (was_live) {
        channel->config.events->on_down(channel->config.user, channel, reason);
    }
}

void channel_set_urls(struct channel *channel, char *const *urls, size_t count)
{
    bool is_same = count == channel->url_count;

    for (size_t i = 0; is_same && i < count; i++) {
        is_same = strcmp(urls[i], channel->urls[i]) == 0;
    }
    if (is_same) {
        return;
    }
    free_urls(channel);
    channel->urls = xcalloc(count, sizeof *channel->urls);
    channel->url_count = count;
    for (size_t i = 0; i < count; i++) {
        channel->urls[i] = xstrdup(urls[i]);
    }
    channel->url_next = 0;
    channel->url_now = 0;
    if (channel->state != CHANNEL_IDLE) {
        give_up(channel, 0, "address changed");
    }
}

static void send_frames(struct channel *channel, unsigned type, struct span body)
{
    uint8_t head_bytes[PEER_HEAD_BYTES];
    struct frame_head head = { .type = type, .epoch = channel->epoch };

    do {
        size_t bytes = MIN(body.bytes, (size_t)PEER_FRAGMENT_BYTES);
        head.flags = bytes < body.bytes ? PEER_FLAG_MORE : 0;
        frame_encode_head(&head, head_bytes);
        wire_send(channel->wire, channel->pipe, span_of(head_bytes, sizeof head_bytes),
                span_of(body.data, bytes));
        body = span_from(body, bytes);
    } while (body.bytes > 0);
}

bool channel_send(struct channel *channel, unsigned type, struct span body)
{
    if (channel->state != CHANNEL_LIVE ||
            wire_waiting_bytes(channel->wire, channel->pipe) > WAITING_BYTES_MAX) {
        return false;
    }
    send_frames(channel, type, body);
    return true;
}

static void say_hello(struct channel *channel)
{
    struct peer_hello hello = { .protocol = PEER_PROTOCOL_VERSION,
        .channel = (uint64_t)channel->config.kind };

    do {
        randombytes_buf(&channel->epoch, sizeof channel->epoch);
    } while (channel->epoch == 0);
    channel->config.events->fill_hello(channel->config.user, &hello);
    hello.epoch = channel->epoch;
    buf_clear(&channel->out);
    peer_hello_encode(&hello, &channel->out);
    send_frames(channel, peer_hello_type, buf_span(&channel->out));
    channel->state = CHANNEL_GREETING;
    channel->heard_at_ms = clock_monotonic_ms();
}

static void on_answer(struct channel *channel, struct span body)
{
    struct peer_answer answer;

    codec_scratch_reset(&channel->scratch);
    if (channel->state != CHANNEL_GREETING ||
            peer_answer_decode(body, &answer, &channel->scratch, NULL) < 0) {
        return;
    }
    if (answer.reason == PEER_WELCOME) {
        channel->state = CHANNEL_LIVE;
        channel->patience_ms = channel->config.heartbeat_ms;
        channel->config.events->on_up(channel->config.user, channel);
        return;
    }
    uint64_t delay_ms = answer.reason == PEER_REFUSED_STARTING ? channel->config.heartbeat_ms
                                                               : (uint64_t)REFUSED_RETRY_MS;
    give_up(channel, delay_ms, "refused");
    channel->config.events->on_refused(
            channel->config.user, channel, &answer, channel->urls[channel->url_now]);
}

static void on_message(struct channel *channel, struct span frame)
{
    struct frame_head head;
    struct peer_pong pong;
    struct span body;

    if (frame_parse(frame, &head, &body) < 0 || head.epoch != channel->epoch) {
        return;
    }
    channel->heard_at_ms = clock_monotonic_ms();
    if (head.type == peer_answer_type) {
        on_answer(channel, body);
        return;
    }
    codec_scratch_reset(&channel->scratch);
    if (head.type == peer_pong_type && channel->state == CHANNEL_LIVE &&
            peer_pong_decode(body, &pong, &channel->scratch, NULL) == 0 && pong.sent_ns != 0) {
        uint64_t now_ns = clock_monotonic_ns();
        if (pong.sent_ns <= now_ns) {
            channel->config.events->on_pong(channel->config.user, channel, now_ns - pong.sent_ns);
        }
    }
}

static void on_closed(struct channel *channel, const char *reason)
{
    if (reason[0] == '\0') {
        give_up(channel, channel->config.heartbeat_ms, "connection closed");
        return;
    }
    give_up(channel, REFUSED_RETRY_MS, reason);
    channel->config.events->on_unsafe(
            channel->config.user, channel, reason, channel->urls[channel->url_now]);
}

static void on_event(void *user, const struct wire_event *event)
{
    struct channel *channel = user;

    switch (event->kind) {
    case WIRE_PIPE_ADDED:
        if (channel->state == CHANNEL_DIALLING) {
            channel->pipe = event->pipe;
            say_hello(channel);
        }
        break;
    case WIRE_PIPE_REMOVED:
        if (event->pipe == channel->pipe && channel->state != CHANNEL_BROKEN) {
            on_closed(channel, event->reason);
        }
        break;
    case WIRE_MESSAGE:
        if (event->pipe == channel->pipe && channel->state != CHANNEL_BROKEN) {
            on_message(channel, wire_message_body(event->message));
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

static void dial(struct channel *channel, uint64_t now_ms)
{
    struct err err = { 0 };
    struct wire_handler handler = {
        .on_event = on_event, .on_drained = on_drained, .user = channel
    };

    if (channel->url_count == 0) {
        return;
    }
    channel->url_now = channel->url_next % channel->url_count;
    channel->url_next = channel->url_now + 1;
    channel->pipe = 0;
    const char *url = channel->urls[channel->url_now];
    if (security_open_wire(channel->config.security, channel->config.loop, url, false, &handler,
                &channel->wire, &err) < 0) {
        log_warning_err(&err, "raftd.peer.undialable", "url=%s retry_ms=%d", url, REFUSED_RETRY_MS);
        channel->dial_at_ms = now_ms + REFUSED_RETRY_MS;
        return;
    }
    channel->state = CHANNEL_DIALLING;
    channel->dialled_at_ms = now_ms;
    channel->give_up_at_ms =
            now_ms + MAX(DIAL_HEARTBEATS * channel->config.heartbeat_ms, (uint64_t)DIAL_MS_MIN);
}

static void say_ping(struct channel *channel)
{
    struct peer_ping ping = { .sent_ns = clock_monotonic_ns() };

    buf_clear(&channel->out);
    peer_ping_encode(&ping, &channel->out);
    send_frames(channel, peer_ping_type, buf_span(&channel->out));
}

static void check_silence(struct channel *channel, uint64_t now_ms)
{
    if (clock_passed(channel->heard_at_ms, now_ms) > channel->config.election_ms) {
        give_up(channel, 0, "silent for an election timeout");
    } else if (channel->state == CHANNEL_LIVE) {
        say_ping(channel);
    }
}

void channel_tick(struct channel *channel, uint64_t now_ms, uint64_t late_ms)
{
    channel->heard_at_ms += late_ms;
    if (channel->state == CHANNEL_GREETING || channel->state == CHANNEL_LIVE) {
        check_silence(channel, now_ms);
    } else if (channel->state == CHANNEL_DIALLING && now_ms >= channel->give_up_at_ms) {
        give_up(channel, 0, "");
    }
    if (channel->state == CHANNEL_BROKEN) {
        channel->wire = wire_close(channel->wire);
        channel->state = CHANNEL_IDLE;
    }
    if (channel->state == CHANNEL_IDLE && now_ms >= channel->dial_at_ms) {
        dial(channel, now_ms);
    }
}

void channel_hurry(struct channel *channel)
{
    uint64_t now_ms = clock_monotonic_ms();
    /* An attempt, or a hello, that got no answer for so long was lost on its way: the kernel would say it again only after a
     * time that doubles. Or the way is long: then the next has twice as much time, for two members that hear each other's hello
     * before the answer to their own would hurry each other for ever. */
    bool is_trying = channel->state == CHANNEL_DIALLING || channel->state == CHANNEL_GREETING;
    bool is_stuck = is_trying && now_ms - channel->dialled_at_ms >= channel->patience_ms;

    if (is_stuck) {
        channel->patience_ms = MIN(2 * channel->patience_ms, channel->config.election_ms);
    }
    if (is_stuck || channel->state == CHANNEL_BROKEN) {
        channel->wire = wire_close(channel->wire);
        channel->state = CHANNEL_IDLE;
    }
    if (channel->state == CHANNEL_IDLE) {
        dial(channel, now_ms);
    }
}

void channel_renew(struct channel *channel, bool is_tls)
{
    if (channel->state != CHANNEL_IDLE && channel->state != CHANNEL_BROKEN &&
            url_any_is_tls(&channel->urls[channel->url_now], 1) == is_tls) {
        give_up(channel, 0, "keys changed");
    }
}
