/* codec.h: one walker that encodes, decodes and checks every message of the suite.
 *
 * A message is a msgpack map { tag: value, ... }. Its shape is a table, made from a .def file by
 * proto/define.h. Field kinds and their C members:
 *
 *   U64    uint64_t          BOOL   bool
 *   BYTES  struct span       LIST   struct span_list (array of bin)
 *
 * A decoded message's spans point into the input and its lists into the scratch: they live as long as both,
 * until the scratch's next codec_scratch_reset.
 * Unknown tags are skipped and counted. A missing REQUIRED field, a wrong type, an oversized value, too many
 * list items, too deep nesting, a tag that comes twice, trailing bytes: -EBADMSG, the err naming message and field.
 * The input is scanned (counts <= bytes left, depth <= 8, at most a million objects; proto/scan.h) before the unpacker
 * sees it, so no input makes us allocate more than a fixed multiple of its own size. Pure: no I/O, no globals. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

enum { CODEC_DEPTH_MAX = 8, CODEC_TAG_MAX = 63 };

struct msgpack_zone;

struct span_list {
    struct span *items;
    size_t count;
};

enum codec_kind {
    CODEC_U64,
    CODEC_BOOL,
    CODEC_BYTES,
    CODEC_LIST,
};

struct codec_field {
    const char *name;
    size_t offset;       /* of the member in the message struct */
    size_t max;          /* bytes of a BYTES or of each LIST item; 0: no limit but the frame's */
    uint8_t tag;         /* 1..CODEC_TAG_MAX, forever */
    uint8_t kind;        /* enum codec_kind */
    bool required;
};

struct codec_message {
    const char *name;
    const struct codec_field *fields;
    size_t field_count;
    size_t struct_bytes; /* every message struct begins with `uint64_t present` */
    unsigned type;       /* the frame type that carries it; unique in its .def file */
};

/* Memory for decoded lists; zero-initialised is valid. Reset keeps the memory for the next message. */
struct codec_scratch {
    struct span *items;
    size_t used;
    size_t capacity;
    struct codec_scratch_block *retired; /* blocks outgrown since the last reset, still referred to */
    struct msgpack_zone *zone;           /* the unpacker's, kept for its memory */
    uint64_t unknown_tags;               /* counted since init */
};

void codec_scratch_reset(struct codec_scratch *scratch);
void codec_scratch_fini(struct codec_scratch *scratch);

/* Appends the encoded message. Fields whose bit (1 << tag) is unset in `present` are left out; REQUIRED ones are
 * always written. A BYTES member or LIST item above the field's limit is the caller's broken promise. */
void codec_encode(const struct codec_message *shape, const void *message, struct buf *out);

/* Fills *ret_message (struct_bytes long; zeroed first), present bits set for what was there. */
int codec_decode(const struct codec_message *shape, struct span input, void *ret_message,
        struct codec_scratch *scratch, struct err *err);

/* Checks that input is exactly one well-formed msgpack object within the limits. */
int codec_scan(struct span input, struct err *err);

/* `name{field=value ...}` for logs and tests; bytes are escaped and cut at 64. */
void codec_print(const struct codec_message *shape, const void *message, struct buf *out);

#define HAS(message, tag_name) (((message)->present & (UINT64_C(1) << (tag_name))) != 0)
#define SET(message, tag_name) ((message)->present |= UINT64_C(1) << (tag_name))
