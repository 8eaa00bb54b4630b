#include "daemons/gatewayd/gatewayd.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <sodium.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/notify.h"
#include "daemons/gatewayd/shell.h"

enum {
    TICK_MS = 50,
    PRIMARY_RETRY_TICKS = 20,
    UNWANTED_TICKS = 10,
    CALM_TICKS = 100,
    GIVE_BACK_ABOVE_BYTES = 32 * 1024 * 1024,
    DRAIN_LAST_MS = 300
};

uint64_t gw_now_ns(struct gatewayd *gw)
{
    if (gw->now_ns == 0) {
        gw->now_ns = clock_monotonic_ns();
    }
    return gw->now_ns;
}

void gw_become_ready(struct gatewayd *gw)
{
    if (!gw->ready && gw->raft.leader_id != 0 && gw->view.state != NULL) {
        gw->ready = true;
        log_notice("gatewayd.ready", "instance=%016" PRIx64, gw->instance);
        notify_ready();
    }
}

/* Ops first: raftd works on them while we render. */
static void on_turn_end(void *user)
{
    struct gatewayd *gw = user;

    ring_turn_end(gw);
    http_server_set_other_bytes(gw->http, ring_bytes(gw));
    reads_turn_end(gw);
    arena_reset(&gw->arena);
    gw->now_ns = 0;
}

/* Of a heap libc gives back only the end by itself. What was held at a bad time, and lies between what is still in use, goes
 * back when the bad time has been over for a while: that takes milliseconds. */
static void give_back_memory(struct gatewayd *gw)
{
    struct http_stats http;

    http_server_get_stats(gw->http, &http);
    size_t held_bytes = http.held_bytes + ring_bytes(gw);
    if (held_bytes > gw->held_bytes_peak / 4) {
        gw->held_bytes_peak = MAX(gw->held_bytes_peak, held_bytes);
        gw->calm_ticks = 0;
    } else if (gw->held_bytes_peak > GIVE_BACK_ABOVE_BYTES && ++gw->calm_ticks >= CALM_TICKS) {
        gw->held_bytes_peak = 0;
        (void)malloc_trim(0);
    }
}

static void on_tick(void *user)
{
    struct gatewayd *gw = user;

    gw->tick_count++;
    give_back_memory(gw);
    if (gw->tick_count % PRIMARY_RETRY_TICKS == 1) {
        gw->primary = counters_try_primary(gw->counters);
    }
    calls_expire(gw, gw_now_ns(gw) / 1000000, false);
    if (gw->tick_count % UNWANTED_TICKS == 0) {
        ring_drop_unwanted(gw);
    }
    watches_forget_body(gw);
    if (gw->view.state == NULL && view_begin(gw) == 0) {
        if (watch_hub_index(gw->hub) == 0) {
            watch_hub_advance(gw->hub, gw->view.meta.etcd_index);
        } else {
            subscription_catch_up(gw);
        }
        view_end(gw);
    }
    subscription_go_on(gw);
    gw_become_ready(gw);
    if (gw->drained && !jobs_are_busy(gw->jobs)) {
        loop_stop(gw->loop);
    }
}

static void on_drained(void *user)
{
    struct gatewayd *gw = user;

    gw->drained = true;
    if (!jobs_are_busy(
                gw->jobs)) { /* their answers are streams, which the server does not wait for */
        loop_stop(gw->loop);
    }
}

/* First those that still wait are told so; a moment later we go. */
static void on_drain_timeout(void *user)
{
    struct gatewayd *gw = user;

    if (calls_are_pending(gw->calls)) {
        calls_expire(gw, 0, true);
        loop_timer_start(gw->drain_timer, DRAIN_LAST_MS, 0);
    } else {
        loop_stop(gw->loop);
    }
}

static void on_stop_signal(void *user)
{
    struct gatewayd *gw = user;

    if (gw->draining) {
        return;
    }
    gw->draining = true;
    log_notice("gatewayd.stopping", "watchers=%zu", watch_hub_count(gw->hub));
    notify_stopping();
    watches_end_all(gw, true);
    loop_timer_start(gw->drain_timer, DRAIN_TIMEOUT_MS, 0);
    http_server_drain(gw->http, on_drained, gw);
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* The parent's sockets, or our own. */
static int listen_all(struct gatewayd *gw, struct err *err)
{
    const struct conf_list *urls = &gw->conf->listen_client_urls;
    struct conf_listeners *listeners = &gw->listeners;

    TRY(conf_listen_take(listeners, err));
    bool given = listeners->count > 0;
    for (size_t i = 0; !given && i < urls->count; i++) {
        TRY(conf_listen_bind(listeners, urls->items[i], "listen-client-urls", err));
    }
    for (size_t i = 0; i < listeners->count; i++) {
        struct conf_listener *listener = &listeners->items[i];
        int fd = listener->fd;
        if (listener->tls) {
            return err_set(err, -EOPNOTSUPP, "https client URLs are not served by this release");
        }
        listener->fd = -1; /* the server's from now on */
        TRY(http_server_listen(gw->http, fd, err));
    }
    return 0;
}

static char *join(const char *dir, const char *name)
{
    size_t bytes = strlen(dir) + strlen(name) + 2;
    char *path = xmalloc(bytes);
    (void)snprintf(path, bytes, "%s/%s", dir, name);
    return path;
}

static void init_ids(struct gatewayd *gw)
{
    uint8_t seed[16];

    do {
        randombytes_buf(&gw->instance, sizeof gw->instance);
    } while (gw->instance == 0);
    randombytes_buf(seed, sizeof seed);
    gw->hub = watch_hub_new(0, seed);
    gw->start_wall_ns = clock_wall_ns();
    clock_boot_id(gw->boot_id);
}

static int open_all(struct gatewayd *gw, struct err *err)
{
    struct http_config http = {
        .held_bytes_max = HELD_BYTES_MAX, .events = &frontend_events, .user = gw
    };

    TRY(answer_init(gw, err));
    TRY(counters_open(".", gw->instance, &gw->counters, err));
    if (!counters_is_kept(gw->counters)) {
        log_warning("gatewayd.counters.not_kept", "reason=\"no space\" action=count_in_memory");
    }
    gw->values = counters_values(gw->counters);
    gw->loop = loop_new();
    loop_on_signal(gw->loop, SIGTERM, on_stop_signal, gw);
    loop_on_signal(gw->loop, SIGINT, on_stop_signal, gw);
    loop_on_turn_end(
            gw->loop, on_turn_end, gw); /* before the server's, which writes what we answer */
    gw->tick_timer = loop_timer_new(gw->loop, on_tick, gw);
    gw->drain_timer = loop_timer_new(gw->loop, on_drain_timeout, gw);
    TRY(http_server_new(gw->loop, &http, &gw->http, err));
    TRY(ring_open(gw, err));
    TRY(subscription_open(gw, err));
    TRY(listen_all(gw, err));
    struct err status_err = { 0 };
    if (status_page_start(gw, &status_err) <
            0) { /* another gatewayd has it: clients are served all the same */
        log_warning_err(&status_err, "gatewayd.status.not_served", "action=go_on");
    }
    return 0;
}

int gatewayd_new(const struct conf *conf, struct gatewayd **ret_gatewayd, struct err *err)
{
    struct gatewayd *gw = xcalloc(1, sizeof *gw);

    raise_descriptor_limit();
    gw->conf = conf;
    gw->timeout_ms = 5000 + 2 * conf->election_timeout_ms;
    gw->view.state_dir = join(conf->data_dir, "member/state");
    view_take_note(gw);
    gw->calls = calls_new(0);
    gw->reads = reads_new();
    gw->jobs = jobs_new();
    init_ids(gw);
    int result = open_all(gw, err);
    if (result < 0) {
        (void)gatewayd_free(gw);
        return result;
    }
    *ret_gatewayd = gw;
    return 0;
}

int gatewayd_run(struct gatewayd *gw, struct err *err)
{
    (void)err;
    loop_timer_start(gw->tick_timer, 0, TICK_MS);
    loop_run(gw->loop);
    log_info("gatewayd.stopped", "drained=%d", gw->drained);
    return 0;
}

static void free_buffers(struct gatewayd *gw)
{
    arena_fini(&gw->arena);
    listing_fini(&gw->listing);
    buf_fini(&gw->head);
    buf_fini(&gw->body);
    buf_fini(&gw->event_body);
    buf_fini(&gw->cors);
    buf_fini(&gw->keys_head);
    buf_fini(&gw->json_head);
    buf_fini(&gw->raft.followers);
}

struct gatewayd *gatewayd_free(struct gatewayd *gw)
{
    if (gw == NULL) {
        return NULL;
    }
    status_page_stop(gw);
    watches_forget_body(gw);
    gw->http = http_server_free(gw->http); /* cancels what is still open */
    gw->subscription = subscription_close(gw->subscription);
    gw->jobs = jobs_free(gw->jobs);
    gw->reads = reads_free(gw->reads);
    gw->calls = calls_free(gw->calls);
    gw->ring = ring_close(gw->ring);
    view_close(gw);
    gw->hub = watch_hub_free(gw->hub);
    if (gw->loop != NULL) {
        gw->tick_timer = loop_timer_free(gw->tick_timer);
        gw->drain_timer = loop_timer_free(gw->drain_timer);
        gw->loop = loop_free(gw->loop);
    }
    gw->counters = counters_close(gw->counters);
    conf_listen_close(&gw->listeners, true);
    free(gw->view.state_dir);
    free_buffers(gw);
    free(gw);
    return NULL;
}
