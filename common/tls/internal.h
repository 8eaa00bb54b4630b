/* internal.h: what the files of this folder share.
 *
 *   context.c      life of a context; whether its files have changed
 *   material.c     files into OpenSSL's objects, each checked
 *   self_signed.c  a certificate made up at start
 *   notes.c        what is worth telling about a certificate
 *   verify.c       the judgement on the other side's certificate, in words
 *   session.c      the engine */
#pragma once

#include <openssl/ssl.h>

#include "common/file_stamp.h"
#include "common/tls/tls.h"

enum tls_file {
    TLS_FILE_CERT,
    TLS_FILE_KEY,
    TLS_FILE_CA,
    TLS_FILE_CRL,
    TLS_FILE_COUNT,
};

/* One reading of the files. */
struct tls_material {
    SSL_CTX *ssl;
    struct file_stamp stamps[TLS_FILE_COUNT];
    X509_CRL *oldest_crl; /* borrowed from the store; NULL: none */
};

struct tls_context {
    char *files[TLS_FILE_COUNT]; /* paths */
    char *allowed_cn;
    char *allowed_hostname;
    char *flag_prefix;
    char *suites;  /* of TLS 1.3, as OpenSSL takes them; "": its choice */
    char *ciphers; /* up to TLS 1.2 */
    bool client_cert_auth;
    bool verifies_servers;
    bool is_made_up;
    struct tls_material material;
};

struct tls_session {
    const struct tls_context *context;
    SSL *ssl;
    BIO *in;  /* what came; owned by ssl, as out is */
    BIO *out; /* what is to be sent */
    bool is_server;
    bool is_ready;
    char host[TLS_NAME_BYTES];
    char verdict
            [ERR_TEXT_BYTES]; /* why the other side's certificate is not good; empty: it is, or none was seen */
};

/* material.c */
const char *tls_file_flag(enum tls_file file);
int tls_material_read(
        const struct tls_context *context, struct tls_material *ret_material, struct err *err);
void tls_material_fini(struct tls_material *material);
/* Text of OpenSSL's oldest queued error; the queue is emptied. */
const char *tls_library_error(char *ret_text, size_t bytes);

/* self_signed.c */
int tls_make_certificate(X509 **ret_cert, EVP_PKEY **ret_key, struct err *err);

/* verify.c */
int tls_on_verify(int is_good, X509_STORE_CTX *store); /* SSL's callback */
int tls_session_index(void);                           /* of the session among an SSL's data */
/* Names of a certificate as text, with what does not print escaped; cut where it is too long. */
void tls_subject_text(const X509 *cert, char *ret_text, size_t bytes);
void tls_names_text(const X509 *cert, char *ret_text, size_t bytes);
void tls_time_text(const ASN1_TIME *time, char *ret_text, size_t bytes);
