/* status_page.c: what raftd says of itself, for quoratectl, metrics and tests. */
#include <stdlib.h>

#include "common/strangers.h"
#include "daemons/raftd/raftd_impl.h"
#include "proto/status_server.h"

static void fill_log(struct status_page *page, struct raftd *raftd)
{
    struct storage_stats stats;

    storage_get_stats(raftd->storage, &stats);
    status_page_add(page, "raftd_log_writes_total", stats.writes);
    status_page_add(page, "raftd_log_appended_bytes_total", stats.bytes_appended);
    status_page_add(page, "raftd_log_disk_bytes", stats.disk_bytes);
    status_page_add(page, "raftd_log_behind_snapshot_bytes", retention_log_bytes(raftd));
    status_page_add(page, "raftd_log_sync_us", stats.sync_us);
    status_page_add(page, "raftd_has_space", raftd->told_writable);
    status_page_add(page, "raftd_snapshots_kept", raftd->snapshot_count);
}

static void fill_peers(struct status_page *page, struct raftd *raftd)
{
    struct raft_members members;
    struct raft_peer_status peer;

    raft_get_members(raftd->raft, &members);
    status_page_add(page, "raftd_voters", members.voters.count);
    status_page_add(page, "raftd_learners", members.learners.count);
    for (size_t i = 0; i < members.voters.count + members.learners.count; i++) {
        uint64_t id = i < members.voters.count ? members.voters.items[i]
                                               : members.learners.items[i - members.voters.count];
        if (id != raftd->membership.self_id) {
            status_page_add_of(page, "raftd_peer_reachable_ms", "peer", id,
                    peers_reachable_ms(raftd->peers, id));
        }
    }
    /* A leader knows more. */
    for (size_t i = 0; raft_get_peer_status(raftd->raft, i, &peer); i++) {
        status_page_add_of(page, "raftd_peer_match_index", "peer", peer.id, peer.match_index);
        status_page_add_of(page, "raftd_peer_next_index", "peer", peer.id, peer.next_index);
        status_page_add_of(page, "raftd_peer_state", "peer", peer.id, (uint64_t)peer.state);
        status_page_add_of(page, "raftd_peer_is_learner", "peer", peer.id, peer.is_learner);
        status_page_add_of(page, "raftd_peer_is_active", "peer", peer.id, peer.is_active);
    }
}

static void fill(void *user, struct status_page *page)
{
    struct raftd *raftd = user;
    struct raft_status status;

    raft_get_status(raftd->raft, &status);
    status_page_add(page, "raftd_role", (uint64_t)status.role);
    status_page_add(page, "raftd_is_leader", status.role == RAFT_ROLE_LEADER);
    status_page_add(page, "raftd_is_learner", status.is_learner);
    status_page_add(page, "raftd_self_id", status.self_id);
    status_page_add(page, "raftd_leader_id", status.leader_id);
    status_page_add(page, "raftd_term", status.term);
    status_page_add(page, "raftd_commit_index", status.commit_index);
    status_page_add(page, "raftd_applied_index", status.applied_index);
    status_page_add(page, "raftd_durable_index", status.durable_index);
    status_page_add(page, "raftd_last_index", status.last_index);
    status_page_add(page, "raftd_base_index", status.base_index);
    status_page_add(page, "raftd_snapshot_index", status.snapshot_index);
    status_page_add(page, "raftd_leader_changes_total", status.leader_changes);
    status_page_add(page, "raftd_proposals_refused_total", status.proposals_refused);
    status_page_add(page, "raftd_messages_ignored_total", status.messages_ignored);
    status_page_add(page, "raftd_cached_bytes", status.cached_bytes);
    status_page_add(page, "raftd_unapplied_bytes", raftd->backlog.bytes);
    status_page_add(page, "raftd_writes_wait_for_stored", raftd->backlog.is_full);
    status_page_add(page, "raftd_stored_up", applier_is_up(raftd->applier));
    status_page_add(page, "raftd_gateways", gateways_count(raftd->gateways));
    status_page_add(page, "raftd_waiting_messages", gateways_waiting(raftd->gateways));
    status_page_add(page, "raftd_appends_sent_total", raftd->talk.sent_appends);
    status_page_add(page, "raftd_appends_received_total", raftd->talk.received_appends);
    fill_log(page, raftd);
    fill_peers(page, raftd);
}

int status_page_start(struct raftd *raftd, struct err *err)
{
    struct status_server_config config = {
        .component = "raftd",
        .path = "raftd-status.ipc",
        .peer_uids = raftd->conf->ipc_uids.items,
        .peer_uid_count = raftd->conf->ipc_uids.count,
        .on_stranger = strangers_tell,
        .fill = fill,
        .user = raftd,
    };
    return status_server_open(raftd->loop, &config, &raftd->status, err);
}

void status_page_stop(struct raftd *raftd)
{
    raftd->status = status_server_close(raftd->status);
}
