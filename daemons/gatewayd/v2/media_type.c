/* media_type.c: whether a Content-Type announces a form. The rules are those of the reference's runtime: a type in
 * token characters, then parameters; a bad parameter is an error, yet the body is still read. */
#include "daemons/gatewayd/v2/form.h"

#include <strings.h>

#define FORM_TYPE "application/x-www-form-urlencoded"

enum {
    MEDIA_PARAMETERS_MAX = 32
}; /* compared for duplicates; more are only checked one by one */

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_token_byte(uint8_t c)
{
    return c > 0x20 && c < 0x7f && strchr("()<>@,;:\\\"/[]?=", c) == NULL;
}

static struct span skip_space(struct span text)
{
    while (text.bytes > 0 && is_space(text.data[0])) {
        text = span_from(text, 1);
    }
    return text;
}

static struct span trim(struct span text)
{
    text = skip_space(text);
    while (text.bytes > 0 && is_space(text.data[text.bytes - 1])) {
        text.bytes--;
    }
    return text;
}

static struct span take_token(struct span *text)
{
    size_t bytes = 0;
    while (bytes < text->bytes && is_token_byte(text->data[bytes])) {
        bytes++;
    }
    struct span token = span_of(text->data, bytes);
    *text = span_from(*text, bytes);
    return token;
}

/* A token or a quoted string; the latter with its quotes. False: neither. */
static bool take_value(struct span *text, struct span *ret_value)
{
    if (text->bytes == 0 || text->data[0] != '"') {
        *ret_value = take_token(text);
        return ret_value->bytes > 0;
    }
    for (size_t i = 1; i < text->bytes; i++) {
        uint8_t c = text->data[i];
        if (c == '"') {
            *ret_value = span_of(text->data, i + 1);
            *text = span_from(*text, i + 1);
            return true;
        }
        if (c == '\r' || c == '\n') {
            return false;
        }
        if (c == '\\' && i + 1 < text->bytes && !is_token_byte(text->data[i + 1]) &&
                text->data[i + 1] > 0x20 && text->data[i + 1] < 0x7f) {
            i++;
        }
    }
    return false;
}

struct parameter {
    struct span name;
    struct span value;
};

/* "; name = value" */
static bool take_parameter(struct span *text, struct parameter *ret_parameter)
{
    struct span rest = skip_space(*text);
    if (rest.bytes == 0 || rest.data[0] != ';') {
        return false;
    }
    rest = skip_space(span_from(rest, 1));
    ret_parameter->name = take_token(&rest);
    rest = skip_space(rest);
    if (ret_parameter->name.bytes == 0 || rest.bytes == 0 || rest.data[0] != '=') {
        return false;
    }
    rest = skip_space(span_from(rest, 1));
    if (!take_value(&rest, &ret_parameter->value)) {
        return false;
    }
    *text = rest;
    return true;
}

static bool is_same_name(struct span a, struct span b)
{
    return a.bytes == b.bytes &&
           strncasecmp((const char *)a.data, (const char *)b.data, a.bytes) == 0;
}

static const char *check_type(struct span type)
{
    if (take_token(&type).bytes == 0) {
        return "mime: no media type";
    }
    if (type.bytes == 0) {
        return NULL;
    }
    if (type.data[0] != '/') {
        return "mime: expected slash after first token";
    }
    type = span_from(type, 1);
    if (take_token(&type).bytes == 0) {
        return "mime: expected token after slash";
    }
    return type.bytes > 0 ? "mime: unexpected content after media subtype" : NULL;
}

static const char *check_parameters(struct span text, bool *ret_form)
{
    struct parameter seen[MEDIA_PARAMETERS_MAX];
    size_t seen_count = 0;

    for (text = skip_space(text); text.bytes > 0; text = skip_space(text)) {
        struct parameter parameter;
        if (!take_parameter(&text, &parameter)) {
            text = trim(text);
            return text.bytes == 1 && text.data[0] == ';' ? NULL : "mime: invalid media parameter";
        }
        for (size_t i = 0; i < seen_count; i++) {
            if (is_same_name(seen[i].name, parameter.name)) {
                *ret_form = false;
                return "mime: duplicate parameter name";
            }
        }
        if (seen_count < MEDIA_PARAMETERS_MAX) {
            seen[seen_count++] = parameter;
        }
    }
    return NULL;
}

const char *form_check_media_type(struct span content_type, bool *ret_form)
{
    *ret_form = span_eq(content_type, SPAN_LIT(FORM_TYPE)); /* as all but every client writes it */
    if (*ret_form || content_type.bytes == 0) {
        return NULL;
    }
    const uint8_t *semicolon = memchr(content_type.data, ';', content_type.bytes);
    size_t type_bytes =
            semicolon == NULL ? content_type.bytes : (size_t)(semicolon - content_type.data);
    struct span type = trim(span_of(content_type.data, type_bytes));
    const char *problem = check_type(type);
    if (problem != NULL) {
        return problem;
    }
    *ret_form = is_same_name(type, SPAN_LIT(FORM_TYPE));
    return check_parameters(span_from(content_type, type_bytes), ret_form);
}
