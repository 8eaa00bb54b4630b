/* ring.h: stored between a raftd and a subscriber that are played by the test, over real sockets in a folder of its own.
 *
 * What the two hear is written into struct ring; ring_wait runs the loop until a claim about it holds, and fails the
 * test when nothing comes of it for 20 s, longer on a busy machine. */
#pragma once

#include <limits.h>

#include "common/loop.h"
#include "daemons/stored/stored.h"
#include "proto/link.h"
#include "tests/unit/patience.h"
#include "tests/unit/stored/machine.h"

enum {
    PATIENCE_MS = 20000,
    CLUSTER = 0xc1,
    MEMBER = 0x3e,
    SNAPSHOT_COUNT = 10,
    INSTANCE = 77
};

struct ring {
    char dir[SCRATCH_PATH_MAX];
    char old_dir[PATH_MAX];
    char data[80];
    char run[80];
    char shared[64]; /* where the state's word lies; empty: nowhere */
    struct loop *loop;
    struct stored *stored;
    struct link_hub *raftd;
    struct link *apply;
    struct link_hub *gateway;
    struct link *applied;
    bool (*done)(struct ring *f);
    struct patience *patience;

    /* what raftd heard */
    unsigned hellos;
    uint64_t hello_index;
    uint64_t hello_cluster;
    unsigned dones;
    struct apply_done last_done;
    unsigned refusals;
    struct snapshot_made made;
    uint64_t made_index;
    uint64_t bad_index;
    unsigned downs;

    /* what the subscriber heard */
    uint64_t seen_index; /* said in its hello */
    uint64_t batch_first;
    uint64_t batch_last;
    unsigned outcomes;
    uint64_t skipped_to;
    unsigned missed; /* outcomes of its own requests that no batch brought */
    unsigned beacons;
    uint64_t generation;
    uint64_t beacon_index;
    unsigned status_lines;

    struct buf out;
    uint64_t index; /* of the last entry sent */
};

extern const struct link_events ring_status_events; /* of whoever asks for the status */

void ring_wait(struct ring *f, bool (*done)(struct ring *f));
/* The same for what brings no message. */
void ring_wait_quietly(struct ring *f, bool (*done)(struct ring *f));
void ring_start_stored(struct ring *f);
void ring_subscribe(struct ring *f);
int ring_set_up(void **state);
int ring_tear_down(void **state);
void ring_order_go(struct ring *f);
void ring_order_load(struct ring *f, uint64_t index);
/* Sends `count` writes as one batch that continues `prev`. */
void ring_send_batch(struct ring *f, uint64_t prev, unsigned count, uint64_t log_bytes);
/* All that was sent is applied. */
bool ring_is_applied(struct ring *f);
void ring_go_and_apply(struct ring *f, unsigned count);
/* Ends stored cleanly and starts it anew; the subscriber is gone then. */
void ring_restart_stored(struct ring *f);
bool ring_has_beacon(struct ring *f);
/* One op as a batch; returns when it is applied. */
void ring_send_one(struct ring *f, struct op op);
