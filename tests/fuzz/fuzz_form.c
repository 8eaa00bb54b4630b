/* fuzz_form.c: request targets and forms from hostile clients.
 *
 * Input: method (1 byte), then path, query, content type and body, parted by newlines. Whatever comes: no crash, an
 * error only with code and cause, a clean path stays as it is, its location decodes back to it, an accepted form makes an op, and
 * the JSON of any bytes is ASCII-safe and unbroken by quotes. */
#include "common/json.h"
#include "daemons/gatewayd/arena.h"
#include "daemons/gatewayd/route.h"
#include "daemons/gatewayd/v2/form.h"
#include "daemons/gatewayd/v2/keys.h"
#include "daemons/gatewayd/v2/path.h"
#include "proto/op.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct span take_line(struct span *input)
{
    const uint8_t *end = input->bytes == 0 ? NULL : memchr(input->data, '\n', input->bytes);
    size_t bytes = end == NULL ? input->bytes : (size_t)(end - input->data);
    struct span line = span_of(input->data, bytes);
    *input = span_from(*input, MIN(bytes + 1, input->bytes));
    return line;
}

static void check_path(
        struct arena *arena, enum http_method method, struct span raw, struct span query)
{
    struct buf out = BUF_INIT;
    struct span path;
    struct span back;
    struct span bad;
    const char *allow;

    if (path_decode(arena, raw, false, &path, &bad) < 0) {
        INVARIANT(bad.bytes >= 1 && bad.bytes <= 3 && bad.data[0] == '%');
        return;
    }
    struct span clean = path_clean(arena, path);
    INVARIANT(path_is_clean(clean));
    INVARIANT_EQ(path_is_clean(path), span_eq(path, clean));
    path_append_location(&out, clean, SPAN_NONE);
    INVARIANT(path_decode(arena, buf_span(&out), false, &back, &bad) == 0);
    INVARIANT(span_eq(back, clean));
    buf_clear(&out);
    path_append_anchor(&out, clean, query);
    if (route_find(clean, method, &allow) == ROUTE_KEYS) {
        struct span key = path_key(clean);
        INVARIANT(key.data[0] == '/' && (key.bytes == 1 || key.data[key.bytes - 1] != '/'));
    }
    buf_fini(&out);
}

static void check_json(struct span text)
{
    struct buf out = BUF_INIT;

    json_append_escaped(&out, text);
    for (size_t i = 0; i < out.bytes; i++) {
        INVARIANT(out.data[i] >= 0x20 && out.data[i] != '"' ? true
                                                            : i > 0 && out.data[i - 1] == '\\');
        INVARIANT(out.data[i] != '<' && out.data[i] != '>' && out.data[i] != '&');
    }
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = { 0 };
    struct span input = span_of(data, size);
    struct form_source source = { 0 };
    struct api_error error = { 0 };
    struct form form;
    struct op op;

    if (size == 0) {
        return 0;
    }
    source.method = (enum http_method)(data[0] % (HTTP_OTHER + 1));
    source.body_too_large = (data[0] & 0x80) != 0;
    input = span_from(input, 1);
    struct span path = take_line(&input);
    source.query = take_line(&input);
    source.content_type = take_line(&input);
    source.body = input;
    check_path(&arena, source.method, path, source.query);
    check_json(source.body);
    if (form_parse(&arena, &source, &form, &error) < 0) {
        INVARIANT(error.code >= 201 && error.code <= 212 && error.cause.bytes > 0);
    } else if (keys_dispatch(source.method, &form) == KEYS_WRITE) {
        keys_make_op(source.method, &form, SPAN_LIT("/k"), &op);
        INVARIANT(op.kind >= OP_SET && op.kind <= OP_COMPARE_AND_DELETE);
    }
    arena_fini(&arena);
    return 0;
}
