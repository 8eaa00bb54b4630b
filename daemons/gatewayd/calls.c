/* calls.c: the requests that wait, found by the counter half of their request id.
 *
 * A counter is a running number with the call's slot in its low bits, so finding a call is one look into an
 * array. Calls of one timeout form a list in the order of their deadlines. Memory is kept for the next. */
#include "daemons/gatewayd/shell.h"

#include "daemons/gatewayd/v2/error.h"
#include "proto/op.h"
#include "proto/propose.h"

enum {
    SLOT_BITS = 20,
    SLOT_MASK = (1 << SLOT_BITS) - 1,
    PENDING_COUNT_MAX = SLOT_MASK + 1,
    CALLS_KEPT = 4096,
    RELEASE_ABOVE_BYTES = 16 * 1024, /* of a request: a smaller one may stay until it is answered */
};

struct calls {
    struct call **slots; /* NULL: free */
    uint32_t *free_slots;
    size_t free_count;
    size_t slot_count;
    size_t slot_count_max;
    uint64_t sequence;
    struct list idle; /* by `link` */
    size_t idle_count;
    struct list pending;        /* by `deadline`: those of the ordinary timeout ... */
    struct list pending_health; /* ... and of the short one */
};

struct calls *calls_new(size_t pending_count_max)
{
    struct calls *calls = xcalloc(1, sizeof *calls);
    INVARIANT_LE(pending_count_max, PENDING_COUNT_MAX);
    calls->slot_count_max = pending_count_max == 0 ? PENDING_COUNT_MAX : pending_count_max;
    list_init(&calls->idle);
    list_init(&calls->pending);
    list_init(&calls->pending_health);
    return calls;
}

struct calls *calls_free(struct calls *calls)
{
    if (calls != NULL) {
        for (size_t i = 0; i < calls->slot_count; i++) {
            if (calls->slots[i] != NULL) {
                free(calls->slots[i]->key_copy);
                free(calls->slots[i]);
            }
        }
        LIST_FOREACH (call, &calls->idle, struct call, link) {
            list_remove(&call->link);
            free(call);
        }
        free((void *)calls->slots);
        free(calls->free_slots);
        free(calls);
    }
    return NULL;
}

struct call *call_new(struct gatewayd *gw, struct http_request *request, enum call_kind kind)
{
    struct calls *calls = gw->calls;
    struct call *call;

    if (list_is_empty(&calls->idle)) {
        call = xmalloc(sizeof *call);
    } else {
        call = CONTAINER_OF(calls->idle.next, struct call, link);
        list_remove(&call->link);
        calls->idle_count--;
    }
    *call = (struct call){
        .holder = HOLDER_CALL, .kind = kind, .http = request, .start_ns = gw_now_ns(gw)
    };
    list_init(&call->link);
    list_init(&call->deadline);
    request->user = call;
    return call;
}

static void release_slot(struct calls *calls, struct call *call)
{
    if (call->counter != 0) {
        uint32_t slot = (uint32_t)(call->counter & SLOT_MASK);
        calls->slots[slot] = NULL;
        calls->free_slots[calls->free_count++] = slot;
        call->counter = 0;
    }
}

void call_free(struct gatewayd *gw, struct call *call)
{
    struct calls *calls = gw->calls;

    ring_forget(gw, call);
    list_remove(&call->link);
    list_remove(&call->deadline);
    release_slot(calls, call);
    free(call->key_copy);
    if (calls->idle_count >= CALLS_KEPT) {
        free(call);
        return;
    }
    list_append(&calls->idle, &call->link);
    calls->idle_count++;
}

void call_own_key(struct call *call)
{
    if (call->key_copy == NULL) {
        call->key_copy = xmalloc(call->key.bytes);
        memcpy(call->key_copy, call->key.data, call->key.bytes);
        call->key.data = call->key_copy;
    }
}

void call_release_request(struct call *call)
{
    if (call->http != NULL && http_request_bytes(call->http) > RELEASE_ABOVE_BYTES) {
        http_request_release(call->http);
    }
}

static bool try_take_slot(struct calls *calls, uint32_t *ret_slot)
{
    if (calls->free_count == 0) {
        size_t count = MIN(MAX(calls->slot_count * 2, (size_t)256), calls->slot_count_max);
        if (count == calls->slot_count) {
            return false; /* connections that were reset left calls behind, faster than they time out */
        }
        calls->slots = xrealloc((void *)calls->slots, count * sizeof(struct call *));
        calls->free_slots = xrealloc(calls->free_slots, count * sizeof calls->free_slots[0]);
        for (size_t slot = count; slot > calls->slot_count; slot--) {
            calls->slots[slot - 1] = NULL;
            calls->free_slots[calls->free_count++] = (uint32_t)(slot - 1);
        }
        calls->slot_count = count;
    }
    *ret_slot = calls->free_slots[--calls->free_count];
    return true;
}

bool call_set_pending(struct gatewayd *gw, struct call *call, uint64_t timeout_ms)
{
    struct calls *calls = gw->calls;

    if (call->counter == 0) {
        uint32_t slot;
        if (!try_take_slot(calls, &slot)) {
            call_fail(gw, call, REFUSAL_TOO_MANY_TEXT);
            return false;
        }
        call->counter = ++calls->sequence << SLOT_BITS | slot;
        calls->slots[slot] = call;
    }
    call->start_ms = gw_now_ns(gw) / 1000000;
    call->deadline_at_ms = call->start_ms + timeout_ms;
    list_remove(&call->deadline);
    list_append(timeout_ms < gw->timeout_ms ? &calls->pending_health : &calls->pending,
            &call->deadline);
    return true;
}

struct call *call_find(struct gatewayd *gw, uint64_t counter)
{
    uint64_t slot = counter & SLOT_MASK;
    struct call *call = slot < gw->calls->slot_count ? gw->calls->slots[slot] : NULL;
    return call != NULL && call->counter == counter ? call : NULL;
}

bool calls_are_pending(const struct calls *calls)
{
    return !list_is_empty(&calls->pending) || !list_is_empty(&calls->pending_health);
}

size_t calls_pending_count(const struct calls *calls)
{
    return calls->slot_count - calls->free_count;
}

/* Why a write or quorum read was not answered in time. */
static const char *timeout_cause(const struct gatewayd *gw, const struct call *call)
{
    uint64_t elected_at_ms = gw->raft.new_leader_at_ms;
    uint64_t lost_at_ms = elected_at_ms - MIN(elected_at_ms, 2 * gw->conf->election_timeout_ms);

    if (elected_at_ms != 0 && call->start_ms > lost_at_ms && call->start_ms < elected_at_ms) {
        return "etcdserver: request timed out, possibly due to previous leader failure";
    }
    if (gw->raft.leader_id != 0 &&
            (gw->raft.connected_since_ms == 0 || gw->raft.connected_since_ms >= call->start_ms)) {
        return "etcdserver: request timed out, possibly due to connection lost";
    }
    return "etcdserver: request timed out";
}

static void expire_list(struct gatewayd *gw, struct list *pending, uint64_t now_ms, bool all)
{
    while (!list_is_empty(pending)) {
        struct call *call = CONTAINER_OF(pending->next, struct call, deadline);
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): call_fail takes the freed one out of the list. */
        if (!all && call->deadline_at_ms > now_ms) {
            return;
        }
        call_fail(gw, call, all ? "etcdserver: server stopped" : timeout_cause(gw, call));
    }
}

void calls_expire(struct gatewayd *gw, uint64_t now_ms, bool all)
{
    expire_list(gw, &gw->calls->pending_health, now_ms, all);
    expire_list(gw, &gw->calls->pending, now_ms, all);
}

void call_fail(struct gatewayd *gw, struct call *call, const char *cause)
{
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): a freed call is in no list. */
    struct http_request *http = call->http;

    if (call->kind == CALL_HEALTH) {
        admin_answer_health(gw, call, false);
        return;
    }
    bool keys = call->kind == CALL_WRITE || call->serve == reads_serve_key ||
                call->serve == reads_serve_watch;
    if (http != NULL && !keys) {
        answer_message(gw, http, 500, true, "Internal Server Error");
    } else if (http != NULL) {
        struct api_error error = { .code = V2_RAFT_INTERNAL, .cause = span_str(cause) };
        answer_keys_error(gw, http, &error);
    }
    call_count_failure(gw, call, 500);
    call_free(gw, call);
}

void call_count_success(struct gatewayd *gw, const struct call *call)
{
    if (call->counted) {
        uint64_t now_ns = gw_now_ns(gw);
        counters_add_duration(
                gw->values, call->method, now_ns > call->start_ns ? now_ns - call->start_ns : 0);
    }
}

void call_count_failure(struct gatewayd *gw, const struct call *call, unsigned status)
{
    if (call->counted) {
        gw->values[COUNTER_HTTP_FAILED + (unsigned)call->method * COUNTERS_CODE_COUNT +
                   counters_code_slot(status)]++;
    }
}

void call_count_write(struct gatewayd *gw, const struct call *call, bool success)
{
    static const enum counter successes[] = {
        [OP_SET] = COUNTER_SETS_SUCCESS,
        [OP_CREATE] = COUNTER_CREATE_SUCCESS,
        [OP_CREATE_IN_ORDER] = COUNTER_CREATE_SUCCESS,
        [OP_UPDATE] = COUNTER_UPDATE_SUCCESS,
        [OP_COMPARE_AND_SWAP] = COUNTER_COMPARE_AND_SWAP_SUCCESS,
        [OP_DELETE] = COUNTER_DELETE_SUCCESS,
        [OP_COMPARE_AND_DELETE] = COUNTER_COMPARE_AND_DELETE_SUCCESS,
    };

    INVARIANT(call->op_kind >= OP_SET && call->op_kind < ARRAY_COUNT(successes));
    gw->values[(unsigned)successes[call->op_kind] +
               (success ? 0 : 1)]++; /* failures stand next to them */
}
