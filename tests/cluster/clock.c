/* clock.c: clocks of a member's own, for processes that were started with LD_PRELOAD=clock.so.
 *
 * QUORATE_CLOCK names a file of two 64-bit numbers, looked at with each call: nanoseconds that are added to
 * CLOCK_REALTIME and to CLOCK_BOOTTIME. CLOCK_MONOTONIC stays: timers go on, only what the time is said to be changes.
 * QUORATE_BOOT_ID names a file that is read in place of the kernel's boot id: with it a restart is a reboot. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offsets_ns;

__attribute__((constructor)) static void map_offsets(void)
{
    const char *path = getenv("QUORATE_CLOCK");
    int fd = path == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        offsets_ns = page == MAP_FAILED ? NULL : page;
        close(fd);
    }
}

int clock_gettime(clockid_t id, struct timespec *ret_time)
{
    static int (*next)(clockid_t, struct timespec *);
    int64_t offset_ns = 0;

    if (next == NULL) {
        next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    int result = next(id, ret_time);
    if (result < 0 || offsets_ns == NULL) {
        return result;
    }
    if (id == CLOCK_REALTIME) {
        offset_ns = offsets_ns[0];
    } else if (id == CLOCK_BOOTTIME) {
        offset_ns = offsets_ns[1];
    }
    int64_t now_ns = (int64_t)ret_time->tv_sec * 1000000000 + ret_time->tv_nsec + offset_ns;
    ret_time->tv_sec = now_ns / 1000000000;
    ret_time->tv_nsec = now_ns % 1000000000;
    return 0;
}

static int open_path(const char *path, int flags, mode_t mode)
{
    const char *boot_id = getenv("QUORATE_BOOT_ID");

    if (boot_id != NULL && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0) {
        path = boot_id;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_path(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_path(path, flags, mode);
}
