/* conf_print.c: the table as text: --help, --version, --check. */
#include "common/conf_table.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "common/url.h"
#include "version.h"

void conf_describe_range(const struct conf_key *key, char *ret_text, size_t text_bytes)
{
    const char *text = "text";

    switch (key->type) {
    case CONF_TYPE_BOOL:
        text = "true, false";
        break;
    case CONF_TYPE_U64:
    case CONF_TYPE_MS:
        (void)snprintf(ret_text, text_bytes, "%" PRIu64 "..%" PRIu64 "%s", key->min, key->max,
                key->type == CONF_TYPE_MS ? " ms" : "");
        return;
    case CONF_TYPE_CHOICE: {
        size_t used = 0;
        for (const char *c = key->choices; *c != '\0' && used + 3 < text_bytes; c++) {
            if (*c == '|') {
                ret_text[used++] = ',';
                ret_text[used++] = ' ';
            } else {
                ret_text[used++] = *c;
            }
        }
        ret_text[used] = '\0';
        return;
    }
    case CONF_TYPE_PATH:
        text = "path";
        break;
    case CONF_TYPE_PEER_URLS:
        text = "http and https URLs";
        break;
    case CONF_TYPE_URLS:
        text = "http, https and unix URLs";
        break;
    case CONF_TYPE_LIST:
        text = "list of texts";
        break;
    case CONF_TYPE_PEERS:
        text = "list of name=URL";
        break;
    case CONF_TYPE_ADDRESS:
        text = "IP:port";
        break;
    case CONF_TYPE_IGNORED:
        text = "true, false";
        break;
    case CONF_TYPE_REJECTED:
        text = "nothing";
        break;
    case CONF_TYPE_STRING:
        break;
    }
    (void)snprintf(ret_text, text_bytes, "%s", text);
}

void conf_describe_who(const struct conf_key *key, char *ret_text, size_t text_bytes)
{
    static const enum conf_who each[] = { CONF_RAFTD, CONF_STORED, CONF_GATEWAYD, CONF_PROXYD,
        CONF_QUORATE };
    size_t used = 0;

    if (key->who == CONF_ALL) {
        (void)snprintf(ret_text, text_bytes, "all");
        return;
    }
    ret_text[0] = '\0';
    for (size_t i = 0; i < ARRAY_COUNT(each) && used < text_bytes; i++) {
        if ((key->who & each[i]) != 0) {
            used += (size_t)snprintf(ret_text + used, text_bytes - used, "%s%s",
                    used == 0 ? "" : ", ", conf_who_name(each[i]));
        }
    }
}

void conf_print_usage(const struct conf *conf, FILE *out)
{
    const char *name = conf_who_name(conf->who);
    (void)fprintf(out, "usage: %s [FLAGS]      what can be set: %s --help\n", name, name);
}

static void print_key(const struct conf_key *key, FILE *out)
{
    char range[128];
    char who[64];
    char variable[CONF_ENVIRONMENT_NAME_BYTES];

    conf_describe_range(key, range, sizeof range);
    conf_describe_who(key, who, sizeof who);
    conf_environment_name(key, variable);
    (void)fprintf(out, "  --%s %s%s%s\n      %s\n      %s; %s%s%s\n", key->flag,
            key->derived == NULL ? "'" : "", key->derived == NULL ? key->initial : key->derived,
            key->derived == NULL ? "'" : "", key->help, range, key->no_environment ? "" : variable,
            key->no_environment ? "" : "; ", who);
}

void conf_print_help(const struct conf *conf, FILE *out)
{
    size_t count;
    const struct conf_key *keys = conf_keys(&count);
    const char *group = "";

    conf_print_usage(conf, out);
    (void)fprintf(out,
            "Flags bear one dash or two, their value after a space or '='. Each has a variable; "
            "the "
            "flag wins.\nUnder each flag: its meaning; then what it takes, its variable, and who "
            "acts on it.\n");
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i].group, group) != 0) {
            group = keys[i].group;
            (void)fprintf(out, "\n%s:\n", group);
        }
        print_key(&keys[i], out);
    }
}

void conf_print_version(FILE *out)
{
    struct utsname host;
    const char *machine = uname(&host) == 0 ? host.machine : "unknown";

    (void)fprintf(out,
            "etcd Version: %s\nQuorate Version: %s\nCompiler: gcc %s\nOS/Arch: linux/%s\n",
            ETCD_VERSION, QUORATE_VERSION, __VERSION__, machine);
}

void conf_print_effective(const struct conf *conf, FILE *out)
{
    static const char *const origins[] = { "default", "flag", "environment", "derived" };
    size_t count;
    const struct conf_key *keys = conf_keys(&count);

    for (size_t i = 0; i < count; i++) {
        if (keys[i].type == CONF_TYPE_IGNORED || keys[i].type == CONF_TYPE_REJECTED ||
                keys[i].no_environment) {
            continue;
        }
        char *masked = url_mask(conf->texts[i]);
        const char *shown =
                keys[i].type == CONF_TYPE_PATH
                        ? *(char *const *)(const void *)((const char *)conf + keys[i].offset)
                        : masked;
        (void)fprintf(out, "%s = %s  (%s)\n", keys[i].flag, shown, origins[conf->origins[i]]);
        free(masked);
    }
}
