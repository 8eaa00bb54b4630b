#include "daemons/raftd/peer/frame.h"

#include <errno.h>

enum {
    PARTS_BYTES_KEPT = 1024 * 1024
};

void frame_encode_head(const struct frame_head *head, uint8_t ret_bytes[PEER_HEAD_BYTES])
{
    ret_bytes[0] = (uint8_t)head->type;
    ret_bytes[1] = (uint8_t)head->flags;
    ret_bytes[2] = 0;
    ret_bytes[3] = 0;
    for (unsigned i = 0; i < 8; i++) {
        ret_bytes[4 + i] = (uint8_t)(head->epoch >> (8 * i));
    }
}

int frame_parse(struct span frame, struct frame_head *ret_head, struct span *ret_body)
{
    uint64_t epoch = 0;

    if (frame.bytes < PEER_HEAD_BYTES) {
        return -EBADMSG;
    }
    for (unsigned i = 0; i < 8; i++) {
        epoch |= (uint64_t)frame.data[4 + i] << (8 * i);
    }
    *ret_head =
            (struct frame_head){ .type = frame.data[0], .flags = frame.data[1], .epoch = epoch };
    *ret_body = span_from(frame, PEER_HEAD_BYTES);
    return 0;
}

int frame_parts_add(struct frame_parts *parts, const struct frame_head *head, struct span body,
        struct span *ret_whole)
{
    bool is_last = (head->flags & PEER_FLAG_MORE) == 0;

    if (!parts->is_open && is_last) {
        *ret_whole = body;
        return 1;
    }
    if (!parts->is_open) {
        buf_clear(&parts->bytes);
        buf_trim(&parts->bytes, PARTS_BYTES_KEPT);
        parts->is_open = true;
        parts->type = head->type;
    }
    if (parts->type != head->type ||
            body.bytes > (size_t)PEER_MESSAGE_BYTES_MAX - parts->bytes.bytes) {
        return -EBADMSG;
    }
    buf_append_span(&parts->bytes, body);
    if (!is_last) {
        return 0;
    }
    parts->is_open = false;
    *ret_whole = buf_span(&parts->bytes);
    return 1;
}

void frame_parts_fini(struct frame_parts *parts)
{
    buf_fini(&parts->bytes);
    *parts = (struct frame_parts){ 0 };
}
