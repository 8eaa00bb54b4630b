/* h2.h: tells an HTTP/2 client, in its own language, that it has come to the wrong API.
 *
 * No HTTP/2 is served. But a gRPC client (etcdctl with ETCDCTL_API=3) that is merely hung up on
 * tries again until its timeout and then names the timeout. So we speak just enough: SETTINGS,
 * acknowledge the client's, and answer its first request, gRPC with status UNIMPLEMENTED, others
 * with 400, both with a text that says what to do; then GOAWAY. Pure: bytes in, bytes out. */
#pragma once

#include "common/buf.h"

struct http_h2 {
    bool has_preface; /* read and greeted */
};

enum http_h2_result {
    HTTP_H2_MORE,
    HTTP_H2_DONE /* close once `out` is sent */
};

/* Reads whole frames off the front of `data`; *ret_taken says how many bytes. */
enum http_h2_result http_h2_run(
        struct http_h2 *h2, struct span data, size_t *ret_taken, struct buf *out);
