/* peer_place.h: a peer URL of this host and what guards it, for who listens there. After cmocka's header, as loopback.h. */
#pragma once

#include <stdio.h>

#include "common/conf.h"
#include "common/loop.h"
#include "daemons/raftd/peer/security.h"
#include "tests/unit/loopback.h"

struct peer_place {
    struct conf conf; /* listens at the URL, and advertises it; else nothing */
    char url[64];
    char *url_item;
    char none[1];
    uint16_t port;
    struct loop *loop;
    struct security *security;
};

static inline void peer_place_init(struct peer_place *place)
{
    struct err err = { 0 };

    place->port = loopback_free_port();
    (void)snprintf(place->url, sizeof place->url, "http://127.0.0.1:%u", place->port);
    place->url_item = place->url;
    place->conf.name = place->conf.cluster_key_file = place->conf.discovery_srv = place->none;
    place->conf.listen_peer_urls = (struct conf_list){ &place->url_item, 1 };
    place->conf.initial_advertise_peer_urls = place->conf.listen_peer_urls;
    place->loop = loop_new();
    assert_int_equal(security_new(&place->conf, &place->security, &err), 0);
}

static inline void peer_place_fini(struct peer_place *place)
{
    place->security = security_free(place->security);
    place->loop = loop_free(place->loop);
}
