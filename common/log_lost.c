#include "common/log_lost.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What snprintf says of a path. */
static bool fits(int length)
{
    return length > 0 && length < LOG_LOST_PATH_BYTES;
}

bool log_lost_find_file(const char *dir, const char *suffix, char ret_path[LOG_LOST_PATH_BYTES])
{
    DIR *stream = opendir(dir);
    bool found = false;

    if (stream == NULL) {
        return false;
    }
    for (struct dirent *entry = readdir(stream); entry != NULL && !found; entry = readdir(stream)) {
        size_t bytes = strlen(entry->d_name);
        size_t suffix_bytes = strlen(suffix);
        found = bytes > suffix_bytes && entry->d_name[0] != '.' &&
                strcmp(entry->d_name + bytes - suffix_bytes, suffix) == 0 &&
                fits(snprintf(ret_path, LOG_LOST_PATH_BYTES, "%s/%s", dir, entry->d_name));
    }
    (void)closedir(stream);
    return found;
}

int log_lost_check(const struct conf *conf, struct err *err)
{
    char path[LOG_LOST_PATH_BYTES];
    char found[LOG_LOST_PATH_BYTES];

    if (fits(snprintf(path, sizeof path, "%s/member/state/CURRENT", conf->data_dir)) &&
            access(path, F_OK) == 0) {
        return err_set(err, -EINVAL,
                "there is a state in %s/member/state but no log in %s; give --wal-dir the folder "
                "that this member's log is in, or restore a backup",
                conf->data_dir, conf->wal_dir);
    }
    if (fits(snprintf(path, sizeof path, "%s/member/snap", conf->data_dir)) &&
            log_lost_find_file(path, ".snap", found)) {
        return err_set(err, -EINVAL,
                "there are snapshots in %s but no log in %s; give --wal-dir the folder that this "
                "member's log is in, or restore a backup",
                path, conf->wal_dir);
    }
    if (fits(snprintf(path, sizeof path, "%s.part", conf->wal_dir)) && access(path, F_OK) == 0) {
        return err_set(err, -EINVAL,
                "%s is of a backup that was not finished; remove the folder and make another",
                path);
    }
    return 0;
}
