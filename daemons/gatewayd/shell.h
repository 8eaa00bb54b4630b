/* shell.h: what the files of this folder share: the gatewayd itself and the requests under way. Nobody else includes it.
 *
 * A turn: on_request parses and either answers at once, or packs an op for raftd, or queues a read. At the turn's end
 * the ops go out in one message, then one read transaction serves all queued reads and watch registrations.
 * Batches from stored answer writes and feed the hub while they are received. */
#pragma once

#include "common/conf.h"
#include "common/conf_listen.h"
#include "common/counters.h"
#include "common/http/server.h"
#include "common/list.h"
#include "common/state/state.h"
#include "daemons/gatewayd/arena.h"
#include "daemons/gatewayd/route.h"
#include "daemons/gatewayd/v2/error.h"
#include "daemons/gatewayd/v2/form.h"
#include "daemons/gatewayd/v2/listing.h"
#include "daemons/gatewayd/watch/hub.h"
#include "proto/codec.h"

struct call;
struct calls;
struct event;
struct follower_state;
struct gatewayd;
struct listing_jobs;
struct loop;
struct loop_timer;
struct op;
struct outcome;
struct reads;
struct ring;
struct status_server;
struct subscription;

enum {
    LISTING_INLINE_BYTES_MAX = 4 * 1024 * 1024, /* above, a thread renders */
    HEALTH_TIMEOUT_MS = 1000,
    DRAIN_TIMEOUT_MS = 1500, /* quorate gives gatewayds two seconds in all */
    STREAM_UNSENT_BYTES_MAX = 64 * 1024 * 1024,
    HELD_BYTES_MAX = 256 * 1024 * 1024, /* for all connections, see common/http/server.h */
    JSON_BODY_BYTES_MAX = 10 * 1024 * 1024,
};

/* What request->user points at begins with this. */
enum holder_kind {
    HOLDER_CALL,
    HOLDER_WATCH,
};

/* Serves a queued read within the turn's transaction. Frees the call, or hands it on. */
typedef void (*call_serve_fn)(struct gatewayd *gw, struct call *call);

enum call_kind {
    CALL_READ,      /* waits for the turn's end, or for a read index */
    CALL_WRITE,     /* waits for an outcome */
    CALL_MEMBER,    /* a membership change: waits for a result or an outcome */
    CALL_HEALTH,    /* waits for a read index */
    CALL_DISCOVERY, /* waits for a registry's outcome */
    CALL_LISTING,   /* at a thread, or waiting for one */
};

/* A request that could not be answered where it was read. */
struct call {
    enum holder_kind holder;
    enum call_kind kind;
    struct http_request *http; /* NULL: the client went away */
    struct list link;          /* in one queue: reads, quorum reads, or free */
    struct list deadline;      /* among the pending, by deadline */
    uint64_t counter;          /* second half of the request id; 0: not pending */
    uint64_t deadline_at_ms;
    uint64_t start_ns;
    uint64_t start_ms;
    enum counters_method method;
    uint64_t op_kind;
    call_serve_fn serve;
    struct span key;   /* in the request's memory, the turn's arena, or key_copy */
    uint8_t *key_copy; /* malloc'ed, for calls that outlive the turn */
    uint64_t wait_index;
    uint64_t member_id;
    bool recursive;
    bool stream;
    bool no_value;
    bool counted;    /* in /metrics: a keys request */
    uint64_t flight; /* the link's session that carried its op; 0: none */
};

/* A registered watch: an idle long poll holds this, its share of the path tree, and its connection. */
struct watch {
    enum holder_kind holder;
    struct http_request *http;
    struct watcher watcher;
};

/* What raftd told last. */
struct raft_view {
    bool up; /* the link is there and has told something */
    uint64_t member_id;
    uint64_t cluster_id;
    uint64_t leader_id;
    uint64_t term;
    uint64_t commit_index;
    uint64_t role;
    uint64_t leader_since_wall_ns;
    uint64_t vote;
    uint64_t leader_changes;
    uint64_t sent_appends;
    uint64_t received_appends;
    uint64_t sent_messages_milli; /* thousandths a second; 0: no rate */
    uint64_t sent_bytes_milli;
    uint64_t received_messages_milli;
    uint64_t received_bytes_milli;
    uint64_t connected_since_ms; /* to the leader, or as leader to a quorum; 0: it is not */
    uint64_t proposals_pending;
    uint64_t proposals_failed;
    uint64_t wal_syncs;
    uint64_t wal_bytes;
    bool no_space;
    bool writes_wait;
    uint64_t last_leader_id;   /* also of a link that is gone */
    uint64_t new_leader_at_ms; /* when we learned of the leader; 0: the first one */
    struct buf followers; /* u32 length and encoded follower_state, repeated: ring_next_follower */
};

/* The state as seen by the turn's transaction. */
struct view {
    char *state_dir;             /* <data-dir>/member/state */
    uint64_t vouched_generation; /* the one that stored says may be read; 0: it has not said yet */
    uint64_t unreadable_generation; /* a life before this one met a bad page in it; 0: none did */
    struct state *state;
    struct state_read *read;
    struct state_meta meta; /* of the transaction that is, or was last, open */
    bool reading;
    uint64_t retry_at_ms; /* when to look for the state again */
};

struct gatewayd {
    const struct conf *conf;
    struct loop *loop;
    struct http_server *http;
    struct conf_listeners
            listeners; /* names of socket files that we made; the sockets are the server's */
    struct loop_timer *tick_timer;
    struct loop_timer *drain_timer;
    struct counters *counters;
    uint64_t *values; /* of the counters page */
    uint64_t instance;
    uint64_t start_wall_ns;
    char boot_id[40];
    uint64_t timeout_ms;
    uint64_t tick_count;
    size_t held_bytes_peak; /* of connections and ops, since memory was given back last */
    unsigned calm_ticks;    /* in a row, with little of it held */
    bool primary;           /* counts expiries for all gatewayds */
    bool draining;
    bool drained;
    bool ready;

    struct calls *calls;
    struct ring *ring;
    struct subscription *subscription;
    struct reads *reads;
    struct listing_jobs *jobs;
    struct watch_hub *hub;
    struct status_server *status;
    struct view view;
    struct raft_view raft;
    uint64_t applied_index; /* highest known: batches, beacons, transactions */
    uint64_t applied_term;

    /* scratch, reused from turn to turn */
    struct arena arena;
    struct arena_mark request_mark; /* where the request that is being read begins in it */
    struct buf head;
    struct buf body;
    struct buf event_body;          /* the event that is being told, rendered once ... */
    struct http_body *event_shared; /* ... or here, when it is large */
    uint64_t event_body_index;
    struct listing listing;
    uint64_t now_ns; /* of this turn; 0: not read yet */

    /* answers' fixed parts */
    struct buf cors; /* the lines for every origin; empty: none, or by origin */
    bool cors_by_origin;
    uint64_t cluster_id;
    struct buf keys_head; /* cors, Content-Type and cluster id */
    struct buf json_head; /* cors and Content-Type */
};

uint64_t gw_now_ns(struct gatewayd *gw);
void gw_become_ready(struct gatewayd *gw);

/* answer.c: headers and bodies. All of them end the request. */
void answer_set_cluster_id(struct gatewayd *gw, uint64_t cluster_id);
int answer_init(struct gatewayd *gw, struct err *err);
/* To be called while the request has its headers: later answers know which CORS lines it gets. */
void answer_note_origin(struct gatewayd *gw, struct http_request *request);
/* Begins gw->head with the CORS lines that the request gets. */
void answer_begin(struct gatewayd *gw, const struct http_request *request);
void answer_text(
        struct gatewayd *gw, struct http_request *request, unsigned status, const char *body);
void answer_not_allowed(
        struct gatewayd *gw, struct http_request *request, const char *allow, bool cluster_id);
void answer_json(struct gatewayd *gw, struct http_request *request, unsigned status,
        bool cluster_id, struct span body);
void answer_message(struct gatewayd *gw, struct http_request *request, unsigned status,
        bool cluster_id, const char *text);
void answer_no_content(struct gatewayd *gw, struct http_request *request, bool cluster_id);
void answer_plain(struct gatewayd *gw, struct http_request *request, struct span body);
/* The head of a /v2/keys success or watch, in gw->head. */
struct span answer_keys_head(struct gatewayd *gw, const struct http_request *request,
        uint64_t etcd_index, uint64_t raft_index, uint64_t term);
void answer_keys_error(
        struct gatewayd *gw, struct http_request *request, const struct api_error *error);
void answer_redirect(struct gatewayd *gw, struct http_request *request, struct span clean);
void answer_misdirected(struct gatewayd *gw, struct http_request *request, struct span host);

/* calls.c: requests that wait. */
struct calls *calls_new(size_t pending_count_max); /* 0: a million */
struct calls *calls_free(struct calls *calls);
/* A fresh call for the request, which will find it as its `user`. */
struct call *call_new(struct gatewayd *gw, struct http_request *request, enum call_kind kind);
void call_free(struct gatewayd *gw, struct call *call); /* from whatever queue it is in */
void call_own_key(struct call *call); /* copies the key if it lies in the turn's arena */
/* The call needs its request's bytes no more: a large request's are given back. */
void call_release_request(struct call *call);
/* Gives the call a counter and a deadline. False: too many are pending; it has been refused, and is gone. */
bool call_set_pending(struct gatewayd *gw, struct call *call, uint64_t timeout_ms);
struct call *call_find(struct gatewayd *gw, uint64_t counter);
bool calls_are_pending(const struct calls *calls);
size_t calls_pending_count(const struct calls *calls);
/* Answers those whose deadline has passed; with `all`, everybody. */
void calls_expire(struct gatewayd *gw, uint64_t now_ms, bool all);
void call_fail(struct gatewayd *gw, struct call *call,
        const char *cause); /* 500/300 or what fits; frees the call */
void call_count_success(struct gatewayd *gw, const struct call *call);
void call_count_failure(struct gatewayd *gw, const struct call *call, unsigned status);
void call_count_write(struct gatewayd *gw, const struct call *call, bool success);

/* frontend.c: from the HTTP request to what serves it. */
extern const struct http_events frontend_events;
/* The answer about to be given does so without the request's body. */
void frontend_leave_body(struct http_request *request);

/* reads.c: what the turn's transaction serves. */
struct reads *reads_new(void);
struct reads *reads_free(struct reads *reads);
void reads_add(struct gatewayd *gw, struct call *call);
void reads_add_quorum(struct gatewayd *gw, struct call *call);
/* The call, which is in no queue, is served when the connections hold less. */
void reads_put_off(struct gatewayd *gw, struct call *call);
void reads_on_granted(struct gatewayd *gw, uint64_t counter, uint64_t index);
void reads_on_raftd_down(struct gatewayd *gw);
void reads_turn_end(struct gatewayd *gw);
bool reads_is_deep(struct span key); /* too deep to be looked up within a turn */
void reads_serve_key(struct gatewayd *gw, struct call *call);
void reads_serve_watch(struct gatewayd *gw, struct call *call);

/* view.c: the state. */
int view_begin(struct gatewayd *gw); /* <0: there is no state now */
void view_end(struct gatewayd *gw);
void view_reopen(struct gatewayd *gw); /* another generation */
/* At the start, in the run directory: whether the life before ended on a page that cannot be read. */
void view_take_note(struct gatewayd *gw);
/* stored says that this one may be read. */
void view_vouch(struct gatewayd *gw, uint64_t generation);
void view_close(struct gatewayd *gw);
uint64_t view_time_ns(struct gatewayd *gw); /* cluster time now, of the open transaction */

/* jobs.c: large listings, on threads. */
struct listing_jobs *jobs_new(void);
struct listing_jobs *jobs_free(struct listing_jobs *jobs); /* waits for those that run */
void jobs_add(struct gatewayd *gw, struct call *call);
void jobs_start_waiting(struct gatewayd *gw);
bool jobs_are_busy(const struct listing_jobs *jobs);
/* The state is exchanged: true when jobs still read it, the last of which then closes it. */
bool jobs_retire(struct gatewayd *gw, struct state *state);

/* ring.c: the link to raftd. */
int ring_open(struct gatewayd *gw, struct err *err);
struct ring *ring_close(struct ring *ring);
/* Packs the op; the call becomes pending. */
void ring_add_op(struct gatewayd *gw, struct call *call, struct op *op);
void ring_change_member(struct gatewayd *gw, struct call *call, struct op *op);
bool ring_ask_read_index(struct gatewayd *gw, uint64_t counter); /* false: not now */
void ring_forget(struct gatewayd *gw, struct call *call); /* has its outcome, or waits no more */
void ring_turn_end(struct gatewayd *gw);
struct ring_stats {
    size_t gathered_ops; /* not sent yet */
    size_t gathered_bytes;
    size_t in_flight; /* sent on the link that is up, without outcome */
    uint64_t links;   /* that there have been */
};
void ring_get_stats(const struct gatewayd *gw, struct ring_stats *ret_stats);
/* What the leader last said of its followers, one after another; *at is 0 at first. The spans live as long as the scratch and until
 * the loop goes on. False: that was all. */
bool ring_next_follower(const struct gatewayd *gw, size_t *at, struct codec_scratch *scratch,
        struct follower_state *ret_follower);
size_t ring_bytes(const struct gatewayd *gw); /* held for ops that raftd has not taken */
/* Gives back the memory of ops that nobody waits for any more. Looks at all that are not sent. */
void ring_drop_unwanted(struct gatewayd *gw);

/* subscription.c: the link to stored. */
int subscription_open(struct gatewayd *gw, struct err *err);
bool subscription_is_up(const struct subscription *subscription);
/* Whether stored has said something within this time; one that hangs keeps its link. */
bool subscription_is_heard(const struct subscription *subscription, uint64_t within_ms);
struct subscription *subscription_close(struct subscription *subscription);
/* Tells the hub what the history table has behind it, within an open transaction: a slice now, the rest in the turns
 * that follow. Where it reaches not far enough back, all watches are ended. */
void subscription_catch_up(struct gatewayd *gw);
void subscription_go_on(struct gatewayd *gw); /* with what is left of a gap */

/* watches.c */
void watches_register(struct gatewayd *gw, struct call *call, uint64_t next_index);
void watches_deliver(void *user, struct watcher *watcher, const struct event *event);
void watches_end_all(struct gatewayd *gw, bool abort); /* abort: cut, else an empty body */
void watches_on_cancel(struct gatewayd *gw, struct watch *watch);
/* The event's text, rendered once for all who are told. It lies in gw->event_shared if that is not NULL. */
struct span watches_event_body(struct gatewayd *gw, const struct event *event);
void watches_forget_body(struct gatewayd *gw);

/* status_page.c */
int status_page_start(struct gatewayd *gw, struct err *err);
void status_page_stop(struct gatewayd *gw);

/* endpoints */
void members_on_request(struct gatewayd *gw, struct http_request *request, struct span path);
void members_on_result(struct gatewayd *gw, struct call *call, uint64_t status, struct span text);
void members_on_outcome(struct gatewayd *gw, struct call *call, const struct outcome *outcome);
void members_append(struct buf *out, struct span encoded_member, struct codec_scratch *scratch);
void members_serve_machines(struct gatewayd *gw, struct call *call);
void stats_serve_store(struct gatewayd *gw, struct call *call);
const char *stats_role_name(uint64_t role); /* as etcd spells it */
void stats_serve_self(struct gatewayd *gw, struct call *call);
void stats_on_leader(struct gatewayd *gw, struct http_request *request);
void metrics_serve(struct gatewayd *gw, struct call *call);
void admin_on_health(struct gatewayd *gw, struct http_request *request);
void admin_answer_health(struct gatewayd *gw, struct call *call, bool healthy);
void admin_serve_version(struct gatewayd *gw, struct call *call);
void admin_on_debug_vars(struct gatewayd *gw, struct http_request *request);
void admin_on_log_level(struct gatewayd *gw, struct http_request *request);
void admin_on_v3(struct gatewayd *gw, struct http_request *request);
void auth_on_request(
        struct gatewayd *gw, struct http_request *request, enum route route, struct span path);
