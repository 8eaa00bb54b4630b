/* test_tls_session.c: two sessions that talk to each other in memory, or do not take each other; and bytes that are no TLS. */
#include "tests/unit/tls/tls_fixture.h"

#include <errno.h>
#include <stdlib.h>

/* ---- Two sides ---- */

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
    /* A URL without a host names nobody: that is not everybody. */
    one_side_is_refused(
            "client", "server", "", 0, "the URL that was dialled has no host", "give it one");
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

    fixture_shell(
            "openssl crl -in crl.pem -outform DER -out crl.der; sed 's/ca -config/ca -crlsec 1 "
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
    char name[TLS_NAME_BYTES];
    (void)state;

    config.trusted_ca_file = "";
    config.client_cert_auth = false;
    config.auto_tls = true;
    open_pair(&pair, &config, &config, "10.1.2.3");
    assert_they_talk(&pair);
    assert_false(tls_session_peer_name(pair.sessions[0], name));
    assert_int_equal(tls_context_notes(pair.contexts[0], NULL, 0, true, 0, notes), 1);
    close_pair(&pair);
}

static void what_auto_tls_does_not_look_at_is_not_to_blame(void **state)
{
    struct tls_config config = config_of("", "");
    struct pair pair = { 0 };
    struct err err = { 0 };
    (void)state;

    config.trusted_ca_file = "";
    config.client_cert_auth = false;
    config.auto_tls = true;
    open_pair(&pair, &config, &config, "10.1.2.3");
    assert_they_talk(&pair);
    assert_int_equal(tls_session_receive(pair.sessions[0], SPAN_LIT("\x17\x03\x03\x00\x01x"),
                             &pair.plain[0], &pair.flight[1], &err),
            -EPROTO);
    assert_null(strstr(err.text, "x509"));
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

/* These are the first bytes that a session hears; it refuses them. */
static void refuse_first(
        struct tls_context *context, enum tls_role role, struct span bytes, struct err *err)
{
    struct tls_session *session = tls_session_new(context, role, "localhost");
    struct buf plain = BUF_INIT;
    struct buf out = BUF_INIT;

    assert_int_equal(tls_session_receive(session, SPAN_NONE, &plain, &out, err), 0);
    assert_int_equal(tls_session_receive(session, bytes, &plain, &out, err), -EPROTO);
    assert_int_equal(plain.bytes, 0);
    assert_false(tls_session_is_ready(session));
    buf_fini(&plain);
    buf_fini(&out);
    (void)tls_session_free(session);
}

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
            struct err err = { 0 };
            refuse_first(context, (enum tls_role)role, span_of(rows[i].bytes, rows[i].count), &err);
            if (role == TLS_SERVER && strstr(err.text, rows[i].says) == NULL) {
                fail_msg("says: %s", err.text);
            }
        }
    }
    (void)tls_context_free(context);
}

static void an_alert_is_told_as_the_other_sides_with_the_mend(void **state)
{
    struct tls_config client = config_of("client.pem", "client.key");
    struct tls_context *context = context_of(&client);
    struct err err = { 0 };
    (void)state;

    refuse_first(context, TLS_CLIENT, SPAN_LIT("\x15\x03\x03\x00\x02\x02\x46"), &err);
    assert_non_null(strstr(err.text, "remote error: tls: "));
    assert_non_null(strstr(err.text, "TLS 1.2 and 1.3 are spoken here"));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sides_that_know_each_other_talk),
        cmocka_unit_test(large_messages_come_whole_whatever_the_pieces),
        cmocka_unit_test(a_bad_certificate_is_refused_with_what_differs),
        cmocka_unit_test(a_server_must_bear_the_name_that_was_dialled),
        cmocka_unit_test(a_client_without_a_certificate_is_refused_where_one_is_demanded),
        cmocka_unit_test(only_the_allowed_name_gets_in),
        cmocka_unit_test(a_list_of_revocations_may_be_der_out_of_date_or_of_another_authority),
        cmocka_unit_test(auto_tls_needs_no_files_and_trusts_anybody),
        cmocka_unit_test(what_auto_tls_does_not_look_at_is_not_to_blame),
        cmocka_unit_test(cipher_suites_hold),
        cmocka_unit_test(garbage_is_an_error_and_says_what_it_looks_like),
        cmocka_unit_test(an_alert_is_told_as_the_other_sides_with_the_mend),
        cmocka_unit_test(a_changed_byte_ends_a_session_and_delivers_nothing),
        cmocka_unit_test(any_cut_of_a_handshake_just_waits),
    };
    return cmocka_run_group_tests(tests, certs_set_up, certs_tear_down);
}
