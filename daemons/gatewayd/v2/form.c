#include "daemons/gatewayd/v2/form.h"

#include <errno.h>

#include "daemons/gatewayd/arena.h"
#include "daemons/gatewayd/v2/path.h"

enum field {
    FIELD_PREV_INDEX,
    FIELD_WAIT_INDEX,
    FIELD_RECURSIVE,
    FIELD_SORTED,
    FIELD_WAIT,
    FIELD_DIR,
    FIELD_QUORUM,
    FIELD_STREAM,
    FIELD_PREV_VALUE,
    FIELD_NO_VALUE_ON_SUCCESS,
    FIELD_TTL,
    FIELD_PREV_EXIST,
    FIELD_REFRESH,
    FIELD_VALUE,
    FIELD_COUNT,
};

static const char *const field_names[FIELD_COUNT] = {
    [FIELD_PREV_INDEX] = "prevIndex",
    [FIELD_WAIT_INDEX] = "waitIndex",
    [FIELD_RECURSIVE] = "recursive",
    [FIELD_SORTED] = "sorted",
    [FIELD_WAIT] = "wait",
    [FIELD_DIR] = "dir",
    [FIELD_QUORUM] = "quorum",
    [FIELD_STREAM] = "stream",
    [FIELD_PREV_VALUE] = "prevValue",
    [FIELD_NO_VALUE_ON_SUCCESS] = "noValueOnSuccess",
    [FIELD_TTL] = "ttl",
    [FIELD_PREV_EXIST] = "prevExist",
    [FIELD_REFRESH] = "refresh",
    [FIELD_VALUE] = "value",
};

/* The first value of each name, as text. Absent: data NULL; present and empty: not NULL. */
struct fields {
    struct span texts[FIELD_COUNT];
};

static enum field find_field(struct span name)
{
    for (unsigned i = 0; i < FIELD_COUNT; i++) {
        if (field_names[i][0] == (char)name.data[0] && span_eq(name, span_str(field_names[i]))) {
            return (enum field)i;
        }
    }
    return FIELD_COUNT;
}

/* The escape in quotes, as the reference's runtime quotes: what is not printable ASCII as \xXX. */
static struct span quote_bad_escape(struct arena *arena, struct span bad)
{
    char text[64];
    size_t used = (size_t)snprintf(text, sizeof text, "invalid URL escape \"");

    for (size_t i = 0; i < bad.bytes; i++) {
        uint8_t c = bad.data[i];
        const char *shorts = "\a\b\f\n\r\t\v";
        const char *found = c == 0 ? NULL : strchr(shorts, c);
        if (c == '"' || c == '\\') {
            text[used++] = '\\';
            text[used++] = (char)c;
        } else if (c >= 0x20 && c < 0x7f) {
            text[used++] = (char)c;
        } else if (found != NULL) {
            text[used++] = '\\';
            text[used++] = "abfnrtv"[found - shorts];
        } else if (c >= 0xc2 && c <= 0xdf && i + 1 < bad.bytes &&
                   (bad.data[i + 1] & 0xc0) == 0x80) {
            text[used++] = (char)c;
            text[used++] = (char)bad.data[++i];
        } else {
            used += (size_t)snprintf(text + used, sizeof text - used, "\\x%02x", c);
        }
    }
    text[used++] = '"';
    return arena_copy(arena, span_of(text, used));
}

/* One "name=value". The first value of a name counts; a bad escape anywhere in the pair is an error. */
static int parse_pair(
        struct arena *arena, struct span pair, struct fields *fields, struct span *ret_bad)
{
    const uint8_t *equals = memchr(pair.data, '=', pair.bytes);
    size_t name_bytes = equals == NULL ? pair.bytes : (size_t)(equals - pair.data);
    struct span name;
    struct span value;

    TRY(path_decode(arena, span_of(pair.data, name_bytes), true, &name, ret_bad));
    TRY(path_decode(
            arena, span_from(pair, MIN(name_bytes + 1, pair.bytes)), true, &value, ret_bad));
    enum field field = name.bytes == 0 ? FIELD_COUNT : find_field(name);
    if (field != FIELD_COUNT && fields->texts[field].data == NULL) {
        fields->texts[field] = value;
    }
    return 0;
}

/* Pairs parted by '&'. The first bad escape is the error, but any raw ';' wins over it, as in the reference.
 * *ret_cause stays as it is when all is well. */
static void parse_pairs(
        struct arena *arena, struct span text, struct fields *fields, struct span *ret_cause)
{
    bool bad = false;

    while (text.bytes > 0) {
        struct span bad_escape;
        const uint8_t *end = memchr(text.data, '&', text.bytes);
        size_t bytes = end == NULL ? text.bytes : (size_t)(end - text.data);
        struct span pair = span_of(text.data, bytes);

        text = span_from(text, MIN(bytes + 1, text.bytes));
        if (bytes == 0) {
            continue;
        }
        if (memchr(pair.data, ';', bytes) != NULL) {
            *ret_cause = SPAN_LIT("invalid semicolon separator in query");
            bad = true;
        } else if (parse_pair(arena, pair, fields, &bad_escape) < 0 && !bad) {
            *ret_cause = quote_bad_escape(arena, bad_escape);
            bad = true;
        }
    }
}

/* Where parameters may stand. The errors' order: header, size, body, query. */
static struct span gather(
        struct arena *arena, const struct form_source *source, struct fields *fields)
{
    struct span body_cause = SPAN_NONE;
    struct span query_cause = SPAN_NONE;

    if (source->method == HTTP_PUT || source->method == HTTP_POST) {
        bool is_form;
        const char *problem = form_check_media_type(source->content_type, &is_form);
        if (is_form && source->body_too_large) {
            return SPAN_LIT("http: POST too large");
        }
        if (is_form) {
            parse_pairs(arena, source->body, fields, &body_cause);
        }
        if (problem != NULL) {
            body_cause = span_str(problem);
        }
    }
    parse_pairs(arena, source->query, fields, &query_cause);
    return body_cause.bytes > 0 ? body_cause : query_cause;
}

static bool parse_bool(struct span text, bool *ret_value)
{
    static const char *const trues[] = { "true", "1", "t", "T", "TRUE", "True" };
    static const char *const falses[] = { "false", "0", "f", "F", "FALSE", "False" };

    for (size_t i = 0; i < ARRAY_COUNT(trues); i++) {
        if (span_eq(text, span_str(trues[i]))) {
            *ret_value = true;
            return true;
        }
        if (span_eq(text, span_str(falses[i]))) {
            *ret_value = false;
            return true;
        }
    }
    return false;
}

static bool parse_u64(struct span text, uint64_t *ret_value)
{
    uint64_t value = 0;

    for (size_t i = 0; i < text.bytes; i++) {
        unsigned digit = (unsigned)text.data[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(value, 10, &value) ||
                __builtin_add_overflow(value, digit, &value)) {
            return false;
        }
    }
    *ret_value = value;
    return text.bytes > 0;
}

static int fail(struct api_error *error, unsigned code, struct span cause)
{
    *error = (struct api_error){ .code = code, .cause = cause };
    return -EINVAL;
}

static int check_bool(struct arena *arena, const struct fields *fields, enum field field,
        bool *ret_value, struct api_error *error)
{
    /* Two of them are told without quotes: they came to the reference later. */
    const char *quote = field == FIELD_PREV_EXIST || field == FIELD_REFRESH ? "" : "\"";

    *ret_value = false;
    if (fields->texts[field].data == NULL || parse_bool(fields->texts[field], ret_value)) {
        return 0;
    }
    return fail(error, V2_INVALID_FIELD,
            arena_printf(arena, "invalid value for %s%s%s", quote, field_names[field], quote));
}

static int check_u64(struct arena *arena, const struct fields *fields, enum field field,
        unsigned code, uint64_t *ret_value, struct api_error *error)
{
    *ret_value = 0;
    if (fields->texts[field].data == NULL || parse_u64(fields->texts[field], ret_value)) {
        return 0;
    }
    return fail(error, code, arena_printf(arena, "invalid value for \"%s\"", field_names[field]));
}

/* The order of these checks is part of the contract. */
static int check(struct arena *arena, const struct fields *fields, enum http_method method,
        struct form *form, struct api_error *error)
{
    const struct span *texts = fields->texts;

    TRY(check_u64(
            arena, fields, FIELD_PREV_INDEX, V2_INDEX_NOT_A_NUMBER, &form->prev_index, error));
    TRY(check_u64(
            arena, fields, FIELD_WAIT_INDEX, V2_INDEX_NOT_A_NUMBER, &form->wait_index, error));
    TRY(check_bool(arena, fields, FIELD_RECURSIVE, &form->recursive, error));
    TRY(check_bool(arena, fields, FIELD_SORTED, &form->sorted, error));
    TRY(check_bool(arena, fields, FIELD_WAIT, &form->wait, error));
    TRY(check_bool(arena, fields, FIELD_DIR, &form->dir, error));
    TRY(check_bool(arena, fields, FIELD_QUORUM, &form->quorum, error));
    TRY(check_bool(arena, fields, FIELD_STREAM, &form->stream, error));
    if (form->wait && method != HTTP_GET) {
        return fail(
                error, V2_INVALID_FIELD, SPAN_LIT("\"wait\" can only be used with GET requests"));
    }
    form->prev_value = texts[FIELD_PREV_VALUE];
    form->has_prev_value = form->prev_value.data != NULL;
    if (form->has_prev_value && form->prev_value.bytes == 0) {
        return fail(error, V2_PREV_VALUE_REQUIRED, SPAN_LIT("\"prevValue\" cannot be empty"));
    }
    TRY(check_bool(arena, fields, FIELD_NO_VALUE_ON_SUCCESS, &form->no_value_on_success, error));
    form->has_ttl = texts[FIELD_TTL].bytes > 0;
    if (form->has_ttl) {
        TRY(check_u64(arena, fields, FIELD_TTL, V2_TTL_NOT_A_NUMBER, &form->ttl_s, error));
    }
    TRY(check_bool(arena, fields, FIELD_PREV_EXIST, &form->prev_exist, error));
    form->has_prev_exist = texts[FIELD_PREV_EXIST].data != NULL;
    TRY(check_bool(arena, fields, FIELD_REFRESH, &form->refresh, error));
    form->value = texts[FIELD_VALUE];
    if (form->refresh && form->value.bytes > 0) {
        return fail(error, V2_REFRESH_VALUE, SPAN_LIT("A value was provided on a refresh"));
    }
    if (form->refresh && !form->has_ttl) {
        return fail(error, V2_REFRESH_TTL_REQUIRED, SPAN_LIT("No TTL value set"));
    }
    return 0;
}

int form_parse(struct arena *arena, const struct form_source *source, struct form *ret_form,
        struct api_error *ret_error)
{
    struct fields fields = { 0 };
    struct form form = { 0 };

    struct span cause = gather(arena, source, &fields);
    if (cause.bytes > 0) {
        return fail(ret_error, V2_INVALID_FORM, cause);
    }
    TRY(check(arena, &fields, source->method, &form, ret_error));
    *ret_form = form;
    return 0;
}
