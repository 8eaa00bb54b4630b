#include "common/sync_dir.h"

#include <fcntl.h>
#include <unistd.h>

int sync_dir(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        return err_errno(err, "open %s", path);
    }
    int result = fsync(fd) < 0 ? err_errno(err, "sync %s", path) : 0;
    (void)close(fd);
    return result;
}
