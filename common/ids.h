/* ids.h: the numbers that name members and clusters.
 *
 * member at bootstrap   BLAKE2b-64( peer URLs sorted and joined without separators, then the cluster token )
 * member added later    the same with an empty token, then the time as decimal Unix seconds
 * cluster               BLAKE2b-64( the member ids, ascending, 8 bytes big-endian each )
 *
 * The 8 bytes of the hash are read big-endian; a hash of 0 becomes 1, since 0 means "no member". Names and client
 * URLs are not hashed, nor is the order in which URLs were given. Pure; any thread. */
#pragma once

#include "common/err.h"
#include "common/span.h"

enum {
    IDS_TEXT_BYTES = 17
};

uint64_t ids_member(const char *const *peer_urls, size_t url_count, const char *token);
uint64_t ids_member_added(const char *const *peer_urls, size_t url_count, uint64_t unix_seconds);
uint64_t ids_cluster(const uint64_t *member_ids, size_t member_count);

/* Lower-case hex without leading zeros, as every client sees it. Returns ret_text. */
const char *ids_text(uint64_t id, char ret_text[IDS_TEXT_BYTES]);

/* The other way: 1 to 16 hex digits, of either case, and not 0; else -EINVAL. */
int ids_parse(struct span text, uint64_t *ret_id);
