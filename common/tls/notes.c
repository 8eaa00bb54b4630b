/* notes.c: what is worth telling about our own certificate and the list of revocations. */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/tls/internal.h"

enum {
    SOON_S = 30 * 24 * 3600,
    TIME_BYTES = 64,
};

struct notes {
    char (*texts)[TLS_NOTE_BYTES];
    size_t count;
};

PRINTF_LIKE(2, 3)
static void add(struct notes *notes, const char *format, ...)
{
    va_list args;

    if (notes->count < TLS_NOTES_MAX) {
        va_start(args, format);
        (void)vsnprintf(notes->texts[notes->count++], TLS_NOTE_BYTES, format, args);
        va_end(args);
    }
}

/* Whether the time is past at that moment. */
static bool is_past(const ASN1_TIME *time, time_t moment)
{
    return X509_cmp_time(time, &moment) < 0;
}

static void note_dates(
        struct notes *notes, const struct tls_context *context, const X509 *cert, time_t now)
{
    const char *file = context->files[TLS_FILE_CERT];
    const ASN1_TIME *end = X509_get0_notAfter(cert);
    char when[TIME_BYTES];

    tls_time_text(end, when, sizeof when);
    if (is_past(end, now)) {
        add(notes,
                "the certificate in %s has expired: it ended %s; renew it, the files are read "
                "again when "
                "they change",
                file, when);
    } else if (is_past(end, now + SOON_S)) {
        add(notes,
                "the certificate in %s ends %s; renew it, the files are read again when they "
                "change",
                file, when);
    }
    if (!is_past(X509_get0_notBefore(cert), now)) {
        tls_time_text(X509_get0_notBefore(cert), when, sizeof when);
        add(notes, "the certificate in %s is not yet valid: it begins %s; check this host's clock",
                file, when);
    }
}

static void note_purposes(
        struct notes *notes, const struct tls_context *context, X509 *cert, bool both_ways)
{
    bool for_servers = X509_check_purpose(cert, X509_PURPOSE_SSL_SERVER, 0) == 1;
    bool for_clients = X509_check_purpose(cert, X509_PURPOSE_SSL_CLIENT, 0) == 1;

    if (!for_servers || (both_ways && !for_clients)) {
        add(notes,
                "the certificate in %s is not for TLS %s: others will refuse it; issue it with "
                "extendedKeyUsage = "
                "serverAuth%s",
                context->files[TLS_FILE_CERT], for_servers ? "clients" : "servers",
                both_ways ? ", clientAuth" : "");
    }
}

static void note_host(
        struct notes *notes, const struct tls_context *context, X509 *cert, const char *host)
{
    char names[TLS_NAME_BYTES];

    if (host[0] == '\0' || X509_check_ip_asc(cert, host, 0) == 1 ||
            X509_check_host(cert, host, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1) {
        return;
    }
    tls_names_text(cert, names, sizeof names);
    add(notes,
            "the certificate in %s is valid for %s, not %s, which is advertised: others will "
            "refuse it; issue it "
            "with that subjectAltName",
            context->files[TLS_FILE_CERT], names, host);
}

size_t tls_context_notes(const struct tls_context *context, const char *const *hosts,
        size_t host_count, bool both_ways, uint64_t wall_s,
        char ret_notes[TLS_NOTES_MAX][TLS_NOTE_BYTES])
{
    struct notes notes = { .texts = ret_notes };
    X509 *cert = SSL_CTX_get0_certificate(context->material.ssl);
    const X509_CRL *crl = context->material.oldest_crl;
    time_t now = (time_t)wall_s;

    if (context->is_made_up) {
        add(&notes, "with auto TLS nobody can tell who is at the other end; give certificates "
                    "where that "
                    "matters");
        return notes.count;
    }
    if (cert != NULL) {
        note_dates(&notes, context, cert, now);
        note_purposes(&notes, context, cert, both_ways);
        for (size_t i = 0; i < host_count; i++) {
            note_host(&notes, context, cert, hosts[i]);
        }
    }
    if (crl != NULL && is_past(X509_CRL_get0_nextUpdate(crl), now)) {
        add(&notes, "the revocations in %s are out of date: they still hold; renew the file",
                context->files[TLS_FILE_CRL]);
    }
    if (context->client_cert_auth && context->files[TLS_FILE_CA][0] == '\0') {
        add(&notes,
                "-%sclient-cert-auth without -%strusted-ca-file: certificates are checked against "
                "the system's "
                "authorities",
                context->flag_prefix, context->flag_prefix);
    }
    ERR_clear_error();
    return notes.count;
}
