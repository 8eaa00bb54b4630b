#include "tests/sim/machine.h"

enum {
    OP_MARK = 0x5e
};

void machine_encode(const struct machine_op *op, uint8_t ret_data[MACHINE_OP_BYTES])
{
    memset(ret_data, 0, MACHINE_OP_BYTES);
    ret_data[1] = OP_MARK;
    memcpy(ret_data + 4, &op->key, sizeof op->key);
    memcpy(ret_data + 8, &op->value, sizeof op->value);
    memcpy(ret_data + 16, &op->ttl_ms, sizeof op->ttl_ms);
}

static bool decode(struct span data, struct machine_op *ret_op)
{
    if (data.bytes < MACHINE_OP_BYTES || data.data[0] != 0 || data.data[1] != OP_MARK) {
        return false;
    }
    memcpy(&ret_op->key, data.data + 4, sizeof ret_op->key);
    memcpy(&ret_op->value, data.data + 8, sizeof ret_op->value);
    memcpy(&ret_op->ttl_ms, data.data + 16, sizeof ret_op->ttl_ms);
    return ret_op->key < MACHINE_KEYS;
}

static void expire(struct machine *machine, const struct raft_entry *entry,
        machine_expired_fn on_expired, void *user)
{
    for (size_t i = 0; i < MACHINE_KEYS; i++) {
        struct machine_key *key = &machine->keys[i];
        if (key->deadline_ns != 0 && key->deadline_ns <= machine->time_ns) {
            on_expired(user, key, entry);
            machine->digest = machine_mix(machine->digest, key->value);
            *key = (struct machine_key){ 0 };
        }
    }
}

void machine_apply(struct machine *machine, const struct raft_entry *entry, uint64_t content,
        machine_expired_fn on_expired, void *user)
{
    struct machine_op op;
    machine->index = entry->index;
    machine->term = entry->term;
    machine->time_ns = MAX(machine->time_ns, entry->time_ns);
    machine->digest = machine_mix(machine->digest, content);
    expire(machine, entry, on_expired, user);
    if (entry->kind != RAFT_ENTRY_OP || !decode(entry->data, &op)) {
        return;
    }
    machine->keys[op.key] = (struct machine_key){
        .value = op.value,
        .set_index = entry->index,
        .set_term = entry->term,
        .deadline_ns =
                op.ttl_ms == 0 ? 0 : machine->time_ns + (uint64_t)op.ttl_ms * UINT64_C(1000000),
    };
}
