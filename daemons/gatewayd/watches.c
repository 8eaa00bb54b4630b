/* watches.c: long polls and streams, from registration to their last byte.
 *
 * Registering happens within the turn's transaction: what the history holds from the wished index on is told from
 * there; whoever is not satisfied by it waits in the hub for what comes behind the transaction. */
#include "daemons/gatewayd/shell.h"

#include "daemons/gatewayd/v2/render.h"
#include "daemons/gatewayd/watch/match.h"
#include "proto/outcome.h"

enum {
    SHARE_ABOVE_BYTES = 16 * 1024 /* of a text: smaller ones are copied into each answer */
};

/* One text serves the writer and all watchers of an event. */
struct span watches_event_body(struct gatewayd *gw, const struct event *event)
{
    if (gw->event_body_index != event->etcd_index || event->etcd_index == 0) {
        size_t values_bytes = event->value.bytes + event->prev_value.bytes;
        watches_forget_body(gw);
        if (values_bytes > SHARE_ABOVE_BYTES) {
            (void)buf_reserve(&gw->event_body, values_bytes + values_bytes / 8);
        }
        render_event(&gw->event_body, event);
        gw->event_body_index = event->etcd_index;
        if (gw->event_body.bytes > SHARE_ABOVE_BYTES) {
            gw->event_shared = http_body_new(gw->http, &gw->event_body);
        }
    }
    return gw->event_shared != NULL ? http_body_span(gw->event_shared) : buf_span(&gw->event_body);
}

void watches_forget_body(struct gatewayd *gw)
{
    gw->event_body_index = 0;
    buf_clear(&gw->event_body);
    gw->event_shared = http_body_unref(gw->event_shared);
}

/* Returns how many bytes of text it was. */
static size_t tell(struct gatewayd *gw, struct http_request *http, const struct event *event)
{
    struct span text = watches_event_body(gw, event);

    if (gw->event_shared != NULL) {
        http_stream_share(http, gw->event_shared);
    } else {
        http_stream_chunk(http, text);
    }
    return text.bytes;
}

/* The oldest index that can be asked for: the window of the API, or what the table still has. */
static uint64_t first_index(const struct gatewayd *gw)
{
    const struct state_meta *meta = &gw->view.meta;
    uint64_t window = gw->conf->event_history;
    uint64_t first = meta->etcd_index >= window ? meta->etcd_index - window + 1 : 1;

    return MAX(first, meta->first_event_index);
}

static void answer_cleared(struct gatewayd *gw, struct call *call, uint64_t first)
{
    struct api_error error = { .code = V2_EVENT_INDEX_CLEARED,
        .index = gw->view.meta.etcd_index,
        .cause = arena_printf(&gw->arena,
                "the requested history has been cleared [%" PRIu64 "/%" PRIu64 "]", first,
                call->wait_index) };

    answer_keys_error(gw, call->http, &error);
    call->counted = true; /* a watch is counted only when it fails */
    call_count_failure(gw, call, api_error_status(error.code));
    call_free(gw, call);
}

static void begin_stream(struct gatewayd *gw, struct call *call)
{
    const struct state_meta *meta = &gw->view.meta;
    struct span head = answer_keys_head(
            gw, call->http, meta->etcd_index, meta->applied_index, meta->applied_term);

    http_stream_begin(call->http, 200, head);
}

/* Tells what the history holds from `next` on. True: it is over, since a long poll has got its event, or a stream as much as
 * we hold for a client: it comes back for the rest. That is so, too, where the client takes all at once: a turn's end is not
 * put off for as long as somebody reads. */
static bool tell_past(struct gatewayd *gw, struct call *call, uint64_t next)
{
    CLEANUP(codec_scratch_fini) struct codec_scratch scratch = { 0 };
    struct state_events events;
    struct span encoded;
    uint64_t etcd_index;
    struct event event;
    size_t told_bytes = 0;
    bool told = false;
    bool full = false;

    state_events_begin(gw->view.read, next, &events);
    while ((!told || call->stream) && !full && state_events_next(&events, &etcd_index, &encoded)) {
        if (watch_may_match(call->key, encoded) &&
                event_decode(encoded, &event, &scratch, NULL) == 0 &&
                watch_matches_past(call->key, call->recursive, &event)) {
            told_bytes += tell(gw, call->http, &event);
            told = true;
            full = told_bytes > STREAM_UNSENT_BYTES_MAX;
        }
    }
    state_events_end(&events);
    return told && (full || !call->stream);
}

/* One that is too deep to be looked up counts as there: its watcher is told when an ancestor goes, be it there or not. */
static bool key_exists(struct gatewayd *gw, struct span key)
{
    struct state_node node;
    size_t bad_bytes;

    if (reads_is_deep(key)) {
        return true;
    }
    return !watch_hub_tracks(gw->hub, key) &&
           state_read_lookup(gw->view.read, key, &node, &bad_bytes) == 0;
}

/* The call becomes a watch: the request's own memory is given back, and what is left is small. */
void watches_register(struct gatewayd *gw, struct call *call, uint64_t next_index)
{
    if (gw->draining) {
        http_stream_abort(call->http);
        call_free(gw, call);
        return;
    }
    struct watch *watch = xcalloc(1, sizeof *watch);
    watch->holder = HOLDER_WATCH;
    watch->http = call->http;
    watch->watcher = (struct watcher){
        .next_index = next_index, .recursive = call->recursive, .stream = call->stream
    };
    watch->http->user = &watch->holder;
    watch_hub_add(gw->hub, &watch->watcher, call->key, key_exists(gw, call->key));
    gw->values[COUNTER_WATCHERS]++;
    call_free(gw, call);
    http_request_release(watch->http);
}

void reads_serve_watch(struct gatewayd *gw, struct call *call)
{
    uint64_t etcd_index = gw->view.meta.etcd_index;
    uint64_t next = call->wait_index == 0 ? etcd_index + 1 : call->wait_index;
    uint64_t first = first_index(gw);

    if (next <= etcd_index && http_server_is_full(gw->http)) {
        reads_put_off(gw, call);
        return;
    }
    if (next < first) {
        answer_cleared(gw, call, first);
        return;
    }
    gw->values[COUNTER_WATCH_REQUESTS]++;
    begin_stream(gw, call);
    if (next <= etcd_index && tell_past(gw, call, next)) {
        http_stream_end(call->http);
        call_free(gw, call);
        return;
    }
    watches_register(gw, call, MAX(next, etcd_index + 1));
}

static void free_watch(struct gatewayd *gw, struct watch *watch)
{
    watch_hub_remove(gw->hub, &watch->watcher);
    gw->values[COUNTER_WATCHERS]--;
    free(watch);
}

void watches_deliver(void *user, struct watcher *watcher, const struct event *event)
{
    struct gatewayd *gw = user;
    struct watch *watch = CONTAINER_OF(watcher, struct watch, watcher);

    (void)tell(gw, watch->http, event);
    if (!watcher->stream) {
        http_stream_end(watch->http);
        free_watch(gw, watch);
    } else if (http_stream_unsent(watch->http) > STREAM_UNSENT_BYTES_MAX) {
        http_stream_abort(watch->http); /* too slow: rather cut than silent */
        free_watch(gw, watch);
    }
}

static void end_watch(void *user, struct watcher *watcher, const struct event *event)
{
    struct gatewayd *gw = user;
    struct watch *watch = CONTAINER_OF(watcher, struct watch, watcher);

    (void)event;
    http_stream_end(watch->http);
    free_watch(gw, watch);
}

static void abort_watch(void *user, struct watcher *watcher, const struct event *event)
{
    struct gatewayd *gw = user;
    struct watch *watch = CONTAINER_OF(watcher, struct watch, watcher);

    (void)event;
    http_stream_abort(watch->http);
    free_watch(gw, watch);
}

void watches_end_all(struct gatewayd *gw, bool abort)
{
    watch_hub_drain(gw->hub, abort ? abort_watch : end_watch, gw);
}

void watches_on_cancel(struct gatewayd *gw, struct watch *watch)
{
    free_watch(gw, watch);
}
