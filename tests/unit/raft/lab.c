#include "tests/unit/raft/lab.h"

#include <stdlib.h>

#include "common/buf.h"

enum {
    LAB_VOTERS_MAX = 9,
    LAB_ENTRIES_MAX = 512
};

static const uint64_t lab_ids[LAB_VOTERS_MAX] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };

int lab_setup(void **state)
{
    struct lab *lab = xcalloc(1, sizeof *lab);
    lab->options = raft_options_default;
    *state = lab;
    return 0;
}

int lab_teardown(void **state)
{
    struct lab *lab = *state;
    lab_stop(lab);
    free(lab);
    return 0;
}

struct raft_entry lab_entry(uint64_t index, uint64_t term)
{
    return (struct raft_entry){ .index = index,
        .term = term,
        .time_ns = index,
        .kind = RAFT_ENTRY_OP,
        .data = SPAN_LIT("data") };
}

void lab_start(struct lab *lab, size_t voters)
{
    lab_start_with(lab, voters, (struct raft_hard_state){ 0 }, NULL, 0);
}

void lab_start_with(struct lab *lab, size_t voters, struct raft_hard_state hard,
        const uint64_t *terms, size_t count)
{
    /* Several voters know a time, so that a leader takes proposals at once. */
    struct raft_base base = { .time_ns = voters > 1 && !lab->is_timeless,
        .members = { .voters = { lab_ids, voters } } };
    struct raft_entry entries[LAB_ENTRIES_MAX];
    if (lab->options.election_ticks == 0) {
        lab->options = raft_options_default;
    }
    lab->options.self_id = 1;
    lab->options.seed = 7;
    lab->now_ns = UINT64_C(1000000000);
    lab->wall_ns = UINT64_C(1700000000000000000);
    assert_true(voters <= LAB_VOTERS_MAX && count <= LAB_ENTRIES_MAX);
    lab->raft = raft_new(&lab->options, &hard, &base);
    for (size_t i = 0; i < count; i++) {
        entries[i] = lab_entry(i + 1, terms[i]);
    }
    assert_int_equal(raft_load_entries(lab->raft, (struct raft_entry_span){ entries, count }), 0);
}

void lab_stop(struct lab *lab)
{
    lab->raft = raft_free(lab->raft);
}

int lab_step(struct lab *lab, struct raft_input input)
{
    input.now_ns = lab->now_ns;
    input.wall_ns = lab->wall_ns;
    int result = raft_step(lab->raft, &input, &lab->ready);
    if (lab->ready.write.seq != 0) {
        lab->seq = lab->ready.write.seq;
        lab->last_index = lab->ready.write.last_index;
        lab->last_term = lab->ready.write.last_term;
    }
    return result;
}

void lab_tick(struct lab *lab, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        lab->now_ns += lab->options.tick_ns;
        lab->wall_ns += lab->options.tick_ns;
        (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_TICK });
    }
}

void lab_sync_write(struct lab *lab, uint64_t seq, uint64_t last_index, uint64_t last_term)
{
    (void)lab_step(lab,
            (struct raft_input){ .kind = RAFT_INPUT_SYNCED,
                    .synced = {
                            .write_seq = seq, .last_index = last_index, .last_term = last_term } });
}

void lab_sync(struct lab *lab)
{
    lab_sync_write(lab, lab->seq, lab->last_index, lab->last_term);
}

void lab_deliver(struct lab *lab, struct raft_message message)
{
    message.to = 1;
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_MESSAGE, .message = &message });
}

void lab_propose(struct lab *lab, size_t count)
{
    struct raft_entry entries[LAB_ENTRIES_MAX];
    assert_true(count <= LAB_ENTRIES_MAX);
    for (size_t i = 0; i < count; i++) {
        entries[i] = (struct raft_entry){ .kind = RAFT_ENTRY_OP, .data = SPAN_LIT("proposed") };
    }
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_PROPOSE,
                                .proposal = { 77, { entries, count } } });
}

enum raft_refusal lab_change(struct lab *lab, enum raft_change_kind kind, uint64_t id)
{
    struct raft_entry entry = { .kind = RAFT_ENTRY_CONFIG, .change = { kind, id } };
    (void)lab_step(lab,
            (struct raft_input){ .kind = RAFT_INPUT_PROPOSE, .proposal = { 78, { &entry, 1 } } });
    return lab->ready.refused_count > 0 ? lab->ready.refused[0].reason : RAFT_REFUSAL_NONE;
}

void lab_read(struct lab *lab, uint64_t context)
{
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_READ, .reads = { &context, 1 } });
}

int lab_resume(struct lab *lab, uint64_t index, uint64_t term)
{
    return lab_step(lab,
            (struct raft_input){ .kind = RAFT_INPUT_APPLY_RESUME, .position = { index, term } });
}

void lab_snapshot_made(struct lab *lab, uint64_t index, uint64_t term)
{
    (void)lab_step(lab,
            (struct raft_input){ .kind = RAFT_INPUT_SNAPSHOT_MADE, .position = { index, term } });
}

void lab_compacted(struct lab *lab, uint64_t index, uint64_t term)
{
    (void)lab_step(lab,
            (struct raft_input){ .kind = RAFT_INPUT_LOG_COMPACTED, .position = { index, term } });
}

void lab_applied(struct lab *lab, uint64_t index)
{
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_APPLIED,
                                .position = { index, raft_term_at(lab->raft, index) } });
}

void lab_lead(struct lab *lab)
{
    uint64_t term = lab_status(lab).term + 1;
    for (unsigned ticks = 0; lab_status(lab).term < term; ticks++) {
        assert_true(ticks < 4 * lab->options.election_ticks);
        lab_tick(lab, 1);
        if (lab_status(lab).role == RAFT_ROLE_PRE_CANDIDATE) {
            lab_deliver(
                    lab, (struct raft_message){
                                 .kind = RAFT_MESSAGE_PRE_VOTE_REPLY, .from = 2, .term = term });
            if (lab_status(lab).role == RAFT_ROLE_PRE_CANDIDATE) { /* five voters need a third */
                lab_deliver(lab,
                        (struct raft_message){
                                .kind = RAFT_MESSAGE_PRE_VOTE_REPLY, .from = 3, .term = term });
            }
        }
    }
    lab_sync(lab);
    for (uint64_t peer = 2; lab_status(lab).role != RAFT_ROLE_LEADER; peer++) {
        assert_true(peer < LAB_VOTERS_MAX);
        lab_deliver(lab, (struct raft_message){
                                 .kind = RAFT_MESSAGE_VOTE_REPLY, .from = peer, .term = term });
    }
    lab_sync(lab);
}

void lab_acknowledge(struct lab *lab, uint64_t peer, uint64_t index)
{
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_APPEND_REPLY,
                             .from = peer,
                             .term = lab_status(lab).term,
                             .index = index });
}

void lab_reject(
        struct lab *lab, uint64_t peer, uint64_t index, uint64_t hint_index, uint64_t hint_term)
{
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_APPEND_REPLY,
                             .from = peer,
                             .term = lab_status(lab).term,
                             .reject = true,
                             .index = index,
                             .hint_index = hint_index,
                             .hint_term = hint_term });
}

void lab_beat(struct lab *lab, uint64_t peer, uint64_t index)
{
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT_REPLY,
                             .from = peer,
                             .term = lab_status(lab).term,
                             .context = 1,
                             .index = index });
}

struct raft_status lab_status(const struct lab *lab)
{
    struct raft_status status;
    raft_get_status(lab->raft, &status);
    return status;
}

const struct raft_message *lab_sent(const struct lab *lab, enum raft_message_kind kind, uint64_t to)
{
    for (size_t i = lab->ready.send.count; i > 0; i--) {
        const struct raft_message *message = &lab->ready.send.items[i - 1];
        if (message->kind == kind && message->to == to) {
            return message;
        }
    }
    return NULL;
}

const struct raft_vow *lab_vowed(const struct lab *lab, enum raft_message_kind kind, uint64_t to)
{
    for (size_t i = lab->ready.vow_count; i > 0; i--) {
        const struct raft_vow *vow = &lab->ready.vows[i - 1];
        if (vow->message.kind == kind && vow->message.to == to) {
            return vow;
        }
    }
    return NULL;
}

size_t lab_count_sent(const struct lab *lab, enum raft_message_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < lab->ready.send.count; i++) {
        count += lab->ready.send.items[i].kind == kind;
    }
    return count;
}
