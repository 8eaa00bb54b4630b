#include "daemons/raftd/peer/peers.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/ids.h"
#include "common/list.h"
#include "common/log.h"
#include "common/loop.h"
#include "daemons/raftd/peer/channel.h"
#include "daemons/raftd/peer/listener.h"
#include "daemons/raftd/peer/security.h"
#include "version.h"

enum {
    STRANGER_ELECTION_TIMEOUTS = 30, /* how long one that is not known here yet is dialled */
    LEAVING_ELECTION_TIMEOUTS = 5, /* how long one that is not wanted any more is: it is told why */
    UNWANTED_MAX = 16, /* dialled at a time: anybody can say that it was added just now */
    REFUSAL_REPEAT_MS = 30000,
    TEXT_BYTES = 512,
};

/* Of round trips, by Welford. */
struct latency {
    uint64_t count;
    double mean;
    double squares;
    uint64_t current_ns;
    uint64_t least_ns;
    uint64_t most_ns;
};

struct peer {
    struct list node;
    struct peers *peers;
    uint64_t id;
    struct channel *channels[PEER_CHANNEL_COUNT];
    bool is_wanted;
    uint64_t keep_until_ms; /* while not wanted */
    bool is_reachable;
    uint64_t reachable_since_ms;
    uint64_t bulk_lost_ms;
    uint64_t failed;
    uint64_t sent;
    struct latency latency;
    char refusal[TEXT_BYTES]; /* told last */
    uint64_t refusal_at_ms;
};

struct peers {
    const struct conf *conf;
    struct loop *loop;
    struct security *security;
    const struct peers_events *events;
    void *user;
    struct listener *listener;
    struct loop_timer *timer;
    uint64_t ticked_at_ms;
    struct peers_identity identity;
    struct list list;
    struct span *own_urls;
    char text[TEXT_BYTES]; /* of the answer being given */
    char told[TEXT_BYTES]; /* refusal logged last */
    uint64_t told_at_ms;
};

static struct peer *find_peer(const struct peers *peers, uint64_t id)
{
    LIST_FOREACH (peer, &peers->list, struct peer, node) {
        if (peer->id == id) {
            return peer;
        }
    }
    return NULL;
}

/* ---- Our channels ---- */

static void fill_hello(void *user, struct peer_hello *ret_hello)
{
    struct peer *peer = user;
    struct peers *peers = peer->peers;

    ret_hello->version = span_str(QUORATE_VERSION);
    ret_hello->cluster_id = peers->identity.cluster_id;
    ret_hello->member_id = peers->identity.member_id;
    ret_hello->to_member_id = peer->id;
    ret_hello->name = span_str(peers->conf->name);
    ret_hello->peer_urls =
            (struct span_list){ peers->own_urls, peers->conf->initial_advertise_peer_urls.count };
    SET(ret_hello, peer_hello_tag_name);
    SET(ret_hello, peer_hello_tag_peer_urls);
}

static void on_up(void *user, struct channel *channel)
{
    struct peer *peer = user;
    char id[IDS_TEXT_BYTES];

    (void)channel;
    for (size_t i = 0; i < PEER_CHANNEL_COUNT; i++) {
        if (!channel_is_live(peer->channels[i])) {
            return;
        }
    }
    peer->is_reachable = true;
    peer->reachable_since_ms = clock_monotonic_ms();
    peer->refusal[0] = '\0';
    log_notice("raftd.peer.up", "peer=%s", ids_text(peer->id, id));
    peer->peers->events->on_reachable(peer->peers->user, peer->id);
}

static void on_down(void *user, struct channel *channel, const char *reason)
{
    struct peer *peer = user;
    char id[IDS_TEXT_BYTES];

    if (channel_kind(channel) == PEER_BULK) {
        peer->bulk_lost_ms = clock_monotonic_ms();
    }
    if (!peer->is_reachable) {
        return;
    }
    peer->is_reachable = false;
    peer->failed++;
    log_warning("raftd.peer.down", "peer=%s channel=%s reason=\"%s\" action=dial_again",
            ids_text(peer->id, id), channel_kind(channel) == PEER_BULK ? "bulk" : "control",
            reason);
    peer->peers->events->on_unreachable(peer->peers->user, peer->id);
}

/* Whether it has not just been told. */
static bool is_news(struct peer *peer, const char *text)
{
    uint64_t now_ms = clock_monotonic_ms();

    if (strncmp(text, peer->refusal, sizeof peer->refusal - 1) == 0 &&
            now_ms - peer->refusal_at_ms < REFUSAL_REPEAT_MS) {
        return false;
    }
    (void)snprintf(peer->refusal, sizeof peer->refusal, "%s", text);
    peer->refusal_at_ms = now_ms;
    return true;
}

static void on_unsafe(void *user, struct channel *channel, const char *reason, const char *url)
{
    struct peer *peer = user;
    char id[IDS_TEXT_BYTES];

    (void)channel;
    if (is_news(peer, reason)) {
        log_warning("raftd.peer.unsafe", "peer=%s url=%s reason=\"%s\" action=try_again",
                ids_text(peer->id, id), url, reason);
    }
}

static void tell_refusal(struct peer *peer, const struct peer_answer *answer, const char *url)
{
    char text[TEXT_BYTES];
    char id[IDS_TEXT_BYTES];

    (void)snprintf(text, sizeof text, "%.*s", (int)MIN(answer->text.bytes, sizeof text - 1),
            answer->text.bytes == 0 ? "" : (const char *)answer->text.data);
    if (answer->reason != PEER_REFUSED_STARTING && is_news(peer, text)) {
        log_warning("raftd.peer.refuses_us", "peer=%s url=%s reason=\"%s\" action=try_again",
                ids_text(peer->id, id), url, text);
    }
}

static void on_refused(
        void *user, struct channel *channel, const struct peer_answer *answer, const char *url)
{
    struct peer *peer = user;

    (void)channel;
    tell_refusal(peer, answer, url);
    if (answer->reason == PEER_REFUSED_REMOVED) {
        peer->peers->events->on_removed(
                peer->peers->user, peer->id); /* and the URLs may be others */
    }
}

static void on_pong(void *user, struct channel *channel, uint64_t round_trip_ns)
{
    struct peer *peer = user;
    struct latency *latency = &peer->latency;

    if (channel_kind(channel) != PEER_CONTROL) {
        return;
    }
    latency->count++;
    double off = (double)round_trip_ns - latency->mean;
    latency->mean += off / (double)latency->count;
    latency->squares += off * ((double)round_trip_ns - latency->mean);
    latency->current_ns = round_trip_ns;
    latency->least_ns = latency->count == 1 ? round_trip_ns : MIN(latency->least_ns, round_trip_ns);
    latency->most_ns = MAX(latency->most_ns, round_trip_ns);
}

static const struct channel_events channel_handlers = {
    .fill_hello = fill_hello,
    .on_up = on_up,
    .on_down = on_down,
    .on_refused = on_refused,
    .on_unsafe = on_unsafe,
    .on_pong = on_pong,
};

static struct peer *add_peer(struct peers *peers, uint64_t id)
{
    struct peer *peer = xcalloc(1, sizeof *peer);

    peer->peers = peers;
    peer->id = id;
    for (unsigned i = 0; i < PEER_CHANNEL_COUNT; i++) {
        struct channel_config config = { .loop = peers->loop,
            .security = peers->security,
            .kind = (enum peer_channel)i,
            .heartbeat_ms = peers->conf->heartbeat_interval_ms,
            .election_ms = peers->conf->election_timeout_ms,
            .events = &channel_handlers,
            .user = peer };
        peer->channels[i] = channel_new(&config);
    }
    list_append(&peers->list, &peer->node);
    return peer;
}

static void free_peer(struct peer *peer)
{
    list_remove(&peer->node);
    for (size_t i = 0; i < PEER_CHANNEL_COUNT; i++) {
        peer->channels[i] = channel_free(peer->channels[i]);
    }
    free(peer);
}

static void set_urls(struct peer *peer, char *const *urls, size_t count)
{
    for (size_t i = 0; i < PEER_CHANNEL_COUNT; i++) {
        channel_set_urls(peer->channels[i], urls, count);
    }
}

/* ---- Hellos of others ---- */

static bool has_room_for_stranger(const struct peers *peers)
{
    size_t count = 0;

    LIST_FOREACH (peer, &peers->list, struct peer, node) {
        count += !peer->is_wanted;
    }
    return count < UNWANTED_MAX;
}

/* One that is not known here yet can only be answered at the URLs that it names. False: there are too many of them. */
static bool meet_stranger(struct peers *peers, const struct peer_hello *hello)
{
    struct peer *peer = find_peer(peers, hello->member_id);
    char id[IDS_TEXT_BYTES];

    if (peer == NULL && !has_room_for_stranger(peers)) {
        return false;
    }
    if (peer == NULL) {
        log_notice("raftd.peer.met", "peer=%s it_may_have_been_added_after_the_end_of_our_log",
                ids_text(hello->member_id, id));
        peer = add_peer(peers, hello->member_id);
    }
    if (peer->is_wanted) {
        return true;
    }
    peer->keep_until_ms =
            clock_monotonic_ms() + STRANGER_ELECTION_TIMEOUTS * peers->conf->election_timeout_ms;
    char **urls = xcalloc(hello->peer_urls.count, sizeof *urls);
    for (size_t i = 0; i < hello->peer_urls.count; i++) {
        struct span url = hello->peer_urls.items[i];
        urls[i] = xcalloc(1, url.bytes + 1);
        if (url.bytes > 0) {
            memcpy(urls[i], url.data, url.bytes);
        }
    }
    set_urls(peer, urls, hello->peer_urls.count);
    for (size_t i = 0; i < hello->peer_urls.count; i++) {
        free(urls[i]);
    }
    free(urls);
    return true;
}

/* Fills text with what differs and how to mend it. */
static enum peer_refusal judge_hello(struct peers *peers, const struct peer_hello *hello)
{
    const struct peers_identity *self = &peers->identity;
    char a[IDS_TEXT_BYTES];
    char b[IDS_TEXT_BYTES];
    char *text = peers->text;
    size_t bytes = sizeof peers->text;

    if (hello->protocol != PEER_PROTOCOL_VERSION) {
        (void)snprintf(text, bytes,
                "incompatible version: peer protocol %" PRIu64 " and %d differ; run neighbouring "
                "versions",
                hello->protocol, PEER_PROTOCOL_VERSION);
        return PEER_REFUSED_PROTOCOL;
    }
    if (self->cluster_id == 0) {
        (void)snprintf(text, bytes, "still starting");
        return PEER_REFUSED_STARTING;
    }
    if (hello->cluster_id != self->cluster_id) {
        (void)snprintf(text, bytes,
                "cluster ID mismatch: %s says cluster %s, this is %s; start both with the same "
                "--initial-cluster and --initial-cluster-token, or a joiner on an empty data "
                "directory with --initial-cluster-state existing",
                ids_text(hello->member_id, a), ids_text(hello->cluster_id, b),
                ids_text(self->cluster_id, (char[IDS_TEXT_BYTES]){ 0 }));
        return PEER_REFUSED_CLUSTER;
    }
    if (hello->to_member_id != self->member_id || hello->member_id == self->member_id) {
        (void)snprintf(text, bytes,
                "to field mismatch: %s meant to reach member %s, here is %s; give each of two "
                "processes behind one URL its own, or update the peer URL (member update)",
                ids_text(hello->member_id, a), ids_text(hello->to_member_id, b),
                ids_text(self->member_id, (char[IDS_TEXT_BYTES]){ 0 }));
        return PEER_REFUSED_ADDRESS;
    }
    switch (peers->events->standing(peers->user, hello->member_id)) {
    case PEER_STANDING_REMOVED:
        (void)snprintf(text, bytes,
                "the member %s has been permanently removed from the cluster; remove its data "
                "directory and add it again (member add) to bring it back under a new id",
                ids_text(hello->member_id, a));
        return PEER_REFUSED_REMOVED;
    case PEER_STANDING_STRANGER:
        (void)snprintf(text, bytes,
                "error sender not found: %s is no member of cluster %s; add it first (member add)",
                ids_text(hello->member_id, a), ids_text(self->cluster_id, b));
        return PEER_REFUSED_UNKNOWN;
    case PEER_STANDING_UNKNOWN:
        if (!meet_stranger(peers, hello)) {
            (void)snprintf(text, bytes, "too many that are not known here; ask again");
            return PEER_REFUSED_STARTING;
        }
        return PEER_WELCOME;
    case PEER_STANDING_MEMBER:
    default:
        return PEER_WELCOME;
    }
}

static void judge(void *user, const struct peer_hello *hello, struct peer_answer *ret_answer)
{
    struct peers *peers = user;
    uint64_t now_ms = clock_monotonic_ms();

    peers->text[0] = '\0';
    enum peer_refusal refusal = judge_hello(peers, hello);
    ret_answer->reason = (uint64_t)refusal;
    ret_answer->cluster_id = peers->identity.cluster_id;
    ret_answer->member_id = peers->identity.member_id;
    ret_answer->text = span_str(peers->text);
    if (refusal == PEER_WELCOME) {
        struct peer *peer = find_peer(peers, hello->member_id);
        for (size_t i = 0; peer != NULL && i < PEER_CHANNEL_COUNT; i++) {
            channel_hurry(peer->channels[i]);
        }
        return;
    }
    bool is_news = strcmp(peers->text, peers->told) != 0 ||
                   now_ms - peers->told_at_ms >= REFUSAL_REPEAT_MS;
    if (refusal != PEER_REFUSED_STARTING && is_news) {
        memcpy(peers->told, peers->text, sizeof peers->told);
        peers->told_at_ms = now_ms;
        log_warning("raftd.peer.refused", "reason=\"%s\" action=hang_up", peers->text);
    }
}

static void on_message(void *user, uint64_t from, unsigned type, struct span body)
{
    struct peers *peers = user;
    peers->events->on_message(peers->user, from, type, body);
}

static void fill_members(void *user, struct buf *out)
{
    struct peers *peers = user;
    peers->events->fill_members(peers->user, out);
}

static const struct listener_events listener_handlers = {
    .judge = judge,
    .on_message = on_message,
    .fill_members = fill_members,
};

/* ---- Life ---- */

static void on_timer(void *user)
{
    struct peers *peers = user;
    uint64_t now_ms = clock_monotonic_ms();
    uint64_t expected_ms = peers->ticked_at_ms + 2 * peers->conf->heartbeat_interval_ms;
    uint64_t late_ms = now_ms > expected_ms ? now_ms - expected_ms : 0;

    peers->ticked_at_ms = now_ms;
    listener_tick(peers->listener, now_ms, late_ms);
    if (peers->identity.cluster_id == 0) {
        return;
    }
    LIST_FOREACH (peer, &peers->list, struct peer, node) {
        if (!peer->is_wanted && now_ms > peer->keep_until_ms) {
            free_peer(peer);
            continue;
        }
        for (size_t i = 0; i < PEER_CHANNEL_COUNT; i++) {
            channel_tick(peer->channels[i], now_ms, late_ms);
        }
    }
}

/* What was judged by other keys or authorities is judged again. */
static void on_trust_changed(void *user, bool is_tls)
{
    struct peers *peers = user;

    listener_renew(peers->listener, is_tls);
    LIST_FOREACH (peer, &peers->list, struct peer, node) {
        for (size_t i = 0; i < PEER_CHANNEL_COUNT; i++) {
            channel_renew(peer->channels[i], is_tls);
        }
    }
}

int peers_open(struct loop *loop, const struct conf *conf, struct security *security,
        const struct peers_events *events, void *user, struct peers **ret_peers, struct err *err)
{
    struct peers *peers = xcalloc(1, sizeof *peers);
    const struct conf_list *own = &conf->initial_advertise_peer_urls;

    peers->conf = conf;
    peers->loop = loop;
    peers->security = security;
    peers->events = events;
    peers->user = user;
    list_init(&peers->list);
    peers->own_urls = xcalloc(own->count, sizeof *peers->own_urls);
    for (size_t i = 0; i < own->count; i++) {
        peers->own_urls[i] = span_str(own->items[i]);
    }
    int result = listener_open(loop, security, &conf->listen_peer_urls, conf->heartbeat_interval_ms,
            conf->election_timeout_ms, &listener_handlers, peers, &peers->listener, err);
    if (result < 0) {
        (void)peers_close(peers);
        return result;
    }
    peers->ticked_at_ms = clock_monotonic_ms();
    peers->timer = loop_timer_new(loop, on_timer, peers);
    loop_timer_start(peers->timer, conf->heartbeat_interval_ms, conf->heartbeat_interval_ms);
    security_watch(security, loop, on_trust_changed, peers);
    *ret_peers = peers;
    return 0;
}

struct peers *peers_close(struct peers *peers)
{
    if (peers == NULL) {
        return NULL;
    }
    peers->timer = loop_timer_free(peers->timer);
    LIST_FOREACH (peer, &peers->list, struct peer, node) {
        free_peer(peer);
    }
    peers->listener = listener_close(peers->listener);
    free(peers->own_urls);
    free(peers);
    return NULL;
}

void peers_begin(struct peers *peers, const struct peers_identity *identity)
{
    peers->identity = *identity;
    peers->ticked_at_ms = clock_monotonic_ms();
    loop_timer_start(peers->timer, 0, peers->conf->heartbeat_interval_ms);
}

void peers_want_begin(struct peers *peers)
{
    LIST_FOREACH (peer, &peers->list, struct peer, node) {
        if (peer->is_wanted) {
            peer->is_wanted = false;
            peer->keep_until_ms = clock_monotonic_ms() +
                                  LEAVING_ELECTION_TIMEOUTS * peers->conf->election_timeout_ms;
        }
    }
}

void peers_want(struct peers *peers, uint64_t id, char *const *urls, size_t url_count)
{
    struct peer *peer = find_peer(peers, id);

    if (id == peers->identity.member_id) {
        return;
    }
    if (peer == NULL) {
        peer = add_peer(peers, id);
    }
    peer->is_wanted = true;
    if (url_count > 0) {
        set_urls(peer, urls, url_count);
    }
}

void peers_want_end(struct peers *peers)
{
    /* The timer lets go of the others. */
    (void)peers;
}

/* Whether the peer is to hear anything on the control channel: see the header. */
static bool may_speak(const struct peers *peers, const struct peer *peer)
{
    return channel_is_live(peer->channels[PEER_BULK]) ||
           clock_monotonic_ms() - peer->bulk_lost_ms < peers->conf->election_timeout_ms;
}

bool peers_send(struct peers *peers, uint64_t to, enum peer_channel channel, unsigned type,
        struct span body)
{
    struct peer *peer = find_peer(peers, to);

    if (peer == NULL) {
        return false;
    }
    bool sent = (channel != PEER_CONTROL || may_speak(peers, peer)) &&
                channel_send(peer->channels[channel], type, body);
    peer->sent += sent;
    peer->failed += !sent;
    return sent;
}

bool peers_is_reachable(const struct peers *peers, uint64_t id)
{
    const struct peer *peer = find_peer(peers, id);
    return peer != NULL && peer->is_reachable;
}

uint64_t peers_reachable_ms(const struct peers *peers, uint64_t id)
{
    const struct peer *peer = find_peer(peers, id);

    if (peer == NULL || !peer->is_reachable) {
        return 0;
    }
    return MAX(clock_monotonic_ms() - peer->reachable_since_ms, (uint64_t)1);
}

/* The square root, by Newton: good to a thousandth, without libm. */
static uint64_t root(double square)
{
    double x = square > 1 ? square / 2 : 1;

    for (unsigned i = 0; i < 64; i++) {
        x = (x + square / x) / 2;
    }
    return (uint64_t)x;
}

bool peers_get_stats(const struct peers *peers, uint64_t id, struct peer_stats *ret_stats)
{
    const struct peer *peer = find_peer(peers, id);

    if (peer == NULL) {
        return false;
    }
    const struct latency *latency = &peer->latency;
    uint64_t deviation_ns =
            latency->count < 2 ? 0 : root(latency->squares / (double)(latency->count - 1));
    *ret_stats = (struct peer_stats){
        .latency_us = { latency->current_ns / 1000, (uint64_t)(latency->mean / 1000),
                deviation_ns / 1000, latency->least_ns / 1000, latency->most_ns / 1000 },
        .sent = peer->sent,
        .failed = peer->failed,
    };
    return true;
}
