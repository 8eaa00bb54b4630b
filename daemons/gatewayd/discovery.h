/* discovery.h: with --enable-discovery, other clusters find their members here (docs/configuration.md, "Discovery").
 *
 *   GET /new?size=3   makes a registry for three members and answers with its URL
 *   GET /<token>      who has registered there */
#pragma once

#include "common/http/server.h"

struct call;
struct gatewayd;
struct outcome;

/* Takes a request that no other route takes; false: it is none of these. */
bool discovery_on_request(struct gatewayd *gw, struct http_request *request, struct span path);
/* The registry was written, or could not be. Frees the call. */
void discovery_on_outcome(struct gatewayd *gw, struct call *call, const struct outcome *outcome);

/* N of "size=N" in a query: 3 where it is not given; 0: it is none of 1 to 9. */
unsigned discovery_size_of(struct span query);
/* Whether the path is a slash and a token. */
bool discovery_is_token(struct span path);
