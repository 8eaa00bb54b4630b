/* fetch.h: asks members that run already who is in their cluster, before this one has a log. Runs the loop until the
 * answers are there or the time is over. */
#pragma once

#include "daemons/raftd/membership.h"

struct loop;
struct security;

/* One answer. */
struct fetched {
    uint64_t cluster_id; /* 0: it is about to bootstrap itself */
    uint64_t from_id;
    uint64_t leader_id;
    char version[64]; /* of who answers; cut where it is longer */
    struct membership membership;
};

enum fetch_until {
    FETCH_FIRST, /* until somebody knows a cluster */
    FETCH_ALL,
};

/* Asks at all urls at once; returns how many answers came. */
size_t fetch_members(struct loop *loop, struct security *security, const char *const *urls,
        size_t url_count, enum fetch_until until, uint64_t timeout_ms,
        struct fetched **ret_answers);
void fetch_free(struct fetched *answers, size_t count);
