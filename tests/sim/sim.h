/* sim.h: a cluster of cores in one process, in virtual time.
 *
 *   sim.c      the queue of events, the world's troubles, the phases of a history
 *   network.c  messages under way
 *   links.c    ... where the links are thin
 *   node*.c    a member: does the duties of its core as the real shell does (node.h)
 *   store.c    its log: the real one, on a disk of ours (disk.c), and what it must hold (ledger.c)
 *   machine.c  its state machine
 *   clocks.c   its clocks
 *   check.c    what must hold
 *
 * Everything that happens is an event with a time; the next one is taken from a heap. Chance comes from one generator,
 * so a seed is a history. */
#pragma once

#include "tests/sim/check.h"
#include "tests/sim/clocks.h"
#include "tests/sim/links.h"
#include "tests/sim/machine.h"
#include "tests/sim/rng.h"
#include "tests/sim/store.h"

#define SIM_MS      UINT64_C(1000000)
#define SIM_TICK_NS (100 * SIM_MS)

enum {
    SIM_NODES_MAX = 16,
    SIM_VOTERS_MAX = 7, /* that a history is to have: more are not added on purpose */
    SIM_ELECTION_TICKS = 10,
};

enum event_kind {
    EVENT_TICK,
    EVENT_DELIVER,
    EVENT_LEFT,  /* a thin link has carried what was first in its queue */
    EVENT_WRITE, /* what is queued goes into the file ... */
    EVENT_SYNC,  /* ... and to the medium */
    EVENT_APPLY,
    EVENT_READ_BACK, /* entries asked from the log on disk */
    EVENT_STORED_BACK,
    EVENT_SNAPSHOT_ENDED,
    EVENT_CRASH,  /* at a moment that hurts */
    EVENT_CHANGE, /* of the membership, likewise */
    EVENT_CLIENT,
    EVENT_NEMESIS,
};

struct sim_message {
    uint64_t sent_at_ns;
    struct raft_message message; /* entries and members are in the copies */
    struct sim_entries entries;
    struct sim_members members;
    struct machine snapshot; /* what the file holds */
};

struct sim_event {
    uint64_t at_ns;
    uint64_t order; /* ties go by it */
    enum event_kind kind;
    uint64_t node_id;
    uint64_t life; /* of the node: events of an earlier one are void; 0: any */
    struct sim_message *message;
    struct raft_need need; /* READ_BACK; peer_id too for SNAPSHOT_ENDED */
    bool arrived;          /* SNAPSHOT_ENDED */
    struct {
        size_t to; /* slot */
        unsigned kind;
        uint64_t epoch;
    } lane; /* LEFT */
};

enum {
    SIM_SNAPSHOTS_MAX = 5,
    SIM_SNAPSHOTS_KEPT = 3
};

struct pending_vow {
    uint64_t after_seq;
    bool hard_only;
    unsigned idle_ticks; /* it has waited while nothing was on its way to the disk */
    struct sim_message *message;
};

struct pending_read {
    uint64_t context;
    uint64_t asked_at_ns;
    uint64_t committed; /* when it was asked */
};

struct node {
    uint64_t id; /* 0: slot unused */
    bool up;
    bool gone; /* removed and stopped, for good */
    uint64_t life;
    uint64_t paused_until_ns;
    struct raft *raft;
    struct store store;
    struct clocks clocks;
    struct rng fronts;  /* apart, so that the other histories stay what they were */
    bool without_lease; /* promises none, though others do */
    bool is_writing;    /* an event goes on with the queue */
    bool told_writable; /* what the core was last told */
    bool state_is_full; /* the state machine's disk */
    struct pending_vow *vows;
    size_t vow_count;
    size_t vow_capacity;

    /* The state machine. */
    struct machine state; /* survives a crash of the process, not of the power */
    struct machine snapshots[SIM_SNAPSHOTS_MAX]; /* files, newest first */
    size_t snapshot_count;
    bool snapshot_pending; /* the newest is not in the log yet */
    bool stored_up;
    struct sim_entries apply_queue;
    bool apply_scheduled;

    struct pending_read *reads;
    size_t read_count;
    size_t read_capacity;

    /* For the checks. */
    enum raft_role role_seen;
    uint64_t term_seen;
    uint64_t commit_seen;
    uint64_t beat_from; /* the newest heartbeat that it heard, and when that was sent */
    uint64_t beat_term;
    uint64_t beat_sent_ns;
    uint64_t voted_term; /* the newest in which a vote of its was sent, in whatever life, ... */
    uint64_t voted_for;  /* ... and for whom */
};

/* What is counted, for the report; names in sim.c. */
enum sim_total {
    SIM_STEPS,
    SIM_COMMITTED,
    SIM_ELECTIONS,
    SIM_CRASHES,
    SIM_SNAPSHOTS_INSTALLED,
    SIM_CHANGES,
    SIM_READS_GRANTED,
    SIM_READS_REFUSED,
    SIM_EXPIRED,
    SIM_RESTARTS,
    SIM_TORN,
    SIM_FRONTS_LOST,
    SIM_DISK_FAILURES,
    SIM_VOTES_AHEAD,
    SIM_BREAKS,
    SIM_TOTALS_COUNT,
};
extern const char *const sim_total_names[SIM_TOTALS_COUNT];

struct sim_options {
    unsigned members; /* 0: drawn */
    bool steady;      /* only such histories */
    bool thin;        /* all links are, but in steady ones */
    const char *dir;  /* where the members' folders lie */
    bool verbose;
};

struct sim {
    uint64_t seed;
    const char *dir;
    struct rng rng;
    uint64_t now_ns;
    uint64_t order;
    struct sim_event *heap;
    size_t event_count;
    size_t event_capacity;
    struct node nodes[SIM_NODES_MAX];
    uint64_t next_id;
    uint64_t next_context;
    struct raft_options core; /* the same for all but id and seed */
    struct check check;
    bool verbose;
    uint64_t proposals;

    /* The weather. */
    bool calm;
    unsigned loss_permille;
    unsigned duplicate_permille;
    uint64_t delay_ns_max;
    uint64_t sync_ns_max;
    bool cut[SIM_NODES_MAX][SIM_NODES_MAX]; /* from slot, to slot */
    bool flapping[SIM_NODES_MAX][SIM_NODES_MAX];
    struct links links;
    unsigned flaps; /* to come: the links that flap fail and come back */
    bool with_membership;
    bool with_ambush; /* crashes and changes aim at the moments that are hardest to get right */
    bool with_compaction;
    bool with_many_syncs;
    bool is_steady;     /* one member in trouble at a time, and changes all the while */
    uint64_t victim_id; /* which; 0: none */
    uint64_t segment_bytes;
    bool was_alone; /* a single voter trusts its wall clock at its start */
    size_t liar;    /* the slot whose wall clock is wrong */
    bool liar_is_ahead;

    uint64_t totals[SIM_TOTALS_COUNT];
};

/* Runs the history of a seed; does not return if a check fails. */
void sim_run(uint64_t seed, const struct sim_options *options, struct sim *sim);
void sim_fini(struct sim *sim);

void sim_schedule(struct sim *sim, uint64_t delay_ns, struct sim_event event);
struct node *sim_find_node(struct sim *sim, uint64_t id);
/* Of those that are up (or down), drawn; NULL: there is none. */
struct node *sim_random_node(struct sim *sim, bool up);
/* Of several that believe so the one of the latest term; NULL: none does. */
struct node *sim_find_leader(struct sim *sim);
/* In the configuration in force with a member that is up: a voter or a learner. */
bool sim_is_member(const struct node *of, uint64_t id);
/* With --verbose. node: NULL: of all. */
void sim_say(const struct sim *sim, const char *what, const struct node *node);

/* One turn of trouble: anything at once, or one member at a time. */
void trouble_step(struct sim *sim);
void trouble_steady(struct sim *sim);
void trouble_change_membership(struct sim *sim);
void trouble_mend_links(struct sim *sim);
/* How lossy and how slow everything is for a while. */
void trouble_draw_weather(struct sim *sim);
static inline size_t sim_slot(const struct sim *sim, const struct node *node)
{
    return (size_t)(node - sim->nodes);
}

/* network.c */
void network_send(struct sim *sim, struct node *from, const struct raft_message *message);
void network_post(struct sim *sim, struct node *from, struct sim_message *take_message);
struct sim_message *sim_message_copy(const struct node *from, const struct raft_message *message);
void sim_message_free(struct sim_message *message);

/* node.c */
void node_set_clock(struct sim *sim, struct node *node);
void node_init(struct sim *sim, struct node *node, uint64_t id, struct raft_members members);
void node_fini(struct node *node);
void node_start(struct sim *sim, struct node *node);
enum node_end {
    NODE_END_CLEAN,   /* asked to stop */
    NODE_END_PROCESS, /* killed */
    NODE_END_POWER,   /* the state machine's state is lost, and what was not synced may be */
};
void node_crash(struct sim *sim, struct node *node, enum node_end end);
void node_end_snapshot(struct sim *sim, uint64_t from_id, uint64_t to_id, bool arrived);
void node_event(struct sim *sim, struct node *node, struct sim_event *event);
void node_propose(struct sim *sim, struct node *node, size_t count);
void node_propose_change(struct sim *sim, struct node *node, struct raft_change change);
void node_read(struct sim *sim, struct node *node);
void node_transfer(struct sim *sim, struct node *node, uint64_t to);
void node_set_full(struct node *node, bool log_is_full, bool state_is_full);
void node_stored_restart(struct sim *sim, struct node *node, bool state_lost);
