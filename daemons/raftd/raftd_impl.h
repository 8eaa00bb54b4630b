/* raftd_impl.h: what the files of this folder share: the one struct that the loop thread owns.
 *
 *   raftd.c         life: recover or bootstrap, open, close
 *   drive.c         raft_step and the duties that come out of it
 *   housekeeping.c  timers: ticks, sync entries, registration, what gatewayds are told
 *   retention.c     snapshots made, recorded, loaded; how far back the log goes */
#pragma once

#include "common/conf.h"
#include "daemons/raftd/applier.h"
#include "daemons/raftd/gateways.h"
#include "daemons/raftd/membership.h"
#include "daemons/raftd/raftd.h"
#include "daemons/raftd/storage.h"

struct loop;
struct loop_timer;

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
    uint64_t asked_term;  /* of our own leadership when asked; 0: passed on to another leader */
    bool done;
};

struct raftd {
    const struct conf *conf;
    struct loop *loop;
    struct raft *raft;
    struct storage *storage;
    struct gateways *gateways;
    struct applier *applier;
    struct membership membership;
    int exit_status;

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
    struct raft_entry *entries; /* scratch */
    size_t entry_capacity;
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
    uint64_t refused_load_index; /* snapshots from here on could not be loaded; 0: none */
    uint64_t bytes_at_snapshot;  /* storage bytes_appended when the last one was recorded */
};

/* drive.c */
void raftd_step(struct raftd *raftd, struct raft_input *input);
void raftd_input_init(struct raft_input *input, enum raft_input_kind kind);
/* 0 (RAFT_REFUSAL_NONE), or why not. Several ops, each an entry of its own. */
enum raft_refusal raftd_propose(struct raftd *raftd, uint64_t context, enum raft_entry_kind kind,
        const struct span *ops, size_t count);
void raftd_fail(struct raftd *raftd, int exit_status);
extern const struct gateways_events raftd_gateways_events;
extern const struct applier_events raftd_applier_events;
extern const struct storage_events raftd_storage_events;

/* housekeeping.c */
int housekeeping_start(struct raftd *raftd, struct err *err);
void housekeeping_stop(struct raftd *raftd);
void housekeeping_on_state_changed(struct raftd *raftd);
void housekeeping_on_entries(struct raftd *raftd, struct raft_entry_span entries);
void housekeeping_on_applied(struct raftd *raftd, const struct apply_done *done);
void housekeeping_fill_state(struct raftd *raftd, struct buf *out);
uint64_t raftd_request_timeout_ms(const struct raftd *raftd);

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
