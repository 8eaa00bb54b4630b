/* fold.c: what gatewayds that are gone had counted goes into the state (common/counters.h), once a second and at the end, when
 * they have been stopped. So it outlives the run folder, and snapshots carry it. */
#include <errno.h>

#include "common/counters.h"
#include "common/log.h"
#include "daemons/stored/stored_impl.h"

static int read_record(struct replica *replica, struct counters_folded *ret_record, struct err *err)
{
    struct state_writer *writer = replica_writer(replica);
    struct span bytes = SPAN_NONE;

    TRY(state_writer_begin(writer, err));
    int result = state_write_record_find(writer, "counters", &bytes);
    counters_decode(result == 0 ? bytes : SPAN_NONE, ret_record);
    state_writer_abort(writer);
    return result == -ENOENT ? 0 : result;
}

static int fold(struct stored *stored, struct replica *replica, struct err *err)
{
    CLEANUP(buf_fini) struct buf bytes = BUF_INIT;
    struct counters_folded record;

    TRY(read_record(replica, &record, err));
    if (!counters_fold(stored->config.run_dir, &record)) {
        return 0;
    }
    counters_encode(&record, &bytes);
    return generations_put_counters(stored->generations, buf_span(&bytes), err);
}

void fold_counters(struct stored *stored)
{
    struct replica *replica = generations_replica(stored->generations);
    struct err err = { 0 };

    /* A compacted copy that is under way takes over later, with the counters that it began with. */
    bool is_copied = stored->compaction.recording || stored->compaction.replica != NULL;
    if (replica == NULL || is_copied || stored->exit_status != 0 ||
            !counters_has_dead(stored->config.run_dir)) {
        return;
    }
    int result = fold(stored, replica, &err);
    if (result == -ENOSPC || result == -EDQUOT) {
        log_debug("stored.counters.no_space", "action=keep_the_pages");
    } else if (result < 0) {
        stored_fail(stored, CONF_EXIT_STORAGE, &err, "stored.state.failed");
    }
}
