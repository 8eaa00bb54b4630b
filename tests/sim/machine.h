/* machine.h: the model of a state machine: a few keys, with deadlines in cluster time.
 *
 * An op is the data of an entry: what it sets, and for how long. Applying an entry first expires what its time has passed,
 * then does the op. Pure. */
#pragma once

#include "daemons/raftd/raft/raft.h"

enum {
    MACHINE_KEYS = 12,
    MACHINE_OP_BYTES = 24,
};

struct machine_key {
    uint64_t value; /* 0: not there */
    uint64_t set_index;
    uint64_t set_term;
    uint64_t deadline_ns; /* 0: none */
};

struct machine {
    uint64_t index; /* applied up to here */
    uint64_t term;
    uint64_t time_ns;
    uint64_t digest; /* of all that was applied, and what became of it; never 0 */
    struct machine_key keys[MACHINE_KEYS];
};
#define MACHINE_INIT ((struct machine){ .digest = 1 })

struct machine_op {
    uint64_t value;
    uint32_t key;
    uint32_t ttl_ms; /* 0: none */
};

/* Nothing else may begin like this: a member change's first byte is another. */
void machine_encode(const struct machine_op *op, uint8_t ret_data[MACHINE_OP_BYTES]);

/* Each key that expires is named first. content: the digest of the entry. */
typedef void (*machine_expired_fn)(
        void *user, const struct machine_key *key, const struct raft_entry *entry);
void machine_apply(struct machine *machine, const struct raft_entry *entry, uint64_t content,
        machine_expired_fn on_expired, void *user);

static inline uint64_t machine_mix(uint64_t hash, uint64_t value)
{
    hash ^= value + UINT64_C(0x9e3779b97f4a7c15) + (hash << 6) + (hash >> 2);
    hash *= UINT64_C(0xff51afd7ed558ccd);
    return hash ^ (hash >> 33);
}
