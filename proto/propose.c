#define PROTO_SHAPES
#include "proto/propose.h"
