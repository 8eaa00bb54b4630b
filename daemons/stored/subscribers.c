/* subscribers.c: the gatewayds that want to know what was applied.
 *
 *   after the hello    the kept batch, if it continues what the subscriber has seen; else skipped_to; then a beacon
 *   each commit        its batch; where there is no credit nothing, and skipped_to once there is credit again,
 *                      with what became of its own requests: that is in no table
 *   each 100 ms        a beacon, so that the loss of a last message is noticed
 *   a new state        generation; where there is no credit, the next beacon names it too
 *
 * One whose link is gone is remembered for a while, by its instance: it may only have been too slow to answer. */
#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/strangers.h"
#include "daemons/stored/stored_impl.h"
#include "proto/applied.h"
#include "proto/link.h"
#include "proto/outcome.h"

enum {
    BEACON_MS = 100,
    AWAY_MS_MAX = 10000,
    MISSED_BYTES_MAX = 16 * 1024 * 1024, /* beyond, its clients hear of a time-out */
};

struct subscriber {
    struct list node;
    struct link *link; /* NULL: away */
    uint64_t pid;
    uint64_t instance; /* 0: asks nothing */
    uint64_t away_since_ms;
    bool skipping;     /* batches were held back: skipped_to is due */
    struct buf missed; /* encoded outcomes of its own requests, one behind the other ... */
    size_t *missed_ends;
    size_t missed_count;
};

static void forget_missed(struct subscriber *subscriber)
{
    buf_fini(&subscriber->missed);
    free(subscriber->missed_ends);
    subscriber->missed_ends = NULL;
    subscriber->missed_count = 0;
}

static void free_subscriber(struct subscriber *subscriber)
{
    list_remove(&subscriber->node);
    forget_missed(subscriber);
    free(subscriber);
}

static void keep_outcome(struct subscriber *subscriber, struct span outcome)
{
    if (subscriber->missed.bytes + outcome.bytes > MISSED_BYTES_MAX) {
        return;
    }
    buf_append_span(&subscriber->missed, outcome);
    subscriber->missed_ends = xrealloc(subscriber->missed_ends,
            (subscriber->missed_count + 1) * sizeof *subscriber->missed_ends);
    subscriber->missed_ends[subscriber->missed_count++] = subscriber->missed.bytes;
}

/* Of a batch that it does not get: its own outcomes. */
static void keep_missed(struct subscriber *subscriber, struct span encoded)
{
    struct codec_scratch scratch = { 0 };
    struct codec_scratch inner = { 0 };
    struct batch batch;
    struct outcome outcome;

    if (subscriber->instance != 0 && batch_decode(encoded, &batch, &scratch, NULL) == 0) {
        for (size_t i = 0; i < batch.outcomes.count; i++) {
            codec_scratch_reset(&inner);
            if (outcome_decode(batch.outcomes.items[i], &outcome, &inner, NULL) == 0 &&
                    outcome.instance == subscriber->instance) {
                keep_outcome(subscriber, batch.outcomes.items[i]);
            }
        }
    }
    codec_scratch_fini(&inner);
    codec_scratch_fini(&scratch);
}

static const struct schema_meta *live_meta(const struct stored *stored)
{
    struct replica *replica = generations_replica(stored->generations);
    return replica != NULL ? replica_meta(replica) : NULL;
}

/* False: no credit. */
static bool send_missed(
        struct stored *stored, struct subscriber *subscriber, const struct schema_meta *meta)
{
    struct buf *out = &stored->subscribers.out;
    size_t count = subscriber->missed_count;

    if (count == 0) {
        return true;
    }
    struct span *items = xcalloc(count, sizeof *items);
    for (size_t i = 0, start = 0; i < count; start = subscriber->missed_ends[i++]) {
        items[i] = span_of(subscriber->missed.data + start, subscriber->missed_ends[i] - start);
    }
    struct missed message = {
        .last_index = meta->applied_index, .term = meta->applied_term, .outcomes = { items, count }
    };
    buf_clear(out);
    missed_encode(&message, out);
    free(items);
    bool sent = link_send(subscriber->link, missed_type, out) == 0;
    if (sent) {
        forget_missed(subscriber);
    }
    return sent;
}

static void send_skipped(struct stored *stored, struct subscriber *subscriber)
{
    const struct schema_meta *meta = live_meta(stored);
    struct buf *out = &stored->subscribers.out;

    if (meta == NULL || !send_missed(stored, subscriber, meta)) {
        return;
    }
    struct skipped_to message = { .last_index = meta->applied_index,
        .etcd_index = meta->etcd_index };
    buf_clear(out);
    skipped_to_encode(&message, out);
    subscriber->skipping = link_send(subscriber->link, skipped_to_type, out) < 0;
}

static void send_beacon(struct stored *stored, struct subscriber *subscriber)
{
    const struct schema_meta *meta = live_meta(stored);
    struct buf *out = &stored->subscribers.out;

    if (meta == NULL || !link_can_send(subscriber->link)) {
        return;
    }
    struct beacon message = {
        .generation = generations_number(stored->generations),
        .applied_index = meta->applied_index,
        .applied_term = meta->applied_term,
        .etcd_index = meta->etcd_index,
        .time_ns = meta->time_ns,
        .boottime_ns = meta->boottime_ns,
    };
    buf_clear(out);
    beacon_encode(&message, out);
    (void)link_send(subscriber->link, beacon_type, out);
}

static void send_batch(struct stored *stored, struct subscriber *subscriber, struct span batch)
{
    struct buf *out = &stored->subscribers.out;

    if (subscriber->link == NULL || subscriber->skipping || !link_can_send(subscriber->link)) {
        subscriber->skipping = true;
        stored->subscribers.skipped++;
        keep_missed(subscriber, batch);
        return;
    }
    buf_clear(out);
    buf_append_span(out, batch);
    subscriber->skipping = link_send(subscriber->link, batch_type, out) < 0;
    if (subscriber->skipping) {
        keep_missed(subscriber, batch);
    }
}

void subscribers_publish(struct stored *stored, struct span batch)
{
    LIST_FOREACH (subscriber, &stored->subscribers.all, struct subscriber, node) {
        send_batch(stored, subscriber, batch);
    }
}

void subscribers_tell_generation(struct stored *stored)
{
    const struct schema_meta *meta = live_meta(stored);
    struct buf *out = &stored->subscribers.out;

    if (meta == NULL) {
        return;
    }
    struct generation message = {
        .generation = generations_number(stored->generations),
        .applied_index = meta->applied_index,
        .etcd_index = meta->etcd_index,
    };
    LIST_FOREACH (subscriber, &stored->subscribers.all, struct subscriber, node) {
        if (subscriber->link == NULL) {
            continue;
        }
        buf_clear(out);
        generation_encode(&message, out);
        subscriber->skipping = link_send(subscriber->link, generation_type, out) < 0 ||
                               subscriber->missed_count > 0;
    }
}

size_t subscribers_count(const struct stored *stored)
{
    return stored->subscribers.present;
}

/* What a subscriber missed while it was away, or while we were. */
static void bring_up_to_date(
        struct stored *stored, struct subscriber *subscriber, uint64_t seen_index)
{
    const struct schema_meta *meta = live_meta(stored);
    struct codec_scratch scratch = { 0 };
    struct batch kept;

    if (meta == NULL || seen_index >= meta->applied_index) {
        return;
    }
    (void)send_missed(stored, subscriber, meta); /* the first on this link: there is credit */
    struct span encoded = replica_publication(generations_replica(stored->generations));
    bool covered = encoded.bytes > 0 && batch_decode(encoded, &kept, &scratch, NULL) == 0 &&
                   kept.first_index <= seen_index + 1 && kept.last_index == meta->applied_index;
    codec_scratch_fini(&scratch);
    if (covered) {
        send_batch(stored, subscriber, encoded);
    } else {
        send_skipped(stored, subscriber);
    }
}

static struct subscriber *find_away(struct stored *stored, uint64_t instance)
{
    LIST_FOREACH (subscriber, &stored->subscribers.all, struct subscriber, node) {
        if (subscriber->link == NULL && subscriber->instance == instance) {
            return subscriber;
        }
    }
    return NULL;
}

/* A page that a reader met may be one that we never touch: who comes back and tells of it has us end as if we had met it
 * ourselves, and the state is rebuilt. */
static void heed_reader(struct stored *stored, const struct hello *peer)
{
    struct err err;

    if (stored->exit_status != 0 || !HAS(peer, hello_tag_unreadable_generation) ||
            peer->unreadable_generation != generations_number(stored->generations)) {
        return;
    }
    (void)err_set(&err, -EIO, "generation %" PRIu64 ": gatewayd met a page that cannot be read",
            peer->unreadable_generation);
    stored_fail(stored, CONF_EXIT_STORAGE, &err, "stored.state.told_unreadable");
}

static int on_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct stored *stored = user;

    (void)err;
    struct subscriber *subscriber = find_away(stored, peer->instance);
    if (subscriber == NULL) {
        subscriber = xcalloc(1, sizeof *subscriber);
        list_append(&stored->subscribers.all, &subscriber->node);
    }
    subscriber->link = link;
    subscriber->pid = peer->pid;
    subscriber->instance = peer->instance;
    subscriber->skipping = false;
    stored->subscribers.present++;
    link_set_user(link, subscriber);
    log_info("stored.subscriber.up", "pid=%" PRIu64 " seen_index=%" PRIu64, peer->pid,
            peer->applied_index);
    bring_up_to_date(stored, subscriber, peer->applied_index);
    send_beacon(stored, subscriber);
    heed_reader(stored, peer);
    return 0;
}

static void on_down(void *user, struct link *link)
{
    struct stored *stored = user;
    struct subscriber *subscriber = link_get_user(link);

    log_info("stored.subscriber.down", "pid=%" PRIu64, subscriber->pid);
    subscriber->link = NULL;
    subscriber->away_since_ms = clock_monotonic_ms();
    stored->subscribers.present--;
    care_check_readers(stored); /* it may have died in the middle of a read */
}

static void on_message(void *user, struct link *link, unsigned type, struct span body)
{
    (void)user;
    (void)link;
    (void)body;
    log_debug("stored.subscriber.unknown_message", "type=%u", type);
}

static void on_writable(void *user, struct link *link)
{
    struct subscriber *subscriber = link_get_user(link);

    if (subscriber->skipping) {
        send_skipped(user, subscriber);
    }
}

static const struct link_events subscriber_events = {
    .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .on_writable = on_writable,
    .on_stranger = strangers_tell,
    .fill_hello = stored_fill_hello,
};

static void on_beacon_timer(void *user)
{
    struct stored *stored = user;

    LIST_FOREACH (subscriber, &stored->subscribers.all, struct subscriber, node) {
        if (subscriber->link == NULL) {
            if (clock_monotonic_ms() - subscriber->away_since_ms > AWAY_MS_MAX) {
                free_subscriber(subscriber);
            }
            continue;
        }
        if (subscriber->skipping) {
            send_skipped(stored, subscriber);
        }
        send_beacon(stored, subscriber);
    }
}

int subscribers_start(struct stored *stored, struct err *err)
{
    struct link_config config = {
        .pattern = LINK_REQREP,
        .listen = true,
        .path = "applied.ipc",
        .peer_uids = stored->config.peer_uids,
        .peer_uid_count = stored->config.peer_uid_count,
        .events = &subscriber_events,
        .user = stored,
    };

    stored->subscribers.beacon_timer = loop_timer_new(stored->loop, on_beacon_timer, stored);
    loop_timer_start(stored->subscribers.beacon_timer, BEACON_MS, BEACON_MS);
    return link_hub_open(stored->loop, &config, &stored->subscribers.hub, err);
}

void subscribers_stop(struct stored *stored)
{
    struct subscribers *subscribers = &stored->subscribers;

    subscribers->hub = link_hub_close(subscribers->hub);
    subscribers->beacon_timer = loop_timer_free(subscribers->beacon_timer);
    LIST_FOREACH (subscriber, &subscribers->all, struct subscriber, node) {
        free_subscriber(subscriber);
    }
    buf_fini(&subscribers->out);
}
