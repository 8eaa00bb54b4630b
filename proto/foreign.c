#include "proto/foreign.h"

static const struct {
    const char *begins;
    const char *text;
} rows[] = {
    { FOREIGN_SEAL_MAGIC, "the connection is sealed, but here is no -cluster-key-file; give all "
                          "members the same one" },
    { "\x16\x03", "a TLS handshake where none is spoken; give both sides the same scheme, http or "
                  "https, in the URLs" },
    { "\x15\x03", "a TLS alert where no TLS is spoken; give both sides the same scheme, http or "
                  "https, in the URLs" },
    { "HTTP", "an HTTP answer; what listens there is no peer port: correct the peer URL" },
};

static bool is_http_request(struct span first)
{
    static const char *const methods[] = { "GET ", "PUT ", "POST", "HEAD", "DELE", "OPTI", "PATC",
        "CONN", "TRAC", "PRI " };

    for (size_t i = 0; i < ARRAY_COUNT(methods); i++) {
        if (span_starts_with(first, span_str(methods[i]))) {
            return true;
        }
    }
    return false;
}

const char *foreign_text(struct span first)
{
    if (is_http_request(first)) {
        return "an HTTP request on the peer port, where members speak to each other; send it to a "
               "client URL "
               "(-advertise-client-urls, /v2/members there)";
    }
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        if (span_starts_with(first, span_str(rows[i].begins))) {
            return rows[i].text;
        }
    }
    return NULL;
}
