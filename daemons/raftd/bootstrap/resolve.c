/* resolve.c: the questions to DNS, over c-ares. Both services are asked, and what they answer is taken together; a
 * member knows its own record by the address that it leads to. */
#include "daemons/raftd/bootstrap/resolve.h"

#include <ares.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <strings.h>

#include "common/log.h"
#include "common/url.h"
#include "daemons/raftd/bootstrap/srv.h"

enum {
    CLASS_IN = 1,
    TYPE_SRV = 33,
    TIMEOUT_MS = 2000,
    TRIES = 3,
};

struct places {
    struct sockaddr_in6 *items; /* IPv4 as mapped addresses */
    size_t count;
};

struct resolver {
    const struct conf *conf;
    ares_channel channel;
    bool has_channel;
    struct places own;
    struct srv_record *records;
    size_t record_count;
};

/* One question under way. */
struct question {
    struct resolver *resolver;
    struct places *places; /* of an address question */
    uint16_t port;
    bool is_tls;
    int status;
};

static void resolver_fini(struct resolver *resolver)
{
    if (resolver->has_channel) {
        ares_destroy(resolver->channel);
    }
    free(resolver->own.items);
    free(resolver->records);
}

/* Until no question is open. */
static void wait_for_answers(ares_channel channel)
{
    for (;;) {
        ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
        struct pollfd polled[ARES_GETSOCK_MAXNUM];
        struct timeval room;
        nfds_t count = 0;
        int mask = ares_getsock(channel, sockets, ARES_GETSOCK_MAXNUM);

        for (int i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
            bool reads = (mask & (1 << i)) != 0;
            bool writes = (mask & (1 << (i + ARES_GETSOCK_MAXNUM))) != 0;
            if (reads || writes) {
                polled[count++] = (struct pollfd){ .fd = sockets[i],
                    .events = (short)((reads ? POLLIN : 0) | (writes ? POLLOUT : 0)) };
            }
        }
        if (count == 0) {
            return;
        }
        const struct timeval *left = ares_timeout(channel, NULL, &room);
        int wait_ms = left == NULL ? TIMEOUT_MS : (int)(left->tv_sec * 1000 + left->tv_usec / 1000);
        if (poll(polled, count, wait_ms + 1) <= 0) {
            ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
            continue;
        }
        for (nfds_t i = 0; i < count; i++) {
            ares_process_fd(channel,
                    (polled[i].revents & ~POLLOUT) != 0 ? polled[i].fd : ARES_SOCKET_BAD,
                    (polled[i].revents & POLLOUT) != 0 ? polled[i].fd : ARES_SOCKET_BAD);
        }
    }
}

static void add_place(struct places *places, const struct sockaddr *address, uint16_t port)
{
    struct sockaddr_in6 place = { .sin6_family = AF_INET6, .sin6_port = port };

    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        place.sin6_addr.s6_addr[10] = 0xff;
        place.sin6_addr.s6_addr[11] = 0xff;
        memcpy(&place.sin6_addr.s6_addr[12], &v4.sin_addr, sizeof v4.sin_addr);
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof v6);
        place.sin6_addr = v6.sin6_addr;
    } else {
        return;
    }
    places->items = xrealloc(places->items, (places->count + 1) * sizeof *places->items);
    places->items[places->count++] = place;
}

static void on_addresses(void *user, int status, int timeouts, struct ares_addrinfo *info)
{
    struct question *question = user;

    (void)timeouts;
    question->status = status;
    if (info != NULL) {
        for (const struct ares_addrinfo_node *node = info->nodes; node != NULL;
                node = node->ai_next) {
            add_place(question->places, node->ai_addr, question->port);
        }
        ares_freeaddrinfo(info);
    }
}

/* Adds the addresses of the host; an ares status. */
static int resolve_host(
        struct resolver *resolver, const char *host, uint16_t port, struct places *places)
{
    struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    struct question question = { .resolver = resolver, .places = places, .port = port };
    /* A bare chroot has no /etc/hosts. */
    const char *asked = strcasecmp(host, "localhost") == 0 ? "127.0.0.1" : host;

    ares_getaddrinfo(resolver->channel, asked, NULL, &hints, on_addresses, &question);
    wait_for_answers(resolver->channel);
    return places->count > 0                 ? ARES_SUCCESS
           : question.status == ARES_SUCCESS ? ARES_ENODATA
                                             : question.status;
}

static void add_record(struct resolver *resolver, const struct ares_srv_reply *reply, bool is_tls)
{
    struct srv_record record = { .is_tls = is_tls, .port = reply->port };

    if (!srv_set_host(&record, reply->host)) {
        return;
    }
    resolver->records =
            xrealloc(resolver->records, (resolver->record_count + 1) * sizeof *resolver->records);
    resolver->records[resolver->record_count++] = record;
}

static void on_records(void *user, int status, int timeouts, unsigned char *answer, int bytes)
{
    struct question *question = user;
    struct ares_srv_reply *replies = NULL;

    (void)timeouts;
    if (status == ARES_SUCCESS) {
        status = ares_parse_srv_reply(answer, bytes, &replies);
    }
    for (const struct ares_srv_reply *reply = replies; reply != NULL; reply = reply->next) {
        add_record(question->resolver, reply, question->is_tls);
    }
    ares_free_data(replies);
    question->status = status;
}

static int ask_service(struct resolver *resolver, bool is_tls)
{
    CLEANUP(buf_fini) struct buf name = BUF_INIT;
    struct question question = { .resolver = resolver, .is_tls = is_tls };
    const struct conf *conf = resolver->conf;

    srv_query_name(is_tls, conf->discovery_srv_name, conf->discovery_srv, &name);
    ares_query(
            resolver->channel, (const char *)name.data, CLASS_IN, TYPE_SRV, on_records, &question);
    wait_for_answers(resolver->channel);
    if (question.status != ARES_SUCCESS) {
        log_line(LOG_LEVEL_WARNING, "discovery",
                "error querying DNS SRV records for _etcd-server%s lookup %s: %s",
                is_tls ? "-ssl" : "", (const char *)name.data, ares_strerror(question.status));
    }
    return question.status;
}

static bool intersect(const struct places *left, const struct places *right)
{
    for (size_t i = 0; i < left->count; i++) {
        for (size_t j = 0; j < right->count; j++) {
            if (left->items[i].sin6_port == right->items[j].sin6_port &&
                    IN6_ARE_ADDR_EQUAL(&left->items[i].sin6_addr, &right->items[j].sin6_addr)) {
                return true;
            }
        }
    }
    return false;
}

/* Finds this member among the records; those that lead nowhere are left out. */
static void resolve_records(struct resolver *resolver)
{
    size_t kept = 0;

    for (size_t i = 0; i < resolver->record_count; i++) {
        struct srv_record record = resolver->records[i];
        struct places places = { 0 };
        int status = resolve_host(resolver, record.host, record.port, &places);
        if (status == ARES_SUCCESS) {
            record.is_self = intersect(&resolver->own, &places);
            resolver->records[kept++] = record;
        } else {
            log_line(LOG_LEVEL_WARNING, "discovery",
                    "couldn't resolve host %s of an SRV record: %s; it is left out", record.host,
                    ares_strerror(status));
        }
        free(places.items);
    }
    resolver->record_count = kept;
}

/* A name that DNS knows not to be there is a mistake of the operator's; no answer may pass, and is worth another start. */
static int code_of(int status)
{
    return status == ARES_ENOTFOUND || status == ARES_ENODATA ? -EINVAL : -EHOSTUNREACH;
}

static int resolve_own(struct resolver *resolver, struct err *err)
{
    const struct conf_list *urls = &resolver->conf->initial_advertise_peer_urls;

    for (size_t i = 0; i < urls->count; i++) {
        struct places places = { 0 };
        struct url url;
        TRY(url_parse(urls->items[i], URL_KIND_TCP, &url, err));
        int status = resolve_host(resolver, url.host, url.port, &places);
        for (size_t j = 0; j < places.count; j++) {
            add_place(&resolver->own, (const struct sockaddr *)&places.items[j], url.port);
        }
        free(places.items);
        if (status != ARES_SUCCESS) {
            return err_set(err, code_of(status),
                    "couldn't resolve host %s: %s; correct --initial-advertise-peer-urls, or give "
                    "DNS that name",
                    url.host, ares_strerror(status));
        }
    }
    return 0;
}

static int open_channel(struct resolver *resolver, struct err *err)
{
    struct ares_options options = { .timeout = TIMEOUT_MS, .tries = TRIES };
    const char *servers = getenv("QUORATE_RESOLVER");
    int status = ares_library_init(ARES_LIB_INIT_ALL);

    if (status == ARES_SUCCESS) {
        status = ares_init_options(
                &resolver->channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
    }
    if (status == ARES_SUCCESS) {
        resolver->has_channel = true;
        if (servers != NULL && servers[0] != '\0') {
            status = ares_set_servers_ports_csv(resolver->channel, servers);
        }
    }
    if (status != ARES_SUCCESS) {
        return err_set(err, -EHOSTUNREACH,
                "the resolver could not be started: %s; check /etc/resolv.conf",
                ares_strerror(status));
    }
    return 0;
}

int resolve_srv(const struct conf *conf, struct buf *out, struct err *err)
{
    CLEANUP(resolver_fini) struct resolver resolver = { .conf = conf };

    TRY(open_channel(&resolver, err));
    TRY(resolve_own(&resolver, err));
    int tls_status = ask_service(&resolver, true);
    int status = ask_service(&resolver, false);
    if (tls_status != ARES_SUCCESS && status != ARES_SUCCESS) {
        return err_set(err, code_of(status),
                "error querying DNS SRV records for %s: %s; publish _etcd-server._tcp records for "
                "that domain, or correct -discovery-srv or /etc/resolv.conf",
                conf->discovery_srv, ares_strerror(status));
    }
    resolve_records(&resolver);
    TRY(srv_join(resolver.records, resolver.record_count, conf->name, out, err));
    log_notice("raftd.discovery.records", "domain=%s members=%zu", conf->discovery_srv,
            resolver.record_count);
    return 0;
}
