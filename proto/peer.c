#define PROTO_SHAPES
#include "proto/peer.h"
