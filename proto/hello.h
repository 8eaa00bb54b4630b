/* hello.h: how a link begins. */
#pragma once

enum { PROTO_VERSION = 1 };

#define PROTO_DEF "proto/hello.def"
#include "proto/define.h"
