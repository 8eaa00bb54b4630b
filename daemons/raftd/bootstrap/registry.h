/* registry.h: what stands under a discovery URL, and what follows from it (docs/configuration.md, "Discovery").
 *
 *   <URL>/_config/size    how many members the cluster begins with
 *   <URL>/<member id>     name=peerURL,name=peerURL   one key for each member, oldest first
 *
 * Pure: bytes of answers in, decisions out. Error texts begin with etcd's words and end with what to do; a URL is
 * shown without its token. */
#pragma once

#include "common/buf.h"
#include "common/conf.h"

enum {
    REGISTRY_SIZE_MAX = 100,
    REGISTRY_ERROR_NOT_FOUND = 100,
    REGISTRY_ERROR_EXISTS = 105,
};

struct registry_member {
    char *id;
    char *value;
    uint64_t created_index;
};

struct registry {
    struct registry_member *items; /* ascending by created_index */
    size_t count;
};
void registry_fini(struct registry *registry);

/* <base>/<suffix>, whether or not the base ends in a slash; ends in NUL, as do all texts written here. */
void registry_url(const char *base, const char *suffix, struct buf *out);

/* What a member writes under its id. */
void registry_value(const struct conf *conf, struct buf *out);

/* The number in an answer for _config/size. */
int registry_parse_size(struct span body, uint64_t *ret_size, struct err *err);
/* The members in an answer for the directory. */
int registry_parse_listing(struct span body, struct registry *ret_registry, struct err *err);
/* errorCode of a v2 error answer; 0: it is none. */
int registry_error_code(struct span body);

/* Whether `size` others came before this member. */
bool registry_is_full(const struct registry *registry, const char *self_id, uint64_t size);

/* The first `size` members as a value of --initial-cluster; `url` is only named in errors. */
int registry_join(const struct registry *registry, uint64_t size, const char *url, struct buf *out,
        struct err *err);
