/* link_harness.h: hubs that write down what happens to them, in one loop, over a socket in a folder of its own. */
#pragma once

#include "common/loop.h"
#include "proto/link.h"
#include "tests/unit/patience.h"
#include "tests/unit/scratch.h"

enum {
    HARNESS_ENDS_MAX = 4,
    HARNESS_PATH_BYTES = SCRATCH_PATH_MAX + 16
};

struct harness;

/* One hub and the latest of its links. */
struct end {
    struct harness *harness;
    struct link_hub *hub;
    struct link *link; /* of the last on_up; NULL once it is down */
    unsigned ups;
    unsigned downs;
    unsigned writables;
    unsigned refusals;
    char refused_with[256];
    const char *refuse_with; /* what the next on_up says; NULL: come in */
    const char *component;
    uint64_t received; /* numbers come as 1, 2, 3 ... within a session */
    uint64_t sent;
    uint64_t to_send; /* sends on by itself up to here, in this session */
    bool drop_in_up;
    bool echo;
    bool ping_pong;    /* sends one for each that comes, up to to_send */
    unsigned messages; /* handed to it, over all sessions */
    bool out_of_order;
    char peer_component[64];
    unsigned strangers;
    int64_t stranger_uid;
};

struct harness {
    struct loop *loop;
    struct patience *patience;
    struct loop_timer *poll;
    char dir[SCRATCH_PATH_MAX];
    char path[HARNESS_PATH_BYTES];
    struct end ends[HARNESS_ENDS_MAX];
    bool timed_out;
    bool (*until)(struct harness *harness);
};

/* Of a harness with one of each. */
#define LISTENER(harness) (&(harness)->ends[0])
#define DIALER(harness)   (&(harness)->ends[1])

int harness_setup(void **state);
int harness_teardown(void **state);

/* Opens an end of the pattern; `tune` may be NULL: its limits and times replace the defaults. */
void harness_open(struct harness *harness, struct end *end, enum link_pattern pattern, bool listen,
        const struct link_config *tune);
void harness_close(struct end *end);

/* Runs the loop until the claim holds; fails the test after 30 s, later on a busy machine. */
void harness_run(struct harness *harness, bool (*until)(struct harness *harness), const char *what);
#define RUN_UNTIL(harness, claim) harness_run(harness, claim, #claim)

/* Claims about the listener and the dialer. */
bool both_up(struct harness *harness);
bool all_arrived(struct harness *harness); /* what each had to send */

/* Opens the two and runs until both are up. */
void harness_open_both(
        struct harness *harness, enum link_pattern pattern, const struct link_config *tune);

/* Sends the next number; what link_send said. */
int end_send(struct end *end);
/* A body with this number, padded to about `bytes`. */
void end_encode(uint64_t number, size_t bytes, struct buf *out);
