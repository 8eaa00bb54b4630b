/* writer_bench.h: a log's writer on a disk that fails on demand, and whose syncs wait before a gate where the test wants it. */
#pragma once

#include <pthread.h>

#include "daemons/raftd/wal/writer.h"
#include "tests/unit/wal/wal_fixture.h"

enum {
    SEGMENT_BYTES = 16 << 10,
    ITEMS = 300
};

/* The test's side: what came back, and a sync that waits to be let through. */
struct bench {
    struct fixture *fixture;
    struct fault fault;
    struct wal_io io;
    struct wal *wal;
    struct writer *writer;
    struct writer_item items[ITEMS];
    struct wal_entry entries[ITEMS];
    uint8_t data[ITEMS][SCRIPT_DATA_BYTES_MAX];

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool is_gate_closed;
    unsigned waiting; /* syncs before the gate */
    unsigned arrived; /* there, ever */
    unsigned first;   /* the number of the one that has waited longest */
    unsigned passes;  /* that may go through the closed gate, but for the first */
    bool fails_first; /* that one, once it is let through */
    bool lingers;     /* the writer, after it has told what is done */
    unsigned batch_count;
    unsigned done_count;
    uint64_t done_seqs[ITEMS];
    int done_results[ITEMS];
    int last_code;
    unsigned opens_left; /* for writing; then there is no descriptor left */
    bool is_locked_out;  /* a call to the system came while the log's mutex was held */
};

int bench_setup(void **state);
int bench_teardown(void **state);

/* What the writer's threads look at, `fault` too, is changed under the lock. */
void bench_lock(struct bench *bench);
void bench_unlock(struct bench *bench);
void bench_set_disk_full(struct bench *bench, bool is_full);
void bench_set_lingers(struct bench *bench, bool lingers);

/* Item i writes entry i + 1. */
struct writer_item *bench_item(struct bench *bench, unsigned i);
/* For a writer that a test starts itself: what came back is in `done_...`. */
void bench_on_done(void *user, struct list *items, const struct err *err);
void bench_await_done(struct bench *bench, unsigned count);
unsigned bench_done_now(struct bench *bench);

void bench_close_gate(struct bench *bench);
void bench_open_gate(struct bench *bench);
void bench_let_through(struct bench *bench, unsigned count); /* but not the first that waits */
void bench_await_waiting_sync(struct bench *bench);
unsigned bench_waiting_now(struct bench *bench);
/* For a moment: where syncs do not overlap, there will be no more. */
void bench_await_more_waiting(struct bench *bench, unsigned before);

/* Stops the writer, closes the log, and reads it back: that many entries. */
void bench_expect_recovered(struct bench *bench, uint64_t last_index);
