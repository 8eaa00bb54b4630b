/* test_keyspace.c: what each op does, rule by rule: the order of checks, causes, indexes, events. */
#include "tests/unit/stored/machine.h"

static int set_up(void **state)
{
    *state = machine_new();
    /* As on a fresh single member: the first write of a user has index 4. */
    (void)machine_empty(*state);
    assert_string_equal(DO(*state, OP_MEMBER_ADD, .member_id = 9), "create / m1 c1 internal");
    assert_string_equal(DO(*state, OP_MEMBER_PUBLISH, .member_id = 9, .name = SPAN_LIT("n")),
            "set / m2 c2 internal");
    assert_string_equal(
            DO(*state, OP_CLUSTER_VERSION, .version = SPAN_LIT("3.4.0")), "set / m3 c3 internal");
    return 0;
}

static int tear_down(void **state)
{
    *state = machine_free(*state);
    return 0;
}

static void expect_tree(struct machine *machine, const char *expected)
{
    struct buf tree = BUF_INIT;
    machine_tree(machine, &tree);
    buf_append_byte(&tree, '\0');
    assert_string_equal((const char *)tree.data, expected);
    buf_fini(&tree);
}

static void the_golden_transcript_holds(void **state)
{
    struct machine *m = *state;

    assert_string_equal(DO(m, OP_SET, PATH("/foo"), VALUE("bar")), "set /foo 'bar' m4 c4");
    assert_string_equal(
            DO(m, OP_SET, PATH("/foo"), VALUE("baz")), "set /foo 'baz' m5 c5 <- 'bar' m4 c4");
    assert_string_equal(DO(m, OP_SET, PATH("/"), VALUE("x")), "107 \"/\" @5");
    assert_string_equal(
            DO(m, OP_COMPARE_AND_DELETE, PATH("/"), .prev_value = SPAN_LIT("x")), "102 @5");
    assert_string_equal(DO(m, OP_CREATE_IN_ORDER, PATH("/"), VALUE("x")),
            "create /00000000000000000006 'x' m6 c6");
    assert_string_equal(DO(m, OP_SET, PATH("/s/f"), VALUE("1")), "set /s/f '1' m7 c7");
    assert_string_equal(DO(m, OP_SET, PATH("/s/d"), .dir = true), "set /s/d dir m8 c8");
    assert_string_equal(DO(m, OP_SET, PATH("/s/d"), .dir = true), "102 \"/s/d\" @8");
    assert_string_equal(DO(m, OP_CREATE, PATH("/s/d"), .dir = true), "105 \"/s/d\" @8");
    assert_string_equal(DO(m, OP_UPDATE, PATH("/s/d"), .dir = true, TTL(100)),
            "update /s/d dir +100s m9 c8 <- dir m8 c8");
    assert_string_equal(DO(m, OP_SET, PATH("/s/d/k"), VALUE("x")), "set /s/d/k 'x' m10 c10");
    assert_string_equal(DO(m, OP_DELETE, PATH("/s/d")), "102 \"/s/d\" @10");
    assert_string_equal(DO(m, OP_DELETE, PATH("/s/d"), .dir = true), "108 \"/s/d\" @10");
    assert_string_equal(DO(m, OP_DELETE, PATH("/s/d"), .recursive = true),
            "delete /s/d dir m11 c8 <- dir +100s m8 c8");
    assert_string_equal(
            DO(m, OP_COMPARE_AND_SWAP, PATH("/s/f"), .prev_value = SPAN_LIT("1"), VALUE("2")),
            "compareAndSwap /s/f '2' m12 c7 <- '1' m7 c7");
    assert_string_equal(DO(m, OP_COMPARE_AND_SWAP, PATH("/s/f"), .prev_value = SPAN_LIT("9"),
                                .prev_index = 1, VALUE("3")),
            "101 \"[9 != 2] [1 != 12]\" @12");
    assert_string_equal(
            DO(m, OP_SET, PATH("/s/f"), .dir = true), "set /s/f dir m13 c13 <- '2' m12 c7");
    expect_tree(m, "/00000000000000000006 'x' m6 c6 d0\n"
                   "/foo 'baz' m5 c5 d0\n"
                   "/s dir m7 c7 d0\n"
                   "/s/f dir m13 c13 d0\n");
}

static void set_walks_before_it_looks_at_the_root(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/f"), VALUE("v"));
    assert_string_equal(DO(m, OP_SET, PATH("/f/a/b"), VALUE("x")), "104 \"/f\" @4");
    assert_string_equal(DO(m, OP_SET, PATH("/no/a"), .refresh = true, TTL(5)), "100 \"/no\" @4");
    assert_string_equal(DO(m, OP_SET, PATH("/f/a"), .refresh = true, TTL(5)), "104 \"/f\" @4");
    assert_string_equal(DO(m, OP_SET, PATH("/"), .refresh = true, TTL(5)), "107 \"/\" @4");
}

static void set_makes_parents_of_its_own_index_and_without_ttl(void **state)
{
    struct machine *m = *state;

    assert_string_equal(
            DO(m, OP_SET, PATH("/a/b/c"), VALUE("v"), TTL(10)), "set /a/b/c 'v' +10s m4 c4");
    expect_tree(m, "/a dir m4 c4 d0\n"
                   "/a/b dir m4 c4 d0\n"
                   "/a/b/c 'v' m4 c4 d1010000000000\n");
    (void)DO(m, OP_SET, PATH("/a/x"), VALUE(""));
    (void)DO(m, OP_DELETE, PATH("/a/x"));
    expect_tree(m, "/a dir m4 c4 d0\n"
                   "/a/b dir m4 c4 d0\n"
                   "/a/b/c 'v' m4 c4 d1010000000000\n");
}

static void set_of_a_directory_is_refused_and_of_a_file_replaces_it(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/d/k"), VALUE("v"));
    assert_string_equal(DO(m, OP_SET, PATH("/d"), VALUE("x")), "102 \"/d\" @4");
    assert_string_equal(DO(m, OP_SET, PATH("/d"), .dir = true), "102 \"/d\" @4");
    assert_string_equal(DO(m, OP_SET, PATH("/d/k"), .dir = true, VALUE("lost"), TTL(7)),
            "set /d/k dir +7s m5 c5 <- 'v' m4 c4");
    assert_string_equal(DO(m, OP_SET, PATH("/d/k/in"), VALUE("1")), "set /d/k/in '1' m6 c6");
}

static void set_without_ttl_makes_a_key_permanent(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/k"), VALUE("1"), TTL(50));
    assert_string_equal(
            DO(m, OP_SET, PATH("/k"), VALUE("2")), "set /k '2' m5 c5 <- '1' +50s m4 c4");
    assert_int_equal(machine_rows(m, SCHEMA_EXPIRY), 0);
}

static void a_failed_op_changes_nothing(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/f"), VALUE("v"));
    uint64_t nodes = machine_rows(m, SCHEMA_NODES);
    uint64_t events = machine_rows(m, SCHEMA_EVENTS);
    (void)DO(m, OP_SET, PATH("/f/a/b"), VALUE("x"));
    (void)DO(m, OP_CREATE, PATH("/f/a/b"), VALUE("x"));
    (void)DO(m, OP_UPDATE, PATH("/a/b"), VALUE("x"));
    (void)DO(m, OP_COMPARE_AND_SWAP, PATH("/f"), .prev_index = 99, VALUE("x"));
    (void)DO(m, OP_DELETE, PATH("/a/b"));
    assert_int_equal(machine_rows(m, SCHEMA_NODES), nodes);
    assert_int_equal(machine_rows(m, SCHEMA_EVENTS), events);
    assert_int_equal(m->etcd_index, 4);
}

static void create_checks_root_then_parents_then_existence(void **state)
{
    struct machine *m = *state;

    assert_string_equal(DO(m, OP_CREATE, PATH("/"), VALUE("v")), "107 \"/\" @3");
    (void)DO(m, OP_CREATE, PATH("/d/f"), VALUE("v"));
    assert_string_equal(DO(m, OP_CREATE, PATH("/d/f/x")), "104 \"/d/f\" @4");
    assert_string_equal(DO(m, OP_CREATE, PATH("/d/f")), "105 \"/d/f\" @4");
    assert_string_equal(DO(m, OP_CREATE, PATH("/d")), "105 \"/d\" @4");
    assert_string_equal(
            DO(m, OP_CREATE, PATH("/e"), .dir = true, VALUE("ignored")), "create /e dir m5 c5");
}

static void a_refresh_of_a_create_has_no_effect(void **state)
{
    struct machine *m = *state;

    assert_string_equal(
            DO(m, OP_CREATE, PATH("/k"), .refresh = true, TTL(5)), "create /k '' +5s m4 c4");
    assert_string_equal(DO(m, OP_CREATE_IN_ORDER, PATH("/q"), .refresh = true, TTL(5)),
            "create /q/00000000000000000005 '' +5s m5 c5");
}

static void in_order_keys_are_named_by_the_next_index(void **state)
{
    struct machine *m = *state;

    assert_string_equal(DO(m, OP_CREATE_IN_ORDER, PATH("/q"), VALUE("a")),
            "create /q/00000000000000000004 'a' m4 c4");
    assert_string_equal(DO(m, OP_CREATE_IN_ORDER, PATH("/q"), .dir = true),
            "create /q/00000000000000000005 dir m5 c5");
    (void)DO(m, OP_SET, PATH("/f"), VALUE("v"));
    assert_string_equal(DO(m, OP_CREATE_IN_ORDER, PATH("/f"), VALUE("a")), "104 \"/f\" @6");
    (void)DO(m, OP_SET, PATH("/q/00000000000000000008"), VALUE("taken"));
    assert_string_equal(DO(m, OP_CREATE_IN_ORDER, PATH("/q"), VALUE("a")),
            "105 \"/q/00000000000000000008\" @7");
    assert_string_equal(DO(m, OP_CREATE_IN_ORDER, PATH("/q"), VALUE("a")),
            "105 \"/q/00000000000000000008\" @7");
    (void)DO(m, OP_SET, PATH("/f"), VALUE("bump"));
    assert_string_equal(DO(m, OP_CREATE_IN_ORDER, PATH("/q"), VALUE("a")),
            "create /q/00000000000000000009 'a' m9 c9");
}

static void update_keeps_the_created_index(void **state)
{
    struct machine *m = *state;

    assert_string_equal(DO(m, OP_UPDATE, PATH("/"), VALUE("v")), "107 \"/\" @3");
    assert_string_equal(DO(m, OP_UPDATE, PATH("/a/b"), VALUE("v")), "100 \"/a\" @3");
    (void)DO(m, OP_SET, PATH("/a/b"), VALUE("v"), TTL(9));
    assert_string_equal(DO(m, OP_UPDATE, PATH("/a/b/c"), VALUE("v")), "104 \"/a/b\" @4");
    assert_string_equal(DO(m, OP_UPDATE, PATH("/a/b"), .dir = true, VALUE("w")),
            "update /a/b 'w' m5 c4 <- 'v' +9s m4 c4");
    assert_string_equal(DO(m, OP_UPDATE, PATH("/a/b")), "update /a/b '' m6 c4 <- 'w' m5 c4");
}

static void an_updated_directory_keeps_its_old_modified_index(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/d"), .dir = true);
    assert_string_equal(DO(m, OP_UPDATE, PATH("/d"), VALUE("v")), "102 \"/d\" @4");
    assert_string_equal(
            DO(m, OP_UPDATE, PATH("/d"), TTL(10)), "update /d dir +10s m5 c4 <- dir m4 c4");
    expect_tree(m, "/d dir m4 c4 d1010000000000\n");
    assert_string_equal(DO(m, OP_UPDATE, PATH("/d")), "update /d dir m6 c4 <- dir +10s m4 c4");
    expect_tree(m, "/d dir m4 c4 d0\n");
}

static void compare_and_swap_compares_what_was_given(void **state)
{
    struct machine *m = *state;

    assert_string_equal(DO(m, OP_COMPARE_AND_SWAP, PATH("/"), .prev_index = 1), "107 \"/\" @3");
    assert_string_equal(DO(m, OP_COMPARE_AND_SWAP, PATH("/k"), .prev_index = 1), "100 \"/k\" @3");
    (void)DO(m, OP_SET, PATH("/k"), VALUE(""));
    assert_string_equal(
            DO(m, OP_COMPARE_AND_SWAP, PATH("/k"), .prev_value = SPAN_LIT("2"), VALUE("x")),
            "101 \"[2 != ]\" @4");
    assert_string_equal(DO(m, OP_COMPARE_AND_SWAP, PATH("/k"), .prev_index = 3, VALUE("x")),
            "101 \"[3 != 4]\" @4");
    assert_string_equal(DO(m, OP_COMPARE_AND_SWAP, PATH("/k"), .prev_index = 4, VALUE("x"), TTL(3)),
            "compareAndSwap /k 'x' +3s m5 c4 <- '' m4 c4");
    assert_string_equal(DO(m, OP_COMPARE_AND_SWAP, PATH("/k"), .prev_value = SPAN_LIT("x"),
                                .prev_index = 4, VALUE("y")),
            "101 \"[4 != 5]\" @5");
    assert_string_equal(DO(m, OP_COMPARE_AND_SWAP, PATH("/k"), .prev_value = SPAN_LIT("x"),
                                .prev_index = 5, VALUE("y")),
            "compareAndSwap /k 'y' m6 c4 <- 'x' +3s m5 c4");
    (void)DO(m, OP_SET, PATH("/d"), .dir = true);
    assert_string_equal(DO(m, OP_COMPARE_AND_SWAP, PATH("/d"), .prev_index = 7), "102 \"/d\" @7");
    assert_string_equal(DO(m, OP_COMPARE_AND_SWAP, PATH("/k/x"), .prev_index = 7), "104 \"/k\" @7");
}

static void delete_takes_files_whatever_is_asked(void **state)
{
    struct machine *m = *state;

    assert_string_equal(DO(m, OP_DELETE, PATH("/"), .recursive = true), "107 \"/\" @3");
    assert_string_equal(DO(m, OP_DELETE, PATH("/a/b")), "100 \"/a\" @3");
    (void)DO(m, OP_SET, PATH("/f"), VALUE("1"));
    assert_string_equal(DO(m, OP_DELETE, PATH("/f/x")), "104 \"/f\" @4");
    assert_string_equal(DO(m, OP_DELETE, PATH("/f"), .dir = true, .recursive = true),
            "delete /f m5 c4 <- '1' m4 c4");
    assert_string_equal(DO(m, OP_DELETE, PATH("/f")), "100 \"/f\" @5");
}

static void delete_of_a_directory_counts_hidden_children(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/d/_hidden"), VALUE("1"));
    assert_string_equal(DO(m, OP_DELETE, PATH("/d"), .dir = true), "108 \"/d\" @4");
    (void)DO(m, OP_DELETE, PATH("/d/_hidden"));
    assert_string_equal(
            DO(m, OP_DELETE, PATH("/d"), .dir = true), "delete /d dir m6 c4 <- dir m4 c4");
    assert_int_equal(machine_rows(m, SCHEMA_TRASH), 0);
    expect_tree(m, "");
}

static void compare_and_delete_is_for_files(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/d/f"), VALUE("1"));
    assert_string_equal(DO(m, OP_COMPARE_AND_DELETE, PATH("/d"), .prev_index = 4), "102 \"/d\" @4");
    assert_string_equal(
            DO(m, OP_COMPARE_AND_DELETE, PATH("/d/x/y"), .prev_index = 4), "100 \"/d/x\" @4");
    assert_string_equal(
            DO(m, OP_COMPARE_AND_DELETE, PATH("/d/f/y"), .prev_index = 4), "104 \"/d/f\" @4");
    assert_string_equal(DO(m, OP_COMPARE_AND_DELETE, PATH("/d/f"), .prev_value = SPAN_LIT("4"),
                                .prev_index = 5),
            "101 \"[4 != 1] [5 != 4]\" @4");
    assert_string_equal(DO(m, OP_COMPARE_AND_DELETE, PATH("/d/f"), .prev_value = SPAN_LIT("1")),
            "compareAndDelete /d/f m5 c4 <- '1' m4 c4");
}

static void a_refresh_keeps_the_value_and_tells_nobody(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/k"), VALUE("v"), TTL(5));
    assert_string_equal(DO(m, OP_SET, PATH("/k"), .refresh = true, TTL(9)),
            "set /k 'v' +9s m5 c5 silent <- 'v' +5s m4 c4");
    assert_string_equal(DO(m, OP_UPDATE, PATH("/k"), .refresh = true, TTL(3)),
            "update /k 'v' +3s m6 c5 silent <- 'v' +9s m5 c5");
    assert_string_equal(
            DO(m, OP_COMPARE_AND_SWAP, PATH("/k"), .prev_index = 6, .refresh = true, TTL(4)),
            "compareAndSwap /k 'v' +4s m7 c5 silent <- 'v' +3s m6 c5");
    assert_string_equal(DO(m, OP_UPDATE, PATH("/no"), .refresh = true, TTL(3)), "100 \"/no\" @7");
    expect_tree(m, "/k 'v' m7 c5 d1004000000000\n");
    assert_int_equal(machine_rows(m, SCHEMA_EVENTS), 7);
}

static void a_refresh_of_a_directory_depends_on_the_op(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/d"), .dir = true);
    assert_string_equal(DO(m, OP_SET, PATH("/d"), .refresh = true, TTL(9)), "102 \"/d\" @4");
    assert_string_equal(DO(m, OP_UPDATE, PATH("/d"), .refresh = true, TTL(9)),
            "update /d dir +9s m5 c4 silent <- dir m4 c4");
    (void)DO(m, OP_SET, PATH("/f"), VALUE("v"));
    assert_string_equal(DO(m, OP_SET, PATH("/f"), .dir = true, .refresh = true, TTL(2)),
            "set /f dir +2s m7 c7 silent <- 'v' m6 c6");
}

static void a_ttl_of_zero_is_legal_and_expires_with_the_next_entry(void **state)
{
    struct machine *m = *state;

    assert_string_equal(DO(m, OP_SET, PATH("/k"), VALUE("v"), TTL(0)), "set /k 'v' +0s m4 c4");
    assert_string_equal(machine_empty(m), "-");
    assert_string_equal((const char *)m->others.data, "expire /k m5 c4 <- 'v' +0s m4 c4\n");
}

static void a_ttl_that_overflows_is_permanent(void **state)
{
    struct machine *m = *state;

    assert_string_equal(DO(m, OP_SET, PATH("/k"), VALUE("v"), TTL(UINT64_MAX)), "set /k 'v' m4 c4");
    assert_string_equal(
            DO(m, OP_UPDATE, PATH("/k"), TTL(9223372036)), "update /k '' m5 c4 <- 'v' m4 c4");
    assert_string_equal(
            DO(m, OP_SET, PATH("/k"), TTL(9223370000)), "set /k '' +9223370000s m6 c6 <- '' m5 c4");
}

static void keys_expire_in_order_of_their_deadlines(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/b"), VALUE("b"), TTL(20));
    (void)DO(m, OP_SET, PATH("/a"), VALUE("a"), TTL(10));
    (void)DO(m, OP_SET, PATH("/c"), VALUE("c"), TTL(30));
    m->time_s += 20;
    assert_string_equal(DO(m, OP_SET, PATH("/b"), VALUE("new")), "set /b 'new' m9 c9");
    assert_string_equal((const char *)m->others.data,
            "expire /a m7 c5 <- 'a' -10s m5 c5\nexpire /b m8 c4 <- 'b' +0s m4 c4\n");
    assert_true(m->result.has_ttl_keys);
    assert_int_equal(m->result.next_deadline_ns, UINT64_C(1030000000000));
}

static void a_directory_takes_its_children_along_in_one_event(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/d"), .dir = true, TTL(10));
    (void)DO(m, OP_SET, PATH("/d/x/y"), VALUE("1"), TTL(5000));
    (void)DO(m, OP_SET, PATH("/d/z"), VALUE("1"), TTL(20));
    m->time_s += 10;
    (void)machine_empty(m);
    assert_string_equal((const char *)m->others.data, "expire /d dir m7 c4 <- dir +0s m4 c4\n");
    m->time_s += 10000;
    (void)machine_empty(m);
    (void)DO(m, OP_SYNC, PATH(""));
    assert_string_equal((const char *)m->others.data, "");
    assert_int_equal(m->etcd_index, 7);
    assert_int_equal(machine_rows(m, SCHEMA_EXPIRY), 0);
    assert_int_equal(machine_rows(m, SCHEMA_TRASH), 0);
    assert_int_equal(machine_rows(m, SCHEMA_NODES), 0);
    assert_false(m->result.has_ttl_keys);
    assert_int_equal(m->result.next_deadline_ns, 0);
}

static void time_never_goes_back(void **state)
{
    struct machine *m = *state;

    (void)machine_empty(m);
    m->time_s -= 500;
    (void)DO(m, OP_SET, PATH("/k"), VALUE("v"), TTL(10));
    expect_tree(m, "/k 'v' m4 c4 d1010000000000\n");
}

static void a_directory_of_a_used_name_is_a_new_one(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/d/old"), VALUE("1"));
    (void)DO(m, OP_DELETE, PATH("/d"), .recursive = true);
    (void)DO(m, OP_SET, PATH("/d/new"), VALUE("2"));
    expect_tree(m, "/d dir m6 c6 d0\n/d/new '2' m6 c6 d0\n");
}

static void bookkeeping_costs_indexes(void **state)
{
    struct machine *m = *state;

    assert_string_equal(
            DO(m, OP_CLUSTER_VERSION, .version = SPAN_LIT("3.4.0")), "-"); /* the same again */
    assert_string_equal(
            DO(m, OP_MEMBER_ADD, .member_id = 5, .learner = true), "create / m4 c4 internal");
    assert_string_equal(DO(m, OP_MEMBER_UPDATE, .member_id = 5), "update / m5 c5 internal");
    assert_string_equal(DO(m, OP_MEMBER_PROMOTE, .member_id = 5), "-");
    assert_string_equal(DO(m, OP_MEMBER_REMOVE, .member_id = 5), "create / m7 c7 internal");
    assert_string_equal((const char *)m->others.data, "delete / m6 c6 internal\n");
    assert_string_equal(
            DO(m, OP_MEMBER_ADD, .member_id = 5), "300 \"member was removed for good\" @7");
    assert_string_equal(DO(m, OP_MEMBER_PUBLISH, .member_id = 5), "300 \"no such member\" @7");
    assert_string_equal(DO(m, OP_MEMBER_UPDATE, .member_id = 6), "300 \"no such member\" @7");
    assert_string_equal(DO(m, OP_SYNC, PATH("")), "-");
    assert_string_equal(machine_empty(m), "-");
    assert_int_equal(m->etcd_index, 7);
}

struct seen_member {
    char text[512];
};

static bool see_member(void *user, uint64_t id, struct span encoded)
{
    struct seen_member *seen = user;
    struct codec_scratch scratch = { 0 };
    struct member member;
    size_t used = strlen(seen->text);

    assert_int_equal(member_decode(encoded, &member, &scratch, NULL), 0);
    assert_int_equal(member.id, id);
    (void)snprintf(seen->text + used, sizeof seen->text - used, "%" PRIu64 " %.*s %zu %zu%s%s\n",
            id, (int)member.name.bytes, (const char *)member.name.data, member.peer_urls.count,
            member.client_urls.count, member.learner ? " learner" : "",
            member.removed ? " removed" : "");
    codec_scratch_fini(&scratch);
    return true;
}

static void members_are_kept_and_removed_ids_for_good(void **state)
{
    struct machine *m = *state;
    struct span urls[] = { SPAN_LIT("http://a"), SPAN_LIT("http://b") };
    struct seen_member all = { "" };
    struct seen_member present = { "" };

    (void)DO(m, OP_MEMBER_ADD, .member_id = 3, .peer_urls = { urls, 2 }, .learner = true);
    (void)DO(m, OP_MEMBER_ADD, .member_id = 4, .peer_urls = { urls, 1 });
    (void)DO(m, OP_MEMBER_PUBLISH, .member_id = 3, .name = SPAN_LIT("c"),
            .client_urls = { urls, 1 });
    (void)DO(m, OP_MEMBER_REMOVE, .member_id = 4);
    struct state *view = state_writer_reader(replica_writer(m->replica));
    struct state_read *read = NULL;
    assert_int_equal(state_read_new(view, &read, NULL), 0);
    assert_int_equal(state_read_begin(read, NULL), 0);
    state_read_members(read, true, see_member, &all);
    state_read_members(read, false, see_member, &present);
    assert_string_equal(all.text, "3 c 2 1 learner\n4  1 0 removed\n9 n 0 0\n");
    assert_string_equal(present.text, "3 c 2 1 learner\n9 n 0 0\n");
    read = state_read_free(read);
    view = state_close(view);
}

static void what_nobody_could_have_sent_does_nothing(void **state)
{
    struct machine *m = *state;

    assert_string_equal(DO(m, OP_SET, PATH("no/slash")), "300 \"malformed path\" @3");
    assert_string_equal(DO(m, OP_SET, PATH("")), "300 \"malformed path\" @3");
    assert_string_equal(DO(m, OP_SET, PATH("/a//b")), "300 \"malformed path\" @3");
    assert_string_equal(DO(m, OP_DELETE, PATH("/a/")), "300 \"malformed path\" @3");
    assert_string_equal(DO(m, 99, PATH("/a")), "300 \"unknown operation\" @3");
    assert_string_equal(
            DO(m, OP_CLUSTER_VERSION, .version = SPAN_LIT("")), "300 \"malformed version\" @3");
    expect_tree(m, "");
}

static void keys_are_bytes(void **state)
{
    struct machine *m = *state;

    (void)DO(m, OP_SET, PATH("/\xff\x01 ;?#%"), VALUE("1"));
    (void)DO(m, OP_SET, PATH("/..."), VALUE("2"));
    (void)DO(m, OP_SET, .path = span_of("/a\0b", 4), VALUE("3"));
    struct buf tree = BUF_INIT;
    machine_tree(m, &tree);
    assert_int_equal(machine_rows(m, SCHEMA_NODES), 3);
    assert_non_null(memmem(tree.data, tree.bytes, "/a\0b '3'", 8));
    buf_fini(&tree);
}

static void long_names_expire_and_go_like_any_other(void **state)
{
    struct machine *m = *state;
    char path[2100];

    path[0] = '/';
    memset(path + 1, 'd', 1000);
    path[1001] = '/';
    memset(path + 1002, 'k', 1000);
    path[2002] = '\0';
    (void)machine_do(m, (struct op){ .kind = OP_SET, .path = span_str(path), VALUE("v"), TTL(5) });
    (void)machine_do(m, (struct op){ .kind = OP_SET, .path = span_str(path), VALUE("w"), TTL(6) });
    assert_int_equal(machine_rows(m, SCHEMA_EXPIRY), 1);
    assert_int_equal(machine_rows(m, SCHEMA_NODES), 3);
    m->time_s += 6;
    (void)machine_empty(m);
    assert_memory_equal(m->others.data, "expire /dddd", 12);
    assert_non_null(strstr((const char *)m->others.data, "kkk m6 c5 <- 'w'"));
    assert_int_equal(machine_rows(m, SCHEMA_EXPIRY), 0);
    path[1001] = '\0';
    (void)machine_do(m, (struct op){ .kind = OP_DELETE, .path = span_str(path), .dir = true });
    assert_int_equal(machine_rows(m, SCHEMA_NODES), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_golden_transcript_holds),
        TEST(set_walks_before_it_looks_at_the_root),
        TEST(set_makes_parents_of_its_own_index_and_without_ttl),
        TEST(set_of_a_directory_is_refused_and_of_a_file_replaces_it),
        TEST(set_without_ttl_makes_a_key_permanent),
        TEST(a_failed_op_changes_nothing),
        TEST(create_checks_root_then_parents_then_existence),
        TEST(a_refresh_of_a_create_has_no_effect),
        TEST(in_order_keys_are_named_by_the_next_index),
        TEST(update_keeps_the_created_index),
        TEST(an_updated_directory_keeps_its_old_modified_index),
        TEST(compare_and_swap_compares_what_was_given),
        TEST(delete_takes_files_whatever_is_asked),
        TEST(delete_of_a_directory_counts_hidden_children),
        TEST(compare_and_delete_is_for_files),
        TEST(a_refresh_keeps_the_value_and_tells_nobody),
        TEST(a_refresh_of_a_directory_depends_on_the_op),
        TEST(a_ttl_of_zero_is_legal_and_expires_with_the_next_entry),
        TEST(a_ttl_that_overflows_is_permanent),
        TEST(keys_expire_in_order_of_their_deadlines),
        TEST(a_directory_takes_its_children_along_in_one_event),
        TEST(time_never_goes_back),
        TEST(a_directory_of_a_used_name_is_a_new_one),
        TEST(bookkeeping_costs_indexes),
        TEST(members_are_kept_and_removed_ids_for_good),
        TEST(what_nobody_could_have_sent_does_nothing),
        TEST(keys_are_bytes),
        TEST(long_names_expire_and_go_like_any_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
