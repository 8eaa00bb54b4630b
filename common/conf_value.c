/* conf_value.c: texts into the fields of struct conf, by the type of the table's row. */
#include "common/conf_table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/url.h"

static void *field_of(struct conf *conf, const struct conf_key *key)
{
    return (char *)conf + key->offset;
}

static void replace_text(char **field, char *take_text)
{
    free(*field);
    *field = take_text;
}

static char *copy_trimmed(const char *text, size_t bytes)
{
    while (bytes > 0 && (text[0] == ' ' || text[0] == '\t')) {
        text++;
        bytes--;
    }
    while (bytes > 0 && (text[bytes - 1] == ' ' || text[bytes - 1] == '\t')) {
        bytes--;
    }
    char *copy = xmalloc(bytes + 1);
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    return copy;
}

static void list_append_taken(struct conf_list *list, char *take_item)
{
    list->items = xrealloc(list->items, (list->count + 1) * sizeof *list->items);
    list->items[list->count++] = take_item;
}

void conf_list_fini(struct conf_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i]);
    }
    free(list->items);
    *list = (struct conf_list){ NULL, 0 };
}

/* An empty text is an empty list; "a,,b" has an empty item, which is whoever reads the items' business. */
void conf_list_split(struct conf_list *list, const char *text)
{
    conf_list_fini(list);
    if (text[0] == '\0') {
        return;
    }
    for (;;) {
        size_t bytes = strcspn(text, ",");
        list_append_taken(list, copy_trimmed(text, bytes));
        if (text[bytes] == '\0') {
            return;
        }
        text += bytes + 1;
    }
}

void conf_list_copy(struct conf_list *to, const struct conf_list *from)
{
    struct conf_list copy = { NULL, 0 };
    for (size_t i = 0; i < from->count; i++) {
        list_append_taken(&copy, xstrdup(from->items[i]));
    }
    conf_list_fini(to);
    *to = copy;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int set_urls(struct conf_list *field, const char *text, enum url_kind kind, struct err *err)
{
    CLEANUP(conf_list_fini) struct conf_list list = { NULL, 0 };
    struct url url;

    conf_list_split(&list, text);
    for (size_t i = 0; i < list.count; i++) {
        TRY(url_parse(list.items[i], kind, &url, err));
    }
    if (list.count > 0) {
        qsort(list.items, list.count, sizeof *list.items, compare_texts);
    }
    conf_list_copy(field, &list);
    return 0;
}

void conf_peers_fini(struct conf_peers *peers)
{
    for (size_t i = 0; i < peers->count; i++) {
        free(peers->items[i].name);
        free(peers->items[i].url);
    }
    free(peers->items);
    *peers = (struct conf_peers){ NULL, 0 };
}

static int compare_peers(const void *a, const void *b)
{
    const struct conf_peer *left = a;
    const struct conf_peer *right = b;
    int order = strcmp(left->name, right->name);
    return order != 0 ? order : strcmp(left->url, right->url);
}

/* "n=u,n=u". A bare word is a name with an empty URL, and fails as etcd fails it. */
static int set_peers(struct conf_peers *field, const char *text, struct err *err)
{
    CLEANUP(conf_list_fini) struct conf_list list = { NULL, 0 };
    CLEANUP(conf_peers_fini) struct conf_peers peers = { NULL, 0 };
    struct url url;

    conf_list_split(&list, text);
    for (size_t i = 0; i < list.count; i++) {
        const char *item = list.items[i];
        size_t name_bytes = strcspn(item, "=");
        const char *peer_url = item[name_bytes] == '=' ? item + name_bytes + 1 : "";
        if (url_parse(peer_url, URL_KIND_TCP, &url, err) < 0) {
            (void)err_prefix(err, "error setting up initial cluster");
            return err_mend(err, "write each member as NAME=http://HOST:PORT");
        }
        peers.items = xrealloc(peers.items, (peers.count + 1) * sizeof *peers.items);
        peers.items[peers.count++] =
                (struct conf_peer){ copy_trimmed(item, name_bytes), xstrdup(peer_url) };
    }
    if (peers.count > 0) {
        qsort(peers.items, peers.count, sizeof *peers.items, compare_peers);
    }
    conf_peers_fini(field);
    *field = peers;
    /* NOLINTNEXTLINE(clang-analyzer-deadcode.DeadStores): CLEANUP reads it. */
    peers = (struct conf_peers){ NULL, 0 };
    return 0;
}

static int set_bool(bool *field, const char *text, struct err *err)
{
    static const char *const yes[] = { "true", "1", "t", "T", "TRUE", "True" };
    static const char *const no[] = { "false", "0", "f", "F", "FALSE", "False" };

    for (size_t i = 0; i < ARRAY_COUNT(yes); i++) {
        if (strcmp(text, yes[i]) == 0) {
            *field = true;
            return 0;
        }
        if (strcmp(text, no[i]) == 0) {
            *field = false;
            return 0;
        }
    }
    return err_set(err, -EINVAL, "parse error (want true or false)");
}

static int set_number(
        uint64_t *field, const char *text, const struct conf_key *key, struct err *err)
{
    uint64_t value = 0;
    bool good = text[0] != '\0';

    for (const char *c = text; *c != '\0' && good; c++) {
        unsigned digit = (unsigned)(*c - '0');
        good = *c >= '0' && *c <= '9' && !__builtin_mul_overflow(value, 10U, &value) &&
               !__builtin_add_overflow(value, digit, &value);
    }
    if (!good || value < key->min || value > key->max) {
        char range[96];
        conf_describe_range(key, range, sizeof range);
        return err_set(err, -EINVAL, "parse error (want %s)", range);
    }
    *field = value;
    return 0;
}

static int set_choice(void *field, const char *text, const struct conf_key *key, struct err *err)
{
    unsigned position = 0;
    const char *choice = key->choices;

    for (;;) {
        size_t bytes = strcspn(choice, "|");
        if (strlen(text) == bytes && memcmp(text, choice, bytes) == 0) {
            memcpy(field, &position, sizeof position);
            return 0;
        }
        if (choice[bytes] == '\0') {
            char range[96];
            conf_describe_range(key, range, sizeof range);
            return err_set(err, -EINVAL, "invalid value (want one of %s)", range);
        }
        choice += bytes + 1;
        position++;
    }
}

static int set_path(char **field, const char *text, struct err *err)
{
    CLEANUP(buf_fini) struct buf path = BUF_INIT;

    if (text[0] != '\0' && text[0] != '/') {
        char *cwd = getcwd(NULL, 0);
        if (cwd == NULL) {
            return err_errno(err, "current folder");
        }
        buf_append_str(&path, cwd);
        buf_append_byte(&path, '/');
        free(cwd);
    }
    buf_append(&path, text, strlen(text) + 1);
    size_t bytes = path.bytes - 1;
    while (bytes > 1 && path.data[bytes - 1] == '/') {
        path.data[--bytes] = '\0';
    }
    replace_text(field, (char *)MOVE(path.data));
    return 0;
}

/* "1.2.3.4:80", "[::1]:80": a literal address, as 0.4 wanted it. */
static int set_address(char **field, const char *text, struct err *err)
{
    struct url url;
    char as_url[URL_HOST_BYTES + 32];
    uint8_t address[sizeof(struct in6_addr)];

    if (text[0] != '\0') {
        (void)snprintf(as_url, sizeof as_url, "http://%s", text);
        if (url_parse(as_url, URL_KIND_TCP, &url, NULL) < 0) {
            return err_set(err, -EINVAL, "bad format %s, expect \"IP:port\"", text);
        }
        if (inet_pton(AF_INET, url.host, address) != 1 &&
                inet_pton(AF_INET6, url.host, address) != 1) {
            return err_set(err, -EINVAL, "%s is not a literal IP address (want IP:port)", text);
        }
    }
    replace_text(field, xstrdup(text));
    return 0;
}

static int set_field(
        struct conf *conf, const struct conf_key *key, const char *text, struct err *err)
{
    void *field = field_of(conf, key);
    bool ignored;

    switch (key->type) {
    case CONF_TYPE_BOOL:
        return set_bool(field, text, err);
    case CONF_TYPE_STRING:
        replace_text(field, xstrdup(text));
        return 0;
    case CONF_TYPE_PATH:
        return set_path(field, text, err);
    case CONF_TYPE_U64:
    case CONF_TYPE_MS:
        return set_number(field, text, key, err);
    case CONF_TYPE_CHOICE:
        return set_choice(field, text, key, err);
    case CONF_TYPE_PEER_URLS:
        return set_urls(field, text, URL_KIND_TCP, err);
    case CONF_TYPE_URLS:
        return set_urls(field, text, URL_KIND_TCP_OR_UNIX, err);
    case CONF_TYPE_LIST:
        conf_list_split(field, text);
        return 0;
    case CONF_TYPE_PEERS:
        return set_peers(field, text, err);
    case CONF_TYPE_ADDRESS:
        return set_address(field, text, err);
    case CONF_TYPE_IGNORED:
        return set_bool(&ignored, text, err);
    case CONF_TYPE_REJECTED:
        return err_set(err, -EINVAL, "flag \"-%s\" is no longer supported.", key->flag);
    }
    return -EINVAL;
}

int conf_set_value(struct conf *conf, size_t row, const char *text, struct err *err)
{
    size_t count;
    const struct conf_key *key = &conf_keys(&count)[row];

    INVARIANT_LT(row, count);
    TRY(set_field(conf, key, text, err));
    replace_text(&conf->texts[row], xstrdup(text));
    return 0;
}

static void free_field(struct conf *conf, const struct conf_key *key)
{
    void *field = field_of(conf, key);

    switch (key->type) {
    case CONF_TYPE_STRING:
    case CONF_TYPE_PATH:
    case CONF_TYPE_ADDRESS:
        replace_text(field, NULL);
        break;
    case CONF_TYPE_PEER_URLS:
    case CONF_TYPE_URLS:
    case CONF_TYPE_LIST:
        conf_list_fini(field);
        break;
    case CONF_TYPE_PEERS:
        conf_peers_fini(field);
        break;
    case CONF_TYPE_BOOL:
    case CONF_TYPE_U64:
    case CONF_TYPE_MS:
    case CONF_TYPE_CHOICE:
    case CONF_TYPE_IGNORED:
    case CONF_TYPE_REJECTED:
        break;
    }
}

void conf_fini(struct conf *conf)
{
    size_t count;
    const struct conf_key *keys = conf_keys(&count);

    for (size_t i = 0; i < count; i++) {
        free_field(conf, &keys[i]);
        free(conf->texts[i]);
    }
    for (size_t i = 0; i < conf->note_count; i++) {
        free(conf->notes[i].text);
    }
    free(conf->notes);
    free(conf->ipc_uids.items);
    memset(conf, 0, sizeof *conf);
}

void conf_note_add(
        struct conf *conf, enum log_level level, const char *package, const char *format, ...)
{
    char text[ERR_TEXT_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    conf->notes = xrealloc(conf->notes, (conf->note_count + 1) * sizeof *conf->notes);
    conf->notes[conf->note_count++] = (struct conf_note){ package, level, xstrdup(text) };
}
