/* notify.h: tells whoever started this daemon how it is doing, in systemd's protocol: one datagram of NAME=value
 * lines to the socket that $NOTIFY_SOCKET names. quorate listens there just as systemd does.
 *
 * Without such a socket every call does nothing. Never blocks, never fails the caller. */
#pragma once

#include "common/macros.h"

void notify_ready(
        void); /* serves: raftd after replay, stored after recovery, gatewayd once it has a leader */
void notify_stopping(void); /* SIGTERM came */
void notify_watchdog(void);
void notify_status(const char *text);
/* Asks the supervisor to end this daemon's sibling, one that holds back the state (stored finds it by its reader slot).
 * quorate ends a gatewayd of its own that way and starts it anew; systemd ignores it. */
void notify_end_process(long pid);
