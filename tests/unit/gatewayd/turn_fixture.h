/* turn_fixture.h: a gatewayd on its own loop, between a raftd and a stored that are played here, with clients on a unix
 * socket. The state holds one key, /seen. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "daemons/gatewayd/shell.h"
#include "tests/unit/scratch.h"

struct link;
struct link_events;
struct link_hub;

enum {
    PATIENCE_MS = 10000,
    MESSAGES_MAX = 64,
    OPS_MAX = 256,
    CLIENTS_MAX = 8,
    APPLIED_INDEX = 20,
    ETCD_INDEX = 10,
    LONG_HISTORY = 30000,
};

struct fixture {
    char dir[SCRATCH_PATH_MAX];
    char start_dir[1024];
    struct conf conf;
    struct gatewayd *gw;
    struct loop_timer *slice;
    struct link_hub *raftd;
    struct link *raftd_link;
    struct link_hub *stored;
    struct link *stored_link;
    unsigned stored_ups;
    int clients[CLIENTS_MAX];

    size_t proposes;                  /* messages received ... */
    size_t propose_ops[MESSAGES_MAX]; /* ... and the ops in each */
    uint64_t counters[OPS_MAX];
    size_t op_count;
    uint64_t instance;
    size_t questions;
    uint64_t question;
};

#define RUN_UNTIL(f, condition)                                                                    \
    do {                                                                                           \
        uint64_t end_ms_ = clock_monotonic_ms() + PATIENCE_MS;                                     \
        while (!(condition)) {                                                                     \
            if (clock_monotonic_ms() > end_ms_) {                                                  \
                fail_msg("not in time: %s", #condition);                                           \
            }                                                                                      \
            run_slice(f);                                                                          \
        }                                                                                          \
    } while (0)

/* What the played stored does when it is called. */
extern const struct link_events stored_events;

void run_slice(struct fixture *f);
struct link_hub *listen_as(struct fixture *f, const char *path, const struct link_events *events);
void start_raftd(struct fixture *f);
void send_to_gateway(struct link *link, unsigned type, struct buf *take_body);
void publish_outcome(struct fixture *f, uint64_t raft_index, uint64_t etcd_index, uint64_t counter);
/* The same where the batch itself was held back. */
void publish_missed(struct fixture *f, uint64_t raft_index, uint64_t etcd_index, uint64_t counter);
int turn_set_up(void **state);
int turn_set_up_with_history(void **state); /* of LONG_HISTORY events; the etcd index is that */
int turn_tear_down(void **state);
void open_client(struct fixture *f, size_t client);
void ask(struct fixture *f, size_t client, const char *request);
void ask_put(struct fixture *f, size_t client);
bool has_answer(struct fixture *f, size_t client, char *ret_text, size_t text_bytes);
void assert_answer(struct fixture *f, size_t client, const char *status, const char *piece);
bool is_silent(struct fixture *f, size_t client);
void publish_empty(struct fixture *f, uint64_t raft_index);
void grant(struct fixture *f, uint64_t question, uint64_t index);
void tell_leader(struct fixture *f);
