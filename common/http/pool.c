#include "common/http/pool.h"

void http_pool_fini(struct http_pool *pool)
{
    while (pool->count > 0) {
        buf_fini(&pool->items[--pool->count]);
    }
}

void http_pool_lend(struct http_pool *pool, struct buf *ret_buf)
{
    INVARIANT(ret_buf->data == NULL);
    if (pool->count > 0) {
        *ret_buf = pool->items[--pool->count];
        return;
    }
    *ret_buf = BUF_INIT;
    (void)buf_reserve(ret_buf, HTTP_POOL_BUF_BYTES);
}

void http_pool_return(struct http_pool *pool, struct buf *take_buf)
{
    if (take_buf->data == NULL) {
        return;
    }
    if (pool->count == HTTP_POOL_COUNT_MAX || take_buf->capacity > HTTP_POOL_BUF_BYTES_MAX) {
        buf_fini(take_buf);
        return;
    }
    buf_clear(take_buf);
    pool->items[pool->count++] = *take_buf;
    *take_buf = BUF_INIT;
}
