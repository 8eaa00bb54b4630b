/* conf_listen.h: sockets that clients connect to: bound once by whoever starts the daemons, handed on to each
 * gatewayd as systemd hands on sockets (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES; the first is descriptor 3), so several
 * accept from one. A descriptor named "client" speaks HTTP, "client-tls" TLS.
 *
 * Bound without SO_REUSEPORT, so that no stranger can share the port, and with SO_REUSEADDR, so that a restart does
 * not wait for old connections. "localhost" is 127.0.0.1, and ::1 as well where the host has it; an empty host is every
 * address of both families; another name is its first address, IPv4 before IPv6. A socket file left behind by a dead
 * process is replaced, one that somebody listens on is not. */
#pragma once

#include "common/err.h"

enum {
    CONF_LISTEN_FD_FIRST = 3,
    CONF_LISTEN_FDS_MAX = 64
};

struct conf_listener {
    int fd; /* close-on-exec */
    bool tls;
    char *unix_path; /* absolute path of a socket file that we made; else NULL */
};

struct conf_listeners {
    struct conf_listener items[CONF_LISTEN_FDS_MAX];
    size_t count;
};

/* Binds and listens on one URL of --listen-client-urls; flag is named in the error. Nothing is kept on failure. */
int conf_listen_bind(
        struct conf_listeners *listeners, const char *url, const char *flag, struct err *err);

/* Whether the URL of --listen-peer-urls could be bound now; keeps nothing. */
int conf_listen_try(const char *url, const char *flag, struct err *err);

/* Takes what was handed to this very process, and clears the variables. 0 also when nothing was. */
int conf_listen_take(struct conf_listeners *listeners, struct err *err);

/* Closes all. Socket files that were made here go too when `remove_files` is set. */
void conf_listen_close(struct conf_listeners *listeners, bool remove_files);
