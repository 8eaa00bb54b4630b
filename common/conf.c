#include "common/conf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/conf_table.h"
#include "common/url.h"

extern char **environ;

const char *conf_who_name(enum conf_who who)
{
    switch (who) {
    case CONF_RAFTD:
        return "raftd";
    case CONF_STORED:
        return "stored";
    case CONF_GATEWAYD:
        return "gatewayd";
    case CONF_PROXYD:
        return "proxyd";
    case CONF_QUORATE:
    case CONF_ALL:
        return "quorate";
    }
    return "quorate";
}

enum conf_origin conf_origin_of(const struct conf *conf, const char *flag)
{
    int row = conf_find_key(flag, strlen(flag));
    INVARIANT(row >= 0);
    return (enum conf_origin)conf->origins[row];
}

static int set_defaults(struct conf *conf, struct err *err)
{
    size_t count;
    const struct conf_key *keys = conf_keys(&count);

    for (size_t i = 0; i < count; i++) {
        conf->origins[i] = CONF_ORIGIN_DEFAULT;
        if (keys[i].type != CONF_TYPE_IGNORED && keys[i].type != CONF_TYPE_REJECTED) {
            TRY(conf_set_value(conf, i, keys[i].initial, err));
        }
    }
    return 0;
}

/* How far two words are apart: changes of single letters to make one the other. */
static unsigned word_distance(const char *left, size_t left_bytes, const char *right)
{
    unsigned row[CONF_ENVIRONMENT_NAME_BYTES + 1];
    size_t right_bytes = strlen(right);

    if (left_bytes > CONF_ENVIRONMENT_NAME_BYTES || right_bytes > CONF_ENVIRONMENT_NAME_BYTES) {
        return UINT32_MAX;
    }
    for (size_t j = 0; j <= right_bytes; j++) {
        row[j] = (unsigned)j;
    }
    for (size_t i = 1; i <= left_bytes; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= right_bytes; j++) {
            unsigned above = row[j];
            unsigned changed = diagonal + (left[i - 1] == right[j - 1] ? 0U : 1U);
            unsigned shorter = MIN(above, row[j - 1]) + 1U;
            row[j] = MIN(changed, shorter);
            diagonal = above;
        }
    }
    return row[right_bytes];
}

static int refuse_unknown(const char *flag, size_t flag_bytes, struct err *err)
{
    size_t count;
    const struct conf_key *keys = conf_keys(&count);
    const char *nearest = NULL;
    unsigned nearest_distance = 4; /* further away is no typing error */

    for (size_t i = 0; i < count; i++) {
        unsigned distance = word_distance(flag, flag_bytes, keys[i].flag);
        bool is_gone = keys[i].type == CONF_TYPE_IGNORED || keys[i].type == CONF_TYPE_REJECTED;
        if (!is_gone && distance < nearest_distance && distance < flag_bytes) {
            nearest = keys[i].flag;
            nearest_distance = distance;
        }
    }
    if (nearest != NULL) {
        return err_set(err, -ENOENT,
                "flag provided but not defined: -%.*s (is -%s meant? --help lists all)",
                (int)flag_bytes, flag, nearest);
    }
    return err_set(err, -ENOENT, "flag provided but not defined: -%.*s (--help lists all)",
            (int)flag_bytes, flag);
}

static bool is_switch(const struct conf_key *key)
{
    return key->type == CONF_TYPE_BOOL || key->type == CONF_TYPE_IGNORED;
}

static int refuse_value(
        const struct conf_key *key, const char *value, const struct err *reason, struct err *err)
{
    char *masked = url_mask(value);
    int r = is_switch(key) ? err_set(err, -EINVAL, "invalid boolean value \"%s\" for -%s: %.500s",
                                     masked, key->flag, reason->text)
                           : err_set(err, -EINVAL, "invalid value \"%s\" for flag -%s: %.500s",
                                     masked, key->flag, reason->text);
    free(masked);
    return r;
}

/* One flag at argv[*at]; moves *at behind it. */
static int take_flag(struct conf *conf, int argc, char **argv, int *at, struct err *err)
{
    const char *text = argv[(*at)++];
    const char *flag = text + (text[1] == '-' ? 2 : 1);
    size_t flag_bytes = strcspn(flag, "=");
    const char *value = flag[flag_bytes] == '=' ? flag + flag_bytes + 1 : NULL;
    size_t count;
    struct err reason;

    if (flag_bytes == 0 || flag[0] == '-') {
        return err_set(err, -EINVAL, "bad flag syntax: %s", text);
    }
    if (flag_bytes == 1 && flag[0] == 'h' && value == NULL) {
        conf->help = true;
        return 0;
    }
    int row = conf_find_key(flag, flag_bytes);
    if (row < 0) {
        return refuse_unknown(flag, flag_bytes, err);
    }
    const struct conf_key *key = &conf_keys(&count)[row];
    if (key->type == CONF_TYPE_REJECTED) {
        return conf_set_value(conf, (size_t)row, "", err);
    }
    if (value == NULL && is_switch(key)) {
        value = "true";
    } else if (value == NULL && *at < argc) {
        value = argv[(*at)++];
    } else if (value == NULL) {
        return err_set(err, -EINVAL, "flag needs an argument: -%s", key->flag);
    }
    if (conf_set_value(conf, (size_t)row, value, &reason) < 0) {
        return refuse_value(key, value, &reason, err);
    }
    conf->origins[row] = CONF_ORIGIN_FLAG;
    if (key->type == CONF_TYPE_IGNORED) {
        conf_note_add(conf, LOG_LEVEL_WARNING, "etcdmain",
                "flag \"-%s\" is no longer supported - ignoring.", key->flag);
    }
    return 0;
}

static int take_flags(struct conf *conf, int argc, char **argv, struct err *err)
{
    int at = 1;

    while (at < argc && argv[at][0] == '-' && argv[at][1] != '\0') {
        if (strcmp(argv[at], "--") == 0) {
            at++;
            break;
        }
        TRY(take_flag(conf, argc, argv, &at, err));
    }
    if (at < argc && !conf->help) {
        return err_set(err, -EINVAL,
                "error verifying flags, '%s' is not a valid flag. See 'quorate --help'.", argv[at]);
    }
    return 0;
}

/* The value of the variable, or NULL when it is not set or empty: an empty one counts as not set. */
static const char *environment_of(const struct conf_key *key)
{
    char name[CONF_ENVIRONMENT_NAME_BYTES];

    if (key->no_environment) {
        return NULL;
    }
    conf_environment_name(key, name);
    const char *value = getenv(name);
    return value == NULL || value[0] == '\0' ? NULL : value;
}

static int take_variable(struct conf *conf, size_t row, const char *value, struct err *err)
{
    char name[CONF_ENVIRONMENT_NAME_BYTES];
    size_t count;
    const struct conf_key *key = &conf_keys(&count)[row];
    struct err reason;

    conf_environment_name(key, name);
    if (conf->origins[row] == CONF_ORIGIN_FLAG) {
        conf_note_add(conf, LOG_LEVEL_INFO, "flags",
                "recognized environment variable %s, but unused: shadowed by corresponding flag",
                name);
        return 0;
    }
    char *masked = url_mask(value);
    if (conf_set_value(conf, row, value, &reason) < 0) {
        (void)err_set(
                err, -EINVAL, "invalid value \"%s\" for %s: %.500s", masked, name, reason.text);
        free(masked);
        return -EINVAL;
    }
    conf->origins[row] = CONF_ORIGIN_ENVIRONMENT;
    conf_note_add(conf, LOG_LEVEL_INFO, "flags", "recognized and used environment variable %s=%s",
            name, masked);
    free(masked);
    return 0;
}

static bool is_known_variable(const char *entry, size_t name_bytes)
{
    /* Not flags, yet known: neither is worth a warning. */
    static const char *const others[] = { "ETCD_UNSUPPORTED_ARCH", "ETCD_VERSION" };
    char name[CONF_ENVIRONMENT_NAME_BYTES];
    size_t count;
    const struct conf_key *keys = conf_keys(&count);

    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        if (strlen(others[i]) == name_bytes && memcmp(others[i], entry, name_bytes) == 0) {
            return true;
        }
    }
    if (entry[name_bytes] == '=' && entry[name_bytes + 1] == '\0') {
        return false; /* empty: not taken, and so reported, as etcd does */
    }
    for (size_t i = 0; i < count; i++) {
        conf_environment_name(&keys[i], name);
        if (!keys[i].no_environment && strlen(name) == name_bytes &&
                memcmp(name, entry, name_bytes) == 0) {
            return true;
        }
    }
    return false;
}

static int take_environment(struct conf *conf, struct err *err)
{
    size_t count;
    const struct conf_key *keys = conf_keys(&count);

    for (size_t i = 0; i < count; i++) {
        const char *value = environment_of(&keys[i]);
        if (value != NULL) {
            TRY(take_variable(conf, i, value, err));
        }
    }
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        size_t name_bytes = strcspn(*entry, "=");
        if (strncmp(*entry, "ETCD_", 5) == 0 && !is_known_variable(*entry, name_bytes)) {
            char *masked = url_mask(*entry);
            conf_note_add(conf, LOG_LEVEL_WARNING, "flags", "unrecognized environment variable %s",
                    masked);
            free(masked);
        }
    }
    return 0;
}

int conf_load(struct conf *conf, enum conf_who who, int argc, char **argv, struct err *err)
{
    conf->who = who;
    TRY(set_defaults(conf, err));
    TRY(take_flags(conf, argc, argv, err));
    if (conf->help) {
        conf->action = CONF_ACTION_HELP;
        return 0;
    }
    if (conf->version) {
        conf->action = CONF_ACTION_VERSION;
        return 0;
    }
    conf->action = conf->check ? CONF_ACTION_CHECK : CONF_ACTION_RUN;
    TRY(take_environment(conf, err));
    return conf_resolve(conf, err);
}

static void tell_notes(const struct conf *conf)
{
    for (size_t i = 0; i < conf->note_count; i++) {
        log_line(conf->notes[i].level, conf->notes[i].package, "%s", conf->notes[i].text);
    }
}

int conf_start(struct conf *conf, enum conf_who who, int argc, char **argv)
{
    struct err err = { 0, "" };
    int r = conf_load(conf, who, argc, argv, &err);

    /* Before a refusal too: a variable that was taken may be its reason. */
    log_init(conf_who_name(who), r < 0 ? LOG_LEVEL_INFO : conf->log_level);
    if (getenv("QUORATE_DAEMON") == NULL && conf->action == CONF_ACTION_RUN) {
        tell_notes(conf);
    }
    if (r < 0) {
        if (r == -ENOENT) {
            conf_print_usage(conf, stdout);
        }
        (void)fflush(stdout);
        (void)fprintf(stderr, "%s\n", err.text);
        return CONF_EXIT_USAGE;
    }
    switch (conf->action) {
    case CONF_ACTION_RUN:
        return -1;
    case CONF_ACTION_CHECK:
        if (who == CONF_QUORATE || who == CONF_RAFTD) {
            return -1; /* there are files to look at, too */
        }
        conf_print_effective(conf, stdout);
        return fflush(stdout) == 0 ? 0 : CONF_EXIT_FAILED;
    case CONF_ACTION_HELP:
        conf_print_help(conf, stdout);
        return fflush(stdout) == 0 ? 0 : CONF_EXIT_FAILED;
    case CONF_ACTION_VERSION:
        conf_print_version(stdout);
        return fflush(stdout) == 0 ? 0 : CONF_EXIT_FAILED;
    }
    return CONF_EXIT_USAGE;
}

int conf_exit_status(int error)
{
    switch (error) {
    case -EIO:
        return CONF_EXIT_STORAGE;
    case -ENOSPC:
    case -EDQUOT:
        return CONF_EXIT_NO_SPACE;
    default:
        return CONF_EXIT_FAILED;
    }
}

/* mkdir -p with 0700; what is there keeps its mode. */
static int make_dir(const char *path, struct err *err)
{
    char *copy = xstrdup(path);
    int r = 0;

    for (char *slash = strchr(copy + 1, '/'); r == 0; slash = strchr(slash + 1, '/')) {
        if (slash != NULL) {
            *slash = '\0';
        }
        if (mkdir(copy, 0700) < 0 && errno != EEXIST) {
            (void)err_errno(err, "cannot access data directory: mkdir %s", copy);
            r = err_mend(err, "mend its rights, or give --data-dir another folder");
        }
        if (slash == NULL) {
            break;
        }
        *slash = '/';
    }
    free(copy);
    return r;
}

int conf_make_dirs(const struct conf *conf, struct err *err)
{
    CLEANUP(buf_fini) struct buf path = BUF_INIT;

    buf_appendf(&path, "%s/member", conf->data_dir);
    buf_append_byte(&path, '\0');
    TRY(make_dir((const char *)path.data, err));
    buf_clear(&path);
    buf_appendf(&path, "%s/apply", conf->run_dir);
    buf_append_byte(&path, '\0');
    return make_dir((const char *)path.data, err);
}
