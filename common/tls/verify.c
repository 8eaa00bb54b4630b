/* verify.c: why the other side's certificate is not good, in words: what differs and how to mend it.
 *
 * The library judges chain, dates, purpose, revocation and name; the common or alternative name that flags allow is
 * judged here. Three of its findings are let pass, as etcd does: a list of revocations that is out of date, not yet
 * valid, or missing for one of several authorities: it still says who was revoked, and a list that nobody renewed must not
 * end a cluster. tls_context_notes tells of the first. */
#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/tls/internal.h"

enum {
    TIME_BYTES = 64
};

int tls_session_index(void)
{
    static int index =
            -1; /* OpenSSL's numbers are the process's; set by the first context's thread */

    if (index < 0) {
        index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    }
    return index;
}

/* ---- Names as text ---- */

static void take_text(BIO *bio, char *ret_text, size_t bytes)
{
    int length = BIO_read(bio, ret_text, (int)bytes - 1);

    ret_text[MAX(length, 0)] = '\0';
    (void)BIO_free(bio);
}

void tls_subject_text(const X509 *cert, char *ret_text, size_t bytes)
{
    BIO *bio = BIO_new(BIO_s_mem());

    INVARIANT(bio != NULL);
    (void)X509_NAME_print_ex(bio, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253);
    take_text(bio, ret_text, bytes);
    if (ret_text[0] == '\0') {
        (void)snprintf(ret_text, bytes, "no subject");
    }
}

static void print_name(BIO *bio, const GENERAL_NAME *name)
{
    char text[INET6_ADDRSTRLEN];

    if (name->type == GEN_DNS) {
        (void)ASN1_STRING_print_ex(
                bio, name->d.dNSName, ASN1_STRFLGS_ESC_CTRL | ASN1_STRFLGS_ESC_MSB);
    } else if (name->type == GEN_IPADD) {
        int bytes = ASN1_STRING_length(name->d.iPAddress);
        const unsigned char *address = ASN1_STRING_get0_data(name->d.iPAddress);
        int family = bytes == 4 ? AF_INET : AF_INET6;
        if ((bytes == 4 || bytes == 16) && inet_ntop(family, address, text, sizeof text) != NULL) {
            (void)BIO_puts(bio, text);
        }
    }
}

void tls_names_text(const X509 *cert, char *ret_text, size_t bytes)
{
    BIO *bio = BIO_new(BIO_s_mem());
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);

    INVARIANT(bio != NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        (void)BIO_puts(bio, i == 0 ? "" : ", ");
        print_name(bio, sk_GENERAL_NAME_value(names, i));
    }
    GENERAL_NAMES_free(names);
    take_text(bio, ret_text, bytes);
    if (ret_text[0] == '\0') {
        (void)snprintf(ret_text, bytes, "no name at all");
    }
}

void tls_time_text(const ASN1_TIME *time, char *ret_text, size_t bytes)
{
    BIO *bio = BIO_new(BIO_s_mem());

    INVARIANT(bio != NULL);
    (void)ASN1_TIME_print(bio, time);
    take_text(bio, ret_text, bytes);
}

/* ---- The verdict ---- */

PRINTF_LIKE(2, 3)
static void say(struct tls_session *session, const char *format, ...)
{
    va_list args;

    if (session->verdict[0] == '\0') { /* the first finding is the cause */
        va_start(args, format);
        (void)vsnprintf(session->verdict, sizeof session->verdict, format, args);
        va_end(args);
    }
}

static void say_dates(
        struct tls_session *session, const char *subject, const X509 *cert, bool is_over)
{
    char when[TIME_BYTES];

    tls_time_text(
            is_over ? X509_get0_notAfter(cert) : X509_get0_notBefore(cert), when, sizeof when);
    if (is_over) {
        say(session, "x509: certificate has expired: %s ended %s; renew it there", subject, when);
    } else {
        say(session,
                "x509: certificate is not yet valid: %s begins %s; check the clocks of both hosts",
                subject, when);
    }
}

static void say_name(struct tls_session *session, const X509 *cert)
{
    char names[TLS_NAME_BYTES * 2];

    tls_names_text(cert, names, sizeof names);
    say(session,
            "x509: certificate is valid for %s, not %s; issue it with subjectAltName %s:%s, or "
            "correct "
            "the URL",
            names, session->host,
            strchr(session->host, ':') != NULL ||
                            session->host[strspn(session->host, "0123456789.")] == '\0'
                    ? "IP"
                    : "DNS",
            session->host);
}

static void say_authority(struct tls_session *session, const char *subject, const X509 *cert)
{
    char issuer[TLS_NAME_BYTES];
    const char *file = session->context->files[TLS_FILE_CA];
    BIO *bio = BIO_new(BIO_s_mem());

    INVARIANT(bio != NULL);
    (void)X509_NAME_print_ex(bio, X509_get_issuer_name(cert), 0, XN_FLAG_RFC2253);
    take_text(bio, issuer, sizeof issuer);
    say(session,
            "x509: certificate signed by unknown authority: %s was issued by %s, which is not in "
            "%s; add "
            "that authority to -%strusted-ca-file, or issue a certificate by one that is there",
            subject, issuer, file[0] == '\0' ? "the system's authorities" : file,
            session->context->flag_prefix);
}

static void say_verdict(struct tls_session *session, int code, X509_STORE_CTX *store)
{
    const X509 *cert = X509_STORE_CTX_get_current_cert(store);
    char subject[TLS_NAME_BYTES];

    if (cert == NULL) {
        say(session, "x509: %s; issue another certificate", X509_verify_cert_error_string(code));
        return;
    }
    tls_subject_text(cert, subject, sizeof subject);
    switch (code) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        say_dates(session, subject, cert, true);
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        say_dates(session, subject, cert, false);
        break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        say_name(session, cert);
        break;
    case X509_V_ERR_CERT_REVOKED:
        say(session, "x509: certificate of %s is revoked by %s; issue a new one there", subject,
                session->context->files[TLS_FILE_CRL]);
        break;
    case X509_V_ERR_INVALID_PURPOSE:
        say(session,
                "x509: certificate specifies an incompatible key usage: %s is not for TLS %s; "
                "issue "
                "it with extendedKeyUsage = serverAuth, clientAuth",
                subject, session->is_server ? "clients" : "servers");
        break;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        say_authority(session, subject, cert);
        break;
    default:
        say(session, "x509: %s: %s; issue another certificate", subject,
                X509_verify_cert_error_string(code));
        break;
    }
}

static bool is_let_pass(int code)
{
    return code == X509_V_ERR_CRL_HAS_EXPIRED || code == X509_V_ERR_CRL_NOT_YET_VALID ||
           code == X509_V_ERR_UNABLE_TO_GET_CRL;
}

/* ---- What flags allow ---- */

static bool common_name(const X509 *cert, char ret_name[TLS_NAME_BYTES])
{
    const X509_NAME *subject = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *text = NULL;

    if (at < 0) {
        return false;
    }
    int bytes =
            ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    bool fits = bytes > 0 && bytes < TLS_NAME_BYTES && memchr(text, '\0', (size_t)bytes) == NULL;
    if (fits) {
        memcpy(ret_name, text, (size_t)bytes);
        ret_name[bytes] = '\0';
    }
    OPENSSL_free(text);
    return fits;
}

/* Of a good certificate: whether flags allow its bearer. */
static bool is_allowed(struct tls_session *session, X509 *cert)
{
    const struct tls_context *context = session->context;
    char name[TLS_NAME_BYTES] = "";
    char names[TLS_NAME_BYTES * 2];

    /* The library takes no name for any name. */
    if (!session->is_server && session->host[0] == '\0') {
        tls_names_text(cert, names, sizeof names);
        say(session,
                "x509: certificate is valid for %s, but the URL that was dialled has no host; give "
                "it one",
                names);
        return false;
    }
    if (context->allowed_cn[0] != '\0' &&
            (!common_name(cert, name) || strcmp(name, context->allowed_cn) != 0)) {
        tls_subject_text(cert, names, sizeof names);
        say(session,
                "CommonName authentication failed: %s does not bear the name %s; issue one with "
                "that "
                "name, or correct -%scert-allowed-cn",
                names, context->allowed_cn, context->flag_prefix);
        return false;
    }
    if (context->allowed_hostname[0] != '\0' &&
            X509_check_host(cert, context->allowed_hostname, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT,
                    NULL) != 1 &&
            X509_check_ip_asc(cert, context->allowed_hostname, 0) != 1) {
        tls_names_text(cert, names, sizeof names);
        say(session,
                "x509: certificate is valid for %s, not %s; issue one for that name, or correct "
                "-%scert-allowed-hostname",
                names, context->allowed_hostname, context->flag_prefix);
        return false;
    }
    return true;
}

int tls_on_verify(int is_good, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_session *session = SSL_get_ex_data(ssl, tls_session_index());
    int code = X509_STORE_CTX_get_error(store);

    if (SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE) {
        return 1; /* whatever it is, it is not why the session fails, should it */
    }
    if (!is_good && is_let_pass(code)) {
        X509_STORE_CTX_set_error(store, X509_V_OK);
        return 1;
    }
    if (!is_good) {
        say_verdict(session, code, store);
        return 0;
    }
    if (X509_STORE_CTX_get_error_depth(store) == 0 &&
            !is_allowed(session, X509_STORE_CTX_get_current_cert(store))) {
        X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
        return 0;
    }
    return 1;
}

bool tls_session_peer_name(const struct tls_session *session, char ret_name[TLS_NAME_BYTES])
{
    const X509 *cert = SSL_get0_peer_certificate(session->ssl);
    bool was_judged = SSL_get_verify_mode(session->ssl) != SSL_VERIFY_NONE;

    return was_judged && cert != NULL && common_name(cert, ret_name);
}
