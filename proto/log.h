/* log.h: messages that are kept in the log's base records. */
#pragma once

#define PROTO_DEF "proto/log.def"
#include "proto/define.h"
