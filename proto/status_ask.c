#include "proto/status_ask.h"

#include <errno.h>
#include <stdio.h>

#include "common/loop.h"
#include "proto/hello.h"
#include "proto/link.h"
#include "proto/status.h"
#include "proto/status_server.h"

struct question {
    struct loop *loop;
    struct status_answer *answer;
    int result;
    char refused_with[256];
};

static int on_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    CLEANUP(buf_fini) struct buf body = BUF_INIT;
    struct status_get get = { .present = 0 };

    (void)user;
    (void)peer;
    (void)err;
    status_get_encode(&get, &body);
    (void)link_send(link, status_get_type, &body); /* a fresh link has credit */
    return 0;
}

static void on_down(void *user, struct link *link)
{
    (void)user; /* dials again; the timer ends it */
    (void)link;
}

static void copy_text(char *to, size_t to_bytes, struct span text)
{
    (void)snprintf(to, to_bytes, "%.*s", (int)text.bytes, (const char *)text.data);
}

static void on_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct question *question = user;
    struct status_answer *answer = question->answer;
    struct codec_scratch scratch = { 0 };
    struct status status;

    (void)link;
    if (type == status_type && question->result != 0 &&
            status_decode(body, &status, &scratch, NULL) == 0) {
        copy_text(answer->component, sizeof answer->component, status.component);
        copy_text(answer->version, sizeof answer->version, status.version);
        answer->pid = status.pid;
        answer->uptime_ms = status.uptime_ms;
        for (size_t i = 0; i < status.lines.count; i++) {
            buf_append_span(&answer->lines, status.lines.items[i]);
            buf_append_byte(&answer->lines, '\n');
        }
        question->result = 0;
        loop_stop(question->loop);
    }
    codec_scratch_fini(&scratch);
}

static void on_refused(void *user, const char *text)
{
    struct question *question = user;
    (void)snprintf(question->refused_with, sizeof question->refused_with, ": %s", text);
}

static void fill_hello(void *user, struct hello *ret_hello)
{
    (void)user;
    ret_hello->component = SPAN_LIT("status");
}

static const struct link_events events = {
    .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .on_refused = on_refused,
    .fill_hello = fill_hello,
};

static void on_timeout(void *user)
{
    struct question *question = user;
    loop_stop(question->loop);
}

int status_ask(
        const char *path, uint64_t timeout_ms, struct status_answer *ret_answer, struct err *err)
{
    struct question question = { .loop = loop_new(), .answer = ret_answer, .result = -ETIMEDOUT };
    struct link_config config = {
        .pattern = LINK_REQREP,
        .path = path,
        .frame_bytes_max = STATUS_FRAME_BYTES_MAX,
        .events = &events,
        .user = &question,
    };
    struct link_hub *hub = NULL;
    struct loop_timer *timer = loop_timer_new(question.loop, on_timeout, &question);

    *ret_answer = (struct status_answer){ .lines = BUF_INIT };
    int result = link_hub_open(question.loop, &config, &hub, err);
    if (result == 0) {
        loop_timer_start(timer, timeout_ms, 0);
        loop_run(question.loop);
        hub = link_hub_close(hub);
        result = question.result;
        if (result < 0) {
            (void)err_set(err, result, "no answer on %s within %" PRIu64 " ms%s", path, timeout_ms,
                    question.refused_with);
        }
    }
    (void)loop_timer_free(timer);
    question.loop = loop_free(question.loop);
    return result;
}
