/* incoming.h: a snapshot file as it comes in: <snap>/recv/<term>-<index>.part, renamed into <snap> once it is whole, its
 * digest right, and synced. What has come stays when the link breaks or the daemon ends: the next offer of the same
 * file goes on there. The check reads the whole file, on a thread of its own. Loop thread only. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "proto/peer.h"

struct incoming;
struct loop;

struct incoming_events {
    /* How far the file has come; refused: it cannot be taken. */
    void (*answer)(void *user, uint64_t to, const struct snapshot_want *want);
    /* It is there, whole and durable, under its name. The offer's parts live for the call. */
    void (*on_file)(void *user, uint64_t from, struct span message, struct span configuration);
};

struct incoming *incoming_new(
        struct loop *loop, const char *snap_dir, const struct incoming_events *events, void *user);
struct incoming *incoming_free(
        struct incoming *incoming); /* waits for the check; always NULL, accepts NULL */

void incoming_on_offer(
        struct incoming *incoming, uint64_t from, const struct snapshot_offer *offer);
void incoming_on_chunk(
        struct incoming *incoming, uint64_t from, const struct snapshot_chunk *chunk);
