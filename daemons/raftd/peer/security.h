/* security.h: how connections between members are kept from others: TLS where the peer URL says https; where it says
 * http, a seal if there is a cluster key, else nothing. Opens their wires, holds keys and trust, and reads the files again
 * when they change. Loop thread only; outlives the wires that it opened. */
#pragma once

#include "common/conf.h"
#include "proto/link_wire.h"

struct loop;
struct security;

/* Reads the files that flags name, as far as URLs that we listen on need them. */
int security_new(const struct conf *conf, struct security **ret_security, struct err *err);
struct security *security_free(struct security *security); /* always NULL, accepts NULL */

/* Listens on, or dials, a peer URL. */
int security_open_wire(struct security *security, struct loop *loop, const char *url, bool listen,
        const struct wire_handler *handler, struct link_wire **ret_wire, struct err *err);

/* Looks for changed files, now and then; on_trust_changed: connections with TLS, or those without, were made by what does not hold
 * any more. */
typedef void (*security_fn)(void *user, bool is_tls);
void security_watch(
        struct security *security, struct loop *loop, security_fn on_trust_changed, void *user);

/* Reads the files again at once, as at SIGHUP. */
void security_reload(struct security *security);
