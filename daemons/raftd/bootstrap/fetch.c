#include "daemons/raftd/bootstrap/fetch.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/loop.h"
#include "daemons/raftd/peer/frame.h"
#include "daemons/raftd/peer/security.h"
#include "proto/link_wire.h"

struct fetch;

struct question {
    struct fetch *fetch;
    struct link_wire *wire;
    bool is_answered;
    bool is_told; /* why it cannot be asked */
    const char *url;
};

struct fetch {
    struct loop *loop;
    struct question *questions;
    size_t question_count;
    size_t answered_count;
    enum fetch_until until;
    struct fetched *answers;
    size_t answer_count;
    bool is_over;
    struct codec_scratch scratch;
};

static void finish(struct fetch *fetch)
{
    if (!fetch->is_over) {
        fetch->is_over = true;
        loop_stop(fetch->loop);
    }
}

static void ask(struct question *question, uint32_t pipe)
{
    struct members_get get = { .protocol = PEER_PROTOCOL_VERSION };
    struct frame_head head = { .type = members_get_type, .epoch = 1 };
    uint8_t head_bytes[PEER_HEAD_BYTES];
    struct buf body = BUF_INIT;

    frame_encode_head(&head, head_bytes);
    members_get_encode(&get, &body);
    wire_send(question->wire, pipe, span_of(head_bytes, sizeof head_bytes), buf_span(&body));
    buf_fini(&body);
}

static void on_answer(struct question *question, struct span frame)
{
    struct fetch *fetch = question->fetch;
    struct fetched answer = { 0 };
    struct frame_head head;
    struct members_list list;
    struct span body;

    codec_scratch_reset(&fetch->scratch);
    if (question->is_answered || frame_parse(frame, &head, &body) < 0 ||
            head.type != members_list_type ||
            members_list_decode(body, &list, &fetch->scratch, NULL) < 0) {
        return;
    }
    question->is_answered = true;
    fetch->answered_count++;
    answer.cluster_id = list.cluster_id;
    answer.from_id = list.member_id;
    answer.leader_id = list.leader_id;
    if (list.version.bytes > 0) {
        memcpy(answer.version, list.version.data,
                MIN(list.version.bytes, sizeof answer.version - 1));
    }
    if (list.configuration.bytes > 0 &&
            membership_decode(list.configuration, &answer.membership, NULL) < 0) {
        answer.cluster_id = 0;
    }
    fetch->answers = xrealloc(fetch->answers, (fetch->answer_count + 1) * sizeof *fetch->answers);
    fetch->answers[fetch->answer_count++] = answer;
    if (fetch->answered_count == fetch->question_count ||
            (fetch->until == FETCH_FIRST && answer.cluster_id != 0)) {
        finish(fetch);
    }
}

static void on_event(void *user, const struct wire_event *event)
{
    struct question *question = user;

    if (event->kind == WIRE_PIPE_REMOVED && event->reason[0] != '\0' && !question->is_told) {
        question->is_told = true;
        log_warning("raftd.bootstrap.unsafe", "url=%s reason=\"%s\" action=try_again",
                question->url, event->reason);
    }
    if (event->kind == WIRE_PIPE_ADDED && !question->is_answered) {
        ask(question, event->pipe);
    } else if (event->kind == WIRE_MESSAGE) {
        on_answer(question, wire_message_body(event->message));
        (void)wire_message_free(event->message);
    }
}

static void on_drained(void *user)
{
    (void)user;
}

static void on_timeout(void *user)
{
    finish(user);
}

static void open_question(
        struct fetch *fetch, struct security *security, struct question *question, const char *url)
{
    struct err err = { 0 };
    struct wire_handler handler = {
        .on_event = on_event, .on_drained = on_drained, .user = question
    };

    question->fetch = fetch;
    question->url = url;
    if (security_open_wire(security, fetch->loop, url, false, &handler, &question->wire, &err) <
            0) {
        log_warning_err(&err, "raftd.bootstrap.unaskable", "url=%s", url);
    }
}

size_t fetch_members(struct loop *loop, struct security *security, const char *const *urls,
        size_t url_count, enum fetch_until until, uint64_t timeout_ms, struct fetched **ret_answers)
{
    struct fetch fetch = { .loop = loop, .until = until, .question_count = url_count };
    struct loop_timer *timer = loop_timer_new(loop, on_timeout, &fetch);

    fetch.questions = xcalloc(url_count, sizeof *fetch.questions);
    for (size_t i = 0; i < url_count; i++) {
        open_question(&fetch, security, &fetch.questions[i], urls[i]);
    }
    loop_timer_start(timer, timeout_ms, 0);
    loop_run(loop);
    (void)loop_timer_free(timer);
    for (size_t i = 0; i < url_count; i++) {
        fetch.questions[i].wire = wire_close(fetch.questions[i].wire);
    }
    free(fetch.questions);
    codec_scratch_fini(&fetch.scratch);
    *ret_answers = fetch.answers;
    return fetch.answer_count;
}

void fetch_free(struct fetched *answers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        membership_fini(&answers[i].membership);
    }
    free(answers);
}
