/* node.h: what the files of a member share.
 *
 *   node.c         its life, and what clients and operators ask of it
 *   node_step.c    a step of its core, and the duties that come of it
 *   node_log.c     its writes on their way to the disk, and back as durable
 *   node_events.c  whatever else happens to it */
#pragma once

#include "tests/sim/sim.h"

/* An event of its own, void once this life is over. */
void node_schedule(
        struct sim *sim, const struct node *node, uint64_t delay_ns, struct sim_event event);

/* node_step.c. What raft_step says; afterwards the node may be down. */
int node_step(struct sim *sim, struct node *node, struct raft_input *input);

/* node_log.c */
void node_queue_write(struct sim *sim, struct node *node, const struct raft_write *write);
/* Goes on with what is queued, unless something does already, or it waits for space or for a sync. */
void node_go_on_writing(struct sim *sim, struct node *node);
/* A snapshot's file is there, and durable. */
void node_keep_snapshot(struct node *node, struct machine position);
/* One of its own state, if it is time. */
void node_make_snapshot(struct sim *sim, struct node *node);
/* With each tick: a vote needs no more room than the reserve has. */
void node_check_votes_go(struct sim *sim, struct node *node);
void node_on_write(struct sim *sim, struct node *node);
void node_on_sync(struct sim *sim, struct node *node);
/* The log failed: the power went, or the process ends as raftd does. */
void node_end_by_disk(struct sim *sim, struct node *node, const struct err *err);
