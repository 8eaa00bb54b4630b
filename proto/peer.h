/* peer.h: the messages between the raftds of a cluster. daemons/raftd/raft/wire.h turns peer_raft into the core's own
 * struct and back. */
#pragma once

enum {
    PEER_PROTOCOL_VERSION = 1,
    PEER_CHUNK_BYTES_MAX = 256 * 1024,
    PEER_HEAD_BYTES = 12,
    PEER_FRAGMENT_BYTES = 16 * 1024, /* 130 ms over 1 Mbit/s: less than any silence */
    PEER_FRAME_BYTES_MAX = 2 * 1024 * 1024,    /* a longer one ends its connection */
    PEER_MESSAGE_BYTES_MAX = 64 * 1024 * 1024, /* put together from frames, only after a hello */
    PEER_FLAG_MORE = 1,
};

enum peer_channel {
    PEER_CONTROL = 0, /* heartbeats, votes, acknowledgements, read indexes */
    PEER_BULK = 1,    /* appends, forwarded proposals, snapshot chunks */
    PEER_CHANNEL_COUNT,
};

enum peer_refusal {
    PEER_WELCOME = 0,
    PEER_REFUSED_STARTING = 1, /* ask again */
    PEER_REFUSED_CLUSTER = 2,
    PEER_REFUSED_ADDRESS = 3, /* another member than was meant listens here */
    PEER_REFUSED_UNKNOWN = 4,
    PEER_REFUSED_REMOVED = 5,
    PEER_REFUSED_PROTOCOL = 6,
};

#include "proto/limits.h"

#define PROTO_DEF "proto/peer.def"
#include "proto/define.h"
