#include "daemons/stored/mounted.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000U /* Linux 6.8: never given out twice in a boot */
#endif

/* What sysfs calls a block device; false: it is none. */
static bool device_name(
        const char *sys_dir, unsigned device_major, unsigned device_minor, char ret_name[NAME_MAX])
{
    char path[PATH_MAX];
    char target[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/dev/block/%u:%u", sys_dir, device_major, device_minor);
    ssize_t bytes = readlink(path, target, sizeof target - 1);
    if (bytes <= 0) {
        return false;
    }
    target[bytes] = '\0';
    const char *slash = strrchr(target, '/');
    int name_bytes = snprintf(ret_name, NAME_MAX, "%s", slash != NULL ? slash + 1 : target);
    return name_bytes > 0 && name_bytes < NAME_MAX;
}

/* The number of the folder that stands for the mounted file system; 0: there is none. */
static uint64_t file_system_id(const char *sys_dir, const struct statx *file)
{
    static const char *const kinds[] = { "ext4", "xfs" };
    char name[NAME_MAX];
    char path[PATH_MAX];
    struct stat stat_;

    if (!device_name(sys_dir, file->stx_dev_major, file->stx_dev_minor, name)) {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        int bytes = snprintf(path, sizeof path, "%s/fs/%s/%s", sys_dir, kinds[i], name);
        if (bytes < (int)sizeof path && stat(path, &stat_) == 0) {
            return stat_.st_ino;
        }
    }
    return 0;
}

int mounted_look(const char *path, const char *sys_dir, struct mounted *ret_mounted)
{
    struct statx file;

    if (statx(AT_FDCWD, path, 0, STATX_INO | STATX_MNT_ID_UNIQUE, &file) < 0) {
        return -errno;
    }
    bool is_unique = (file.stx_mask & STATX_MNT_ID_UNIQUE) != 0;
    *ret_mounted = (struct mounted){
        .device = makedev(file.stx_dev_major, file.stx_dev_minor),
        .inode = file.stx_ino,
        .mount_id = is_unique ? file.stx_mnt_id : file_system_id(sys_dir, &file),
    };
    return 0;
}
