#include "daemons/raftd/bootstrap/compat.h"

#include <errno.h>

enum {
    DIGITS_MAX = 5
};

/* A number of a few digits and what ends it; *text is behind that. */
static bool take_number(const char **text, char end, unsigned *ret_number)
{
    const char *at = *text;

    *ret_number = 0;
    for (; *at >= '0' && *at <= '9' && at - *text < DIGITS_MAX; at++) {
        *ret_number = *ret_number * 10 + (unsigned)(*at - '0');
    }
    bool is_number = at != *text && *at == end;
    *text = at + 1;
    return is_number;
}

/* "1.2.3": the first two. */
static bool parse(const char *text, unsigned *ret_major, unsigned *ret_minor)
{
    unsigned patch;

    return take_number(&text, '.', ret_major) && take_number(&text, '.', ret_minor) &&
           take_number(&text, '\0', &patch);
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
