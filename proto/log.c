#define PROTO_SHAPES
#include "proto/log.h"
