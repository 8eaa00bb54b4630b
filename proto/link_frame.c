#include "proto/link_frame.h"

#include <errno.h>

#include "proto/scan.h"

enum {
    CODE_FIXARRAY_5 = 0x95,
    CODE_FIXINT_MAX = 0x7f,
    CODE_BIN8 = 0xc4,
    CODE_BIN16 = 0xc5,
    CODE_BIN32 = 0xc6,
    CODE_UINT8 = 0xcc,
    CODE_UINT64 = 0xcf,
};

/* Two forms suffice: small numbers in one byte, all others in nine; readers take every form. */
static size_t put_number(uint64_t value, uint8_t *out)
{
    if (value <= CODE_FIXINT_MAX) {
        out[0] = (uint8_t)value;
        return 1;
    }
    out[0] = CODE_UINT64;
    for (int i = 8; i > 0; i--) {
        out[i] = (uint8_t)value;
        value >>= 8;
    }
    return 9;
}

size_t link_frame_put_head(
        const struct link_frame *frame, uint8_t ret_head[LINK_FRAME_HEAD_BYTES_MAX])
{
    size_t bytes = 0;

    ret_head[bytes++] = CODE_FIXARRAY_5;
    bytes += put_number(frame->type, ret_head + bytes);
    bytes += put_number(frame->epoch, ret_head + bytes);
    bytes += put_number(frame->seq, ret_head + bytes);
    bytes += put_number(frame->ack, ret_head + bytes);
    INVARIANT_LE(bytes, LINK_FRAME_HEAD_BYTES_MAX);
    return bytes;
}

static int take_number(struct span *rest, const char *name, uint64_t *ret_value, struct err *err)
{
    struct scan_head head;

    if (scan_read_head(*rest, &head) < 0) {
        return err_set(err, -EBADMSG, "frame.%s: cut short", name);
    }
    if (head.code <= CODE_FIXINT_MAX) {
        *ret_value = head.code;
    } else if (head.code >= CODE_UINT8 && head.code <= CODE_UINT64) {
        uint64_t value = 0;
        for (size_t i = 1; i < head.bytes; i++) {
            value = value << 8 | rest->data[i];
        }
        *ret_value = value;
    } else {
        return err_set(err, -EBADMSG, "frame.%s: not an unsigned number", name);
    }
    *rest = span_from(*rest, head.bytes);
    return 0;
}

static bool is_control(uint64_t type)
{
    return type > LINK_MESSAGE_TYPE_MAX;
}

int link_frame_parse(struct span input, struct link_frame *ret_frame, struct err *err)
{
    struct link_frame frame;

    if (input.bytes == 0 || input.data[0] != CODE_FIXARRAY_5) {
        return err_set(err, -EBADMSG, "frame: not a list of five");
    }
    struct span rest = span_from(input, 1);
    TRY(take_number(&rest, "type", &frame.type, err));
    TRY(take_number(&rest, "epoch", &frame.epoch, err));
    TRY(take_number(&rest, "seq", &frame.seq, err));
    TRY(take_number(&rest, "ack", &frame.ack, err));
    if (rest.bytes == 0) {
        return err_set(err, -EBADMSG, "frame.body: missing");
    }
    if (frame.epoch == 0) {
        return err_set(err, -EBADMSG, "frame.epoch: 0");
    }
    if (frame.type == 0 || frame.type > LINK_TYPE_MAX) {
        return err_set(err, -EBADMSG, "frame.type: %" PRIu64, frame.type);
    }
    if (is_control(frame.type) != (frame.seq == 0)) {
        return err_set(
                err, -EBADMSG, "frame.seq: %" PRIu64 " with type %" PRIu64, frame.seq, frame.type);
    }
    frame.body = rest;
    *ret_frame = frame;
    return 0;
}

void link_text_encode(struct span text, struct buf *out)
{
    size_t bytes = MIN(text.bytes, (size_t)ERR_TEXT_BYTES - 1);

    buf_append_byte(out, CODE_BIN16);
    buf_append_byte(out, (uint8_t)(bytes >> 8));
    buf_append_byte(out, (uint8_t)bytes);
    buf_append(out, text.data, bytes);
}

void link_text_decode(struct span body, char ret_text[ERR_TEXT_BYTES])
{
    struct scan_head head;

    ret_text[0] = '\0';
    if (scan_read_head(body, &head) < 0 || head.code < CODE_BIN8 || head.code > CODE_BIN32) {
        return;
    }
    size_t head_bytes = head.code == CODE_BIN8 ? 2 : head.code == CODE_BIN16 ? 3 : 5;
    size_t bytes = MIN(head.bytes - head_bytes, (size_t)ERR_TEXT_BYTES - 1);
    for (size_t i = 0; i < bytes; i++) {
        uint8_t byte = body.data[head_bytes + i];
        ret_text[i] = (char)(byte >= 0x20 && byte < 0x7f ? byte : '?');
    }
    ret_text[bytes] = '\0';
}
