/* lockfile.h: one holder at a time of a directory, by flock on a file that carries the holder's pid.
 *
 * The lock goes with the process, also by SIGKILL, so a file that is left behind means nothing. */
#pragma once

#include <sys/types.h>

#include "common/err.h"

/* Takes the lock, creating the file (0600) where it is missing. *ret_fd holds it until closed (close-on-exec).
 * -EWOULDBLOCK when another process has it: the text says which. */
int lockfile_open(const char *path, int *ret_fd, struct err *err);

/* Who holds the lock, without taking or creating anything: 0 when it is free or the file is missing, -1 when it is
 * held by a process that wrote no pid. */
pid_t lockfile_holder(const char *path);
