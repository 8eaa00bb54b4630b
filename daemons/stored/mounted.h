/* mounted.h: which file a path names, and on which mount of its file system: a number that no other mount has in this boot.
 *
 * Linux gives such a number since 6.8. What older kernels call a mount's id is given out again at once: a file system that was
 * shut down and mounted again has the one it had. There the folder stands in that sysfs has for a mounted file system (ext4 and
 * xfs): it is made anew with each mount, and its inode's number is not used twice in a boot. */
#pragma once

#include "common/macros.h"

struct mounted {
    uint64_t device;
    uint64_t inode;
    uint64_t mount_id; /* 0: this host does not tell one mount from the next */
};

/* sys_dir: where sysfs is. -errno: there is no such file. */
int mounted_look(const char *path, const char *sys_dir, struct mounted *ret_mounted);
