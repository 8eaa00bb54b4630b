/* scratch.h: a folder for one test, and its end.
 *
 * It lies below TMPDIR, /tmp without: tests/run.sh points that at a folder which goes with the run, so that what a test leaves that
 * is killed does not stay. Short, since unix sockets in it have 108 bytes for their whole path. */
#pragma once

#include <ftw.h>
#include <sys/stat.h>

#define SCRATCH_PATH_MAX 64

static inline bool scratch_make(char path[static SCRATCH_PATH_MAX])
{
    const char *parent = getenv("TMPDIR");
    int length =
            snprintf(path, SCRATCH_PATH_MAX, "%s/quorate-XXXXXX", parent == NULL ? "/tmp" : parent);

    return length < SCRATCH_PATH_MAX && mkdtemp(path) != NULL;
}

static inline int scratch_remove_entry(
        const char *path, const struct stat *stat UNUSED, int type UNUSED, struct FTW *walk UNUSED)
{
    return remove(path);
}

/* With all that is in it; one that is gone is fine. */
static inline void scratch_remove(const char *path)
{
    (void)nftw(path, scratch_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
