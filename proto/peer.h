/* peer.h: the messages between the raftds of a cluster. daemons/raftd/raft/wire.h turns peer_raft into the core's own
 * struct and back. */
#pragma once

enum { PEER_CHUNK_BYTES_MAX = 256 * 1024 };

#define PROTO_DEF "proto/peer.def"
#include "proto/define.h"
