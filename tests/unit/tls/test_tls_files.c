/* test_tls_files.c: contexts from files: what is refused, what is noted, and files that change. */
#include "tests/unit/tls/tls_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/clock.h"

/* ---- Files ---- */

static void assert_refused(
        const struct tls_config *config, const char *file, const char *what, const char *mend)
{
    struct tls_context *context = NULL;
    struct err err = { 0 };

    assert_int_equal(tls_context_new(config, &context, &err), -EINVAL);
    assert_null(context);
    if (strstr(err.text, file) == NULL || strstr(err.text, what) == NULL ||
            strstr(err.text, "; ") == NULL || strstr(strstr(err.text, "; "), mend) == NULL) {
        fail_msg("says: %s", err.text);
    }
}

static void a_missing_file_is_named(void **state)
{
    struct tls_config config = config_of("none.pem", "server.key");
    (void)state;

    assert_refused(&config, "open none.pem: No such file or directory", "", "-peer-cert-file");
    config = config_of("server.pem", "none.key");
    assert_refused(&config, "open none.key: No such file or directory", "", "-peer-key-file");
    config = config_of("server.pem", "server.key");
    config.trusted_ca_file = "none-ca.pem";
    assert_refused(&config, "open none-ca.pem: ", "", "-peer-trusted-ca-file");
    config = config_of("server.pem", "server.key");
    config.crl_file = "none-crl.pem";
    assert_refused(&config, "open none-crl.pem: ", "", "-peer-crl-file");
    config.flag_prefix = "";
    assert_refused(&config, "open none-crl.pem: ", "", "-client-crl-file");
}

static void a_folder_in_place_of_a_file_is_named(void **state)
{
    struct tls_config config = config_of("server.pem", "/var/tmp");
    (void)state;

    assert_refused(&config, "/var/tmp", "directory", "-peer-key-file");
}

static void what_is_no_pem_is_named(void **state)
{
    struct tls_config config;
    (void)state;

    fixture_shell(
            "echo nonsense >junk; : >empty; sed 's/^MI/XX/' server.pem >bent.pem; cat server.pem "
            "bent.pem >half.pem");
    static const char *const files[] = { "junk", "empty", "bent.pem", "half.pem", "server.key" };
    for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
        config = config_of(files[i], "server.key");
        assert_refused(
                &config, files[i], "x509: malformed certificate", "-----BEGIN CERTIFICATE-----");
        config = config_of("server.pem", "server.key");
        config.trusted_ca_file = files[i];
        assert_refused(
                &config, files[i], "x509: malformed CA certificate", "-peer-trusted-ca-file");
        config = config_of("server.pem", "server.key");
        config.crl_file = files[i];
        assert_refused(&config, files[i], "x509: malformed CRL", "-peer-crl-file");
    }
    config = config_of("server.pem", "junk");
    assert_refused(&config, "junk", "x509: malformed private key", "-peer-key-file");
}

static void a_key_of_another_certificate_is_refused(void **state)
{
    struct tls_config config = config_of("server.pem", "client.key");
    (void)state;

    assert_refused(&config, "client.key", "tls: private key does not match public key", "a pair");
    assert_refused(&config, "server.pem", "tls: private key does not match public key", "a pair");
}

static void an_encrypted_key_is_refused_and_nobody_is_asked(void **state)
{
    struct tls_config config = config_of("server.pem", "locked.key");
    (void)state;

    fixture_shell("openssl pkey -in server.key -aes256 -passout pass:secret -out locked.key");
    assert_refused(&config, "locked.key", "is encrypted", "openssl pkey -in locked.key");
}

static void flags_that_contradict_are_refused(void **state)
{
    struct tls_config config = config_of("server.pem", "server.key");
    (void)state;

    config.allowed_cn = "a";
    config.allowed_hostname = "b";
    assert_refused(&config, "", "AllowedCN and AllowedHostname are mutually exclusive", "leave");
    config.allowed_hostname = "";
    config.client_cert_auth = false;
    assert_refused(&config, "", "keep nobody out", "-peer-client-cert-auth");
}

static void cipher_suites_go_by_both_names_and_others_are_refused(void **state)
{
    char *good[] = { (char[]){ "TLS_AES_128_GCM_SHA256" },
        (char[]){ "ECDHE-ECDSA-AES128-GCM-SHA256" },
        (char[]){ "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" } };
    char *bad[] = { (char[]){ "TLS_AES_128_GCM_SHA256" }, (char[]){ "ALL:!aNULL" } };
    struct tls_config config = config_of("server.pem", "server.key");
    (void)state;

    config.cipher_suites = good;
    config.cipher_suite_count = ARRAY_COUNT(good);
    (void)tls_context_free(context_of(&config));
    config.cipher_suites = bad;
    config.cipher_suite_count = ARRAY_COUNT(bad);
    assert_refused(&config, "\"ALL:!aNULL\"", "unexpected TLS cipher suite", "-cipher-suites");
}

/* ---- Notes ---- */

static void assert_note(const char *cert, const char *key, uint64_t in_days, const char *says)
{
    static const char *const hosts[] = { "localhost", "10.9.8.7" };
    struct tls_config config = config_of(cert, key);
    struct tls_context *context = context_of(&config);
    char notes[TLS_NOTES_MAX][TLS_NOTE_BYTES];
    uint64_t now_s = clock_wall_ns() / 1000000000U + in_days * 86400;
    size_t count = tls_context_notes(context, hosts, says == NULL ? 1 : 2, true, now_s, notes);
    bool found = false;

    for (size_t i = 0; i < count; i++) {
        found = found || (says != NULL && strstr(notes[i], says) != NULL);
        assert_true(says == NULL || strstr(notes[i], "; ") != NULL);
    }
    assert_true(found == (says != NULL));
    assert_true(says != NULL || count == 0);
    (void)tls_context_free(context);
}

static void what_will_go_wrong_is_noted(void **state)
{
    (void)state;
    assert_note("server.pem", "server.key", 0, NULL);
    assert_note("old.pem", "old.key", 0, "the certificate in old.pem has expired: it ended ");
    assert_note("server.pem", "server.key", 340, "the certificate in server.pem ends ");
    assert_note("only-server.pem", "only-server.key", 0, "is not for TLS clients");
    assert_note("only-client.pem", "only-client.key", 0, "is not for TLS servers");
    assert_note("server.pem", "server.key", 0, "not 10.9.8.7, which is advertised");
}

/* ---- Files that change ---- */

static void changed_files_are_read_again_and_sessions_go_on(void **state)
{
    struct tls_config client = config_of("client.pem", "client.key");
    struct tls_config server = config_of("renewed.pem", "renewed.key");
    struct pair pair = { 0 };
    (void)state;

    fixture_shell(CERTS "cert ca renewed DNS:localhost serverAuth,clientAuth -1 && " CERTS
                        "cert ca fresh DNS:localhost");
    open_pair(&pair, &client, &server, "localhost");
    assert_refuses(&pair, 0, "x509: certificate has expired", "renew");
    assert_int_equal(tls_context_reload(pair.contexts[1], false, NULL), 0);

    fixture_shell("mv fresh.pem renewed.pem; mv fresh.key renewed.key");
    assert_int_equal(tls_context_reload(pair.contexts[1], false, NULL), TLS_CHANGED_KEYS);
    assert_int_equal(tls_context_reload(pair.contexts[1], false, NULL), 0);
    assert_int_equal(tls_context_reload(pair.contexts[1], true, NULL), 0);
    struct tls_context *renewed = MOVE(pair.contexts[1]);
    close_pair(&pair);
    pair.contexts[0] = context_of(&client);
    pair.contexts[1] = renewed;
    open_sessions(&pair, "localhost");
    /* Renewed once more, under a session that runs. */
    fixture_shell(CERTS "cert ca renewed DNS:localhost");
    assert_int_equal(tls_context_reload(renewed, false, NULL), TLS_CHANGED_KEYS);
    assert_they_talk(&pair);
    close_pair(&pair);
}

static void files_in_the_middle_of_a_change_leave_the_old_in_force(void **state)
{
    struct tls_config client = config_of("client.pem", "client.key");
    struct tls_config server = config_of("swap.pem", "swap.key");
    struct pair pair = { 0 };
    struct err err = { 0 };
    (void)state;

    fixture_shell("cp server.pem swap.pem; cp server.key swap.key");
    struct tls_context *context = context_of(&server);
    fixture_shell("cp gone.pem swap.pem");
    assert_int_equal(tls_context_reload(context, false, &err), -EINVAL);
    assert_non_null(strstr(err.text, "tls: private key does not match public key"));
    assert_int_equal(tls_context_reload(context, false, &err), -EINVAL);
    fixture_shell("rm swap.key");
    assert_int_equal(tls_context_reload(context, false, &err), -EINVAL);
    assert_non_null(strstr(err.text, "open swap.key: No such file"));
    pair.contexts[0] = context_of(&client);
    pair.contexts[1] = context;
    open_sessions(&pair, "127.0.0.1");
    assert_they_talk(&pair);
    fixture_shell("cp gone.key swap.key");
    assert_int_equal(tls_context_reload(context, false, &err), TLS_CHANGED_KEYS);
    close_pair(&pair);
}

static void changed_trust_is_told_apart(void **state)
{
    struct tls_config config = config_of("server.pem", "server.key");
    (void)state;

    config.trusted_ca_file = "bundle.pem";
    config.crl_file = "list.pem";
    fixture_shell("cp ca.pem bundle.pem; cp crl.pem list.pem");
    struct tls_context *context = context_of(&config);
    fixture_shell("cat other.pem >>bundle.pem");
    assert_int_equal(tls_context_reload(context, false, NULL), TLS_CHANGED_TRUST);
    fixture_shell(CERTS "crl ca list.pem gone client");
    assert_int_equal(tls_context_reload(context, false, NULL), TLS_CHANGED_TRUST);
    fixture_shell(CERTS "crl ca list.pem && cp server.pem both.pem && cp both.pem server.pem");
    assert_int_equal(
            tls_context_reload(context, false, NULL), TLS_CHANGED_KEYS | TLS_CHANGED_TRUST);
    (void)tls_context_free(context);
}

/* What the context asks of a file lies between two lookings: here the command is run right after the look at `watched`. */
static const char *watched;
static const char *then;

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
int stat(const char *path, struct stat *ret_stat)
{
    int result = fstatat(AT_FDCWD, path, ret_stat, 0);

    if (watched != NULL && strcmp(path, watched) == 0) {
        watched = NULL;
        fixture_shell("%s", then);
    }
    return result;
}

static void trust_that_changes_while_files_are_looked_at_is_told(void **state)
{
    struct tls_config config = config_of("moving.pem", "moving.key");
    (void)state;

    config.trusted_ca_file = "bundle.pem";
    fixture_shell("cp ca.pem bundle.pem; cp server.pem moving.pem; cp server.key moving.key");
    struct tls_context *context = context_of(&config);
    fixture_shell("cp gone.pem moving.pem; cp gone.key moving.key");
    watched = "bundle.pem";
    then = "cat other.pem >>bundle.pem";
    assert_int_equal(
            tls_context_reload(context, false, NULL), TLS_CHANGED_KEYS | TLS_CHANGED_TRUST);
    assert_null(watched);
    (void)tls_context_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(a_folder_in_place_of_a_file_is_named),
        cmocka_unit_test(what_is_no_pem_is_named),
        cmocka_unit_test(a_key_of_another_certificate_is_refused),
        cmocka_unit_test(an_encrypted_key_is_refused_and_nobody_is_asked),
        cmocka_unit_test(flags_that_contradict_are_refused),
        cmocka_unit_test(cipher_suites_go_by_both_names_and_others_are_refused),
        cmocka_unit_test(changed_files_are_read_again_and_sessions_go_on),
        cmocka_unit_test(files_in_the_middle_of_a_change_leave_the_old_in_force),
        cmocka_unit_test(changed_trust_is_told_apart),
        cmocka_unit_test(trust_that_changes_while_files_are_looked_at_is_told),
        cmocka_unit_test(what_will_go_wrong_is_noted),
    };
    return cmocka_run_group_tests(tests, certs_set_up, certs_tear_down);
}
