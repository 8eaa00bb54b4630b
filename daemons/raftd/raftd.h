/* raftd.h: the consensus daemon: the raft core, its log, and the links to gatewayd and stored. */
#pragma once

#include "common/conf.h"

struct raftd;

/* Opens or creates the log and decides who this member is. Nothing is written before the checks have passed. */
int raftd_new(const struct conf *conf, struct raftd **ret_raftd, struct err *err);
/* Opens the sockets (in the run directory, which becomes the current one) and tells the init system. */
int raftd_start(struct raftd *raftd, struct err *err);
/* Runs until SIGTERM, SIGINT, removal or a failure; returns the exit status. */
int raftd_loop(struct raftd *raftd);
struct raftd *raftd_free(struct raftd *raftd); /* always NULL, accepts NULL */
