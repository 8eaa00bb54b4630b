#define PROTO_SHAPES
#include "proto/hello.h"
