#include "daemons/raftd/peer/address.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/url.h"

int address_of_url(const char *text, char ret_address[ADDRESS_BYTES], struct err *err)
{
    struct url url;

    TRY(url_parse(text, URL_KIND_TCP, &url, err));
    if (url_is_tls(&url)) {
        return err_set(err, -ENOTSUP,
                "%s: peer URLs with https are not served by this version; "
                "use http between the members",
                text);
    }
    bool is_v6 = strchr(url.host, ':') != NULL;
    (void)snprintf(ret_address, ADDRESS_BYTES, "tcp://%s%s%s:%u", is_v6 ? "[" : "",
            url.host[0] == '\0' ? "0.0.0.0" : url.host, is_v6 ? "]" : "", (unsigned)url.port);
    return 0;
}
