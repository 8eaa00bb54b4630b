#include "daemons/raftd/bootstrap/standalone.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "daemons/raftd/bootstrap/fetch.h"
#include "proto/op.h"

enum {
    ASK_MS = 1000
};

/* ---- The plan ------------------------------------------------------------------------------------------------- */

void standalone_plan_fini(struct standalone_plan *plan)
{
    for (size_t i = 0; i < plan->entry_count; i++) {
        buf_fini(&plan->ops[i]);
    }
    free(plan->ops);
    free(plan->entries);
    *plan = (struct standalone_plan){ 0 };
}

static void add_change(struct standalone_plan *plan, enum op_kind kind, uint64_t id)
{
    struct op op = { .kind = kind, .member_id = id };
    /* etcd gives a restored backup its own default URLs, whatever the flags say: an update is due anyway. */
    struct span urls[] = { SPAN_LIT("http://localhost:2380"), SPAN_LIT("http://localhost:7001") };

    SET(&op, op_tag_member_id);
    if (kind == OP_MEMBER_ADD) {
        op.peer_urls = (struct span_list){ urls, ARRAY_COUNT(urls) };
        SET(&op, op_tag_peer_urls);
    }
    plan->ops = xrealloc(plan->ops, (plan->entry_count + 1) * sizeof *plan->ops);
    plan->ops[plan->entry_count] = BUF_INIT;
    op_encode(&op, &plan->ops[plan->entry_count++]);
}

static void remove_others(struct standalone_plan *plan, struct raft_ids ids)
{
    for (size_t i = 0; i < ids.count; i++) {
        if (ids.items[i] != plan->self_id) {
            add_change(plan, OP_MEMBER_REMOVE, ids.items[i]);
        }
    }
}

static void make_entries(
        struct standalone_plan *plan, const struct storage_recovered *recovered, uint64_t wall_ns)
{
    uint64_t last_index = recovery_last_index(recovered);
    uint64_t time_ns = MAX(recovery_time_ns(recovered, last_index), wall_ns);

    /* A term that no other log has entries of, should one of the others ever be looked at again. */
    plan->hard = (struct raft_hard_state){ .term = recovered->hard.term + 1,
        .vote = plan->self_id,
        .commit = last_index + plan->entry_count };
    plan->entries = xcalloc(plan->entry_count, sizeof *plan->entries);
    for (size_t i = 0; i < plan->entry_count; i++) {
        struct span op = buf_span(&plan->ops[i]);
        plan->entries[i] = (struct raft_entry){ .index = last_index + 1 + i,
            .term = plan->hard.term,
            .time_ns = time_ns,
            .kind = RAFT_ENTRY_CONFIG,
            .change = membership_change_of(op),
            .data = op };
    }
}

static int check_self(const struct storage_recovered *recovered, const struct raft_members *roles,
        struct err *err)
{
    uint64_t self_id = recovered->base.member_id;
    char id[IDS_TEXT_BYTES];

    if (raft_ids_have(roles->removed, self_id)) {
        return err_set(err, -EINVAL,
                "member %s was removed from its cluster, and no id is valid again; make a backup "
                "of its data (-backup-dir) and start that with -force-new-cluster",
                ids_text(self_id, id));
    }
    if (self_id != 0 && !raft_ids_have(roles->voters, self_id) &&
            !raft_ids_have(roles->learners, self_id)) {
        return err_set(err, -EINVAL,
                "member %s has not got its cluster's data yet; take -force-new-cluster to a member "
                "that has",
                ids_text(self_id, id));
    }
    return 0;
}

int standalone_make_plan(const struct storage_recovered *recovered,
        const struct raft_members *roles, uint64_t fresh_id, uint64_t wall_ns,
        struct standalone_plan *ret_plan, struct err *err)
{
    bool is_backup = recovered->base.member_id == 0;
    struct standalone_plan plan = {
        .hard = recovered->hard,
        .cluster_id = is_backup ? ids_cluster(&fresh_id, 1) : recovered->base.cluster_id,
        .self_id = is_backup ? fresh_id : recovered->base.member_id,
    };

    TRY(check_self(recovered, roles, err));
    if (is_backup) {
        add_change(&plan, OP_MEMBER_ADD, plan.self_id);
    }
    if (!raft_ids_have(roles->voters, plan.self_id)) {
        add_change(&plan, OP_MEMBER_PROMOTE, plan.self_id); /* before the last other voter goes */
    }
    remove_others(&plan, roles->voters);
    remove_others(&plan, roles->learners);
    if (plan.entry_count > 0) {
        make_entries(&plan, recovered, wall_ns);
    }
    *ret_plan = plan;
    return 0;
}

/* ---- Whether the others are gone ------------------------------------------------------------------------------ */

static int refuse_running(
        const struct fetched *answer, const struct membership *membership, struct err *err)
{
    const struct membership_entry *entry = membership_find(membership, answer->from_id);
    char id[IDS_TEXT_BYTES];

    return err_set(err, -EINVAL,
            "member %s of this cluster runs (%s), and -force-new-cluster throws all others out; "
            "leave "
            "the flag out, or stop every other member first, or start a backup (-backup-dir), "
            "which "
            "makes a cluster of its own",
            ids_text(answer->from_id, id),
            entry != NULL && entry->url_count > 0 ? entry->peer_urls[0] : "no URL");
}

/* With the others running there would be two clusters of one id. */
static int check_others_gone(struct loop *loop, struct security *security,
        const struct standalone_plan *plan, const struct membership *membership,
        const struct raft_members *roles, struct err *err)
{
    const char **urls = NULL;
    size_t count = 0;
    struct fetched *answers = NULL;
    int result = 0;

    for (size_t i = 0; i < membership->count; i++) {
        const struct membership_entry *entry = &membership->items[i];
        bool is_other =
                entry->id != plan->self_id && (raft_ids_have(roles->voters, entry->id) ||
                                                      raft_ids_have(roles->learners, entry->id));
        for (size_t j = 0; is_other && j < entry->url_count; j++) {
            urls = xrealloc((void *)urls, (count + 1) * sizeof *urls);
            urls[count++] = entry->peer_urls[j];
        }
    }
    size_t answer_count =
            count == 0 ? 0
                       : fetch_members(loop, security, urls, count, FETCH_ALL, ASK_MS, &answers);
    for (size_t i = 0; i < answer_count && result == 0; i++) {
        bool is_ours =
                answers[i].cluster_id == plan->cluster_id && answers[i].from_id != plan->self_id;
        result = is_ours ? refuse_running(&answers[i], membership, err) : 0;
    }
    fetch_free(answers, answer_count);
    free((void *)urls);
    return result;
}

/* ---- Doing it ------------------------------------------------------------------------------------------------- */

static int write_plan(struct storage *storage, const struct standalone_plan *plan,
        const struct storage_recovered *recovered, struct err *err)
{
    struct wal_hard_state hard = { plan->hard.term, plan->hard.vote, plan->hard.commit };
    struct wal_base base = recovered->base;
    struct wal_entry *entries = xcalloc(plan->entry_count, sizeof *entries);
    struct wal_write write = {
        .hard = &hard, .entries = entries, .entry_count = plan->entry_count
    };

    if (recovered->base.member_id == 0) {
        base.reset = false;
        base.cluster_id = plan->cluster_id;
        base.member_id = plan->self_id;
        write.base = &base;
    }
    for (size_t i = 0; i < plan->entry_count; i++) {
        const struct raft_entry *entry = &plan->entries[i];
        entries[i] = (struct wal_entry){ entry->index, entry->term, entry->time_ns,
            (uint8_t)entry->kind, entry->data };
    }
    int result = storage_open_append(storage, plan->entry_count > 0 ? &write : NULL, err);
    free(entries);
    return result;
}

/* As if it had been in the log that was read. */
static void take_over(const struct standalone_plan *plan, struct storage_recovered *recovered)
{
    recovered->hard = plan->hard;
    recovered->base.cluster_id = plan->cluster_id;
    recovered->base.member_id = plan->self_id;
    for (size_t i = 0; i < plan->entry_count; i++) {
        recovery_add_entry(recovered, &plan->entries[i]);
    }
}

static void tell(const struct standalone_plan *plan, const struct storage_recovered *recovered)
{
    char member[IDS_TEXT_BYTES];
    char cluster[IDS_TEXT_BYTES];

    for (size_t i = 0; i < plan->entry_count; i++) {
        const struct raft_change *change = &plan->entries[i].change;
        if (change->kind == RAFT_CHANGE_REMOVE) {
            log_notice(
                    "raftd.standalone.removed", "member=%s", ids_text(change->member_id, member));
        }
    }
    log_line(LOG_LEVEL_NOTICE, "etcdserver",
            "forcing restart of member %s in cluster %s at commit index %" PRIu64,
            ids_text(plan->self_id, member), ids_text(plan->cluster_id, cluster),
            recovery_last_index(recovered));
    log_warning("raftd.standalone", "action=remove_the_flag a start with -force-new-cluster throws "
                                    "out all members that were "
                                    "added since");
}

static int make_plan(struct loop *loop, struct security *security,
        const struct storage_recovered *recovered, struct standalone_plan *plan, struct err *err)
{
    struct membership membership = { 0 };
    struct raft_members roles;
    struct raft *core = NULL;
    uint64_t fresh_id = 0;

    while (fresh_id == 0) {
        randombytes_buf(&fresh_id, sizeof fresh_id);
    }
    TRY(recovery_members(recovered, UINT64_MAX, &membership, &core, err));
    raft_get_members(core, &roles);
    int result = standalone_make_plan(recovered, &roles, fresh_id, clock_wall_ns(), plan, err);
    if (result == 0 && plan->entry_count > 0 && recovered->base.member_id != 0) {
        result = check_others_gone(loop, security, plan, &membership, &roles, err);
    }
    core = raft_free(core);
    membership_fini(&membership);
    return result;
}

int standalone_open(struct loop *loop, struct security *security, struct storage *storage,
        struct storage_recovered *recovered, struct err *err)
{
    CLEANUP(standalone_plan_fini) struct standalone_plan plan = { 0 };

    TRY(make_plan(loop, security, recovered, &plan, err));
    TRY(write_plan(storage, &plan, recovered, err));
    take_over(&plan, recovered);
    tell(&plan, recovered);
    return 0;
}
