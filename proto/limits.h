/* limits.h: what a message may hold at most. The sum over any hop stays below the 64 MiB that a link receives. */
#pragma once

enum {
    OP_PATH_BYTES_MAX = 1024 * 1024 + 64,       /* the header block bounds a key */
    OP_VALUE_BYTES_MAX = 10 * 1024 * 1024,      /* a form body, v2-api 2.1 */
    OP_URLS_MAX = 64,
    BATCH_BYTES_MAX = 8 * 1024 * 1024,          /* a batch closes here; one large op may exceed it */
    LINK_IPC_BYTES_MAX = 64 * 1024 * 1024,
    LINK_WINDOW_BYTES_MAX = 64 * 1024 * 1024,   /* unacknowledged on a link; the last message may exceed it */
    LINK_PEER_HELLO_BYTES_MAX = 2 * 1024 * 1024,
    UNREAD_BYTES_MAX = 1024 * 1024,             /* of answers: who leaves so many unread is given no more */
    NAME_BYTES_MAX = 4096,
};
