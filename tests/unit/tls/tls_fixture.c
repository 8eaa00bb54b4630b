#include "tests/unit/tls/tls_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

static char folder[SCRATCH_PATH_MAX];

void fixture_shell(const char *format, ...)
{
    char command[1024];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(command, sizeof command, format, args);
    va_end(args);
    /* NOLINTNEXTLINE(cert-env33-c): our own script. */
    assert_int_equal(system(command), 0);
}

int certs_set_up(void **state)
{
    (void)state;
    assert_true(scratch_make(folder));
    assert_int_equal(chdir(folder), 0);
    fixture_shell(CERTS
            "ca ca && " CERTS "ca other && " CERTS
            "cert ca server DNS:localhost,IP:127.0.0.1,IP:::1 && " CERTS
            "cert ca client DNS:client.test && " CERTS "cert other stranger DNS:localhost && " CERTS
            "cert ca gone DNS:localhost && " CERTS "cert ca bare - && " CERTS
            "cert ca only-server DNS:localhost serverAuth && " CERTS
            "cert ca only-client DNS:localhost clientAuth && " CERTS
            "cert ca old DNS:localhost serverAuth,clientAuth -1 && " CERTS "crl ca crl.pem gone");
    return 0;
}

int certs_tear_down(void **state)
{
    (void)state;
    assert_int_equal(chdir("/"), 0);
    scratch_remove(folder);
    return 0;
}

struct tls_config config_of(const char *cert, const char *key)
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

struct tls_context *context_of(const struct tls_config *config)
{
    struct tls_context *context = NULL;
    struct err err = { 0 };

    if (tls_context_new(config, &context, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return context;
}

/* ---- Two sides ---- */

static void feed(struct pair *pair, unsigned side, struct span bytes)
{
    if (pair->results[side] == 0) {
        pair->results[side] = tls_session_receive(pair->sessions[side], bytes, &pair->plain[side],
                &pair->flight[1 - side], &pair->errs[side]);
    }
}

void exchange(struct pair *pair)
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

void open_sessions(struct pair *pair, const char *host)
{
    pair->sessions[0] = tls_session_new(pair->contexts[0], TLS_CLIENT, host);
    pair->sessions[1] = tls_session_new(pair->contexts[1], TLS_SERVER, NULL);
    feed(pair, 0, SPAN_NONE);
    exchange(pair);
}

void open_pair(struct pair *pair, const struct tls_config *client, const struct tls_config *server,
        const char *host)
{
    pair->contexts[0] = context_of(client);
    pair->contexts[1] = context_of(server);
    open_sessions(pair, host);
}

void close_pair(struct pair *pair)
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

void assert_they_talk(struct pair *pair)
{
    if (pair->results[0] < 0 || pair->results[1] < 0) {
        fail_msg("client: %s, server: %s", pair->errs[0].text, pair->errs[1].text);
    }
    say(pair, 0, SPAN_LIT("to the server"));
    say(pair, 1, SPAN_LIT("to the client"));
    assert_true(span_eq(buf_span(&pair->plain[1]), SPAN_LIT("to the server")));
    assert_true(span_eq(buf_span(&pair->plain[0]), SPAN_LIT("to the client")));
}

void assert_refuses(struct pair *pair, unsigned side, const char *what, const char *mend)
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
