/* reads.c: everything that one read transaction at the turn's end serves: plain and quorum gets, watch registrations, and
 * the endpoints that show the state.
 *
 * Quorum reads, and what else must know all that was acknowledged before it came, go in rounds: one question to raftd covers all that gathered; the next is asked when the answer is here.
 * A round is served once the applied index has reached what raftd granted.
 *
 * While the connections hold too much (common/http/budget.c), large answers are put off: they wait for others to be taken,
 * until their time is over. */
#include "daemons/gatewayd/shell.h"

#include <errno.h>

#include "common/loop.h"

enum {
    TRANSACTION_BUDGET_NS = 10 * 1000 * 1000, /* then a fresh one is begun */
    ROUND_RETRY_MS = 500,
    SMALL_ANSWER_BYTES = 64 * 1024, /* never put off */
    SEGMENTS_INLINE_MAX = 4096,     /* of a key; above, a thread looks it up */
};

struct reads {
    struct list queue;   /* to be served at the turn's end */
    struct list waiting; /* quorum reads that no question covers yet */
    struct list asked;   /* covered by the question that is open */
    struct list granted; /* until the applied index reaches granted_index */
    struct list put_off; /* large answers, until there is memory for them */
    uint64_t round;      /* number of the open question; 0: none */
    uint64_t round_count;
    uint64_t asked_at_ms;
    uint64_t granted_index;
};

struct reads *reads_new(void)
{
    struct reads *reads = xcalloc(1, sizeof *reads);
    list_init(&reads->queue);
    list_init(&reads->waiting);
    list_init(&reads->asked);
    list_init(&reads->granted);
    list_init(&reads->put_off);
    return reads;
}

static void free_list(struct list *queue)
{
    LIST_FOREACH (call, queue, struct call, link) {
        if (call->counter == 0) { /* the others are in the table of the pending, which frees them */
            free(call->key_copy);
            free(call);
        }
    }
}

struct reads *reads_free(struct reads *reads)
{
    if (reads != NULL) {
        free_list(&reads->queue);
        free(reads);
    }
    return NULL;
}

static void move_all(struct list *from, struct list *to)
{
    LIST_FOREACH (call, from, struct call, link) {
        list_remove(&call->link);
        list_append(to, &call->link);
    }
}

void reads_add(struct gatewayd *gw, struct call *call)
{
    list_append(&gw->reads->queue, &call->link);
}

/* The call outlives the turn. False: it does not. */
static bool keep(struct gatewayd *gw, struct call *call)
{
    if (call->counter != 0) {
        return true;
    }
    if (call->key.bytes > 0) {
        call_own_key(call);
        call_release_request(call);
    }
    return call_set_pending(gw, call, gw->timeout_ms);
}

void reads_add_quorum(struct gatewayd *gw, struct call *call)
{
    if (call->kind == CALL_READ && !keep(gw, call)) {
        return;
    }
    list_append(&gw->reads->waiting, &call->link);
}

void reads_on_granted(struct gatewayd *gw, uint64_t counter, uint64_t index)
{
    struct reads *reads = gw->reads;

    if (counter != reads->round) {
        return; /* of a question that was asked again */
    }
    reads->round = 0;
    move_all(&reads->asked, &reads->granted);
    reads->granted_index = MAX(reads->granted_index, index);
}

/* Nothing was changed by asking, so the question may be asked anew. */
static void ask_again(struct reads *reads)
{
    reads->round = 0;
    move_all(&reads->asked, &reads->waiting);
}

void reads_on_raftd_down(struct gatewayd *gw)
{
    ask_again(gw->reads);
}

static void turn_rounds(struct gatewayd *gw)
{
    struct reads *reads = gw->reads;
    uint64_t now_ms = loop_now_ms(gw->loop);

    if (reads->round != 0 && now_ms - reads->asked_at_ms >= ROUND_RETRY_MS) {
        ask_again(reads);
    }
    if (reads->round == 0 && !list_is_empty(&reads->waiting) &&
            ring_ask_read_index(gw, reads->round_count + 1)) {
        reads->round = ++reads->round_count;
        reads->asked_at_ms = now_ms;
        move_all(&reads->waiting, &reads->asked);
    }
    if (!list_is_empty(&reads->granted) && gw->applied_index >= reads->granted_index) {
        move_all(&reads->granted, &reads->queue);
    }
}

/* There is no state to read from (a first start, a generation being exchanged or rebuilt): the calls wait for it. */
static void postpone(struct gatewayd *gw)
{
    LIST_FOREACH (call, &gw->reads->queue, struct call, link) {
        (void)keep(gw, call);
    }
}

void reads_put_off(struct gatewayd *gw, struct call *call)
{
    if (keep(gw, call)) {
        list_append(&gw->reads->put_off, &call->link);
    }
}

/* As view_begin, but a state that is being rebuilt, where what was acknowledged may be missing, is none. */
static int begin(struct gatewayd *gw)
{
    TRY(view_begin(gw));
    if (gw->view.meta.applied_index < gw->view.meta.complete_at) {
        view_end(gw);
        return -EAGAIN;
    }
    return 0;
}

void reads_turn_end(struct gatewayd *gw)
{
    struct reads *reads = gw->reads;

    turn_rounds(gw);
    jobs_start_waiting(gw);
    if (!http_server_is_full(gw->http)) {
        move_all(&reads->put_off, &reads->queue);
    }
    while (!list_is_empty(&reads->queue)) {
        if (begin(gw) < 0) {
            postpone(gw);
            return;
        }
        uint64_t begin_ns = gw_now_ns(gw);
        unsigned served = 0;
        while (!list_is_empty(&reads->queue)) {
            struct call *call = CONTAINER_OF(reads->queue.next, struct call, link);
            list_remove(&call->link);
            buf_clear(&gw->body);
            call->serve(gw, call);
            if (gw->body.bytes > 16384 ||
                    ++served % 32 == 0) { /* the clock is not read each time */
                gw->now_ns = 0;
                if (gw_now_ns(gw) - begin_ns > TRANSACTION_BUDGET_NS) {
                    break;
                }
            }
        }
        view_end(gw);
    }
    buf_clear(&gw->body);
    buf_trim(&gw->body, 256 << 10);
}

static void answer_missing(struct gatewayd *gw, struct call *call, int code, size_t bad_bytes)
{
    struct api_error error = { .code = code == -ENOTDIR ? 104 : 100,
        .index = gw->view.meta.etcd_index,
        .cause = span_of(call->key.data, bad_bytes) };

    answer_keys_error(gw, call->http, &error);
    gw->values[COUNTER_GETS_FAIL]++;
    call_count_failure(gw, call, api_error_status(error.code));
    call_free(gw, call);
}

/* A key may have 500,000 segments, each of which is looked up. */
bool reads_is_deep(struct span key)
{
    size_t segments = 0;

    if (key.bytes < 2 * (size_t)SEGMENTS_INLINE_MAX) {
        return false;
    }
    for (size_t i = 0; i < key.bytes; i++) {
        segments += key.data[i] == '/' ? 1 : 0;
    }
    return segments > SEGMENTS_INLINE_MAX;
}

void reads_serve_key(struct gatewayd *gw, struct call *call)
{
    if (reads_is_deep(call->key)) {
        jobs_add(gw, call);
        return;
    }
    const struct state_meta *meta = &gw->view.meta;
    bool is_full = http_server_is_full(gw->http);
    struct listing_request request = { .key = call->key,
        .recursive = call->recursive,
        .now_ns = view_time_ns(gw),
        .bytes_max = is_full ? SMALL_ANSWER_BYTES : LISTING_INLINE_BYTES_MAX };
    size_t bad_bytes = 0;

    int code = listing_render(&gw->listing, gw->view.read, &request, &gw->body, &bad_bytes);
    if (is_full && (code == -EFBIG || gw->body.bytes > SMALL_ANSWER_BYTES)) {
        buf_clear(&gw->body);
        reads_put_off(gw, call);
        return;
    }
    if (code == -EFBIG) {
        jobs_add(gw, call);
        return;
    }
    if (code < 0) {
        answer_missing(gw, call, code, bad_bytes);
        return;
    }
    struct span head = answer_keys_head(
            gw, call->http, meta->etcd_index, meta->applied_index, meta->applied_term);
    http_respond_json(call->http, 200, head, buf_span(&gw->body));
    gw->values[COUNTER_GETS_SUCCESS]++;
    if (call->recursive) {
        gw->values[COUNTER_READS_RECURSIVE]++;
    }
    call_count_success(gw, call);
    call_free(gw, call);
}
