/* test_tls.c: contexts from files, and two sessions that talk to each other in memory. Certificates are made by certs.sh
 * in a folder of the run's own. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/tls/tls.h"
#include "tests/unit/scratch.h"

static char folder[SCRATCH_PATH_MAX];

PRINTF_LIKE(1, 2)
static void shell(const char *format, ...)
{
    char command[1024];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(command, sizeof command, format, args);
    va_end(args);
    /* NOLINTNEXTLINE(cert-env33-c): our own script. */
    assert_int_equal(system(command), 0);
}

#define CERTS "sh " CERTS_SCRIPT " "

static int set_up(void **state)
{
    (void)state;
    assert_true(scratch_make(folder));
    assert_int_equal(chdir(folder), 0);
    shell(CERTS "ca ca && " CERTS "ca other && " CERTS
                "cert ca server DNS:localhost,IP:127.0.0.1,IP:::1 && " CERTS
                "cert ca client DNS:client.test && " CERTS
                "cert other stranger DNS:localhost && " CERTS "cert ca gone DNS:localhost && " CERTS
                "cert ca bare - && " CERTS "cert ca only-server DNS:localhost serverAuth && " CERTS
                "cert ca only-client DNS:localhost clientAuth && " CERTS
                "cert ca old DNS:localhost serverAuth,clientAuth -1 && " CERTS
                "crl ca crl.pem gone");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(chdir("/"), 0);
    scratch_remove(folder);
    return 0;
}

/* A side that shows this certificate, trusts our authority, and demands a certificate. */
static struct tls_config config_of(const char *cert, const char *key)
{
    return (struct tls_config){ .cert_file = cert,
        .key_file = key,
        .trusted_ca_file = "ca.pem",
        .crl_file = "",
        .allowed_cn = "",
        .allowed_hostname = "",
        .client_cert_auth = true,
        .flag_prefix = "peer-" };
}

static struct tls_context *context_of(const struct tls_config *config)
{
    struct tls_context *context = NULL;
    struct err err = { 0 };

    if (tls_context_new(config, &context, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return context;
}

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

    shell("echo nonsense >junk; : >empty; sed 's/^MI/XX/' server.pem >bent.pem; cat server.pem "
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

    shell("openssl pkey -in server.key -aes256 -passout pass:secret -out locked.key");
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

/* ---- Two sides ---- */

struct pair {
    struct tls_context *contexts[2]; /* client, server */
    struct tls_session *sessions[2];
    struct buf plain[2];
    struct buf flight[2]; /* to be received by that side */
    struct err errs[2];
    int results[2];
    size_t piece_bytes; /* received at once; 0: all */
};

static void feed(struct pair *pair, unsigned side, struct span bytes)
{
    if (pair->results[side] == 0) {
        pair->results[side] = tls_session_receive(pair->sessions[side], bytes, &pair->plain[side],
                &pair->flight[1 - side], &pair->errs[side]);
    }
}

/* Until nobody has anything to say. */
static void exchange(struct pair *pair)
{
    for (;;) {
        bool moved = false;
        for (unsigned side = 0; side < 2; side++) {
            struct buf taken = pair->flight[side];
            pair->flight[side] = BUF_INIT;
            struct span left = buf_span(&taken);
            while (left.bytes > 0) {
                size_t bytes =
                        pair->piece_bytes == 0 ? left.bytes : MIN(left.bytes, pair->piece_bytes);
                feed(pair, side, span_of(left.data, bytes));
                left = span_from(left, bytes);
                moved = true;
            }
            buf_fini(&taken);
        }
        if (!moved) {
            return;
        }
    }
}

static void open_pair(struct pair *pair, const struct tls_config *client,
        const struct tls_config *server, const char *host)
{
    pair->contexts[0] = context_of(client);
    pair->contexts[1] = context_of(server);
    pair->sessions[0] = tls_session_new(pair->contexts[0], TLS_CLIENT, host);
    pair->sessions[1] = tls_session_new(pair->contexts[1], TLS_SERVER, NULL);
    feed(pair, 0, SPAN_NONE);
    exchange(pair);
}

static void close_pair(struct pair *pair)
{
    for (unsigned side = 0; side < 2; side++) {
        pair->sessions[side] = tls_session_free(pair->sessions[side]);
        pair->contexts[side] = tls_context_free(pair->contexts[side]);
        buf_fini(&pair->plain[side]);
        buf_fini(&pair->flight[side]);
    }
    *pair = (struct pair){ 0 };
}

static void say(struct pair *pair, unsigned from, struct span text)
{
    assert_int_equal(tls_session_send(pair->sessions[from], text, &pair->flight[1 - from],
                             &pair->errs[from]),
            0);
    exchange(pair);
}

static void assert_they_talk(struct pair *pair)
{
    if (pair->results[0] < 0 || pair->results[1] < 0) {
        fail_msg("client: %s, server: %s", pair->errs[0].text, pair->errs[1].text);
    }
    say(pair, 0, SPAN_LIT("to the server"));
    say(pair, 1, SPAN_LIT("to the client"));
    assert_true(span_eq(buf_span(&pair->plain[1]), SPAN_LIT("to the server")));
    assert_true(span_eq(buf_span(&pair->plain[0]), SPAN_LIT("to the client")));
}

/* One side does not take the other: it says so, with a mend, and nothing was delivered. */
static void assert_refuses(struct pair *pair, unsigned side, const char *what, const char *mend)
{
    if (pair->results[side] != -EPROTO || strstr(pair->errs[side].text, what) == NULL ||
            strstr(pair->errs[side].text, "; ") == NULL ||
            strstr(pair->errs[side].text, mend) == NULL) {
        fail_msg("client: %d %s, server: %d %s", pair->results[0], pair->errs[0].text,
                pair->results[1], pair->errs[1].text);
    }
    /* And the other side hears of it. */
    assert_int_equal(pair->results[1 - side], -EPROTO);
    assert_non_null(strstr(pair->errs[1 - side].text, "remote error: tls: "));
}

static void sides_that_know_each_other_talk(void **state)
{
    struct tls_config client = config_of("client.pem", "client.key");
    struct tls_config server = config_of("server.pem", "server.key");
    static const char *const hosts[] = { "localhost", "127.0.0.1", "::1" };
    char name[TLS_NAME_BYTES];
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(hosts); i++) {
        struct pair pair = { .piece_bytes = i };
        open_pair(&pair, &client, &server, hosts[i]);
        assert_they_talk(&pair);
        assert_true(tls_session_peer_name(pair.sessions[1], name));
        assert_string_equal(name, "client");
        close_pair(&pair);
    }
}

static void large_messages_come_whole_whatever_the_pieces(void **state)
{
    struct tls_config client = config_of("client.pem", "client.key");
    struct tls_config server = config_of("server.pem", "server.key");
    struct pair pair = { .piece_bytes = 1021 };
    size_t bytes = 300 * 1000;
    uint8_t *large = xmalloc(bytes);
    (void)state;

    for (size_t i = 0; i < bytes; i++) {
        large[i] = (uint8_t)(i * 31 >> 3);
    }
    open_pair(&pair, &client, &server, "localhost");
    assert_int_equal(
            tls_session_send(pair.sessions[0], span_of(large, bytes), &pair.flight[1], NULL), 0);
    assert_true(pair.flight[1].bytes > bytes);
    assert_null(memmem(pair.flight[1].data, pair.flight[1].bytes, large, 16));
    exchange(&pair);
    assert_true(span_eq(buf_span(&pair.plain[1]), span_of(large, bytes)));
    close_pair(&pair);
    free(large);
}

static void one_side_is_refused(const char *client_cert, const char *server_cert, const char *host,
        unsigned who_refuses, const char *what, const char *mend)
{
    char files[4][64];
    const char *certs[2] = { client_cert, server_cert };
    for (unsigned i = 0; i < 2; i++) {
        (void)snprintf(files[2 * i], sizeof files[0], "%s.pem", certs[i]);
        (void)snprintf(files[2 * i + 1], sizeof files[0], "%s.key", certs[i]);
    }
    struct tls_config client = config_of(files[0], files[1]);
    struct tls_config server = config_of(files[2], files[3]);
    client.crl_file = "crl.pem";
    server.crl_file = "crl.pem";
    struct pair pair = { 0 };
    open_pair(&pair, &client, &server, host);
    assert_refuses(&pair, who_refuses, what, mend);
    close_pair(&pair);
}

static void a_bad_certificate_is_refused_with_what_differs(void **state)
{
    static const char expired[] = "x509: certificate has expired: CN=old ended ";
    static const char unknown[] = "x509: certificate signed by unknown authority: CN=stranger was "
                                  "issued by CN=other, which is not in ca.pem";
    static const char revoked[] = "x509: certificate of CN=gone is revoked by crl.pem";
    static const char usage[] = "x509: certificate specifies an incompatible key usage: ";
    (void)state;

    one_side_is_refused("old", "server", "localhost", 1, expired, "renew");
    one_side_is_refused("client", "old", "localhost", 0, expired, "renew");
    one_side_is_refused("stranger", "server", "localhost", 1, unknown, "-peer-trusted-ca-file");
    one_side_is_refused("client", "stranger", "localhost", 0, unknown, "-peer-trusted-ca-file");
    one_side_is_refused("gone", "server", "localhost", 1, revoked, "issue a new one");
    one_side_is_refused("client", "gone", "localhost", 0, revoked, "issue a new one");
    one_side_is_refused("only-server", "server", "localhost", 1, usage,
            "extendedKeyUsage = serverAuth, clientAuth");
    one_side_is_refused("client", "only-client", "localhost", 0, usage,
            "extendedKeyUsage = serverAuth, clientAuth");
}

static void a_server_must_bear_the_name_that_was_dialled(void **state)
{
    (void)state;
    one_side_is_refused("client", "server", "10.0.0.9", 0,
            "x509: certificate is valid for localhost, 127.0.0.1, ::1, not 10.0.0.9",
            "subjectAltName IP:10.0.0.9");
    one_side_is_refused("client", "server", "elsewhere.test", 0, "not elsewhere.test",
            "subjectAltName DNS:elsewhere.test");
    /* Its common name is "server": that is no name to be found by. */
    one_side_is_refused("client", "server", "server", 0, "not server", "subjectAltName DNS:server");
    one_side_is_refused(
            "client", "bare", "localhost", 0, "valid for no name at all", "subjectAltName");
    one_side_is_refused(
            "client", "bare", "bare", 0, "valid for no name at all", "subjectAltName DNS:bare");
    /* An address as a DNS name would not do, nor a part of a name. */
    one_side_is_refused(
            "client", "server", "localhost.evil.test", 0, "not localhost.evil.test", "DNS:");
}

static void a_client_without_a_certificate_is_refused_where_one_is_demanded(void **state)
{
    struct tls_config client = config_of("", "");
    struct tls_config server = config_of("server.pem", "server.key");
    struct pair pair = { 0 };
    (void)state;

    open_pair(&pair, &client, &server, "localhost");
    assert_refuses(&pair, 1, "tls: client didn't provide a certificate", "-peer-cert-file");
    assert_non_null(strstr(pair.errs[0].text, "does not take our certificate (none)"));
    close_pair(&pair);

    server.client_cert_auth = false;
    open_pair(&pair, &client, &server, "localhost");
    assert_they_talk(&pair);
    close_pair(&pair);
}

static void only_the_allowed_name_gets_in(void **state)
{
    struct tls_config client = config_of("client.pem", "client.key");
    struct tls_config server = config_of("server.pem", "server.key");
    struct pair pair = { 0 };
    (void)state;

    server.allowed_cn = "client";
    open_pair(&pair, &client, &server, "localhost");
    assert_they_talk(&pair);
    close_pair(&pair);

    server.allowed_cn = "somebody";
    open_pair(&pair, &client, &server, "localhost");
    assert_refuses(
            &pair, 1, "CommonName authentication failed: CN=client", "-peer-cert-allowed-cn");
    close_pair(&pair);

    server.allowed_cn = "";
    server.allowed_hostname = "client.test";
    open_pair(&pair, &client, &server, "localhost");
    assert_they_talk(&pair);
    close_pair(&pair);

    server.allowed_hostname = "client"; /* the common name is no host name */
    open_pair(&pair, &client, &server, "localhost");
    assert_refuses(&pair, 1, "valid for client.test, not client", "-peer-cert-allowed-hostname");
    close_pair(&pair);
}

static void a_list_of_revocations_may_be_der_out_of_date_or_of_another_authority(void **state)
{
    struct tls_config client = config_of("client.pem", "client.key");
    struct tls_config server = config_of("server.pem", "server.key");
    static const char *const lists[] = { "crl.der", "stale.pem", "foreign.pem" };
    (void)state;

    shell("openssl crl -in crl.pem -outform DER -out crl.der; sed 's/ca -config/ca -crlsec 1 "
          "-config/' " CERTS_SCRIPT
          " >stale.sh && sh stale.sh crl ca stale.pem gone && sleep 1.1 && " CERTS
          "crl other foreign.pem stranger");
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++) {
        struct pair pair = { 0 };
        server.crl_file = lists[i];
        open_pair(&pair, &client, &server, "localhost");
        assert_they_talk(&pair);
        close_pair(&pair);
    }
    server.crl_file = "stale.pem";
    client = config_of("gone.pem", "gone.key");
    struct pair pair = { 0 };
    open_pair(&pair, &client, &server, "localhost");
    assert_refuses(&pair, 1, "is revoked by stale.pem", "; ");
    close_pair(&pair);
}

static void auto_tls_needs_no_files_and_trusts_anybody(void **state)
{
    struct tls_config config = config_of("", "");
    struct pair pair = { 0 };
    char notes[TLS_NOTES_MAX][TLS_NOTE_BYTES];
    (void)state;

    config.trusted_ca_file = "";
    config.client_cert_auth = false;
    config.auto_tls = true;
    open_pair(&pair, &config, &config, "10.1.2.3");
    assert_they_talk(&pair);
    assert_int_equal(tls_context_notes(pair.contexts[0], NULL, 0, true, 0, notes), 1);
    close_pair(&pair);
}

static void cipher_suites_hold(void **state)
{
    char *one[] = { (char[]){ "TLS_AES_128_GCM_SHA256" } };
    char *another[] = { (char[]){ "TLS_CHACHA20_POLY1305_SHA256" } };
    struct tls_config client = config_of("client.pem", "client.key");
    struct tls_config server = config_of("server.pem", "server.key");
    struct pair pair = { 0 };
    (void)state;

    client.cipher_suites = one;
    server.cipher_suites = one;
    client.cipher_suite_count = server.cipher_suite_count = 1;
    open_pair(&pair, &client, &server, "localhost");
    assert_they_talk(&pair);
    close_pair(&pair);
    server.cipher_suites = another;
    open_pair(&pair, &client, &server, "localhost");
    assert_refuses(&pair, 1, "tls: no cipher suite in common", "-cipher-suites");
    close_pair(&pair);
}

/* ---- What is no TLS ---- */

static void garbage_is_an_error_and_says_what_it_looks_like(void **state)
{
    static const struct {
        const char *bytes;
        size_t count;
        const char *says;
    } rows[] = {
        { "GET /members HTTP/1.1\r\nHost: x\r\n\r\n", 33,
                "Client sent an HTTP request to an HTTPS server" },
        { "\x00\x00\x00\x20\x93\x05\xce\x00\x00\x00\x00", 11,
                "does not look like a TLS handshake" },
        { "\x16\x03\x01\xff\xff garbage", 13, "tls: " },
        { "\x15\x03\x03\x00\x02\x02\x30", 7, "tls: " },
    };
    struct tls_config server = config_of("server.pem", "server.key");
    struct tls_context *context = context_of(&server);
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        for (unsigned role = 0; role < 2; role++) {
            struct tls_session *session =
                    tls_session_new(context, (enum tls_role)role, "localhost");
            struct buf plain = BUF_INIT;
            struct buf out = BUF_INIT;
            struct err err = { 0 };
            int result = tls_session_receive(session, SPAN_NONE, &plain, &out, &err);
            assert_int_equal(result, 0);
            result = tls_session_receive(
                    session, span_of(rows[i].bytes, rows[i].count), &plain, &out, &err);
            assert_int_equal(result, -EPROTO);
            assert_int_equal(plain.bytes, 0);
            if (role == TLS_SERVER && strstr(err.text, rows[i].says) == NULL) {
                fail_msg("says: %s", err.text);
            }
            assert_false(tls_session_is_ready(session));
            buf_fini(&plain);
            buf_fini(&out);
            (void)tls_session_free(session);
        }
    }
    (void)tls_context_free(context);
}

static void a_changed_byte_ends_a_session_and_delivers_nothing(void **state)
{
    struct tls_config client = config_of("client.pem", "client.key");
    struct tls_config server = config_of("server.pem", "server.key");
    (void)state;

    for (size_t at = 0; at < 40; at += 3) {
        struct pair pair = { 0 };
        open_pair(&pair, &client, &server, "localhost");
        exchange(&pair);
        assert_int_equal(
                tls_session_send(pair.sessions[0], SPAN_LIT("0123456789"), &pair.flight[1], NULL),
                0);
        assert_true(pair.flight[1].bytes > 30);
        pair.flight[1].data[MIN(at, pair.flight[1].bytes - 1)] ^= 0x40;
        exchange(&pair);
        /* A length made longer waits for more. */
        assert_true(pair.results[1] == -EPROTO || at == 3);
        assert_int_equal(pair.plain[1].bytes, 0);
        close_pair(&pair);
    }
}

static void any_cut_of_a_handshake_just_waits(void **state)
{
    struct tls_config config = config_of("server.pem", "server.key");
    struct tls_context *context = context_of(&config);
    struct tls_session *client = tls_session_new(context, TLS_CLIENT, "localhost");
    struct buf hello = BUF_INIT;
    struct buf plain = BUF_INIT;
    (void)state;

    assert_int_equal(tls_session_receive(client, SPAN_NONE, &plain, &hello, NULL), 0);
    for (size_t bytes = 0; bytes < hello.bytes; bytes += 7) {
        struct tls_session *server = tls_session_new(context, TLS_SERVER, NULL);
        struct buf out = BUF_INIT;
        assert_int_equal(
                tls_session_receive(server, span_of(hello.data, bytes), &plain, &out, NULL), 0);
        assert_int_equal(out.bytes, 0);
        (void)tls_session_free(server);
        buf_fini(&out);
    }
    buf_fini(&hello);
    buf_fini(&plain);
    (void)tls_session_free(client);
    (void)tls_context_free(context);
}

/* ---- Files that change ---- */

static void changed_files_are_read_again_and_sessions_go_on(void **state)
{
    struct tls_config client = config_of("client.pem", "client.key");
    struct tls_config server = config_of("renewed.pem", "renewed.key");
    struct pair pair = { 0 };
    (void)state;

    shell(CERTS "cert ca renewed DNS:localhost serverAuth,clientAuth -1 && " CERTS
                "cert ca fresh DNS:localhost");
    open_pair(&pair, &client, &server, "localhost");
    assert_refuses(&pair, 0, "x509: certificate has expired", "renew");
    assert_int_equal(tls_context_reload(pair.contexts[1], false, NULL), 0);

    shell("mv fresh.pem renewed.pem; mv fresh.key renewed.key");
    assert_int_equal(tls_context_reload(pair.contexts[1], false, NULL), TLS_CHANGED_KEYS);
    assert_int_equal(tls_context_reload(pair.contexts[1], false, NULL), 0);
    assert_int_equal(tls_context_reload(pair.contexts[1], true, NULL), 0);
    struct tls_context *renewed = MOVE(pair.contexts[1]);
    close_pair(&pair);
    pair.contexts[0] = context_of(&client);
    pair.contexts[1] = renewed;
    pair.sessions[0] = tls_session_new(pair.contexts[0], TLS_CLIENT, "localhost");
    pair.sessions[1] = tls_session_new(pair.contexts[1], TLS_SERVER, NULL);
    feed(&pair, 0, SPAN_NONE);
    exchange(&pair);
    /* Renewed once more, under a session that runs. */
    shell(CERTS "cert ca renewed DNS:localhost");
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

    shell("cp server.pem swap.pem; cp server.key swap.key");
    struct tls_context *context = context_of(&server);
    shell("cp gone.pem swap.pem");
    assert_int_equal(tls_context_reload(context, false, &err), -EINVAL);
    assert_non_null(strstr(err.text, "tls: private key does not match public key"));
    assert_int_equal(tls_context_reload(context, false, &err), -EINVAL);
    shell("rm swap.key");
    assert_int_equal(tls_context_reload(context, false, &err), -EINVAL);
    assert_non_null(strstr(err.text, "open swap.key: No such file"));
    pair.contexts[0] = context_of(&client);
    pair.contexts[1] = context;
    pair.sessions[0] = tls_session_new(pair.contexts[0], TLS_CLIENT, "127.0.0.1");
    pair.sessions[1] = tls_session_new(context, TLS_SERVER, NULL);
    feed(&pair, 0, SPAN_NONE);
    exchange(&pair);
    assert_they_talk(&pair);
    shell("cp gone.key swap.key");
    assert_int_equal(tls_context_reload(context, false, &err), TLS_CHANGED_KEYS);
    close_pair(&pair);
}

static void changed_trust_is_told_apart(void **state)
{
    struct tls_config config = config_of("server.pem", "server.key");
    (void)state;

    config.trusted_ca_file = "bundle.pem";
    config.crl_file = "list.pem";
    shell("cp ca.pem bundle.pem; cp crl.pem list.pem");
    struct tls_context *context = context_of(&config);
    shell("cat other.pem >>bundle.pem");
    assert_int_equal(tls_context_reload(context, false, NULL), TLS_CHANGED_TRUST);
    shell(CERTS "crl ca list.pem gone client");
    assert_int_equal(tls_context_reload(context, false, NULL), TLS_CHANGED_TRUST);
    shell(CERTS "crl ca list.pem && cp server.pem both.pem && cp both.pem server.pem");
    assert_int_equal(
            tls_context_reload(context, false, NULL), TLS_CHANGED_KEYS | TLS_CHANGED_TRUST);
    (void)tls_context_free(context);
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
        cmocka_unit_test(sides_that_know_each_other_talk),
        cmocka_unit_test(large_messages_come_whole_whatever_the_pieces),
        cmocka_unit_test(a_bad_certificate_is_refused_with_what_differs),
        cmocka_unit_test(a_server_must_bear_the_name_that_was_dialled),
        cmocka_unit_test(a_client_without_a_certificate_is_refused_where_one_is_demanded),
        cmocka_unit_test(only_the_allowed_name_gets_in),
        cmocka_unit_test(a_list_of_revocations_may_be_der_out_of_date_or_of_another_authority),
        cmocka_unit_test(auto_tls_needs_no_files_and_trusts_anybody),
        cmocka_unit_test(cipher_suites_hold),
        cmocka_unit_test(garbage_is_an_error_and_says_what_it_looks_like),
        cmocka_unit_test(a_changed_byte_ends_a_session_and_delivers_nothing),
        cmocka_unit_test(any_cut_of_a_handshake_just_waits),
        cmocka_unit_test(changed_files_are_read_again_and_sessions_go_on),
        cmocka_unit_test(files_in_the_middle_of_a_change_leave_the_old_in_force),
        cmocka_unit_test(changed_trust_is_told_apart),
        cmocka_unit_test(what_will_go_wrong_is_noted),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
