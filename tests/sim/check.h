/* check.h: what must hold in every history, held against all members at once.
 *
 *   one leader      at most one member leads in a term, and it has everything that was committed before; a member votes for
 *                   one in a term
 *   log matching    an (index, term) is one entry with one predecessor, wherever it appears; what is acknowledged is what the
 *                   leader has
 *   committed       is for ever, the same everywhere, and on the disks of a quorum when the leader says so; by an entry of
 *                   its own term; by followers only as far as they match
 *   members         the same at the same index, in logs and in snapshots; one change at a time, none before the leader has committed an entry of its term; no promotion of one
 *                   that is far behind
 *   durable         is what every outcome of a power cut would leave on the disk
 *   applied         the same sequence everywhere, no gap, nothing twice
 *   reads           an index granted covers all that was committed when the read was asked for; without a lease a quorum
 *                   has heard a heartbeat that was sent after it was
 *   time            never falls along the log
 *   expiry          no key goes before its time has passed in truth, but for what clocks may differ
 *
 * A breach prints the seed, the virtual time and both sides, and ends the process with status 1. */
#pragma once

#include "daemons/raftd/raft/raft.h"

struct sim;
struct node;

struct check_entry { /* the one meaning of an (index, term) */
    uint64_t index;
    uint64_t term;
    uint64_t prev_term;
    uint64_t content;
    uint64_t time_ns;
    bool is_change;
    uint64_t stamped_at_ns; /* true time, when its leader made it */
};

struct check {
    struct check_entry *entries; /* open addressing; index 0 is empty */
    size_t entry_count;
    size_t entry_capacity;
    uint64_t *leaders; /* by term */
    size_t leader_capacity;
    uint64_t *committed;    /* term by index */
    uint64_t *committed_in; /* the term of the leader that committed it: later ones must have it */
    uint64_t *states;       /* the state machine's digest by index */
    uint64_t *members;      /* of the configuration in force at an index; 0: not seen yet */
    size_t committed_capacity;
    uint64_t committed_last;
    uint64_t states_last;
};

void check_fini(struct check *check);
NORETURN void check_fail(const struct sim *sim, const char *format, ...) PRINTF_LIKE(2, 3);

/* After each step of a node. */
void check_step(struct sim *sim, struct node *node, const struct raft_ready *ready);
/* The core proposes to make a voter of a learner: it must nearly have caught up, or it could cost the quorum. */
void check_promotion(struct sim *sim, const struct node *leader, uint64_t learner_id);
/* A message leaves, an acknowledgement perhaps. */
void check_sent(struct sim *sim, struct node *node, const struct raft_message *message);
/* A follower has taken a message in; it had committed so far before. */
void check_followed(struct sim *sim, const struct node *node, const struct raft_message *message,
        uint64_t commit_before);
/* A leader grants a read that was asked of it at a time. */
void check_grant(struct sim *sim, const struct node *leader, uint64_t asked_at_ns);
/* Applies an entry to the node's state machine. */
void check_apply(struct sim *sim, struct node *node, const struct raft_entry *entry);
