#include "daemons/gatewayd/route.h"

#define METHOD(name) (1u << HTTP_##name)
#define METHODS_ANY  (~0u)

enum shape {
    EXACT,     /* the path itself */
    TREE,      /* the path and everything under it */
    UNDER,     /* only what is under it, not the path itself */
    UNDER_DIR, /* the path with a slash behind it */
};

struct row {
    struct span path;
    enum shape shape;
    enum route route;
    unsigned methods;
    const char *allow; /* as written in the 405 answer */
};

#define PATH(text)                                                                                 \
    {                                                                                              \
        (const uint8_t *)(text), sizeof(text) - 1                                                  \
    }

static const struct row rows[] = {
    { PATH("/v2/keys"), TREE, ROUTE_KEYS,
            METHOD(HEAD) | METHOD(GET) | METHOD(PUT) | METHOD(POST) | METHOD(DELETE),
            "HEAD,GET,PUT,POST,DELETE" },
    { PATH("/v2/members"), TREE, ROUTE_MEMBERS,
            METHOD(GET) | METHOD(POST) | METHOD(DELETE) | METHOD(PUT), "GET,POST,DELETE,PUT" },
    { PATH("/v2/machines"), EXACT, ROUTE_MACHINES, METHOD(GET) | METHOD(HEAD), "GET,HEAD" },
    { PATH("/v2/stats/store"), EXACT, ROUTE_STATS_STORE, METHOD(GET), "GET" },
    { PATH("/v2/stats/self"), EXACT, ROUTE_STATS_SELF, METHOD(GET), "GET" },
    { PATH("/v2/stats/leader"), EXACT, ROUTE_STATS_LEADER, METHOD(GET), "GET" },
    { PATH("/v2/auth/roles"), EXACT, ROUTE_AUTH_ROLES, METHOD(GET), "GET" },
    { PATH("/v2/auth/roles"), UNDER_DIR, ROUTE_AUTH_ROLES, METHOD(GET), "GET" },
    { PATH("/v2/auth/roles"), UNDER, ROUTE_AUTH_ROLES, METHOD(GET) | METHOD(PUT) | METHOD(DELETE),
            "GET,PUT,DELETE" },
    { PATH("/v2/auth/users"), EXACT, ROUTE_AUTH_USERS, METHOD(GET), "GET" },
    { PATH("/v2/auth/users"), UNDER_DIR, ROUTE_AUTH_USERS, METHOD(GET), "GET" },
    { PATH("/v2/auth/users"), UNDER, ROUTE_AUTH_USERS, METHOD(GET) | METHOD(PUT) | METHOD(DELETE),
            "GET,PUT,DELETE" },
    { PATH("/v2/auth/enable"), EXACT, ROUTE_AUTH_ENABLE, METHOD(GET) | METHOD(PUT) | METHOD(DELETE),
            "GET,PUT,DELETE" },
    { PATH("/version"), EXACT, ROUTE_VERSION, METHOD(GET), "GET" },
    { PATH("/health"), EXACT, ROUTE_HEALTH, METHOD(GET), "GET" },
    { PATH("/debug/vars"), EXACT, ROUTE_DEBUG_VARS, METHOD(GET), "GET" },
    { PATH("/metrics"), EXACT, ROUTE_METRICS, METHODS_ANY, "" },
    { PATH("/config/local/log"), EXACT, ROUTE_LOG_LEVEL, METHOD(PUT), "PUT" },
    { PATH("/v3"), UNDER, ROUTE_V3, METHODS_ANY, "" },
    { PATH("/v3alpha"), UNDER, ROUTE_V3, METHODS_ANY, "" },
    { PATH("/v3beta"), UNDER, ROUTE_V3, METHODS_ANY, "" },
};

static bool row_matches(const struct row *row, struct span path)
{
    if (!span_starts_with(path, row->path)) {
        return false;
    }
    size_t rest_bytes = path.bytes - row->path.bytes;
    bool under = rest_bytes > 0 && path.data[row->path.bytes] == '/';
    switch (row->shape) {
    case EXACT:
        return rest_bytes == 0;
    case TREE:
        return rest_bytes == 0 || under;
    case UNDER:
        return under;
    case UNDER_DIR:
        return under && rest_bytes == 1;
    }
    return false;
}

enum route route_find(struct span path, enum http_method method, const char **ret_allow)
{
    *ret_allow = NULL;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        if (row_matches(&rows[i], path)) {
            if ((rows[i].methods & 1u << method) == 0) {
                *ret_allow = rows[i].allow;
            }
            return rows[i].route;
        }
    }
    return ROUTE_NONE;
}
