/* changes.c: membership changes: checked by whoever leads, proposed one at a time, refused with the reason.
 *
 * A change that is in the log is answered by stored's outcome. One that the core has no room for just now (another is
 * not committed yet, or there is no leader) is tried again until whoever asked has given up. What the leader's own
 * checks refuse travels back as a reason beyond the core's numbers. */
#include <stdlib.h>

#include "common/clock.h"
#include "common/ids.h"
#include "common/list.h"
#include "common/log.h"
#include "daemons/raftd/raftd_impl.h"
#include "proto/op.h"

enum {
    HEALTHY_MS = 5000,
    RETRY_MS = 100,
};

/* Continues enum raft_refusal on the wire: for ever. */
enum check_refusal {
    CHECK_PASSED = 0,
    CHECK_NOT_STARTED = 100,
    CHECK_UNHEALTHY = 101,
    CHECK_URL_TAKEN = 102,
};

struct change {
    struct list node;
    uint64_t context;
    uint64_t since_ms;
    uint64_t again_at_ms; /* 0: the leader has it */
    struct buf op;
    uint64_t kind;
    uint64_t member_id;
};

struct changes {
    struct list list;
    struct codec_scratch scratch;
};

/* ---- The leader's checks ---- */

/* How the cluster stands, learners counted as if they voted already. */
struct standing {
    size_t members;
    size_t started;
    size_t healthy; /* connected for a while, ourselves included */
};

static void count_ids(
        struct raftd *raftd, struct raft_ids ids, uint64_t except_id, struct standing *standing)
{
    for (size_t i = 0; i < ids.count; i++) {
        uint64_t id = ids.items[i];
        const struct membership_entry *entry = membership_find(&raftd->membership, id);
        if (id == except_id) {
            continue;
        }
        standing->members++;
        standing->started += entry != NULL && entry->client_url_count > 0;
        standing->healthy += id == raftd->membership.self_id ||
                             peers_reachable_ms(raftd->peers, id) >= HEALTHY_MS;
    }
}

static struct standing take_standing(struct raftd *raftd, uint64_t except_id)
{
    struct standing standing = { 0 };
    struct raft_members members;

    raft_get_members(raftd->raft, &members);
    count_ids(raftd, members.voters, except_id, &standing);
    count_ids(raftd, members.learners, except_id, &standing);
    return standing;
}

static enum check_refusal check_add(struct raftd *raftd)
{
    struct standing now = take_standing(raftd, 0);

    if (now.members == 1 && now.started == 1) {
        return CHECK_PASSED;
    }
    if (now.started < (now.members + 1) / 2 + 1) {
        return CHECK_NOT_STARTED;
    }
    return now.healthy < now.members ? CHECK_UNHEALTHY : CHECK_PASSED;
}

static enum check_refusal check_remove(struct raftd *raftd, uint64_t id)
{
    struct standing all = take_standing(raftd, 0);
    struct standing rest = take_standing(raftd, id);
    bool is_away = id != raftd->membership.self_id && !peers_is_reachable(raftd->peers, id);

    if (rest.members > 0 && rest.started < rest.members / 2 + 1) {
        return CHECK_NOT_STARTED;
    }
    if (is_away) {
        return CHECK_PASSED; /* it is no part of what makes the quorum now */
    }
    return all.healthy < 1 + (1 + (all.members - 1) / 2) ? CHECK_UNHEALTHY : CHECK_PASSED;
}

static bool url_is_taken(struct raftd *raftd, const struct op *op)
{
    struct raft_members members;

    raft_get_members(raftd->raft, &members);
    for (size_t i = 0; i < raftd->membership.count; i++) {
        const struct membership_entry *entry = &raftd->membership.items[i];
        bool is_member = raft_ids_have(members.voters, entry->id) ||
                         raft_ids_have(members.learners, entry->id);
        for (size_t j = 0; is_member && entry->id != op->member_id && j < entry->url_count; j++) {
            for (size_t k = 0; k < op->peer_urls.count; k++) {
                if (span_eq(span_str(entry->peer_urls[j]), op->peer_urls.items[k])) {
                    return true;
                }
            }
        }
    }
    return false;
}

static enum check_refusal check(struct raftd *raftd, struct span encoded)
{
    struct op op;

    codec_scratch_reset(&raftd->changes->scratch);
    if (op_decode(encoded, &op, &raftd->changes->scratch, NULL) < 0) {
        return CHECK_PASSED; /* does nothing */
    }
    if ((op.kind == OP_MEMBER_ADD || op.kind == OP_MEMBER_UPDATE) && url_is_taken(raftd, &op)) {
        return CHECK_URL_TAKEN;
    }
    if (!raftd->conf->strict_reconfig_check) {
        return CHECK_PASSED;
    }
    enum check_refusal refusal = CHECK_PASSED;
    if (op.kind == OP_MEMBER_ADD) {
        refusal = check_add(raftd);
    } else if (op.kind == OP_MEMBER_REMOVE) {
        refusal = check_remove(raftd, op.member_id);
    }
    if (refusal != CHECK_PASSED) {
        struct standing now = take_standing(raftd, 0);
        char id[IDS_TEXT_BYTES];
        log_warning("raftd.change.refused",
                "kind=%" PRIu64 " member=%s members=%zu started=%zu healthy=%zu "
                "action=wait_until_all_are_healthy",
                op.kind, ids_text(op.member_id, id), now.members, now.started, now.healthy);
    }
    return refusal;
}

/* ---- Answers ---- */

static void free_change(struct change *change)
{
    list_remove(&change->node);
    buf_fini(&change->op);
    free(change);
}

static void answer(struct raftd *raftd, struct change *change, unsigned status, const char *text)
{
    gateways_member_result(raftd->gateways, change->context, status, text);
    free_change(change);
}

/* The core found that the change does not fit: another one was quicker. */
static void answer_invalid(struct raftd *raftd, struct change *change)
{
    struct raft_members members;
    char text[128];
    char id[IDS_TEXT_BYTES];

    raft_get_members(raftd->raft, &members);
    if (change->kind == OP_MEMBER_ADD) {
        answer(raftd, change, 409, "membership: ID exists");
    } else if (raft_ids_have(members.removed, change->member_id)) {
        (void)snprintf(text, sizeof text, "Member permanently removed: %s",
                ids_text(change->member_id, id));
        answer(raftd, change, 410, text);
    } else if (raft_ids_have(members.voters, change->member_id)) {
        answer(raftd, change, 500,
                "etcdserver: re-configuration failed due to not enough started members");
    } else {
        (void)snprintf(text, sizeof text, "No such member: %s", ids_text(change->member_id, id));
        answer(raftd, change, 404, text);
    }
}

static void on_refusal(struct raftd *raftd, struct change *change, unsigned reason)
{
    switch (reason) {
    case RAFT_REFUSAL_NO_LEADER:
    case RAFT_REFUSAL_TRANSFERRING:
    case RAFT_REFUSAL_CHANGE_PENDING:
    case RAFT_REFUSAL_OVERLOADED:
        change->again_at_ms = clock_monotonic_ms() + RETRY_MS;
        break;
    case RAFT_REFUSAL_CHANGE_INVALID:
        answer_invalid(raftd, change);
        break;
    case CHECK_NOT_STARTED:
        answer(raftd, change, 500,
                "etcdserver: re-configuration failed due to not enough started members");
        break;
    case CHECK_UNHEALTHY:
        answer(raftd, change, 500, "etcdserver: unhealthy cluster");
        break;
    case CHECK_URL_TAKEN:
        answer(raftd, change, 409, "membership: peerURL exists");
        break;
    default:
        answer(raftd, change, 500, "Internal Server Error");
        break;
    }
}

/* ---- Proposing ---- */

static void try_change(struct raftd *raftd, struct change *change)
{
    struct raft_status status;
    struct span op = buf_span(&change->op);

    raft_get_status(raftd->raft, &status);
    bool leads = status.role == RAFT_ROLE_LEADER;
    unsigned reason = leads ? (unsigned)check(raftd, op) : 0;
    change->again_at_ms = 0;
    if (reason == 0) {
        reason = (unsigned)raftd_propose(raftd, change->context, RAFT_ENTRY_CONFIG, &op, 1);
    }
    if (reason != 0) {
        on_refusal(raftd, change, reason);
    } else if (leads) {
        free_change(change); /* stored answers */
    }
}

void changes_begin(struct raftd *raftd, uint64_t context, struct span encoded)
{
    struct change *change = xcalloc(1, sizeof *change);
    struct op op;

    codec_scratch_reset(&raftd->changes->scratch);
    if (op_decode(encoded, &op, &raftd->changes->scratch, NULL) == 0) {
        change->kind = op.kind;
        change->member_id = op.member_id;
    }
    change->context = context;
    change->since_ms = clock_monotonic_ms();
    buf_append_span(&change->op, encoded);
    list_append(&raftd->changes->list, &change->node);
    try_change(raftd, change);
}

static struct change *find_change(struct raftd *raftd, uint64_t context)
{
    LIST_FOREACH (change, &raftd->changes->list, struct change, node) {
        if (change->context == context) {
            return change;
        }
    }
    return NULL;
}

bool changes_on_refused(struct raftd *raftd, uint64_t context, enum raft_refusal reason)
{
    struct change *change = find_change(raftd, context);

    if (change == NULL) {
        return false;
    }
    on_refusal(raftd, change, (unsigned)reason);
    return true;
}

static bool refuse_passed_on(struct raftd *raftd, const struct raft_message *message)
{
    struct raft_status status;

    raft_get_status(raftd->raft, &status);
    if (status.role != RAFT_ROLE_LEADER || message->entries.count == 0 ||
            message->entries.items[0].kind != RAFT_ENTRY_CONFIG) {
        return false;
    }
    enum check_refusal refusal = check(raftd, message->entries.items[0].data);
    if (refusal == CHECK_PASSED) {
        return false;
    }
    struct raft_message reply = { .kind = RAFT_MESSAGE_PROPOSE_REFUSED,
        .from = message->to,
        .to = message->from,
        .term = status.term,
        .context = message->context,
        .reason = (uint32_t)refusal };
    talk_send(raftd, (struct raft_message_span){ &reply, 1 });
    return true;
}

bool changes_intercept(struct raftd *raftd, const struct raft_message *message)
{
    if (message->kind == RAFT_MESSAGE_PROPOSE) {
        return refuse_passed_on(raftd, message);
    }
    if (message->kind == RAFT_MESSAGE_PROPOSE_REFUSED && message->reason >= CHECK_NOT_STARTED) {
        struct change *change = find_change(raftd, message->context);
        if (change != NULL) {
            on_refusal(raftd, change, message->reason);
        }
        return true;
    }
    return false;
}

void changes_promote(struct raftd *raftd, uint64_t learner_id)
{
    struct op op = { .kind = OP_MEMBER_PROMOTE, .member_id = learner_id };
    struct buf bytes = BUF_INIT;
    char id[IDS_TEXT_BYTES];

    SET(&op, op_tag_member_id);
    op_encode(&op, &bytes);
    struct span span = buf_span(&bytes);
    if (raftd_propose(raftd, OWN_CONTEXT, RAFT_ENTRY_CONFIG, &span, 1) == RAFT_REFUSAL_NONE) {
        log_notice(
                "raftd.member.promoting", "member=%s reason=caught_up", ids_text(learner_id, id));
    }
    buf_fini(&bytes);
}

void changes_tick(struct raftd *raftd, uint64_t now_ms)
{
    uint64_t limit_ms = raftd_request_timeout_ms(raftd);

    LIST_FOREACH (change, &raftd->changes->list, struct change, node) {
        if (clock_passed(change->since_ms, now_ms) > limit_ms) {
            free_change(change);
        } else if (change->again_at_ms != 0 && now_ms >= change->again_at_ms) {
            try_change(raftd, change);
            return; /* one at a time, and the list is not what it was */
        }
    }
}

void changes_open(struct raftd *raftd)
{
    raftd->changes = xcalloc(1, sizeof *raftd->changes);
    list_init(&raftd->changes->list);
}

void changes_close(struct raftd *raftd)
{
    if (raftd->changes == NULL) {
        return;
    }
    LIST_FOREACH (change, &raftd->changes->list, struct change, node) {
        free_change(change);
    }
    codec_scratch_fini(&raftd->changes->scratch);
    free(raftd->changes);
    raftd->changes = NULL;
}
