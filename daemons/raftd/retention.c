/* retention.c: which snapshots there are, which one stored is to load, and how far back the log goes.
 *
 * stored makes a snapshot and never chooses one. raftd records it in the log once the file is durable, with the membership
 * at its index, keeps the newest --max-snapshots of them, and with each one dropped moves the log's base up to the oldest that
 * is kept: any kept snapshot and the log behind it make the whole state. What lies before the newest is there for a newest
 * one that turns out broken, and for members that are behind: a start does without it. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "daemons/raftd/raftd_impl.h"
#include "proto/hello.h"

/* False where the membership at the index is not known: a base without it would keep the next start from reading the log. */
static bool keep(struct raftd *raftd, uint64_t index, uint64_t term, uint64_t time_ns)
{
    struct raft_members members;

    if (!raft_get_members_at(raftd->raft, index, &members)) {
        log_warning("raftd.snapshot.no_members", "index=%" PRIu64 " action=not_kept", index);
        return false;
    }
    raftd->snapshots =
            xrealloc(raftd->snapshots, (raftd->snapshot_count + 1) * sizeof *raftd->snapshots);
    struct kept_snapshot *kept = &raftd->snapshots[raftd->snapshot_count++];
    *kept = (struct kept_snapshot){ .index = index, .term = term, .time_ns = time_ns };
    membership_encode(&raftd->membership, &members, &kept->configuration);
    return true;
}

static void forget(struct raftd *raftd, size_t position)
{
    buf_fini(&raftd->snapshots[position].configuration);
    raftd->snapshot_count--;
    memmove(&raftd->snapshots[position], &raftd->snapshots[position + 1],
            (raftd->snapshot_count - position) * sizeof *raftd->snapshots);
}

static bool snapshot_file_exists(const struct raftd *raftd, uint64_t index, uint64_t term)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/member/snap/%016" PRIx64 "-%016" PRIx64 ".snap",
            raftd->conf->data_dir, term, index);
    return length > 0 && (size_t)length < sizeof path && access(path, R_OK) == 0;
}

static int take_time(void *user, const struct wal_entry *entry)
{
    uint64_t *ret_time_ns = user;
    *ret_time_ns = entry->time_ns;
    return 1;
}

/* The cluster time at an index that is in the log: a base must not be ahead of the entries behind it. */
static bool time_at(struct raftd *raftd, uint64_t index, uint64_t *ret_time_ns)
{
    struct err err = { 0 };
    int count = storage_read(raftd->storage, index, index + 1, 1, take_time, ret_time_ns, &err);

    if (count < 1) {
        log_warning_err(
                &err, "raftd.snapshot.no_entry", "index=%" PRIu64 " action=not_recorded", index);
    }
    return count >= 1;
}

/* What the log had gathered behind its newest snapshot goes on counting: each life of this process may be a short one. */
static uint64_t recovered_bytes(
        const struct raftd *raftd, const struct storage_recovered *recovered)
{
    uint64_t newest = recovered->base.index;
    uint64_t bytes = 0;

    if (raftd->snapshot_count > 0) {
        newest = raftd->snapshots[raftd->snapshot_count - 1].index;
    }
    for (size_t i = 0; i < recovered->entry_count; i++) {
        bytes += recovered->entries[i].index > newest ? recovered->entries[i].data.bytes : 0;
    }
    return bytes;
}

int retention_recover(
        struct raftd *raftd, const struct storage_recovered *recovered, struct err *err)
{
    uint64_t last_index = recovered->base.index + recovered->entry_count;

    (void)err;
    for (size_t i = 0; i < recovered->snapshot_count; i++) {
        const struct storage_snapshot *snapshot = &recovered->snapshots[i];
        bool in_log = snapshot->index >= recovered->base.index && snapshot->index <= last_index;
        if (in_log && raft_term_at(raftd->raft, snapshot->index) == snapshot->term &&
                snapshot_file_exists(raftd, snapshot->index, snapshot->term)) {
            (void)keep(raftd, snapshot->index, snapshot->term,
                    recovery_time_ns(recovered, snapshot->index));
        }
    }
    if (raftd->snapshot_count > 0) {
        raftd->snapshot_recorded_index = raftd->snapshots[raftd->snapshot_count - 1].index;
    }
    raftd->bytes_recovered = recovered_bytes(raftd, recovered);
    return 0;
}

void retention_fini(struct raftd *raftd)
{
    while (raftd->snapshot_count > 0) {
        forget(raftd, raftd->snapshot_count - 1);
    }
    free(raftd->snapshots);
    raftd->snapshots = NULL;
}

/* Up to where this member may have acknowledged writes: a lone voter all that is in its log, others what they know to be
 * committed. */
static uint64_t acknowledged_index(const struct raftd *raftd)
{
    struct raft_status status;
    struct raft_members members;

    raft_get_status(raftd->raft, &status);
    raft_get_members(raftd->raft, &members);
    return members.voters.count == 1 ? MAX(raftd->recovered_last_index, status.applied_index)
                                     : status.commit_index;
}

/* Has stored load the newest snapshot that it has not refused, or begin empty where the log reaches back to its
 * beginning. Else there is nothing to serve: both positions are named, and the member does not start. */
static void load_best(struct raftd *raftd, uint64_t stored_index)
{
    struct raft_status status;
    uint64_t complete_at = acknowledged_index(raftd);

    if (raftd->is_installing) {
        return; /* the snapshot's base is being written: it is loaded as soon as that is done */
    }
    raft_get_status(raftd->raft, &status);
    for (size_t i = raftd->snapshot_count; i > 0; i--) {
        const struct kept_snapshot *kept = &raftd->snapshots[i - 1];
        if (kept->index <= status.last_index && kept->index >= status.base_index) {
            log_notice("raftd.state.load",
                    "snapshot_index=%" PRIu64 " snapshot_term=%" PRIu64 " stored_index=%" PRIu64,
                    kept->index, kept->term, stored_index);
            applier_load(raftd->applier, kept->index, kept->term, complete_at);
            return;
        }
    }
    if (status.base_index == 0) {
        log_notice("raftd.state.rebuild", "from=0 stored_index=%" PRIu64, stored_index);
        applier_load(raftd->applier, 0, 0, complete_at);
        return;
    }
    log_crit("raftd.state.unreachable",
            "stored_index=%" PRIu64 " log_base=%" PRIu64 " log_last=%" PRIu64
            " no snapshot fits: restore a .snap file of index %" PRIu64
            " or later, or remove this member and add it again",
            stored_index, status.base_index, status.last_index, status.base_index);
    raftd_fail(raftd, CONF_EXIT_FAILED);
}

void retention_on_stored_up(struct raftd *raftd, const struct hello *peer)
{
    struct raft_status status;
    bool is_empty = peer->applied_index == 0;
    bool is_ours = is_empty || (peer->cluster_id == raftd->membership.cluster_id &&
                                       peer->member_id == raftd->membership.self_id);

    raft_get_status(raftd->raft, &status);
    bool is_first = !raftd->stored_was_up;
    raftd->stored_was_up = true;
    if (is_ours && is_first && peer->applied_index > raftd->recovered_last_index) {
        /* Only what is durable in the log is ever applied: the log has lost what was acknowledged. */
        log_crit("raftd.log.behind_state",
                "applied_index=%" PRIu64 " log_last=%" PRIu64
                " the log in %s has lost acknowledged writes: bring its files back, or remove this "
                "member and add it"
                " again, or move member/wal and member/state away to begin anew",
                peer->applied_index, raftd->recovered_last_index, raftd->conf->wal_dir);
        raftd_fail(raftd, CONF_EXIT_STORAGE);
        return;
    }
    /* An empty state is quicker filled from a snapshot than from the whole log, where there is one; and reads must wait
     * until it is filled, which a load tells stored. */
    bool fits = is_ours && peer->applied_index >= status.base_index &&
                peer->applied_index <= status.last_index &&
                raft_term_at(raftd->raft, peer->applied_index) == peer->applied_term &&
                !(is_empty && raftd->recovered_last_index > 0);
    if (!fits) {
        log_notice("raftd.state.refused",
                "stored_index=%" PRIu64 " stored_term=%" PRIu64 " log_base=%" PRIu64
                " log_last=%" PRIu64 " ours=%d",
                peer->applied_index, peer->applied_term, status.base_index, status.last_index,
                is_ours);
        load_best(raftd, peer->applied_index);
        return;
    }
    applier_go(raftd->applier, raftd->membership.cluster_id, raftd->membership.self_id,
            peer->applied_index, peer->applied_term);
    retention_on_stored_at(raftd, peer->applied_index, peer->applied_term);
}

void retention_on_stored_at(struct raftd *raftd, uint64_t index, uint64_t term)
{
    struct raft_input input;

    raftd_input_init(&input, RAFT_INPUT_APPLY_RESUME);
    input.position.index = index;
    input.position.term = term;
    if (raftd_step(raftd, &input) == -ERANGE) {
        load_best(raftd, index);
    }
}

void retention_on_install(struct raftd *raftd, const struct raft_base *base)
{
    raftd->is_installing = false;
    while (raftd->snapshot_count > 0) {
        forget(raftd, raftd->snapshot_count - 1);
    }
    (void)keep(raftd, base->index, base->term, base->time_ns);
    storage_purge_before(raftd->storage, base->index + 1);
    log_line(LOG_LEVEL_INFO, "etcdserver", "recovered from incoming snapshot at index %" PRIu64,
            base->index);
    if (applier_is_up(raftd->applier)) {
        applier_load(raftd->applier, base->index, base->term, 0); /* newer than what it replaces */
    }
}

void retention_on_snapshot_made(struct raftd *raftd, const struct snapshot_made *made)
{
    if (raft_term_at(raftd->raft, made->index) != made->term) {
        log_warning("raftd.snapshot.unknown", "index=%" PRIu64 " term=%" PRIu64 " action=ignored",
                made->index, made->term);
        return;
    }
    uint64_t newest =
            raftd->snapshot_count > 0 ? raftd->snapshots[raftd->snapshot_count - 1].index : 0;
    if (newest >= made->index) {
        /* Told again after a reconnect: by a stored that may have to be told again, too. */
        if (newest == made->index && newest <= raftd->snapshot_recorded_index) {
            applier_snapshot_recorded(raftd->applier, made->index, made->term);
        }
        return;
    }
    if (!snapshot_file_exists(raftd, made->index, made->term)) {
        log_warning("raftd.snapshot.missing", "index=%" PRIu64 " term=%" PRIu64 " action=ignored",
                made->index, made->term);
        return;
    }
    uint64_t time_ns;
    if (!time_at(raftd, made->index, &time_ns)) {
        return;
    }
    if (!keep(raftd, made->index, made->term, time_ns)) {
        return;
    }
    struct wal_snapshot snapshot = {
        .index = made->index,
        .term = made->term,
        .is_base = true,
        .cluster_time_ns = time_ns,
        .configuration = buf_span(&raftd->snapshots[raftd->snapshot_count - 1].configuration),
    };
    size_t kept_max = raftd->conf->max_snapshots;
    const struct wal_base *base = NULL;
    struct wal_base moved;
    if (kept_max > 0 && raftd->snapshot_count >= kept_max) {
        size_t oldest = raftd->snapshot_count - kept_max;
        const struct kept_snapshot *kept = &raftd->snapshots[oldest];
        moved = (struct wal_base){
            .index = kept->index,
            .term = kept->term,
            .cluster_time_ns = kept->time_ns,
            .cluster_id = raftd->membership.cluster_id,
            .member_id = raftd->membership.self_id,
            .configuration = buf_span(&kept->configuration),
        };
        base = &moved;
    }
    storage_record_snapshot(raftd->storage, &snapshot, base);
}

void retention_on_recorded(struct raftd *raftd, const struct storage_snapshot *snapshot)
{
    size_t kept_max = raftd->conf->max_snapshots;
    struct raft_input input;
    struct storage_stats stats;

    storage_get_stats(raftd->storage, &stats);
    raftd->bytes_at_snapshot = stats.bytes_appended;
    raftd->bytes_recovered = 0;
    raftd->snapshot_recorded_index = snapshot->index;
    log_info("raftd.snapshot.recorded", "index=%" PRIu64 " term=%" PRIu64, snapshot->index,
            snapshot->term);
    raftd_input_init(&input, RAFT_INPUT_SNAPSHOT_MADE);
    input.position.index = snapshot->index;
    input.position.term = snapshot->term;
    (void)raftd_step(raftd, &input);
    applier_snapshot_recorded(raftd->applier, snapshot->index, snapshot->term);
    if (kept_max == 0 || raftd->snapshot_count < kept_max) {
        return;
    }
    while (raftd->snapshot_count > kept_max) {
        forget(raftd, 0);
    }
    raftd_input_init(&input, RAFT_INPUT_LOG_COMPACTED);
    input.position.index = raftd->snapshots[0].index;
    input.position.term = raftd->snapshots[0].term;
    (void)raftd_step(raftd, &input);
    storage_purge_before(raftd->storage, raftd->snapshots[0].index + 1);
}

void retention_on_snapshot_bad(struct raftd *raftd, const struct snapshot_bad *bad)
{
    log_error("raftd.snapshot.broken",
            "index=%" PRIu64 " term=%" PRIu64 " reason=%.*s action=take_the_one_before", bad->index,
            bad->term, (int)bad->text.bytes, (const char *)bad->text.data);
    for (size_t i = 0; i < raftd->snapshot_count; i++) {
        if (raftd->snapshots[i].index == bad->index) {
            forget(raftd, i);
            break;
        }
    }
    load_best(raftd, 0);
}

uint64_t retention_log_bytes(const struct raftd *raftd)
{
    struct storage_stats stats;
    storage_get_stats(raftd->storage, &stats);
    return raftd->bytes_recovered + stats.bytes_appended - raftd->bytes_at_snapshot;
}
