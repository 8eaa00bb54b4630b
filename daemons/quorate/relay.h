/* relay.h: one daemon's log lines, from its pipe to our stderr with its name in front.
 *
 * Whole lines only; a line without an end is passed on in pieces. When nobody reads our stderr the lines are lost:
 * the pipe is emptied all the same, so a daemon never waits for a reader. */
#pragma once

#include "common/buf.h"

struct relay {
    int fd; /* the pipe's reading end, non-blocking; -1: none */
    struct buf line;
};

#define RELAY_INIT ((struct relay){ -1, { NULL, 0, 0 } })

/* Passes on what is there. False when the other end is closed; relay_close is due then. */
bool relay_drain(struct relay *relay, const char *name);
/* Passes on the rest, an unfinished line too, and closes. */
void relay_close(struct relay *relay, const char *name);
