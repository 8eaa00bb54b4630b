/* bootstrap.h: who this member is when it has no log yet: one of those of --initial-cluster, one that registers
 * under a discovery URL, or one that was added to a running cluster. No log is written here. */
#pragma once

#include "daemons/raftd/membership.h"

struct loop;
struct security;

/* State "new": the members of --initial-cluster, or those that a discovery URL or SRV records lead to, which may take as long as they
 * take to start; refused if one of them knows that this one has run before. */
int bootstrap_new(struct loop *loop, struct security *security, const struct conf *conf,
        struct membership *ret_membership, struct err *err);

/* State "existing": the members that a running one names, ids and cluster id taken from there. */
int bootstrap_join(struct loop *loop, struct security *security, const struct conf *conf,
        struct membership *ret_membership, struct err *err);
