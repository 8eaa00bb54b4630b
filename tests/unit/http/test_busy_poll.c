#include "common/http/busy_poll.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum {
    US = 1000,
};

/* A server and its one client, in virtual time. */
struct scene {
    struct busy_poll poll;
    uint64_t now_ns;
    uint64_t polled_ns; /* time spent looking in vain */
};

static bool turn(struct scene *scene, bool asked, bool answered)
{
    return busy_poll_goes_on(
            &scene->poll, &(struct busy_poll_turn){
                                  .now_ns = scene->now_ns, .asked = asked, .answered = answered });
}

/* The client asks again think_ns after its last answer; a sleeping server needs wake_ns to see it. True: it did not
 * sleep. */
static bool ask(struct scene *scene, uint64_t think_ns, uint64_t wake_ns)
{
    uint64_t asked_ns = scene->now_ns + think_ns;
    uint64_t step_ns = 1 * US;
    bool is_awake = scene->poll.is_on;

    while (is_awake && scene->now_ns + step_ns < asked_ns) {
        scene->now_ns += step_ns;
        scene->polled_ns += step_ns;
        is_awake = turn(scene, false, false);
    }
    scene->now_ns = asked_ns + (is_awake ? 0 : wake_ns);
    (void)turn(scene, true, true);
    return is_awake;
}

static unsigned awake_of(struct scene *scene, unsigned count, uint64_t think_ns, uint64_t wake_ns)
{
    unsigned awake = 0;
    for (unsigned i = 0; i < count; i++) {
        awake += ask(scene, think_ns, wake_ns) ? 1 : 0;
    }
    return awake;
}

static struct scene new_scene(void)
{
    struct scene scene = { .now_ns = 1000000 * US };
    return scene;
}

static void a_quick_client_is_waited_for_after_a_few_questions(void **state)
{
    (void)state;
    struct scene scene = new_scene();
    assert_true(awake_of(&scene, 5, 20 * US, 30 * US) < 2); /* nothing is known yet */
    assert_int_equal(awake_of(&scene, 100, 20 * US, 30 * US), 100);
}

static void a_slow_client_is_not_waited_for(void **state)
{
    (void)state;
    struct scene scene = new_scene();
    assert_int_equal(awake_of(&scene, 1000, 1000 * US, 30 * US), 0);
    assert_int_equal(scene.polled_ns, 0);
}

static void a_client_that_becomes_slow_costs_a_few_times_the_limit(void **state)
{
    (void)state;
    struct scene scene = new_scene();
    (void)awake_of(&scene, 100, 20 * US, 30 * US);
    scene.polled_ns = 0;
    assert_int_equal(awake_of(&scene, 1000, 1000 * US, 30 * US), 0);
    assert_true(scene.polled_ns > 0);
    assert_true(scene.polled_ns <= 6 * BUSY_POLL_NS);
}

static void a_client_slower_than_the_limit_is_never_waited_for_longer(void **state)
{
    (void)state;
    /* Between what a sleeping server counts as short and what a waiting one reaches: it goes to and fro. */
    struct scene scene = new_scene();
    assert_int_equal(awake_of(&scene, 1000, 70 * US, 20 * US), 0);
    assert_true(scene.polled_ns <= 600U * BUSY_POLL_NS);
}

static void a_question_that_is_not_yet_answered_ends_it(void **state)
{
    (void)state;
    struct scene scene = new_scene();
    (void)awake_of(&scene, 100, 20 * US, 30 * US);
    assert_true(scene.poll.is_on);
    scene.now_ns += 10 * US;
    assert_false(turn(&scene, true, false)); /* its answer is somebody else's to give */
    scene.now_ns += 500 * US;
    assert_true(turn(&scene, false, true)); /* and after it the client is quick as ever */
}

static void nobody_is_waited_for_while_others_have_the_answers(void **state)
{
    (void)state;
    struct scene scene = new_scene();
    (void)awake_of(&scene, 100, 20 * US, 30 * US);
    struct busy_poll_turn turn = { .now_ns = scene.now_ns, .answered = true, .awaits = true };
    assert_false(busy_poll_goes_on(&scene.poll, &turn));
    scene.now_ns += 20 * US;
    turn = (struct busy_poll_turn){ .now_ns = scene.now_ns, .asked = true, .awaits = true };
    assert_false(busy_poll_goes_on(&scene.poll, &turn));

    /* It was on when one who waits came, whose question is not answered at once. */
    scene = new_scene();
    (void)awake_of(&scene, 100, 20 * US, 30 * US);
    turn = (struct busy_poll_turn){ .now_ns = scene.now_ns, .awaits = true };
    assert_true(scene.poll.is_on);
    assert_false(busy_poll_goes_on(&scene.poll, &turn));
}

static void the_first_answer_finds_nothing_known(void **state)
{
    (void)state;
    struct scene scene = new_scene();
    assert_false(turn(&scene, true, true));
    assert_false(turn(&scene, false, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_quick_client_is_waited_for_after_a_few_questions),
        cmocka_unit_test(a_slow_client_is_not_waited_for),
        cmocka_unit_test(a_client_that_becomes_slow_costs_a_few_times_the_limit),
        cmocka_unit_test(a_client_slower_than_the_limit_is_never_waited_for_longer),
        cmocka_unit_test(a_question_that_is_not_yet_answered_ends_it),
        cmocka_unit_test(nobody_is_waited_for_while_others_have_the_answers),
        cmocka_unit_test(the_first_answer_finds_nothing_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
