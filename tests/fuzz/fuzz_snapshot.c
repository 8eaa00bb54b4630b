/* fuzz_snapshot.c: whatever a snapshot file holds, reading it ends in a verdict.
 *
 * The input is a file as it may lie in member/snap. It must be refused, unless it is a snapshot; and refused the
 * same way whether it is only verified or unpacked. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemons/stored/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* One folder a process, on tmpfs where there is one. */
static const char *work_dir(void)
{
    static char dir[64];

    if (dir[0] == '\0') {
        (void)snprintf(dir, sizeof dir, "/dev/shm/quorate-fuzz.XXXXXX");
        if (mkdtemp(dir) == NULL) {
            abort();
        }
    }
    return dir;
}

static void remove_dir(const char *dir)
{
    char path[128];

    (void)snprintf(path, sizeof path, "%s/data.mdb", dir);
    (void)unlink(path);
    (void)rmdir(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct snapshot_info verified;
    struct snapshot_info unpacked;
    struct err err;
    char path[64];
    const char *dir = work_dir();

    int fd = memfd_create("snapshot", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes) {
        abort();
    }
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    (void)mkdir(dir, 0700);
    int verify = snapshot_verify(path, &verified, &err);
    int unpack = snapshot_unpack(path, dir, &unpacked, &err);
    if (verify < 0 && (verify != -EUCLEAN || unpack != -EUCLEAN)) {
        abort();
    }
    remove_dir(dir);
    (void)close(fd);
    return 0;
}
