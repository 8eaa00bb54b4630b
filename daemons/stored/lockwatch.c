#include "daemons/stored/lockwatch.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/log.h"
#include "common/state/lockwait.h"

struct lockwatch {
    pthread_t thread;
    int stop_fd; /* an eventfd: readable when the watch is over */
    int exit_status;
    char mark_path[PATH_MAX];
};

/* Without its MARK the state is rebuilt by the next life, which never opens what is there. */
static void give_up(const struct lockwatch *watch)
{
    int result = unlink(watch->mark_path) == 0 ? 0 : -errno;

    log_crit("stored.lock.held",
            "waited_ms=%d action=exit status=%d a process that can write the state's lock.mdb "
            "holds "
            "a lock of it: the next start makes a fresh state of snapshot and log mark_removed=%d",
            LOCKWATCH_MS, watch->exit_status, result == 0 || result == -ENOENT);
    _exit(watch->exit_status);
}

static void *look_on(void *user)
{
    const struct lockwatch *watch = user;
    struct pollfd stop = { .fd = watch->stop_fd, .events = POLLIN };
    uint64_t last_ended = 0;
    unsigned looks = 0;

    for (;;) {
        int ready = poll(&stop, 1, LOCKWATCH_LOOK_MS);
        uint64_t ended;
        if (ready > 0) {
            return NULL;
        }
        bool waits = lockwait_look(&ended);
        looks = waits && ended == last_ended && ready == 0 ? looks + 1 : 0;
        last_ended = ended;
        if (looks >= LOCKWATCH_LOOKS) {
            give_up(watch);
        }
    }
}

int lockwatch_start(
        const char *state_dir, int exit_status, struct lockwatch **ret_watch, struct err *err)
{
    struct lockwatch *watch = xcalloc(1, sizeof *watch);

    watch->exit_status = exit_status;
    int bytes = snprintf(watch->mark_path, sizeof watch->mark_path, "%s/MARK", state_dir);
    watch->stop_fd = eventfd(0, EFD_CLOEXEC);
    int code = bytes < (int)sizeof watch->mark_path ? 0 : ENAMETOOLONG;
    if (code == 0 && watch->stop_fd < 0) {
        code = errno;
    }
    if (code == 0) {
        code = pthread_create(&watch->thread, NULL, look_on, watch);
    }
    if (code != 0) {
        if (watch->stop_fd >= 0) {
            (void)close(watch->stop_fd);
        }
        free(watch);
        return err_set(err, -code, "watch the locks of %s: %s", state_dir, strerror(code));
    }
    *ret_watch = watch;
    return 0;
}

struct lockwatch *lockwatch_stop(struct lockwatch *watch)
{
    if (watch != NULL) {
        (void)eventfd_write(watch->stop_fd, 1);
        (void)pthread_join(watch->thread, NULL);
        (void)close(watch->stop_fd);
        free(watch);
    }
    return NULL;
}
