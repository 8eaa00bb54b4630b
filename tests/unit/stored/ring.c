#include "tests/unit/stored/ring.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "daemons/stored/snapshot.h"
#include "proto/hello.h"
#include "proto/status.h"

static void check(struct ring *f)
{
    if (f->done != NULL && f->done(f)) {
        loop_stop(f->loop);
    }
}

static int apply_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct ring *f = user;
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
    struct ring *f = user;
    (void)link;
    f->apply = NULL;
    f->downs++;
    check(f);
}

static void apply_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct ring *f = user;
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
    struct ring *f = user;
    (void)peer;
    (void)err;
    f->applied = link;
    check(f);
    return 0;
}

static void applied_down(void *user, struct link *link)
{
    struct ring *f = user;
    (void)link;
    f->applied = NULL;
}

static void applied_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct ring *f = user;
    struct codec_scratch scratch = { 0 };
    struct batch batch;
    struct beacon beacon;
    struct skipped_to skipped;
    struct generation generation;
    struct missed missed;

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
    case missed_type:
        assert_int_equal(missed_decode(body, &missed, &scratch, NULL), 0);
        f->missed += (unsigned)missed.outcomes.count;
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
    struct ring *f = user;
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
    struct ring *f = user;
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

const struct link_events ring_status_events = { .on_up = applied_up,
    .on_down = applied_down,
    .on_message = status_message,
    .fill_hello = applied_hello };

static void on_patience(void *user)
{
    const struct ring *f = user;
    fail_msg("not within %d ms: sent %" PRIu64 ", applied %" PRIu64 ", snapshot %" PRIu64
             ", generation %" PRIu64 "; %u hellos, %u ends of the link",
            PATIENCE_MS, f->index, f->last_done.index, f->made_index, f->generation, f->hellos,
            f->downs);
}

void ring_wait(struct ring *f, bool (*done)(struct ring *f))
{
    f->done = done;
    if (!done(f)) {
        patience_begin(f->patience);
        loop_run(f->loop);
        patience_end(f->patience);
    }
    f->done = NULL;
}

static void on_look(void *user)
{
    check(user);
}

void ring_wait_quietly(struct ring *f, bool (*done)(struct ring *f))
{
    struct loop_timer *look = loop_timer_new(f->loop, on_look, f);

    loop_timer_start(look, 5, 5);
    ring_wait(f, done);
    (void)loop_timer_free(look);
}

void ring_start_stored(struct ring *f)
{
    struct err err = { 0 };
    struct stored_config config = {
        .data_dir = f->data,
        .run_dir = f->run,
        .shared_dir = f->shared[0] != '\0' ? f->shared : "/nonexistent",
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

void ring_subscribe(struct ring *f)
{
    struct err err = { 0 };
    struct link_config config = {
        .pattern = LINK_REQREP, .path = "applied.ipc", .events = &applied_events, .user = f
    };
    if (link_hub_open(f->loop, &config, &f->gateway, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static bool has_hello(struct ring *f)
{
    return f->apply != NULL;
}

int ring_set_up(void **state)
{
    struct ring *f = xcalloc(1, sizeof *f);
    struct err err = { 0 };
    struct link_config config = { .pattern = LINK_PAIR,
        .listen = true,
        .path = "apply/apply.ipc",
        .events = &apply_events,
        .user = f };
    char path[128];

    log_init("test", LOG_LEVEL_CRIT);
    assert_non_null(getcwd(f->old_dir, sizeof f->old_dir));
    assert_true(scratch_make(f->dir));
    (void)snprintf(f->data, sizeof f->data, "%s/data", f->dir);
    (void)snprintf(f->run, sizeof f->run, "%s/run", f->dir);
    assert_int_equal(mkdir(f->data, 0700), 0);
    assert_int_equal(mkdir(f->run, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/apply", f->run);
    assert_int_equal(mkdir(path, 0700), 0);
    f->loop = loop_new();
    f->patience = patience_new(f->loop, PATIENCE_MS, on_patience, f);
    ring_start_stored(f);
    if (link_hub_open(f->loop, &config, &f->raftd, &err) < 0) {
        fail_msg("%s", err.text);
    }
    ring_wait(f, has_hello);
    *state = f;
    return 0;
}

int ring_tear_down(void **state)
{
    struct ring *f = *state;

    f->gateway = link_hub_close(f->gateway);
    f->stored = stored_free(f->stored);
    f->raftd = link_hub_close(f->raftd);
    f->patience = patience_free(f->patience);
    f->loop = loop_free(f->loop);
    assert_int_equal(chdir(f->old_dir), 0);
    scratch_remove(f->dir);
    buf_fini(&f->out);
    free(f);
    return 0;
}

void ring_order_go(struct ring *f)
{
    struct state_go go = { .cluster_id = CLUSTER, .member_id = MEMBER };
    state_go_encode(&go, &f->out);
    assert_int_equal(link_send(f->apply, state_go_type, &f->out), 0);
}

void ring_order_load(struct ring *f, uint64_t index)
{
    struct snapshot_load load = { .index = index, .term = index > 0 };
    snapshot_load_encode(&load, &f->out);
    assert_int_equal(link_send(f->apply, snapshot_load_type, &f->out), 0);
}

void ring_send_batch(struct ring *f, uint64_t prev, unsigned count, uint64_t log_bytes)
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

bool ring_is_applied(struct ring *f)
{
    return f->dones > 0 && f->last_done.index == f->index && !f->last_done.refused;
}

void ring_go_and_apply(struct ring *f, unsigned count)
{
    ring_order_go(f);
    f->index = 0;
    ring_wait(f, ring_is_applied);
    ring_send_batch(f, 0, count, 0);
    ring_wait(f, ring_is_applied);
}

void ring_restart_stored(struct ring *f)
{
    f->gateway = link_hub_close(f->gateway);
    f->applied = NULL;
    f->stored = stored_free(f->stored);
    assert_int_equal(chdir(f->old_dir), 0);
    ring_start_stored(f);
    f->hellos = 0;
    f->dones = 0;
    f->beacons = 0;
    f->batch_first = 0;
    f->batch_last = 0;
    f->skipped_to = 0;
}

bool ring_has_beacon(struct ring *f)
{
    return f->beacons > 0;
}

void ring_send_one(struct ring *f, struct op op)
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
    ring_wait(f, ring_is_applied);
}
