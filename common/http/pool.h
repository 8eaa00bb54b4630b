/* pool.h: small bufs that are lent out and come back, so that a busy server allocates nothing for a
 * request and an idle connection holds nothing. Last in, first out: what is lent next is still in
 * the processor's cache. */
#pragma once

#include "common/buf.h"

enum {
    HTTP_POOL_BUF_BYTES =
            1024, /* what a fresh one can hold: a request or an answer of common size */
    HTTP_POOL_BUF_BYTES_MAX = 16 * 1024, /* one that has grown beyond is not kept */
    HTTP_POOL_COUNT_MAX = 1024,
};

struct http_pool {
    struct buf items[HTTP_POOL_COUNT_MAX];
    size_t count;
};

void http_pool_fini(struct http_pool *pool);
/* `ret_buf` must own nothing; it is empty afterwards, with room for at least
 * HTTP_POOL_BUF_BYTES. */
void http_pool_lend(struct http_pool *pool, struct buf *ret_buf);
/* Leaves `take_buf` owning nothing. */
void http_pool_return(struct http_pool *pool, struct buf *take_buf);
