/* scan.h: is a run of bytes one well-formed msgpack object within our limits?
 *
 * The unpacker allocates what a count promises before it has seen the items: five bytes make it ask for half a
 * gigabyte. So everything from outside is scanned first, without allocating: each count must be covered by the
 * bytes that are left (an object takes at least one), containers nest at most CODEC_DEPTH_MAX deep, and an input
 * holds at most SCAN_OBJECTS_MAX objects, which bounds what unpacking it costs (24 bytes each). Pure. */
#pragma once

#include "proto/codec.h"

/* Above the largest batch of the smallest ops: 8 MiB of some 20 bytes each. */
enum {
    SCAN_OBJECTS_MAX = 1024 * 1024
};

/* 0, or -EBADMSG with the offset of the object at fault. */
int scan_object(struct span input, size_t *ret_failed_at, struct err *err);

/* For an input that failed at `at`: finds the tag of the outer map's pair that this offset lies in. */
bool scan_find_tag_at(struct span input, size_t at, uint64_t *ret_tag);

/* Reads the head of the object at input's start: its own bytes (head and, for bytes and text, body) and the number
 * of objects that follow as its items. -EBADMSG when the bytes do not suffice or the code is not used. */
struct scan_head {
    uint8_t code;
    size_t bytes;
    uint64_t items;
};
int scan_read_head(struct span input, struct scan_head *ret_head);
