#include "daemons/raftd/bootstrap/srv.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>

void srv_query_name(bool is_tls, const char *suffix, const char *domain, struct buf *out)
{
    buf_appendf(out, "_etcd-server%s%s%s._tcp.%s", is_tls ? "-ssl" : "",
            suffix[0] == '\0' ? "" : "-", suffix, domain);
    buf_append_byte(out, '\0');
}

bool srv_set_host(struct srv_record *record, const char *target)
{
    size_t bytes = strlen(target);

    if (bytes > 0 && target[bytes - 1] == '.') {
        bytes--;
    }
    if (bytes == 0 || bytes >= sizeof record->host) {
        return false;
    }
    memcpy(record->host, target, bytes);
    record->host[bytes] = '\0';
    return true;
}

/* One port speaks one of the two: where both services name it, the member is the one with TLS. */
static bool is_named_with_tls(
        const struct srv_record *records, size_t count, const struct srv_record *record)
{
    for (size_t i = 0; i < count && !record->is_tls; i++) {
        if (records[i].is_tls && records[i].port == record->port &&
                strcasecmp(records[i].host, record->host) == 0) {
            return true;
        }
    }
    return false;
}

int srv_join(const struct srv_record *records, size_t count, const char *self_name, struct buf *out,
        struct err *err)
{
    unsigned number = 0;
    bool found_self = false;
    bool is_first = true;

    for (size_t i = 0; i < count; i++) {
        const struct srv_record *record = &records[i];
        char numbered[16];
        if (is_named_with_tls(records, count, record)) {
            continue;
        }
        if (!record->is_self) {
            do {
                (void)snprintf(numbered, sizeof numbered, "%u", number++);
            } while (strcmp(numbered, self_name) == 0);
        }
        found_self = found_self || record->is_self;
        buf_appendf(out, "%s%s=%s://%s:%u", is_first ? "" : ",",
                record->is_self ? self_name : numbered, record->is_tls ? "https" : "http",
                record->host, (unsigned)record->port);
        is_first = false;
    }
    buf_append_byte(out, '\0');
    if (!found_self) {
        return err_set(err, -EINVAL,
                "cannot find local etcd member \"%s\" in SRV records; none of them leads to an "
                "address and port of --initial-advertise-peer-urls: correct that flag or the "
                "records",
                self_name);
    }
    return 0;
}
