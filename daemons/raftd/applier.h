/* applier.h: raftd's side of apply.ipc: brings committed entries to stored and hears what it has applied.
 *
 * Entries are encoded as they are handed in, and sent in batches clocked by stored itself: at once when nothing is
 * unapplied, else when as much has gathered as is unapplied. What is gathered dies with the link: after the next hello
 * raft hands out again from where stored is. A link on which unapplied entries do not move for a second is dropped.
 * Loop thread only. */
#pragma once

#include "daemons/raftd/raft/raft.h"
#include "proto/apply.h"

struct applier;
struct conf_uids;
struct hello;
struct loop;

struct applier_events {
    void (*fill_hello)(void *user, struct hello *ret_hello);
    /* stored is there, with a state at `position`: answer with applier_go or applier_load. */
    void (*on_up)(void *user, const struct hello *peer);
    void (*on_down)(void *user);
    /* stored waits for what follows (index, term): a load is done, or what was sent did not continue its state. */
    void (*on_resume)(void *user, uint64_t index, uint64_t term);
    void (*on_done)(void *user, const struct apply_done *done);
    void (*on_snapshot_made)(void *user, const struct snapshot_made *made);
    void (*on_snapshot_bad)(void *user, const struct snapshot_bad *bad);
};

/* uids: whose process may connect. */
int applier_open(struct loop *loop, const char *path, const struct conf_uids *uids,
        const struct applier_events *events, void *user, struct applier **ret_applier,
        struct err *err);
struct applier *applier_close(struct applier *applier); /* always NULL, accepts NULL */

bool applier_is_up(const struct applier *applier);

/* The state goes on as it is, from (index, term). */
void applier_go(struct applier *applier, uint64_t cluster_id, uint64_t member_id, uint64_t index,
        uint64_t term);
/* The state is to be replaced by this snapshot (index 0: by an empty one); apply_done follows. Reads
 * wait until complete_at is applied (0: they need not). */
void applier_load(struct applier *applier, uint64_t index, uint64_t term, uint64_t complete_at);
void applier_snapshot_recorded(struct applier *applier, uint64_t index, uint64_t term);

/* Committed entries that follow what was handed in before (or (prev_index, prev_term) after go and load). Copied. */
void applier_add(struct applier *applier, struct raft_entry_span entries);

/* Sends what may go now. Called at the turn's end and after progress. log_bytes: see apply.def. */
void applier_flush(struct applier *applier, uint64_t log_bytes);

/* Drops a link that stands still. Call a few times a second. */
void applier_check(struct applier *applier, uint64_t now_ms);
