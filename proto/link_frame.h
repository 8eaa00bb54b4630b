/* link_frame.h: what travels on a link: a msgpack array [type, epoch, seq, ack, body].
 *
 *   type   a message's type from its .def, or one of enum link_control
 *   epoch  the session; chosen by the dialer, never 0
 *   seq    1, 2, 3 ... for messages, per direction and session; 0 for control frames
 *   ack    all messages of the other direction up to here have arrived
 *   body   one msgpack object: the encoded message; of a refusal its text (bin); of an ack nil
 *
 * Pure; parsing never allocates and checks the head only: the body is checked by whoever decodes it. */
#pragma once

#include "proto/codec.h"

enum link_control {
    LINK_MESSAGE_TYPE_MAX =
            199, /* types of messages are 1..199; above are control frames: unknown ones are skipped */
    LINK_HELLO = 240,          /* body: an encoded hello */
    LINK_HELLO_REQUIRED = 241, /* the epoch of this frame is not, or no longer, a session here */
    LINK_REFUSED = 242,        /* your hello will not do; body: why */
    LINK_ACK = 243,            /* nothing but the ack */
    LINK_TYPE_MAX = 255,
};

enum {
    LINK_FRAME_HEAD_BYTES_MAX = 1 + 4 * 9
};

struct link_frame {
    uint64_t type;
    uint64_t epoch;
    uint64_t seq;
    uint64_t ack;
    struct span body; /* into the input */
};

/* Writes the frame's head; the body is to follow. Returns the head's bytes. */
size_t link_frame_put_head(
        const struct link_frame *frame, uint8_t ret_head[LINK_FRAME_HEAD_BYTES_MAX]);

/* -EBADMSG for what is not a frame. */
int link_frame_parse(struct span input, struct link_frame *ret_frame, struct err *err);

/* The body of a refusal: text as one bin, cut where it would be too long for an err. */
void link_text_encode(struct span text, struct buf *out);
/* What is not such a body gives an empty text; bytes that are not printable become '?'. */
void link_text_decode(struct span body, char ret_text[ERR_TEXT_BYTES]);
