/* applied.h: the messages of applied.ipc. */
#pragma once

#define PROTO_DEF "proto/applied.def"
#include "proto/define.h"
