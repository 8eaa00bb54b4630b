/* log.h: what a daemon tells its operator. One line an event on stderr:
 *
 *   2026-11-22 08:00:00.123456 N | raftd: raft.leader.elected term=2 votes=1
 *
 * The event id (dotted, stable) comes first, then key=value. Lines that tools built for etcd wait for are
 * printed with log_line under etcd's package name. One write(2) a line; a closed or full pipe loses the
 * line and never stops the daemon. Repeats of one event within a second are counted, not printed, from the
 * eleventh on. Any thread. common/, proto/ and pure cores never call this. */
#pragma once

#include "common/err.h"

enum log_level {
    LOG_LEVEL_CRIT,
    LOG_LEVEL_ERR,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_NOTICE,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
};

/* Names the component (static string) and the most talkative level that is printed. */
void log_init(const char *component, enum log_level level);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);

void log_event(enum log_level level, const char *event, const char *format, ...) PRINTF_LIKE(3, 4);
void log_event_err(enum log_level level, const struct err *err, const char *event,
        const char *format, ...) PRINTF_LIKE(4, 5);
/* Free text under a package name of etcd's ("etcdserver", "raft"). */
void log_line(enum log_level level, const char *package, const char *format, ...) PRINTF_LIKE(3, 4);

#define log_crit(...)             log_event(LOG_LEVEL_CRIT, __VA_ARGS__)
#define log_error(...)            log_event(LOG_LEVEL_ERR, __VA_ARGS__)
#define log_error_err(err, ...)   log_event_err(LOG_LEVEL_ERR, err, __VA_ARGS__)
#define log_warning(...)          log_event(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_warning_err(err, ...) log_event_err(LOG_LEVEL_WARNING, err, __VA_ARGS__)
#define log_notice(...)           log_event(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)             log_event(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)            log_event(LOG_LEVEL_DEBUG, __VA_ARGS__)
