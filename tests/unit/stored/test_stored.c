/* test_stored.c: the daemon between a raftd and a subscriber that are played here, over real sockets. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemons/stored/snapshot.h"
#include "daemons/stored/stored_impl.h"
#include "proto/status.h"
#include "tests/unit/stored/ring.h"

static bool is_told(struct ring *f)
{
    return f->batch_last == f->index && f->beacons > 0;
}

static void entries_are_applied_told_and_answered(void **state)
{
    struct ring *f = *state;

    assert_int_equal(f->hello_index, 0);
    assert_int_equal(f->hello_cluster, 0);
    ring_order_go(f);
    ring_wait(f, ring_is_applied);
    ring_subscribe(f);
    f->index = 0;
    ring_send_batch(f, 0, 3, 0);
    ring_wait(f, ring_is_applied);
    assert_true(f->last_done.has_ttl_keys);
    assert_int_equal(f->last_done.next_deadline_ns, UINT64_C(100000001000));
    assert_false(f->last_done.no_space);
    ring_wait(f, is_told);
    ring_send_batch(f, 3, 2, 0);
    ring_wait(f, is_told);
    assert_int_equal(f->batch_first, 4);
    assert_int_equal(f->outcomes, 5);
    assert_int_equal(f->generation, 1);
}

static bool is_refused(struct ring *f)
{
    return f->refusals > 0;
}

static void what_does_not_continue_is_refused_at_our_position(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, 3);
    ring_send_batch(f, 5, 2, 0);
    ring_wait(f, is_refused);
    assert_int_equal(f->last_done.index, 3);
    ring_send_batch(f, 3, 2, 0);
    ring_wait(f, ring_is_applied);
}

static bool is_running(struct ring *f)
{
    return f->dones > 0;
}

static void entries_before_the_order_are_dropped(void **state)
{
    struct ring *f = *state;

    ring_send_batch(f, 0, 3, 0);
    ring_order_go(f);
    ring_wait(f, is_running);
    assert_int_equal(f->last_done.index, 0);
    assert_int_equal(f->dones, 1);
}

static bool is_up_again(struct ring *f)
{
    return f->hellos >= 2 && f->apply != NULL;
}

static void a_malformed_batch_ends_the_session_and_nothing_else(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, 3);
    buf_append_str(&f->out, "\xff garbage");
    assert_int_equal(link_send(f->apply, apply_type, &f->out), 0);
    ring_wait(f, is_up_again);
    assert_int_equal(f->hello_index, 3);
    assert_int_equal(f->hello_cluster, CLUSTER);
    f->dones = 0;
    ring_order_go(f);
    ring_wait(f, is_running);
    ring_send_batch(f, 3, 1, 0);
    ring_wait(f, ring_is_applied);
}

static bool has_new_hello(struct ring *f)
{
    return f->hellos >= 1 && f->apply != NULL;
}

static void the_kept_batch_is_told_again_after_a_restart(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, 3);
    ring_send_batch(f, 3, 2, 0);
    ring_wait(f, ring_is_applied);
    ring_restart_stored(f);
    ring_wait(f, has_new_hello);
    assert_int_equal(f->hello_index, 5);
    f->seen_index = 3;
    ring_subscribe(f);
    ring_wait(f, ring_has_beacon);
    assert_int_equal(f->batch_first, 4);
    assert_int_equal(f->batch_last, 5);
    assert_int_equal(f->skipped_to, 0);
}

static void who_is_too_far_behind_is_told_to_read(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, 3);
    ring_send_batch(f, 3, 2, 0);
    ring_wait(f, ring_is_applied);
    f->seen_index = 1;
    ring_subscribe(f);
    ring_wait(f, ring_has_beacon);
    assert_int_equal(f->batch_last, 0);
    assert_int_equal(f->skipped_to, 5);
}

static bool has_no_subscriber(struct ring *f)
{
    return f->stored != NULL && subscribers_count(f->stored) == 0;
}

static void who_was_away_is_told_what_became_of_its_own_requests(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, 1);
    f->seen_index = 1;
    ring_subscribe(f);
    ring_wait(f, ring_has_beacon);
    f->gateway = link_hub_close(f->gateway);
    f->applied = NULL;
    ring_wait_quietly(f, has_no_subscriber);
    ring_send_batch(f, 1, 3, 0);
    ring_wait(f, ring_is_applied);
    ring_send_batch(f, 4, 2, 0);
    ring_wait(f, ring_is_applied);
    f->beacons = 0;
    ring_subscribe(f);
    ring_wait(f, ring_has_beacon);
    assert_int_equal(f->missed, 5);
    assert_int_equal(f->skipped_to, 6);
    /* Once. */
    f->beacons = 0;
    f->gateway = link_hub_close(f->gateway);
    f->seen_index = 6;
    ring_wait_quietly(f, has_no_subscriber);
    ring_subscribe(f);
    ring_wait(f, ring_has_beacon);
    assert_int_equal(f->missed, 5);
}

static bool is_skipped(struct ring *f)
{
    return f->skipped_to != 0;
}

/* 32 batches are unacknowledged: of more it hears no more than how far they came, and what became of its own requests. */
static void who_acknowledges_nothing_is_sent_so_many_batches_and_told_to_read_the_rest(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, 1);
    f->seen_index = 1;
    ring_subscribe(f);
    ring_wait(f, ring_has_beacon);
    struct span batch = replica_publication(generations_replica(f->stored->generations));
    for (unsigned i = 0; i < 40; i++) {
        subscribers_publish(f->stored, batch); /* while nobody listens */
    }
    ring_wait(f, is_skipped);
    assert_in_range(f->outcomes, 30, 32); /* a beacon may have been under way as well */
    assert_int_equal(f->outcomes + f->missed, 40);
    assert_int_equal(f->skipped_to, 1);
    /* And then as before. */
    unsigned before = f->outcomes;
    ring_send_batch(f, 1, 2, 0);
    ring_wait(f, is_told);
    assert_int_equal(f->outcomes, before + 2);
}

static void who_has_seen_all_gets_a_beacon_only(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, 3);
    f->seen_index = 3;
    ring_subscribe(f);
    ring_wait(f, ring_has_beacon);
    assert_int_equal(f->batch_last, 0);
    assert_int_equal(f->skipped_to, 0);
    assert_int_equal(f->beacon_index, 3);
}

static bool has_snapshot(struct ring *f)
{
    return f->made_index == f->index;
}

static void a_snapshot_comes_when_count_and_log_say_so(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, SNAPSHOT_COUNT);
    assert_int_equal(f->made_index, 0);
    ring_send_batch(f, SNAPSHOT_COUNT, 1, 100);
    ring_wait(f, has_snapshot);
    assert_int_equal(f->made_index, SNAPSHOT_COUNT + 1);
    assert_true(f->made.bytes > 4096);

    /* Enough entries, but the log has not grown by as much. */
    uint64_t first = f->made_index;
    for (unsigned i = 0; i < 3; i++) {
        ring_send_batch(f, f->index, 20, f->made.bytes - 1);
        ring_wait(f, ring_is_applied);
    }
    assert_int_equal(f->made_index, first);
    ring_send_batch(f, f->index, 1, f->made.bytes);
    ring_wait(f, has_snapshot);
}

static char *snapshot_file(struct ring *f, uint64_t index, char path[256])
{
    (void)snprintf(path, 256, "%s/member/snap/%016x-%016" PRIx64 ".snap", f->data, 1, index);
    return path;
}

static bool oldest_is_gone(struct ring *f)
{
    char path[256];
    return access(snapshot_file(f, 11, path), F_OK) < 0;
}

static void recorded_snapshots_are_purged_down_to_the_number_kept(void **state)
{
    struct ring *f = *state;
    char path[256];

    ring_go_and_apply(f, SNAPSHOT_COUNT);
    for (unsigned i = 0; i < 3; i++) {
        ring_send_batch(f, f->index, i == 0 ? 1 : SNAPSHOT_COUNT + 1, 1 << 30);
        ring_wait(f, has_snapshot);
    }
    assert_int_equal(f->made_index, 33);
    assert_int_equal(access(snapshot_file(f, 11, path), F_OK), 0);
    struct snapshot_recorded recorded = { .index = 33, .term = 1 };
    snapshot_recorded_encode(&recorded, &f->out);
    assert_int_equal(link_send(f->apply, snapshot_recorded_type, &f->out), 0);
    ring_send_batch(f, f->index, 1, 0); /* answered after the purge */
    ring_wait(f, ring_is_applied);
    assert_true(oldest_is_gone(f));
    assert_int_equal(access(snapshot_file(f, 22, path), F_OK), 0);
    assert_int_equal(access(snapshot_file(f, 33, path), F_OK), 0);

    /* The log has the newest: another one takes the place of the oldest, not of the newest. */
    ring_send_batch(f, f->index, SNAPSHOT_COUNT + 1, 1 << 30);
    ring_wait(f, has_snapshot);
    assert_int_equal(access(snapshot_file(f, 22, path), F_OK), -1);
    assert_int_equal(access(snapshot_file(f, 33, path), F_OK), 0);
}

static bool is_generation_two(struct ring *f)
{
    return f->generation == 2 && f->dones > 0;
}

static void a_snapshot_is_loaded_into_a_new_generation(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, SNAPSHOT_COUNT + 1);
    ring_wait(f, has_snapshot);
    ring_send_batch(f, f->index, 5, 0);
    ring_wait(f, ring_is_applied);
    ring_subscribe(f);
    ring_wait(f, ring_has_beacon);
    f->dones = 0;
    ring_order_load(f, SNAPSHOT_COUNT + 1);
    ring_wait(f, is_generation_two);
    assert_int_equal(f->last_done.index, SNAPSHOT_COUNT + 1);
    assert_true(f->last_done.has_ttl_keys);
    ring_send_batch(f, SNAPSHOT_COUNT + 1, 2, 0);
    ring_wait(f, ring_is_applied);
}

/* A state whose one large value was removed again: it is to be compacted. */
static void begin_half_free(struct ring *f)
{
    struct buf value = BUF_INIT;

    ring_order_go(f);
    f->index = 0;
    ring_wait(f, ring_is_applied);
    ring_subscribe(f);
    ring_wait(f, ring_has_beacon);
    memset(buf_reserve(&value, 4 << 20), 'v', 4 << 20);
    value.bytes = 4 << 20;
    ring_send_one(f, (struct op){ .kind = OP_SET, PATH("/big/value"), .value = buf_span(&value) });
    buf_fini(&value);
    ring_send_one(f, (struct op){ .kind = OP_DELETE, PATH("/big"), .recursive = true });
    for (unsigned i = 0; i < 4; i++) {
        ring_send_one(f, (struct op){ .kind = OP_SYNC });
    }
}

/* A batch each beacon: they go on through copy, catching up and the change. */
static bool writes_reach_generation_two(struct ring *f)
{
    if (f->generation == 2) {
        return ring_is_applied(f);
    }
    if (ring_is_applied(f) && f->beacons > 0) {
        f->beacons = 0;
        ring_send_batch(f, f->index, 3, 0);
    }
    return false;
}

static void a_state_that_is_half_free_moves_to_a_compact_one_among_writes(void **state)
{
    struct ring *f = *state;
    struct stat stat_;
    char path[256];

    begin_half_free(f);
    ring_wait(f, writes_reach_generation_two);
    ring_send_batch(f, f->index, 3, 0);
    ring_wait(f, ring_is_applied);
    uint64_t index = f->index;
    (void)snprintf(path, sizeof path, "%s/member/state/0000000000000002/data.mdb", f->data);
    assert_int_equal(stat(path, &stat_), 0);
    assert_in_range(stat_.st_size, 4 << 20, 8 << 20); /* the history has the value still */
    ring_restart_stored(f);
    ring_wait(f, has_new_hello);
    assert_int_equal(f->hello_index, index);
}

/* Once the copy has begun each batch makes a snapshot due, and there are some on their way: the copy has something to catch up
 * with, and others are applied between its turns. */
static bool snapshots_fall_due_meanwhile(struct ring *f)
{
    char path[256];

    if (f->generation == 2) {
        return ring_is_applied(f);
    }
    (void)snprintf(path, sizeof path, "%s/member/state/0000000000000002", f->data);
    bool has_begun = access(path, F_OK) == 0;
    while (has_begun && f->index < 100 && link_unacknowledged(f->apply) < 24) {
        ring_send_batch(f, f->index, 1, 1 << 30);
    }
    if (!has_begun && ring_is_applied(f) && f->beacons > 0) {
        f->beacons = 0;
        ring_send_batch(f, f->index, 3, 0);
    }
    return false;
}

static void no_snapshot_is_begun_of_a_state_that_is_about_to_go(void **state)
{
    struct ring *f = *state;

    begin_half_free(f);
    ring_wait(f, snapshots_fall_due_meanwhile);
    ring_send_batch(f, f->index, 1, 0);
    ring_wait(f, ring_is_applied);
}

static bool is_bad(struct ring *f)
{
    return f->bad_index != 0;
}

static void a_damaged_snapshot_is_set_aside_and_another_asked_for(void **state)
{
    struct ring *f = *state;
    char path[256];
    char broken[300];

    ring_go_and_apply(f, SNAPSHOT_COUNT + 1);
    ring_wait(f, has_snapshot);
    int fd = open(snapshot_file(f, SNAPSHOT_COUNT + 1, path), O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "x", 1, 5000), 1);
    assert_int_equal(close(fd), 0);
    f->dones = 0;
    ring_order_load(f, SNAPSHOT_COUNT + 1);
    ring_wait(f, is_bad);
    assert_int_equal(f->bad_index, SNAPSHOT_COUNT + 1);
    assert_int_equal(f->dones, 0);
    (void)snprintf(broken, sizeof broken, "%s.broken", path);
    assert_int_equal(access(broken, F_OK), 0);

    f->bad_index = 0;
    ring_order_load(f, 99); /* is not there at all */
    ring_wait(f, is_bad);

    f->made_index = 0;
    ring_order_load(f, 0);
    ring_wait(f, is_running);
    assert_int_equal(f->last_done.index, 0);
    ring_send_batch(f, 0, 4, 0);
    ring_wait(f, ring_is_applied);
    assert_int_equal(f->made_index, 0); /* no snapshot is left to tell of */
    ring_restart_stored(f);
    ring_wait(f, has_new_hello);
    assert_int_equal(f->hello_index, 4);
    assert_int_equal(f->hello_cluster, CLUSTER);
}

static bool is_at_eleven(struct ring *f)
{
    return f->dones > 0 && f->last_done.index == SNAPSHOT_COUNT + 1;
}

/* raftd would record what it is told of, and drop an older one for it. */
static void who_falls_back_to_an_older_snapshot_tells_of_that_one(void **state)
{
    struct ring *f = *state;
    char path[256];

    ring_go_and_apply(f, SNAPSHOT_COUNT + 1);
    ring_wait(f, has_snapshot);
    ring_send_batch(f, f->index, SNAPSHOT_COUNT + 1, 1 << 30);
    ring_wait(f, has_snapshot);
    assert_int_equal(truncate(snapshot_file(f, f->index, path), 4096), 0);
    ring_order_load(f, f->index);
    ring_wait(f, is_bad);
    f->made_index = 0;
    f->dones = 0;
    ring_order_load(f, SNAPSHOT_COUNT + 1);
    ring_wait(f, is_at_eleven);
    f->index = SNAPSHOT_COUNT + 1;
    ring_send_batch(f, f->index, 1, 0);
    ring_wait(f, ring_is_applied);
    assert_int_equal(f->made_index, SNAPSHOT_COUNT + 1);
}

static void a_newest_snapshot_is_told_again_after_each_order(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, SNAPSHOT_COUNT + 1);
    ring_wait(f, has_snapshot);
    f->made_index = 0;
    ring_restart_stored(f);
    ring_wait(f, has_new_hello);
    ring_order_go(f);
    ring_wait(f, has_snapshot);
}

static void the_folder_is_locked(void **state)
{
    struct ring *f = *state;
    struct err err = { 0 };
    struct stored *other = NULL;
    struct stored_config config = { .data_dir = f->data,
        .run_dir = f->run,
        .shared_dir = "/nonexistent",
        .event_history = 1000,
        .map_bytes = 64 << 20 };
    char pid[32];

    assert_true(stored_new(&config, &other, &err) < 0);
    (void)snprintf(pid, sizeof pid, "%d", (int)getpid());
    assert_non_null(strstr(err.text, pid));
}

static bool has_status(struct ring *f)
{
    return f->status_lines > 0;
}

static bool has_applied_link(struct ring *f)
{
    return f->applied != NULL;
}

static void the_status_can_be_asked_for(void **state)
{
    struct ring *f = *state;
    struct err err = { 0 };
    struct status_get get = { .present = 0 };
    struct link_config config = { .pattern = LINK_REQREP,
        .path = "stored-status.ipc",
        .events = &ring_status_events,
        .user = f };

    if (link_hub_open(f->loop, &config, &f->gateway, &err) < 0) {
        fail_msg("%s", err.text);
    }
    ring_wait(f, has_applied_link);
    status_get_encode(&get, &f->out);
    assert_int_equal(link_send(f->applied, status_get_type, &f->out), 0);
    ring_wait(f, has_status);
    assert_true(f->status_lines >= 10);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ring_set_up, ring_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(entries_are_applied_told_and_answered),
        TEST(what_does_not_continue_is_refused_at_our_position),
        TEST(entries_before_the_order_are_dropped),
        TEST(a_malformed_batch_ends_the_session_and_nothing_else),
        TEST(the_kept_batch_is_told_again_after_a_restart),
        TEST(who_is_too_far_behind_is_told_to_read),
        TEST(who_was_away_is_told_what_became_of_its_own_requests),
        TEST(who_acknowledges_nothing_is_sent_so_many_batches_and_told_to_read_the_rest),
        TEST(who_has_seen_all_gets_a_beacon_only),
        TEST(a_snapshot_comes_when_count_and_log_say_so),
        TEST(recorded_snapshots_are_purged_down_to_the_number_kept),
        TEST(a_snapshot_is_loaded_into_a_new_generation),
        TEST(a_state_that_is_half_free_moves_to_a_compact_one_among_writes),
        TEST(no_snapshot_is_begun_of_a_state_that_is_about_to_go),
        TEST(a_damaged_snapshot_is_set_aside_and_another_asked_for),
        TEST(who_falls_back_to_an_older_snapshot_tells_of_that_one),
        TEST(a_newest_snapshot_is_told_again_after_each_order),
        TEST(the_folder_is_locked),
        TEST(the_status_can_be_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
