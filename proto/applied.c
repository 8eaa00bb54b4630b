#define PROTO_SHAPES
#include "proto/applied.h"
