#include "tests/unit/proto/link_harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/apply.h"
#include "proto/hello.h"

enum {
    PATIENCE_MS = 30000,
    POLL_MS = 2
};

static void check_claim(void *user)
{
    struct harness *harness = user;
    if (harness->until != NULL && harness->until(harness)) {
        loop_stop(harness->loop);
    }
}

static void on_hanging(void *user)
{
    struct harness *harness = user;
    harness->timed_out = true;
    loop_stop(harness->loop);
}

int harness_setup(void **state)
{
    struct harness *harness = xcalloc(1, sizeof *harness);
    harness->loop = loop_new();
    harness->patience = patience_new(harness->loop, PATIENCE_MS, on_hanging, harness);
    harness->poll = loop_timer_new(harness->loop, check_claim, harness);
    loop_on_turn_end(harness->loop, check_claim, harness);
    assert_true(scratch_make(harness->dir));
    (void)snprintf(harness->path, sizeof harness->path, "%s/s.ipc", harness->dir);
    for (size_t i = 0; i < HARNESS_ENDS_MAX; i++) {
        harness->ends[i].harness = harness;
        harness->ends[i].component = "test";
    }
    *state = harness;
    return 0;
}

int harness_teardown(void **state)
{
    struct harness *harness = *state;
    for (size_t i = 0; i < HARNESS_ENDS_MAX; i++) {
        harness_close(&harness->ends[i]);
    }
    harness->patience = patience_free(harness->patience);
    harness->poll = loop_timer_free(harness->poll);
    harness->loop = loop_free(harness->loop);
    scratch_remove(harness->dir);
    free(harness);
    return 0;
}

void end_encode(uint64_t number, size_t bytes, struct buf *out)
{
    uint8_t *padding = xcalloc(1, bytes + 1);
    struct entry entry = { .index = number, .data = span_of(padding, bytes) };
    SET(&entry, entry_tag_data);
    entry_encode(&entry, out);
    free(padding);
}

int end_send(struct end *end)
{
    struct buf body = BUF_INIT;
    end_encode(end->sent + 1, (end->sent * 37) % 400, &body);
    int r = link_send(end->link, entry_type, &body);
    assert_true((r == 0) == (body.data == NULL)); /* taken, or still ours */
    end->sent += r == 0;
    buf_fini(&body);
    return r;
}

static void send_on(struct end *end)
{
    while (end->sent < end->to_send && end_send(end) == 0) {
    }
}

static int on_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct end *end = user;
    if (end->refuse_with != NULL) {
        const char *text = MOVE(end->refuse_with);
        return err_set(err, -1, "%s", text);
    }
    (void)snprintf(end->peer_component, sizeof end->peer_component, "%.*s",
            (int)peer->component.bytes, (const char *)peer->component.data);
    end->ups++;
    end->link = link;
    end->sent = 0;
    end->received = 0;
    link_set_user(link, end);
    if (end->drop_in_up) {
        end->drop_in_up = false;
        link_drop(link);
    }
    send_on(end);
    return 0;
}

static void on_down(void *user, struct link *link)
{
    struct end *end = user;
    end->downs++;
    if (end->link == link) {
        end->link = NULL;
    }
}

static void on_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct end *end = user;
    struct codec_scratch scratch = { 0 };
    struct entry entry;

    assert_int_equal(type, entry_type);
    assert_int_equal(entry_decode(body, &entry, &scratch, NULL), 0);
    codec_scratch_fini(&scratch);
    if (entry.index != end->received + 1 && !end->out_of_order) {
        end->out_of_order = true;
        print_error(
                "after %lu came %lu\n", (unsigned long)end->received, (unsigned long)entry.index);
    }
    end->received = entry.index;
    end->messages++;
    if (end->echo || (end->ping_pong && end->sent < end->to_send)) {
        end->link = link;
        (void)end_send(end);
    }
}

static void on_writable(void *user, struct link *link UNUSED)
{
    struct end *end = user;
    end->writables++;
    send_on(end);
}

static void on_refused(void *user, const char *text)
{
    struct end *end = user;
    end->refusals++;
    (void)snprintf(end->refused_with, sizeof end->refused_with, "%s", text);
}

static void on_stranger(void *user, const char *path, int64_t uid, int64_t pid)
{
    struct end *end = user;
    assert_string_equal(path, end->harness->path);
    assert_int_equal(pid, getpid());
    end->strangers++;
    end->stranger_uid = uid;
}

static void fill_hello(void *user, struct hello *ret_hello)
{
    struct end *end = user;
    ret_hello->component = span_str(end->component);
}

static const struct link_events events = {
    .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .on_writable = on_writable,
    .on_refused = on_refused,
    .on_stranger = on_stranger,
    .fill_hello = fill_hello,
};

void harness_open(struct harness *harness, struct end *end, enum link_pattern pattern, bool listen,
        const struct link_config *tune)
{
    struct link_config config = tune == NULL ? (struct link_config){ 0 } : *tune;
    struct err err;

    config.pattern = pattern;
    config.listen = listen;
    config.path = harness->path;
    config.events = &events;
    config.user = end;
    if (link_hub_open(harness->loop, &config, &end->hub, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

void harness_close(struct end *end)
{
    end->hub = link_hub_close(end->hub);
    end->link = NULL;
}

void harness_run(struct harness *harness, bool (*until)(struct harness *harness), const char *what)
{
    harness->until = until;
    patience_begin(harness->patience);
    loop_timer_start(harness->poll, POLL_MS, POLL_MS);
    loop_run(harness->loop);
    patience_end(harness->patience);
    loop_timer_stop(harness->poll);
    harness->until = NULL;
    if (harness->timed_out) {
        fail_msg("never: %s", what);
    }
}

bool both_up(struct harness *harness)
{
    return LISTENER(harness)->link != NULL && DIALER(harness)->link != NULL;
}

bool all_arrived(struct harness *harness)
{
    return LISTENER(harness)->received == DIALER(harness)->to_send &&
           DIALER(harness)->received == LISTENER(harness)->to_send;
}

void harness_open_both(
        struct harness *harness, enum link_pattern pattern, const struct link_config *tune)
{
    harness_open(harness, LISTENER(harness), pattern, true, tune);
    harness_open(harness, DIALER(harness), pattern, false, tune);
    RUN_UNTIL(harness, both_up);
}
