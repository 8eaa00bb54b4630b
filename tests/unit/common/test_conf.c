/* test_conf.c: flags, variables and defaults into struct conf, and the page docs/configuration.md. */
#include "common/conf.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/conf_table.h"

enum {
    ARGS_MAX = 16
};

struct loaded {
    struct conf conf;
    struct err err;
    int result;
};

/* Reads flags given as one text, separated by '|' (none: ""). */
static struct loaded *load(const char *flags)
{
    struct loaded *loaded = xcalloc(1, sizeof *loaded);
    char *copy = xstrdup(flags);
    char *argv[ARGS_MAX + 1] = { NULL };
    char name[] = "quorate";
    int argc = 0;

    argv[argc++] = name;
    for (char *at = copy; *at != '\0' && argc < ARGS_MAX;) {
        argv[argc++] = at;
        at += strcspn(at, "|");
        if (*at == '|') {
            *at++ = '\0';
        }
    }
    loaded->result = conf_load(&loaded->conf, CONF_QUORATE, argc, argv, &loaded->err);
    free(copy);
    return loaded;
}

static void unload(struct loaded **loaded)
{
    conf_fini(&(*loaded)->conf);
    free(*loaded);
}

static bool has_note(const struct conf *conf, enum log_level level, const char *text)
{
    for (size_t i = 0; i < conf->note_count; i++) {
        if (conf->notes[i].level == level && strstr(conf->notes[i].text, text) != NULL) {
            return true;
        }
    }
    return false;
}

static int clear_environment(void **state)
{
    (void)state;
    return clearenv();
}

static void defaults_are_those_of_the_table(void **state)
{
    CLEANUP(unload) struct loaded *loaded = load("");
    const struct conf *conf = &loaded->conf;
    char cwd[PATH_MAX];
    char expected[PATH_MAX + 64];
    (void)state;

    assert_int_equal(loaded->result, 0);
    assert_int_equal(conf->action, CONF_ACTION_RUN);
    assert_string_equal(conf->name, "default");
    assert_non_null(getcwd(cwd, sizeof cwd));
    (void)snprintf(expected, sizeof expected, "%s/default.etcd", cwd);
    assert_string_equal(conf->data_dir, expected);
    (void)snprintf(expected, sizeof expected, "%s/default.etcd/member/wal", cwd);
    assert_string_equal(conf->wal_dir, expected);
    (void)snprintf(expected, sizeof expected, "%s/default.etcd/run", cwd);
    assert_string_equal(conf->run_dir, expected);
    assert_int_equal(conf->heartbeat_interval_ms, 100);
    assert_int_equal(conf->election_timeout_ms, 1000);
    assert_int_equal(conf->snapshot_count, 10000);
    assert_int_equal(conf->max_snapshots, 5);
    assert_int_equal(conf->event_history, 1000);
    assert_int_equal(conf->gateways, 1);
    assert_int_equal(conf->listen_client_urls.count, 2);
    assert_string_equal(conf->listen_client_urls.items[0], "http://localhost:2379");
    assert_int_equal(conf->initial_cluster.count, 2);
    assert_string_equal(conf->initial_cluster.items[1].name, "default");
    assert_string_equal(conf->initial_cluster.items[1].url, "http://localhost:7001");
    assert_int_equal(conf->cors.count, 1);
    assert_true(conf->strict_reconfig_check && conf->pre_vote);
    assert_false(conf->linearizable_reads);
    assert_int_equal(conf->log_level, LOG_LEVEL_INFO);
    assert_int_equal(conf_origin_of(conf, "name"), CONF_ORIGIN_DEFAULT);
    assert_int_equal(conf_origin_of(conf, "data-dir"), CONF_ORIGIN_DERIVED);
    assert_int_equal(conf_check_bootstrap(conf, NULL), 0);
}

static void all_spellings_of_a_flag_mean_the_same(void **state)
{
    static const char *const spellings[] = { "-name|x", "--name|x", "-name=x", "--name=x",
        "--name=y|-name=x" };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(spellings); i++) {
        CLEANUP(unload) struct loaded *loaded = load(spellings[i]);
        assert_int_equal(loaded->result, 0);
        assert_string_equal(loaded->conf.name, "x");
        assert_int_equal(conf_origin_of(&loaded->conf, "name"), CONF_ORIGIN_FLAG);
    }
}

static void booleans_take_their_value_after_an_equals_sign_only(void **state)
{
    static const char *const yes[] = { "-debug", "-debug=true", "-debug=1", "--debug=t", "-debug=T",
        "-debug=TRUE", "-debug=True", "-debug=false|-debug" };
    static const char *const no[] = { "-debug=false", "-debug=0", "-debug=f", "-debug=F",
        "-debug=FALSE", "-debug=False" };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(yes); i++) {
        CLEANUP(unload) struct loaded *loaded = load(yes[i]);
        assert_int_equal(loaded->result, 0);
        assert_true(loaded->conf.debug);
        assert_int_equal(loaded->conf.log_level, LOG_LEVEL_DEBUG);
    }
    for (size_t i = 0; i < ARRAY_COUNT(no); i++) {
        CLEANUP(unload) struct loaded *loaded = load(no[i]);
        assert_int_equal(loaded->result, 0);
        assert_false(loaded->conf.debug);
    }
    CLEANUP(unload) struct loaded *loaded = load("-debug|false");
    assert_true(loaded->result < 0);
    assert_string_equal(loaded->err.text,
            "error verifying flags, 'false' is not a valid flag. See 'quorate --help'.");
}

static void refusals_name_the_flag_and_the_reason(void **state)
{
    static const struct {
        const char *flags;
        const char *begins;
    } rows[] = {
        { "-nosuch", "flag provided but not defined: -nosuch" },
        { "-quota-backend-bytes=1", "flag provided but not defined: -quota-backend-bytes" },
        { "-max-txn-ops=1", "flag provided but not defined: -max-txn-ops" },
        { "-experimental-v3demo", "flag provided but not defined: -experimental-v3demo" },
        { "-nmae=x", "flag provided but not defined: -nmae (is -name meant?" },
        { "---name=x", "bad flag syntax: ---name=x" },
        { "-=x", "bad flag syntax: -=x" },
        { "-name", "flag needs an argument: -name" },
        { "-debug=maybe", "invalid boolean value \"maybe\" for -debug: parse error" },
        { "-heartbeat-interval=abc",
                "invalid value \"abc\" for flag -heartbeat-interval: parse error" },
        { "-heartbeat-interval=-5",
                "invalid value \"-5\" for flag -heartbeat-interval: parse error" },
        { "-snapshot-count=18446744073709551616",
                "invalid value \"18446744073709551616\" for flag -snapshot-count: parse error" },
        { "-snapshot-count=", "invalid value \"\" for flag -snapshot-count: parse error" },
        { "-gateways=0", "invalid value \"0\" for flag -gateways: parse error (want 1..64)" },
        { "-gateways=65", "invalid value \"65\" for flag -gateways: parse error" },
        { "-initial-cluster-state=old", "invalid value \"old\" for flag -initial-cluster-state: " },
        { "-listen-client-urls=http://a:1/", "invalid value \"http://a:1/\" for flag "
                                             "-listen-client-urls: URL must not contain a "
                                             "path: http://a:1/" },
        { "-listen-client-urls=,", "invalid value \",\" for flag -listen-client-urls: URL scheme "
                                   "must be http or https: " },
        { "-listen-peer-urls=unix://x",
                "invalid value \"unix://x\" for flag -listen-peer-urls: URL scheme" },
        { "-initial-cluster=word", "invalid value \"word\" for flag -initial-cluster: error "
                                   "setting up initial cluster: URL "
                                   "scheme must be http or https: " },
        { "-addr=localhost:1", "invalid value \"localhost:1\" for flag -addr: " },
        { "-peers=x", "flag \"-peers\" is no longer supported." },
        { "-peers-file=x", "flag \"-peers-file\" is no longer supported." },
        { "-snapshot|foo", "error verifying flags, 'foo' is not a valid flag." },
        { "--|-name=x", "error verifying flags, '-name=x' is not a valid flag." },
    };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        CLEANUP(unload) struct loaded *loaded = load(rows[i].flags);
        assert_true(loaded->result < 0);
        if (strncmp(loaded->err.text, rows[i].begins, strlen(rows[i].begins)) != 0) {
            fail_msg("%s: %s", rows[i].flags, loaded->err.text);
        }
        assert_null(strchr(loaded->err.text, '\n'));
    }
}

static void contradictions_are_refused_with_the_known_words(void **state)
{
    static const char client[] = "-listen-client-urls=http://127.0.0.1:1|";
    static const struct {
        const char *flags;
        const char *contains;
    } rows[] = {
        { "-initial-cluster=a=http://b:1|-discovery=http://d/x",
                "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", "
                "\"discovery\" or \"discovery-srv\"" },
        { "-discovery-srv=d|-discovery=http://d/x",
                "multiple discovery or bootstrap flags are set." },
        { client, "-advertise-client-urls is required when -listen-client-urls is set explicitly" },
        { "-bind-addr=127.0.0.1:1",
                "-advertise-client-urls is required when -listen-client-urls is set explicitly" },
        { "-heartbeat-interval=300", "-election-timeout[1000ms] should be at least as 5 times as "
                                     "-heartbeat-interval[300ms]" },
        { "-heartbeat-interval=201", "should be at least as 5 times" },
        { "-heartbeat-interval=18446744073709551615", "should be at least as 5 times" },
        { "-heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)" },
        { "-election-timeout=50001",
                "-election-timeout[50001ms] is too long, and should be set less than 50000ms" },
        { "-addr=1.2.3.4:1|-advertise-client-urls=http://a:1",
                "Set only one of flags -advertise-client-urls and -addr" },
        { "-peer-addr=1.2.3.4:1|-initial-advertise-peer-urls=http://a:1",
                "Set only one of flags -initial-advertise-peer-urls and -peer-addr" },
        { "-cert-file=/c", "KeyFile and CertFile must both be present[key: , cert: /c]" },
        { "-peer-key-file=/k", "KeyFile and CertFile must both be present[key: /k, cert: ]" },
        { "-listen-peer-urls=https://127.0.0.1:1", "cannot listen on TLS for https://127.0.0.1:1: "
                                                   "KeyFile and CertFile are not presented" },
        { "-client-cert-auth", "-client-cert-auth cannot be kept on http://localhost:2379" },
        { "-listen-peer-urls=https://127.0.0.1:1|-peer-auto-tls|-peer-client-cert-auth",
                "-peer-client-cert-auth cannot be kept with -peer-auto-tls: " },
        { "-ca-file=/ca", "-client-cert-auth cannot be kept on http://localhost:2379" },
        { "-name=a=b", "-name must be a word" },
    };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        CLEANUP(unload) struct loaded *loaded = load(rows[i].flags);
        assert_int_equal(loaded->result, -EINVAL);
        if (strstr(loaded->err.text, rows[i].contains) == NULL) {
            fail_msg("%s: %s", rows[i].flags, loaded->err.text);
        }
        assert_memory_equal(loaded->err.text, "error verifying flags, ", 23);
        assert_non_null(strstr(loaded->err.text, ". See 'quorate --help'."));
    }
}

static void users_of_the_sockets_are_found(void **state)
{
    CLEANUP(unload) struct loaded *plain = load("");
    CLEANUP(unload) struct loaded *named = load("-ipc-users=4711,root,0");
    CLEANUP(unload) struct loaded *unknown = load("-ipc-users=no-such-user");
    CLEANUP(unload) struct loaded *nobody = load("-ipc-users=4294967295");
    (void)state;

    assert_int_equal(plain->result, 0);
    assert_int_equal(plain->conf.ipc_uids.count, 2);
    assert_int_equal(plain->conf.ipc_uids.items[0], 0);
    assert_int_equal(plain->conf.ipc_uids.items[1], geteuid());
    assert_int_equal(named->result, 0);
    assert_int_equal(named->conf.ipc_uids.count, 5);
    assert_int_equal(named->conf.ipc_uids.items[2], 4711);
    assert_int_equal(named->conf.ipc_uids.items[3], 0);
    assert_int_equal(unknown->result, -EINVAL);
    assert_non_null(strstr(unknown->err.text, "-ipc-users names the user \"no-such-user\""));
    assert_int_equal(nobody->result, -EINVAL);
}

static void limits_themselves_are_allowed(void **state)
{
    static const char *const good[] = { "-heartbeat-interval=200", "-election-timeout=50000",
        "-election-timeout=500", "-gateways=64", "-event-history=1" };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
        CLEANUP(unload) struct loaded *loaded = load(good[i]);
        assert_int_equal(loaded->result, 0);
    }
}

static void what_is_not_served_is_refused_and_not_ignored(void **state)
{
    static const char *const rows[] = {
        ("-listen-client-urls=https://127.0.0.1:1|-advertise-client-urls=https://127.0.0.1:1|"
         "-cert-file=/c|-key-file=/k"),
        "-proxy=on",
        "-proxy=readonly",
        "-listen-metrics-urls=http://127.0.0.1:1",
        "-enable-v2=false",
        "-config-file=/x",
        "-auto-tls",
        "-log-outputs=/var/log/x",
    };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        CLEANUP(unload) struct loaded *loaded = load(rows[i]);
        assert_int_equal(loaded->result, -ENOTSUP);
        assert_non_null(strstr(loaded->err.text, "is not served by this version"));
        assert_null(strstr(loaded->err.text, "token"));
    }
}

static void known_flags_of_later_versions_are_taken(void **state)
{
    CLEANUP(unload)
    struct loaded *loaded = load("--enable-v2|--enable-v2=true|--logger=zap|--log-outputs=stderr|"
                                 "--pre-vote=false|--initial-election-tick-advance=false|"
                                 "--log-level=warn|--metrics=extensive|--host-whitelist=a,b");
    (void)state;

    assert_int_equal(loaded->result, 0);
    assert_false(loaded->conf.pre_vote);
    assert_int_equal(loaded->conf.log_level, LOG_LEVEL_WARNING);
}

static void ignored_flags_warn(void **state)
{
    static const char *const flags[] = { "cluster-active-size", "cluster-remove-delay",
        "cluster-sync-interval", "config", "force", "max-result-buffer", "max-retry-attempts",
        "peer-heartbeat-interval", "peer-election-timeout", "retry-interval", "snapshot", "v",
        "vv" };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(flags); i++) {
        char flag[64];
        char note[128];
        (void)snprintf(flag, sizeof flag, "-%s", flags[i]);
        (void)snprintf(
                note, sizeof note, "flag \"-%s\" is no longer supported - ignoring.", flags[i]);
        CLEANUP(unload) struct loaded *loaded = load(flag);
        assert_int_equal(loaded->result, 0);
        assert_true(has_note(&loaded->conf, LOG_LEVEL_WARNING, note));
    }
}

static void variables_stand_between_defaults_and_flags(void **state)
{
    (void)state;
    (void)setenv("ETCD_NAME", "env", 1);
    (void)setenv("ETCD_MAX_WALS", "9", 1);
    (void)setenv("ETCD_FOO", "bar", 1);
    (void)setenv("ETCD_MAX_SNAPSHOTS", "", 1);
    (void)setenv("ETCD_VERSION", "1", 1);
    (void)setenv("ETCD_UNSUPPORTED_ARCH", "x", 1);
    CLEANUP(unload) struct loaded *loaded = load("-name=flag");
    const struct conf *conf = &loaded->conf;

    assert_int_equal(loaded->result, 0);
    assert_string_equal(conf->name, "flag");
    assert_int_equal(conf->max_wals, 9);
    assert_int_equal(conf_origin_of(conf, "max-wals"), CONF_ORIGIN_ENVIRONMENT);
    assert_int_equal(conf->max_snapshots, 5);
    assert_int_equal(conf->action, CONF_ACTION_RUN);
    assert_true(has_note(conf, LOG_LEVEL_INFO,
            "recognized environment variable ETCD_NAME, but unused: shadowed by corresponding "
            "flag"));
    assert_true(has_note(
            conf, LOG_LEVEL_INFO, "recognized and used environment variable ETCD_MAX_WALS=9"));
    assert_true(
            has_note(conf, LOG_LEVEL_WARNING, "unrecognized environment variable ETCD_FOO=bar"));
    assert_true(has_note(
            conf, LOG_LEVEL_WARNING, "unrecognized environment variable ETCD_MAX_SNAPSHOTS="));
    assert_false(has_note(conf, LOG_LEVEL_WARNING, "ETCD_UNSUPPORTED_ARCH"));
    assert_false(has_note(conf, LOG_LEVEL_WARNING, "ETCD_VERSION"));
}

static void bad_variables_are_refused(void **state)
{
    (void)state;
    (void)setenv("ETCD_HEARTBEAT_INTERVAL", "abc", 1);
    CLEANUP(unload) struct loaded *loaded = load("");
    assert_true(loaded->result < 0);
    assert_non_null(strstr(
            loaded->err.text, "invalid value \"abc\" for ETCD_HEARTBEAT_INTERVAL: parse error"));
    (void)clearenv();
    (void)setenv("ETCD_PEERS", "x", 1);
    CLEANUP(unload) struct loaded *peers = load("");
    assert_true(peers->result < 0);
}

static void variables_count_as_set_in_the_checks(void **state)
{
    (void)state;
    (void)setenv("ETCD_DISCOVERY", "http://d/x", 1);
    CLEANUP(unload) struct loaded *loaded = load("-initial-cluster=a=http://b:1");
    assert_non_null(strstr(loaded->err.text, "multiple discovery or bootstrap flags are set"));
}

static void tokens_stay_out_of_notes(void **state)
{
    (void)state;
    (void)setenv("ETCD_DISCOVERY", "http://d.example/s3cret", 1);
    (void)setenv("ETCD_UNKNOWN", "http://d.example/s3cret", 1);
    CLEANUP(unload) struct loaded *loaded = load("");
    for (size_t i = 0; i < loaded->conf.note_count; i++) {
        assert_null(strstr(loaded->conf.notes[i].text, "s3cret"));
    }
    assert_true(has_note(&loaded->conf, LOG_LEVEL_INFO, "ETCD_DISCOVERY=http://d.example/***"));
}

static void help_and_version_come_before_the_environment(void **state)
{
    (void)state;
    (void)setenv("ETCD_HEARTBEAT_INTERVAL", "abc", 1);
    CLEANUP(unload) struct loaded *version = load("--version");
    assert_int_equal(version->result, 0);
    assert_int_equal(version->conf.action, CONF_ACTION_VERSION);
    CLEANUP(unload) struct loaded *help = load("-h");
    assert_int_equal(help->result, 0);
    assert_int_equal(help->conf.action, CONF_ACTION_HELP);
}

static void url_lists_are_trimmed_and_sorted(void **state)
{
    CLEANUP(unload)
    struct loaded *loaded = load("-advertise-client-urls= http://b:1 ,http://a:2, http://a:10");
    const struct conf_list *urls = &loaded->conf.advertise_client_urls;
    (void)state;

    assert_int_equal(loaded->result, 0);
    assert_int_equal(urls->count, 3);
    assert_string_equal(urls->items[0], "http://a:10");
    assert_string_equal(urls->items[1], "http://a:2");
    assert_string_equal(urls->items[2], "http://b:1");
}

static void names_of_0_4_become_those_of_today(void **state)
{
    CLEANUP(unload) struct loaded *loaded = load("-addr=1.2.3.4:80|-peer-addr=1.2.3.4:81|-name=m");
    const struct conf *conf = &loaded->conf;
    (void)state;

    assert_int_equal(loaded->result, 0);
    assert_string_equal(conf->advertise_client_urls.items[0], "http://1.2.3.4:80");
    assert_string_equal(conf->listen_client_urls.items[0], "http://[::]:80");
    assert_string_equal(conf->initial_advertise_peer_urls.items[0], "http://1.2.3.4:81");
    assert_string_equal(conf->listen_peer_urls.items[0], "http://[::]:81");
    assert_string_equal(conf->initial_cluster.items[0].url, "http://1.2.3.4:81");
    CLEANUP(unload) struct loaded *bound = load("-addr=1.2.3.4:80|-bind-addr=[::1]:82");
    assert_string_equal(bound->conf.listen_client_urls.items[0], "http://[::1]:82");
}

static void another_name_rewrites_the_initial_cluster(void **state)
{
    CLEANUP(unload)
    struct loaded *loaded = load("-name=m|-initial-advertise-peer-urls=http://a:1,http://b:1");
    const struct conf_peers *peers = &loaded->conf.initial_cluster;
    (void)state;

    assert_int_equal(loaded->result, 0);
    assert_int_equal(peers->count, 2);
    assert_string_equal(peers->items[0].name, "m");
    assert_string_equal(peers->items[0].url, "http://a:1");
    assert_int_equal(conf_check_bootstrap(&loaded->conf, NULL), 0);
}

static void bootstrap_is_checked_on_its_own(void **state)
{
    static const struct {
        const char *flags;
        const char *contains;
    } rows[] = {
        { "-initial-cluster=a=http://localhost:2380,a=http://localhost:7001",
                "couldn't find local name \"default\" in the initial cluster configuration" },
        { "-initial-advertise-peer-urls=http://a:1",
                "--initial-cluster must include default=http://a:1 given "
                "--initial-advertise-peer-urls=http://a:1; forgot to set --initial-cluster flag?" },
        { "-initial-cluster=default=http://a:1",
                "forgot to set --initial-advertise-peer-urls flag?" },
        { "-initial-cluster=default=http://a:1,b=http://a:1", "has duplicate url" },
    };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        CLEANUP(unload) struct loaded *loaded = load(rows[i].flags);
        struct err err = { 0, "" };
        assert_int_equal(loaded->result, 0);
        assert_int_equal(conf_check_bootstrap(&loaded->conf, &err), -EINVAL);
        if (strstr(err.text, rows[i].contains) == NULL) {
            fail_msg("%s: %s", rows[i].flags, err.text);
        }
    }
}

static void package_levels_only_raise(void **state)
{
    CLEANUP(unload)
    struct loaded *raised = load("-log-package-levels=etcdserver=WARNING,raft=DEBUG");
    CLEANUP(unload) struct loaded *kept = load("-log-package-levels=etcdserver=WARNING");
    CLEANUP(unload) struct loaded *bad = load("-log-package-levels=nonsense");
    (void)state;

    assert_int_equal(raised->conf.log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(kept->conf.log_level, LOG_LEVEL_INFO);
    assert_int_equal(bad->result, 0);
    assert_int_equal(bad->conf.log_level, LOG_LEVEL_INFO);
    assert_true(has_note(&bad->conf, LOG_LEVEL_WARNING, "couldn't parse log level string"));
}

static void every_row_has_what_the_page_shows(void **state)
{
    size_t count;
    const struct conf_key *keys = conf_keys(&count);
    (void)state;

    for (size_t i = 0; i < count; i++) {
        assert_non_null(keys[i].help);
        assert_non_null(keys[i].initial);
        assert_non_null(keys[i].group);
        assert_true(keys[i].who != 0);
        assert_int_equal(conf_find_key(keys[i].flag, strlen(keys[i].flag)), (int)i);
        assert_true(keys[i].type != CONF_TYPE_CHOICE || keys[i].choices != NULL);
        assert_true(strlen(keys[i].flag) + strlen("ETCD_") < CONF_ENVIRONMENT_NAME_BYTES);
    }
}

/* The row of docs/configuration.md that a row of the table asks for. */
static void page_row(const struct conf_key *key, struct buf *out)
{
    char range[128];
    char who[64];
    char variable[CONF_ENVIRONMENT_NAME_BYTES];

    conf_describe_range(key, range, sizeof range);
    conf_describe_who(key, who, sizeof who);
    conf_environment_name(key, variable);
    buf_appendf(out, "| `%s` | ", key->flag);
    if (key->derived != NULL) {
        buf_appendf(out, "%s", key->derived);
    } else if (key->initial[0] != '\0') {
        buf_appendf(out, "`%s`", key->initial);
    } else {
        buf_append_str(out, "empty");
    }
    buf_appendf(out, " | %s | %s%s%s | %s | %s |", range, key->no_environment ? "none" : "`",
            key->no_environment ? "" : variable, key->no_environment ? "" : "`", who, key->help);
    buf_append_byte(out, '\0');
}

static char *read_page(void)
{
    FILE *file = fopen(CONFIGURATION_PAGE, "r");
    CLEANUP(buf_fini) struct buf page = BUF_INIT;

    assert_non_null(file);
    for (int c = fgetc(file); c != EOF; c = fgetc(file)) {
        buf_append_byte(&page, (uint8_t)c);
    }
    (void)fclose(file);
    buf_append_byte(&page, '\0');
    return (char *)MOVE(page.data);
}

static void page_lists_exactly_the_table(void **state)
{
    size_t count;
    const struct conf_key *keys = conf_keys(&count);
    char *page = read_page();
    size_t rows_on_page = 0;
    unsigned missing = 0;
    (void)state;

    const char *begin = strstr(page, "\n## Flags\n");
    assert_non_null(begin);
    const char *end = strstr(begin + 1, "\n## ");
    for (const char *at = strstr(begin, "\n| `"); at != NULL && at < end;
            at = strstr(at + 1, "\n| `")) {
        rows_on_page++;
    }
    for (size_t i = 0; i < count; i++) {
        CLEANUP(buf_fini) struct buf row = BUF_INIT;
        page_row(&keys[i], &row);
        if (strstr(page, (const char *)row.data) == NULL) {
            print_message("missing: %s\n", (const char *)row.data);
            missing++;
        }
    }
    free(page);
    assert_int_equal(missing, 0);
    assert_int_equal(rows_on_page, count);
}

static void an_error_ends_with_the_status_that_says_when_to_try_again(void **state UNUSED)
{
    assert_int_equal(conf_exit_status(-EIO), CONF_EXIT_STORAGE);
    assert_int_equal(conf_exit_status(-ENOSPC), CONF_EXIT_NO_SPACE);
    assert_int_equal(conf_exit_status(-EDQUOT), CONF_EXIT_NO_SPACE);
    assert_int_equal(conf_exit_status(-EADDRINUSE), CONF_EXIT_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults_are_those_of_the_table, clear_environment),
        cmocka_unit_test_setup(all_spellings_of_a_flag_mean_the_same, clear_environment),
        cmocka_unit_test_setup(
                booleans_take_their_value_after_an_equals_sign_only, clear_environment),
        cmocka_unit_test_setup(refusals_name_the_flag_and_the_reason, clear_environment),
        cmocka_unit_test_setup(contradictions_are_refused_with_the_known_words, clear_environment),
        cmocka_unit_test_setup(users_of_the_sockets_are_found, clear_environment),
        cmocka_unit_test_setup(limits_themselves_are_allowed, clear_environment),
        cmocka_unit_test_setup(what_is_not_served_is_refused_and_not_ignored, clear_environment),
        cmocka_unit_test_setup(known_flags_of_later_versions_are_taken, clear_environment),
        cmocka_unit_test_setup(ignored_flags_warn, clear_environment),
        cmocka_unit_test_setup(variables_stand_between_defaults_and_flags, clear_environment),
        cmocka_unit_test_setup(bad_variables_are_refused, clear_environment),
        cmocka_unit_test_setup(variables_count_as_set_in_the_checks, clear_environment),
        cmocka_unit_test_setup(tokens_stay_out_of_notes, clear_environment),
        cmocka_unit_test_setup(help_and_version_come_before_the_environment, clear_environment),
        cmocka_unit_test_setup(url_lists_are_trimmed_and_sorted, clear_environment),
        cmocka_unit_test_setup(names_of_0_4_become_those_of_today, clear_environment),
        cmocka_unit_test_setup(another_name_rewrites_the_initial_cluster, clear_environment),
        cmocka_unit_test_setup(bootstrap_is_checked_on_its_own, clear_environment),
        cmocka_unit_test_setup(package_levels_only_raise, clear_environment),
        cmocka_unit_test_setup(every_row_has_what_the_page_shows, clear_environment),
        cmocka_unit_test_setup(page_lists_exactly_the_table, clear_environment),
        cmocka_unit_test(an_error_ends_with_the_status_that_says_when_to_try_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
