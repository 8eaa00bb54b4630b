/* status.h: the messages of status.ipc. */
#pragma once

#define PROTO_DEF "proto/status.def"
#include "proto/define.h"
