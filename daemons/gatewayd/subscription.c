/* subscription.c: the link to stored: batches of outcomes in, which answer writes and feed the hub.
 *
 * Batches come in order of raft index. What is missing between two of them, or was skipped, is read from the history
 * table, a slice a turn, and until that is done the hub is fed from there alone; it tells nobody twice, by index. Where the table does not reach back far enough, all watches end with
 * an empty body, which clients take as "ask again". */
#include "daemons/gatewayd/shell.h"

#include <errno.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "daemons/gatewayd/discovery.h"
#include "daemons/gatewayd/v2/render.h"
#include "proto/applied.h"
#include "proto/hello.h"
#include "proto/link.h"
#include "proto/outcome.h"

struct subscription {
    struct gatewayd *gw;
    struct link_hub *hub;
    struct link *link;            /* NULL: down */
    struct codec_scratch scratch; /* of the message */
    struct codec_scratch inner;   /* of what is encoded within it */
    struct loop_waker *next_slice;
    uint64_t heard_at_ms; /* when stored last said something; it has a beacon each 100 ms */
    bool is_behind;       /* the table has events for the hub that it has not been told */
};

enum {
    SLICE_NS = 5 * 1000 * 1000,
    SLICE_EVENTS_MAX = 1024,
};

static void tell_hub(struct gatewayd *gw, const struct event *event)
{
    if (event->action == EVENT_EXPIRE && gw->primary &&
            event->etcd_index > watch_hub_index(gw->hub)) {
        gw->values[COUNTER_EXPIRE_COUNT]++;
    }
    watch_hub_publish(gw->hub, event, watches_deliver, gw);
}

/* Tells the hub some of what the table has; true: all of it. */
static bool tell_slice(struct gatewayd *gw, uint64_t next)
{
    uint64_t end_ns = clock_monotonic_ns() + SLICE_NS;
    struct state_events events;
    struct span encoded;
    uint64_t etcd_index;
    struct event event;
    unsigned told = 0;
    bool is_over = false;

    state_events_begin(gw->view.read, next, &events);
    while (!is_over && state_events_next(&events, &etcd_index, &encoded)) {
        codec_scratch_reset(&gw->subscription->inner);
        if (event_decode(encoded, &event, &gw->subscription->inner, NULL) == 0) {
            tell_hub(gw, &event);
        }
        watch_hub_advance(gw->hub, etcd_index);
        is_over = ++told == SLICE_EVENTS_MAX || clock_monotonic_ns() > end_ns;
    }
    state_events_end(&events);
    return !is_over;
}

void subscription_catch_up(struct gatewayd *gw)
{
    const struct state_meta *meta = &gw->view.meta;
    uint64_t next = watch_hub_index(gw->hub) + 1;

    if (meta->etcd_index < next) {
        gw->subscription->is_behind = false;
        return;
    }
    if (watch_hub_count(gw->hub) > 0 &&
            (meta->first_event_index == 0 || meta->first_event_index > next)) {
        log_warning("gatewayd.watch.ended",
                "next=%" PRIu64 " first=%" PRIu64 " action=clients_ask_again", next,
                meta->first_event_index);
        watches_end_all(gw, false);
    }
    gw->subscription->is_behind = watch_hub_count(gw->hub) > 0 && !tell_slice(gw, next);
    if (gw->subscription->is_behind) {
        loop_waker_wake(gw->subscription->next_slice);
    } else {
        watch_hub_advance(gw->hub, meta->etcd_index);
    }
}

static void catch_up_now(struct gatewayd *gw)
{
    if (view_begin(gw) == 0) {
        subscription_catch_up(gw);
        view_end(gw);
    }
}

void subscription_go_on(struct gatewayd *gw)
{
    if (gw->subscription->is_behind) {
        catch_up_now(gw);
    }
}

static void on_next_slice(void *user)
{
    subscription_go_on(user);
}

static void answer_event(struct gatewayd *gw, struct call *call, const struct batch *batch,
        const struct event *event)
{
    unsigned status = render_event_status(event);
    struct span head =
            answer_keys_head(gw, call->http, event->etcd_index, batch->last_index, batch->term);

    if (call->no_value && render_can_omit_value(event)) {
        buf_clear(&gw->body);
        render_action(&gw->body, event);
        http_respond_json(call->http, status, head, buf_span(&gw->body));
        return;
    }
    struct span body = watches_event_body(gw, event);
    if (gw->event_shared != NULL) {
        http_respond_body(call->http, status, head, gw->event_shared);
    } else {
        http_respond_json(call->http, status, head, body);
    }
}

/* Answers the write that this entry was. */
static void answer_write(struct gatewayd *gw, struct call *call, const struct batch *batch,
        const struct outcome *outcome, const struct event *event)
{
    struct api_error error = {
        .code = (unsigned)outcome->error_code, .index = outcome->etcd_index, .cause = outcome->cause
    };
    bool success = event != NULL;

    call_count_write(gw, call, success);
    if (!success) {
        call_count_failure(gw, call, api_error_status(error.code));
    } else {
        call_count_success(gw, call);
    }
    if (call->http != NULL && !success) {
        answer_keys_error(gw, call->http, &error);
    } else if (call->http != NULL) {
        answer_event(gw, call, batch, event);
    }
    call_free(gw, call);
}

static void take_outcome(struct gatewayd *gw, const struct batch *batch, struct span encoded)
{
    struct codec_scratch *inner = &gw->subscription->inner;
    struct outcome outcome;
    struct event event;
    struct call *call = NULL;
    bool has_event = false;

    codec_scratch_reset(inner);
    if (outcome_decode(encoded, &outcome, inner, NULL) < 0) {
        return;
    }
    if (outcome.instance == gw->instance) {
        call = call_find(gw, outcome.counter);
    }
    bool wanted = call != NULL || watch_hub_count(gw->hub) > 0 || outcome.instance == 0;
    if (wanted && HAS(&outcome, outcome_tag_event)) {
        has_event = event_decode(outcome.event, &event, inner, NULL) == 0;
    }
    if (call != NULL && call->kind == CALL_WRITE) {
        answer_write(gw, call, batch, &outcome, has_event ? &event : NULL);
    } else if (call != NULL && call->kind == CALL_MEMBER) {
        members_on_outcome(gw, call, &outcome);
    } else if (call != NULL && call->kind == CALL_DISCOVERY) {
        discovery_on_outcome(gw, call, &outcome);
    }
    if (gw->subscription->is_behind) {
        return; /* the table has it, behind what the hub has to be told first */
    }
    if (has_event) {
        tell_hub(gw, &event);
    }
    watch_hub_advance(gw->hub, outcome.etcd_index);
}

static void on_batch(struct gatewayd *gw, struct span body)
{
    struct subscription *subscription = gw->subscription;
    struct err err = { 0 };
    struct batch batch;

    if (batch_decode(body, &batch, &subscription->scratch, &err) < 0) {
        log_error_err(&err, "gatewayd.batch.malformed", "action=reconnect");
        link_drop(subscription->link);
        return;
    }
    if (batch.first_index > gw->applied_index + 1) {
        catch_up_now(gw); /* something between was not for us, or was lost with a link */
    }
    gw->now_ns = 0;
    for (size_t i = 0; i < batch.outcomes.count; i++) {
        take_outcome(gw, &batch, batch.outcomes.items[i]);
    }
    if (!subscription->is_behind) {
        watch_hub_advance(gw->hub, batch.etcd_index);
    }
    if (batch.last_index > gw->applied_index) {
        gw->applied_index = batch.last_index;
        gw->applied_term = batch.term;
    }
}

static void on_skipped(struct gatewayd *gw, struct span body)
{
    struct skipped_to skipped;

    if (skipped_to_decode(body, &skipped, &gw->subscription->scratch, NULL) == 0) {
        catch_up_now(gw);
        gw->applied_index = MAX(gw->applied_index, skipped.last_index);
    }
}

static void on_missed(struct gatewayd *gw, struct span body)
{
    struct missed missed;

    if (missed_decode(body, &missed, &gw->subscription->scratch, NULL) < 0) {
        return;
    }
    catch_up_now(gw); /* watchers first: events come in order */
    struct batch batch = { .last_index = missed.last_index, .term = missed.term };
    gw->now_ns = 0;
    for (size_t i = 0; i < missed.outcomes.count; i++) {
        take_outcome(gw, &batch, missed.outcomes.items[i]);
    }
}

/* The state lives elsewhere, and may have gone back in time (a restore): watches that the history does not continue end. */
static void change_generation(struct gatewayd *gw, uint64_t generation)
{
    view_vouch(gw, generation);
    log_info("gatewayd.state.generation", "generation=%" PRIu64, generation);
    watches_forget_body(gw); /* an index may mean another event from now on */
    view_reopen(gw);
    if (view_begin(gw) < 0) {
        return;
    }
    gw->applied_index = gw->view.meta.applied_index;
    gw->applied_term = gw->view.meta.applied_term;
    gw->subscription->is_behind = false;
    if (watch_hub_index(gw->hub) == 0) {
        watch_hub_advance(gw->hub,
                gw->view.meta.etcd_index); /* the first: nobody waits for what was before */
    } else if (gw->view.meta.etcd_index < watch_hub_index(gw->hub)) {
        watches_end_all(gw, false);
        watch_hub_reset(gw->hub, gw->view.meta.etcd_index);
    } else {
        subscription_catch_up(gw);
    }
    view_end(gw);
}

static void on_beacon(struct gatewayd *gw, struct span body)
{
    struct beacon beacon;

    if (beacon_decode(body, &beacon, &gw->subscription->scratch, NULL) < 0) {
        return;
    }
    if (beacon.generation != gw->view.meta.generation || gw->view.state == NULL) {
        change_generation(gw, beacon.generation);
    } else if (beacon.etcd_index > watch_hub_index(gw->hub)) {
        catch_up_now(gw);
    }
    if (beacon.applied_index > gw->applied_index) {
        gw->applied_index = beacon.applied_index;
        gw->applied_term = beacon.applied_term;
    }
}

static void on_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct gatewayd *gw = user;
    struct generation generation;

    (void)link;
    gw->subscription->heard_at_ms = loop_now_ms(gw->loop);
    codec_scratch_reset(&gw->subscription->scratch);
    if (type == (unsigned)batch_type) {
        on_batch(gw, body);
    } else if (type == (unsigned)skipped_to_type) {
        on_skipped(gw, body);
    } else if (type == (unsigned)beacon_type) {
        on_beacon(gw, body);
    } else if (type == (unsigned)missed_type) {
        on_missed(gw, body);
    } else if (type == (unsigned)generation_type) {
        if (generation_decode(body, &generation, &gw->subscription->scratch, NULL) == 0) {
            change_generation(gw, generation.generation);
        }
    }
}

static int on_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct gatewayd *gw = user;

    (void)err;
    gw->subscription->link = link;
    gw->subscription->heard_at_ms = loop_now_ms(gw->loop);
    if (HAS(peer, hello_tag_generation) && peer->generation != 0 &&
            peer->generation != gw->view.meta.generation) {
        change_generation(gw, peer->generation);
    }
    log_info("gatewayd.stored.connected", "applied_index=%" PRIu64, gw->applied_index);
    return 0;
}

static void on_down(void *user, struct link *link)
{
    struct gatewayd *gw = user;

    (void)link;
    gw->subscription->link = NULL;
    log_warning("gatewayd.stored.lost", "action=reconnect reads=served");
}

static void on_refused(void *user, const char *text)
{
    (void)user;
    log_error("gatewayd.stored.refused", "text=\"%s\" action=retry", text);
}

static void fill_hello(void *user, struct hello *ret_hello)
{
    struct gatewayd *gw = user;

    ret_hello->component = SPAN_LIT("gatewayd");
    ret_hello->instance = gw->instance;
    ret_hello->applied_index = gw->applied_index;
    ret_hello->applied_term = gw->applied_term;
    SET(ret_hello, hello_tag_instance);
    SET(ret_hello, hello_tag_applied_index);
    SET(ret_hello, hello_tag_applied_term);
    if (gw->view.unreadable_generation != 0) {
        ret_hello->unreadable_generation = gw->view.unreadable_generation;
        SET(ret_hello, hello_tag_unreadable_generation);
    }
}

static const struct link_events subscription_events = { .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .on_refused = on_refused,
    .fill_hello = fill_hello };

int subscription_open(struct gatewayd *gw, struct err *err)
{
    struct subscription *subscription = xcalloc(1, sizeof *subscription);
    struct link_config config = {
        .pattern = LINK_REQREP, .path = "applied.ipc", .events = &subscription_events, .user = gw
    };

    subscription->gw = gw;
    subscription->next_slice = loop_waker_new(gw->loop, on_next_slice, gw);
    gw->subscription = subscription;
    return link_hub_open(gw->loop, &config, &subscription->hub, err);
}

bool subscription_is_up(const struct subscription *subscription)
{
    return subscription->link != NULL;
}

bool subscription_is_heard(const struct subscription *subscription, uint64_t within_ms)
{
    return subscription->link != NULL &&
           loop_now_ms(subscription->gw->loop) - subscription->heard_at_ms <= within_ms;
}

struct subscription *subscription_close(struct subscription *subscription)
{
    if (subscription != NULL) {
        subscription->hub = link_hub_close(subscription->hub);
        subscription->next_slice = loop_waker_free(subscription->next_slice);
        codec_scratch_fini(&subscription->scratch);
        codec_scratch_fini(&subscription->inner);
        free(subscription);
    }
    return NULL;
}
