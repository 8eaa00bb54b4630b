/* session.c: one connection's TLS between two memory BIOs. */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls/internal.h"

enum {
    RECORD_BYTES = 16 * 1024,
    ALERT_BASE = 1000, /* OpenSSL's reasons from here on are alerts of the other side */
    ALERTS = 256,
};

static bool is_address(const char *host)
{
    uint8_t bytes[16];
    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

static void expect_host(SSL *ssl, const char *host)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

    X509_VERIFY_PARAM_set_hostflags(
            param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (is_address(host)) {
        INVARIANT_EQ(X509_VERIFY_PARAM_set1_ip_asc(param, host), 1);
    } else {
        INVARIANT_EQ(X509_VERIFY_PARAM_set1_host(param, host, 0), 1);
        (void)SSL_set_tlsext_host_name(ssl, host);
    }
}

struct tls_session *tls_session_new(
        const struct tls_context *context, enum tls_role role, const char *host)
{
    struct tls_session *session = xcalloc(1, sizeof *session);
    int demand = SSL_VERIFY_NONE;

    session->context = context;
    session->is_server = role == TLS_SERVER;
    session->ssl = SSL_new(context->material.ssl);
    session->in = BIO_new(BIO_s_mem());
    session->out = BIO_new(BIO_s_mem());
    INVARIANT(session->ssl != NULL && session->in != NULL && session->out != NULL);
    SSL_set_bio(session->ssl, session->in, session->out);
    INVARIANT_EQ(SSL_set_ex_data(session->ssl, tls_session_index(), session), 1);
    if (session->is_server) {
        demand = context->client_cert_auth ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                                           : SSL_VERIFY_NONE;
        SSL_set_accept_state(session->ssl);
    } else {
        (void)snprintf(session->host, sizeof session->host, "%s", host);
        if (context->verifies_servers) {
            demand = SSL_VERIFY_PEER;
            expect_host(session->ssl, session->host);
        }
        SSL_set_connect_state(session->ssl);
    }
    SSL_set_verify(session->ssl, demand, tls_on_verify);
    return session;
}

struct tls_session *tls_session_free(struct tls_session *session)
{
    if (session != NULL) {
        SSL_free(session->ssl);
        free(session);
    }
    return NULL;
}

bool tls_session_is_ready(const struct tls_session *session)
{
    return session->is_ready;
}

/* ---- What went wrong ---- */

static int say_alert(const struct tls_session *session, int reason, struct err *err)
{
    int alert = reason - ALERT_BASE;
    const char *name = SSL_alert_desc_string_long(alert);
    const char *file = session->context->files[TLS_FILE_CERT];

    switch (alert) {
    case SSL_AD_HANDSHAKE_FAILURE:
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_CERTIFICATE_EXPIRED:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_UNKNOWN_CA:
    case SSL_AD_CERTIFICATE_REQUIRED:
        return err_set(err, -EPROTO,
                "remote error: tls: %s: the other side does not take our certificate (%s); its log "
                "says "
                "why",
                name, file[0] == '\0' ? "none" : file);
    case SSL_AD_PROTOCOL_VERSION:
        return err_set(err, -EPROTO,
                "remote error: tls: %s: no protocol version in common; TLS 1.2 and 1.3 are spoken "
                "here",
                name);
    default:
        return err_set(err, -EPROTO, "remote error: tls: %s; its log says why", name);
    }
}

static int say_failure(const struct tls_session *session, struct err *err)
{
    unsigned long error = ERR_peek_error();
    int reason = ERR_GET_REASON(error);
    bool is_alert = ERR_GET_LIB(error) == ERR_LIB_SSL && reason >= ALERT_BASE &&
                    reason < ALERT_BASE + ALERTS; /* other libraries have reasons of their own */
    const char *prefix = session->context->flag_prefix;
    char text[TLS_NAME_BYTES];

    if (session->verdict[0] != '\0') {
        ERR_clear_error();
        return err_set(err, -EPROTO, "%s", session->verdict);
    }
    (void)tls_library_error(text, sizeof text);
    if (is_alert) {
        return say_alert(session, reason, err);
    }
    switch (reason) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return err_set(err, -EPROTO,
                "tls: client didn't provide a certificate; give it -%scert-file and -%skey-file",
                prefix, prefix);
    case SSL_R_HTTP_REQUEST:
        return err_set(
                err, -EPROTO, "Client sent an HTTP request to an HTTPS server; use https there");
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_BAD_RECORD_TYPE:
        return err_set(err, -EPROTO,
                "tls: first record does not look like a TLS handshake; give both sides the same "
                "scheme, http or "
                "https, in the URLs");
    case SSL_R_UNSUPPORTED_PROTOCOL:
        return err_set(err, -EPROTO,
                "tls: no protocol version in common; TLS 1.2 and 1.3 are spoken here");
    case SSL_R_NO_SHARED_CIPHER:
        return err_set(err, -EPROTO,
                "tls: no cipher suite in common; make -cipher-suites of both sides overlap");
    default:
        return err_set(err, -EPROTO, "tls: %s; check what speaks there", text);
    }
}

/* ---- Bytes ---- */

static void take_out(struct tls_session *session, struct buf *out)
{
    size_t bytes = BIO_ctrl_pending(session->out);

    if (bytes > 0) {
        int taken = BIO_read(session->out, buf_reserve(out, bytes), (int)bytes);
        INVARIANT_EQ(taken, bytes);
        out->bytes += bytes;
    }
}

static int read_plain(struct tls_session *session, struct buf *plain, struct err *err)
{
    for (;;) {
        ERR_clear_error();
        int bytes = SSL_read(session->ssl, buf_reserve(plain, RECORD_BYTES), RECORD_BYTES);
        if (bytes > 0) {
            plain->bytes += (size_t)bytes;
            continue;
        }
        switch (SSL_get_error(session->ssl, bytes)) {
        case SSL_ERROR_WANT_READ:
        case SSL_ERROR_WANT_WRITE:
            return 0;
        case SSL_ERROR_ZERO_RETURN:
            return err_set(err, -ECONNRESET, "the other side said goodbye");
        default:
            return say_failure(session, err);
        }
    }
}

static int shake_hands(struct tls_session *session, struct err *err)
{
    ERR_clear_error();
    int result = SSL_do_handshake(session->ssl);
    if (result == 1) {
        session->is_ready = true;
        return 0;
    }
    int error = SSL_get_error(session->ssl, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE
                   ? 0
                   : say_failure(session, err);
}

int tls_session_receive(struct tls_session *session, struct span bytes, struct buf *plain,
        struct buf *out, struct err *err)
{
    int result = 0;

    INVARIANT_LT(bytes.bytes, INT_MAX);
    if (bytes.bytes > 0) {
        INVARIANT_EQ(BIO_write(session->in, bytes.data, (int)bytes.bytes), bytes.bytes);
    }
    if (!session->is_ready) {
        result = shake_hands(session, err);
    }
    if (result == 0 && session->is_ready) {
        result = read_plain(session, plain, err);
    }
    take_out(session, out);
    return result;
}

int tls_session_send(
        struct tls_session *session, struct span plain, struct buf *out, struct err *err)
{
    INVARIANT(session->is_ready);
    while (plain.bytes > 0) {
        int bytes = (int)MIN(plain.bytes, (size_t)INT_MAX);
        ERR_clear_error();
        int written = SSL_write(session->ssl, plain.data, bytes);
        if (written <= 0) {
            return say_failure(session, err);
        }
        plain = span_from(plain, (size_t)written);
    }
    take_out(session, out);
    return 0;
}
