#include "daemons/gatewayd/watch/match.h"

#include "proto/outcome.h"

bool watch_is_below(struct span path, struct span above)
{
    if (above.bytes <= 1) {
        return path.bytes > 1;
    }
    return path.bytes > above.bytes && path.data[above.bytes] == '/' &&
           span_starts_with(path, above);
}

bool watch_is_hidden(struct span path, struct span above)
{
    if (!watch_is_below(path, above)) {
        return false;
    }
    size_t at = above.bytes <= 1 ? 0 : above.bytes; /* of the slash before the first segment left */
    while (at + 1 < path.bytes) {
        if (path.data[at + 1] == '_') {
            return true;
        }
        const uint8_t *slash = memchr(path.data + at + 1, '/', path.bytes - at - 1);
        if (slash == NULL) {
            return false;
        }
        at = (size_t)(slash - path.data);
    }
    return false;
}

bool watch_took_subtree(const struct event *event)
{
    return (event->action == EVENT_DELETE || event->action == EVENT_EXPIRE) &&
           (event->dir || event->prev_dir);
}

bool watch_is_untold(const struct event *event)
{
    return event->silent || event->internal;
}

bool watch_matches_past(struct span key, bool recursive, const struct event *event)
{
    if (watch_is_untold(event)) {
        return false;
    }
    if (span_eq(event->path, key)) {
        return true;
    }
    if (recursive && watch_is_below(event->path, key)) {
        return !watch_is_hidden(event->path, key);
    }
    return watch_took_subtree(event) && watch_is_below(key, event->path);
}

/* Where an encoded event's path is told, if action, index and path come first as stored writes them; else 0. */
static size_t path_offset(struct span encoded)
{
    const uint8_t *data = encoded.data;
    size_t at = 4; /* map, tag, action, tag */

    if (encoded.bytes < 16 || (data[0] & 0xf0) != 0x80 || data[1] != event_tag_action ||
            data[2] >= EVENT_ACTION_COUNT || data[3] != event_tag_etcd_index) {
        return 0;
    }
    uint8_t index = data[at++];
    if (index >= 0xcc && index <= 0xcf) {
        at += (size_t)1 << (index - 0xcc);
    } else if (index > 0x7f) {
        return 0;
    }
    return at < encoded.bytes && data[at] == event_tag_path ? at + 1 : 0;
}

bool watch_may_match(struct span key, struct span encoded_event)
{
    enum {
        BYTES_HEADER_MAX = 5
    };
    const uint8_t *data = encoded_event.data;
    size_t offset = path_offset(encoded_event);

    if (offset == 0 || key.bytes <= 1 || data[2] == EVENT_DELETE || data[2] == EVENT_EXPIRE) {
        return true; /* an ancestor's path does not hold the key; the rest is not ours to judge */
    }
    /* A path that matches begins with the key: the value, which may be large, is not looked at. */
    size_t bytes = MIN(encoded_event.bytes - offset, BYTES_HEADER_MAX + key.bytes);
    return memmem(data + offset, bytes, key.data, key.bytes) != NULL;
}
