/* transfer.c: brings snapshot files to members that are far behind, and takes them from the leader. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/ids.h"
#include "common/list.h"
#include "common/log.h"
#include "daemons/raftd/incoming.h"
#include "daemons/raftd/raftd_impl.h"
#include "daemons/raftd/outgoing.h"

enum {
    GIVE_UP_ELECTION_TIMEOUTS = 30,
    REFUSED_ELECTION_TIMEOUTS = 5, /* before one that was refused is sent again */
};

/* One member that is being brought a file. */
struct transfer {
    struct list node;
    struct raftd *raftd;
    uint64_t peer_id;
    uint64_t index;
    struct outgoing *
            outgoing; /* NULL: it could not be opened, or was refused; the core is told with a tick */
    uint64_t tell_at_ms; /* not before */
};

struct transfers {
    struct list list;
    struct incoming *incoming;
    struct codec_scratch scratch;
    struct buf out;
};

static struct transfer *find_transfer(struct raftd *raftd, uint64_t peer_id)
{
    LIST_FOREACH (transfer, &raftd->transfers->list, struct transfer, node) {
        if (transfer->peer_id == peer_id) {
            return transfer;
        }
    }
    return NULL;
}

static void free_transfer(struct transfer *transfer)
{
    list_remove(&transfer->node);
    transfer->outgoing = outgoing_free(transfer->outgoing);
    free(transfer);
}

static bool send_to_member(void *user, unsigned type, struct span body)
{
    struct transfer *transfer = user;
    return peers_send(transfer->raftd->peers, transfer->peer_id, PEER_BULK, type, body);
}

/* Tells the core how it ended. */
static void finish(struct transfer *transfer, enum outgoing_state state)
{
    struct raftd *raftd = transfer->raftd;
    struct raft_input input;
    char id[IDS_TEXT_BYTES];

    if (state == OUTGOING_UNDER_WAY) {
        return;
    }
    log_notice(state == OUTGOING_DONE ? "raftd.snapshot.sent" : "raftd.snapshot.not_sent",
            "peer=%s index=%" PRIu64, ids_text(transfer->peer_id, id), transfer->index);
    raftd_input_init(
            &input, state == OUTGOING_DONE ? RAFT_INPUT_SNAPSHOT_SENT : RAFT_INPUT_SNAPSHOT_FAILED);
    input.peer_id = transfer->peer_id;
    free_transfer(transfer);
    (void)raftd_step(raftd, &input);
}

void transfer_begin(struct raftd *raftd, const struct raft_message *message)
{
    struct transfer *transfer = find_transfer(raftd, message->to);
    struct buf configuration = BUF_INIT;
    struct err err = { 0 };
    char path[4200];
    char id[IDS_TEXT_BYTES];

    if (transfer != NULL) {
        free_transfer(transfer);
    }
    transfer = xcalloc(1, sizeof *transfer);
    transfer->raftd = raftd;
    transfer->peer_id = message->to;
    transfer->index = message->base.index;
    list_append(&raftd->transfers->list, &transfer->node);
    (void)snprintf(path, sizeof path, "%.4096s/member/snap/%016" PRIx64 "-%016" PRIx64 ".snap",
            raftd->conf->data_dir, message->base.term, message->base.index);
    buf_clear(&raftd->talk.out);
    raft_wire_encode(&raftd->talk.wire, message, &raftd->talk.out);
    membership_encode(&raftd->membership, &message->base.members, &configuration);
    if (outgoing_new(path, message->base.index, message->base.term, buf_span(&raftd->talk.out),
                buf_span(&configuration), &transfer->outgoing, &err) < 0) {
        log_warning_err(&err, "raftd.snapshot.unreadable", "action=make_another");
    } else {
        log_notice("raftd.snapshot.sending", "peer=%s index=%" PRIu64, ids_text(message->to, id),
                message->base.index);
    }
    buf_fini(&configuration);
}

static uint64_t quiet_ms(const struct raftd *raftd)
{
    return raftd->conf->election_timeout_ms;
}

void transfer_tick(struct raftd *raftd, uint64_t now_ms)
{
    uint64_t give_up_ms = GIVE_UP_ELECTION_TIMEOUTS * raftd->conf->election_timeout_ms;

    LIST_FOREACH (transfer, &raftd->transfers->list, struct transfer, node) {
        enum outgoing_state state =
                now_ms >= transfer->tell_at_ms ? OUTGOING_FAILED : OUTGOING_UNDER_WAY;
        if (transfer->outgoing != NULL) {
            state = outgoing_tick(transfer->outgoing, now_ms, quiet_ms(raftd), give_up_ms,
                    send_to_member, transfer);
        }
        if (state != OUTGOING_UNDER_WAY) {
            finish(transfer, state);
            return; /* the step may have begun another: the list is not what it was */
        }
    }
}

void transfer_on_reachable(struct raftd *raftd, uint64_t peer_id)
{
    struct transfer *transfer = find_transfer(raftd, peer_id);

    if (transfer != NULL && transfer->outgoing != NULL) {
        /* What was under way is lost: ask at once where to go on. */
        finish(transfer, outgoing_tick(transfer->outgoing, clock_monotonic_ms(), 0, UINT64_MAX,
                                 send_to_member, transfer));
    }
}

/* What hindered the member now, a full disk or a file that is damaged, would do so again at once, and the link be full of it. */
static void rest(struct transfer *transfer, uint64_t now_ms)
{
    transfer->outgoing = outgoing_free(transfer->outgoing);
    transfer->tell_at_ms =
            now_ms + REFUSED_ELECTION_TIMEOUTS * transfer->raftd->conf->election_timeout_ms;
}

static void on_want(struct raftd *raftd, uint64_t from, struct span body)
{
    struct transfer *transfer = find_transfer(raftd, from);
    struct snapshot_want want;

    if (snapshot_want_decode(body, &want, &raftd->transfers->scratch, NULL) < 0 ||
            transfer == NULL || transfer->outgoing == NULL ||
            !outgoing_is_of(transfer->outgoing, want.index, want.term)) {
        return;
    }
    uint64_t now_ms = clock_monotonic_ms();
    enum outgoing_state state = outgoing_on_want(
            transfer->outgoing, &want, now_ms, quiet_ms(raftd), send_to_member, transfer);
    if (state == OUTGOING_FAILED) {
        rest(transfer, now_ms);
    } else {
        finish(transfer, state);
    }
}

void transfer_on_message(struct raftd *raftd, uint64_t from, unsigned type, struct span body)
{
    struct transfers *transfers = raftd->transfers;
    struct snapshot_offer offer;
    struct snapshot_chunk chunk;

    codec_scratch_reset(&transfers->scratch);
    switch (type) {
    case snapshot_want_type:
        on_want(raftd, from, body);
        break;
    case snapshot_offer_type:
        if (snapshot_offer_decode(body, &offer, &transfers->scratch, NULL) == 0) {
            incoming_on_offer(transfers->incoming, from, &offer);
        }
        break;
    case snapshot_chunk_type:
        if (snapshot_chunk_decode(body, &chunk, &transfers->scratch, NULL) == 0) {
            incoming_on_chunk(transfers->incoming, from, &chunk);
        }
        break;
    default:
        log_debug("raftd.peer.unknown_message", "type=%u", type);
        break;
    }
}

/* ---- Coming in ---- */

static void answer(void *user, uint64_t to, const struct snapshot_want *want)
{
    struct raftd *raftd = user;

    buf_clear(&raftd->transfers->out);
    snapshot_want_encode(want, &raftd->transfers->out);
    (void)peers_send(
            raftd->peers, to, PEER_CONTROL, snapshot_want_type, buf_span(&raftd->transfers->out));
}

static void on_file(void *user, uint64_t from, struct span encoded, struct span configuration)
{
    struct raftd *raftd = user;
    struct membership others = { 0 };
    struct raft_message message;
    struct err err = { 0 };

    if (raft_wire_decode(&raftd->talk.wire_in, encoded, membership_change_of, &message, &err) < 0 ||
            message.kind != RAFT_MESSAGE_SNAPSHOT || message.from != from ||
            message.to != raftd->membership.self_id) {
        log_warning("raftd.peer.malformed", "what=snapshot action=dropped");
        return;
    }
    if (membership_decode(configuration, &others, &err) == 0) {
        membership_merge(&raftd->membership, &others);
        membership_fini(&others);
    }
    talk_step(raftd, &message);
}

static const struct incoming_events incoming_handlers = {
    .answer = answer,
    .on_file = on_file,
};

int transfer_open(struct raftd *raftd, struct err *err)
{
    char dir[4200];

    (void)err;
    raftd->transfers = xcalloc(1, sizeof *raftd->transfers);
    list_init(&raftd->transfers->list);
    (void)snprintf(dir, sizeof dir, "%.4096s/member/snap", raftd->conf->data_dir);
    raftd->transfers->incoming = incoming_new(raftd->loop, dir, &incoming_handlers, raftd);
    return 0;
}

void transfer_close(struct raftd *raftd)
{
    if (raftd->transfers == NULL) {
        return;
    }
    LIST_FOREACH (transfer, &raftd->transfers->list, struct transfer, node) {
        free_transfer(transfer);
    }
    raftd->transfers->incoming = incoming_free(raftd->transfers->incoming);
    codec_scratch_fini(&raftd->transfers->scratch);
    buf_fini(&raftd->transfers->out);
    free(raftd->transfers);
    raftd->transfers = NULL;
}
