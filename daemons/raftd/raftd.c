#include "daemons/raftd/raftd.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/log_lost.h"
#include "common/loop.h"
#include "common/notify.h"
#include "daemons/raftd/bootstrap/bootstrap.h"
#include "daemons/raftd/bootstrap/standalone.h"
#include "daemons/raftd/failnote.h"
#include "daemons/raftd/peer/security.h"
#include "daemons/raftd/raftd_impl.h"

static struct raft_options core_options(const struct raftd *raftd)
{
    const struct conf *conf = raftd->conf;
    struct raft_options options = raft_options_default;

    options.self_id = raftd->membership.self_id;
    options.seed = clock_monotonic_ns() ^ raftd->membership.self_id;
    options.tick_ns = conf->heartbeat_interval_ms * 1000000;
    options.heartbeat_ticks = 1;
    options.election_ticks = (uint32_t)(conf->election_timeout_ms / conf->heartbeat_interval_ms);
    options.pre_vote = conf->pre_vote;
    options.lease_read = conf->lease_reads;
    options.fast_start = conf->initial_election_tick_advance;
    return options;
}

static int new_core(struct raftd *raftd, const struct raft_hard_state *hard,
        const struct wal_base *base, const struct raft_members *members,
        const struct raft_entry *entries, size_t entry_count, struct err *err)
{
    struct raft_options options = core_options(raftd);
    struct raft_base core_base = { .index = base->index,
        .term = base->term,
        .time_ns = base->cluster_time_ns,
        .members = *members };

    raftd->raft = raft_new(&options, hard, &core_base);
    if (raft_load_entries(raftd->raft, (struct raft_entry_span){ entries, entry_count }) < 0) {
        return err_set(err, -EBADMSG, "the log in %s does not continue its base at index %" PRIu64,
                raftd->conf->wal_dir, base->index);
    }
    return 0;
}

/* A new log, with these members at its base, and these entries. */
static int create_log(struct raftd *raftd, const struct raft_members *members,
        const struct raft_hard_state *hard, const struct raft_entry *entries, size_t count,
        struct err *err)
{
    CLEANUP(buf_fini) struct buf configuration = BUF_INIT;

    membership_encode(&raftd->membership, members, &configuration);
    struct wal_base base = {
        .cluster_id = raftd->membership.cluster_id,
        .member_id = raftd->membership.self_id,
        .configuration = buf_span(&configuration),
    };
    TRY(storage_create(raftd->conf, &base, hard, entries, count, &raftd->storage, err));
    return new_core(raftd, hard, &base, members, entries, count, err);
}

/* A new cluster's log begins with the registration of each member: the same entries everywhere, committed
 * by agreement. */
static int begin_cluster(struct raftd *raftd, struct err *err)
{
    struct membership *membership = &raftd->membership;
    struct raft_hard_state hard = { .term = 1, .commit = membership->count };
    struct raft_entry *entries = xcalloc(membership->count, sizeof *entries);
    struct buf *ops = xcalloc(membership->count, sizeof *ops);
    struct raft_members roles;

    for (size_t i = 0; i < membership->count; i++) {
        membership_encode_add(&membership->items[i], &ops[i]);
        entries[i] = (struct raft_entry){
            .index = i + 1,
            .term = 1,
            .kind = RAFT_ENTRY_CONFIG,
            .change = membership_change_of(buf_span(&ops[i])),
            .data = buf_span(&ops[i]),
        };
    }
    membership_roles(membership, &roles);
    int result = create_log(raftd, &roles, &hard, entries, membership->count, err);
    membership_roles_fini(&roles);
    for (size_t i = 0; i < membership->count; i++) {
        buf_fini(&ops[i]);
    }
    free(ops);
    free(entries);
    return result;
}

/* -force-new-cluster is for the start that it was given to: quorate gives the same flags to a raftd that died, and by then
 * members may have been added. */
static bool wants_standalone(const struct conf *conf)
{
    return conf->force_new_cluster && getenv("QUORATE_RESTARTED") == NULL;
}

static int bootstrap(struct raftd *raftd, struct err *err)
{
    TRY(log_lost_check(raftd->conf, err));
    if (wants_standalone(raftd->conf)) {
        log_warning("raftd.standalone.no_data",
                "data_dir=%s action=bootstrap_as_without_force_new_cluster", raftd->conf->data_dir);
    }
    TRY(conf_check_bootstrap(raftd->conf, err));
    if (raftd->conf->initial_cluster_state == CONF_CLUSTER_EXISTING) {
        /* The log begins without members: the leader tells. */
        struct raft_members none = { 0 };
        struct raft_hard_state hard = { 0 };
        TRY(bootstrap_join(raftd->loop, raftd->security, raftd->conf, &raftd->membership, err));
        return create_log(raftd, &none, &hard, NULL, 0, err);
    }
    TRY(bootstrap_new(raftd->loop, raftd->security, raftd->conf, &raftd->membership, err));
    return begin_cluster(raftd, err);
}

static int open_append(struct raftd *raftd, struct storage_recovered *recovered, struct err *err)
{
    if (wants_standalone(raftd->conf)) {
        return standalone_open(raftd->loop, raftd->security, raftd->storage, recovered, err);
    }
    if (recovered->base.member_id == 0) {
        return err_set(err, -EINVAL,
                "%s holds a backup, which is no member of any cluster yet; start it once with "
                "-force-new-cluster, then without",
                raftd->conf->data_dir);
    }
    return storage_open_append(raftd->storage, NULL, err);
}

static int recover(struct raftd *raftd, struct err *err)
{
    CLEANUP(storage_recovered_fini) struct storage_recovered recovered = { 0 };

    TRY(storage_open(raftd->conf, &raftd->storage, &recovered, err));
    if (raftd->conf->discovery[0] != '\0') {
        log_line(LOG_LEVEL_WARNING, "etcdserver",
                "discovery token ignored since a cluster has already been initialized. Valid log "
                "found at \"%s\"",
                raftd->conf->wal_dir);
    }
    TRY(open_append(raftd, &recovered, err));
    TRY(membership_decode(buf_span(&recovered.configuration), &raftd->membership, err));
    raftd->membership.cluster_id = recovered.base.cluster_id;
    raftd->membership.self_id = recovered.base.member_id;
    struct raft_members roles;
    membership_roles(&raftd->membership, &roles);
    int result = new_core(raftd, &recovered.hard, &recovered.base, &roles, recovered.entries,
            recovered.entry_count, err);
    membership_roles_fini(&roles);
    TRY(result);
    for (size_t i = 0; i < recovered.note_count; i++) {
        membership_note(
                &raftd->membership, recovered.notes[i].index, buf_span(&recovered.notes[i].op));
    }
    raftd->recovered_last_index = recovery_last_index(&recovered);
    TRY(retention_recover(raftd, &recovered, err));
    log_notice("raftd.log.recovered",
            "base=%" PRIu64 " entries=%zu term=%" PRIu64 " commit=%" PRIu64
            " snapshots=%zu torn_bytes=%" PRIu64,
            recovered.base.index, recovered.entry_count, recovered.hard.term, recovered.hard.commit,
            raftd->snapshot_count, recovered.torn_bytes);
    return 0;
}

/* What a life before this one met. The log it left is rewritten and synced before anything in it counts. */
static void tell_failnote(struct raftd *raftd)
{
    struct failnote note;

    raftd->has_failnote = failnote_read(raftd->conf->wal_dir, &note);
    if (raftd->has_failnote) {
        log_warning("raftd.log.failed_before",
                "failures=%u last=%s what=\"%s\" action=read_the_log_and_write_it_anew",
                note.failures, note.last, note.what);
    }
}

int raftd_new(const struct conf *conf, struct raftd **ret_raftd, struct err *err)
{
    struct raftd *raftd = xcalloc(1, sizeof *raftd);

    raftd->conf = conf;
    raftd->exit_status = -1;
    raftd->start_wall_ns = clock_wall_ns();
    raftd->disk_has_space = true;
    raftd->state_has_space = true;
    raftd->told_writable = true;
    raftd->loop = loop_new();
    tell_failnote(raftd);
    int exists = storage_exists(conf, err);
    if (exists >= 0 && security_new(conf, &raftd->security, err) < 0) {
        exists = -EINVAL;
    }
    /* The ports come first: a second process on one of them ends before it has touched anything. */
    int result = exists < 0 ? exists : talk_open(raftd, err);
    if (result == 0) {
        result = exists == 0 ? bootstrap(raftd, err) : recover(raftd, err);
    }
    if (result < 0) {
        (void)raftd_free(raftd);
        return result;
    }
    char member[IDS_TEXT_BYTES];
    char cluster[IDS_TEXT_BYTES];
    log_notice("raftd.member", "name=%s member_id=%s cluster_id=%s new=%d", conf->name,
            ids_text(raftd->membership.self_id, member),
            ids_text(raftd->membership.cluster_id, cluster), exists == 0);
    *ret_raftd = raftd;
    return 0;
}

static void on_stop_signal(void *user)
{
    struct raftd *raftd = user;

    log_notice("raftd.stopping", "reason=signal");
    notify_stopping();
    housekeeping_stop_soon(raftd);
}

static void on_reload_signal(void *user)
{
    struct raftd *raftd = user;
    security_reload(raftd->security);
}

int raftd_start(struct raftd *raftd, struct err *err)
{
    const struct conf_uids *uids = &raftd->conf->ipc_uids;

    if (chdir(raftd->conf->run_dir) < 0) {
        return err_errno(err, "enter the run directory %s", raftd->conf->run_dir);
    }
    loop_on_signal(raftd->loop, SIGTERM, on_stop_signal, raftd);
    loop_on_signal(raftd->loop, SIGINT, on_stop_signal, raftd);
    loop_on_signal(raftd->loop, SIGHUP, on_reload_signal, raftd);
    TRY(storage_start(raftd->storage, raftd->loop, &raftd_storage_events, raftd, err));
    TRY(gateways_open(
            raftd->loop, "raftd.ipc", uids, &raftd_gateways_events, raftd, &raftd->gateways, err));
    TRY(applier_open(raftd->loop, "apply/apply.ipc", uids, &raftd_applier_events, raftd,
            &raftd->applier, err));
    TRY(transfer_open(raftd, err));
    changes_open(raftd);
    TRY(housekeeping_start(raftd, err));
    TRY(status_page_start(raftd, err));
    talk_begin(raftd);
    notify_ready();
    return 0;
}

int raftd_loop(struct raftd *raftd)
{
    loop_run(raftd->loop);
    return raftd->exit_status < 0 ? 0 : raftd->exit_status;
}

struct raftd *raftd_free(struct raftd *raftd)
{
    if (raftd == NULL) {
        return NULL;
    }
    status_page_stop(raftd);
    talk_close(raftd);
    transfer_close(raftd);
    changes_close(raftd);
    raftd->applier = applier_close(raftd->applier);
    raftd->gateways = gateways_close(raftd->gateways);
    if (raftd->loop != NULL) {
        housekeeping_stop(raftd);
    }
    raftd->storage = storage_close(raftd->storage);
    raftd->raft = raft_free(raftd->raft);
    raftd->security = security_free(raftd->security);
    raftd->loop = loop_free(raftd->loop);
    retention_fini(raftd);
    membership_fini(&raftd->membership);
    backlog_fini(&raftd->backlog);
    free(raftd->needs);
    free(raftd->entries);
    free(raftd);
    return NULL;
}
