/* The gatewayd between a raftd and a stored that are played here, on its own loop, over real sockets: what goes out in which
 * message, who is answered when, and what happens while the other side is away. */
#include <unistd.h>

#include "proto/applied.h"
#include "proto/link.h"
#include "proto/propose.h"
#include "tests/unit/gatewayd/turn_fixture.h"

static void ops_of_one_turn_travel_together(void **state)
{
    struct fixture *f = *state;

    start_raftd(f);
    for (size_t i = 0; i < 3; i++) {
        open_client(f, i);
    }
    for (size_t i = 0; i < 3; i++) {
        ask_put(f, i);
    }
    RUN_UNTIL(f, f->op_count == 3);
    assert_int_equal(f->proposes, 1);
}

static void an_op_behind_others_waits_for_company_but_not_for_long(void **state)
{
    struct fixture *f = *state;

    start_raftd(f);
    for (size_t i = 0; i < 5; i++) {
        open_client(f, i);
    }
    for (size_t i = 0; i < 3; i++) {
        ask_put(f, i);
    }
    RUN_UNTIL(f, f->op_count == 3);
    ask_put(f, 3); /* one is less than the three in flight, whose outcomes never come */
    RUN_UNTIL(f, f->op_count == 4);
    assert_int_equal(f->proposes, 2);
}

static void an_outcome_answers_its_writer_once(void **state)
{
    struct fixture *f = *state;

    start_raftd(f);
    open_client(f, 0);
    ask_put(f, 0);
    RUN_UNTIL(f, f->op_count == 1);
    publish_outcome(f, APPLIED_INDEX + 1, ETCD_INDEX + 1, f->counters[0]);
    assert_answer(f, 0, "HTTP/1.1 201 Created\r\n",
            "X-Etcd-Cluster-Id: c1\r\nX-Etcd-Index: 11\r\nX-Raft-Index: 21\r\nX-Raft-Term: 2\r\n");
    /* The kept publication of a restart: nobody is answered again. */
    publish_outcome(f, APPLIED_INDEX + 1, ETCD_INDEX + 1, f->counters[0]);
    ask(f, 0, "GET /v2/keys/seen HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_answer(f, 0, "HTTP/1.1 200 OK\r\n", "{\"action\":\"get\",\"node\":{\"key\":\"/seen\"");
}

static void a_batch_that_was_held_back_answers_its_writer_all_the_same(void **state)
{
    struct fixture *f = *state;

    start_raftd(f);
    open_client(f, 0);
    ask_put(f, 0);
    RUN_UNTIL(f, f->op_count == 1);
    publish_missed(f, APPLIED_INDEX + 40, ETCD_INDEX + 1, f->counters[0]);
    assert_answer(f, 0, "HTTP/1.1 201 Created\r\n",
            "X-Etcd-Cluster-Id: c1\r\nX-Etcd-Index: 11\r\nX-Raft-Index: 60\r\nX-Raft-Term: 2\r\n");
}

static void what_was_sent_is_never_sent_again(void **state)
{
    struct fixture *f = *state;

    start_raftd(f);
    open_client(f, 0);
    open_client(f, 1);
    ask_put(f, 0);
    RUN_UNTIL(f, f->op_count == 1);
    uint64_t first = f->counters[0];
    link_drop(f->raftd_link);
    RUN_UNTIL(f, f->raftd_link == NULL);
    ask_put(f, 1);
    RUN_UNTIL(f, f->op_count == 2);
    assert_true(f->counters[1] != first);
    assert_true(is_silent(f, 0));
    /* raftd had it after all: the outcome still finds its writer. */
    publish_outcome(f, APPLIED_INDEX + 1, ETCD_INDEX + 1, first);
    assert_answer(f, 0, "HTTP/1.1 201 Created\r\n", "\"modifiedIndex\":11");
    assert_int_equal(f->op_count, 2);
}

static void what_was_not_sent_goes_out_when_raftd_is_there(void **state)
{
    struct fixture *f = *state;

    open_client(f, 0);
    ask_put(f, 0);
    for (int i = 0; i < 20; i++) {
        run_slice(f);
    }
    start_raftd(f);
    RUN_UNTIL(f, f->op_count == 1);
    publish_outcome(f, APPLIED_INDEX + 1, ETCD_INDEX + 1, f->counters[0]);
    assert_answer(f, 0, "HTTP/1.1 201 Created\r\n", "\"modifiedIndex\":11");
}

static void a_write_that_timed_out_unsent_is_not_sent_later(void **state)
{
    struct fixture *f = *state;

    f->gw->timeout_ms = 40;
    open_client(f, 0);
    open_client(f, 1);
    ask_put(f, 0);
    assert_answer(f, 0, "HTTP/1.1 500 Internal Server Error\r\n",
            "{\"errorCode\":300,\"message\":\"Raft Internal Error\",\"cause\":\"etcdserver: "
            "request timed "
            "out\",\"index\":0}\n");
    f->gw->timeout_ms = PATIENCE_MS;
    start_raftd(f);
    ask_put(f, 1);
    RUN_UNTIL(f, f->op_count == 1);
    publish_outcome(f, APPLIED_INDEX + 1, ETCD_INDEX + 1, f->counters[0]);
    assert_answer(f, 1, "HTTP/1.1 201 Created\r\n", "");
    assert_int_equal(f->op_count, 1);
}

static void a_write_without_outcome_times_out(void **state)
{
    struct fixture *f = *state;

    f->gw->timeout_ms = 40;
    start_raftd(f);
    open_client(f, 0);
    ask_put(f, 0);
    assert_answer(f, 0, "HTTP/1.1 500 Internal Server Error\r\nAccess", "X-Etcd-Index: 0\r\n");
    assert_int_equal(f->op_count, 1);
    /* It came too late, and finds nobody. */
    publish_outcome(f, APPLIED_INDEX + 1, ETCD_INDEX + 1, f->counters[0]);
    for (int i = 0; i < 10; i++) {
        run_slice(f);
    }
    assert_true(is_silent(f, 0));
}

static void refused_ops_are_told_why(void **state)
{
    struct fixture *f = *state;
    struct buf body = BUF_INIT;
    uint8_t counter[8];

    start_raftd(f);
    open_client(f, 0);
    ask_put(f, 0);
    RUN_UNTIL(f, f->op_count == 1);
    for (size_t i = 0; i < sizeof counter; i++) {
        counter[i] = (uint8_t)(f->counters[0] >> (56 - 8 * i));
    }
    struct span item = span_of(counter, sizeof counter);
    struct propose_refused refused = { .reason = REFUSAL_NO_SPACE,
        .counters = { .items = &item, .count = 1 } };
    propose_refused_encode(&refused, &body);
    send_to_gateway(f->raftd_link, propose_refused_type, &body);
    assert_answer(f, 0, "HTTP/1.1 500 Internal Server Error\r\n",
            "\"cause\":\"etcdserver: no space\",\"index\":0}");
}

static void quorum_reads_share_a_question_and_wait_for_its_index(void **state)
{
    static const char get[] = "GET /v2/keys/seen?quorum=true HTTP/1.1\r\nHost: t\r\n\r\n";
    struct fixture *f = *state;

    start_raftd(f);
    open_client(f, 0);
    open_client(f, 1);
    ask(f, 0, get);
    ask(f, 1, get);
    RUN_UNTIL(f, f->questions == 1);
    grant(f, f->question, APPLIED_INDEX + 2);
    publish_empty(f, APPLIED_INDEX + 1);
    for (int i = 0; i < 20; i++) {
        run_slice(f);
    }
    assert_true(is_silent(f, 0));
    publish_empty(f, APPLIED_INDEX + 2);
    assert_answer(f, 0, "HTTP/1.1 200 OK\r\n", "\"/seen\"");
    assert_answer(f, 1, "HTTP/1.1 200 OK\r\n", "\"/seen\"");
    assert_int_equal(f->questions, 1);
}

static void a_lost_question_is_asked_again(void **state)
{
    struct fixture *f = *state;

    start_raftd(f);
    open_client(f, 0);
    ask(f, 0, "GET /v2/keys/seen?quorum=true HTTP/1.1\r\nHost: t\r\n\r\n");
    RUN_UNTIL(f, f->questions == 1);
    uint64_t first = f->question;
    link_drop(f->raftd_link);
    RUN_UNTIL(f, f->questions == 2);
    grant(f, first, 0); /* an answer to the lost one counts for nothing */
    for (int i = 0; i < 10; i++) {
        run_slice(f);
    }
    assert_true(is_silent(f, 0));
    grant(f, f->question, APPLIED_INDEX);
    assert_answer(f, 0, "HTTP/1.1 200 OK\r\n", "\"/seen\"");
}

static void plain_reads_and_watches_need_neither_raftd_nor_stored(void **state)
{
    struct fixture *f = *state;

    f->stored = link_hub_close(f->stored);
    f->stored_link = NULL;
    open_client(f, 0);
    open_client(f, 1);
    ask(f, 0, "GET /v2/keys/seen HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_answer(f, 0, "HTTP/1.1 200 OK\r\n",
            "X-Etcd-Index: 10\r\nX-Raft-Index: 20\r\nX-Raft-Term: 2\r\n");
    ask(f, 1, "GET /v2/keys/k?wait=true HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_answer(f, 1, "HTTP/1.1 200 OK\r\n", "Transfer-Encoding: chunked\r\n");
    /* stored is back, with something new. */
    f->stored = listen_as(f, "applied.ipc", &stored_events);
    RUN_UNTIL(f, f->stored_link != NULL);
    publish_outcome(f, APPLIED_INDEX + 1, ETCD_INDEX + 1, 0);
    assert_answer(f, 1, "{\"action\":\"set\",\"node\":{\"key\":\"/k\"", "\r\n0\r\n\r\n");
}

static void health_is_that_of_all_daemons(void **state)
{
    static const char get[] = "GET /health HTTP/1.1\r\nHost: t\r\n\r\n";
    struct fixture *f = *state;

    open_client(f, 0);
    ask(f, 0, get); /* no raftd */
    assert_answer(f, 0, "HTTP/1.1 503 Service Unavailable\r\n", "{\"health\":\"false\"}\n");
    start_raftd(f);
    tell_leader(f);
    char answer[4096] = "";
    while (strstr(answer, "HTTP/1.1 200 OK\r\n") == NULL) { /* unless we were granted it too late */
        ask(f, 0, get);
        RUN_UNTIL(f, f->questions == 1);
        f->questions = 0;
        grant(f, f->question, APPLIED_INDEX);
        RUN_UNTIL(f, has_answer(f, 0, answer, sizeof answer));
    }
    assert_non_null(strstr(answer, "{\"health\":\"true\"}"));
    ask(f, 0, get); /* a leader that cannot confirm a read within a second */
    assert_answer(f, 0, "HTTP/1.1 503 Service Unavailable\r\n", "{\"health\":\"false\"}\n");
    f->stored = link_hub_close(f->stored);
    f->stored_link = NULL;
    RUN_UNTIL(f, !subscription_is_up(f->gw->subscription));
    ask(f, 0, get);
    assert_answer(f, 0, "HTTP/1.1 503 Service Unavailable\r\n", "{\"health\":\"false\"}\n");
}

static void a_watcher_that_left_is_not_counted(void **state)
{
    struct fixture *f = *state;

    open_client(f, 0);
    ask(f, 0, "GET /v2/keys/k?wait=true&stream=true HTTP/1.1\r\nHost: t\r\n\r\n");
    RUN_UNTIL(f, f->gw->values[COUNTER_WATCHERS] == 1);
    (void)close(f->clients[0]);
    f->clients[0] = -1;
    RUN_UNTIL(f, f->gw->values[COUNTER_WATCHERS] == 0);
    assert_int_equal(watch_hub_count(f->gw->hub), 0);
}

static void too_many_pending_requests_are_refused(void **state)
{
    struct fixture *f = *state;

    f->gw->calls = calls_free(f->gw->calls);
    f->gw->calls = calls_new(3);
    for (size_t i = 0; i < 6; i++) {
        open_client(f, i);
    }
    for (size_t i = 0; i < 3; i++) {
        ask_put(f, i);
    }
    for (int i = 0; i < 5; i++) {
        run_slice(f);
    }
    ask_put(f, 3);
    assert_answer(f, 3, "HTTP/1.1 500 Internal Server Error\r\n",
            "\"cause\":\"etcdserver: too many requests; ");
    ask(f, 4, "GET /v2/keys/seen?quorum=true HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_answer(f, 4, "HTTP/1.1 500 Internal Server Error\r\n", "too many requests");
    ask(f, 5, "GET /v2/keys/seen HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_answer(f, 5, "HTTP/1.1 200 OK\r\n", "/seen");
    start_raftd(f);
    RUN_UNTIL(f, f->op_count == 3); /* those that were taken go on */
}

static void tell_beacon(struct fixture *f, uint64_t etcd_index)
{
    struct buf body = BUF_INIT;
    struct beacon beacon = {
        .generation = 1, .applied_index = APPLIED_INDEX, .etcd_index = etcd_index
    };
    beacon_encode(&beacon, &body);
    send_to_gateway(f->stored_link, beacon_type, &body);
}

static void a_long_gap_is_told_in_slices(void **state)
{
    struct fixture *f = *state;
    bool was_between = false;

    open_client(f, 0);
    RUN_UNTIL(f, f->gw->view.state != NULL);
    watch_hub_reset(f->gw->hub, 5); /* as if the events from there on had not come */
    ask(f, 0, "GET /v2/keys/k?wait=true HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_answer(f, 0, "HTTP/1.1 200 OK\r\n", "X-Etcd-Index: 30000\r\n");
    assert_int_equal(watch_hub_count(f->gw->hub), 1);
    tell_beacon(f, LONG_HISTORY);
    while (watch_hub_index(f->gw->hub) < LONG_HISTORY) {
        run_slice(f);
        was_between = was_between || (watch_hub_index(f->gw->hub) > 5 &&
                                             watch_hub_index(f->gw->hub) < LONG_HISTORY);
    }
    assert_true(was_between);
    /* It waits for what comes behind. */
    publish_outcome(f, APPLIED_INDEX + 1, LONG_HISTORY + 1, 77);
    assert_answer(f, 0, "", "\"modifiedIndex\":30001");
}

#define TURN_TEST(name) cmocka_unit_test_setup_teardown(name, turn_set_up, turn_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TURN_TEST(ops_of_one_turn_travel_together),
        TURN_TEST(an_op_behind_others_waits_for_company_but_not_for_long),
        TURN_TEST(an_outcome_answers_its_writer_once),
        TURN_TEST(a_batch_that_was_held_back_answers_its_writer_all_the_same),
        TURN_TEST(what_was_sent_is_never_sent_again),
        TURN_TEST(what_was_not_sent_goes_out_when_raftd_is_there),
        TURN_TEST(a_write_that_timed_out_unsent_is_not_sent_later),
        TURN_TEST(a_write_without_outcome_times_out),
        TURN_TEST(refused_ops_are_told_why),
        TURN_TEST(quorum_reads_share_a_question_and_wait_for_its_index),
        TURN_TEST(a_lost_question_is_asked_again),
        TURN_TEST(plain_reads_and_watches_need_neither_raftd_nor_stored),
        TURN_TEST(health_is_that_of_all_daemons),
        TURN_TEST(a_watcher_that_left_is_not_counted),
        TURN_TEST(too_many_pending_requests_are_refused),
        cmocka_unit_test_setup_teardown(
                a_long_gap_is_told_in_slices, turn_set_up_with_history, turn_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
