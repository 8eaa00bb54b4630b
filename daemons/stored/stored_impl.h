/* stored_impl.h: what the files of the daemon's shell share. Loop thread only. */
#pragma once

#include <limits.h>

#include "common/conf.h"
#include "common/list.h"
#include "daemons/stored/generations.h"
#include "daemons/stored/snapshot.h"
#include "daemons/stored/stored.h"
#include "proto/apply.h"
#include "proto/hello.h"

struct link;
struct link_hub;
struct loop_timer;

enum phase {
    PHASE_ALONE,   /* no raftd */
    PHASE_WAITING, /* hello said; raftd decides what the state is good for */
    PHASE_LOADING, /* a snapshot, or an empty state, is being made the live one */
    PHASE_RUNNING, /* entries are applied */
};

/* An apply message that could not be taken at once. */
struct pending {
    struct list node;
    size_t bytes;
    uint8_t data[];
};

struct raft_side {
    struct link_hub *hub;
    struct link *link;
    enum phase phase;
    uint64_t cluster_id; /* as raftd's hello says */
    uint64_t member_id;
    struct list pending;
    struct loop_timer *timer; /* tries again, or ends a pause */
    bool paused;
    bool no_space;
    bool done_due; /* an apply_done waits for credit */
    struct apply_done done;
    struct codec_scratch scratch;
    struct buf out;
};

struct subscribers {
    struct link_hub *hub;
    struct list all; /* of struct subscriber */
    struct loop_timer *beacon_timer;
    struct buf out;
    size_t present;   /* with a link */
    uint64_t skipped; /* batches, over all subscribers */
};

enum job_kind {
    JOB_NONE,
    JOB_MAKE_SNAPSHOT,
    JOB_LOAD,
    JOB_COMPACT,
};

/* What the worker does; the loop touches it again when it is done. */
struct job {
    enum job_kind kind;
    struct stored *stored;
    unsigned long thread; /* pthread_t */
    struct state_writer *writer;
    char dir[STATE_PATH_BYTES_MAX]; /* snapshots, or the new generation */
    char path[SNAPSHOT_PATH_BYTES_MAX];
    uint64_t number; /* of the new generation */
    uint64_t index;  /* of the snapshot to load; 0: begin empty */
    uint64_t term;
    uint64_t cluster_id;
    uint64_t member_id;
    uint64_t complete_at;
    uint64_t started_at_ms;
    struct snapshot_info made;
    int result;
    struct err err;
};

struct snapshots {
    struct job job;
    atomic_bool stop;             /* a copy that runs is to end: this process does */
    struct snapshot_info newest;  /* on disk */
    uint64_t recorded_index;      /* of the last one that raftd told to be in the log; 0: none */
    uint64_t log_bytes;           /* behind it, as raftd last said */
    uint64_t file_bytes_at_start; /* of the state, when the running copy began */
    bool load_due;                /* to begin once the job at hand is over */
    uint64_t load_index;
    uint64_t load_term;
    uint64_t load_complete_at;
    uint64_t failed_at_ms;
    uint64_t made_count;
};

/* A compacted copy on its way to become the live state. */
struct compaction {
    bool recording;      /* batches are kept since the copy began */
    struct list batches; /* of struct pending, oldest first */
    size_t bytes;
    struct replica *replica; /* the copy, being brought up */
    bool waits;              /* it has all, and for a snapshot to be done */
    uint64_t number;
    uint64_t done_count;
    uint64_t failed_at_ms; /* 0: not lately */
};

struct readers; /* fold.c */
void fold_counters(struct stored *stored);

/* care.c */
struct lockwatch;
struct status_server;

struct stored {
    struct stored_config config;
    char *state_dir;
    char *snap_dir;
    char boot_id[40];
    int lock_fd;
    struct lockwatch *lockwatch;
    struct loop *loop;
    struct generations *generations;
    struct raft_side raft;
    struct subscribers subscribers;
    struct snapshots snapshots;
    struct compaction compaction;
    struct readers *readers;
    struct loop_timer *care_timer;
    struct status_server *status;
    uint64_t batches;
    uint64_t entries;
    int exit_status;
};

/* Stops the loop for good: the storage cannot be relied on (status 3), or something is wrong (1). */
void stored_fail(struct stored *stored, int status, const struct err *err, const char *event);

/* What each link's hello says: which state this is and how far it has come, if there is one. */
void stored_fill_hello(void *user, struct hello *ret_hello);

/* raft_side.c */
int raft_side_start(struct stored *stored, struct err *err);
void raft_side_stop(struct stored *stored);
void raft_side_loaded(struct stored *stored); /* the new state is live */
void raft_side_load_failed(struct stored *stored, const struct job *job);
void raft_side_tell_snapshot(struct stored *stored);

/* subscribers.c */
int subscribers_start(struct stored *stored, struct err *err);
void subscribers_stop(struct stored *stored);
void subscribers_publish(struct stored *stored, struct span batch);
void subscribers_tell_generation(struct stored *stored);
size_t subscribers_count(const struct stored *stored);

/* jobs.c */
void jobs_consider_snapshot(struct stored *stored);
void jobs_load(struct stored *stored, uint64_t index, uint64_t term, uint64_t complete_at);
/* Has a copy that runs given up, and waits for what runs. */
void jobs_stop(struct stored *stored);
/* How long the next batch must wait so that the running copy does not let the file grow without bound. */
uint64_t jobs_pause_ms(const struct stored *stored, uint64_t grown_bytes);

/* Whether a copy of the state would leave the disk some room: the log must not be the one to run out. */
bool jobs_has_room(const struct stored *stored, struct state_writer *writer, uint64_t *ret_bytes);
/* True: the worker is free, and now does what the caller has put into the job. */
bool jobs_begin(struct stored *stored, const struct job *job);

/* compaction.c */
void compaction_consider(struct stored *stored);
void compaction_note(struct stored *stored, struct span body); /* a batch was applied */
void compaction_copied(struct stored *stored, const struct job *job);
void compaction_go_on(struct stored *stored); /* the worker has ended a snapshot */
void compaction_cancel(struct stored *stored);

/* care.c */
int care_start(struct stored *stored, struct err *err);
void care_stop(struct stored *stored);
void care_check_readers(struct stored *stored);

/* status_page.c */
int status_page_start(struct stored *stored, struct err *err);
void status_page_stop(struct stored *stored);
