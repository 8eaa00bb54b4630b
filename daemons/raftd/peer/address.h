/* address.h: a peer URL as nng wants it. Pure. */
#pragma once

#include "common/err.h"

enum {
    ADDRESS_BYTES = 320
};

/* http://host:port and https://host:port -> tcp://host:port; an empty host listens everywhere, localhost needs no name
 * server. */
int address_of_url(const char *url, char ret_address[ADDRESS_BYTES], struct err *err);
