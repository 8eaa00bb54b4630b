/* counters.h: what clients see counted (/v2/stats/store, /metrics), kept so that no restart loses it.
 *
 * Each gatewayd counts in a page of its own, the mapped file counters-<id> in the run dir, under an flock for as
 * long as it lives. stored adds the pages of the dead to a record in the state (counters_fold), which snapshots carry on, and
 * then removes them. The sum over all pages and that record is what any gatewayd answers with.
 *
 * Nothing is counted twice or left out wherever a process is killed: the record names the pages that it has in it, a page
 * is removed only in a later round than that, and who sums passes over what the record names.
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

/* Makes the page named by `id`, which nobody ever had: a random number. Where the disk has no room for it, it is in
 * memory: what is counted there no sum has, and it goes with the process. */
int counters_open(const char *dir, uint64_t id, struct counters **ret_counters, struct err *err);
struct counters *counters_close(
        struct counters *counters); /* the page stays; always NULL, accepts NULL */

bool counters_is_kept(const struct counters *counters); /* in a file */

/* The page's COUNTER_COUNT values, to count in. */
uint64_t *counters_values(struct counters *counters);

/* True for one holder in `dir` at a time: who counts what every gatewayd sees (expiries). Cheap to ask each second. */
bool counters_try_primary(struct counters *counters);

/* Sums all pages in `dir` and what the state's record says (see counters_encode; may be empty). */
void counters_sum(const char *dir, struct span record, uint64_t ret_values[COUNTER_COUNT]);

/* ---- For stored ---- */

enum {
    COUNTERS_FOLDED_MAX = 64 /* pages a round; more wait for the next */
};

/* The record in the state: sums, and the pages that are in them and may still be there. */
struct counters_folded {
    uint64_t values[COUNTER_COUNT];
    uint64_t ids[COUNTERS_FOLDED_MAX];
    size_t id_count;
};

/* Whether there is anything to do: some page's holder is dead. */
bool counters_has_dead(const char *dir);
/* One round, about a second after the one before, so that no read transaction is older: removes dead pages that the record
 * names, as it stands in the state now, and adds the others. True: the record must be committed before the next round. If that
 * fails, or the process dies first, nothing has happened. */
bool counters_fold(const char *dir, struct counters_folded *record);

/* The record's bytes. What is not one, or of a release that had other counters, counts for what of it can be read. */
void counters_encode(const struct counters_folded *record, struct buf *out);
void counters_decode(struct span bytes, struct counters_folded *ret_record);

/* Slot of an HTTP status in the failed counters; the status of a slot. */
unsigned counters_code_slot(unsigned status);
unsigned counters_slot_code(unsigned slot);

/* Adds one served request to the histogram of its method. */
void counters_add_duration(uint64_t *values, enum counters_method method, uint64_t duration_ns);
