/* define.h: makes, from the table PROTO_DEF, for each message of it
 *
 *   struct NAME { uint64_t present; one member a field };
 *   enum { NAME_FIELD tags as NAME_TAG_field };          e.g. OP_TAG: op_tag_value
 *   enum { NAME_type };                                  the frame type
 *   extern const struct codec_message NAME_shape;
 *   static inline NAME_encode / NAME_decode wrappers
 *
 * The .c file of the pair defines PROTO_SHAPES before including it, and gets the tables too.
 * No include guard: a header sets PROTO_DEF and includes this once per .def. */
#include "proto/codec.h"

#define CODEC_MEMBER_U64(name)   uint64_t name;
#define CODEC_MEMBER_BOOL(name)  bool name;
#define CODEC_MEMBER_BYTES(name) struct span name;
#define CODEC_MEMBER_LIST(name)  struct span_list name;
#define CODEC_REQUIRED           true
#define CODEC_OPTIONAL           false

#define MSG_BEGIN(msg, number) struct msg { uint64_t present;
#define FIELD(msg, tag, name, kind, need, limit) CODEC_MEMBER_##kind(name)
#define GAP(tag)
#define MSG_END(msg) };
#include PROTO_DEF
#undef MSG_BEGIN
#undef FIELD
#undef MSG_END

#define MSG_BEGIN(msg, number) enum { msg##_type = (number) }; enum {
#define FIELD(msg, tag, name, kind, need, limit) msg##_tag_##name = (tag),
#define MSG_END(msg) msg##_tag_end_ };
#include PROTO_DEF
#undef MSG_BEGIN
#undef FIELD
#undef MSG_END

#define MSG_BEGIN(msg, number)                                                                     \
    extern const struct codec_message msg##_shape;                                                 \
    static inline void msg##_encode(const struct msg *message, struct buf *out)                    \
    {                                                                                              \
        codec_encode(&msg##_shape, message, out);                                                  \
    }                                                                                              \
    static inline int msg##_decode(struct span input, struct msg *ret_message,                     \
            struct codec_scratch *scratch, struct err *err)                                        \
    {                                                                                              \
        return codec_decode(&msg##_shape, input, ret_message, scratch, err);                       \
    }
#define FIELD(msg, tag, name, kind, need, limit)
#define MSG_END(msg)
#include PROTO_DEF
#undef MSG_BEGIN
#undef FIELD
#undef MSG_END

#ifdef PROTO_SHAPES
#define MSG_BEGIN(msg, number)           static const struct codec_field msg##_fields[] = {
#define FIELD(msg, tag_, name_, kind_, need_, limit_)                                              \
    { .name = #name_, .offset = offsetof(struct msg, name_), .max = (limit_), .tag = (tag_),       \
            .kind = CODEC_##kind_, .required = CODEC_##need_ },
#define MSG_END(msg) };
#include PROTO_DEF
#undef MSG_BEGIN
#undef FIELD
#undef MSG_END

#define MSG_BEGIN(msg, number)                                                                     \
    const struct codec_message msg##_shape = { .name = #msg, .fields = msg##_fields,               \
        .field_count = sizeof msg##_fields / sizeof msg##_fields[0],                               \
        .struct_bytes = sizeof(struct msg), .type = (number) };
#define FIELD(msg, tag, name, kind, need, limit)
#define MSG_END(msg)
#include PROTO_DEF
#undef MSG_BEGIN
#undef FIELD
#undef MSG_END
#endif

#undef GAP
#undef CODEC_MEMBER_U64
#undef CODEC_MEMBER_BOOL
#undef CODEC_MEMBER_BYTES
#undef CODEC_MEMBER_LIST
#undef CODEC_REQUIRED
#undef CODEC_OPTIONAL
#undef PROTO_DEF
