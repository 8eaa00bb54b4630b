#include "daemons/raftd/wal/names.h"

#include <errno.h>

#include "common/buf.h"

enum {
    HEX_DIGITS = 16
};

void names_format(const struct names_segment *segment, char ret_name[NAMES_SEGMENT_BYTES])
{
    int bytes = snprintf(ret_name, NAMES_SEGMENT_BYTES, "%016" PRIx64 "-%016" PRIx64 ".wal",
            segment->seq, segment->first_index);
    INVARIANT_EQ(bytes, NAMES_SEGMENT_BYTES - 1);
}

static bool parse_hex(const char *at, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (int i = 0; i < HEX_DIGITS; i++) {
        char c = at[i];
        if (c >= '0' && c <= '9') {
            value = value << 4 | (uint64_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        } else {
            return false;
        }
    }
    *ret_value = value;
    return true;
}

bool names_parse(const char *name, struct names_segment *ret_segment)
{
    return strlen(name) == NAMES_SEGMENT_BYTES - 1 && parse_hex(name, &ret_segment->seq) &&
           name[HEX_DIGITS] == '-' && parse_hex(name + HEX_DIGITS + 1, &ret_segment->first_index) &&
           strcmp(name + HEX_DIGITS + 1 + HEX_DIGITS, ".wal") == 0;
}

static int by_seq(const void *a, const void *b)
{
    const struct names_segment *left = a;
    const struct names_segment *right = b;
    if (left->seq != right->seq) {
        return left->seq < right->seq ? -1 : 1;
    }
    return left->first_index < right->first_index ? -1 : left->first_index > right->first_index;
}

static void collect(void *user, const char *name)
{
    struct names_segment segment;
    if (names_parse(name, &segment)) {
        buf_append(user, &segment, sizeof(segment));
    }
}

int names_list(const struct wal_io *io, int dir_fd, struct names_segment **ret_segments,
        size_t *ret_count, struct err *err)
{
    CLEANUP(buf_fini) struct buf segments = BUF_INIT;
    if (io->list(io->user, dir_fd, collect, &segments) < 0) {
        return err_errno(err, "list the log's directory");
    }
    *ret_count = segments.bytes / sizeof(struct names_segment);
    if (*ret_count > 0) {
        qsort(segments.data, *ret_count, sizeof(struct names_segment), by_seq);
    }
    *ret_segments = (struct names_segment *)(void *)MOVE(segments.data);
    return 0;
}

int names_check_sequence(
        const struct names_segment *segments, size_t segment_count, struct err *err)
{
    for (size_t i = 1; i < segment_count; i++) {
        char before[NAMES_SEGMENT_BYTES];
        char after[NAMES_SEGMENT_BYTES];
        names_format(&segments[i - 1], before);
        names_format(&segments[i], after);
        if (segments[i].seq == segments[i - 1].seq) {
            return err_set(err, -ENODATA, "%s and %s have the same number", before, after);
        }
        if (segments[i].seq != segments[i - 1].seq + 1) {
            return err_set(err, -ENODATA, "a segment between %s and %s is missing", before, after);
        }
    }
    return 0;
}
