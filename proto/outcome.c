#define PROTO_SHAPES
#include "proto/outcome.h"
