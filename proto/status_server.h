/* status_server.h: a daemon's status socket: whoever asks gets one page of numbers, each a line "name value".
 *
 * Names begin with the daemon's; one of many is told apart by labels, as Prometheus writes them:
 * raftd_peer_match_index{peer="8e9e05c52164694d"} 12. A page is made when it is asked for. Loop thread only. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct link_hub;
struct loop;
struct status_server;

enum {
    STATUS_FRAME_BYTES_MAX = 256 * 1024,
    STATUS_LINES_MAX = 1024, /* further ones are left out */
};

struct status_page {
    struct buf text;
    size_t ends[STATUS_LINES_MAX];
    size_t count;
};

void status_page_add(struct status_page *page, const char *name, uint64_t value);
/* A line of the thing with this id: name{label="<16 hex digits>"} value */
void status_page_add_of(
        struct status_page *page, const char *name, const char *label, uint64_t id, uint64_t value);

struct status_server_config {
    const char *component;     /* static: "raftd" */
    const char *path;          /* short, relative to the run folder */
    const uint64_t *peer_uids; /* as in link_config */
    size_t peer_uid_count;
    void (*on_stranger)(void *user, const char *path, int64_t uid, int64_t pid);
    void (*fill)(void *user, struct status_page *page);
    void *user;
};

int status_server_open(struct loop *loop, const struct status_server_config *config,
        struct status_server **ret_server, struct err *err);
struct status_server *status_server_close(
        struct status_server *server); /* always NULL, accepts NULL */
