/* messages.h: every message there is, and one sample of each, the same today and in ten years: the golden bytes were
 * made from it. A new .def is added to the lists below; test_codec checks that none is forgotten. */
#pragma once

#include "proto/applied.h"
#include "proto/apply.h"
#include "proto/hello.h"
#include "proto/log.h"
#include "proto/op.h"
#include "proto/outcome.h"
#include "proto/peer.h"
#include "proto/propose.h"
#include "proto/status.h"

#define MSG_BEGIN(msg, number) &msg##_shape,
#define FIELD(msg, tag, name, kind, need, limit)
#define GAP(tag)
#define MSG_END(msg)
static const struct codec_message *const all_messages[] = {
#include "proto/applied.def"
#include "proto/apply.def"
#include "proto/hello.def"
#include "proto/log.def"
#include "proto/op.def"
#include "proto/outcome.def"
#include "proto/peer.def"
#include "proto/propose.def"
#include "proto/status.def"
};
#undef MSG_BEGIN
#undef FIELD
#undef GAP
#undef MSG_END

/* How many tags have been retired: golden bytes of before still have them. */
#define MSG_BEGIN(msg, number)
#define FIELD(msg, tag, name, kind, need, limit)
#define GAP(tag) +1
#define MSG_END(msg)
enum {
    RETIRED_TAGS = 0
#include "proto/applied.def"
#include "proto/apply.def"
#include "proto/hello.def"
#include "proto/log.def"
#include "proto/op.def"
#include "proto/outcome.def"
#include "proto/peer.def"
#include "proto/propose.def"
#include "proto/status.def"
};
#undef MSG_BEGIN
#undef FIELD
#undef GAP
#undef MSG_END

enum {
    SAMPLE_TEXT_BYTES = 300,
    SAMPLE_ITEMS_MAX = 5,
    MESSAGE_STRUCT_BYTES_MAX = 2048
};

/* Room for the largest message struct, and what its samples point at. */
struct sample {
    union {
        uint64_t present;
        uint8_t bytes[MESSAGE_STRUCT_BYTES_MAX];
    } message;
    uint8_t text[SAMPLE_TEXT_BYTES];
    struct span items[CODEC_TAG_MAX + 1][SAMPLE_ITEMS_MAX];
};

static inline void *sample_member(struct sample *sample, const struct codec_field *field)
{
    return sample->message.bytes + field->offset;
}

static inline struct span sample_bytes(
        const struct sample *sample, const struct codec_field *field, size_t bytes)
{
    if (field->max != 0 && bytes > field->max) {
        bytes = field->max;
    }
    return span_of(sample->text, bytes);
}

/* Numbers of all encoded lengths, texts of all head lengths: which one, the tag decides. */
static inline void sample_fill_field(struct sample *sample, const struct codec_field *field)
{
    static const uint64_t numbers[] = { 0, 127, 128, 255, 256, 65535, 65536, UINT32_MAX,
        UINT64_C(1) << 32, UINT64_MAX };
    static const size_t lengths[] = { 0, 1, 31, 32, 255, 256, 300 };
    void *member = sample_member(sample, field);

    switch ((enum codec_kind)field->kind) {
    case CODEC_U64:
        *(uint64_t *)member = numbers[field->tag % ARRAY_COUNT(numbers)];
        break;
    case CODEC_BOOL:
        *(bool *)member = field->tag % 2 == 1;
        break;
    case CODEC_BYTES:
        *(struct span *)member =
                sample_bytes(sample, field, lengths[field->tag % ARRAY_COUNT(lengths)]);
        break;
    case CODEC_LIST: {
        struct span_list *list = member;
        list->items = sample->items[field->tag];
        list->count = field->tag % (SAMPLE_ITEMS_MAX + 1U);
        for (size_t i = 0; i < list->count; i++) {
            list->items[i] = sample_bytes(sample, field, lengths[i]);
        }
        break;
    }
    }
    sample->message.present |= UINT64_C(1) << field->tag;
}

/* All fields, or only the required ones. */
static inline void sample_fill(
        struct sample *sample, const struct codec_message *shape, bool with_optional)
{
    memset(sample, 0, sizeof *sample);
    INVARIANT_LE(shape->struct_bytes, sizeof sample->message);
    for (size_t i = 0; i < sizeof sample->text; i++) {
        sample->text[i] = (uint8_t)(i * 7);
    }
    for (size_t i = 0; i < shape->field_count; i++) {
        if (with_optional || shape->fields[i].required) {
            sample_fill_field(sample, &shape->fields[i]);
        }
    }
}

static inline bool sample_field_eq(const struct codec_field *field, const void *a, const void *b)
{
    const struct span_list *list_a = a;
    const struct span_list *list_b = b;

    switch ((enum codec_kind)field->kind) {
    case CODEC_U64:
        return *(const uint64_t *)a == *(const uint64_t *)b;
    case CODEC_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case CODEC_BYTES:
        return span_eq(*(const struct span *)a, *(const struct span *)b);
    case CODEC_LIST:
        break;
    }
    if (list_a->count != list_b->count) {
        return false;
    }
    for (size_t i = 0; i < list_a->count; i++) {
        if (!span_eq(list_a->items[i], list_b->items[i])) {
            return false;
        }
    }
    return true;
}
