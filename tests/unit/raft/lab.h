/* lab.h: one core on the bench. Each function is one input; the ready of the last one is in lab->ready. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/raftd/raft/raft.h"

struct lab {
    struct raft_options options; /* of the next lab_start */
    bool is_timeless; /* the next lab_start is of a new cluster, which knows no time yet */
    struct raft *raft;
    struct raft_ready ready;
    uint64_t now_ns;
    uint64_t wall_ns;
    /* The newest write, for lab_sync. */
    uint64_t seq;
    uint64_t last_index;
    uint64_t last_term;
};

/* A cmocka fixture: *state is a lab with the default options, not started yet; what it has started is stopped. */
int lab_setup(void **state);
int lab_teardown(void **state);
#define LAB_TEST(name) cmocka_unit_test_setup_teardown(name, lab_setup, lab_teardown)

/* A core of member 1, with the first `voters` of members 1, 2, 3 ... as voters; nothing has been stepped. */
void lab_start(struct lab *lab, size_t voters);
/* The same with a log: entry i has index i + 1 and the i-th term; all of them durable. */
void lab_start_with(struct lab *lab, size_t voters, struct raft_hard_state hard,
        const uint64_t *terms, size_t count);
void lab_stop(struct lab *lab);

int lab_step(struct lab *lab, struct raft_input input);
void lab_tick(struct lab *lab, unsigned count); /* the ready is that of the last tick */
void lab_sync(struct lab *lab);                 /* completes all writes */
void lab_sync_write(struct lab *lab, uint64_t seq, uint64_t last_index, uint64_t last_term);
void lab_deliver(struct lab *lab, struct raft_message message); /* .to is filled in */
void lab_propose(struct lab *lab, size_t count);
enum raft_refusal lab_change(struct lab *lab, enum raft_change_kind kind, uint64_t id);
void lab_read(struct lab *lab, uint64_t context);
int lab_resume(struct lab *lab, uint64_t index, uint64_t term);
void lab_snapshot_made(struct lab *lab, uint64_t index, uint64_t term);
void lab_compacted(struct lab *lab, uint64_t index, uint64_t term);
void lab_applied(struct lab *lab, uint64_t index);

/* Becomes leader of the term after the present one, with the first vote of member 2, its first entry on its own disk
 * but acknowledged by nobody. */
void lab_lead(struct lab *lab);
/* The peer acknowledges all entries up to index. */
void lab_acknowledge(struct lab *lab, uint64_t peer, uint64_t index);
/* The peer rejects the append behind index, as its log differs; what it has is behind the hint. */
void lab_reject(
        struct lab *lab, uint64_t peer, uint64_t index, uint64_t hint_index, uint64_t hint_term);

/* The peer answers a heartbeat; its log ends at index. */
void lab_beat(struct lab *lab, uint64_t peer, uint64_t index);

struct raft_status lab_status(const struct lab *lab);
/* The last message of that kind to that member in ready.send, or in the vows; NULL if there is none. */
const struct raft_message *lab_sent(
        const struct lab *lab, enum raft_message_kind kind, uint64_t to);
const struct raft_vow *lab_vowed(const struct lab *lab, enum raft_message_kind kind, uint64_t to);
size_t lab_count_sent(const struct lab *lab, enum raft_message_kind kind);

/* An entry as a leader would send it; data is a short text. */
struct raft_entry lab_entry(uint64_t index, uint64_t term);
