#define PROTO_SHAPES
#include "proto/status.h"
