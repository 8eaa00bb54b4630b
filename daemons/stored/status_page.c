/* status_page.c: what stored says of itself, for quoratectl, metrics and tests. */
#include "common/strangers.h"
#include "daemons/stored/stored_impl.h"
#include "proto/status_server.h"

static void fill_state(struct status_page *page, const struct stored *stored)
{
    struct replica *replica = generations_replica(stored->generations);

    status_page_add(page, "stored_generation", generations_number(stored->generations));
    if (replica != NULL) {
        const struct schema_meta *meta = replica_meta(replica);
        status_page_add(page, "stored_applied_index", meta->applied_index);
        status_page_add(page, "stored_applied_term", meta->applied_term);
        status_page_add(page, "stored_etcd_index", meta->etcd_index);
        status_page_add(page, "stored_cluster_time_ns", meta->time_ns);
        status_page_add(page, "stored_history_events", meta->event_count);
        status_page_add(page, "stored_history_bytes", meta->event_bytes);
        status_page_add(
                page, "stored_state_bytes", state_writer_file_bytes(replica_writer(replica)));
    }
}

static void fill(void *user, struct status_page *page)
{
    const struct stored *stored = user;

    fill_state(page, stored);
    status_page_add(page, "stored_phase", stored->raft.phase);
    status_page_add(page, "stored_batches_total", stored->batches);
    status_page_add(page, "stored_entries_total", stored->entries);
    status_page_add(page, "stored_subscribers", subscribers_count(stored));
    status_page_add(page, "stored_batches_skipped_total", stored->subscribers.skipped);
    status_page_add(page, "stored_snapshots_total", stored->snapshots.made_count);
    status_page_add(page, "stored_snapshot_index", stored->snapshots.newest.index);
    status_page_add(page, "stored_snapshot_bytes", stored->snapshots.newest.bytes);
    status_page_add(page, "stored_compactions_total", stored->compaction.done_count);
    status_page_add(page, "stored_log_bytes", stored->snapshots.log_bytes);
    status_page_add(page, "stored_no_space", stored->raft.no_space);
}

int status_page_start(struct stored *stored, struct err *err)
{
    struct status_server_config config = {
        .component = "stored",
        .path = "stored-status.ipc",
        .peer_uids = stored->config.peer_uids,
        .peer_uid_count = stored->config.peer_uid_count,
        .on_stranger = strangers_tell,
        .fill = fill,
        .user = stored,
    };
    return status_server_open(stored->loop, &config, &stored->status, err);
}

void status_page_stop(struct stored *stored)
{
    stored->status = status_server_close(stored->status);
}
