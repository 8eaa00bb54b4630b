/* tls.h: TLS without sockets: keys and trust from files, and an engine that turns bytes into bytes.
 *
 * A context reads its files when it is made, names the one that is wrong and how to mend it, and reads them again when
 * they change: sessions that run keep what they began with. A session is one connection's TLS: what came from the other
 * side goes in, what it opens to and what is to be sent come out. So both are tested in one process, and whoever owns a
 * socket (raftd for other members, gatewayd for clients) brings only the bytes.
 *
 * TLS 1.2 and later; no session tickets, so that each connection is judged by the certificates as they are now; a name
 * is looked for among a certificate's alternative names only, never in its common name.
 *
 * A context belongs to one thread and must outlive its sessions; a session is used by one thread at a time, any one.
 * OpenSSL stays in this folder. Errors that concern files are -EINVAL: starting again cannot help. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct tls_context;
struct tls_session;

enum {
    TLS_NOTES_MAX = 8,
    TLS_NOTE_BYTES = 512,
    TLS_NAME_BYTES = 256,
};

/* Paths and names are "" where not given; everything is copied. */
struct tls_config {
    const char *cert_file; /* PEM: ours, then those between it and its authority */
    const char *key_file;
    const char *trusted_ca_file; /* PEM; "": the system's authorities */
    const char *crl_file;        /* PEM or DER */
    const char *allowed_cn;      /* the only common name, and */
    const char *
            allowed_hostname; /* the only alternative name, that the other side's certificate may bear */
    bool client_cert_auth; /* as a server: demand a certificate */
    bool auto_tls; /* without cert_file: a certificate made up now; the other side's is not looked at */
    char *const *
            cipher_suites; /* by the names that RFCs give them, or OpenSSL's; none: the library's choice */
    size_t cipher_suite_count;
    const char *flag_prefix; /* of the flags that texts name: "" or "peer-" */
};

int tls_context_new(
        const struct tls_config *config, struct tls_context **ret_context, struct err *err);
struct tls_context *tls_context_free(struct tls_context *context); /* always NULL, accepts NULL */

enum tls_changes {
    TLS_CHANGED_KEYS = 1, /* certificate or key */
    TLS_CHANGED_TRUST =
            2, /* authorities or revocations: sessions that run were judged by older ones */
};

/* Looks whether files have changed, and reads all again if one has (always with `force`). Which did, or 0; negative: what is
 * there now is of no use, the context stays as it was, and the next call tries again. */
int tls_context_reload(struct tls_context *context, bool force, struct err *err);

/* What is worth telling the operator though it keeps nothing from starting: a certificate that ends soon, that does not
 * cover one of `hosts`, or that cannot be used `both_ways` (as a server and as a client); how many. */
size_t tls_context_notes(const struct tls_context *context, const char *const *hosts,
        size_t host_count, bool both_ways, uint64_t wall_s,
        char ret_notes[TLS_NOTES_MAX][TLS_NOTE_BYTES]);

enum tls_role {
    TLS_CLIENT,
    TLS_SERVER,
};

/* host: as a client, the name or address that the server's certificate must be for; not looked at as a server. */
struct tls_session *tls_session_new(
        const struct tls_context *context, enum tls_role role, const char *host);
struct tls_session *tls_session_free(struct tls_session *session); /* always NULL, accepts NULL */

/* Takes bytes of the other side (a client's first call: none) and appends what they open to to `plain`, and what is to be
 * sent to `out`, also when it fails: then an alert that says why. -EPROTO: this is no good TLS, or the other side is not to be
 * trusted, the err saying what differs and how to mend it; -ECONNRESET: it said goodbye. */
int tls_session_receive(struct tls_session *session, struct span bytes, struct buf *plain,
        struct buf *out, struct err *err);

/* Both sides know each other: from now on tls_session_send works. As a client this comes before the server has judged us. */
bool tls_session_is_ready(const struct tls_session *session);

/* Appends to `out` what carries these bytes to the other side. */
int tls_session_send(
        struct tls_session *session, struct span plain, struct buf *out, struct err *err);

/* Common name of the other side's certificate, which was found good; false: it showed none, or none is looked at. */
bool tls_session_peer_name(const struct tls_session *session, char ret_name[TLS_NAME_BYTES]);
