/* Watches: each row of the matching table, live and in the past; the discipline of indexes; and the tree of paths against a
 * model that scans all watchers. */
#include "daemons/gatewayd/watch/hub.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/buf.h"
#include "daemons/gatewayd/watch/match.h"
#include "proto/outcome.h"

static const uint8_t seed[16] = { 1 };

struct probe {
    struct watcher watcher;
    unsigned told;
    uint64_t last_index;
};

static void tell(void *user, struct watcher *watcher, const struct event *event)
{
    struct probe *probe = CONTAINER_OF(watcher, struct probe, watcher);
    (void)user;
    probe->told++;
    probe->last_index = event == NULL ? 0 : event->etcd_index;
}

static struct event event_at(uint64_t index, enum event_action action, const char *path, bool dir)
{
    return (struct event){ .action = action,
        .etcd_index = index,
        .path = span_str(path),
        .dir = dir,
        .prev = action == EVENT_DELETE || action == EVENT_EXPIRE,
        .prev_dir = dir };
}

/* One watch, one event: is it told, live? */
static bool live(const char *key, bool recursive, bool exists, struct event event)
{
    struct watch_hub *hub = watch_hub_new(event.etcd_index - 1, seed);
    struct probe probe = { .watcher = { .next_index = 1, .recursive = recursive } };

    watch_hub_add(hub, &probe.watcher, span_str(key), exists);
    watch_hub_publish(hub, &event, tell, NULL);
    watch_hub_remove(hub, &probe.watcher);
    hub = watch_hub_free(hub);
    return probe.told > 0;
}

static bool past(const char *key, bool recursive, struct event event)
{
    return watch_matches_past(span_str(key), recursive, &event);
}

static void an_event_on_the_key_itself_is_told(void **state)
{
    (void)state;
    assert_true(live("/a/b", false, false, event_at(5, EVENT_SET, "/a/b", false)));
    assert_true(live("/a/_b", false, false, event_at(5, EVENT_SET, "/a/_b", false)));
    assert_true(past("/a/_b", false, event_at(5, EVENT_SET, "/a/_b", false)));
    assert_true(live("/d", false, true, event_at(5, EVENT_UPDATE, "/d", true)));
}

static void an_event_below_is_told_to_recursive_watches_only(void **state)
{
    (void)state;
    assert_true(live("/a", true, true, event_at(5, EVENT_SET, "/a/b/c", false)));
    assert_false(live("/a", false, true, event_at(5, EVENT_SET, "/a/b", false)));
    assert_true(live("/", true, true, event_at(5, EVENT_SET, "/x", false)));
    assert_false(live("/a", true, true, event_at(5, EVENT_SET, "/ab", false)));
    assert_true(past("/a", true, event_at(5, EVENT_SET, "/a/b/c", false)));
    assert_false(past("/a", false, event_at(5, EVENT_SET, "/a/b", false)));
    assert_false(past("/a", true, event_at(5, EVENT_SET, "/ab", false)));
}

static void hidden_is_what_lies_behind_the_watched_path(void **state)
{
    static const struct {
        const char *key;
        const char *path;
        bool told;
    } rows[] = {
        { "/", "/_x", false },
        { "/", "/a/_b/c", false },
        { "/a", "/a/_b", false },
        { "/_x", "/_x/y", true },
        { "/_x", "/_x/_y", false },
        { "/a", "/a/b_", true },
        { "/a", "/a/b/c_/d", true },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct event event = event_at(5, EVENT_SET, rows[i].path, false);
        assert_int_equal(live(rows[i].key, true, true, event), rows[i].told);
        assert_int_equal(past(rows[i].key, true, event), rows[i].told);
    }
}

static void an_ancestors_removal_wakes_those_that_existed(void **state)
{
    (void)state;
    assert_true(live("/a/b/c", false, true, event_at(5, EVENT_DELETE, "/a", true)));
    assert_false(live("/a/b/c", false, false, event_at(5, EVENT_DELETE, "/a", true)));
    assert_true(live("/a/_h", true, true, event_at(5, EVENT_EXPIRE, "/a", true)));
    assert_false(live("/ab", false, true, event_at(5, EVENT_DELETE, "/a", true)));
    /* In the past, whether it existed is not known; but the path must end at a boundary. */
    assert_true(past("/a/b/c", false, event_at(5, EVENT_DELETE, "/a", true)));
    assert_false(past("/prefix", false, event_at(5, EVENT_DELETE, "/pre", true)));
    assert_false(past("/a/b", false, event_at(5, EVENT_DELETE, "/a", false)));
    assert_false(past("/a/b", false, event_at(5, EVENT_SET, "/a", true)));
}

static void refreshes_and_bookkeeping_are_told_to_nobody(void **state)
{
    struct event event = event_at(5, EVENT_SET, "/a", false);

    (void)state;
    event.silent = true;
    assert_false(live("/a", true, true, event));
    assert_false(past("/a", true, event));
    event.silent = false;
    event.internal = true;
    assert_false(live("/", true, true, event));
    assert_false(past("/", true, event));
}

static void existence_follows_the_events(void **state)
{
    struct watch_hub *hub = watch_hub_new(0, seed);
    struct probe probe = { .watcher = { .next_index = 1, .stream = true } };
    struct event events[] = {
        event_at(1, EVENT_SET, "/a/b/c", false),              /* /a/b comes to be */
        event_at(2, EVENT_DELETE, "/a", true),                /* told */
        event_at(3, EVENT_DELETE, "/a", true),                /* no longer there */
        event_at(4, EVENT_CREATE, "/a/b", false),             /* told: the key itself */
        event_at(5, EVENT_COMPARE_AND_DELETE, "/a/b", false), /* told */
        event_at(6, EVENT_DELETE, "/a", true),                /* gone since */
        event_at(7, EVENT_SET, "/a/b", true),                 /* told */
        event_at(8, EVENT_DELETE, "/a/b/x", false),           /* below */
        event_at(9, EVENT_EXPIRE, "/a", true),                /* told */
    };
    static const unsigned told[] = { 0, 1, 1, 2, 3, 3, 4, 4, 5 };

    (void)state;
    watch_hub_add(hub, &probe.watcher, SPAN_LIT("/a/b"), false);
    for (size_t i = 0; i < ARRAY_COUNT(events); i++) {
        watch_hub_publish(hub, &events[i], tell, NULL);
        assert_int_equal(probe.told, told[i]);
    }
    watch_hub_remove(hub, &probe.watcher);
    hub = watch_hub_free(hub);
}

static void nobody_is_told_twice_or_too_early(void **state)
{
    struct watch_hub *hub = watch_hub_new(10, seed);
    struct probe now = { .watcher = { .next_index = 11, .stream = true } };
    struct probe later = { .watcher = { .next_index = 13 } };

    (void)state;
    watch_hub_add(hub, &now.watcher, SPAN_LIT("/k"), true);
    watch_hub_add(hub, &later.watcher, SPAN_LIT("/k"), true);
    for (uint64_t index = 8; index <= 14; index++) {
        struct event event = event_at(index, EVENT_SET, "/k", false);
        watch_hub_publish(hub, &event, tell, NULL);
        watch_hub_publish(hub, &event, tell, NULL);
    }
    assert_int_equal(now.told, 4);
    assert_int_equal(later.told, 1);
    assert_int_equal(later.last_index, 13);
    assert_int_equal(watch_hub_index(hub), 14);
    assert_int_equal(watch_hub_count(hub), 1);
    watch_hub_remove(hub, &now.watcher);
    hub = watch_hub_free(hub);
}

static const struct watcher *told_order[8];
static size_t told_count;

static void tell_in_order(void *user, struct watcher *watcher, const struct event *event)
{
    (void)user;
    (void)event;
    assert_in_range(told_count, 0, ARRAY_COUNT(told_order) - 1);
    told_order[told_count++] = watcher;
}

/* Those above first, from the root on; on one path in the order in which they came. */
static void watchers_are_told_from_the_root_on_and_in_their_order(void **state)
{
    static const struct {
        const char *key;
        bool recursive;
    } added[] = { { "/a/b", false }, { "/a/b", false }, { "/a", true }, { "/a/b", false },
        { "/", true }, { "/a", true } };
    static const size_t expected[] = { 4, 2, 5, 0, 1, 3 };
    struct watcher watchers[ARRAY_COUNT(added)] = { 0 };
    struct watch_hub *hub = watch_hub_new(4, seed);
    struct event event = event_at(5, EVENT_SET, "/a/b", false);
    (void)state;

    told_count = 0;
    for (size_t i = 0; i < ARRAY_COUNT(added); i++) {
        watchers[i] = (struct watcher){ .next_index = 1, .recursive = added[i].recursive };
        watch_hub_add(hub, &watchers[i], span_str(added[i].key), true);
    }
    watch_hub_publish(hub, &event, tell_in_order, NULL);
    assert_int_equal(told_count, ARRAY_COUNT(expected));
    for (size_t i = 0; i < ARRAY_COUNT(expected); i++) {
        assert_ptr_equal(told_order[i], &watchers[expected[i]]);
    }
    hub = watch_hub_free(hub);
}

static void a_second_watcher_does_not_unsettle_what_is_known(void **state)
{
    struct watch_hub *hub = watch_hub_new(0, seed);
    struct probe first = { .watcher = { .next_index = 1 } };
    struct probe second = { .watcher = { .next_index = 6 } };
    struct event removal = event_at(5, EVENT_DELETE, "/a", true);

    (void)state;
    assert_false(watch_hub_tracks(hub, SPAN_LIT("/a/b")));
    watch_hub_add(hub, &first.watcher, SPAN_LIT("/a/b"), true);
    assert_true(watch_hub_tracks(hub, SPAN_LIT("/a/b")));
    /* Registered from a transaction that has seen the removal already. */
    watch_hub_add(hub, &second.watcher, SPAN_LIT("/a/b"), false);
    watch_hub_publish(hub, &removal, tell, NULL);
    assert_int_equal(first.told, 1);
    assert_int_equal(second.told, 0);
    watch_hub_remove(hub, &second.watcher);
    hub = watch_hub_free(hub);
}

static void the_cheap_look_misses_nothing(void **state)
{
    static const char *const paths[] = { "/a", "/a/b", "/a/b/c", "/ab", "/x" };
    struct buf encoded = BUF_INIT;
    unsigned spared = 0;

    (void)state;
    for (unsigned action = EVENT_SET; action < EVENT_ACTION_COUNT; action++) {
        for (size_t at = 0; at < ARRAY_COUNT(paths); at++) {
            struct event event = event_at(5, (enum event_action)action, paths[at], true);
            SET(&event, event_tag_dir);
            SET(&event, event_tag_prev);
            SET(&event, event_tag_prev_dir);
            buf_clear(&encoded);
            event_encode(&event, &encoded);
            for (size_t key = 0; key < ARRAY_COUNT(paths); key++) {
                bool may = watch_may_match(span_str(paths[key]), buf_span(&encoded));
                assert_true(may || !past(paths[key], true, event));
                spared += !may;
            }
            assert_true(watch_may_match(SPAN_LIT("/"), buf_span(&encoded)));
        }
    }
    assert_true(spared > 0);
    buf_fini(&encoded);
}

static void the_cheap_look_ends_with_the_path_whatever_the_index(void **state)
{
    static const uint64_t indexes[] = { 5, 127, 128, 255, 256, 65535, 65536, UINT32_MAX,
        (uint64_t)UINT32_MAX + 1, UINT64_MAX };
    struct buf encoded = BUF_INIT;

    (void)state;
    for (size_t at = 0; at < ARRAY_COUNT(indexes); at++) {
        struct event event = event_at(indexes[at], EVENT_SET, "/x", false);
        event.value = SPAN_LIT("/a/b");
        SET(&event, event_tag_value);
        buf_clear(&encoded);
        event_encode(&event, &encoded);
        assert_true(watch_may_match(SPAN_LIT("/x"), buf_span(&encoded)));
        assert_false(watch_may_match(SPAN_LIT("/a/b"), buf_span(&encoded)));
        assert_false(watch_may_match(SPAN_LIT("/a"), buf_span(&encoded)));
    }
    buf_fini(&encoded);
}

struct breaker {
    struct watch_hub *hub;
    struct probe *victim;
};

static void remove_other(void *user, struct watcher *watcher, const struct event *event)
{
    struct breaker *breaker = user;
    (void)watcher;
    (void)event;
    if (breaker->victim != NULL) {
        watch_hub_remove(breaker->hub, &breaker->victim->watcher);
        breaker->victim = NULL;
    } else {
        fail_msg("told a watcher that had been removed");
    }
}

static void a_watcher_may_be_removed_while_others_are_told(void **state)
{
    struct watch_hub *hub = watch_hub_new(0, seed);
    struct probe first = { .watcher = { .next_index = 1 } };
    struct probe second = { .watcher = { .next_index = 1, .recursive = true } };
    struct breaker breaker = { .hub = hub, .victim = &first };
    struct event event = event_at(1, EVENT_SET, "/k", false);

    (void)state;
    watch_hub_add(hub, &second.watcher, SPAN_LIT("/"), true); /* told first */
    watch_hub_add(hub, &first.watcher, SPAN_LIT("/k"), true);
    watch_hub_publish(hub, &event, remove_other, &breaker);
    assert_int_equal(watch_hub_count(hub), 0);
    hub = watch_hub_free(hub);
}

static void draining_takes_everybody_out(void **state)
{
    struct watch_hub *hub = watch_hub_new(0, seed);
    struct probe probes[50] = { 0 };
    char key[32];

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(probes); i++) {
        (void)snprintf(key, sizeof key, "/d%u/e%u", i % 5, i % 7);
        probes[i].watcher.recursive = i % 2;
        watch_hub_add(hub, &probes[i].watcher, i == 0 ? SPAN_LIT("/") : span_str(key), true);
    }
    watch_hub_drain(hub, tell, NULL);
    for (unsigned i = 0; i < ARRAY_COUNT(probes); i++) {
        assert_int_equal(probes[i].told, 1);
    }
    assert_int_equal(watch_hub_count(hub), 0);
    hub = watch_hub_free(hub);
}

static void a_path_may_be_very_deep(void **state)
{
    struct watch_hub *hub = watch_hub_new(0, seed);
    struct probe probe = { .watcher = { .next_index = 1 } };
    struct buf key = BUF_INIT;
    struct event event = event_at(1, EVENT_DELETE, "/a", true);

    (void)state;
    for (int i = 0; i < 200000; i++) {
        buf_append_str(&key, "/a");
    }
    watch_hub_add(hub, &probe.watcher, buf_span(&key), true);
    watch_hub_publish(hub, &event, tell, NULL);
    assert_int_equal(probe.told, 1);
    hub = watch_hub_free(hub);
    buf_fini(&key);
}

static void a_deep_watch_costs_little_more_than_its_key(void **state)
{
    struct watch_hub *hub = watch_hub_new(0, seed);
    struct probe probe = { .watcher = { .next_index = 1 } };
    struct buf key = BUF_INIT;

    (void)state;
    for (int i = 0; i < 200000; i++) {
        buf_append_str(&key, "/a");
    }
    struct mallinfo2 before = mallinfo2();
    watch_hub_add(hub, &probe.watcher, buf_span(&key), true);
    struct mallinfo2 after = mallinfo2();
    assert_in_range(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd, 0,
            key.bytes + 32 * 1024);
    watch_hub_remove(hub, &probe.watcher);
    hub = watch_hub_free(hub);
    buf_fini(&key);
}

/* The model: a set of existing nodes, and a scan over all watchers by the matching rules. */
enum {
    MODEL_PATHS = 40,
    MODEL_WATCHERS = 60,
    MODEL_PLACE_BYTES = 256
};

static const char *const segments[] = { "a", "b", "_h" };

static void random_path(unsigned short *random, char *ret_path)
{
    long depth = 1 + nrand48(random) % 3;
    *ret_path = '\0';
    for (long i = 0; i < depth; i++) {
        (void)strncat(ret_path, "/", 2);
        (void)strncat(ret_path, segments[nrand48(random) % 3], 3);
    }
}

struct model {
    char existing[MODEL_PATHS][16];
    size_t count;
};

static bool model_has(const struct model *model, struct span path)
{
    bool found = path.bytes == 1;
    for (size_t i = 0; i < model->count; i++) {
        struct span node = span_str(model->existing[i]);
        found = found || span_eq(node, path) || watch_is_below(node, path);
    }
    return found;
}

static void model_remove(struct model *model, struct span path)
{
    size_t kept = 0;
    for (size_t i = 0; i < model->count; i++) {
        struct span node = span_str(model->existing[i]);
        if (!span_eq(node, path) && !watch_is_below(node, path)) {
            memmove(model->existing[kept++], model->existing[i], sizeof model->existing[0]);
        }
    }
    model->count = kept;
}

struct model_watcher {
    struct probe probe;
    char key[16];
    unsigned expected;
};

static bool model_tells(
        const struct model *model, const struct model_watcher *watcher, const struct event *event)
{
    struct span key = span_str(watcher->key);
    if (event->etcd_index < watcher->probe.watcher.next_index) {
        return false;
    }
    if (span_eq(event->path, key)) {
        return true;
    }
    if (watcher->probe.watcher.recursive && watch_is_below(event->path, key)) {
        return !watch_is_hidden(event->path, key);
    }
    return watch_took_subtree(event) && watch_is_below(key, event->path) && model_has(model, key);
}

/* A removal leaves the parents, which the real store keeps as directories: they are put in by name. */
static void model_apply(struct model *model, const struct event *event)
{
    char parent[16];
    if (event->action == EVENT_DELETE) {
        model_remove(model, event->path);
        (void)snprintf(parent, sizeof parent, "%.*s", (int)event->path.bytes,
                (const char *)event->path.data);
        *strrchr(parent, '/') = '\0';
        if (parent[0] != '\0' && !model_has(model, span_str(parent)) &&
                model->count < MODEL_PATHS) {
            memcpy(model->existing[model->count++], parent, sizeof parent);
        }
    } else if (!model_has(model, event->path)) {
        INVARIANT_LT(model->count, MODEL_PATHS);
        (void)snprintf(model->existing[model->count++], 16, "%.*s", (int)event->path.bytes,
                (const char *)event->path.data);
    }
}

/* A key of the model as the hub sees it, below a folder that may be deep. */
static struct span place(const char *folder, struct span key, char ret_text[MODEL_PLACE_BYTES])
{
    if (folder[0] == '\0') {
        return key;
    }
    int bytes = snprintf(ret_text, MODEL_PLACE_BYTES, "%s%.*s", folder,
            key.bytes == 1 ? 0 : (int)key.bytes, (const char *)key.data);
    assert_in_range(bytes, 1, MODEL_PLACE_BYTES - 1);
    return span_of(ret_text, (size_t)bytes);
}

static void agree_below(const char *folder)
{
    char text[MODEL_PLACE_BYTES];
    unsigned short random[3] = { 10, 11, 12 };
    struct watch_hub *hub = watch_hub_new(0, seed);
    static struct model_watcher watchers[MODEL_WATCHERS];
    struct model model = { 0 };
    char path[16];

    memset(watchers, 0, sizeof watchers);
    for (uint64_t index = 1; index <= 20000; index++) {
        struct model_watcher *watcher = &watchers[nrand48(random) % MODEL_WATCHERS];
        if (watcher->probe.watcher.path != NULL) {
            watch_hub_remove(hub, &watcher->probe.watcher);
        }
        *watcher = (struct model_watcher){
            .probe = { .watcher = { .next_index = index + (uint64_t)(nrand48(random) % 3),
                               .recursive = nrand48(random) % 2,
                               .stream = nrand48(random) % 2 } }
        };
        random_path(random, watcher->key);
        if (nrand48(random) % 10 == 0) {
            memcpy(watcher->key, "/", 2);
        }
        struct span key = span_str(watcher->key);
        watch_hub_add(
                hub, &watcher->probe.watcher, place(folder, key, text), model_has(&model, key));

        random_path(random, path);
        bool removal = nrand48(random) % 2 == 0 && model_has(&model, span_str(path));
        struct event event = event_at(index, removal ? EVENT_DELETE : EVENT_SET, path, removal);
        for (size_t i = 0; i < MODEL_WATCHERS; i++) {
            if (watchers[i].probe.watcher.path != NULL &&
                    model_tells(&model, &watchers[i], &event)) {
                watchers[i].expected++;
            }
        }
        model_apply(&model, &event);
        event.path = place(folder, event.path, text);
        watch_hub_publish(hub, &event, tell, NULL);
        for (size_t i = 0; i < MODEL_WATCHERS; i++) {
            assert_int_equal(watchers[i].probe.told, watchers[i].expected);
        }
    }
    watch_hub_drain(hub, tell, NULL);
    hub = watch_hub_free(hub);
}

static void the_tree_agrees_with_a_scan_over_all_watchers(void **state)
{
    (void)state;
    agree_below("");
}

/* Where nodes end and tails begin, on every side of that border. */
static void deep_below_too(void **state)
{
    (void)state;
    for (size_t depth = 60; depth <= 66; depth++) {
        char folder[2 * 66 + 1] = "";
        for (size_t i = 0; i < depth; i++) {
            memcpy(folder + 2 * i, "/f", 3);
        }
        agree_below(folder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_on_the_key_itself_is_told),
        cmocka_unit_test(an_event_below_is_told_to_recursive_watches_only),
        cmocka_unit_test(hidden_is_what_lies_behind_the_watched_path),
        cmocka_unit_test(an_ancestors_removal_wakes_those_that_existed),
        cmocka_unit_test(refreshes_and_bookkeeping_are_told_to_nobody),
        cmocka_unit_test(the_cheap_look_misses_nothing),
        cmocka_unit_test(the_cheap_look_ends_with_the_path_whatever_the_index),
        cmocka_unit_test(existence_follows_the_events),
        cmocka_unit_test(nobody_is_told_twice_or_too_early),
        cmocka_unit_test(watchers_are_told_from_the_root_on_and_in_their_order),
        cmocka_unit_test(a_second_watcher_does_not_unsettle_what_is_known),
        cmocka_unit_test(a_watcher_may_be_removed_while_others_are_told),
        cmocka_unit_test(draining_takes_everybody_out),
        cmocka_unit_test(a_path_may_be_very_deep),
        cmocka_unit_test(a_deep_watch_costs_little_more_than_its_key),
        cmocka_unit_test(the_tree_agrees_with_a_scan_over_all_watchers),
        cmocka_unit_test(deep_below_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
