#include "common/http/h2.h"

enum {
    FRAME_HEAD_BYTES = 9,
    FRAME_BYTES_MAX = 16384, /* the protocol's default; we raise nothing */
    FRAME_DATA = 0,
    FRAME_HEADERS = 1,
    FRAME_SETTINGS = 4,
    FRAME_GOAWAY = 7,
    FLAG_ACK = 1,
    FLAG_END_STREAM = 1,
    FLAG_END_HEADERS = 4,
    HPACK_STATUS_200 = 0x88, /* static table, index 8 */
    HPACK_STATUS_400 = 0x8c, /* index 12 */
    GOAWAY_HTTP_1_1_REQUIRED = 0xd,
};

#define PREFACE SPAN_LIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
#define ADVICE                                                                                     \
    "this server has the etcd v2 API, over HTTP/1.1 only: it speaks neither HTTP/2 nor gRPC "      \
    "(v3). "                                                                                       \
    "Set ETCDCTL_API=2 for etcdctl, or use a v2 client"
#define WELL_KNOWN_GRPC SPAN_LIT("application/grpc")

struct frame {
    uint8_t type;
    uint8_t flags;
    uint32_t stream;
    struct span payload;
};

static void put_u32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static void append_frame(
        struct buf *out, uint8_t type, uint8_t flags, uint32_t stream, struct span payload)
{
    uint8_t head[FRAME_HEAD_BYTES];

    put_u32(head, (uint32_t)payload.bytes << 8 | type);
    head[4] = flags;
    put_u32(head + 5, stream);
    buf_append(out, head, sizeof head);
    buf_append_span(out, payload);
}

static void append_goaway(struct buf *out, uint32_t last_stream)
{
    struct span advice = SPAN_LIT(ADVICE);
    uint8_t payload[8 + sizeof(ADVICE)];

    put_u32(payload, last_stream);
    put_u32(payload + 4, GOAWAY_HTTP_1_1_REQUIRED);
    memcpy(payload + 8, advice.data, advice.bytes);
    append_frame(out, FRAME_GOAWAY, 0, 0, span_of(payload, 8 + advice.bytes));
}

/* A header field in HPACK's plainest form: literal, not indexed, not compressed. Lengths are below
 * 127 or get a second byte. */
static void append_text(struct buf *block, struct span text)
{
    if (text.bytes < 127) {
        buf_append_byte(block, (uint8_t)text.bytes);
    } else {
        INVARIANT_LT(text.bytes - 127, 128);
        buf_append_byte(block, 127);
        buf_append_byte(block, (uint8_t)(text.bytes - 127));
    }
    buf_append_span(block, text);
}

static void append_field(struct buf *block, struct span name, struct span value)
{
    buf_append_byte(block, 0);
    append_text(block, name);
    append_text(block, value);
}

static bool contains(struct span text, struct span part)
{
    return text.data != NULL && text.bytes >= part.bytes &&
           memmem(text.data, text.bytes, part.data, part.bytes) != NULL;
}

/* Whether a header block names gRPC's media type, as it is or in HPACK's Huffman code, which begins
 * at a byte's border and so always looks the same. No table is kept: a client that names it by an
 * index into its own has named it before. */
static bool is_grpc(struct span block)
{
    static const uint8_t huffman[] = { 0x1d, 0x75, 0xd0, 0x62, 0x0d, 0x26, 0x3d, 0x4c, 0x4d, 0x65,
        0x64 };

    return contains(block, WELL_KNOWN_GRPC) || contains(block, span_of(huffman, sizeof huffman));
}

static void append_answer(struct buf *out, const struct frame *request)
{
    struct span text = SPAN_LIT(ADVICE "\n");
    struct buf block = BUF_INIT;

    if (is_grpc(request->payload)) {
        buf_append_byte(&block, HPACK_STATUS_200);
        append_field(&block, SPAN_LIT("content-type"), WELL_KNOWN_GRPC);
        append_field(&block, SPAN_LIT("grpc-status"), SPAN_LIT("12"));
        append_field(&block, SPAN_LIT("grpc-message"), SPAN_LIT(ADVICE));
        append_frame(out, FRAME_HEADERS, FLAG_END_STREAM | FLAG_END_HEADERS, request->stream,
                buf_span(&block));
    } else {
        buf_append_byte(&block, HPACK_STATUS_400);
        append_field(&block, SPAN_LIT("content-type"), SPAN_LIT("text/plain; charset=utf-8"));
        append_frame(out, FRAME_HEADERS, FLAG_END_HEADERS, request->stream, buf_span(&block));
        append_frame(out, FRAME_DATA, FLAG_END_STREAM, request->stream, text);
    }
    buf_fini(&block);
    append_goaway(out, request->stream);
}

/* False: not all there yet. */
static bool take_frame(struct span *rest, struct frame *ret_frame)
{
    if (rest->bytes < FRAME_HEAD_BYTES) {
        return false;
    }
    const uint8_t *head = rest->data;
    size_t bytes = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
    if (bytes <= FRAME_BYTES_MAX && rest->bytes < FRAME_HEAD_BYTES + bytes) {
        return false;
    }
    ret_frame->type = head[3];
    ret_frame->flags = head[4];
    ret_frame->stream =
            ((uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8]) &
            INT32_MAX;
    if (bytes > FRAME_BYTES_MAX) {
        ret_frame->payload = SPAN_NONE;
        return true;
    }
    ret_frame->payload = span_of(head + FRAME_HEAD_BYTES, bytes);
    *rest = span_from(*rest, FRAME_HEAD_BYTES + bytes);
    return true;
}

enum http_h2_result http_h2_run(
        struct http_h2 *h2, struct span data, size_t *ret_taken, struct buf *out)
{
    struct span rest = data;
    struct frame frame;

    *ret_taken = 0;
    if (!h2->has_preface) {
        struct span preface = PREFACE;
        if (!span_starts_with(data, preface)) {
            if (data.bytes < preface.bytes && memcmp(data.data, preface.data, data.bytes) == 0) {
                return HTTP_H2_MORE;
            }
            append_goaway(out, 0);
            return HTTP_H2_DONE;
        }
        h2->has_preface = true;
        append_frame(out, FRAME_SETTINGS, 0, 0, SPAN_NONE);
        rest = span_from(rest, preface.bytes);
    }
    while (take_frame(&rest, &frame)) {
        if (frame.payload.data == NULL) {
            append_goaway(out, 0);
            return HTTP_H2_DONE;
        }
        if (frame.type == FRAME_SETTINGS && (frame.flags & FLAG_ACK) == 0) {
            append_frame(out, FRAME_SETTINGS, FLAG_ACK, 0, SPAN_NONE);
        }
        if (frame.type == FRAME_HEADERS) {
            append_answer(out, &frame);
            return HTTP_H2_DONE;
        }
    }
    *ret_taken = data.bytes - rest.bytes;
    return HTTP_H2_MORE;
}
