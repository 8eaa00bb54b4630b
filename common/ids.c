#include "common/ids.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"

enum {
    ID_BYTES = 8
};

static int compare_texts(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;
    return strcmp(*left, *right);
}

static uint64_t hash_of(const struct buf *input)
{
    uint8_t hash[crypto_generichash_BYTES];
    uint64_t id = 0;

    /* The library's shortest hash has 16 bytes; a hash of 32 cut to 8 is as good a 64-bit hash. */
    int r = crypto_generichash(hash, sizeof hash, input->data, input->bytes, NULL, 0);
    INVARIANT_EQ(r, 0);
    for (size_t i = 0; i < ID_BYTES; i++) {
        id = id << 8 | hash[i];
    }
    return id == 0 ? 1 : id;
}

static uint64_t hash_urls(const char *const *peer_urls, size_t url_count, const char *tail)
{
    CLEANUP(buf_fini) struct buf input = BUF_INIT;
    const char **sorted = xcalloc(url_count == 0 ? 1 : url_count, sizeof *sorted);

    if (url_count > 0) {
        memcpy(sorted, peer_urls, url_count * sizeof *sorted);
        qsort(sorted, url_count, sizeof *sorted, compare_texts);
    }
    for (size_t i = 0; i < url_count; i++) {
        buf_append_str(&input, sorted[i]);
    }
    buf_append_str(&input, tail);
    free(sorted);
    return hash_of(&input);
}

uint64_t ids_member(const char *const *peer_urls, size_t url_count, const char *token)
{
    return hash_urls(peer_urls, url_count, token);
}

uint64_t ids_member_added(const char *const *peer_urls, size_t url_count, uint64_t unix_seconds)
{
    char tail[24];
    (void)snprintf(tail, sizeof tail, "%" PRIu64, unix_seconds);
    return hash_urls(peer_urls, url_count, tail);
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

uint64_t ids_cluster(const uint64_t *member_ids, size_t member_count)
{
    CLEANUP(buf_fini) struct buf input = BUF_INIT;
    uint64_t *sorted = xcalloc(member_count == 0 ? 1 : member_count, sizeof *sorted);

    if (member_count > 0) {
        memcpy(sorted, member_ids, member_count * sizeof *sorted);
        qsort(sorted, member_count, sizeof *sorted, compare_ids);
    }
    for (size_t i = 0; i < member_count; i++) {
        for (unsigned shift = 64; shift > 0; shift -= 8) {
            buf_append_byte(&input, (uint8_t)(sorted[i] >> (shift - 8)));
        }
    }
    free(sorted);
    return hash_of(&input);
}

const char *ids_text(uint64_t id, char ret_text[IDS_TEXT_BYTES])
{
    (void)snprintf(ret_text, IDS_TEXT_BYTES, "%" PRIx64, id);
    return ret_text;
}

int ids_parse(struct span text, uint64_t *ret_id)
{
    uint64_t id = 0;

    if (text.bytes == 0 || text.bytes > IDS_TEXT_BYTES - 1) {
        return -EINVAL;
    }
    for (size_t i = 0; i < text.bytes; i++) {
        uint8_t c = text.data[i];
        unsigned digit;
        if (c >= '0' && c <= '9') {
            digit = c - '0';
        } else if (c >= 'a' && c <= 'f') {
            digit = c - 'a' + 10U;
        } else if (c >= 'A' && c <= 'F') {
            digit = c - 'A' + 10U;
        } else {
            return -EINVAL;
        }
        id = id << 4 | digit;
    }
    if (id == 0) {
        return -EINVAL;
    }
    *ret_id = id;
    return 0;
}
