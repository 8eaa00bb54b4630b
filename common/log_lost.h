/* log_lost.h: a data dir whose log is gone while what was made from it is still there. */
#pragma once

#include "common/conf.h"
#include "common/err.h"

enum {
    LOG_LOST_PATH_BYTES = 4096 + 64
};

/* The path of the first file in a directory whose name ends so ("": any that is no dot file). False: there is none. */
bool log_lost_find_file(const char *dir, const char *suffix, char ret_path[LOG_LOST_PATH_BYTES]);

/* stored makes a state and snapshots only once there is a log: the one without the other has lost it, or was given another
 * folder. A new log would in the end reach their index, and then it is they that would be given up. To be asked where there
 * is no log: -EINVAL says what there is instead. */
int log_lost_check(const struct conf *conf, struct err *err);
