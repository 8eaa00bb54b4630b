#define PROTO_SHAPES
#include "proto/apply.h"
