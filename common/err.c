#include "common/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *format, ...)
{
    INVARIANT(code < 0);
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        err->code = code;
    }
    return code;
}

int err_errno(struct err *err, const char *format, ...)
{
    int saved = errno;
    int code = saved > 0 ? -saved : -EIO;

    if (err != NULL) {
        va_list args;
        va_start(args, format);
        int used = vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        if (used >= 0 && (size_t)used < sizeof err->text) {
            char reason[128];
            (void)snprintf(err->text + used, sizeof err->text - (size_t)used, ": %s",
                    strerror_r(-code, reason, sizeof reason));
        }
        err->code = code;
    }
    return code;
}

int err_mend(struct err *err, const char *mend)
{
    if (err == NULL) {
        return -EIO;
    }
    size_t used = strnlen(err->text, sizeof err->text - 1);
    (void)snprintf(err->text + used, sizeof err->text - used, "; %s", mend);
    return err->code < 0 ? err->code : -EIO;
}

int err_prefix(struct err *err, const char *format, ...)
{
    char prefix[ERR_TEXT_BYTES / 2];

    if (err == NULL) {
        return -EIO;
    }
    va_list args;
    va_start(args, format);
    int length = vsnprintf(prefix, sizeof prefix - 2, format, args);
    va_end(args);
    size_t prefix_bytes = length < 0 ? 0 : MIN((size_t)length, sizeof prefix - 3);
    prefix[prefix_bytes++] = ':';
    prefix[prefix_bytes++] = ' ';
    size_t kept = strnlen(err->text, sizeof err->text - prefix_bytes - 1);
    memmove(err->text + prefix_bytes, err->text, kept);
    memcpy(err->text, prefix, prefix_bytes);
    err->text[prefix_bytes + kept] = '\0';
    return err->code < 0 ? err->code : -EIO;
}
