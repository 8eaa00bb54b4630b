/* route.h: which handler a path belongs to, and which methods it takes (docs/api.md, "Endpoints"). Pure. */
#pragma once

#include "common/http/server.h"

enum route {
    ROUTE_NONE, /* 404 */
    ROUTE_KEYS,
    ROUTE_MEMBERS,
    ROUTE_MACHINES,
    ROUTE_STATS_STORE,
    ROUTE_STATS_SELF,
    ROUTE_STATS_LEADER,
    ROUTE_AUTH_ROLES,
    ROUTE_AUTH_USERS,
    ROUTE_AUTH_ENABLE,
    ROUTE_VERSION,
    ROUTE_HEALTH,
    ROUTE_DEBUG_VARS,
    ROUTE_METRICS,
    ROUTE_LOG_LEVEL,
    ROUTE_V3,
    ROUTE_COUNT,
};

/* The route of a clean, decoded path. *ret_allow: NULL, or the list for a 405 when the method is not taken. */
enum route route_find(struct span path, enum http_method method, const char **ret_allow);
