/* form.h: the parameters of a /v2/keys request: where they may stand, in which order they are checked, and
 * what a bad one is answered with (docs/api.md, "Parameters"). Pure: parsing touches nothing but the arena. */
#pragma once

#include "common/http/server.h"
#include "daemons/gatewayd/v2/error.h"

struct arena;

struct form_source {
    enum http_method method;
    struct span query;
    struct span content_type; /* data NULL: no such header */
    struct span body;
    bool body_too_large;
};

struct form {
    struct span value;
    struct span prev_value; /* never empty when has_prev_value */
    uint64_t prev_index;
    uint64_t wait_index;
    uint64_t ttl_s;
    bool has_ttl; /* given and not empty */
    bool has_prev_value;
    bool has_prev_exist;
    bool prev_exist;
    bool recursive;
    bool sorted;
    bool wait;
    bool dir;
    bool quorum;
    bool stream;
    bool no_value_on_success;
    bool refresh;
};

/* 0, or -EINVAL with the error to answer. Spans point into the source or the arena. */
int form_parse(struct arena *arena, const struct form_source *source, struct form *ret_form,
        struct api_error *ret_error);

/* NULL, or what is wrong with the header. *ret_form: the body is a form and is read (even where a parameter of the
 * header is wrong; that error then wins over those of the body). */
const char *form_check_media_type(struct span content_type, bool *ret_form);
