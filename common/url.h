/* url.h: the URLs that flags bear: where to listen, what to tell others.
 *
 *   http://host:port   https://host:port   and, for clients only, unix://path   unixs://path
 *
 * The port is mandatory, a path is not allowed, not even "/". An empty host means every address. What is refused is
 * refused with etcd's words. Pure but for url_equal, which may ask the resolver. Any thread. */
#pragma once

#include "common/err.h"

enum url_scheme {
    URL_SCHEME_HTTP,
    URL_SCHEME_HTTPS,
    URL_SCHEME_UNIX,
    URL_SCHEME_UNIXS,
};

enum {
    URL_HOST_BYTES = 256,
    URL_PATH_BYTES = 1024
};

struct url {
    enum url_scheme scheme;
    char host[URL_HOST_BYTES]; /* without brackets; empty: every address; also empty for unix */
    uint16_t port;             /* 0 for unix */
    char path[URL_PATH_BYTES]; /* unix only, as given */
};

enum url_kind {
    URL_KIND_TCP,         /* http, https */
    URL_KIND_TCP_OR_UNIX, /* those, and unix sockets */
};

int url_parse(const char *text, enum url_kind kind, struct url *ret_url, struct err *err);

static inline bool url_is_tls(const struct url *url)
{
    return url->scheme == URL_SCHEME_HTTPS || url->scheme == URL_SCHEME_UNIXS;
}

static inline bool url_is_unix(const struct url *url)
{
    return url->scheme == URL_SCHEME_UNIX || url->scheme == URL_SCHEME_UNIXS;
}

/* Whether one of the texts has the scheme of a URL with TLS, be the rest of it as it may. */
bool url_any_is_tls(char *const *urls, size_t count);

/* "localhost", 127.0.0.0/8, ::1, or a unix socket: nobody from outside gets there. */
bool url_is_loopback(const struct url *url);

/* Whether two advertised URLs name the same place: scheme and port as they stand, "localhost" and literal addresses
 * as they are written, any other host by the first address it resolves to (not resolvable: not equal). */
bool url_equal(const char *left, const char *right);

/* Copies a text that may be or hold a URL, with what may be secret as "***": user and password, and the path and
 * query behind the host (a discovery token). Caller frees. */
char *url_mask(const char *text);
