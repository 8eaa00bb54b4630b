/* links.h: thin links: the weather of some histories, all of it from the first to the last moment.
 *
 * Each member has two connections to each other, as the real shell has: for control (votes, heartbeats, reads) and for bulk
 * (appends, passed on proposals, snapshots). What is sent over one waits in its queue, leaves at the link's rate, and arrives
 * in that order; beyond what may wait it is dropped. A connection breaks where the way is cut, the other side is stopped or
 * gone for an election timeout, in times of trouble now and then, and with some weathers whenever it has carried so much. What
 * waited is lost then (but for a snapshot, which goes on where it was), the sender is told, and again when both are back.
 *
 * The rate is such that a full append takes between one and thirty heartbeats. All this is drawn from a generator of its own:
 * what the links of other histories do stays as it was. */
#pragma once

#include "tests/sim/rng.h"

struct node;
struct sim;
struct sim_event;
struct sim_message;

enum link_lane {
    LINK_CONTROL,
    LINK_BULK,
    LINK_LANE_COUNT,
};

enum {
    LINKS_MEMBERS_MAX = 16
};

/* One connection. */
struct lane {
    struct lane_item *first;
    uint64_t waiting_bytes; /* and nothing of a snapshot */
    bool is_live;
    bool is_leaving;  /* an event waits until the first has left */
    uint64_t epoch;   /* events of an earlier one are void */
    uint64_t to_life; /* whom it was made to */
    uint64_t dial_at_ns;
    uint64_t heard_ns; /* when the way was last clear */
    uint64_t carried_bytes;
    uint64_t arrived_ns; /* what left last: nothing overtakes it */
};

struct link {
    uint64_t from_id;
    uint64_t from_life;
    uint64_t to_id;
    bool is_reachable; /* as the sender was told */
    struct lane lanes[LINK_LANE_COUNT];
};

struct links {
    bool are_thin;
    struct rng rng;
    uint64_t bytes_per_s;
    uint64_t waiting_bytes_max;
    uint64_t carried_bytes_max; /* of bulk, by one connection; 0: no such limit */
    uint64_t snapshot_bytes;
    unsigned break_permille; /* with each tick, while there is trouble */
    uint64_t
            client_pace; /* clients do things so many times more seldom: a link carries what they write, and more */
    struct link between[LINKS_MEMBERS_MAX][LINKS_MEMBERS_MAX];
};

/* Draws whether this history has them (unless it always is to, or is a steady one), and what the core's appends are like then. */
void links_draw(struct sim *sim, bool always);
void links_fini(struct sim *sim);

/* In place of network_post. */
void links_post(struct sim *sim, struct node *from, struct sim_message *take_message);
/* With each tick of a sender: connections break, and are made. It may be down afterwards. */
void links_tick(struct sim *sim, struct node *from);
/* The first of a queue has left. */
void links_on_left(struct sim *sim, struct node *from, const struct sim_event *event);

/* How long the links need at most, once there is no trouble and a leader, to bring every member what any has now: no constant,
 * it follows from their rate and the bytes that are missing. */
uint64_t links_time_ns(struct sim *sim);
