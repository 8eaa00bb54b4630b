/* trial.h: has raftd look at the files of keys and certificates that flags name, before anything is touched. raftd is who
 * reads them, so raftd judges; it is asked only where there are such files. */
#pragma once

#include "common/conf.h"

/* 0: they are good, or none is named. What raftd notes about them (a certificate that ends soon, say) goes to stderr if
 * tell_notes, else it is left to its start. -EINVAL: err is raftd's own line; -EIO: it could not be asked. argv is quorate's own. */
int trial_of_keys(const struct conf *conf, char **argv, bool tell_notes, struct err *err);
