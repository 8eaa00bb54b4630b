/* JSON text as etcd writes it: every row of the escaping table, and the byte scanner against a slow one. */
#include "common/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_escaped(const char *input, size_t input_bytes, const char *expected)
{
    struct buf out = BUF_INIT;

    json_append_escaped(&out, span_of(input, input_bytes));
    buf_append_byte(&out, '\0');
    assert_string_equal((const char *)out.data, expected);
    buf_fini(&out);
}

#define ASSERT_ESCAPED(input, expected) assert_escaped(input, sizeof(input) - 1, expected)

static void escapes_each_row_of_the_table(void **state)
{
    (void)state;
    ASSERT_ESCAPED("\"\\", "\\\"\\\\");
    ASSERT_ESCAPED("\n\r\t", "\\n\\r\\t");
    ASSERT_ESCAPED("\b\f\0\x1f", "\\u0008\\u000c\\u0000\\u001f");
    ASSERT_ESCAPED("<>&", "\\u003c\\u003e\\u0026");
    ASSERT_ESCAPED("\u2028\u2029\u2027", "\\u2028\\u2029\u2027");
    ASSERT_ESCAPED("\x7f/'", "\x7f/'");
    ASSERT_ESCAPED("\u00e9\u20ac\U0001f600\ufffd", "\u00e9\u20ac\U0001f600\ufffd");
}

static void replaces_each_byte_of_bad_utf8(void **state)
{
    (void)state;
    ASSERT_ESCAPED("\xff", "\\ufffd");
    ASSERT_ESCAPED("a\xc3", "a\\ufffd");
    ASSERT_ESCAPED("\xc3(", "\\ufffd(");
    ASSERT_ESCAPED("\xc0\xaf", "\\ufffd\\ufffd");                       /* overlong */
    ASSERT_ESCAPED("\xe0\x80\x80", "\\ufffd\\ufffd\\ufffd");            /* overlong */
    ASSERT_ESCAPED("\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd");            /* surrogate */
    ASSERT_ESCAPED("\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"); /* above U+10FFFF */
    ASSERT_ESCAPED("\xf0\x80\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd");
    ASSERT_ESCAPED("\xe2\x80", "\\ufffd\\ufffd");
    ASSERT_ESCAPED("\x80z", "\\ufffdz");
}

/* One byte at a time, as the table says. */
static void escape_slowly(struct buf *out, const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes;) {
        size_t length = data[i] < 0x80 ? 1 : data[i] < 0xe0 ? 2 : data[i] < 0xf0 ? 3 : 4;
        uint32_t code = data[i];
        bool good = data[i] < 0x80 || (data[i] >= 0xc2 && data[i] <= 0xf4 && i + length <= bytes);
        if (length > 1 && good) {
            code = data[i] & (0xffu >> (length + 1));
            for (size_t k = 1; k < length; k++) {
                good = good && (data[i + k] & 0xc0) == 0x80;
                code = code << 6 | (data[i + k] & 0x3f);
            }
            static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
            good = good && code >= least[length] && code <= 0x10ffff &&
                   (code < 0xd800 || code > 0xdfff);
        }
        if (!good) {
            buf_append_str(out, "\\ufffd");
            i++;
        } else if (code == '"' || code == '\\') {
            buf_appendf(out, "\\%c", (int)code);
            i++;
        } else if (code == '\n' || code == '\r' || code == '\t') {
            buf_appendf(out, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
            i++;
        } else if (code < 0x20 || code == '<' || code == '>' || code == '&' || code == 0x2028 ||
                   code == 0x2029) {
            buf_appendf(out, "\\u%04x", code);
            i += length;
        } else {
            buf_append(out, data + i, length);
            i += length;
        }
    }
}

static void agrees_with_the_slow_way_on_random_bytes(void **state)
{
    static const uint8_t alphabet[] = { 'a', 'b', '"', '<', 0, 0x1f, 0x80, 0xa8, 0xbf, 0xc2, 0xe2,
        0xed, 0xf0, 0xf4, 0x90, 0xff };
    unsigned short seed[3] = { 1, 2, 3 };
    uint8_t data[97];

    (void)state;
    for (int round = 0; round < 20000; round++) {
        size_t bytes = (size_t)nrand48(seed) % sizeof data;
        struct buf fast = BUF_INIT;
        struct buf slow = BUF_INIT;
        for (size_t i = 0; i < bytes; i++) {
            bool plain = nrand48(seed) % 4 != 0;
            data[i] = plain ? 'x' : alphabet[nrand48(seed) % (long)sizeof alphabet];
        }
        json_append_escaped(&fast, span_of(data, bytes));
        escape_slowly(&slow, data, bytes);
        assert_true(span_eq(buf_span(&fast), buf_span(&slow)));
        buf_fini(&fast);
        buf_fini(&slow);
    }
}

static void escapes_piecewise_as_at_once(void **state)
{
    struct buf parts = BUF_INIT;

    (void)state;
    json_append_escaped(&parts, SPAN_LIT("/a<"));
    json_append_escaped(&parts, SPAN_LIT("/\xff"));
    buf_append_byte(&parts, '\0');
    assert_string_equal((const char *)parts.data, "/a\\u003c/\\ufffd");
    buf_fini(&parts);
}

static void assert_double(double value, const char *expected)
{
    struct buf out = BUF_INIT;

    json_append_double(&out, value);
    buf_append_byte(&out, '\0');
    assert_string_equal((const char *)out.data, expected);
    buf_fini(&out);
}

static void writes_the_shortest_number(void **state)
{
    (void)state;
    assert_double(0, "0");
    assert_double(1, "1");
    assert_double(-2.5, "-2.5");
    assert_double(0.1, "0.1");
    assert_double(145.2, "145.2");
    assert_double(0.000001, "0.000001");
    assert_double(0.0000001, "1e-7");
    assert_double(1.5e-9, "1.5e-9");
    assert_double(100, "100");
    assert_double(1e20, "100000000000000000000");
    assert_double(1e21, "1e+21");
    assert_double(9223372036854775808.0, "9223372036854776000");
    assert_double(1.0 / 3, "0.3333333333333333");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes_each_row_of_the_table),
        cmocka_unit_test(replaces_each_byte_of_bad_utf8),
        cmocka_unit_test(agrees_with_the_slow_way_on_random_bytes),
        cmocka_unit_test(escapes_piecewise_as_at_once),
        cmocka_unit_test(writes_the_shortest_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
