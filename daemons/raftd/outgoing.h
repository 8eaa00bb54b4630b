/* outgoing.h: a snapshot file on its way to a member that is far behind.
 *
 * The offer names the file; the member answers with how much of it it has; chunks follow, as many ahead of its answers as
 * the way there carries without a queue that would pass for silence. A break is bridged by offering again. Pure but for
 * the file. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "proto/peer.h"

enum {
    TRANSFER_DIGEST_BYTES = 32
};

/* One file on its way out. */
struct outgoing;

typedef bool (*outgoing_send_fn)(void *user, unsigned type, struct span body);

/* path is opened and kept open: purging it does no harm. message and configuration go into the offer. */
int outgoing_new(const char *path, uint64_t index, uint64_t term, struct span message,
        struct span configuration, struct outgoing **ret_outgoing, struct err *err);
struct outgoing *outgoing_free(struct outgoing *outgoing); /* always NULL, accepts NULL */

enum outgoing_state {
    OUTGOING_UNDER_WAY,
    OUTGOING_DONE,
    OUTGOING_FAILED,
};

/* Offers if that is due: at first, and again when nothing has moved for quiet_ms. Fails after give_up_ms of that. */
enum outgoing_state outgoing_tick(struct outgoing *outgoing, uint64_t now_ms, uint64_t quiet_ms,
        uint64_t give_up_ms, outgoing_send_fn send, void *user);
/* The member's answer. */
enum outgoing_state outgoing_on_want(struct outgoing *outgoing, const struct snapshot_want *want,
        uint64_t now_ms, uint64_t quiet_ms, outgoing_send_fn send, void *user);
bool outgoing_is_of(const struct outgoing *outgoing, uint64_t index, uint64_t term);
