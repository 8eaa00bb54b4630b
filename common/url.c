#include "common/url.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "common/buf.h"

static const struct {
    const char *prefix;
    enum url_scheme scheme;
    enum url_kind kind;
} schemes[] = {
    { "http://", URL_SCHEME_HTTP, URL_KIND_TCP },
    { "https://", URL_SCHEME_HTTPS, URL_KIND_TCP },
    { "unix://", URL_SCHEME_UNIX, URL_KIND_TCP_OR_UNIX },
    { "unixs://", URL_SCHEME_UNIXS, URL_KIND_TCP_OR_UNIX },
};

/* The text behind a known scheme, or NULL. */
static const char *take_scheme(const char *text, enum url_kind kind, enum url_scheme *ret_scheme)
{
    for (size_t i = 0; i < ARRAY_COUNT(schemes); i++) {
        size_t bytes = strlen(schemes[i].prefix);
        if (schemes[i].kind <= kind && strncasecmp(text, schemes[i].prefix, bytes) == 0) {
            *ret_scheme = schemes[i].scheme;
            return text + bytes;
        }
    }
    return NULL;
}

static int refuse(struct err *err, const char *why, const char *text)
{
    return err_set(err, -EINVAL, "%s: %s", why, text);
}

static int parse_unix(const char *text, const char *path, struct url *url, struct err *err)
{
    size_t bytes = strlen(path);

    if (bytes == 0) {
        return refuse(err, "unix URL must name a socket file", text);
    }
    if (bytes >= sizeof url->path) {
        return refuse(err, "unix URL is too long", text);
    }
    memcpy(url->path, path, bytes + 1);
    return 0;
}

static bool parse_port(const char *text, uint16_t *ret_port)
{
    unsigned port = 0;
    size_t digits = strlen(text);

    if (digits == 0 || digits > 5) {
        return false;
    }
    for (const char *c = text; *c != '\0'; c++) {
        if (*c < '0' || *c > '9') {
            return false;
        }
        port = port * 10U + (unsigned)(*c - '0');
    }
    if (port == 0 || port > UINT16_MAX) {
        return false;
    }
    *ret_port = (uint16_t)port;
    return true;
}

static bool is_host_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '.' || c == '_';
}

/* "host:port" or "[v6]:port", to the end of the text. */
static bool parse_authority(const char *authority, struct url *url)
{
    const char *colon = strrchr(authority, ':');
    const char *host = authority;

    if (colon == NULL || !parse_port(colon + 1, &url->port)) {
        return false;
    }
    size_t bytes = (size_t)(colon - host);
    bool is_v6 = bytes >= 2 && host[0] == '[' && host[bytes - 1] == ']';
    if (is_v6) {
        host++;
        bytes -= 2;
    }
    if (bytes >= sizeof url->host) {
        return false;
    }
    memcpy(url->host, host, bytes);
    url->host[bytes] = '\0';
    if (is_v6) {
        struct in6_addr address;
        char literal[URL_HOST_BYTES];
        (void)snprintf(literal, sizeof literal, "%s", url->host);
        literal[strcspn(literal, "%")] = '\0'; /* a zone, as in fe80::1%eth0 */
        return inet_pton(AF_INET6, literal, &address) == 1;
    }
    for (size_t i = 0; i < bytes; i++) {
        if (!is_host_char(host[i])) {
            return false;
        }
    }
    return true;
}

int url_parse(const char *text, enum url_kind kind, struct url *ret_url, struct err *err)
{
    struct url url = { .host = "", .path = "" };
    const char *rest = take_scheme(text, kind, &url.scheme);

    if (rest == NULL) {
        return refuse(err, "URL scheme must be http or https", text);
    }
    if (url_is_unix(&url)) {
        TRY(parse_unix(text, rest, &url, err));
        *ret_url = url;
        return 0;
    }
    size_t authority_bytes = strcspn(rest, "/?#");
    char authority[URL_HOST_BYTES + 16];
    if (authority_bytes >= sizeof authority) {
        return refuse(err, "URL address does not have the form \"host:port\"", text);
    }
    memcpy(authority, rest, authority_bytes);
    authority[authority_bytes] = '\0';
    if (strchr(authority, '@') != NULL) {
        return err_set(err, -EINVAL, "URL must not contain a user or password");
    }
    if (!parse_authority(authority, &url)) {
        return refuse(err, "URL address does not have the form \"host:port\"", text);
    }
    if (rest[authority_bytes] == '/') {
        return refuse(err, "URL must not contain a path", text);
    }
    if (rest[authority_bytes] != '\0') {
        return refuse(err, "URL must not contain a query or fragment", text);
    }
    *ret_url = url;
    return 0;
}

static bool is_literal_address(const char *host)
{
    uint8_t address[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, address) == 1 || strchr(host, ':') != NULL;
}

bool url_any_is_tls(char *const *urls, size_t count)
{
    enum url_scheme scheme;

    for (size_t i = 0; i < count; i++) {
        if (take_scheme(urls[i], URL_KIND_TCP_OR_UNIX, &scheme) != NULL &&
                (scheme == URL_SCHEME_HTTPS || scheme == URL_SCHEME_UNIXS)) {
            return true;
        }
    }
    return false;
}

bool url_is_loopback(const struct url *url)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (url_is_unix(url) || strcasecmp(url->host, "localhost") == 0) {
        return true;
    }
    if (inet_pton(AF_INET, url->host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    return inet_pton(AF_INET6, url->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* Writes the host as it is compared; false when it does not resolve. */
static bool comparable_host(const char *host, char *ret_text, size_t text_bytes)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;

    if (host[0] == '\0' || strcasecmp(host, "localhost") == 0 || is_literal_address(host)) {
        (void)snprintf(ret_text, text_bytes, "%s", host);
        return true;
    }
    if (getaddrinfo(host, NULL, &hints, &found) != 0 || found == NULL) {
        return false;
    }
    /* Prefer IPv4, as a dial of "tcp" does; both sides are resolved by the same rule. */
    const struct addrinfo *chosen = found;
    for (const struct addrinfo *each = found; each != NULL; each = each->ai_next) {
        if (each->ai_family == AF_INET) {
            chosen = each;
            break;
        }
    }
    int r = getnameinfo(chosen->ai_addr, chosen->ai_addrlen, ret_text, (socklen_t)text_bytes, NULL,
            0, NI_NUMERICHOST);
    freeaddrinfo(found);
    return r == 0;
}

bool url_equal(const char *left, const char *right)
{
    struct url a;
    struct url b;
    char host_a[URL_HOST_BYTES];
    char host_b[URL_HOST_BYTES];

    if (strcmp(left, right) == 0) {
        return true;
    }
    if (url_parse(left, URL_KIND_TCP, &a, NULL) < 0 ||
            url_parse(right, URL_KIND_TCP, &b, NULL) < 0 || a.scheme != b.scheme ||
            a.port != b.port) {
        return false;
    }
    return comparable_host(a.host, host_a, sizeof host_a) &&
           comparable_host(b.host, host_b, sizeof host_b) && strcmp(host_a, host_b) == 0;
}

char *url_mask(const char *text)
{
    CLEANUP(buf_fini) struct buf masked = BUF_INIT;
    const char *rest = text;

    for (;;) {
        const char *mark = strstr(rest, "://");
        if (mark == NULL) {
            break;
        }
        const char *authority = mark + 3;
        bool is_socket = (mark - rest >= 4 && memcmp(mark - 4, "unix", 4) == 0) ||
                         (mark - rest >= 5 && memcmp(mark - 5, "unixs", 5) == 0);
        if (is_socket) { /* a file's name is no secret */
            size_t socket_bytes = strcspn(authority, ",");
            buf_append(&masked, rest, (size_t)(authority - rest) + socket_bytes);
            rest = authority + socket_bytes;
            continue;
        }
        size_t authority_bytes = strcspn(authority, "/?#, ");
        buf_append(&masked, rest, (size_t)(authority - rest));
        const char *at = memrchr(authority, '@', authority_bytes);
        const char *host = at == NULL ? authority : at + 1;
        if (at != NULL) {
            buf_append_str(&masked, "***@");
        }
        rest = authority + authority_bytes;
        buf_append(&masked, host, (size_t)(rest - host));
        size_t secret_bytes = strcspn(rest, ", ");
        if (secret_bytes > 1) {
            buf_append_str(&masked, "/***");
        } else {
            buf_append(&masked, rest, secret_bytes);
        }
        rest += secret_bytes;
    }
    buf_append(&masked, rest, strlen(rest) + 1);
    return (char *)MOVE(masked.data);
}
