/* test_stored.c: the daemon between a raftd and a subscriber that are played here, over real sockets. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "daemons/stored/snapshot.h"
#include "daemons/stored/stored.h"
#include "proto/hello.h"
#include "proto/link.h"
#include "proto/status.h"
#include "tests/unit/stored/machine.h"

enum {
    PATIENCE_MS = 20000,
    CLUSTER = 0xc1,
    MEMBER = 0x3e,
    SNAPSHOT_COUNT = 10,
    INSTANCE = 77
};

struct fixture {
    char dir[64];
    char old_dir[PATH_MAX];
    char data[80];
    char run[80];
    struct loop *loop;
    struct stored *stored;
    struct link_hub *raftd;
    struct link *apply;
    struct link_hub *gateway;
    struct link *applied;
    bool (*done)(struct fixture *f);
    struct loop_timer *patience;

    /* what raftd heard */
    unsigned hellos;
    uint64_t hello_index;
    uint64_t hello_cluster;
    unsigned dones;
    struct apply_done last_done;
    unsigned refusals;
    struct snapshot_made made;
    uint64_t made_index;
    uint64_t bad_index;
    unsigned downs;

    /* what the subscriber heard */
    uint64_t seen_index; /* said in its hello */
    uint64_t batch_first;
    uint64_t batch_last;
    unsigned outcomes;
    uint64_t skipped_to;
    unsigned beacons;
    uint64_t generation;
    uint64_t beacon_index;
    unsigned status_lines;

    struct buf out;
    uint64_t index; /* of the last entry sent */
};

static void check(struct fixture *f)
{
    if (f->done != NULL && f->done(f)) {
        loop_stop(f->loop);
    }
}

static int apply_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct fixture *f = user;
    (void)err;
    assert_true(span_eq(peer->component, SPAN_LIT("stored")));
    f->apply = link;
    f->hellos++;
    f->hello_index = peer->applied_index;
    f->hello_cluster = peer->cluster_id;
    check(f);
    return 0;
}

static void apply_down(void *user, struct link *link)
{
    struct fixture *f = user;
    (void)link;
    f->apply = NULL;
    f->downs++;
    check(f);
}

static void apply_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct fixture *f = user;
    struct codec_scratch scratch = { 0 };
    struct snapshot_bad bad;

    (void)link;
    switch (type) {
    case apply_done_type:
        assert_int_equal(apply_done_decode(body, &f->last_done, &scratch, NULL), 0);
        f->dones++;
        f->refusals += f->last_done.refused;
        break;
    case snapshot_made_type:
        assert_int_equal(snapshot_made_decode(body, &f->made, &scratch, NULL), 0);
        f->made_index = f->made.index;
        break;
    case snapshot_bad_type:
        assert_int_equal(snapshot_bad_decode(body, &bad, &scratch, NULL), 0);
        assert_true(bad.text.bytes > 0);
        f->bad_index = bad.index;
        break;
    default:
        fail_msg("raftd heard a message of type %u", type);
    }
    codec_scratch_fini(&scratch);
    check(f);
}

static void apply_hello(void *user, struct hello *ret_hello)
{
    (void)user;
    ret_hello->component = SPAN_LIT("raftd");
    ret_hello->cluster_id = CLUSTER;
    ret_hello->member_id = MEMBER;
    SET(ret_hello, hello_tag_cluster_id);
    SET(ret_hello, hello_tag_member_id);
}

static const struct link_events apply_events = {
    .on_up = apply_up, .on_down = apply_down, .on_message = apply_message, .fill_hello = apply_hello
};

static int applied_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct fixture *f = user;
    (void)peer;
    (void)err;
    f->applied = link;
    check(f);
    return 0;
}

static void applied_down(void *user, struct link *link)
{
    struct fixture *f = user;
    (void)link;
    f->applied = NULL;
}

static void applied_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct fixture *f = user;
    struct codec_scratch scratch = { 0 };
    struct batch batch;
    struct beacon beacon;
    struct skipped_to skipped;
    struct generation generation;

    (void)link;
    switch (type) {
    case batch_type:
        assert_int_equal(batch_decode(body, &batch, &scratch, NULL), 0);
        f->batch_first = batch.first_index;
        f->batch_last = batch.last_index;
        f->outcomes += (unsigned)batch.outcomes.count;
        break;
    case beacon_type:
        assert_int_equal(beacon_decode(body, &beacon, &scratch, NULL), 0);
        f->generation = beacon.generation;
        f->beacon_index = beacon.applied_index;
        f->beacons++;
        break;
    case skipped_to_type:
        assert_int_equal(skipped_to_decode(body, &skipped, &scratch, NULL), 0);
        f->skipped_to = skipped.last_index;
        break;
    case generation_type:
        assert_int_equal(generation_decode(body, &generation, &scratch, NULL), 0);
        f->generation = generation.generation;
        break;
    default:
        fail_msg("the subscriber heard a message of type %u", type);
    }
    codec_scratch_fini(&scratch);
    check(f);
}

static void status_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct fixture *f = user;
    struct codec_scratch scratch = { 0 };
    struct status status;

    (void)link;
    assert_int_equal(type, status_type);
    assert_int_equal(status_decode(body, &status, &scratch, NULL), 0);
    f->status_lines = (unsigned)status.lines.count;
    codec_scratch_fini(&scratch);
    check(f);
}

static void applied_hello(void *user, struct hello *ret_hello)
{
    struct fixture *f = user;
    ret_hello->component = SPAN_LIT("gatewayd");
    ret_hello->instance = INSTANCE;
    ret_hello->applied_index = f->seen_index;
    SET(ret_hello, hello_tag_instance);
    SET(ret_hello, hello_tag_applied_index);
}

static const struct link_events applied_events = { .on_up = applied_up,
    .on_down = applied_down,
    .on_message = applied_message,
    .fill_hello = applied_hello };

static const struct link_events status_events = { .on_up = applied_up,
    .on_down = applied_down,
    .on_message = status_message,
    .fill_hello = applied_hello };

static void on_patience(void *user)
{
    (void)user;
    fail_msg("nothing happened for %d ms", PATIENCE_MS);
}

static void wait_until(struct fixture *f, bool (*done)(struct fixture *f))
{
    f->done = done;
    if (!done(f)) {
        loop_timer_start(f->patience, PATIENCE_MS, 0);
        loop_run(f->loop);
        loop_timer_stop(f->patience);
    }
    f->done = NULL;
}

static void start_stored(struct fixture *f)
{
    struct err err = { 0 };
    struct stored_config config = {
        .data_dir = f->data,
        .run_dir = f->run,
        .shared_dir = "/nonexistent",
        .snapshot_count = SNAPSHOT_COUNT,
        .max_snapshots = 2,
        .event_history = 1000,
        .map_bytes = 64 << 20,
        .compact_bytes_min = 1 << 20,
    };
    if (stored_new(&config, &f->stored, &err) < 0 || stored_start(f->stored, f->loop, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static void subscribe(struct fixture *f)
{
    struct err err = { 0 };
    struct link_config config = {
        .pattern = LINK_REQREP, .path = "applied.ipc", .events = &applied_events, .user = f
    };
    if (link_hub_open(f->loop, &config, &f->gateway, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static bool has_hello(struct fixture *f)
{
    return f->apply != NULL;
}

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct err err = { 0 };
    struct link_config config = { .pattern = LINK_PAIR,
        .listen = true,
        .path = "apply/apply.ipc",
        .events = &apply_events,
        .user = f };
    char path[128];

    log_init("test", LOG_LEVEL_CRIT);
    assert_non_null(getcwd(f->old_dir, sizeof f->old_dir));
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/quorate-stored.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->data, sizeof f->data, "%s/data", f->dir);
    (void)snprintf(f->run, sizeof f->run, "%s/run", f->dir);
    assert_int_equal(mkdir(f->data, 0700), 0);
    assert_int_equal(mkdir(f->run, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/apply", f->run);
    assert_int_equal(mkdir(path, 0700), 0);
    f->loop = loop_new();
    f->patience = loop_timer_new(f->loop, on_patience, f);
    start_stored(f);
    if (link_hub_open(f->loop, &config, &f->raftd, &err) < 0) {
        fail_msg("%s", err.text);
    }
    wait_until(f, has_hello);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    f->gateway = link_hub_close(f->gateway);
    f->stored = stored_free(f->stored);
    f->raftd = link_hub_close(f->raftd);
    f->patience = loop_timer_free(f->patience);
    f->loop = loop_free(f->loop);
    assert_int_equal(chdir(f->old_dir), 0);
    remove_folder(f->dir);
    buf_fini(&f->out);
    free(f);
    return 0;
}

static void order_go(struct fixture *f)
{
    struct state_go go = { .cluster_id = CLUSTER, .member_id = MEMBER };
    state_go_encode(&go, &f->out);
    assert_int_equal(link_send(f->apply, state_go_type, &f->out), 0);
}

static void order_load(struct fixture *f, uint64_t index)
{
    struct snapshot_load load = { .index = index, .term = index > 0 };
    snapshot_load_encode(&load, &f->out);
    assert_int_equal(link_send(f->apply, snapshot_load_type, &f->out), 0);
}

/* Sends `count` writes as one batch that continues `prev`. */
static void send_batch(struct fixture *f, uint64_t prev, unsigned count, uint64_t log_bytes)
{
    struct buf bytes[64] = { { 0 } };
    struct span spans[64];

    for (unsigned i = 0; i < count; i++) {
        struct op op = { .kind = OP_SET,
            .instance = INSTANCE,
            .counter = prev + i + 1,
            .path = SPAN_LIT("/k"),
            .value = SPAN_LIT("v"),
            TTL(100) };
        machine_encode(op, prev + i + 1, 1000, &bytes[i]);
        spans[i] = buf_span(&bytes[i]);
    }
    struct apply apply = { .prev_index = prev,
        .prev_term = prev > 0,
        .entries = { spans, count },
        .log_bytes = log_bytes };
    SET(&apply, apply_tag_log_bytes);
    apply_encode(&apply, &f->out);
    assert_int_equal(link_send(f->apply, apply_type, &f->out), 0);
    for (unsigned i = 0; i < count; i++) {
        buf_fini(&bytes[i]);
    }
    f->index = prev + count;
}

static bool is_applied(struct fixture *f)
{
    return f->dones > 0 && f->last_done.index == f->index && !f->last_done.refused;
}

static void go_and_apply(struct fixture *f, unsigned count)
{
    order_go(f);
    f->index = 0;
    wait_until(f, is_applied);
    send_batch(f, 0, count, 0);
    wait_until(f, is_applied);
}

static bool is_told(struct fixture *f)
{
    return f->batch_last == f->index && f->beacons > 0;
}

static void entries_are_applied_told_and_answered(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(f->hello_index, 0);
    assert_int_equal(f->hello_cluster, 0);
    order_go(f);
    wait_until(f, is_applied);
    subscribe(f);
    f->index = 0;
    send_batch(f, 0, 3, 0);
    wait_until(f, is_applied);
    assert_true(f->last_done.has_ttl_keys);
    assert_int_equal(f->last_done.next_deadline_ns, UINT64_C(100000001000));
    assert_false(f->last_done.no_space);
    wait_until(f, is_told);
    send_batch(f, 3, 2, 0);
    wait_until(f, is_told);
    assert_int_equal(f->batch_first, 4);
    assert_int_equal(f->outcomes, 5);
    assert_int_equal(f->generation, 1);
}

static bool is_refused(struct fixture *f)
{
    return f->refusals > 0;
}

static void what_does_not_continue_is_refused_at_our_position(void **state)
{
    struct fixture *f = *state;

    go_and_apply(f, 3);
    send_batch(f, 5, 2, 0);
    wait_until(f, is_refused);
    assert_int_equal(f->last_done.index, 3);
    send_batch(f, 3, 2, 0);
    wait_until(f, is_applied);
}

static bool is_running(struct fixture *f)
{
    return f->dones > 0;
}

static void entries_before_the_order_are_dropped(void **state)
{
    struct fixture *f = *state;

    send_batch(f, 0, 3, 0);
    order_go(f);
    wait_until(f, is_running);
    assert_int_equal(f->last_done.index, 0);
    assert_int_equal(f->dones, 1);
}

static bool is_up_again(struct fixture *f)
{
    return f->hellos >= 2 && f->apply != NULL;
}

static void a_malformed_batch_ends_the_session_and_nothing_else(void **state)
{
    struct fixture *f = *state;

    go_and_apply(f, 3);
    buf_append_str(&f->out, "\xff garbage");
    assert_int_equal(link_send(f->apply, apply_type, &f->out), 0);
    wait_until(f, is_up_again);
    assert_int_equal(f->hello_index, 3);
    assert_int_equal(f->hello_cluster, CLUSTER);
    f->dones = 0;
    order_go(f);
    wait_until(f, is_running);
    send_batch(f, 3, 1, 0);
    wait_until(f, is_applied);
}

static void restart_stored(struct fixture *f)
{
    f->gateway = link_hub_close(f->gateway);
    f->applied = NULL;
    f->stored = stored_free(f->stored);
    assert_int_equal(chdir(f->old_dir), 0);
    start_stored(f);
    f->hellos = 0;
    f->dones = 0;
    f->beacons = 0;
    f->batch_first = 0;
    f->batch_last = 0;
    f->skipped_to = 0;
}

static bool has_new_hello(struct fixture *f)
{
    return f->hellos >= 1 && f->apply != NULL;
}

static bool has_beacon(struct fixture *f)
{
    return f->beacons > 0;
}

static void the_kept_batch_is_told_again_after_a_restart(void **state)
{
    struct fixture *f = *state;

    go_and_apply(f, 3);
    send_batch(f, 3, 2, 0);
    wait_until(f, is_applied);
    restart_stored(f);
    wait_until(f, has_new_hello);
    assert_int_equal(f->hello_index, 5);
    f->seen_index = 3;
    subscribe(f);
    wait_until(f, has_beacon);
    assert_int_equal(f->batch_first, 4);
    assert_int_equal(f->batch_last, 5);
    assert_int_equal(f->skipped_to, 0);
}

static void who_is_too_far_behind_is_told_to_read(void **state)
{
    struct fixture *f = *state;

    go_and_apply(f, 3);
    send_batch(f, 3, 2, 0);
    wait_until(f, is_applied);
    f->seen_index = 1;
    subscribe(f);
    wait_until(f, has_beacon);
    assert_int_equal(f->batch_last, 0);
    assert_int_equal(f->skipped_to, 5);
}

static void who_has_seen_all_gets_a_beacon_only(void **state)
{
    struct fixture *f = *state;

    go_and_apply(f, 3);
    f->seen_index = 3;
    subscribe(f);
    wait_until(f, has_beacon);
    assert_int_equal(f->batch_last, 0);
    assert_int_equal(f->skipped_to, 0);
    assert_int_equal(f->beacon_index, 3);
}

static bool has_snapshot(struct fixture *f)
{
    return f->made_index == f->index;
}

static void a_snapshot_comes_when_count_and_log_say_so(void **state)
{
    struct fixture *f = *state;

    go_and_apply(f, SNAPSHOT_COUNT);
    assert_int_equal(f->made_index, 0);
    send_batch(f, SNAPSHOT_COUNT, 1, 100);
    wait_until(f, has_snapshot);
    assert_int_equal(f->made_index, SNAPSHOT_COUNT + 1);
    assert_true(f->made.bytes > 4096);

    /* Enough entries, but the log has not grown by half of that. */
    uint64_t first = f->made_index;
    for (unsigned i = 0; i < 3; i++) {
        send_batch(f, f->index, 20, f->made.bytes / 2 - 1);
        wait_until(f, is_applied);
    }
    assert_int_equal(f->made_index, first);
    send_batch(f, f->index, 1, f->made.bytes / 2);
    wait_until(f, has_snapshot);
}

static char *snapshot_file(struct fixture *f, uint64_t index, char path[256])
{
    (void)snprintf(path, 256, "%s/member/snap/%016x-%016" PRIx64 ".snap", f->data, 1, index);
    return path;
}

static bool oldest_is_gone(struct fixture *f)
{
    char path[256];
    return access(snapshot_file(f, 11, path), F_OK) < 0;
}

static void recorded_snapshots_are_purged_down_to_the_number_kept(void **state)
{
    struct fixture *f = *state;
    char path[256];

    go_and_apply(f, SNAPSHOT_COUNT);
    for (unsigned i = 0; i < 3; i++) {
        send_batch(f, f->index, i == 0 ? 1 : SNAPSHOT_COUNT + 1, 1 << 30);
        wait_until(f, has_snapshot);
    }
    assert_int_equal(f->made_index, 33);
    assert_int_equal(access(snapshot_file(f, 11, path), F_OK), 0);
    struct snapshot_recorded recorded = { .index = 33, .term = 1 };
    snapshot_recorded_encode(&recorded, &f->out);
    assert_int_equal(link_send(f->apply, snapshot_recorded_type, &f->out), 0);
    send_batch(f, f->index, 1, 0); /* answered after the purge */
    wait_until(f, is_applied);
    assert_true(oldest_is_gone(f));
    assert_int_equal(access(snapshot_file(f, 22, path), F_OK), 0);
    assert_int_equal(access(snapshot_file(f, 33, path), F_OK), 0);
}

static bool is_generation_two(struct fixture *f)
{
    return f->generation == 2 && f->dones > 0;
}

static void a_snapshot_is_loaded_into_a_new_generation(void **state)
{
    struct fixture *f = *state;

    go_and_apply(f, SNAPSHOT_COUNT + 1);
    wait_until(f, has_snapshot);
    send_batch(f, f->index, 5, 0);
    wait_until(f, is_applied);
    subscribe(f);
    wait_until(f, has_beacon);
    f->dones = 0;
    order_load(f, SNAPSHOT_COUNT + 1);
    wait_until(f, is_generation_two);
    assert_int_equal(f->last_done.index, SNAPSHOT_COUNT + 1);
    assert_true(f->last_done.has_ttl_keys);
    send_batch(f, SNAPSHOT_COUNT + 1, 2, 0);
    wait_until(f, is_applied);
}

static void send_one(struct fixture *f, struct op op)
{
    struct buf bytes = BUF_INIT;

    machine_encode(op, f->index + 1, 1000, &bytes);
    struct span entry = buf_span(&bytes);
    struct apply apply = {
        .prev_index = f->index, .prev_term = f->index > 0, .entries = { &entry, 1 }
    };
    apply_encode(&apply, &f->out);
    assert_int_equal(link_send(f->apply, apply_type, &f->out), 0);
    f->index++;
    buf_fini(&bytes);
    wait_until(f, is_applied);
}

/* A batch each beacon: they go on through copy, catching up and the change. */
static bool writes_reach_generation_two(struct fixture *f)
{
    if (f->generation == 2) {
        return is_applied(f);
    }
    if (is_applied(f) && f->beacons > 0) {
        f->beacons = 0;
        send_batch(f, f->index, 3, 0);
    }
    return false;
}

static void a_state_that_is_half_free_moves_to_a_compact_one_among_writes(void **state)
{
    struct fixture *f = *state;
    struct buf value = BUF_INIT;
    struct stat stat_;
    char path[256];

    order_go(f);
    f->index = 0;
    wait_until(f, is_applied);
    subscribe(f);
    wait_until(f, has_beacon);
    memset(buf_reserve(&value, 4 << 20), 'v', 4 << 20);
    value.bytes = 4 << 20;
    send_one(f, (struct op){ .kind = OP_SET, PATH("/big/value"), .value = buf_span(&value) });
    buf_fini(&value);
    send_one(f, (struct op){ .kind = OP_DELETE, PATH("/big"), .recursive = true });
    for (unsigned i = 0; i < 4; i++) {
        send_one(f, (struct op){ .kind = OP_SYNC });
    }
    wait_until(f, writes_reach_generation_two);
    send_batch(f, f->index, 3, 0);
    wait_until(f, is_applied);
    uint64_t index = f->index;
    (void)snprintf(path, sizeof path, "%s/member/state/0000000000000002/data.mdb", f->data);
    assert_int_equal(stat(path, &stat_), 0);
    assert_in_range(stat_.st_size, 4 << 20, 8 << 20); /* the history has the value still */
    restart_stored(f);
    wait_until(f, has_new_hello);
    assert_int_equal(f->hello_index, index);
}

static bool is_bad(struct fixture *f)
{
    return f->bad_index != 0;
}

static void a_damaged_snapshot_is_set_aside_and_another_asked_for(void **state)
{
    struct fixture *f = *state;
    char path[256];
    char broken[300];

    go_and_apply(f, SNAPSHOT_COUNT + 1);
    wait_until(f, has_snapshot);
    int fd = open(snapshot_file(f, SNAPSHOT_COUNT + 1, path), O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "x", 1, 5000), 1);
    assert_int_equal(close(fd), 0);
    f->dones = 0;
    order_load(f, SNAPSHOT_COUNT + 1);
    wait_until(f, is_bad);
    assert_int_equal(f->bad_index, SNAPSHOT_COUNT + 1);
    assert_int_equal(f->dones, 0);
    (void)snprintf(broken, sizeof broken, "%s.broken", path);
    assert_int_equal(access(broken, F_OK), 0);

    f->bad_index = 0;
    order_load(f, 99); /* is not there at all */
    wait_until(f, is_bad);

    order_load(f, 0);
    wait_until(f, is_running);
    assert_int_equal(f->last_done.index, 0);
    send_batch(f, 0, 4, 0);
    wait_until(f, is_applied);
    restart_stored(f);
    wait_until(f, has_new_hello);
    assert_int_equal(f->hello_index, 4);
    assert_int_equal(f->hello_cluster, CLUSTER);
}

static void a_newest_snapshot_is_told_again_after_each_order(void **state)
{
    struct fixture *f = *state;

    go_and_apply(f, SNAPSHOT_COUNT + 1);
    wait_until(f, has_snapshot);
    f->made_index = 0;
    restart_stored(f);
    wait_until(f, has_new_hello);
    order_go(f);
    wait_until(f, has_snapshot);
}

static void the_folder_is_locked(void **state)
{
    struct fixture *f = *state;
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

static bool has_status(struct fixture *f)
{
    return f->status_lines > 0;
}

static bool has_applied_link(struct fixture *f)
{
    return f->applied != NULL;
}

static void the_status_can_be_asked_for(void **state)
{
    struct fixture *f = *state;
    struct err err = { 0 };
    struct status_get get = { .present = 0 };
    struct link_config config = {
        .pattern = LINK_REQREP, .path = "stored-status.ipc", .events = &status_events, .user = f
    };

    if (link_hub_open(f->loop, &config, &f->gateway, &err) < 0) {
        fail_msg("%s", err.text);
    }
    wait_until(f, has_applied_link);
    status_get_encode(&get, &f->out);
    assert_int_equal(link_send(f->applied, status_get_type, &f->out), 0);
    wait_until(f, has_status);
    assert_true(f->status_lines >= 10);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(entries_are_applied_told_and_answered),
        TEST(what_does_not_continue_is_refused_at_our_position),
        TEST(entries_before_the_order_are_dropped),
        TEST(a_malformed_batch_ends_the_session_and_nothing_else),
        TEST(the_kept_batch_is_told_again_after_a_restart),
        TEST(who_is_too_far_behind_is_told_to_read),
        TEST(who_has_seen_all_gets_a_beacon_only),
        TEST(a_snapshot_comes_when_count_and_log_say_so),
        TEST(recorded_snapshots_are_purged_down_to_the_number_kept),
        TEST(a_snapshot_is_loaded_into_a_new_generation),
        TEST(a_state_that_is_half_free_moves_to_a_compact_one_among_writes),
        TEST(a_damaged_snapshot_is_set_aside_and_another_asked_for),
        TEST(a_newest_snapshot_is_told_again_after_each_order),
        TEST(the_folder_is_locked),
        TEST(the_status_can_be_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
