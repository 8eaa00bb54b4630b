/* Events, errors, times and TTLs as JSON, byte for byte. */
#include "daemons/gatewayd/v2/render.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/state/state.h"
#include "daemons/gatewayd/v2/error.h"
#include "proto/outcome.h"

#define NS_PER_S UINT64_C(1000000000)

static void assert_text(struct buf *out, const char *expected)
{
    buf_append_byte(out, '\0');
    assert_string_equal((const char *)out->data, expected);
    buf_clear(out);
}

static void assert_event(const struct event *event, const char *expected)
{
    struct buf out = BUF_INIT;
    render_event(&out, event);
    assert_text(&out, expected);
    buf_fini(&out);
}

static struct event set_event(void)
{
    struct event event = { .action = EVENT_SET,
        .etcd_index = 5,
        .path = SPAN_LIT("/foo"),
        .value = SPAN_LIT("b<r"),
        .created_index = 5,
        .time_ns = 1000 * NS_PER_S };
    SET(&event, event_tag_value);
    return event;
}

static void renders_a_set_with_and_without_a_node_before(void **state)
{
    struct event event = set_event();

    (void)state;
    assert_event(&event,
            "{\"action\":\"set\",\"node\":{\"key\":\"/"
            "foo\",\"value\":\"b\\u003cr\",\"modifiedIndex\":5,\"createdIndex\":5}}\n");
    assert_int_equal(render_event_status(&event), 201);
    event.prev = true;
    event.prev_value = SPAN_LIT("");
    event.prev_modified_index = 4;
    event.prev_created_index = 4;
    assert_event(&event, "{\"action\":\"set\",\"node\":{\"key\":\"/"
                         "foo\",\"value\":\"b\\u003cr\",\"modifiedIndex\":5,\"createdIndex\":5},"
                         "\"prevNode\":{\"key\":\"/"
                         "foo\",\"value\":\"\",\"modifiedIndex\":4,\"createdIndex\":4}}\n");
    assert_int_equal(render_event_status(&event), 200);
}

static void renders_directories_and_deadlines(void **state)
{
    struct event event = { .action = EVENT_UPDATE,
        .etcd_index = 9,
        .path = SPAN_LIT("/s/d"),
        .dir = true,
        .created_index = 8,
        .deadline_ns = UINT64_C(1795329736509220900),
        .prev = true,
        .prev_dir = true,
        .prev_modified_index = 8,
        .prev_created_index = 8,
        .time_ns = UINT64_C(1795329636509220900) };

    (void)state;
    assert_event(&event, "{\"action\":\"update\",\"node\":{\"key\":\"/s/"
                         "d\",\"dir\":true,\"expiration\":\"2026-11-22T06:42:16.5092209Z\","
                         "\"ttl\":100,\"modifiedIndex\":9,\"createdIndex\":8},"
                         "\"prevNode\":{\"key\":\"/s/"
                         "d\",\"dir\":true,\"modifiedIndex\":8,\"createdIndex\":8}}\n");
}

static void an_expired_node_shows_no_ttl(void **state)
{
    struct event event = { .action = EVENT_EXPIRE,
        .etcd_index = 166,
        .path = SPAN_LIT("/ek"),
        .created_index = 164,
        .prev = true,
        .prev_value = SPAN_LIT("1"),
        .prev_modified_index = 164,
        .prev_created_index = 164,
        .prev_deadline_ns = 7 * NS_PER_S,
        .time_ns = 7 * NS_PER_S + 3000000 };

    (void)state;
    assert_event(&event, "{\"action\":\"expire\",\"node\":{\"key\":\"/"
                         "ek\",\"modifiedIndex\":166,\"createdIndex\":164},"
                         "\"prevNode\":{\"key\":\"/"
                         "ek\",\"value\":\"1\",\"expiration\":\"1970-01-01T00:00:07Z\","
                         "\"modifiedIndex\":164,\"createdIndex\":164}}\n");
}

static void names_every_action(void **state)
{
    static const char *const names[] = { "", "set", "create", "update", "compareAndSwap", "delete",
        "compareAndDelete", "expire" };
    struct buf out = BUF_INIT;
    char expected[64];

    (void)state;
    for (unsigned action = EVENT_SET; action < EVENT_ACTION_COUNT; action++) {
        struct event event = { .action = action };
        render_action(&out, &event);
        (void)snprintf(expected, sizeof expected, "{\"action\":\"%s\"}\n", names[action]);
        assert_text(&out, expected);
        assert_int_equal(render_can_omit_value(&event), action <= EVENT_COMPARE_AND_SWAP);
    }
    buf_fini(&out);
}

static void rounds_a_ttl_as_the_contract_says(void **state)
{
    (void)state;
    assert_int_equal(render_ttl_s(100 * NS_PER_S, 98 * NS_PER_S), 2);
    assert_int_equal(render_ttl_s(100 * NS_PER_S, 98 * NS_PER_S + 1), 2);
    assert_int_equal(render_ttl_s(100 * NS_PER_S, 99 * NS_PER_S), 1);
    assert_int_equal(render_ttl_s(100 * NS_PER_S, 100 * NS_PER_S - 1), 1);
    assert_int_equal(render_ttl_s(100 * NS_PER_S, 100 * NS_PER_S), 0);
    assert_int_equal(render_ttl_s(100 * NS_PER_S, 101 * NS_PER_S - 1), 0);
    assert_int_equal(render_ttl_s(100 * NS_PER_S, 101 * NS_PER_S), -1);
    assert_int_equal(render_ttl_s(100 * NS_PER_S, 102 * NS_PER_S + 5), -2);
}

static void writes_times_with_trimmed_fraction(void **state)
{
    static const struct {
        uint64_t time_ns;
        const char *text;
    } rows[] = {
        { 0, "1970-01-01T00:00:00Z" },
        { 1, "1970-01-01T00:00:00.000000001Z" },
        { UINT64_C(951782400) * NS_PER_S, "2000-02-29T00:00:00Z" },
        { UINT64_C(951868799) * NS_PER_S + 120000000, "2000-02-29T23:59:59.12Z" },
        { UINT64_C(1795329736) * NS_PER_S + 509220900, "2026-11-22T06:42:16.5092209Z" },
        { UINT64_C(4107542400) * NS_PER_S, "2100-03-01T00:00:00Z" },
        { UINT64_C(9223372036) * NS_PER_S, "2262-04-11T23:47:16Z" },
    };
    struct buf out = BUF_INIT;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        render_time(&out, rows[i].time_ns);
        assert_text(&out, rows[i].text);
    }
    buf_fini(&out);
}

static void agrees_with_the_library_on_random_times(void **state)
{
    unsigned short seed[3] = { 7, 8, 9 };
    struct buf out = BUF_INIT;
    char expected[64];

    (void)state;
    for (int round = 0; round < 20000; round++) {
        time_t seconds = (time_t)(((uint64_t)nrand48(seed) << 2 | ((uint64_t)nrand48(seed) & 3)) %
                                  9000000000);
        struct tm utc;
        (void)gmtime_r(&seconds, &utc);
        (void)strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%SZ", &utc);
        render_time(&out, (uint64_t)seconds * NS_PER_S);
        assert_text(&out, expected);
    }
    buf_fini(&out);
}

static void renders_nodes_of_a_listing(void **state)
{
    struct state_node file = { .value = SPAN_LIT("v\n"), .deadline_ns = 10 * NS_PER_S };
    struct state_node dir = { .dir = true };
    struct buf out = BUF_INIT;

    (void)state;
    render_node_head(&out, SPAN_LIT("/a"), &file, 20 * NS_PER_S);
    render_node_tail(&out, 7, 6);
    assert_text(&out, "{\"key\":\"/"
                      "a\",\"value\":\"v\\n\",\"expiration\":\"1970-01-01T00:00:10Z\",\"ttl\":-10,"
                      "\"modifiedIndex\":7,\"createdIndex\":6}");
    render_node_head(&out, SPAN_NONE, &dir, 0);
    render_node_tail(&out, 0, 0);
    assert_text(&out, "{\"dir\":true}");
    buf_fini(&out);
}

static void renders_errors_and_leaves_out_an_empty_cause(void **state)
{
    struct api_error error = { .code = 100, .index = 7, .cause = SPAN_LIT("/x") };
    struct buf out = BUF_INIT;

    (void)state;
    api_error_append(&out, &error);
    assert_text(&out,
            "{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/x\",\"index\":7}\n");
    error = (struct api_error){ .code = 102, .index = 5 };
    api_error_append(&out, &error);
    assert_text(&out, "{\"errorCode\":102,\"message\":\"Not a file\",\"index\":5}\n");
    buf_fini(&out);
}

static void gives_each_error_its_status(void **state)
{
    static const unsigned rows[][2] = { { 100, 404 }, { 101, 412 }, { 102, 403 }, { 104, 400 },
        { 105, 412 }, { 107, 400 }, { 108, 403 }, { 110, 401 }, { 201, 400 }, { 210, 400 },
        { 212, 400 }, { 300, 500 }, { 301, 500 }, { 401, 400 }, { 777, 400 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        assert_int_equal(api_error_status(rows[i][0]), rows[i][1]);
    }
    assert_string_equal(api_error_message(400), "watcher is cleared due to etcd recovery");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renders_a_set_with_and_without_a_node_before),
        cmocka_unit_test(renders_directories_and_deadlines),
        cmocka_unit_test(an_expired_node_shows_no_ttl),
        cmocka_unit_test(names_every_action),
        cmocka_unit_test(rounds_a_ttl_as_the_contract_says),
        cmocka_unit_test(writes_times_with_trimmed_fraction),
        cmocka_unit_test(agrees_with_the_library_on_random_times),
        cmocka_unit_test(renders_nodes_of_a_listing),
        cmocka_unit_test(renders_errors_and_leaves_out_an_empty_cause),
        cmocka_unit_test(gives_each_error_its_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
