/* hints.h: what somebody who just started a member by hand wants to know next. */
#pragma once

#include "common/conf.h"

/* On stdout, when a terminal is there to read it or QUORATE_HINTS is set; else nothing. */
void hints_print(const struct conf *conf);

/* A warning for each client URL that others than this host can reach without TLS. */
void hints_warn_open(const struct conf *conf);
