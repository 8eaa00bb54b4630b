#include "common/strangers.h"

#include "common/log.h"

enum {
    TOLD_MAX = 64 /* beyond that many users, one is told again now and then */
};

static int64_t told[TOLD_MAX];
static size_t told_count;

static bool is_told(int64_t uid)
{
    for (size_t i = 0; i < MIN(told_count, (size_t)TOLD_MAX); i++) {
        if (told[i] == uid) {
            return true;
        }
    }
    return false;
}

void strangers_tell(void *user, const char *path, int64_t uid, int64_t pid)
{
    (void)user;
    if (is_told(uid)) {
        return;
    }
    told[told_count++ % TOLD_MAX] = uid;
    log_warning("ipc.stranger.refused",
            "socket=%s uid=%" PRId64 " pid=%" PRId64
            " action=hang_up mend=\"add the user to --ipc-users, or take the right to enter "
            "--run-dir from it\"",
            path, uid, pid);
}
