#include "daemons/raftd/bootstrap/registry.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "common/url.h"

static void freep(char **text)
{
    free(*text);
}

void registry_fini(struct registry *registry)
{
    for (size_t i = 0; i < registry->count; i++) {
        free(registry->items[i].id);
        free(registry->items[i].value);
    }
    free(registry->items);
    *registry = (struct registry){ 0 };
}

void registry_url(const char *base, const char *suffix, struct buf *out)
{
    size_t bytes = strlen(base);

    while (bytes > 0 && base[bytes - 1] == '/') {
        bytes--;
    }
    buf_append(out, base, bytes);
    if (suffix[0] != '\0') {
        buf_append_byte(out, '/');
        buf_append_str(out, suffix);
    }
    buf_append_byte(out, '\0');
}

void registry_value(const struct conf *conf, struct buf *out)
{
    for (size_t i = 0; i < conf->initial_advertise_peer_urls.count; i++) {
        buf_appendf(out, "%s%s=%s", i == 0 ? "" : ",", conf->name,
                conf->initial_advertise_peer_urls.items[i]);
    }
    buf_append_byte(out, '\0');
}

static int refuse_endpoint(struct err *err)
{
    return err_set(err, -EINVAL,
            "discovery: bad discovery endpoint; what answers at the URL of -discovery is not an "
            "etcd v2 keyspace: check its host and path");
}

static json_t *load(struct span body)
{
    return json_loadb((const char *)body.data, body.bytes, 0, NULL);
}

int registry_error_code(struct span body)
{
    json_auto_t *root = load(body);
    const json_t *code = json_object_get(root, "errorCode");

    return json_is_integer(code) ? (int)json_integer_value(code) : 0;
}

int registry_parse_size(struct span body, uint64_t *ret_size, struct err *err)
{
    json_auto_t *root = load(body);
    const json_t *node = json_object_get(root, "node");
    char *end = NULL;

    if (!json_is_object(node)) {
        return refuse_endpoint(err);
    }
    const char *text = json_string_value(json_object_get(node, "value"));
    long size = text == NULL || text[0] < '0' || text[0] > '9' ? 0 : strtol(text, &end, 10);
    if (size < 1 || size > REGISTRY_SIZE_MAX || *end != '\0') {
        return err_set(err, -EINVAL,
                "discovery: size key is bad; write a number from 1 to %d to _config/size under the "
                "discovery URL, or make a new URL",
                REGISTRY_SIZE_MAX);
    }
    *ret_size = (uint64_t)size;
    return 0;
}

static int compare_created(const void *left, const void *right)
{
    const struct registry_member *a = left;
    const struct registry_member *b = right;
    return a->created_index < b->created_index ? -1 : a->created_index > b->created_index;
}

/* Hidden keys and folders are none of the members. */
static bool take_member(struct registry *registry, const json_t *node)
{
    const char *key = json_string_value(json_object_get(node, "key"));
    const json_t *created = json_object_get(node, "createdIndex");
    const char *slash = key == NULL ? NULL : strrchr(key, '/');

    if (slash == NULL || !json_is_integer(created)) {
        return false;
    }
    const char *value = json_string_value(json_object_get(node, "value"));
    if (slash[1] == '_' || json_is_true(json_object_get(node, "dir")) || value == NULL) {
        return true;
    }
    registry->items[registry->count++] = (struct registry_member){ .id = xstrdup(slash + 1),
        .value = xstrdup(value),
        .created_index = (uint64_t)json_integer_value(created) };
    return true;
}

int registry_parse_listing(struct span body, struct registry *ret_registry, struct err *err)
{
    json_auto_t *root = load(body);
    CLEANUP(registry_fini) struct registry registry = { 0 };
    const json_t *node = json_object_get(root, "node");
    const json_t *nodes = json_object_get(node, "nodes"); /* left out when there is nobody yet */

    if (!json_is_object(node) || !json_is_true(json_object_get(node, "dir"))) {
        return refuse_endpoint(err);
    }
    registry.items = xcalloc(MAX(json_array_size(nodes), (size_t)1), sizeof *registry.items);
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        if (!take_member(&registry, json_array_get(nodes, i))) {
            return refuse_endpoint(err);
        }
    }
    qsort(registry.items, registry.count, sizeof *registry.items, compare_created);
    *ret_registry = registry;
    /* NOLINTNEXTLINE(clang-analyzer-deadcode.DeadStores): CLEANUP reads it. */
    registry = (struct registry){ 0 };
    return 0;
}

bool registry_is_full(const struct registry *registry, const char *self_id, uint64_t size)
{
    for (size_t i = 0; i < registry->count && i < size; i++) {
        if (strcmp(registry->items[i].id, self_id) == 0) {
            return false;
        }
    }
    return registry->count >= size;
}

/* One member's value: the same name in each pair, a peer URL behind it. */
static int check_value(const struct registry_member *member, struct err *err)
{
    const char *item = member->value;
    size_t name_bytes = strcspn(item, "=");

    for (;;) {
        size_t bytes = strcspn(item, ",");
        char pair[URL_HOST_BYTES * 2];
        struct url url;
        bool fits = bytes < sizeof pair && bytes > name_bytes + 1 && name_bytes > 0 &&
                    strncmp(item, member->value, name_bytes + 1) == 0;
        if (fits) {
            memcpy(pair, item, bytes);
            pair[bytes] = '\0';
            fits = url_parse(pair + name_bytes + 1, URL_KIND_TCP, &url, NULL) == 0;
        }
        if (!fits) {
            return err_set(err, -EINVAL,
                    "discovery: invalid URL; member %s has registered something else than "
                    "name=peerURL: make a new discovery URL and start all members with it",
                    member->id);
        }
        if (item[bytes] == '\0') {
            return 0;
        }
        item += bytes + 1;
    }
}

static bool same_name(const char *left, const char *right)
{
    size_t bytes = strcspn(left, "=");
    return bytes == strcspn(right, "=") && memcmp(left, right, bytes) == 0;
}

int registry_join(const struct registry *registry, uint64_t size, const char *url, struct buf *out,
        struct err *err)
{
    INVARIANT_LE(size, (uint64_t)registry->count);
    for (size_t i = 0; i < size; i++) {
        TRY(check_value(&registry->items[i], err));
        for (size_t j = 0; j < i; j++) {
            if (same_name(registry->items[i].value, registry->items[j].value)) {
                CLEANUP(freep) char *masked = url_mask(url);
                return err_set(err, -EINVAL,
                        "member with duplicated name has registered with discovery service "
                        "token(%s); give each member a -name of its own and make a new discovery "
                        "URL: this one is spent",
                        masked);
            }
        }
    }
    for (size_t i = 0; i < size; i++) {
        buf_appendf(out, "%s%s", i == 0 ? "" : ",", registry->items[i].value);
    }
    buf_append_byte(out, '\0');
    return 0;
}
