/* core.h: what the files of the core share: its whole state, and who does what.
 *
 *   raft.c       life, dispatch of inputs, looking in
 *   outbox.c     collects the duties of a step and turns them into the ready
 *   vote.c       terms, elections, what a follower owes a leader it hears
 *   follow.c     appends, heartbeats and snapshots received
 *   lead.c       the leader's ticks, its peers, quorums and what is committed
 *   replicate.c  what to send to which peer, and what its answers mean
 *   propose.c    proposals, configuration changes, leadership transfer
 *   read.c       read indexes
 *   apply.c      durability, and what is handed to the state machine */
#pragma once

#include "daemons/raftd/raft/clusterclock.h"
#include "daemons/raftd/raft/log.h"
#include "daemons/raftd/raft/members.h"
#include "daemons/raftd/raft/raft.h"
#include "daemons/raftd/raft/vec.h"

/* What a leader knows of another member. */
struct raft_peer {
    uint64_t id;
    uint64_t match;
    uint64_t next;
    enum raft_progress_state state;
    bool is_voter;
    bool active;             /* heard from since the last quorum check */
    bool probe_sent;         /* PROBE: waits for an answer or a heartbeat's */
    bool read_pending;       /* asked the shell for entries from disk */
    uint64_t leaving_index;  /* not 0: removed by this entry, to be told so and then forgotten */
    uint32_t leaving_ticks;  /* how long it is kept at most */
    uint64_t commit_sent;    /* the highest commit index it was sent */
    uint64_t snapshot_index; /* SNAPSHOT: under way */
    bool no_space; /* its last heartbeat's answer said so: entries would be sent for nothing */
    uint64_t round_sent;  /* the newest that it was asked for ... */
    uint64_t round_acked; /* ... and that it answered */
    uint64_t
            round_leased; /* the newest for which it promised to elect nobody else for as long as we count on it */
    uint64_t wall_ns;      /* its wall clock, when we were told of it ... */
    uint64_t wall_seen_ns; /* ... by our now_ns */
    bool wall_fresh;       /* ... since the last heartbeat tick */
    uint64_t *
            inflight; /* ring of the last indexes of unanswered appends; inflight_max long, owned */
    uint32_t inflight_head;
    uint32_t inflight_count;
    size_t append_bytes; /* of one append now; at most append_bytes_max */
};

struct raft_vote_seen {
    uint64_t id;
    bool granted;
};

/* A wall clock that came with a vote: where it is now is known from how long ago that was. */
struct raft_clock_seen {
    uint64_t id;
    uint64_t wall_ns;
    uint64_t seen_ns;
};

struct raft_cut_mark {
    uint64_t seq;
    uint64_t index;
};

/* A read that waits: on the leader for a round, on a follower for the leader's answer. */
struct raft_read {
    uint64_t context;
    uint64_t from;  /* 0: asked here; else the follower that asked, ... */
    uint64_t epoch; /* ... in this life of its */
    uint64_t index; /* 0: waits for the leader's first commit */
    uint64_t round;
};

/* How much was handed to apply up to which index, to know what APPLIED gives back. */
struct raft_handed {
    uint64_t last_index;
    size_t bytes;
};

/* When a heartbeat round began; the lease counts from there. */
struct raft_round {
    uint64_t round;
    uint64_t sent_ns;
};
enum {
    RAFT_ROUNDS_KEPT = 32
};

/* The duties of this step so far. Entries of the log are noted by index, since the log's memory may yet move. */
struct raft_outbox {
    struct raft_message *sends;
    size_t send_count;
    size_t send_capacity;
    struct raft_vow *vows;
    size_t vow_count;
    size_t vow_capacity;
    struct raft_grant *grants;
    size_t grant_count;
    size_t grant_capacity;
    struct raft_refused *reads_refused;
    size_t read_refused_count;
    size_t read_refused_capacity;
    struct raft_refused *refused;
    size_t refused_count;
    size_t refused_capacity;
    struct raft_need *needs;
    size_t need_count;
    size_t need_capacity;
    uint64_t append_first; /* 0: nothing appended */
    uint64_t cut_index;
    bool cut;
    bool rebased;
    bool install;
    bool members_changed;
    bool time_begun; /* proposals are taken from now on */
    uint64_t promote_id;
    struct raft_entry_span apply;
    /* To notice changes. */
    uint64_t term_before;
    uint64_t leader_before;
    enum raft_role role_before;
};

struct raft {
    struct raft_options options;
    struct raft_log log;
    struct member_history history;
    struct clusterclock clock;
    uint64_t clock_term; /* whose leader told it; of this life */
    uint64_t
            timeless_index; /* the last entry without a time: those of a cluster's very beginning have none */
    uint64_t rng;
    bool stepped; /* raft_load_entries is over */
    bool writable;
    bool removed;
    uint64_t now_ns;
    uint64_t wall_ns;

    /* Term and role. */
    uint64_t term;
    uint64_t vote;
    enum raft_role role;
    uint64_t leader_id;
    uint64_t leader_changes;
    uint64_t heard_ns; /* from a leader; at the start with lease_read, as if from one */
    uint32_t election_elapsed;
    uint32_t election_timeout; /* in ticks, drawn anew for each wait */
    struct raft_vote_seen *votes;
    size_t vote_count;
    size_t vote_capacity;
    struct raft_clock_seen *clocks; /* of this candidacy, its pre-vote included */
    size_t clock_count;
    size_t clock_capacity;
    uint64_t campaign_seq; /* our vote for ourselves counts once this is synced; 0: none waits */
    struct id_set removal_witnesses; /* who told us that we are out */

    /* Writes. */
    struct raft_hard_state hard_written; /* as the newest write has it */
    uint64_t last_seq;
    uint64_t synced_seq;
    uint64_t hard_seq; /* the newest write that changed term or vote */
    uint64_t
            hard_synced_seq; /* term and vote of this write are on disk, though it may wait itself */
    struct raft_cut_mark *cuts; /* of writes that are not synced yet, ascending */
    size_t cut_count;
    size_t cut_capacity;
    uint64_t durable;      /* the log is on disk up to here */
    struct raft_base base; /* made up for ready.write.base and ready.install; time_ns is kept */
    uint64_t install_seq;  /* not 0: the base of this write is not synced yet */

    /* Commit and apply. */
    uint64_t commit;
    bool applying; /* the state machine is there */
    bool apply_read_pending;
    uint64_t handed;  /* the last entry handed to it */
    uint64_t applied; /* the last one it has reported */
    struct raft_handed *handed_items;
    size_t handed_head;
    size_t handed_count;
    size_t handed_capacity;
    size_t handed_bytes;
    uint64_t snapshot_index; /* the newest one that the shell can send */
    uint64_t snapshot_term;

    /* Leader. */
    struct raft_peer *peers; /* everyone but self, those that leave too */
    size_t peer_count;
    size_t peer_capacity;
    uint64_t *match_scratch;
    size_t match_capacity;
    int64_t *offset_scratch;
    size_t offset_capacity;
    uint64_t
            lead_index; /* our first entry of this term: nothing is ours to answer for before its commit */
    uint32_t heartbeat_elapsed;
    size_t uncommitted_bytes;
    uint64_t transfer_to;
    bool lease_void; /* a TimeoutNow of this term is about: it may overtake any lease */
    bool step_time;
    bool led_before; /* the lone member's step to the wall clock is over */
    uint64_t round;  /* newest heartbeat round */
    struct raft_round rounds[RAFT_ROUNDS_KEPT];

    /* Reads. On a follower, round counts the questions sent to the leader. */
    struct raft_read *reads;
    size_t read_count;
    size_t read_capacity;
    uint64_t read_round;
    uint64_t read_epoch; /* random: answers to questions of an earlier life are not ours */
    uint32_t read_ticks; /* since the last question */

    uint64_t proposals_refused;
    uint64_t messages_ignored;
    struct raft_outbox out;
};

/* Whether cluster time has begun for good: an entry that bears it is committed. */
static inline bool raft_has_time(const struct raft *raft)
{
    return raft->commit > raft->timeless_index;
}

/* outbox.c */
void raft_outbox_begin(struct raft *raft);
void raft_outbox_finish(struct raft *raft, struct raft_ready *ret_ready);
void raft_outbox_fini(struct raft_outbox *out);
/* A message to be filled in at once; the pointer lives until the next of these calls. Its entries may be set to
 * {NULL, n}: the n entries of the log after message->index. A vow goes out once all that is written so far, and what
 * this step writes, is synced; a vote once term and vote are. */
struct raft_message *raft_send(struct raft *raft, enum raft_message_kind kind, uint64_t to);
struct raft_message *raft_vow(struct raft *raft, enum raft_message_kind kind, uint64_t to);
void raft_grant_read(struct raft *raft, uint64_t context, uint64_t index);
void raft_refuse_read(struct raft *raft, uint64_t context, enum raft_refusal reason);
void raft_refuse_proposal(struct raft *raft, uint64_t context, enum raft_refusal reason);
/* The log as this step writes it. Each keeps history and outbox in line. */
void raft_write_append(
        struct raft *raft, struct raft_entry_span entries, const struct raft_log_stamp *stamp);
void raft_write_cut(struct raft *raft, uint64_t index);
void raft_write_base(struct raft *raft, const struct raft_base *base);

/* vote.c */
void raft_become_follower(struct raft *raft, uint64_t term, uint64_t leader_id);
void raft_vote_tick(struct raft *raft);
void raft_vote_synced(struct raft *raft);
bool raft_vote_in_lease(const struct raft *raft);
void raft_vote_on_request(struct raft *raft, const struct raft_message *message);
void raft_vote_on_reply(struct raft *raft, const struct raft_message *message);
void raft_vote_on_timeout_now(struct raft *raft, const struct raft_message *message);
void raft_vote_on_removed(struct raft *raft, const struct raft_message *message);
void raft_reset_election_timer(struct raft *raft);
bool raft_is_lone_voter(const struct raft *raft);

/* follow.c */
void raft_follow_on_append(struct raft *raft, const struct raft_message *message);
void raft_follow_on_heartbeat(struct raft *raft, const struct raft_message *message);
void raft_follow_on_reachable(struct raft *raft, uint64_t peer_id);
void raft_follow_on_snapshot(struct raft *raft, const struct raft_message *message);

/* lead.c */
void raft_lead_begin(struct raft *raft);
void raft_lead_tick(struct raft *raft);
void raft_lead_sync_peers(struct raft *raft);
void raft_lead_advance_commit(struct raft *raft);
void raft_lead_heartbeat(struct raft *raft);
void raft_lead_on_reachable(struct raft *raft, uint64_t peer_id);
void raft_lead_on_heartbeat_reply(struct raft *raft, const struct raft_message *message);
void raft_lead_begin_round(
        struct raft *raft); /* between ticks: for those that have answered the last one */
uint64_t raft_lead_quorum_round(struct raft *raft);
bool raft_lead_has_lease(struct raft *raft);
struct raft_peer *raft_lead_find_peer(struct raft *raft, uint64_t id);
void raft_lead_drop_peers(struct raft *raft);
static inline bool raft_lead_is_ready(const struct raft *raft)
{
    return raft->role == RAFT_ROLE_LEADER && raft->commit >= raft->lead_index;
}
/* For how long whoever has heard a leader elects nobody else. */
static inline uint64_t raft_lease_ns(const struct raft *raft)
{
    return raft->options.tick_ns * raft->options.election_ticks;
}
static inline const struct members *raft_members_now(const struct raft *raft)
{
    return member_history_current(&raft->history);
}

/* replicate.c */
void raft_replicate(struct raft *raft, struct raft_peer *peer);
void raft_replicate_all(struct raft *raft);
void raft_replicate_probe(struct raft *raft, struct raft_peer *peer);
void raft_replicate_commit_notice(struct raft *raft, struct raft_peer *peer);
void raft_replicate_on_reply(struct raft *raft, const struct raft_message *message);
void raft_replicate_on_heartbeat(
        struct raft *raft, struct raft_peer *peer, const struct raft_message *message);
void raft_replicate_on_unreachable(struct raft *raft, uint64_t peer_id);
void raft_replicate_on_snapshot_sent(struct raft *raft, uint64_t peer_id);
void raft_replicate_on_snapshot_failed(struct raft *raft, uint64_t peer_id);
void raft_replicate_on_read(
        struct raft *raft, uint64_t peer_id, uint64_t first, struct raft_entry_span entries);

/* propose.c */
void raft_propose(struct raft *raft, const struct raft_proposal *proposal);
void raft_propose_on_message(struct raft *raft, const struct raft_message *message);
void raft_propose_on_refused(struct raft *raft, const struct raft_message *message);
uint64_t raft_propose_stamp(struct raft *raft);
void raft_transfer_begin(struct raft *raft, uint64_t to);
void raft_transfer_check(struct raft *raft, const struct raft_peer *peer);
void raft_promote_check(struct raft *raft);

/* read.c */
void raft_read_begin(struct raft *raft, struct raft_ids contexts);
void raft_read_on_message(struct raft *raft, const struct raft_message *message);
void raft_read_on_reply(struct raft *raft, const struct raft_message *message);
void raft_read_on_round(struct raft *raft); /* the leader's quorum answered, or it became ready */
void raft_read_refuse_all(struct raft *raft, enum raft_refusal reason); /* the leader changed */
void raft_read_tick(struct raft *raft);

/* apply.c */
void raft_apply_synced(struct raft *raft, uint64_t seq, uint64_t last_index, uint64_t last_term);
void raft_apply_commit_to(struct raft *raft, uint64_t index); /* only up, never beyond the log */
int raft_apply_resume(struct raft *raft, uint64_t index, uint64_t term);
void raft_apply_pause(struct raft *raft);
void raft_apply_on_applied(struct raft *raft, uint64_t index);
void raft_apply_on_read(struct raft *raft, uint64_t first, struct raft_entry_span entries);
void raft_apply_hand(struct raft *raft); /* at the end of each step */
/* Entries read from disk: as many of them as continue from `first` and are of the log as it is now. */
size_t raft_apply_check_read(
        const struct raft *raft, uint64_t first, struct raft_entry_span entries);
