#include "common/clock.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t read_ns(clockid_t id)
{
    struct timespec ts;
    INVARIANT(clock_gettime(id, &ts) == 0);
    return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_monotonic_ms(void)
{
    return read_ns(CLOCK_MONOTONIC) / 1000000U;
}

uint64_t clock_boottime_ns(void)
{
    return read_ns(CLOCK_BOOTTIME);
}

uint64_t clock_wall_ns(void)
{
    return read_ns(CLOCK_REALTIME);
}

void clock_boot_id(char ret_id[CLOCK_BOOT_ID_BYTES])
{
    memset(ret_id, 0, CLOCK_BOOT_ID_BYTES);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, ret_id, CLOCK_BOOT_ID_BYTES - 1) < 0) {
            ret_id[0] = '\0';
        }
        (void)close(fd);
    }
}
