/* talk.c: what the core says to other members, and they to it.
 *
 * Vows wait here, as copies, until the write behind them is on disk. */
#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "daemons/raftd/raftd_impl.h"
#include "version.h"

/* ---- Out ---- */

static enum peer_channel channel_of(enum raft_message_kind kind)
{
    return kind == RAFT_MESSAGE_APPEND || kind == RAFT_MESSAGE_PROPOSE ? PEER_BULK : PEER_CONTROL;
}

static void send_one(struct raftd *raftd, const struct raft_message *message)
{
    struct talk *talk = &raftd->talk;

    buf_clear(&talk->out);
    raft_wire_encode(&talk->wire, message, &talk->out);
    bool sent = peers_send(raftd->peers, message->to, channel_of(message->kind), peer_raft_type,
            buf_span(&talk->out));
    if (message->kind == RAFT_MESSAGE_APPEND && sent) {
        talk->sent_appends++;
        rates_add(&talk->sent_rates, talk->out.bytes, clock_monotonic_ns());
    }
    if (message->kind == RAFT_MESSAGE_PROPOSE && !sent &&
            message->context == raftd->asking.context) {
        raftd->asking.refusal = RAFT_REFUSAL_NO_LEADER; /* none that can be reached */
    }
}

void talk_send(struct raftd *raftd, struct raft_message_span messages)
{
    for (size_t i = 0; i < messages.count; i++) {
        const struct raft_message *message = &messages.items[i];
        if (message->kind == RAFT_MESSAGE_SNAPSHOT) {
            transfer_begin(raftd, message);
        } else {
            send_one(raftd, message);
        }
    }
    buf_trim(&raftd->talk.out, TALK_BYTES_KEPT);
}

void talk_keep_vows(struct raftd *raftd, const struct raft_vow *vows, size_t count)
{
    struct talk *talk = &raftd->talk;

    if (count == 0) {
        return;
    }
    if (talk->vow_count + count > talk->vow_capacity) {
        talk->vow_capacity = MAX((talk->vow_count + count) * 2, (size_t)32);
        talk->vows = xrealloc(talk->vows, talk->vow_capacity * sizeof *talk->vows);
    }
    for (size_t i = 0; i < count; i++) {
        INVARIANT_EQ(vows[i].message.entries.count, 0); /* nothing in it points anywhere */
        INVARIANT_EQ(vows[i].message.base.members.voters.count, 0);
        talk->vows[talk->vow_count++] = vows[i];
    }
}

static void release(struct raftd *raftd, uint64_t synced_seq, bool hard_only)
{
    struct talk *talk = &raftd->talk;
    size_t kept = 0;

    for (size_t i = 0; i < talk->vow_count; i++) {
        if (talk->vows[i].after_seq <= synced_seq && (talk->vows[i].hard_only || !hard_only)) {
            send_one(raftd, &talk->vows[i].message);
        } else {
            talk->vows[kept++] = talk->vows[i];
        }
    }
    talk->vow_count = kept;
}

void talk_release_vows(struct raftd *raftd, uint64_t synced_seq)
{
    release(raftd, synced_seq, false);
}

void talk_release_votes(struct raftd *raftd, uint64_t synced_seq)
{
    release(raftd, synced_seq, true);
}

/* ---- In ---- */

void talk_step(struct raftd *raftd, const struct raft_message *message)
{
    struct raft_input input;

    raftd_input_init(&input, RAFT_INPUT_MESSAGE);
    input.message = message;
    (void)raftd_step(raftd, &input);
}

/* A leader's heartbeat names no more than what this member has acknowledged to it. One that ends before that has been given an
 * older copy of its data: what it promised with them, votes too, it does not know any more. */
static void check_nothing_forgotten(struct raftd *raftd, const struct raft_message *message)
{
    struct raft_status status;

    raft_get_status(raftd->raft, &status);
    if (message->kind != RAFT_MESSAGE_HEARTBEAT || message->from != status.leader_id ||
            message->term != status.term || message->commit <= status.last_index) {
        return;
    }
    log_event(LOG_LEVEL_CRIT, "raftd.log.forgotten",
            "action=exit error=\"tocommit(%" PRIu64 ") is out of range [lastIndex(%" PRIu64
            ")]. Was the raft log corrupted, truncated, or lost?; %s is older than what this "
            "member "
            "has acknowledged: remove the member, add it again (member remove, member add) and "
            "start "
            "it on an empty data directory\"",
            message->commit, status.last_index, raftd->conf->data_dir);
    raftd_fail(raftd, CONF_EXIT_USAGE);
}

static void on_raft_message(struct raftd *raftd, uint64_t from, struct span body)
{
    struct talk *talk = &raftd->talk;
    struct raft_message message;
    struct err err = { 0 };
    char id[IDS_TEXT_BYTES];

    if (raft_wire_decode(&talk->wire_in, body, membership_change_of, &message, &err) < 0) {
        log_warning_err(&err, "raftd.peer.malformed", "peer=%s action=dropped", ids_text(from, id));
        return;
    }
    if (message.from != from || message.to != raftd->membership.self_id ||
            message.kind == RAFT_MESSAGE_SNAPSHOT) {
        return; /* a snapshot's message comes with its file */
    }
    if (message.kind == RAFT_MESSAGE_APPEND) {
        talk->received_appends++;
        rates_add(&talk->received_rates, body.bytes, clock_monotonic_ns());
    }
    if (!changes_intercept(raftd, &message)) {
        talk_step(raftd, &message);
        check_nothing_forgotten(raftd, &message);
    }
}

/* ---- What was passed on and may be lost ---- */

void talk_ask_end(struct raftd *raftd)
{
    struct raft_status status;
    struct log_end_ask ask = { 0 };
    struct buf *out = &raftd->talk.out;

    raft_get_status(raftd->raft, &status);
    if (status.leader_id == 0 || status.leader_id == status.self_id ||
            !gateways_ask_end(raftd->gateways, status.term, &ask.seq)) {
        return;
    }
    ask.term = status.term;
    buf_clear(out);
    log_end_ask_encode(&ask, out);
    (void)peers_send(raftd->peers, status.leader_id, PEER_BULK, log_end_ask_type, buf_span(out));
}

static void on_log_end_ask(struct raftd *raftd, uint64_t from, struct span body)
{
    struct codec_scratch scratch = { 0 };
    struct log_end_ask ask;
    struct raft_status status;
    struct buf *out = &raftd->talk.out;

    raft_get_status(raftd->raft, &status);
    if (log_end_ask_decode(body, &ask, &scratch, NULL) == 0 && ask.term == status.term &&
            status.role == RAFT_ROLE_LEADER) {
        struct log_end end = { .term = ask.term, .seq = ask.seq, .index = status.last_index };
        buf_clear(out);
        log_end_encode(&end, out);
        (void)peers_send(raftd->peers, from, PEER_CONTROL, log_end_type, buf_span(out));
    }
    codec_scratch_fini(&scratch);
}

static void on_log_end(struct raftd *raftd, struct span body)
{
    struct codec_scratch scratch = { 0 };
    struct log_end end;

    if (log_end_decode(body, &end, &scratch, NULL) == 0) {
        gateways_on_end(raftd->gateways, end.term, end.seq, end.index);
    }
    codec_scratch_fini(&scratch);
}

static void on_message(void *user, uint64_t from, unsigned type, struct span body)
{
    struct raftd *raftd = user;

    if (raftd->exit_status >= 0) {
        return;
    }
    switch (type) {
    case peer_raft_type:
        on_raft_message(raftd, from, body);
        break;
    case log_end_ask_type:
        on_log_end_ask(raftd, from, body);
        break;
    case log_end_type:
        on_log_end(raftd, body);
        break;
    default:
        transfer_on_message(raftd, from, type, body);
        break;
    }
}

static void on_unreachable(void *user, uint64_t peer_id)
{
    struct raftd *raftd = user;
    struct raft_input input;

    gateways_suspect(raftd->gateways);
    raftd_input_init(&input, RAFT_INPUT_UNREACHABLE);
    input.peer_id = peer_id;
    (void)raftd_step(raftd, &input);
}

static void on_reachable(void *user, uint64_t peer_id)
{
    struct raftd *raftd = user;
    struct raft_input input;

    transfer_on_reachable(raftd, peer_id);
    raftd_input_init(&input, RAFT_INPUT_REACHABLE);
    input.peer_id = peer_id;
    (void)raftd_step(raftd, &input);
    gateways_suspect(raftd->gateways);
    talk_ask_end(raftd);
    /* What waits because its leader could not be reached. */
    gateways_retry(raftd->gateways);
    housekeeping_on_reachable(raftd);
}

static void on_removed(void *user, uint64_t by_peer_id)
{
    struct raftd *raftd = user;
    struct raft_status status;

    raft_get_status(raftd->raft, &status);
    struct raft_message message = { .kind = RAFT_MESSAGE_REMOVED,
        .from = by_peer_id,
        .to = raftd->membership.self_id,
        .term = status.term };
    talk_step(raftd, &message);
}

static enum peer_standing standing(void *user, uint64_t member_id)
{
    struct raftd *raftd = user;
    struct raft_status status;
    struct raft_members members;

    raft_get_status(raftd->raft, &status);
    if (raft_get_members_at(raftd->raft, status.commit_index, &members) &&
            raft_ids_have(members.removed, member_id)) {
        return PEER_STANDING_REMOVED;
    }
    raft_get_members(raftd->raft, &members);
    if (raft_ids_have(members.voters, member_id) || raft_ids_have(members.learners, member_id)) {
        return PEER_STANDING_MEMBER;
    }
    return status.role == RAFT_ROLE_LEADER ? PEER_STANDING_STRANGER : PEER_STANDING_UNKNOWN;
}

static void fill_members(void *user, struct buf *out)
{
    struct raftd *raftd = user;
    struct members_list list = { .version = span_str(QUORATE_VERSION) };
    struct buf configuration = BUF_INIT;

    if (raftd->raft != NULL) {
        struct raft_status status;
        struct raft_members members;
        raft_get_status(raftd->raft, &status);
        raft_get_members(raftd->raft, &members);
        membership_encode(&raftd->membership, &members, &configuration);
        list.cluster_id = raftd->membership.cluster_id;
        list.member_id = raftd->membership.self_id;
        list.leader_id = status.leader_id;
        list.configuration = buf_span(&configuration);
        SET(&list, members_list_tag_configuration);
    }
    SET(&list, members_list_tag_version);
    members_list_encode(&list, out);
    buf_fini(&configuration);
}

static const struct peers_events events = {
    .standing = standing,
    .on_message = on_message,
    .on_unreachable = on_unreachable,
    .on_reachable = on_reachable,
    .on_removed = on_removed,
    .fill_members = fill_members,
};

/* ---- Who ---- */

/* Whether its URL is one of ours: whom we replaced, in a log that has not come to its removal yet. */
static bool is_at_home(const struct raftd *raftd, const struct membership_entry *entry)
{
    const struct membership_entry *self =
            membership_find(&raftd->membership, raftd->membership.self_id);

    for (size_t i = 0; self != NULL && self != entry && i < self->url_count; i++) {
        for (size_t j = 0; j < entry->url_count; j++) {
            if (strcmp(self->peer_urls[i], entry->peer_urls[j]) == 0) {
                return true;
            }
        }
    }
    return false;
}

static void want(struct raftd *raftd, struct raft_ids ids)
{
    for (size_t i = 0; i < ids.count; i++) {
        const struct membership_entry *entry = membership_find(&raftd->membership, ids.items[i]);
        if (entry != NULL && entry->url_count > 0 && !is_at_home(raftd, entry)) {
            peers_want(raftd->peers, entry->id, entry->peer_urls, entry->url_count);
        }
    }
}

void talk_on_members_changed(struct raftd *raftd)
{
    struct raft_members members;

    raft_get_members(raftd->raft, &members);
    peers_want_begin(raftd->peers);
    if (members.voters.count > 0) {
        want(raftd, members.voters);
        want(raftd, members.learners);
    } else {
        /* A joiner that has not been told yet: those whom it asked. */
        for (size_t i = 0; i < raftd->membership.count; i++) {
            const struct membership_entry *entry = &raftd->membership.items[i];
            if (!entry->removed) {
                want(raftd, (struct raft_ids){ &entry->id, 1 });
            }
        }
    }
    peers_want_end(raftd->peers);
}

/* ---- Life ---- */

int talk_open(struct raftd *raftd, struct err *err)
{
    return peers_open(
            raftd->loop, raftd->conf, raftd->security, &events, raftd, &raftd->peers, err);
}

void talk_begin(struct raftd *raftd)
{
    struct peers_identity identity = { .cluster_id = raftd->membership.cluster_id,
        .member_id = raftd->membership.self_id };

    peers_begin(raftd->peers, &identity);
    talk_on_members_changed(raftd);
}

void talk_close(struct raftd *raftd)
{
    raftd->peers = peers_close(raftd->peers);
    raft_wire_fini(&raftd->talk.wire);
    raft_wire_fini(&raftd->talk.wire_in);
    buf_fini(&raftd->talk.out);
    free(raftd->talk.vows);
}
