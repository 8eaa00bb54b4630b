/* raftd_impl.h: what the files of this folder share: the one struct that the loop thread owns.
 *
 *   raftd.c         life: recover or bootstrap, open, close
 *   drive.c         raft_step and the duties that come out of it
 *   talk.c          messages to and from other members, vows
 *   transfer.c      snapshot files to and from other members
 *   changes.c       membership changes, from whoever asks to their outcome
 *   housekeeping.c  timers: ticks, sync entries, registration, what gatewayds are told
 *   status_page.c   what raftd says of itself
 *   retention.c     snapshots made, recorded, loaded; how far back the log goes */
#pragma once

#include "common/conf.h"
#include "daemons/raftd/applier.h"
#include "daemons/raftd/backlog.h"
#include "daemons/raftd/gateways.h"
#include "daemons/raftd/membership.h"
#include "daemons/raftd/peer/peers.h"
#include "daemons/raftd/raft/wire.h"
#include "daemons/raftd/raftd.h"
#include "daemons/raftd/rates.h"
#include "daemons/raftd/storage.h"

struct loop;
struct loop_timer;
struct status_server;

/* Contexts of our own proposals; those of gatewayds count from 1. */
#define OWN_CONTEXT (UINT64_C(1) << 63)

/* A snapshot on disk, with all that a base record of it needs. */
struct kept_snapshot {
    uint64_t index;
    uint64_t term;
    uint64_t time_ns;
    struct buf configuration;
};

/* An op of our own, proposed until it is seen committed: registration and the cluster version. */
struct own_op {
    struct buf bytes;
    uint64_t asked_at_ms; /* 0: never */
    uint64_t asked_term;  /* whose leader was asked */
    bool asked_self;      /* who was us; else it was passed on */
    unsigned asked_count;
    bool done;
};

enum {
    TALK_BYTES_KEPT = 4 * 1024 * 1024
};

/* talk.c */
struct talk {
    struct raft_wire wire;
    struct raft_wire wire_in;
    struct buf out;
    struct raft_vow *vows;
    size_t vow_count;
    size_t vow_capacity;
    uint64_t sent_appends;
    uint64_t received_appends;
    struct rates sent_rates; /* of appends */
    struct rates received_rates;
};

struct transfers; /* transfer.c */
struct changes;   /* changes.c */

struct raftd {
    const struct conf *conf;
    struct loop *loop;
    struct raft *raft;
    struct storage *storage;
    struct gateways *gateways;
    struct applier *applier;
    struct security *security;
    struct peers *peers;
    struct talk talk;
    struct transfers *transfers;
    struct changes *changes;
    struct membership membership;
    struct status_server *status;
    int exit_status;
    bool is_stopping;    /* asked to stop: handing leadership over first */
    uint64_t stop_at_ms; /* no later than this */

    /* drive.c */
    bool in_step;
    struct { /* a write that was done within the step that asked for it */
        bool pending;
        uint64_t write_seq;
        uint64_t last_index;
        uint64_t last_term;
    } synced;
    struct { /* the proposal that is being stepped */
        uint64_t context;
        enum raft_refusal refusal;
    } asking;
    bool must_retry;         /* the gatewayds' ops, once the step is over */
    struct raft_need *needs; /* of the core, not answered yet */
    size_t need_count;
    size_t need_capacity;
    bool is_answering; /* the next of them, in a turn to come */
    struct backlog backlog;
    struct raft_entry *entries; /* scratch */
    size_t entry_capacity;
    bool has_failnote; /* of a life before this one; goes with the first write that is synced */
    bool disk_has_space;
    bool state_has_space;
    bool told_writable; /* what the core knows of the two */

    /* housekeeping.c */
    struct loop_timer *tick_timer;
    struct loop_timer *check_timer;
    struct loop_timer *expiry_timer;
    uint64_t start_wall_ns;
    uint64_t leader_since_wall_ns;
    uint64_t last_leader_id;
    uint64_t next_deadline_ns; /* cluster time at which stored wants a sync entry; 0: none */
    uint64_t sync_index;       /* of the sync entry under way; 0: none */
    uint64_t last_entry_time_ns;
    bool has_ttl_keys;
    struct own_op publish;
    struct own_op version;

    /* retention.c */
    struct kept_snapshot *snapshots; /* ascending */
    size_t snapshot_count;
    uint64_t snapshot_recorded_index; /* of the newest that the log has, durably */
    bool is_installing;            /* the log's new base is on its way to the disk */
    uint64_t recovered_last_index; /* where the log ended when this process read it */
    bool stored_was_up;
    uint64_t
            bytes_recovered; /* of entries behind the last snapshot, found in the log at the start */
    uint64_t bytes_at_snapshot; /* storage bytes_appended when the last one was recorded */
};

/* drive.c */
/* What raft_step says. Never from within itself. */
int raftd_step(struct raftd *raftd, struct raft_input *input);
void raftd_input_init(struct raft_input *input, enum raft_input_kind kind);
/* 0 (RAFT_REFUSAL_NONE), or why not. Several ops, each an entry of its own. */
enum raft_refusal raftd_propose(struct raftd *raftd, uint64_t context, enum raft_entry_kind kind,
        const struct span *ops, size_t count);
void raftd_fail(struct raftd *raftd, int exit_status);
extern const struct gateways_events raftd_gateways_events;
extern const struct applier_events raftd_applier_events;
extern const struct storage_events raftd_storage_events;

/* talk.c */
int talk_open(struct raftd *raftd, struct err *err); /* begins to listen */
void talk_begin(struct raftd *raftd);                /* and to dial */
void talk_close(struct raftd *raftd);
void talk_send(struct raftd *raftd, struct raft_message_span messages);
void talk_keep_vows(struct raftd *raftd, const struct raft_vow *vows, size_t count);
void talk_release_vows(struct raftd *raftd, uint64_t synced_seq);
/* Of them only what stands on term and vote alone. */
void talk_release_votes(struct raftd *raftd, uint64_t synced_seq);
void talk_step(struct raftd *raftd, const struct raft_message *message);
void talk_on_members_changed(struct raftd *raftd);
/* Asks the leader where its log ends, if something that was passed on to it may be lost. */
void talk_ask_end(struct raftd *raftd);

/* transfer.c */
int transfer_open(struct raftd *raftd, struct err *err);
void transfer_close(struct raftd *raftd);
void transfer_begin(struct raftd *raftd, const struct raft_message *message);
void transfer_on_message(struct raftd *raftd, uint64_t from, unsigned type, struct span body);
void transfer_on_reachable(struct raftd *raftd, uint64_t peer_id);
void transfer_tick(struct raftd *raftd, uint64_t now_ms);

/* changes.c */
void changes_open(struct raftd *raftd);
void changes_close(struct raftd *raftd);
/* A gatewayd asks for one. */
void changes_begin(struct raftd *raftd, uint64_t context, struct span op);
/* Looks at a message before the core does: true if it ends here. */
bool changes_intercept(struct raftd *raftd, const struct raft_message *message);
/* The core or the leader did not take it. False: it is none of ours. */
bool changes_on_refused(struct raftd *raftd, uint64_t context, enum raft_refusal reason);
void changes_tick(struct raftd *raftd, uint64_t now_ms);
/* The core finds that this learner has caught up. */
void changes_promote(struct raftd *raftd, uint64_t learner_id);

/* housekeeping.c */
int housekeeping_start(struct raftd *raftd, struct err *err);
void housekeeping_stop(struct raftd *raftd);
void housekeeping_on_removed(struct raftd *raftd);
/* The leader did not take what we had passed on to it. */
void housekeeping_on_own_refused(struct raftd *raftd);
void housekeeping_stop_soon(struct raftd *raftd); /* hands leadership over first */
void housekeeping_on_state_changed(struct raftd *raftd);
void housekeeping_on_reachable(struct raftd *raftd); /* another member, perhaps the leader */
void housekeeping_on_entries(struct raftd *raftd, struct raft_entry_span entries);
void housekeeping_on_applied(struct raftd *raftd, const struct apply_done *done);
void housekeeping_fill_state(struct raftd *raftd, struct buf *out);
uint64_t raftd_request_timeout_ms(const struct raftd *raftd);

/* status_page.c */
int status_page_start(struct raftd *raftd, struct err *err);
void status_page_stop(struct raftd *raftd);

/* retention.c */
int retention_recover(
        struct raftd *raftd, const struct storage_recovered *recovered, struct err *err);
void retention_fini(struct raftd *raftd);
/* stored said hello: go on with its state, or have it load another. */
void retention_on_stored_up(struct raftd *raftd, const struct hello *peer);
void retention_on_snapshot_made(struct raftd *raftd, const struct snapshot_made *made);
void retention_on_snapshot_bad(struct raftd *raftd, const struct snapshot_bad *bad);
void retention_on_recorded(struct raftd *raftd, const struct storage_snapshot *snapshot);
/* stored's state stands at (index, term) and waits for what follows. */
void retention_on_stored_at(struct raftd *raftd, uint64_t index, uint64_t term);
uint64_t retention_log_bytes(const struct raftd *raftd);
/* The log now begins at a snapshot that came from the leader: stored is to load it. */
void retention_on_install(struct raftd *raftd, const struct raft_base *base);
