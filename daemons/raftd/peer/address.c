#include "daemons/raftd/peer/address.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/url.h"

int address_of_url(const char *text, char ret_address[ADDRESS_BYTES], struct err *err)
{
    struct url url;

    TRY(url_parse(text, URL_KIND_TCP, &url, err));
    const char *host = url.host;
    if (host[0] == '\0') {
        host = "0.0.0.0";
    } else if (strcasecmp(host, "localhost") == 0) {
        host = "127.0.0.1"; /* A bare chroot has no /etc/hosts, and may have no name server. */
    }
    bool is_v6 = strchr(host, ':') != NULL;
    (void)snprintf(ret_address, ADDRESS_BYTES, "tcp://%s%s%s:%u", is_v6 ? "[" : "", host,
            is_v6 ? "]" : "", (unsigned)url.port);
    return 0;
}
