/* frame.h: frames of a connection between members, as proto/peer.def draws them, and messages put together from them.
 * Pure. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "proto/peer.h"

struct frame_head {
    unsigned type;
    unsigned flags;
    uint64_t epoch;
};

void frame_encode_head(const struct frame_head *head, uint8_t ret_bytes[PEER_HEAD_BYTES]);

/* Splits a frame. -EBADMSG: it is too short to be one. */
int frame_parse(struct span frame, struct frame_head *ret_head, struct span *ret_body);

/* A message that has not come in full; zero-initialised is empty. */
struct frame_parts {
    struct buf bytes;
    unsigned type;
    bool is_open;
};

/* Takes the next frame. 1: *ret_whole is a whole message (in the frame or in parts, until the next call); 0: more is to
 * come; -EBADMSG: fragments of different messages mixed, or a message without end. */
int frame_parts_add(struct frame_parts *parts, const struct frame_head *head, struct span body,
        struct span *ret_whole);
void frame_parts_fini(struct frame_parts *parts);
