#include "common/conf_listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/url.h"

enum {
    LISTEN_BACKLOG = 4096
};

struct place {
    struct sockaddr_storage address;
    socklen_t bytes;
    bool optional; /* may be left out where the host does not have it */
};

enum {
    PLACES_MAX = 2
};

static int add_literal(struct place *place, const char *host, uint16_t port)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV };
    struct addrinfo *found = NULL;
    char service[8];

    (void)snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &found) != 0 || found == NULL) {
        return -EINVAL;
    }
    memcpy(&place->address, found->ai_addr, found->ai_addrlen);
    place->bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int add_resolved(
        struct place *place, const struct url *url, const char *flag, struct err *err)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    char service[8];

    (void)snprintf(service, sizeof service, "%u", url->port);
    int r = getaddrinfo(url->host, service, &hints, &found);
    if (r != 0 || found == NULL) {
        return err_set(err, -EADDRNOTAVAIL,
                "listen tcp: lookup %s: %s; give -%s an address of this host", url->host,
                gai_strerror(r), flag);
    }
    const struct addrinfo *chosen = found;
    for (const struct addrinfo *each = found; each != NULL; each = each->ai_next) {
        if (each->ai_family == AF_INET) {
            chosen = each;
            break;
        }
    }
    memcpy(&place->address, chosen->ai_addr, chosen->ai_addrlen);
    place->bytes = chosen->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static bool has_ipv6(void)
{
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        (void)close(fd);
    }
    return fd >= 0;
}

/* Where a URL's host says to listen: one or two places. */
static int find_places(const struct url *url, struct place places[PLACES_MAX], size_t *ret_count,
        const char *flag, struct err *err)
{
    memset(places, 0, PLACES_MAX * sizeof *places);
    *ret_count = 1;
    if (url->host[0] == '\0') {
        return add_literal(&places[0], has_ipv6() ? "::" : "0.0.0.0", url->port);
    }
    if (strcasecmp(url->host, "localhost") == 0) {
        TRY(add_literal(&places[0], "127.0.0.1", url->port));
        places[1].optional = true;
        if (has_ipv6() && add_literal(&places[1], "::1", url->port) == 0) {
            *ret_count = 2;
        }
        return 0;
    }
    if (add_literal(&places[0], url->host, url->port) == 0) {
        return 0;
    }
    return add_resolved(&places[0], url, flag, err);
}

static int refuse_bind(int reason, const struct place *place, const char *flag, struct err *err)
{
    char host[URL_HOST_BYTES] = "";
    char port[8] = "";
    char text[128];
    const struct sockaddr *address = (const struct sockaddr *)&place->address;
    bool is_v6 = address->sa_family == AF_INET6;

    (void)getnameinfo(address, place->bytes, host, sizeof host, port, sizeof port,
            NI_NUMERICHOST | NI_NUMERICSERV);
    const char *mend = reason == EADDRINUSE ? "stop what listens there (ss -ltnp shows it), or give"
                       : reason == EACCES   ? "ports below 1024 need rights; give"
                                            : "give";
    return err_set(err, -reason, "listen tcp %s%s%s:%s: bind: %s; %s -%s another URL",
            is_v6 ? "[" : "", host, is_v6 ? "]" : "", port,
            reason == EADDRINUSE ? "address already in use" : strerror_r(reason, text, sizeof text),
            mend, flag);
}

/* A listening descriptor; -EADDRNOTAVAIL for an optional place that the host does not have. */
static int listen_tcp(const struct place *place, const char *flag, struct err *err)
{
    const struct sockaddr *address = (const struct sockaddr *)&place->address;
    const int on = 1;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        return place->optional ? -EADDRNOTAVAIL : refuse_bind(errno, place, flag, err);
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address->sa_family == AF_INET6) {
        const int only_v6 = !IN6_IS_ADDR_UNSPECIFIED(
                &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, sizeof only_v6);
    }
    if (bind(fd, address, place->bytes) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        int reason = errno;
        (void)close(fd);
        if (place->optional && reason != EADDRINUSE) {
            return -EADDRNOTAVAIL;
        }
        return refuse_bind(reason, place, flag, err);
    }
    return fd;
}

static int append(struct conf_listeners *listeners, int fd, bool tls, char *take_path)
{
    listeners->items[listeners->count++] = (struct conf_listener){ fd, tls, take_path };
    return 0;
}

static int connect_unix(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    int r = connect(fd, (const struct sockaddr *)address, sizeof *address);
    (void)close(fd);
    return r;
}

static int listen_unix(
        struct conf_listeners *listeners, const struct url *url, const char *flag, struct err *err)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct stat stat;

    if (strlen(url->path) >= sizeof address.sun_path) {
        return err_set(err, -ENAMETOOLONG,
                "listen unix %s: the path is longer than %zu bytes; give -%s a shorter one",
                url->path, sizeof address.sun_path - 1, flag);
    }
    memcpy(address.sun_path, url->path, strlen(url->path) + 1);
    if (lstat(url->path, &stat) == 0 && S_ISSOCK(stat.st_mode)) {
        if (connect_unix(&address) == 0 || errno == EAGAIN) {
            return err_set(err, -EADDRINUSE,
                    "listen unix %s: bind: address already in use; stop what listens there, or "
                    "give -%s another path",
                    url->path, flag);
        }
        (void)unlink(url->path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) < 0 ||
            listen(fd, LISTEN_BACKLOG) < 0) {
        int r = err_errno(err, "listen unix %s (-%s)", url->path, flag);
        if (fd >= 0) {
            (void)close(fd);
        }
        return r;
    }
    return append(listeners, fd, url_is_tls(url), realpath(url->path, NULL));
}

int conf_listen_bind(
        struct conf_listeners *listeners, const char *text, const char *flag, struct err *err)
{
    struct place places[PLACES_MAX];
    struct url url;
    size_t count;
    size_t count_before = listeners->count;

    TRY(url_parse(text, URL_KIND_TCP_OR_UNIX, &url, err));
    if (listeners->count + PLACES_MAX > CONF_LISTEN_FDS_MAX) {
        return err_set(err, -E2BIG, "-%s names more than %d addresses", flag,
                CONF_LISTEN_FDS_MAX / PLACES_MAX);
    }
    if (url_is_unix(&url)) {
        return listen_unix(listeners, &url, flag, err);
    }
    TRY(find_places(&url, places, &count, flag, err));
    for (size_t i = 0; i < count; i++) {
        int fd = listen_tcp(&places[i], flag, err);
        if (fd == -EADDRNOTAVAIL && places[i].optional) {
            continue;
        }
        if (fd < 0) {
            while (listeners->count > count_before) {
                (void)close(listeners->items[--listeners->count].fd);
            }
            return fd;
        }
        (void)append(listeners, fd, url_is_tls(&url), NULL);
    }
    return 0;
}

int conf_listen_try(const char *url, const char *flag, struct err *err)
{
    struct conf_listeners listeners = { .count = 0 };
    int r = conf_listen_bind(&listeners, url, flag, err);

    conf_listen_close(&listeners, true);
    return r;
}

/* The n-th of colon separated names, whether it is `wanted`. */
static bool name_is(const char *names, size_t position, const char *wanted)
{
    while (position > 0 && *names != '\0') {
        names += strcspn(names, ":");
        names += *names == ':' ? 1 : 0;
        position--;
    }
    size_t bytes = strcspn(names, ":");
    return strlen(wanted) == bytes && memcmp(names, wanted, bytes) == 0;
}

static bool read_number(const char *name, long *ret_number)
{
    const char *text = getenv(name);
    char *end;

    if (text == NULL || text[0] == '\0') {
        return false;
    }
    *ret_number = strtol(text, &end, 10);
    return *end == '\0';
}

int conf_listen_take(struct conf_listeners *listeners, struct err *err)
{
    const char *names = getenv("LISTEN_FDNAMES");
    long pid;
    long count;

    if (!read_number("LISTEN_PID", &pid) || !read_number("LISTEN_FDS", &count) ||
            pid != (long)getpid() || count <= 0) {
        return 0;
    }
    if (count > CONF_LISTEN_FDS_MAX) {
        return err_set(err, -E2BIG, "LISTEN_FDS=%ld: at most %d sockets can be handed over", count,
                CONF_LISTEN_FDS_MAX);
    }
    for (int i = 0; i < (int)count; i++) {
        int fd = CONF_LISTEN_FD_FIRST + i;
        int flags = fcntl(fd, F_GETFL);
        bool tls = names != NULL && name_is(names, (size_t)i, "client-tls");
        if (flags < 0) {
            return err_errno(err, "descriptor %d of LISTEN_FDS", fd);
        }
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
        /* A socket unit need not name its sockets: whatever is no peer's is a client's. */
        if (names == NULL || !name_is(names, (size_t)i, "peer")) {
            (void)append(listeners, fd, tls, NULL);
        }
    }
    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("LISTEN_FDNAMES");
    return 0;
}

void conf_listen_close(struct conf_listeners *listeners, bool remove_files)
{
    for (size_t i = 0; i < listeners->count; i++) {
        (void)close(listeners->items[i].fd);
        if (remove_files && listeners->items[i].unix_path != NULL) {
            (void)unlink(listeners->items[i].unix_path);
        }
        free(listeners->items[i].unix_path);
    }
    listeners->count = 0;
}
