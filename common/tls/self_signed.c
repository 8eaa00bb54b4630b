/* self_signed.c: a certificate made up at start, for auto TLS. It only keeps listeners out: nobody can tell whose it is,
 * so it is never written down, bears no name that matters, and its dates are looked at by nobody. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/x509.h>

#include "common/tls/internal.h"

enum {
    VALID_S = 10 * 365 * 24 * 3600,
    BEFORE_S = 24 * 3600, /* other hosts' clocks */
};

static bool fill(X509 *cert, EVP_PKEY *key)
{
    uint64_t serial;
    X509_NAME *name = X509_get_subject_name(cert);

    return RAND_bytes((unsigned char *)&serial, sizeof serial) == 1 &&
           ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial >> 1) == 1 &&
           X509_set_version(cert, X509_VERSION_3) == 1 &&
           X509_gmtime_adj(X509_getm_notBefore(cert), -BEFORE_S) != NULL &&
           X509_gmtime_adj(X509_getm_notAfter(cert), VALID_S) != NULL &&
           X509_NAME_add_entry_by_txt(
                   name, "CN", MBSTRING_ASC, (const unsigned char *)"auto TLS", -1, -1, 0) == 1 &&
           X509_set_issuer_name(cert, name) == 1 && X509_set_pubkey(cert, key) == 1 &&
           X509_sign(cert, key, EVP_sha256()) > 0;
}

int tls_make_certificate(X509 **ret_cert, EVP_PKEY **ret_key, struct err *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    char text[TLS_NAME_BYTES];

    if (key == NULL || cert == NULL || !fill(cert, key)) {
        EVP_PKEY_free(key);
        X509_free(cert);
        return err_set(err, -ENOMEM, "make a certificate for auto TLS: %s",
                tls_library_error(text, sizeof text));
    }
    *ret_cert = cert;
    *ret_key = key;
    return 0;
}
