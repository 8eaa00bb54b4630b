/* codec.c: encodes, decodes and prints by table; scan.c checks what came from outside beforehand.
 *
 * msgpack-c packs straight into the caller's buf and unpacks into a zone that the scratch keeps, so neither way
 * allocates per message (a list of some hundred items aside). The unpacked objects are only a step: spans point into the input, lists
 * are copied into the scratch, and the zone is cleared before codec_decode returns. */
#include "proto/codec.h"

#include <errno.h>
#include <msgpack.h>
#include <stdlib.h>

#include "proto/scan.h"

enum {
    SCRATCH_ITEMS_MIN = 64,
    SCRATCH_ITEMS_KEPT = 65536, /* a larger block is given back at reset */
    PRINT_BYTES_MAX = 64,
    PRINT_ITEMS_MAX = 8,
    ENCODED_SCALAR_BYTES_MAX = 10, /* tag and a u64, or tag and a length */
};

struct codec_scratch_block {
    struct codec_scratch_block *next;
    struct span items[];
};

/* --- members by offset ------------------------------------------------------------------------------------ */

static const void *member_of(const void *message, const struct codec_field *field)
{
    return (const char *)message + field->offset;
}

static void *member_to_fill(void *message, const struct codec_field *field)
{
    return (char *)message + field->offset;
}

static uint64_t present_of(const void *message)
{
    uint64_t present;
    memcpy(&present, message, sizeof present);
    return present;
}

/* --- scratch ---------------------------------------------------------------------------------------------- */

static struct codec_scratch_block *block_of(struct span *items)
{
    return CONTAINER_OF(items, struct codec_scratch_block, items);
}

static void free_retired(struct codec_scratch *scratch)
{
    while (scratch->retired != NULL) {
        struct codec_scratch_block *block = scratch->retired;
        scratch->retired = block->next;
        free(block);
    }
}

void codec_scratch_reset(struct codec_scratch *scratch)
{
    free_retired(scratch);
    scratch->used = 0;
    if (scratch->capacity > SCRATCH_ITEMS_KEPT) {
        free(block_of(scratch->items));
        scratch->items = NULL;
        scratch->capacity = 0;
    }
}

void codec_scratch_fini(struct codec_scratch *scratch)
{
    free_retired(scratch);
    if (scratch->items != NULL) {
        free(block_of(scratch->items));
    }
    if (scratch->zone != NULL) {
        msgpack_zone_free(scratch->zone);
    }
    memset(scratch, 0, sizeof *scratch);
}

/* Lists handed out earlier stay where they are: a block that is too small is retired, not moved. */
static struct span *scratch_take(struct codec_scratch *scratch, size_t count)
{
    if (count == 0) {
        return NULL;
    }
    if (count > scratch->capacity - scratch->used) {
        size_t capacity = MAX((size_t)SCRATCH_ITEMS_MIN, scratch->capacity * 2);
        capacity = MAX(capacity, count);
        struct codec_scratch_block *block = xmalloc(sizeof *block + capacity * sizeof(struct span));
        if (scratch->items != NULL) {
            struct codec_scratch_block *outgrown = block_of(scratch->items);
            outgrown->next = scratch->retired;
            scratch->retired = outgrown;
        }
        scratch->items = block->items;
        scratch->capacity = capacity;
        scratch->used = 0;
    }
    struct span *taken = scratch->items + scratch->used;
    scratch->used += count;
    return taken;
}

/* --- encode ----------------------------------------------------------------------------------------------- */

static int write_to_buf(void *data, const char *bytes, size_t count)
{
    struct buf *out = data;
    uint8_t *end = buf_reserve(out, count);

    memcpy(end, bytes, count);
    out->bytes += count;
    return 0;
}

static bool is_written(const struct codec_field *field, uint64_t present)
{
    return field->required || (present & (UINT64_C(1) << field->tag)) != 0;
}

static void pack_span(msgpack_packer *packer, const struct codec_field *field, struct span span)
{
    /* Longer ones would be refused by every decoder: whoever took it in had to check. */
    INVARIANT_LE(span.bytes, field->max == 0 ? UINT32_MAX : field->max);
    (void)msgpack_pack_bin(packer, span.bytes);
    if (span.bytes > 0) {
        (void)msgpack_pack_bin_body(packer, span.data, span.bytes);
    }
}

static void pack_field(msgpack_packer *packer, const struct codec_field *field, const void *member)
{
    (void)msgpack_pack_uint8(packer, field->tag);
    switch ((enum codec_kind)field->kind) {
    case CODEC_U64:
        (void)msgpack_pack_uint64(packer, *(const uint64_t *)member);
        break;
    case CODEC_BOOL:
        (void)(*(const bool *)member ? msgpack_pack_true(packer) : msgpack_pack_false(packer));
        break;
    case CODEC_BYTES:
        pack_span(packer, field, *(const struct span *)member);
        break;
    case CODEC_LIST: {
        const struct span_list *list = member;
        (void)msgpack_pack_array(packer, list->count);
        for (size_t i = 0; i < list->count; i++) {
            pack_span(packer, field, list->items[i]);
        }
        break;
    }
    }
}

void codec_encode(const struct codec_message *shape, const void *message, struct buf *out)
{
    uint64_t present = present_of(message);
    size_t count = 0;
    msgpack_packer packer;

    for (size_t i = 0; i < shape->field_count; i++) {
        count += is_written(&shape->fields[i], present);
    }
    /* One growth for the small fields; payloads grow it themselves. */
    (void)buf_reserve(out, 3 + count * ENCODED_SCALAR_BYTES_MAX);
    msgpack_packer_init(&packer, out, write_to_buf);
    (void)msgpack_pack_map(&packer, count);
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct codec_field *field = &shape->fields[i];
        if (is_written(field, present)) {
            pack_field(&packer, field, member_of(message, field));
        }
    }
}

/* --- decode ----------------------------------------------------------------------------------------------- */

struct decoder {
    const struct codec_message *shape;
    struct codec_scratch *scratch;
    struct err *err;
    void *message;
    uint64_t present;
    size_t next_field; /* fields come in the table's order: look here first */
};

static int bad_field(struct decoder *d, const struct codec_field *field, const char *what)
{
    return err_set(d->err, -EBADMSG, "%s.%s: %s", d->shape->name, field->name, what);
}

static const struct codec_field *find_field(struct decoder *d, uint64_t tag)
{
    const struct codec_field *fields = d->shape->fields;

    for (size_t tried = 0; tried < d->shape->field_count; tried++) {
        size_t i = d->next_field;
        d->next_field = i + 1 == d->shape->field_count ? 0 : i + 1;
        if (fields[i].tag == tag) {
            return &fields[i];
        }
    }
    return NULL;
}

static int fill_span(struct decoder *d, const struct codec_field *field,
        const msgpack_object *object, struct span *ret_span)
{
    if (object->type != MSGPACK_OBJECT_BIN) {
        return bad_field(d, field, "not bytes");
    }
    if (field->max != 0 && object->via.bin.size > field->max) {
        return err_set(d->err, -EBADMSG, "%s.%s: %" PRIu32 " bytes, limit %zu", d->shape->name,
                field->name, object->via.bin.size, field->max);
    }
    *ret_span = span_of(object->via.bin.ptr, object->via.bin.size);
    return 0;
}

static int fill_list(struct decoder *d, const struct codec_field *field,
        const msgpack_object *object, struct span_list *ret_list)
{
    if (object->type != MSGPACK_OBJECT_ARRAY) {
        return bad_field(d, field, "not a list");
    }
    ret_list->count = object->via.array.size;
    ret_list->items = scratch_take(d->scratch, ret_list->count);
    for (size_t i = 0; i < ret_list->count; i++) {
        TRY(fill_span(d, field, &object->via.array.ptr[i], &ret_list->items[i]));
    }
    return 0;
}

static int fill_field(
        struct decoder *d, const struct codec_field *field, const msgpack_object *object)
{
    void *member = member_to_fill(d->message, field);

    switch ((enum codec_kind)field->kind) {
    case CODEC_U64:
        if (object->type != MSGPACK_OBJECT_POSITIVE_INTEGER) {
            return bad_field(d, field, "not an unsigned number");
        }
        *(uint64_t *)member = object->via.u64;
        return 0;
    case CODEC_BOOL:
        if (object->type != MSGPACK_OBJECT_BOOLEAN) {
            return bad_field(d, field, "not true or false");
        }
        *(bool *)member = object->via.boolean;
        return 0;
    case CODEC_BYTES:
        return fill_span(d, field, object, member);
    case CODEC_LIST:
        return fill_list(d, field, object, member);
    }
    return bad_field(d, field, "of no known kind");
}

static int fill_pair(struct decoder *d, const msgpack_object_kv *pair)
{
    if (pair->key.type != MSGPACK_OBJECT_POSITIVE_INTEGER) {
        return err_set(d->err, -EBADMSG, "%s: a key is not a tag", d->shape->name);
    }
    const struct codec_field *field = find_field(d, pair->key.via.u64);
    if (field == NULL) {
        d->scratch->unknown_tags++;
        return 0;
    }
    uint64_t bit = UINT64_C(1) << field->tag;
    if ((d->present & bit) != 0) {
        return bad_field(d, field, "twice in one message");
    }
    d->present |= bit;
    return fill_field(d, field, &pair->val);
}

static int fill_message(struct decoder *d, const msgpack_object *object)
{
    if (object->type != MSGPACK_OBJECT_MAP) {
        return err_set(d->err, -EBADMSG, "%s: not a map", d->shape->name);
    }
    for (uint32_t i = 0; i < object->via.map.size; i++) {
        TRY(fill_pair(d, &object->via.map.ptr[i]));
    }
    for (size_t i = 0; i < d->shape->field_count; i++) {
        const struct codec_field *field = &d->shape->fields[i];
        if (field->required && (d->present & (UINT64_C(1) << field->tag)) == 0) {
            return bad_field(d, field, "missing");
        }
    }
    memcpy(d->message, &d->present, sizeof d->present);
    return 0;
}

/* The scan has found the input malformed: says in which field. Off the usual path. */
static int name_scan_failure(
        const struct codec_message *shape, struct span input, size_t at, struct err *err)
{
    uint64_t tag;

    if (!scan_find_tag_at(input, at, &tag)) {
        return err_prefix(err, "%s", shape->name);
    }
    for (size_t i = 0; i < shape->field_count; i++) {
        if (shape->fields[i].tag == tag) {
            return err_prefix(err, "%s.%s", shape->name, shape->fields[i].name);
        }
    }
    return err_prefix(err, "%s, unknown tag %" PRIu64, shape->name, tag);
}

int codec_decode(const struct codec_message *shape, struct span input, void *ret_message,
        struct codec_scratch *scratch, struct err *err)
{
    struct decoder d = { .shape = shape, .scratch = scratch, .err = err, .message = ret_message };
    struct err local;
    size_t failed_at;
    size_t offset = 0;
    msgpack_object object;

    memset(ret_message, 0, shape->struct_bytes);
    if (scan_object(input, &failed_at, err == NULL ? &local : err) < 0) {
        return name_scan_failure(shape, input, failed_at, err == NULL ? &local : err);
    }
    if (scratch->zone == NULL) {
        scratch->zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
        INVARIANT(scratch->zone != NULL);
    }
    msgpack_unpack_return unpacked =
            msgpack_unpack((const char *)input.data, input.bytes, &offset, scratch->zone, &object);
    int r = unpacked == MSGPACK_UNPACK_SUCCESS
                    ? fill_message(&d, &object)
                    : err_set(err, -EBADMSG, "%s: unpacker says %d", shape->name, (int)unpacked);
    msgpack_zone_clear(scratch->zone);
    return r;
}

int codec_scan(struct span input, struct err *err)
{
    size_t failed_at;
    return scan_object(input, &failed_at, err);
}

/* --- print ------------------------------------------------------------------------------------------------ */

static void print_span(struct span span, struct buf *out)
{
    size_t shown = MIN(span.bytes, (size_t)PRINT_BYTES_MAX);

    buf_append_byte(out, '"');
    for (size_t i = 0; i < shown; i++) {
        uint8_t byte = span.data[i];
        if (byte == '"' || byte == '\\') {
            buf_append_byte(out, '\\');
            buf_append_byte(out, byte);
        } else if (byte >= 0x20 && byte < 0x7f) {
            buf_append_byte(out, byte);
        } else {
            buf_appendf(out, "\\x%02x", byte);
        }
    }
    buf_append_byte(out, '"');
    if (shown < span.bytes) {
        buf_appendf(out, "...(%zu bytes)", span.bytes);
    }
}

static void print_list(const struct span_list *list, struct buf *out)
{
    size_t shown = MIN(list->count, (size_t)PRINT_ITEMS_MAX);

    buf_append_byte(out, '[');
    for (size_t i = 0; i < shown; i++) {
        buf_append_str(out, i == 0 ? "" : " ");
        print_span(list->items[i], out);
    }
    if (shown < list->count) {
        buf_appendf(out, " ...(%zu items)", list->count);
    }
    buf_append_byte(out, ']');
}

static void print_field(const struct codec_field *field, const void *member, struct buf *out)
{
    buf_append_str(out, field->name);
    buf_append_byte(out, '=');
    switch ((enum codec_kind)field->kind) {
    case CODEC_U64:
        buf_append_u64_decimal(out, *(const uint64_t *)member);
        break;
    case CODEC_BOOL:
        buf_append_str(out, *(const bool *)member ? "true" : "false");
        break;
    case CODEC_BYTES:
        print_span(*(const struct span *)member, out);
        break;
    case CODEC_LIST:
        print_list(member, out);
        break;
    }
}

void codec_print(const struct codec_message *shape, const void *message, struct buf *out)
{
    uint64_t present = present_of(message);
    const char *separator = "";

    buf_append_str(out, shape->name);
    buf_append_byte(out, '{');
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct codec_field *field = &shape->fields[i];
        if (is_written(field, present)) {
            buf_append_str(out, separator);
            print_field(field, member_of(message, field), out);
            separator = " ";
        }
    }
    buf_append_byte(out, '}');
}
