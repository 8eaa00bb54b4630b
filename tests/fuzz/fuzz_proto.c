/* fuzz_proto.c: every message decoder and the frame parser, fed with what a hostile or broken peer may send.
 *
 * The first byte chooses: a message of tests/unit/proto/messages.h, or behind those a frame. What a decoder accepts
 * must come back the same after encoding and decoding again, and must print; a frame's body goes to its decoder. */
#include <stdlib.h>

#include "proto/link_frame.h"
#include "proto/scan.h"
#include "tests/unit/proto/messages.h"

union message {
    uint64_t present;
    uint8_t bytes[MESSAGE_STRUCT_BYTES_MAX];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_same(
        const struct codec_message *shape, const union message *a, const union message *b)
{
    INVARIANT_EQ(a->present, b->present);
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct codec_field *field = &shape->fields[i];
        INVARIANT(sample_field_eq(field, a->bytes + field->offset, b->bytes + field->offset));
    }
}

static void fuzz_message(const struct codec_message *shape, struct span input)
{
    struct codec_scratch scratch = { 0 };
    struct buf again = BUF_INIT;
    struct buf text = BUF_INIT;
    union message first;
    union message second;
    struct err err;

    INVARIANT_LE(shape->struct_bytes, sizeof first);
    int r = codec_decode(shape, input, &first, &scratch, &err);
    if (r < 0) {
        INVARIANT(err.text[0] != '\0' && strncmp(err.text, shape->name, strlen(shape->name)) == 0);
    } else {
        INVARIANT_EQ(codec_scan(input, NULL), 0);
        codec_encode(shape, &first, &again);
        INVARIANT_EQ(codec_decode(shape, buf_span(&again), &second, &scratch, &err), 0);
        check_same(shape, &first, &second);
        codec_print(shape, &first, &text);
    }
    buf_fini(&again);
    buf_fini(&text);
    codec_scratch_fini(&scratch);
}

static void fuzz_frame(struct span input)
{
    uint8_t head[LINK_FRAME_HEAD_BYTES_MAX];
    char text[ERR_TEXT_BYTES];
    struct link_frame frame;
    struct link_frame again;
    struct buf out = BUF_INIT;
    struct err err;

    if (link_frame_parse(input, &frame, &err) == 0) {
        buf_append(&out, head, link_frame_put_head(&frame, head));
        buf_append_span(&out, frame.body);
        INVARIANT_EQ(link_frame_parse(buf_span(&out), &again, NULL), 0);
        INVARIANT(frame.type == again.type && frame.epoch == again.epoch);
        INVARIANT(frame.seq == again.seq && frame.ack == again.ack);
        INVARIANT(span_eq(frame.body, again.body));
        link_text_decode(frame.body, text);
        fuzz_message(&hello_shape, frame.body);
    }
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0) {
        return 0;
    }
    struct span input = span_of(data + 1, bytes - 1);
    if (data[0] < ARRAY_COUNT(all_messages)) {
        fuzz_message(all_messages[data[0]], input);
    } else {
        fuzz_frame(input);
    }
    return 0;
}
