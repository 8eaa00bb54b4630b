/* raft.h: the consensus core. A pure state machine: one input in, one record of duties (ready) out.
 *
 * It sees no clock, socket, file, thread, log or global. Time comes with each input, randomness from a seed. Whoever
 * drives it (the shell) owns all effects. Running out of memory aborts (common/buf.h), nothing else fails inside;
 * what peers send is checked and, where it cannot be right, ignored and counted.
 *
 *   raft_new -> raft_load_entries* -> raft_step(input) -> do the duties of the ready -> raft_step ...
 *
 * Memory. Every span and array of an input is borrowed for the call (and, see below, until its ready has been done);
 * what the core keeps it copies, one allocation for a batch of entries. Everything a ready points to belongs to the
 * core or to the input of the same step, and is valid until the next raft_step: so keep an input's memory until its
 * ready's duties are done or copied. The core holds the newest entries' data (cache_bytes_max); older ones stay
 * in the log on disk only and are asked for with ready.need.
 *
 * Order. The writes of successive readies go to the disk in order, each as one unit (hard state, base, cut and
 * entries together); several may be queued. A synced write makes all before it synced. One thing may go ahead of a write that has to
 * wait for space, and of those before it: its term and vote, with the commit index of the last write that is synced. That
 * makes hard_only vows good, for whom it is as if what waits had never come. What waits must then be written with that term and
 * vote, or it would take them back. */
#pragma once

#include "common/span.h"

struct raft;

/* ---- The log -------------------------------------------------------------------------------------------------- */

/* The same numbers as enum entry_kind of proto/apply.h. */
enum raft_entry_kind {
    RAFT_ENTRY_EMPTY = 0,  /* a new leader's first, made by the core */
    RAFT_ENTRY_OP = 1,     /* opaque */
    RAFT_ENTRY_CONFIG = 2, /* bears a raft_change beside its opaque data */
};

/* What a configuration entry does to the membership. The shell reads it from the entry's data (raft_wire does) when
 * it proposes, receives or loads one; data it cannot read is NOTHING, on every member alike. A change that does not
 * fit the configuration it meets (add of a known or removed id, promotion of no learner ...) has no effect. */
enum raft_change_kind {
    RAFT_CHANGE_NOTHING = 0, /* peer URLs and the like */
    RAFT_CHANGE_ADD_LEARNER = 1,
    RAFT_CHANGE_PROMOTE = 2, /* a learner becomes a voter */
    RAFT_CHANGE_REMOVE = 3,  /* for ever: the id is never valid again */
};

struct raft_change {
    enum raft_change_kind kind;
    uint64_t member_id;
};

struct raft_entry {
    uint64_t index;
    uint64_t term;
    uint64_t time_ns; /* cluster time, stamped by the leader, never falling along the log */
    enum raft_entry_kind kind;
    struct raft_change change; /* only with RAFT_ENTRY_CONFIG */
    struct span data;
};

struct raft_entry_span {
    const struct raft_entry *items;
    size_t count;
};

struct raft_ids {
    const uint64_t *items;
    size_t count;
};

static inline bool raft_ids_have(struct raft_ids ids, uint64_t id)
{
    for (size_t i = 0; i < ids.count; i++) {
        if (ids.items[i] == id) {
            return true;
        }
    }
    return false;
}

/* Who is in the cluster. On the way in any order; handed out ascending. */
struct raft_members {
    struct raft_ids voters;
    struct raft_ids learners;
    struct raft_ids removed;
};

/* Where a log begins (or a snapshot stands): the state up to and with `index`, and who was a member there. */
struct raft_base {
    uint64_t index; /* 0: nothing came before */
    uint64_t term;
    uint64_t time_ns; /* cluster time there */
    struct raft_members members;
};

struct raft_hard_state {
    uint64_t term;
    uint64_t vote;   /* 0: none in this term */
    uint64_t commit; /* rides along with other writes; may lag behind */
};

/* ---- Creation ------------------------------------------------------------------------------------------------- */

struct raft_options {
    uint64_t self_id; /* never 0 */
    uint64_t seed;
    uint64_t tick_ns;         /* how far apart the shell's ticks are */
    uint32_t election_ticks;  /* a follower waits [n, 2n) ticks; >= 2 * heartbeat_ticks */
    uint32_t heartbeat_ticks; /* >= 1 */
    bool pre_vote;
    bool check_quorum; /* a leader that hears no quorum for an election timeout steps down */
    bool lease_read; /* reads without a round while a quorum that keeps leases has answered lately; needs check_quorum */
    bool fast_start; /* a lone voter campaigns with the first tick, others start nearer to their timeout */
    uint32_t inflight_max;   /* unanswered appends per peer */
    size_t append_bytes_max; /* data per append message (one larger entry may exceed it) */
    size_t probe_bytes_max; /* what an append's entries may cost that is said again with each heartbeat until it is answered */
    size_t apply_bytes_max;        /* data per ready.apply */
    size_t apply_window_bytes_max; /* data handed to apply and not reported applied */
    size_t cache_bytes_max;        /* data of entries kept in memory beyond need */
    size_t uncommitted_bytes_max;  /* a leader refuses proposals above */
    uint64_t
            promote_within; /* a learner closer than this many entries is due for promotion: 1000 */
};

/* Sound values for all but self_id and seed: 100 ms ticks, election 10, heartbeat 1, everything safe on. */
extern const struct raft_options raft_options_default;

/* hard and base as they came from disk (all zero but base.members for a new cluster; empty members for one that is to
 * be joined: it waits to be told). Both are copied. */
struct raft *raft_new(const struct raft_options *options, const struct raft_hard_state *hard,
        const struct raft_base *base);
struct raft *raft_free(struct raft *raft); /* always NULL, accepts NULL */

/* Appends entries that are durable on disk already, continuing base or the call before. Only before the first step;
 * data is copied as far as the cache goes; data.data NULL with data.bytes > 0 means that it is on disk only, and then none
 * is cached. -EINVAL: index or term does not continue. */
int raft_load_entries(struct raft *raft, struct raft_entry_span entries);

/* ---- Messages between members --------------------------------------------------------------------------------- */

enum raft_message_kind {
    RAFT_MESSAGE_PRE_VOTE =
            1, /* index, log_term: the sender's last entry; term: the one it would begin */
    RAFT_MESSAGE_PRE_VOTE_REPLY = 2, /* wall_ns: the peer's own clock */
    RAFT_MESSAGE_VOTE = 3,           /* the same; transfer: past lease and pre-vote */
    RAFT_MESSAGE_VOTE_REPLY = 4,     /* likewise */
    RAFT_MESSAGE_APPEND =
            5, /* entries after (index, log_term); commit; base.members where index is 0 */
    RAFT_MESSAGE_APPEND_REPLY =
            6, /* index: matches up to here; or reject of `index`, hint_index and hint_term */
    RAFT_MESSAGE_HEARTBEAT =
            7, /* commit (never beyond what the peer has), context: round, time_ns */
    RAFT_MESSAGE_HEARTBEAT_REPLY =
            8, /* context: the round; wall_ns: the peer's own clock; index: its last entry; time_ns: for so long after it
                * heard the round it elects nobody else, 0: it does not promise; reason: no space, it takes no entries now */
    RAFT_MESSAGE_SNAPSHOT = 9,     /* base: see ready.send */
    RAFT_MESSAGE_TIMEOUT_NOW = 10, /* campaign at once */
    RAFT_MESSAGE_PROPOSE =
            11, /* a follower passes entries on to the leader of `term`, no other takes them; context of the proposal */
    RAFT_MESSAGE_PROPOSE_REFUSED = 12, /* context, reason */
    RAFT_MESSAGE_READ =
            13, /* a follower asks the leader for a read index; context: its own round */
    RAFT_MESSAGE_READ_REPLY = 14, /* context, index; or reject */
    RAFT_MESSAGE_REMOVED = 15,    /* "you are no member any more" */
    RAFT_MESSAGE_KIND_END,
};

struct raft_message {
    enum raft_message_kind kind;
    bool reject;
    bool transfer;
    uint32_t reason; /* enum raft_refusal */
    uint64_t from;
    uint64_t to;
    uint64_t term;
    uint64_t index;
    uint64_t log_term;
    uint64_t commit;
    uint64_t hint_index;
    uint64_t hint_term;
    uint64_t context;
    uint64_t time_ns;
    uint64_t wall_ns;
    struct raft_entry_span entries;
    struct raft_base base; /* with SNAPSHOT; of an APPEND at index 0 the members */
};

struct raft_message_span {
    const struct raft_message *items;
    size_t count;
};

/* ---- Inputs --------------------------------------------------------------------------------------------------- */

enum raft_input_kind {
    RAFT_INPUT_TICK = 1,
    RAFT_INPUT_MESSAGE, /* message; .to must be self. The link has checked cluster id and that .from is the sender */
    RAFT_INPUT_PROPOSE, /* proposal: all the ops of a turn, one allocation; passed on if a leader is known, else refused */
    RAFT_INPUT_READ,    /* reads: each context is granted or refused exactly once */
    RAFT_INPUT_SYNCED,  /* synced: a write, and all before it, are on disk */
    RAFT_INPUT_APPLIED, /* position: the state machine has applied up to index */
    RAFT_INPUT_APPLY_RESUME, /* position: the state machine is there and waits for what follows (its hello, or a snapshot
                              * is loaded). Nothing is handed to apply before the first. Also after entries were lost on the
                              * way: hands them again. Raises commit to index.
                              * -ESTALE: behind the base, install the snapshot (ready.install says which, if one is there).
                              * -ERANGE: beyond the log or another term: that state is not of this log. */
    RAFT_INPUT_APPLY_PAUSE,  /* the state machine is gone; nothing to apply until it resumes */
    RAFT_INPUT_ENTRIES_READ, /* read: answers one item of ready.need */
    RAFT_INPUT_SNAPSHOT_MADE, /* position: a snapshot of our own state up to there is durable and in the log */
    RAFT_INPUT_LOG_COMPACTED, /* position: entries up to index are no longer in the log on disk; it must be <= applied
                               * and covered by a snapshot */
    RAFT_INPUT_UNREACHABLE,     /* peer_id: what was sent to it may be lost */
    RAFT_INPUT_SNAPSHOT_FAILED, /* peer_id: the transfer that ready.send asked for came to nothing */
    RAFT_INPUT_TRANSFER, /* peer_id: hand leadership over (0: to whoever is furthest); ignored unless leader */
    RAFT_INPUT_WRITABLE, /* writable: false when the disk is full: proposals are refused, no entries taken from a leader,
                              * a leader hands over if it can; term and vote are still written (the shell keeps a reserve) */
    RAFT_INPUT_STEP_TIME, /* the next leader stamp steps to the wall clock, if that is forward (restore, import) */
    RAFT_INPUT_REACHABLE, /* peer_id: what is sent to it gets there again: the leader and it need not wait for a heartbeat */
    RAFT_INPUT_SNAPSHOT_SENT, /* peer_id: the transfer is over, the peer's shell has stepped the message. Each transfer
                               * ends with this or SNAPSHOT_FAILED, or nothing more is ever sent to the peer */
};

/* Of one proposal the entries' kind, change and data are read; index, term and time are given by the leader.
 * A RAFT_ENTRY_CONFIG must come alone. */
struct raft_proposal {
    uint64_t context; /* the shell's own; comes back in ready.refused */
    struct raft_entry_span entries;
};

struct raft_input {
    enum raft_input_kind kind;
    uint64_t now_ns;  /* CLOCK_BOOTTIME when the event came; never falling */
    uint64_t wall_ns; /* CLOCK_REALTIME; only cluster time looks at it */
    union {
        const struct raft_message *message;
        struct raft_proposal proposal;
        struct raft_ids reads; /* contexts */
        struct {
            uint64_t write_seq;
            uint64_t last_index; /* as in that write's raft_write */
            uint64_t last_term;
            bool hard_only; /* only its term and vote are, and with them those of all before it */
        } synced;
        struct {
            uint64_t index;
            uint64_t term;
        } position;
        struct {
            uint64_t peer_id; /* as in the raft_need: 0 is for apply */
            uint64_t first;
            struct raft_entry_span
                    entries; /* as many as were read, from `first` on; none: they are gone or unreadable */
        } read;
        uint64_t peer_id;
        bool writable;
    };
};

/* ---- Ready: the shell's duties, in this order ----------------------------------------------------------------- */

/* One write, to be done as one unit and synced once. Nothing to do when seq is 0. */
struct raft_write {
    uint64_t seq; /* grows by one with each write */
    struct raft_hard_state
            hard;      /* always complete; write it when hard_changed, or for free with the rest */
    bool hard_changed; /* term or vote */
    bool cut; /* entries after cut_index are no longer in the log (conflict with a leader) */
    uint64_t cut_index;
    /* Not NULL: the log begins anew here, all older entries are void: a snapshot; or, at index 0, a member that joins has
     * learned who the first members were. */
    const struct raft_base *base;
    struct raft_entry_span append; /* they follow cut_index, base->index, or the log as it was */
    uint64_t last_index; /* of the log after this write; give both back with RAFT_INPUT_SYNCED */
    uint64_t last_term;
};

/* A promise to a peer: to be sent only once the write `after_seq` is synced (it may be an older one than this
 * ready's). Vows of a write that never gets synced must never be sent. */
struct raft_vow {
    uint64_t after_seq;
    bool hard_only; /* a vote: it stands on the term and vote of that write, and on no entry */
    struct raft_message message;
};

struct raft_grant {
    uint64_t context;
    uint64_t index; /* the read may be served once applied >= index */
};

enum raft_refusal {
    RAFT_REFUSAL_NONE = 0,
    RAFT_REFUSAL_NO_LEADER =
            1, /* none known, or it changed, or it is a new cluster's without a time yet: ask again */
    RAFT_REFUSAL_TRANSFERRING = 2,
    RAFT_REFUSAL_OVERLOADED = 3,
    RAFT_REFUSAL_NO_SPACE = 4,
    RAFT_REFUSAL_CHANGE_PENDING =
            5, /* configuration: one at a time, and not before an entry of the leader's term is committed */
    RAFT_REFUSAL_CHANGE_INVALID = 6, /* id known, unknown, removed, last voter ... */
    RAFT_REFUSAL_STOPPED = 7,        /* this member was removed */
};

struct raft_refused {
    uint64_t context;
    enum raft_refusal reason;
};

/* Entries [first, end) are wanted from the log on disk, up to about bytes_max of data (at least one). Answered by
 * RAFT_INPUT_ENTRIES_READ; at most one at a time per peer (0: for apply). An answer that came too late is ignored. */
struct raft_need {
    uint64_t peer_id;
    uint64_t first;
    uint64_t end;
    size_t bytes_max;
};

enum raft_role {
    RAFT_ROLE_FOLLOWER = 0, /* the same numbers as enum raft_state_role of proto/propose.h */
    RAFT_ROLE_PRE_CANDIDATE = 1,
    RAFT_ROLE_CANDIDATE = 2,
    RAFT_ROLE_LEADER = 3,
};

struct raft_ready {
    /* 1 At once, and in order per peer. A RAFT_MESSAGE_SNAPSHOT asks the shell to bring the snapshot file named by its base
     *   (index, term) to the peer; the peer's shell steps the message once it has the whole file, checked and durable.
     *   Loss is allowed anywhere. */
    struct raft_message_span send;
    /* 2 To disk. */
    struct raft_write write;
    /* 3 Once their write is synced. */
    const struct raft_vow *vows;
    size_t vow_count;
    /* 4 To the state machine, in order: committed and durable here. They continue what was handed out since the last
     *   RAFT_INPUT_APPLY_RESUME; apply_prev_* is the entry before the first. */
    struct raft_entry_span apply;
    uint64_t apply_prev_index;
    uint64_t apply_prev_term;
    /* 5 Not NULL: the log now begins at this snapshot, durably: the state machine must load it, then APPLY_RESUME. */
    const struct raft_base *install;
    /* 6 Answers. */
    const struct raft_grant *grants;
    size_t grant_count;
    const struct raft_refused *reads_refused;
    size_t read_refused_count;
    const struct raft_refused *refused; /* proposals; all of a proposal's entries */
    size_t refused_count;
    /* 7 Wanted from the log on disk. */
    const struct raft_need *needs;
    size_t need_count;
    /* 8 Notices. */
    bool state_changed;   /* role, term or leader: see raft_get_status */
    bool members_changed; /* raft_get_members: a configuration was appended, cut or installed */
    uint64_t
            promote_id; /* not 0: propose RAFT_CHANGE_PROMOTE of this learner (said again until it is done) */
    bool removed; /* this member is out for good: stop */
};

/* Never fails but for APPLY_RESUME (see there): then too the ready is complete. */
int raft_step(struct raft *raft, const struct raft_input *input, struct raft_ready *ret_ready);

/* ---- Looking in ----------------------------------------------------------------------------------------------- */

struct raft_status {
    uint64_t self_id;
    uint64_t leader_id; /* 0: none known */
    uint64_t term;
    uint64_t vote;
    enum raft_role role;
    bool is_learner;
    bool transferring;
    uint64_t base_index;
    uint64_t commit_index;
    uint64_t applied_index; /* as reported */
    uint64_t handed_index;  /* handed to apply */
    uint64_t durable_index;
    uint64_t last_index;
    uint64_t last_term;
    uint64_t snapshot_index;
    uint64_t leader_changes;
    uint64_t proposals_refused;
    uint64_t messages_ignored; /* stale, of no member, or senseless */
    uint64_t cached_bytes;
};
void raft_get_status(const struct raft *raft, struct raft_status *ret_status);

/* The configuration in force (last in the log, committed or not). Valid until the next step. */
void raft_get_members(const struct raft *raft, struct raft_members *ret_members);
/* The one in force at an index within [base, last]; false if outside. For snapshots' base records. */
bool raft_get_members_at(const struct raft *raft, uint64_t index, struct raft_members *ret_members);
/* The term of the entry at index within [base, last]; 0 outside. */
uint64_t raft_term_at(const struct raft *raft, uint64_t index);

enum raft_progress_state {
    RAFT_PROGRESS_PROBE = 0,
    RAFT_PROGRESS_REPLICATE = 1,
    RAFT_PROGRESS_SNAPSHOT = 2,
};

struct raft_peer_status {
    uint64_t id;
    uint64_t match_index;
    uint64_t next_index;
    enum raft_progress_state state;
    bool is_learner;
    bool is_active; /* heard from within the last election timeout */
};
/* Of the peer number `position` (0, 1 ...) while leader; false when there is none. */
bool raft_get_peer_status(
        const struct raft *raft, size_t position, struct raft_peer_status *ret_peer);

/* Cluster time now, as far as this member knows; 0 before any is known. */
uint64_t raft_cluster_time_ns(const struct raft *raft, uint64_t now_ns);
