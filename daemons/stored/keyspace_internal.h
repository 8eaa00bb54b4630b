/* keyspace_internal.h: what the files of the state machine share. */
#pragma once

#include "daemons/stored/keyspace.h"

struct keyspace {
    struct state_history_limits limits;
    struct state_writer *writer; /* of the running call */
    struct publication *publication;
    struct schema_meta *meta;
    uint64_t raft_index;

    /* The op's result. */
    unsigned error_code;
    struct buf cause;
    struct buf event; /* encoded; empty: none */
    struct buf member;

    struct buf path;  /* of an in-order key, of an expired node */
    struct buf value; /* a value that is kept while its record is replaced */
    struct codec_scratch scratch;

    /* The directory that was written to last. */
    struct buf parent_path; /* with a slash at its end; empty: nothing remembered */
    uint64_t parent_id;
};

/* Sets the op's error; returns 0: the entry itself is applied. */
int keyspace_fail(struct keyspace *keyspace, unsigned code, struct span cause);

/* Gives the event the next etcd index, encodes it into keyspace->event and appends it to the history. */
int keyspace_event(struct keyspace *keyspace, struct event *event);

/* tree.c: the ops on keys. */
int tree_apply(struct keyspace *keyspace, const struct op *op);
int tree_expire(struct keyspace *keyspace, unsigned keys_max);

/* members.c: the bookkeeping ops. */
int members_apply(struct keyspace *keyspace, const struct op *op);
/* Adds an event nobody asked for to the publication. */
void keyspace_publish_event(struct keyspace *keyspace);
