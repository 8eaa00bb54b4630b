/* file_stamp.h: whether a file is still what was read: another file under its name, or another content, has another stamp.
 *
 * To be taken of the descriptor before it is read, so that what changes meanwhile is found the next time. Pure. */
#pragma once

#include <sys/stat.h>
#include <time.h>

#include "common/macros.h"

/* All zero: of a file that is not there. */
struct file_stamp {
    dev_t device;
    ino_t inode;
    off_t bytes;
    struct timespec modified;
    struct timespec changed; /* nobody can set it back */
};

struct file_stamp file_stamp_of(const struct stat *stat);
bool file_stamps_differ(const struct file_stamp *left, const struct file_stamp *right);
