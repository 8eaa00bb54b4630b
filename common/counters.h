/* counters.h: what clients see counted (/v2/stats/store, /metrics), kept so that no restart loses it.
 *
 * Each gatewayd counts in a page of its own, the mapped file counters-<id> in the run dir, under an flock for as
 * long as it lives. A new gatewayd takes over the page of a dead one. The sum over all pages, dead ones
 * too, and over what stored has folded into the state is what any gatewayd answers with.
 * Counting is a plain add by one thread; readers of other processes see each u64 whole. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

enum counters_method {
    COUNTERS_GET,
    COUNTERS_QGET,
    COUNTERS_PUT,
    COUNTERS_POST,
    COUNTERS_DELETE,
    COUNTERS_HEAD,
    COUNTERS_METHOD_COUNT,
};

enum {
    COUNTERS_BUCKET_COUNT = 14, /* 0.5 ms * 2^k for k < 13, and the rest */
    COUNTERS_CODE_COUNT = 8,    /* see counters_code_slot */
};

/* Numbers are kept in the state: forever, new ones only at the end. */
enum counter {
    COUNTER_GETS_SUCCESS, /* the first sixteen in the order of /v2/stats/store */
    COUNTER_GETS_FAIL,
    COUNTER_SETS_SUCCESS,
    COUNTER_SETS_FAIL,
    COUNTER_DELETE_SUCCESS,
    COUNTER_DELETE_FAIL,
    COUNTER_UPDATE_SUCCESS,
    COUNTER_UPDATE_FAIL,
    COUNTER_CREATE_SUCCESS,
    COUNTER_CREATE_FAIL,
    COUNTER_COMPARE_AND_SWAP_SUCCESS,
    COUNTER_COMPARE_AND_SWAP_FAIL,
    COUNTER_COMPARE_AND_DELETE_SUCCESS,
    COUNTER_COMPARE_AND_DELETE_FAIL,
    COUNTER_EXPIRE_COUNT,
    COUNTER_WATCHERS, /* a gauge: of live pages only, never folded */
    COUNTER_WATCH_REQUESTS,
    COUNTER_READS_RECURSIVE,
    COUNTER_HEALTH_SUCCESS,
    COUNTER_HEALTH_FAIL,
    COUNTER_HTTP_RECEIVED = 32,
    COUNTER_HTTP_FAILED = COUNTER_HTTP_RECEIVED + COUNTERS_METHOD_COUNT,
    COUNTER_HTTP_BUCKETS = COUNTER_HTTP_FAILED + COUNTERS_METHOD_COUNT * COUNTERS_CODE_COUNT,
    COUNTER_HTTP_SUM_NS = COUNTER_HTTP_BUCKETS + COUNTERS_METHOD_COUNT * COUNTERS_BUCKET_COUNT,
    COUNTER_COUNT = COUNTER_HTTP_SUM_NS + COUNTERS_METHOD_COUNT,
};

struct counters;

/* Takes over a dead page in `dir` or makes one named by `id`. */
int counters_open(const char *dir, uint64_t id, struct counters **ret_counters, struct err *err);
struct counters *counters_close(
        struct counters *counters); /* the page stays; always NULL, accepts NULL */

/* The page's COUNTER_COUNT values, to count in. */
uint64_t *counters_values(struct counters *counters);

/* True for one holder in `dir` at a time: who counts what every gatewayd sees (expiries). Cheap to ask each second. */
bool counters_try_primary(struct counters *counters);

/* Sums all pages in `dir` and the folded values (an array of u64 as counters_fold_dead leaves it, may be empty). */
void counters_sum(const char *dir, struct span folded, uint64_t ret_values[COUNTER_COUNT]);

/* For stored: adds the pages of dead holders to `values` and locks them until counters_forget. Returns how many, or <0.
 * After the values are committed, call counters_forget: it removes the pages (`commit`) or only unlocks them. */
struct counters_dead;
int counters_fold_dead(const char *dir, uint64_t values[COUNTER_COUNT],
        struct counters_dead **ret_dead, struct err *err);
void counters_forget(struct counters_dead *take_dead, bool commit);

/* Slot of an HTTP status in the failed counters; the status of a slot. */
unsigned counters_code_slot(unsigned status);
unsigned counters_slot_code(unsigned slot);

/* Adds one served request to the histogram of its method. */
void counters_add_duration(uint64_t *values, enum counters_method method, uint64_t duration_ns);
