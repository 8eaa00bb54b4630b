#define PROTO_SHAPES
#include "proto/op.h"
