/* bootstrap.h: who this member is when it has no log yet: one of those of --initial-cluster, or one that was added to a
 * running cluster. Nothing is written here. */
#pragma once

#include "daemons/raftd/membership.h"

struct loop;

/* State "new": the members of --initial-cluster; refused if one of them knows that this one has run before. */
int bootstrap_static(struct loop *loop, const struct conf *conf, struct membership *ret_membership,
        struct err *err);

/* State "existing": the members that a running one names, ids and cluster id taken from there. */
int bootstrap_join(struct loop *loop, const struct conf *conf, struct membership *ret_membership,
        struct err *err);
