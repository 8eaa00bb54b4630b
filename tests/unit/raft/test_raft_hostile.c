/* test_raft_hostile.c: whatever a peer says, the core stays alive and keeps its promises. Numbers are drawn from a small
 * range, so that they often fit. */
#include "tests/sim/rng.h"
#include "tests/unit/raft/lab.h"

enum {
    ENTRIES_MAX = 4
};

static uint64_t small(struct rng *rng)
{
    return rng_chance(rng, 20) ? rng_next(rng) : rng_below(rng, 12);
}

static struct raft_message draw_message(struct rng *rng, struct raft_entry *entries, uint64_t *ids)
{
    struct raft_message message = { .kind = (enum raft_message_kind)rng_below(rng, 18),
        .reject = rng_chance(rng, 300),
        .transfer = rng_chance(rng, 300),
        .reason = (uint32_t)small(rng),
        .from = rng_below(rng, 6),
        .term = small(rng),
        .index = small(rng),
        .log_term = small(rng),
        .commit = small(rng),
        .hint_index = small(rng),
        .hint_term = small(rng),
        .context = small(rng),
        .time_ns = small(rng),
        .wall_ns = small(rng) };
    message.entries = (struct raft_entry_span){ entries, (size_t)rng_below(rng, ENTRIES_MAX) };
    for (size_t i = 0; i < message.entries.count; i++) {
        entries[i] = lab_entry(message.index + 1 + i, small(rng));
        entries[i].kind = (enum raft_entry_kind)rng_below(rng, 4);
        entries[i].change =
                (struct raft_change){ (enum raft_change_kind)rng_below(rng, 5), small(rng) };
    }
    message.base = (struct raft_base){ .index = small(rng), .term = small(rng) };
    message.base.members.voters = (struct raft_ids){ ids, (size_t)rng_below(rng, 4) };
    message.base.members.learners = (struct raft_ids){ ids + 4, (size_t)rng_below(rng, 2) };
    message.base.members.removed = (struct raft_ids){ ids + 5, (size_t)rng_below(rng, 2) };
    for (size_t i = 0; i < 6; i++) {
        ids[i] = rng_below(rng, 7);
    }
    return message;
}

static void own_input(struct lab *lab, struct rng *rng)
{
    struct raft_status status = lab_status(lab);
    switch (rng_below(rng, 8)) {
    case 0:
        lab_propose(lab, 2);
        break;
    case 1:
        lab_read(lab, 5);
        break;
    case 2:
        if (status.durable_index < 100) {
            (void)lab_resume(
                    lab, status.durable_index, raft_term_at(lab->raft, status.durable_index));
        }
        break;
    case 3:
        lab_applied(lab, status.handed_index);
        break;
    case 4:
        (void)lab_change(lab, (enum raft_change_kind)rng_below(rng, 4), small(rng));
        break;
    case 5:
        (void)lab_step(lab,
                (struct raft_input){ .kind = RAFT_INPUT_TRANSFER, .peer_id = rng_below(rng, 4) });
        break;
    default:
        lab_tick(lab, 1);
        break;
    }
}

static void no_message_breaks_the_core(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 400; seed++) {
        struct rng rng = { seed };
        struct lab lab = { .options = raft_options_default };
        lab.options.pre_vote = rng_chance(&rng, 500);
        lab.options.check_quorum = rng_chance(&rng, 500);
        lab.options.cache_bytes_max = (size_t)rng_below(&rng, 1000);
        lab_start(&lab, (size_t)rng_between(&rng, 1, 4));
        uint64_t commit = 0;
        uint64_t term = 0;
        for (int i = 0; i < 1500; i++) {
            struct raft_entry entries[ENTRIES_MAX];
            uint64_t ids[6];
            if (rng_chance(&rng, 600)) {
                lab_deliver(&lab, draw_message(&rng, entries, ids));
            } else if (rng_chance(&rng, 400)) {
                lab_sync(&lab);
            } else {
                own_input(&lab, &rng);
            }
            struct raft_status status = lab_status(&lab);
            assert_true(status.commit_index >= commit);
            assert_true(status.term >= term);
            assert_true(status.durable_index <= status.last_index);
            commit = status.commit_index;
            term = status.term;
        }
        lab_stop(&lab);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_message_breaks_the_core),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
