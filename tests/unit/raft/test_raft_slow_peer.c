/* test_raft_slow_peer.c: what a leader sends to a peer that cannot take much: its link is thin or breaks, or its disk is full. */
#include "tests/unit/raft/lab.h"

static const uint64_t ones[500] = { [0 ... 499] = 1 };

/* Leads with 100 entries of an older term, the first 50 of which member 2 has; the probe behind those. */
static const struct raft_message *look_for_member_2(struct lab *lab)
{
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1 }, ones, 100);
    lab_lead(lab);
    lab_reject(lab, 2, 100, 50, 1);
    const struct raft_message *probe = lab_sent(lab, RAFT_MESSAGE_APPEND, 2);
    assert_int_equal(probe->index, 50);
    return probe;
}

/* On a link of 1 Mbit/s, whose queue 900 KB took 7 s to leave, each heartbeat's answer put another 900 KB into it. */
static void what_is_said_again_with_each_heartbeat_is_small(void **state)
{
    struct lab *lab = *state;
    lab->options.append_bytes_max = 20 * 68;
    lab->options.probe_bytes_max = 4 * 68;
    const struct raft_message *probe = look_for_member_2(lab);
    assert_int_equal(probe->entries.count, 4);
    for (unsigned i = 0; i < 10; i++) {
        lab_beat(lab, 2, 0);
        probe = lab_sent(lab, RAFT_MESSAGE_APPEND, 2);
        assert_int_equal(probe->index, 50);
        assert_int_equal(probe->entries.count, 4);
        assert_int_equal(lab_count_sent(lab, RAFT_MESSAGE_APPEND), 1);
    }

    /* What follows its answer comes as far ahead as ever. */
    lab_acknowledge(lab, 2, 54);
    assert_int_equal(lab_count_sent(lab, RAFT_MESSAGE_APPEND), 2);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->index, 74);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, 20);
}

static void a_large_entry_is_not_said_again_with_each_heartbeat(void **state)
{
    struct lab *lab = *state;
    lab->options.probe_bytes_max = 67;
    assert_int_equal(look_for_member_2(lab)->entries.count, 0);
    lab_acknowledge(lab, 2, 50);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->index, 50);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, 51);
}

static void say_full(struct lab *lab, uint64_t peer, bool is_full)
{
    lab_deliver(lab, (struct raft_message){ .kind = RAFT_MESSAGE_HEARTBEAT_REPLY,
                             .from = peer,
                             .term = lab_status(lab).term,
                             .context = 1,
                             .reason = is_full ? RAFT_REFUSAL_NO_SPACE : RAFT_REFUSAL_NONE });
}

/* What its member 2 answers that has the first 50 entries and no room; yields how many entries it was sent. */
static size_t answer_as_full(struct lab *lab)
{
    size_t entries = 0;
    const struct raft_message *append = lab_sent(lab, RAFT_MESSAGE_APPEND, 2);
    for (unsigned answers = 0; append != NULL && answers < 10; answers++) {
        entries += append->entries.count;
        if (append->index > 50) {
            lab_reject(lab, 2, append->index, 50, 1);
        } else if (append->entries.count == 0) {
            lab_acknowledge(lab, 2, 50);
        } else {
            break; /* entries that it has no room for it does not answer */
        }
        append = lab_sent(lab, RAFT_MESSAGE_APPEND, 2);
    }
    return entries;
}

/* It rejects what lies behind entries that it did not take, answers the probe that has none, and would be given everything
 * again with each heartbeat. */
static void peer_with_a_full_disk_is_sent_no_entries(void **state)
{
    struct lab *lab = *state;
    lab->options.probe_bytes_max = 67; /* less than an entry */
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1 }, ones, 100);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 50);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, 51);
    size_t entries = 0;
    for (unsigned i = 0; i < 10; i++) {
        say_full(lab, 2, true);
        entries += answer_as_full(lab);
        lab_propose(lab, 1);
        assert_null(lab_sent(lab, RAFT_MESSAGE_APPEND, 2));
    }
    assert_int_equal(entries, 0);

    /* With room it gets the rest. */
    say_full(lab, 2, false);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->index, 50);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, 61);
}

static void peer_with_a_full_disk_is_looked_for_without_entries(void **state)
{
    struct lab *lab = *state;
    lab->options.cache_bytes_max = 0;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 20 }, ones, 20);
    lab_lead(lab);
    say_full(lab, 2, true);
    lab_reject(lab, 2, 20, 5, 1);
    assert_int_equal(lab->ready.need_count, 0); /* nothing is read for it either */
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->index, 5);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, 0);
    lab_acknowledge(lab, 2, 5);
    assert_int_equal(lab->ready.send.count + lab->ready.need_count, 0);
    say_full(lab, 2, false);
    assert_int_equal(lab->ready.need_count, 1);
}

static void what_was_read_before_the_disk_was_full_is_not_sent(void **state)
{
    struct lab *lab = *state;
    lab->options.cache_bytes_max = 0;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 20 }, ones, 20);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 5);
    assert_int_equal(lab->ready.need_count, 1);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_UNREACHABLE, .peer_id = 2 });
    say_full(lab, 2, true);
    struct raft_entry entries[] = { lab_entry(6, 1) };
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_ENTRIES_READ,
                                .read = { 2, 6, { entries, 1 } } });
    const struct raft_message *append = lab_sent(lab, RAFT_MESSAGE_APPEND, 2);
    assert_true(append == NULL || append->entries.count == 0);
}

static void peer_with_a_full_disk_is_offered_no_snapshot(void **state)
{
    struct lab *lab = *state;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 20 }, ones, 20);
    lab_applied(lab, 20);
    lab_lead(lab);
    lab_snapshot_made(lab, 15, 1);
    lab_compacted(lab, 10, 1);
    say_full(lab, 2, true);
    lab_reject(lab, 2, 20, 0, 0);
    assert_null(lab_sent(lab, RAFT_MESSAGE_SNAPSHOT, 2));
    say_full(lab, 2, true);
    assert_null(lab_sent(lab, RAFT_MESSAGE_SNAPSHOT, 2));
    say_full(lab, 2, false);
    assert_non_null(lab_sent(lab, RAFT_MESSAGE_SNAPSHOT, 2));
}

/* A link that breaks whenever more than so much is on it carries everything in the end. */
static void appends_shrink_with_each_break_and_grow_with_each_answer(void **state)
{
    struct lab *lab = *state;
    lab->options.append_bytes_max = 32 * 68;
    lab->options.probe_bytes_max = 2 * 68;
    lab->options.inflight_max = 1;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1 }, ones, 500);
    lab_lead(lab);
    lab_reject(lab, 2, 500, 50, 1);
    uint64_t match = 50;
    static const size_t expected[] = { 32, 16, 8, 4, 2, 2 };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        match += 2;
        lab_acknowledge(lab, 2, match); /* the probe's */
        assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, expected[i]);
        (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_UNREACHABLE, .peer_id = 2 });
        lab_beat(lab, 2, 0);
        assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, 2);
    }
    static const size_t growing[] = { 2, 4, 8, 16, 32, 32 };
    match += 2;
    for (size_t i = 0; i < sizeof growing / sizeof *growing; i++) {
        lab_acknowledge(lab, 2, match);
        assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, growing[i]);
        match += growing[i];
    }

    /* Where nothing was under way, the break says nothing about the size. */
    lab_acknowledge(lab, 2, 501);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_UNREACHABLE, .peer_id = 2 });
    lab_acknowledge(lab, 2, 501);
    lab_propose(lab, 1);
    lab_propose(lab, 40);
    lab_acknowledge(lab, 2, 502);
    assert_int_equal(lab_sent(lab, RAFT_MESSAGE_APPEND, 2)->entries.count, 30); /* of 72 each */
}

/* Asked for as many as an append takes; when they come, they are for a probe. */
static void what_was_read_for_an_append_is_too_much_for_a_probe(void **state)
{
    struct lab *lab = *state;
    lab->options.cache_bytes_max = 0;
    lab->options.probe_bytes_max = 2 * 68;
    lab_start_with(lab, 3, (struct raft_hard_state){ .term = 1, .commit = 20 }, ones, 20);
    lab_lead(lab);
    lab_acknowledge(lab, 2, 5);
    assert_int_equal(lab->ready.need_count, 1);
    assert_true(lab->ready.needs[0].bytes_max > 2 * 68);
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_UNREACHABLE, .peer_id = 2 });
    struct raft_entry entries[] = { lab_entry(6, 1), lab_entry(7, 1), lab_entry(8, 1) };
    (void)lab_step(lab, (struct raft_input){ .kind = RAFT_INPUT_ENTRIES_READ,
                                .read = { 2, 6, { entries, 3 } } });
    const struct raft_message *message = lab_sent(lab, RAFT_MESSAGE_APPEND, 2);
    assert_int_equal(message->index, 5);
    assert_int_equal(message->entries.count, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(what_is_said_again_with_each_heartbeat_is_small),
        LAB_TEST(a_large_entry_is_not_said_again_with_each_heartbeat),
        LAB_TEST(peer_with_a_full_disk_is_sent_no_entries),
        LAB_TEST(peer_with_a_full_disk_is_looked_for_without_entries),
        LAB_TEST(what_was_read_before_the_disk_was_full_is_not_sent),
        LAB_TEST(peer_with_a_full_disk_is_offered_no_snapshot),
        LAB_TEST(appends_shrink_with_each_break_and_grow_with_each_answer),
        LAB_TEST(what_was_read_for_an_append_is_too_much_for_a_probe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
