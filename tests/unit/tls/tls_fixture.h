/* tls_fixture.h: certificates in a folder of the run's own, which is the working folder too, and two sessions that talk to each
 * other in memory. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/tls/tls.h"

/* What certs.sh is asked with, within a command of fixture_shell. */
#define CERTS "sh " CERTS_SCRIPT " "

/* Of a group of tests. Two authorities: "ca" and "other". By "ca": server, client, gone (revoked by crl.pem), bare (no name),
 * only-server and only-client (what they are for), old (ended); by "other": stranger. NAME.pem and NAME.key each. */
int certs_set_up(void **state);
int certs_tear_down(void **state);

/* Has to succeed. */
PRINTF_LIKE(1, 2)
void fixture_shell(const char *format, ...);

/* A side that shows this certificate, trusts our authority, and demands a certificate. */
struct tls_config config_of(const char *cert, const char *key);
struct tls_context *context_of(const struct tls_config *config);

struct pair {
    struct tls_context *contexts[2]; /* client, server */
    struct tls_session *sessions[2];
    struct buf plain[2];
    struct buf flight[2]; /* to be received by that side */
    struct err errs[2];
    int results[2];
    size_t piece_bytes; /* received at once; 0: all */
};

/* The handshake is over, or has failed, when it returns. */
void open_pair(struct pair *pair, const struct tls_config *client, const struct tls_config *server,
        const char *host);
/* The same with contexts that the pair has already. */
void open_sessions(struct pair *pair, const char *host);
void close_pair(struct pair *pair);
/* Until nobody has anything to say. */
void exchange(struct pair *pair);

void assert_they_talk(struct pair *pair);
/* One side does not take the other: it says so, with a mend, and nothing was delivered. */
void assert_refuses(struct pair *pair, unsigned side, const char *what, const char *mend);
