/* scan.c: walks msgpack without unpacking it.
 *
 *   code        object           head + body                 code        object           head + body
 *   00-7f e0-ff fixint           1                           c7 c8 c9    ext 8/16/32      3/4/6 + length
 *   80-8f       fixmap           1, 2 x (code & 15) items    ca cb       float 32/64      5/9
 *   90-9f       fixarray         1, code & 15 items          cc-cf d0-d3 (u)int 8..64     2/3/5/9
 *   a0-bf       fixstr           1 + (code & 31)             d4-d8       fixext 1..16     2 + 1..16
 *   c0 c2 c3    nil false true   1                           d9 da db    str 8/16/32      2/3/5 + length
 *   c1          not used         -                           dc dd       array 16/32      3/5, count items
 *   c4 c5 c6    bin 8/16/32      2/3/5 + length              de df       map 16/32        3/5, 2 x count items
 */
#include "proto/scan.h"

#include <errno.h>

static uint64_t read_big_endian(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

/* What codes c0 to df look like: bytes of the number behind the code, and what it counts. */
enum number_use {
    NUMBER_NONE,   /* the object is code and number */
    NUMBER_LENGTH, /* bytes that follow */
    NUMBER_COUNT,  /* items that follow */
    NUMBER_PAIRS,  /* twice as many */
    NUMBER_BAD,
};

struct code_shape {
    uint8_t number_bytes;
    uint8_t use;
    uint8_t fixed_bytes; /* beside code, number and what the number counts */
};

static const struct code_shape code_shapes[32] = {
    [0x00] = { 0, NUMBER_NONE, 0 }, /* nil */
    [0x01] = { 0, NUMBER_BAD, 0 },  /* c1 */
    [0x02] = { 0, NUMBER_NONE, 0 },
    [0x03] = { 0, NUMBER_NONE, 0 }, /* false, true */
    [0x04] = { 1, NUMBER_LENGTH, 0 },
    [0x05] = { 2, NUMBER_LENGTH, 0 },
    [0x06] = { 4, NUMBER_LENGTH, 0 }, /* bin */
    [0x07] = { 1, NUMBER_LENGTH, 1 },
    [0x08] = { 2, NUMBER_LENGTH, 1 },
    [0x09] = { 4, NUMBER_LENGTH, 1 }, /* ext */
    [0x0a] = { 4, NUMBER_NONE, 0 },
    [0x0b] = { 8, NUMBER_NONE, 0 }, /* float */
    [0x0c] = { 1, NUMBER_NONE, 0 },
    [0x0d] = { 2, NUMBER_NONE, 0 },
    [0x0e] = { 4, NUMBER_NONE, 0 },
    [0x0f] = { 8, NUMBER_NONE, 0 }, /* uint */
    [0x10] = { 1, NUMBER_NONE, 0 },
    [0x11] = { 2, NUMBER_NONE, 0 },
    [0x12] = { 4, NUMBER_NONE, 0 },
    [0x13] = { 8, NUMBER_NONE, 0 }, /* int */
    [0x14] = { 0, NUMBER_NONE, 2 },
    [0x15] = { 0, NUMBER_NONE, 3 },
    [0x16] = { 0, NUMBER_NONE, 5 },
    [0x17] = { 0, NUMBER_NONE, 9 },
    [0x18] = { 0, NUMBER_NONE, 17 }, /* fixext */
    [0x19] = { 1, NUMBER_LENGTH, 0 },
    [0x1a] = { 2, NUMBER_LENGTH, 0 },
    [0x1b] = { 4, NUMBER_LENGTH, 0 }, /* str */
    [0x1c] = { 2, NUMBER_COUNT, 0 },
    [0x1d] = { 4, NUMBER_COUNT, 0 }, /* array */
    [0x1e] = { 2, NUMBER_PAIRS, 0 },
    [0x1f] = { 4, NUMBER_PAIRS, 0 }, /* map */
};

int scan_read_head(struct span input, struct scan_head *ret_head)
{
    if (input.bytes == 0) {
        return -EBADMSG;
    }
    uint8_t code = input.data[0];
    *ret_head = (struct scan_head){ .code = code, .bytes = 1, .items = 0 };
    if (code < 0x80 || code >= 0xe0) {
        return 0;
    }
    if (code < 0xa0) {
        ret_head->items = (uint64_t)(code & 0x0f) << (code < 0x90 ? 1 : 0);
        return 0;
    }
    if (code < 0xc0) {
        ret_head->bytes += code & 0x1f;
    } else {
        const struct code_shape *shape = &code_shapes[code - 0xc0];
        if (shape->use == NUMBER_BAD || input.bytes < 1U + shape->number_bytes) {
            return -EBADMSG;
        }
        uint64_t number = read_big_endian(input.data + 1, shape->number_bytes);
        ret_head->bytes += (size_t)shape->number_bytes + shape->fixed_bytes;
        if (shape->use == NUMBER_LENGTH) {
            ret_head->bytes += number;
        } else if (shape->use == NUMBER_COUNT) {
            ret_head->items = number;
        } else if (shape->use == NUMBER_PAIRS) {
            ret_head->items = number * 2;
        }
    }
    return ret_head->bytes <= input.bytes ? 0 : -EBADMSG;
}

struct scan {
    uint64_t items_left[CODEC_DEPTH_MAX]; /* of the open containers, the outermost first */
    size_t depth;
    uint64_t owed;    /* objects still to come, over all open containers */
    uint64_t objects; /* seen */
};

static int scan_step(
        struct scan *scan, const struct scan_head *head, size_t bytes_after, struct err *err)
{
    scan->objects++;
    scan->owed += head->items;
    if (scan->owed > bytes_after) {
        return err_set(err, -EBADMSG, "a count of %" PRIu64 " is more than the %zu bytes left hold",
                head->items, bytes_after);
    }
    if (scan->objects + scan->owed > SCAN_OBJECTS_MAX) {
        return err_set(err, -EBADMSG, "more than %d objects", SCAN_OBJECTS_MAX);
    }
    if (head->items > 0) {
        if (scan->depth == CODEC_DEPTH_MAX) {
            return err_set(err, -EBADMSG, "nested deeper than %d", CODEC_DEPTH_MAX);
        }
        scan->items_left[scan->depth++] = head->items;
        return 0;
    }
    while (scan->depth > 0 && --scan->items_left[scan->depth - 1] == 0) {
        scan->depth--;
    }
    return 0;
}

/* Scans one object; *ret_bytes is its length, or where it fails the offset of the fault. */
static int scan_one(struct span input, size_t *ret_bytes, struct err *err)
{
    struct scan scan = { .owed = 1 };
    struct scan_head head;
    size_t at = 0;

    while (scan.owed > 0) {
        *ret_bytes = at;
        struct span rest = span_from(input, at);
        if (scan_read_head(rest, &head) < 0) {
            return err_set(
                    err, -EBADMSG, "cut short or malformed at byte %zu of %zu", at, input.bytes);
        }
        scan.owed--;
        TRY(scan_step(&scan, &head, rest.bytes - head.bytes, err));
        at += head.bytes;
    }
    *ret_bytes = at;
    return 0;
}

int scan_object(struct span input, size_t *ret_failed_at, struct err *err)
{
    size_t bytes = 0;

    if (scan_one(input, &bytes, err) < 0) {
        *ret_failed_at = bytes;
        return -EBADMSG;
    }
    if (bytes < input.bytes) {
        *ret_failed_at = bytes;
        return err_set(err, -EBADMSG, "%zu bytes too many at the end", input.bytes - bytes);
    }
    return 0;
}

bool scan_find_tag_at(struct span input, size_t at, uint64_t *ret_tag)
{
    struct scan_head head;
    size_t offset;

    if (scan_read_head(input, &head) < 0 || head.items == 0 || at < head.bytes) {
        return false;
    }
    offset = head.bytes;
    for (uint64_t pairs = head.items / 2; pairs > 0; pairs--) {
        struct span key = span_from(input, offset);
        size_t value_bytes;
        if (scan_read_head(key, &head) < 0 || offset + head.bytes > at) {
            return false;
        }
        bool is_number = head.code < 0x80 || (head.code >= 0xcc && head.code <= 0xcf);
        uint64_t tag = head.code < 0x80 ? head.code : read_big_endian(key.data + 1, head.bytes - 1);
        offset += head.bytes;
        if (scan_one(span_from(input, offset), &value_bytes, NULL) < 0 ||
                at < offset + value_bytes) {
            *ret_tag = tag;
            return is_number;
        }
        offset += value_bytes;
    }
    return false;
}
