/* seal.h: plain connections between members, sealed with a key that the whole cluster shares (--cluster-key-file): who
 * has it not can neither read, nor change, nor say anything. Bytes to bytes; no socket, no clock.
 *
 *   who dials                                       who listens
 *   "QSL1"  public key  proof              ------>
 *                                          <------  "QSL1"  public key  proof  stream header
 *   stream header                          ------>
 *   frames: u32 length, big endian; sealed (XChaCha20-Poly1305, libsodium's secretstream)      both ways
 *
 * The public keys (X25519) are made for the one connection; proofs are keyed BLAKE2b over them, so each side sees at once
 * whether the other has the same key. The streams' two keys come out of cluster key, shared secret and both public keys:
 * what was recorded opens in no other connection, and not even with the cluster key later. Frames count themselves:
 * one left out, doubled or moved does not open.
 *
 * A file holds one key, or two for the time of a change: who dials uses the first, who listens takes either. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct seal;

enum {
    SEAL_KEY_BYTES = 32,
    SEAL_KEYS_MAX = 2,
    SEAL_PLAIN_BYTES_MAX = 64 * 1024, /* of one frame; more goes into several */
};

struct seal_keys {
    uint8_t keys[SEAL_KEYS_MAX][SEAL_KEY_BYTES];
    size_t count;
};

/* Reads the text of a key file: one or two lines of 64 hex digits. -EINVAL: it is none; the err says how to make one. */
int seal_keys_parse(
        struct span text, const char *path, struct seal_keys *ret_keys, struct err *err);

struct seal *seal_new(const struct seal_keys *keys, bool listens); /* copies the keys */
struct seal *seal_free(struct seal *seal);                         /* always NULL, accepts NULL */

/* As the functions of proto/wire_guard.h. */
int seal_receive(
        struct seal *seal, struct span bytes, struct buf *plain, struct buf *out, struct err *err);
bool seal_is_ready(const struct seal *seal);
int seal_send(struct seal *seal, struct span plain, struct buf *out, struct err *err);
