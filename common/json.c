#include "common/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Bytes that cannot simply be copied: those that are escaped, and the lead bytes of UTF-8 sequences. */
static bool is_special(uint8_t byte)
{
    return byte < 0x20 || byte >= 0x80 || byte == '"' || byte == '\\' || byte == '<' ||
           byte == '>' || byte == '&';
}

#ifdef __SSE2__
/* One bit for each special byte among 16. The signed compare catches both < 0x20 and >= 0x80. */
static unsigned special_mask(const uint8_t *data)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)data);
    __m128i hit = _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20));
    hit = _mm_or_si128(hit, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')));
    hit = _mm_or_si128(hit, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
    hit = _mm_or_si128(hit, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('<')));
    hit = _mm_or_si128(hit, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('>')));
    hit = _mm_or_si128(hit, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('&')));
    return (unsigned)_mm_movemask_epi8(hit);
}
#endif

/* Offset of the first special byte at or behind `at`, or the text's length. */
static size_t find_special(struct span text, size_t at)
{
#ifdef __SSE2__
    while (text.bytes - at >= 16) {
        unsigned mask = special_mask(text.data + at);
        if (mask != 0) {
            return at + (size_t)__builtin_ctz(mask);
        }
        at += 16;
    }
#endif
    while (at < text.bytes && !is_special(text.data[at])) {
        at++;
    }
    return at;
}

/* Length of the valid UTF-8 sequence that begins at data[0] >= 0x80, or 0. Overlong forms, surrogates and
 * what lies above U+10FFFF are told by the range of the second byte. */
static size_t utf8_sequence_bytes(const uint8_t *data, size_t left)
{
    uint8_t lead = data[0];
    uint8_t low = 0x80;
    uint8_t high = 0xbf;
    size_t bytes;

    if (lead >= 0xc2 && lead <= 0xdf) {
        bytes = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        bytes = 3;
        low = lead == 0xe0 ? 0xa0 : 0x80;
        high = lead == 0xed ? 0x9f : 0xbf;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        bytes = 4;
        low = lead == 0xf0 ? 0x90 : 0x80;
        high = lead == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (left < bytes || data[1] < low || data[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < bytes; i++) {
        if ((data[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return bytes;
}

static bool is_line_separator(const uint8_t *data, size_t bytes)
{
    return bytes == 3 && data[0] == 0xe2 && data[1] == 0x80 && (data[2] & 0xfe) == 0xa8;
}

static void append_escape(struct buf *out, uint8_t byte)
{
    static const char hex[] = "0123456789abcdef";
    char text[6] = { '\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15] };

    switch (byte) {
    case '"':
    case '\\':
        text[1] = (char)byte;
        break;
    case '\n':
        text[1] = 'n';
        break;
    case '\r':
        text[1] = 'r';
        break;
    case '\t':
        text[1] = 't';
        break;
    default:
        buf_append(out, text, 6);
        return;
    }
    buf_append(out, text, 2);
}

void json_append_escaped(struct buf *out, struct span text)
{
    size_t copied = 0; /* text before this offset is in `out` */
    size_t at = 0;

    (void)buf_reserve(out, text.bytes + 2);
    while ((at = find_special(text, at)) < text.bytes) {
        const uint8_t *data = text.data + at;
        size_t taken = 1;

        if (*data >= 0x80) {
            size_t bytes = utf8_sequence_bytes(data, text.bytes - at);
            if (bytes > 0 && !is_line_separator(data, bytes)) {
                at += bytes;
                continue;
            }
            taken = bytes > 0 ? bytes : 1;
        }
        buf_append(out, text.data + copied, at - copied);
        if (*data < 0x80) {
            append_escape(out, *data);
        } else if (taken == 3) {
            buf_append(out, data[2] == 0xa8 ? "\\u2028" : "\\u2029", 6);
        } else {
            buf_append(out, "\\ufffd", 6);
        }
        at += taken;
        copied = at;
    }
    if (text.bytes > copied) {
        buf_append(out, text.data + copied, text.bytes - copied);
    }
}

void json_append_string(struct buf *out, struct span text)
{
    buf_append_byte(out, '"');
    json_append_escaped(out, text);
    buf_append_byte(out, '"');
}

void json_append_double(struct buf *out, double value)
{
    char text[64];
    double size = fabs(value);
    int digits = 1;

    INVARIANT(isfinite(value)); /* the others have no exponent to look for, and no form in JSON */
    /* The shortest precision that reads back; 17 digits always do. */
    for (; digits < 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*e", digits - 1, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    if (size != 0 && (size < 1e-6 || size >= 1e21)) {
        (void)snprintf(text, sizeof text, "%.*e", digits - 1, value);
        char *exponent = strchr(text, 'e');
        INVARIANT(exponent != NULL);
        exponent++; /* "+21" or "-07": at least two digits */
        if (exponent[0] == '-' && exponent[1] == '0') {
            exponent[1] = exponent[2]; /* e-07 is written e-7, e+21 stays */
            exponent[2] = '\0';
        }
        buf_append_str(out, text);
        return;
    }
    (void)snprintf(text, sizeof text, "%.*e", digits - 1, value);
    int exponent = size == 0 ? 0 : (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exponent >= digits) {
        /* More places than digits: the digits, then zeros, where %.0f would print the binary value in full. */
        for (char *c = text; *c != 'e'; c++) {
            if (*c != '.') {
                buf_append_byte(out, (uint8_t)*c);
            }
        }
        for (int i = digits - 1; i < exponent; i++) {
            buf_append_byte(out, '0');
        }
        return;
    }
    int decimals = digits - 1 - exponent;
    (void)snprintf(text, sizeof text, "%.*f", decimals > 0 ? decimals : 0, value);
    buf_append_str(out, text);
}
