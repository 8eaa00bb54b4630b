/* err.h: an error as code and text.
 *
 * Functions that can fail return 0 (or a count) or a negative errno, and describe the failure in the
 * `struct err *` they were given as last argument. The err_* functions return the code they were given,
 * so reporting and returning are one line. `err` may be NULL: the text is then dropped.
 * Texts name the file, key, peer or number involved. No allocation; safe from any thread. */
#pragma once

#include "common/macros.h"

enum {
    ERR_TEXT_BYTES = 1024
};

struct err {
    int code; /* negative errno, 0: none */
    char text[ERR_TEXT_BYTES];
};

/* Sets code (negative) and text; returns code. */
int err_set(struct err *err, int code, const char *format, ...) PRINTF_LIKE(3, 4);

/* As err_set with -errno, the text followed by ": " and strerror. */
int err_errno(struct err *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Puts "; mend" behind the text that is there already; returns err's code. */
int err_mend(struct err *err, const char *mend);

/* Puts "format: " before the text that is there already; returns err's code. */
int err_prefix(struct err *err, const char *format, ...) PRINTF_LIKE(2, 3);
