/* json.h: writing JSON text, byte for byte as etcd's encoder does (docs/api.md, "JSON").
 *
 * Escaped are: the quote, the backslash, control bytes (\n \r \t short, the others \u00XX), < > & (\u003c ...),
 * U+2028 and U+2029; each byte of an invalid UTF-8 sequence becomes \ufffd. All else is copied raw, and runs
 * of it are found 16 bytes at a time. Pure; appends to the caller's buffer. */
#pragma once

#include "common/buf.h"

/* The text in quotes. */
void json_append_string(struct buf *out, struct span text);

/* The text escaped, without quotes. Escaping a path segment by segment gives the same bytes as at once. */
void json_append_escaped(struct buf *out, struct span text);

/* A finite number. Shortest digits that read back as the same; plain notation for 1e-6 <= |x| < 1e21, else an exponent. */
void json_append_double(struct buf *out, double value);
