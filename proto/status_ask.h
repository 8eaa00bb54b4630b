/* status_ask.h: asks a daemon for its status, and waits for it: for command line tools and tests.
 *
 * Runs a loop of its own until the answer is there. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct status_answer {
    char component[65];
    char version[65];
    uint64_t pid;
    uint64_t uptime_ms;
    struct buf lines; /* "name value\n" each; the caller's to free */
};

/* 0, or -ETIMEDOUT (nobody there, or hung up on: the text says which path), or what the link says. */
int status_ask(
        const char *path, uint64_t timeout_ms, struct status_answer *ret_answer, struct err *err);
