#include "common/tls/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls/internal.h"

/* ---- Cipher suites ---- */

static void append_name(struct buf *list, const char *name)
{
    if (list->bytes > 0) {
        buf_append_byte(list, ':');
    }
    buf_append_str(list, name);
}

static char *text_of(struct buf *list)
{
    buf_append_byte(list, '\0');
    return (char *)list->data; /* the caller's now */
}

/* Whether the library knows the name, tried on a context of its own. */
static bool is_suite(const char *name)
{
    SSL_CTX *trial = SSL_CTX_new(TLS_method());
    bool known = trial != NULL && SSL_CTX_set_ciphersuites(trial, name) == 1;

    SSL_CTX_free(trial);
    return known;
}

static bool is_cipher(const char *name)
{
    SSL_CTX *trial = SSL_CTX_new(TLS_method());
    /* A name alone, none of the words and signs that OpenSSL's lists may hold. */
    bool known = trial != NULL && strpbrk(name, ":,+!@= ") == NULL && name[0] != '-' &&
                 SSL_CTX_set_cipher_list(trial, name) == 1;

    SSL_CTX_free(trial);
    return known;
}

static int choose_ciphers(
        struct tls_context *context, const struct tls_config *config, struct err *err)
{
    struct buf suites = BUF_INIT;
    struct buf ciphers = BUF_INIT;
    int result = 0;

    for (size_t i = 0; i < config->cipher_suite_count && result == 0; i++) {
        const char *name = config->cipher_suites[i];
        const char *native = OPENSSL_cipher_name(name);
        bool has_native = native != NULL && strcmp(native, "(NONE)") != 0;
        if (is_suite(name)) {
            append_name(&suites, name);
        } else if (is_cipher(has_native ? native : name)) {
            append_name(&ciphers, has_native ? native : name);
        } else {
            result = err_set(err, -EINVAL,
                    "unexpected TLS cipher suite \"%s\"; -cipher-suites takes names such as "
                    "TLS_AES_128_GCM_SHA256 or TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                    name);
        }
    }
    ERR_clear_error();
    context->suites = text_of(&suites);
    context->ciphers = text_of(&ciphers);
    return result;
}

/* ---- Life ---- */

static int check_config(const struct tls_config *config, struct err *err)
{
    const char *prefix = config->flag_prefix;

    if (config->allowed_cn[0] != '\0' && config->allowed_hostname[0] != '\0') {
        return err_set(err, -EINVAL,
                "AllowedCN and AllowedHostname are mutually exclusive (cn=%s, hostname=%s); leave "
                "-%scert-allowed-cn or -%scert-allowed-hostname out",
                config->allowed_cn, config->allowed_hostname, prefix, prefix);
    }
    if ((config->allowed_cn[0] != '\0' || config->allowed_hostname[0] != '\0') &&
            !config->client_cert_auth) {
        return err_set(err, -EINVAL,
                "-%scert-allowed-cn and -allowed-hostname keep nobody out who shows no "
                "certificate; add -%sclient-cert-auth",
                prefix, prefix);
    }
    return 0;
}

int tls_context_new(
        const struct tls_config *config, struct tls_context **ret_context, struct err *err)
{
    TRY(check_config(config, err));
    (void)tls_session_index();
    struct tls_context *context = xcalloc(1, sizeof *context);
    context->files[TLS_FILE_CERT] = xstrdup(config->cert_file);
    context->files[TLS_FILE_KEY] = xstrdup(config->key_file);
    context->files[TLS_FILE_CA] = xstrdup(config->trusted_ca_file);
    context->files[TLS_FILE_CRL] = xstrdup(config->crl_file);
    context->allowed_cn = xstrdup(config->allowed_cn);
    context->allowed_hostname = xstrdup(config->allowed_hostname);
    context->flag_prefix = xstrdup(config->flag_prefix);
    context->is_made_up = config->auto_tls && config->cert_file[0] == '\0';
    context->client_cert_auth = config->client_cert_auth;
    context->verifies_servers = !context->is_made_up;
    int result = choose_ciphers(context, config, err);
    if (result == 0) {
        result = tls_material_read(context, &context->material, err);
    }
    if (result < 0) {
        (void)tls_context_free(context);
        return result;
    }
    *ret_context = context;
    return 0;
}

struct tls_context *tls_context_free(struct tls_context *context)
{
    if (context == NULL) {
        return NULL;
    }
    tls_material_fini(&context->material);
    for (size_t i = 0; i < TLS_FILE_COUNT; i++) {
        free(context->files[i]);
    }
    free(context->allowed_cn);
    free(context->allowed_hostname);
    free(context->flag_prefix);
    free(context->suites);
    free(context->ciphers);
    free(context);
    return NULL;
}

/* ---- Changes ---- */

static int change_of(enum tls_file file)
{
    return file == TLS_FILE_CERT || file == TLS_FILE_KEY ? TLS_CHANGED_KEYS : TLS_CHANGED_TRUST;
}

static int changes_between(const struct file_stamp *before, const struct file_stamp *after)
{
    int changes = 0;

    for (unsigned i = 0; i < TLS_FILE_COUNT; i++) {
        changes |= file_stamps_differ(&before[i], &after[i]) ? change_of((enum tls_file)i) : 0;
    }
    return changes;
}

/* A file that is away counts as changed: reading it will say so. */
static bool are_as_read(const struct tls_context *context)
{
    struct file_stamp now[TLS_FILE_COUNT] = { 0 };
    struct stat stat_now;

    for (unsigned i = 0; i < TLS_FILE_COUNT; i++) {
        if (context->files[i][0] != '\0' && stat(context->files[i], &stat_now) == 0) {
            now[i] = file_stamp_of(&stat_now);
        }
    }
    return changes_between(context->material.stamps, now) == 0;
}

int tls_context_reload(struct tls_context *context, bool force, struct err *err)
{
    struct tls_material fresh = { 0 };

    if (context->is_made_up || (are_as_read(context) && !force)) {
        return 0;
    }
    TRY(tls_material_read(context, &fresh, err));
    /* Of what was read, not of what was seen before: it may have changed again meanwhile. */
    int changes = changes_between(context->material.stamps, fresh.stamps);
    tls_material_fini(&context->material);
    context->material = fresh;
    return changes;
}
