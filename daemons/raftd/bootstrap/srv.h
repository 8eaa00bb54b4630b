/* srv.h: the members of a new cluster as DNS names them (docs/configuration.md, "SRV records"). Pure. */
#pragma once

#include "common/buf.h"
#include "common/conf.h"

enum {
    SRV_HOST_BYTES = 256
};

struct srv_record {
    bool is_tls; /* of the service _etcd-server-ssl */
    bool is_self;
    uint16_t port;
    char host[SRV_HOST_BYTES]; /* the target as DNS has it, without the dot at its end */
};

/* _etcd-server-ssl-SUFFIX._tcp.DOMAIN; an empty suffix leaves no dash. */
void srv_query_name(bool is_tls, const char *suffix, const char *domain, struct buf *out);

/* False: the target does not fit. */
bool srv_set_host(struct srv_record *record, const char *target);

/* The records as a value of --initial-cluster: this member under its name, the others under running numbers, which
 * each member gives in its own way: names are in no id. A port that both services name is the member with TLS. */
int srv_join(const struct srv_record *records, size_t count, const char *self_name, struct buf *out,
        struct err *err);
