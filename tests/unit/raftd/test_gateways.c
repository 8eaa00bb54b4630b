/* test_gateways.c: proposals of gatewayds, offered to leaders until somebody takes them; over a real socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/conf.h"
#include "common/clock.h"
#include "daemons/raftd/gateways.h"
#include "proto/hello.h"
#include "proto/propose.h"
#include "tests/unit/proto/link_harness.h"

enum {
    PROPOSALS_MAX = 8
};

/* The core's side: takes all, and notes under which context. */
struct bench {
    struct harness *harness;
    struct gateways *gateways;
    struct link_hub *gatewayd;
    struct link *link; /* NULL: not up */
    uint64_t term;
    uint64_t contexts[PROPOSALS_MAX];
    unsigned proposed;
};

static struct bench *the_bench; /* for harness_run's claims */

static enum gateways_fate on_propose(void *user, uint64_t context, const struct span *ops UNUSED,
        size_t count UNUSED, uint64_t *ret_term)
{
    struct bench *bench = user;
    assert_in_range(bench->proposed, 0, PROPOSALS_MAX - 1);
    bench->contexts[bench->proposed++] = context;
    *ret_term = bench->term;
    return GATEWAYS_PROPOSED;
}

static void on_read_index(void *user UNUSED, uint64_t context UNUSED)
{
    fail();
}

static void on_member_change(void *user UNUSED, uint64_t context UNUSED, struct span op UNUSED)
{
    fail();
}

static void fill_hello(void *user UNUSED, struct hello *ret_hello)
{
    ret_hello->component = SPAN_LIT("raftd");
}

static void fill_state(void *user UNUSED, struct buf *out)
{
    struct raft_state raft_state = { 0 };
    raft_state_encode(&raft_state, out);
}

static const struct gateways_events events = {
    .propose = on_propose,
    .read_index = on_read_index,
    .member_change = on_member_change,
    .fill_hello = fill_hello,
    .fill_state = fill_state,
};

/* ---- The gatewayd's side ---- */

static int on_up(
        void *user, struct link *link, const struct hello *peer UNUSED, struct err *err UNUSED)
{
    struct bench *bench = user;
    bench->link = link;
    return 0;
}

static void on_down(void *user, struct link *link UNUSED)
{
    struct bench *bench = user;
    bench->link = NULL;
}

static void on_message(
        void *user UNUSED, struct link *link UNUSED, unsigned type UNUSED, struct span body UNUSED)
{
}

static void fill_gatewayd_hello(void *user UNUSED, struct hello *ret_hello)
{
    ret_hello->component = SPAN_LIT("gatewayd");
}

static const struct link_events link_handlers = {
    .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .fill_hello = fill_gatewayd_hello,
};

static bool is_up(struct harness *harness UNUSED)
{
    return the_bench->link != NULL;
}

static bool is_proposed(struct harness *harness UNUSED)
{
    return the_bench->proposed > 0;
}

static int set_up(void **state)
{
    static const struct conf_uids anybody;
    struct bench *bench = xcalloc(1, sizeof *bench);
    struct err err = { 0 };
    void *harness = NULL;
    if (harness_setup(&harness) != 0) {
        return -1;
    }
    bench->harness = harness;
    the_bench = bench;
    bench->term = 1;
    if (gateways_open(bench->harness->loop, bench->harness->path, &anybody, &events, bench,
                &bench->gateways, &err) < 0) {
        return -1;
    }
    struct link_config config = { .pattern = LINK_REQREP,
        .path = bench->harness->path,
        .events = &link_handlers,
        .user = bench };
    if (link_hub_open(bench->harness->loop, &config, &bench->gatewayd, &err) < 0) {
        return -1;
    }
    harness_run(bench->harness, is_up, "a gatewayd connects");
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    void *harness = bench->harness;
    bench->gatewayd = link_hub_close(bench->gatewayd);
    bench->gateways = gateways_close(bench->gateways);
    free(bench);
    return harness_teardown(&harness);
}

static void propose(struct bench *bench, struct span op)
{
    struct propose message = { .ops = { &op, 1 } };
    struct buf body = BUF_INIT;
    propose_encode(&message, &body);
    assert_int_equal(link_send(bench->link, propose_type, &body), 0);
    harness_run(bench->harness, is_proposed, "the op is proposed");
}

/* The first leader is slow to say that it is none any more. Meanwhile its term is over, and the op with the next leader: what
 * comes late says nothing of that, or the op would be proposed beside itself. */
static void a_refusal_that_comes_late_is_not_taken_for_one_of_the_next_leader(void **state)
{
    struct bench *bench = *state;
    propose(bench, SPAN_LIT("an op with a request id of its own"));
    struct raft_entry later = { .index = 1, .term = 2, .kind = RAFT_ENTRY_EMPTY };
    bench->term = 2;
    assert_true(gateways_on_entries(bench->gateways, (struct raft_entry_span){ &later, 1 }));
    gateways_retry(bench->gateways);
    assert_int_equal(bench->proposed, 2);

    assert_int_equal(gateways_proposal_again(bench->gateways, bench->contexts[0]), 0);
    assert_int_equal(gateways_waiting(bench->gateways), 0);
    gateways_proposal_refused(bench->gateways, bench->contexts[0], REFUSAL_NO_SPACE, "late");
    assert_int_equal(gateways_proposal_again(bench->gateways, bench->contexts[1]), 2);
    assert_int_equal(gateways_waiting(bench->gateways), 1);
}

/* The clock of who looks was read when there was nothing to be looked at yet. */
static void what_came_after_the_look_at_the_clock_is_not_old(void **state)
{
    struct bench *bench = *state;
    uint64_t before_ms = clock_monotonic_ms() - 1;

    propose(bench, SPAN_LIT("an op with a request id of its own"));
    assert_int_equal(gateways_proposal_again(bench->gateways, bench->contexts[0]), 1);
    gateways_expire(bench->gateways, before_ms, 1000);
    assert_int_equal(gateways_waiting(bench->gateways), 1);
    gateways_expire(bench->gateways, clock_monotonic_ms() + 1001, 1000);
    assert_int_equal(gateways_waiting(bench->gateways), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
                a_refusal_that_comes_late_is_not_taken_for_one_of_the_next_leader, set_up,
                tear_down),
        cmocka_unit_test_setup_teardown(
                what_came_after_the_look_at_the_clock_is_not_old, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
