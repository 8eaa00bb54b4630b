#include "daemons/gatewayd/v2/path.h"

#include <errno.h>

#include "daemons/gatewayd/arena.h"

static const char hex_upper[] = "0123456789ABCDEF";
static const char hex_lower[] = "0123456789abcdef";

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int path_decode(struct arena *arena, struct span raw, bool plus, struct span *ret_text,
        struct span *ret_bad)
{
    if (raw.bytes == 0 || (memchr(raw.data, '%', raw.bytes) == NULL &&
                                  (!plus || memchr(raw.data, '+', raw.bytes) == NULL))) {
        *ret_text = raw;
        return 0;
    }
    uint8_t *text = arena_alloc(arena, raw.bytes);
    size_t used = 0;
    for (size_t at = 0; at < raw.bytes; at++) {
        uint8_t c = raw.data[at];
        if (c == '%') {
            int high = at + 2 < raw.bytes ? hex_value(raw.data[at + 1]) : -1;
            int low = high >= 0 ? hex_value(raw.data[at + 2]) : -1;
            if (low < 0) {
                *ret_bad = span_of(raw.data + at, MIN((size_t)3, raw.bytes - at));
                return -EBADMSG;
            }
            c = (uint8_t)(high << 4 | low);
            at += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        text[used++] = c;
    }
    arena_shrink(arena, text, used);
    *ret_text = span_of(text, used);
    return 0;
}

/* Length of the segment that begins at `at`. */
static size_t segment_bytes(struct span path, size_t at)
{
    const uint8_t *slash = memchr(path.data + at, '/', path.bytes - at);
    return (slash == NULL ? path.bytes : (size_t)(slash - path.data)) - at;
}

static bool is_dots(struct span path, size_t at, size_t bytes)
{
    return bytes <= 2 && path.data[at] == '.' && path.data[at + bytes - 1] == '.';
}

bool path_is_clean(struct span path)
{
    if (path.bytes == 0 || path.data[0] != '/') {
        return false;
    }
    for (size_t at = 1; at < path.bytes;) {
        size_t bytes = segment_bytes(path, at);
        if (bytes == 0 || is_dots(path, at, bytes)) {
            return false;
        }
        at += bytes + 1;
    }
    return true;
}

struct span path_clean(struct arena *arena, struct span path)
{
    uint8_t *clean = arena_alloc(arena, path.bytes + 2);
    size_t used = 0; /* clean[0..used) has no trailing slash: "", "/a", "/a/b" */

    for (size_t at = 0; at < path.bytes;) {
        size_t bytes = segment_bytes(path, at);
        if (bytes > 0 && !is_dots(path, at, bytes)) {
            clean[used++] = '/';
            memcpy(clean + used, path.data + at, bytes);
            used += bytes;
        } else if (bytes == 2) {
            while (used > 0 && clean[--used] != '/') {
            }
        }
        at += bytes + 1;
    }
    if (used == 0 || (path.bytes > 0 && path.data[path.bytes - 1] == '/')) {
        clean[used++] = '/';
    }
    return span_of(clean, used);
}

/* What may stand unescaped in a path. */
static bool is_path_byte(uint8_t c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
        return true;
    }
    return c != '\0' && strchr("$&+,/:;=@-_.~", c) != NULL;
}

static void append_path_escaped(struct buf *out, struct span clean)
{
    for (size_t i = 0; i < clean.bytes; i++) {
        uint8_t c = clean.data[i];
        if (is_path_byte(c)) {
            buf_append_byte(out, c);
        } else {
            uint8_t text[3] = { '%', (uint8_t)hex_upper[c >> 4], (uint8_t)hex_upper[c & 15] };
            buf_append(out, text, sizeof text);
        }
    }
}

void path_append_location(struct buf *out, struct span clean, struct span query)
{
    append_path_escaped(out, clean);
    if (query.bytes == 0) {
        return;
    }
    buf_append_byte(out, '?');
    for (size_t i = 0; i < query.bytes; i++) {
        uint8_t c = query.data[i];
        if (c < 0x80) {
            buf_append_byte(out, c);
        } else {
            uint8_t text[3] = { '%', (uint8_t)hex_lower[c >> 4], (uint8_t)hex_lower[c & 15] };
            buf_append(out, text, sizeof text);
        }
    }
}

static void append_html(struct buf *out, struct span text)
{
    for (size_t i = 0; i < text.bytes; i++) {
        switch (text.data[i]) {
        case '&':
            buf_append_str(out, "&amp;");
            break;
        case '<':
            buf_append_str(out, "&lt;");
            break;
        case '>':
            buf_append_str(out, "&gt;");
            break;
        case '"':
            buf_append_str(out, "&#34;");
            break;
        case '\'':
            buf_append_str(out, "&#39;");
            break;
        default:
            buf_append_byte(out, text.data[i]);
            break;
        }
    }
}

void path_append_anchor(struct buf *out, struct span clean, struct span query)
{
    CLEANUP(buf_fini) struct buf escaped = BUF_INIT;

    append_path_escaped(&escaped, clean);
    buf_append_str(out, "<a href=\"");
    append_html(out, buf_span(&escaped));
    if (query.bytes > 0) {
        buf_append_byte(out, '?');
        append_html(out, query);
    }
    buf_append_str(out, "\">Moved Permanently</a>.\n\n");
}

struct span path_key(struct span path)
{
    struct span key = span_from(path, sizeof "/v2/keys" - 1);

    if (key.bytes > 1 && key.data[key.bytes - 1] == '/') {
        key.bytes--;
    }
    return key.bytes == 0 ? SPAN_LIT("/") : key;
}
