#include "daemons/raftd/bootstrap/compat.h"

#include <errno.h>
#include <stdio.h>

/* "1.2.3": the first two. */
static bool parse(const char *text, unsigned *ret_major, unsigned *ret_minor)
{
    unsigned patch;
    int bytes = 0;

    return sscanf(text, "%3u.%3u.%5u%n", ret_major, ret_minor, &patch, &bytes) == 3 &&
           text[bytes] == '\0';
}

int compat_check(struct span theirs, const char *own, struct err *err)
{
    char text[64] = "";
    unsigned major[2];
    unsigned minor[2];

    if (theirs.bytes > 0) {
        memcpy(text, theirs.data, MIN(theirs.bytes, sizeof text - 1));
    }
    bool fits = parse(text, &major[0], &minor[0]) && parse(own, &major[1], &minor[1]) &&
                major[0] == major[1] && minor[0] <= minor[1] + 1 && minor[1] <= minor[0] + 1;
    if (!fits) {
        return err_set(err, -EINVAL,
                "incomptible with current running cluster; a member there has version %s, this is "
                "%s: start the version that the members have, or a neighbouring one",
                text[0] == '\0' ? "unknown" : text, own);
    }
    return 0;
}
