/* material.c: files into an SSL_CTX. Each file is read whole into memory first, so that its stamp belongs to what was read,
 * and whatever is wrong is said of that file, in etcd's words where it has any, with the mend behind. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <unistd.h>

#include "common/tls/internal.h"

enum {
    FILE_BYTES_MAX = 4 * 1024 * 1024
};

const char *tls_file_flag(enum tls_file file)
{
    static const char *const flags[TLS_FILE_COUNT] = { "cert-file", "key-file", "trusted-ca-file",
        "crl-file" };
    return flags[file];
}

/* "-peer-crl-file", and for clients "-client-crl-file" but "-trusted-ca-file": as the flags are. */
static const char *flag_of(const struct tls_context *context, enum tls_file file, char ret_flag[64])
{
    const char *prefix = context->flag_prefix;

    if (file == TLS_FILE_CRL && prefix[0] == '\0') {
        prefix = "client-";
    }
    (void)snprintf(ret_flag, 64, "-%s%s", prefix, tls_file_flag(file));
    return ret_flag;
}

const char *tls_library_error(char *ret_text, size_t bytes)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());

    (void)snprintf(ret_text, bytes, "%s", reason == NULL ? "unknown error" : reason);
    ERR_clear_error();
    return ret_text;
}

/* ---- Reading ---- */

static int read_open_file(int fd, struct buf *out)
{
    for (;;) {
        ssize_t bytes = read(fd, buf_reserve(out, 65536), 65536);
        if (bytes < 0 && errno == EINTR) {
            continue;
        }
        if (bytes <= 0) {
            return bytes < 0 ? -errno : 0;
        }
        out->bytes += (size_t)bytes;
        if (out->bytes > FILE_BYTES_MAX) {
            return -EFBIG;
        }
    }
}

static int read_file(const struct tls_context *context, enum tls_file file, struct buf *out,
        struct file_stamp *ret_stamp, struct err *err)
{
    char flag[64];
    char text[128];
    struct stat stat;
    const char *path = context->files[file];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int result = fd < 0 || fstat(fd, &stat) < 0 ? -errno : 0;

    if (result == 0) {
        *ret_stamp = file_stamp_of(&stat);
        result = read_open_file(fd, out);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (result < 0) {
        const char *mend = result == -ENOENT   ? "put the file there, or correct"
                           : result == -EACCES ? "let the daemon's user read it, or correct"
                                               : "correct";
        return err_set(err, -EINVAL, "open %s: %s; %s %s", path,
                strerror_r(-result, text, sizeof text), mend, flag_of(context, file, flag));
    }
    return 0;
}

/* ---- Certificate and key ---- */

static int refuse_pem(const struct tls_context *context, enum tls_file file, const char *what,
        const char *label, struct err *err)
{
    char flag[64];
    char text[TLS_NAME_BYTES];

    return err_set(err, -EINVAL,
            "x509: malformed %s in %s (%s); give %s a PEM file with -----BEGIN %s-----", what,
            context->files[file], tls_library_error(text, sizeof text),
            flag_of(context, file, flag), label);
}

/* The next certificate; NULL with *ret_is_end: there is no more, else it is malformed. */
static X509 *next_certificate(BIO *bio, bool *ret_is_end)
{
    ERR_clear_error();
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    *ret_is_end = cert == NULL && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    return cert;
}

static int use_certificates(
        const struct tls_context *context, BIO *bio, SSL_CTX *ssl, struct err *err)
{
    char text[TLS_NAME_BYTES];
    bool is_end;
    X509 *cert = next_certificate(bio, &is_end);

    if (cert == NULL) {
        return refuse_pem(context, TLS_FILE_CERT, "certificate", "CERTIFICATE", err);
    }
    int used = SSL_CTX_use_certificate(ssl, cert);
    X509_free(cert);
    if (used != 1) {
        char flag[64];
        return err_set(err, -EINVAL,
                "the certificate in %s cannot be used: %s; give %s another one",
                context->files[TLS_FILE_CERT], tls_library_error(text, sizeof text),
                flag_of(context, TLS_FILE_CERT, flag));
    }
    while ((cert = next_certificate(bio, &is_end)) != NULL) {
        if (SSL_CTX_add0_chain_cert(ssl, cert) != 1) {
            X509_free(cert);
            break;
        }
    }
    if (!is_end) {
        return refuse_pem(context, TLS_FILE_CERT, "certificate", "CERTIFICATE", err);
    }
    ERR_clear_error();
    return 0;
}

/* Nobody is there to type a password. */
static int on_password(char *buffer, int size, int is_writing, void *user)
{
    bool *asked = user;

    (void)buffer;
    (void)size;
    (void)is_writing;
    *asked = true;
    return -1;
}

static int use_key(const struct tls_context *context, BIO *bio, SSL_CTX *ssl, struct err *err)
{
    bool asked = false;
    const char *path = context->files[TLS_FILE_KEY];
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, on_password, &asked);

    if (key == NULL && asked) {
        ERR_clear_error();
        return err_set(err, -EINVAL,
                "the key in %s is encrypted, and nobody is there to type its password; give "
                "-%skey-file an "
                "unencrypted one: openssl pkey -in %s -out NEW-FILE",
                path, context->flag_prefix, path);
    }
    if (key == NULL) {
        return refuse_pem(context, TLS_FILE_KEY, "private key", "PRIVATE KEY", err);
    }
    bool matches = X509_check_private_key(SSL_CTX_get0_certificate(ssl), key) == 1;
    bool used = matches && SSL_CTX_use_PrivateKey(ssl, key) == 1;
    EVP_PKEY_free(key);
    if (!used) {
        char text[TLS_NAME_BYTES];
        return err_set(err, -EINVAL,
                "tls: private key does not match public key: %s is not the key of the certificate "
                "in "
                "%s (%s); give -%skey-file and -%scert-file a pair",
                path, context->files[TLS_FILE_CERT], tls_library_error(text, sizeof text),
                context->flag_prefix, context->flag_prefix);
    }
    return 0;
}

static int use_made_up(SSL_CTX *ssl, struct err *err)
{
    X509 *cert;
    EVP_PKEY *key;
    char text[TLS_NAME_BYTES];

    TRY(tls_make_certificate(&cert, &key, err));
    bool used = SSL_CTX_use_certificate(ssl, cert) == 1 && SSL_CTX_use_PrivateKey(ssl, key) == 1;
    X509_free(cert);
    EVP_PKEY_free(key);
    return used ? 0
                : err_set(err, -EINVAL,
                          "the certificate made up for auto TLS cannot be used: %s; give a "
                          "certificate",
                          tls_library_error(text, sizeof text));
}

/* ---- Trust ---- */

static int use_authorities(
        const struct tls_context *context, BIO *bio, SSL_CTX *ssl, struct err *err)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ssl);
    size_t count = 0;
    bool is_end;
    X509 *cert;

    while ((cert = next_certificate(bio, &is_end)) != NULL) {
        bool added = X509_STORE_add_cert(store, cert) == 1 && SSL_CTX_add_client_CA(ssl, cert) == 1;
        X509_free(cert);
        if (!added) {
            is_end = false;
            break;
        }
        count++;
    }
    if (!is_end || count == 0) {
        return refuse_pem(context, TLS_FILE_CA, "CA certificate", "CERTIFICATE", err);
    }
    ERR_clear_error();
    return 0;
}

static void note_crl(struct tls_material *material, X509_CRL *crl)
{
    const ASN1_TIME *next = X509_CRL_get0_nextUpdate(crl);
    const ASN1_TIME *oldest =
            material->oldest_crl == NULL ? NULL : X509_CRL_get0_nextUpdate(material->oldest_crl);

    if (next != NULL && (oldest == NULL || ASN1_TIME_compare(next, oldest) < 0)) {
        material->oldest_crl = crl;
    }
}

static bool add_crl(struct tls_material *material, X509_CRL *crl)
{
    X509_STORE *store = SSL_CTX_get_cert_store(material->ssl);
    bool added = X509_STORE_add_crl(store, crl) == 1;

    if (added) {
        note_crl(material, crl);
    }
    X509_CRL_free(crl); /* the store holds it */
    return added;
}

static int use_revocations(const struct tls_context *context, BIO *bio, struct span whole,
        struct tls_material *material, struct err *err)
{
    const unsigned char *der = whole.data;
    size_t count = 0;
    X509_CRL *crl;
    bool good = true;

    ERR_clear_error();
    while (good && (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)) != NULL) {
        good = add_crl(material, crl);
        count++;
    }
    good = good && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (good && count == 0 && whole.bytes > 0) {
        crl = d2i_X509_CRL(NULL, &der, (long)whole.bytes);
        good = crl != NULL && add_crl(material, crl);
        count += good;
    }
    if (!good || count == 0) {
        return refuse_pem(context, TLS_FILE_CRL, "CRL", "X509 CRL", err);
    }
    ERR_clear_error();
    (void)X509_STORE_set_flags(SSL_CTX_get_cert_store(material->ssl), X509_V_FLAG_CRL_CHECK);
    return 0;
}

/* ---- The whole ---- */

static int use_file(const struct tls_context *context, enum tls_file file,
        struct tls_material *material, struct err *err)
{
    CLEANUP(buf_fini) struct buf bytes = BUF_INIT;
    int result;

    TRY(read_file(context, file, &bytes, &material->stamps[file], err));
    BIO *bio = BIO_new_mem_buf(bytes.bytes == 0 ? "" : (const char *)bytes.data, (int)bytes.bytes);
    INVARIANT(bio != NULL);
    switch (file) {
    case TLS_FILE_CERT:
        result = use_certificates(context, bio, material->ssl, err);
        break;
    case TLS_FILE_KEY:
        result = use_key(context, bio, material->ssl, err);
        break;
    case TLS_FILE_CA:
        result = use_authorities(context, bio, material->ssl, err);
        break;
    case TLS_FILE_CRL:
    case TLS_FILE_COUNT:
    default:
        result = use_revocations(context, bio, buf_span(&bytes), material, err);
        break;
    }
    (void)BIO_free(bio);
    OPENSSL_cleanse(bytes.data, bytes.bytes); /* a key's bytes */
    return result;
}

static int set_up(const struct tls_context *context, SSL_CTX *ssl, struct err *err)
{
    char text[TLS_NAME_BYTES];

    (void)SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
    (void)SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
                                           SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    (void)SSL_CTX_set_num_tickets(ssl, 0);
    (void)SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    bool done =
            SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) == 1 &&
            (context->suites[0] == '\0' || SSL_CTX_set_ciphersuites(ssl, context->suites) == 1) &&
            (context->ciphers[0] == '\0' || SSL_CTX_set_cipher_list(ssl, context->ciphers) == 1);
    return done ? 0
                : err_set(err, -EINVAL, "TLS could not be set up: %s; correct -cipher-suites",
                          tls_library_error(text, sizeof text));
}

static int fill(const struct tls_context *context, struct tls_material *material, struct err *err)
{
    TRY(set_up(context, material->ssl, err));
    if (context->is_made_up) {
        return use_made_up(material->ssl, err);
    }
    for (unsigned i = 0; i < TLS_FILE_COUNT; i++) {
        if (context->files[i][0] != '\0') {
            TRY(use_file(context, (enum tls_file)i, material, err));
        }
    }
    if (context->files[TLS_FILE_CA][0] == '\0') {
        (void)SSL_CTX_set_default_verify_paths(material->ssl);
        ERR_clear_error();
    }
    return 0;
}

int tls_material_read(
        const struct tls_context *context, struct tls_material *ret_material, struct err *err)
{
    struct tls_material material = { .ssl = SSL_CTX_new(TLS_method()) };

    if (material.ssl == NULL) {
        return err_set(err, -ENOMEM, "TLS could not be started; give the process more memory");
    }
    int result = fill(context, &material, err);
    if (result < 0) {
        tls_material_fini(&material);
        return result;
    }
    *ret_material = material;
    return 0;
}

void tls_material_fini(struct tls_material *material)
{
    SSL_CTX_free(material->ssl);
    *material = (struct tls_material){ 0 };
}
