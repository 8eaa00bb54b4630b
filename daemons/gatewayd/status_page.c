/* status_page.c: what this gatewayd says of itself, for quoratectl and tests. /metrics has what clients see counted, of all
 * gatewayds together; here is what goes on in one process. */
#include <stdio.h>
#include <stdlib.h>

#include "common/strangers.h"
#include "daemons/gatewayd/shell.h"
#include "proto/status_server.h"

static void fill(void *user, struct status_page *page)
{
    struct gatewayd *gw = user;
    struct http_stats http;
    struct ring_stats ring;

    http_server_get_stats(gw->http, &http);
    ring_get_stats(gw, &ring);
    status_page_add(page, "gatewayd_instance", gw->instance);
    status_page_add(page, "gatewayd_ready", gw->ready);
    status_page_add(page, "gatewayd_draining", gw->draining);
    status_page_add(page, "gatewayd_connections", http.conn_count);
    status_page_add(page, "gatewayd_connections_accepted_total", http.accepted);
    status_page_add(page, "gatewayd_connections_refused_total", http.refused);
    status_page_add(page, "gatewayd_connections_cut_total", http.cut);
    status_page_add(page, "gatewayd_held_bytes", http.held_bytes);
    status_page_add(page, "gatewayd_requests_total", http.requests);
    status_page_add(page, "gatewayd_watchers", watch_hub_count(gw->hub));
    status_page_add(page, "gatewayd_requests_pending", calls_pending_count(gw->calls));
    status_page_add(page, "gatewayd_ops_gathered", ring.gathered_ops);
    status_page_add(page, "gatewayd_ops_gathered_bytes", ring.gathered_bytes);
    status_page_add(page, "gatewayd_ops_in_flight", ring.in_flight);
    status_page_add(page, "gatewayd_listings_busy", jobs_are_busy(gw->jobs));
    status_page_add(page, "gatewayd_raftd_up", gw->raft.up);
    status_page_add(page, "gatewayd_raftd_links_total", ring.links);
    status_page_add(page, "gatewayd_stored_up", subscription_is_up(gw->subscription));
    status_page_add(page, "gatewayd_applied_index", gw->applied_index);
    status_page_add(page, "gatewayd_generation", gw->view.meta.generation);
    status_page_add(page, "gatewayd_counts_expiries", gw->primary);
}

/* One gatewayd of several is told apart by the number that quorate gave it. */
int status_page_start(struct gatewayd *gw, struct err *err)
{
    const char *number = getenv("QUORATE_DAEMON");
    unsigned long position = number == NULL ? 1 : strtoul(number, NULL, 10);
    char path[64] = "gatewayd-status.ipc";

    if (position > 1) {
        (void)snprintf(path, sizeof path, "gatewayd-%lu-status.ipc", position);
    }
    struct status_server_config config = {
        .component = "gatewayd",
        .path = path,
        .peer_uids = gw->conf->ipc_uids.items,
        .peer_uid_count = gw->conf->ipc_uids.count,
        .on_stranger = strangers_tell,
        .fill = fill,
        .user = gw,
    };
    return status_server_open(gw->loop, &config, &gw->status, err);
}

void status_page_stop(struct gatewayd *gw)
{
    gw->status = status_server_close(gw->status);
}
