/* test_codec.c: every message of the suite through the codec, and everything that is not one.
 *
 * Golden bytes: golden/<message>.hex is the sample of messages.h as it was encoded when the message was released. A new
 * message's file is written by running this test with QUORATE_GOLDEN_WRITE=1; an existing one is never written
 * again. */
#include "proto/codec.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/scan.h"
#include "tests/unit/proto/messages.h"

struct fixture {
    struct codec_scratch scratch;
    struct buf bytes;
    struct buf again;
    struct err err;
    struct sample in;
    struct sample out;
};

static int setup(void **state)
{
    *state = xcalloc(1, sizeof(struct fixture));
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    codec_scratch_fini(&f->scratch);
    buf_fini(&f->bytes);
    buf_fini(&f->again);
    free(f);
    return 0;
}

static int decode(struct fixture *f, const struct codec_message *shape, struct span input)
{
    f->err = (struct err){ 0 };
    codec_scratch_reset(&f->scratch);
    return codec_decode(shape, input, &f->out.message, &f->scratch, &f->err);
}

/* --- what is well-formed ------------------------------------------------------------------------------------ */

static void assert_same_message(
        struct fixture *f, const struct codec_message *shape, uint64_t fields_expected)
{
    assert_int_equal(f->out.message.present, fields_expected);
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct codec_field *field = &shape->fields[i];
        if ((fields_expected & (UINT64_C(1) << field->tag)) != 0 &&
                !sample_field_eq(
                        field, sample_member(&f->in, field), sample_member(&f->out, field))) {
            fail_msg("%s.%s differs", shape->name, field->name);
        }
    }
}

static void round_trip(struct fixture *f, const struct codec_message *shape, bool with_optional)
{
    sample_fill(&f->in, shape, with_optional);
    buf_clear(&f->bytes);
    codec_encode(shape, &f->in.message, &f->bytes);
    if (decode(f, shape, buf_span(&f->bytes)) < 0) {
        fail_msg("%s", f->err.text);
    }
    assert_same_message(f, shape, f->in.message.present);
    buf_clear(&f->again);
    codec_encode(shape, &f->out.message, &f->again);
    assert_true(span_eq(buf_span(&f->bytes), buf_span(&f->again)));
}

static void every_message_comes_back_as_it_was(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_COUNT(all_messages); i++) {
        round_trip(f, all_messages[i], true);
        round_trip(f, all_messages[i], false);
    }
    assert_int_equal(f->scratch.unknown_tags, 0);
}

static size_t count_in_file(const char *name, const char *needle)
{
    char path[512];
    char line[512];
    size_t count = 0;
    (void)snprintf(path, sizeof path, "%s/%s", PROTO_DIR, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        count += strncmp(line, needle, strlen(needle)) == 0;
    }
    (void)fclose(file);
    return count;
}

static void every_message_of_every_def_is_tested(void **state UNUSED)
{
    size_t count = 0;
    DIR *dir = opendir(PROTO_DIR);
    assert_non_null(dir);
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        size_t bytes = strlen(entry->d_name);
        if (bytes > 4 && strcmp(entry->d_name + bytes - 4, ".def") == 0) {
            count += count_in_file(entry->d_name, "MSG_BEGIN(");
        }
    }
    (void)closedir(dir);
    assert_int_equal(count, ARRAY_COUNT(all_messages));
}

static void tags_and_frame_types_are_used_once_and_in_range(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_COUNT(all_messages); i++) {
        const struct codec_message *shape = all_messages[i];
        uint64_t seen = 0;
        assert_in_range(shape->type, 1, 199);
        for (size_t j = 0; j < shape->field_count; j++) {
            uint64_t bit = UINT64_C(1) << shape->fields[j].tag;
            assert_in_range(shape->fields[j].tag, 1, CODEC_TAG_MAX);
            assert_int_equal(seen & bit, 0);
            seen |= bit;
        }
    }
}

/* --- golden bytes ------------------------------------------------------------------------------------------- */

static void golden_path(const struct codec_message *shape, char ret_path[512])
{
    (void)snprintf(ret_path, 512, "%s/%s.hex", GOLDEN_DIR, shape->name);
}

static void write_golden(struct fixture *f, const struct codec_message *shape)
{
    char path[512];
    golden_path(shape, path);
    sample_fill(&f->in, shape, true);
    buf_clear(&f->bytes);
    codec_encode(shape, &f->in.message, &f->bytes);
    FILE *file = fopen(path, "wx");
    if (file == NULL) {
        assert_int_equal(errno, EEXIST);
        return;
    }
    for (size_t i = 0; i < f->bytes.bytes; i++) {
        (void)fprintf(file, "%02x%s", f->bytes.data[i],
                i % 40 == 39 || i + 1 == f->bytes.bytes ? "\n" : "");
    }
    assert_int_equal(fclose(file), 0);
}

static void read_golden(const struct codec_message *shape, struct buf *out)
{
    char path[512];
    unsigned byte;
    golden_path(shape, path);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fail_msg("%s: no golden bytes", path);
    }
    while (fscanf(file, "%2x", &byte) == 1) {
        buf_append_byte(out, (uint8_t)byte);
    }
    (void)fclose(file);
    assert_true(out->bytes > 0);
}

static void every_golden_message_decodes_to_what_it_meant(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_COUNT(all_messages); i++) {
        const struct codec_message *shape = all_messages[i];
        if (getenv("QUORATE_GOLDEN_WRITE") != NULL) {
            write_golden(f, shape);
        }
        buf_clear(&f->bytes);
        read_golden(shape, &f->bytes);
        if (decode(f, shape, buf_span(&f->bytes)) < 0) {
            fail_msg("%s", f->err.text);
        }
        sample_fill(&f->in, shape, true);
        /* Optional fields may have come since; none may have gone. */
        assert_int_equal(f->out.message.present & ~f->in.message.present, 0);
        assert_same_message(f, shape, f->out.message.present);
    }
    assert_in_range(f->scratch.unknown_tags, 0, RETIRED_TAGS);
}

/* --- what is not -------------------------------------------------------------------------------------------- */

static void assert_refused(
        struct fixture *f, const struct codec_message *shape, struct span input, const char *text)
{
    assert_int_equal(decode(f, shape, input), -EBADMSG);
    assert_int_equal(f->err.code, -EBADMSG);
    if (strstr(f->err.text, text) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", f->err.text, text);
    }
}

#define ASSERT_REFUSED(shape, literal, text) assert_refused(f, shape, SPAN_LIT(literal), text)

/* member_change: { 1: op (bytes) }; skipped_to: { 1: u64, 2: u64 }; propose: { 1: ops (list) } */

static void a_missing_required_field_is_named(void **state)
{
    struct fixture *f = *state;
    ASSERT_REFUSED(&skipped_to_shape, "\x81\x01\x05", "skipped_to.etcd_index: missing");
    ASSERT_REFUSED(&skipped_to_shape, "\x80", "skipped_to.last_index: missing");
}

static void a_field_of_the_wrong_type_is_named(void **state)
{
    struct fixture *f = *state;
    ASSERT_REFUSED(&skipped_to_shape, "\x82\x01\xc4\x01x\x02\x05", "skipped_to.last_index: not an");
    ASSERT_REFUSED(&skipped_to_shape, "\x82\x01\xff\x02\x05", "skipped_to.last_index: not an");
    ASSERT_REFUSED(&member_change_shape, "\x81\x01\x05", "member_change.op: not bytes");
    ASSERT_REFUSED(&member_change_shape, "\x81\x01\xa1x", "member_change.op: not bytes");
    ASSERT_REFUSED(&propose_shape, "\x81\x01\xc4\x01x", "propose.ops: not a list");
    ASSERT_REFUSED(&propose_shape, "\x81\x01\x92\xc4\x01x\x05", "propose.ops: not bytes");
    ASSERT_REFUSED(&member_shape, "\x82\x01\x05\x05\x01", "member.learner: not true or false");
}

static void what_is_no_map_of_tags_is_refused(void **state)
{
    struct fixture *f = *state;
    ASSERT_REFUSED(&propose_shape, "\x91\x01", "propose: not a map");
    ASSERT_REFUSED(&propose_shape, "\x05", "propose: not a map");
    ASSERT_REFUSED(&propose_shape, "\x81\xa1x\x05", "propose: a key is not a tag");
    ASSERT_REFUSED(&propose_shape, "", "propose");
}

static void an_oversized_value_is_named_with_its_limit(void **state)
{
    struct fixture *f = *state;
    struct buf *bytes = &f->bytes;
    static const uint8_t head[] = { 0x82, 0x01, 0xc4, 65 };
    static const uint8_t item_head[] = { 0x83, 0x01, 0x02, 0x02, 0x91, 0xc4, 9 };

    buf_append(bytes, head, sizeof head); /* status.component: 64 at most */
    memset(buf_reserve(bytes, 65), 'x', 65);
    bytes->bytes += 65;
    buf_append(bytes, "\x02\xc4\x00", 3);
    assert_refused(f, &status_shape, buf_span(bytes), "status.component: 65 bytes, limit 64");

    buf_clear(bytes); /* propose_refused.counters: items of 8 */
    buf_append(bytes, item_head, sizeof item_head);
    buf_append(bytes, "123456789\x05\xc0", 11);
    assert_refused(f, &propose_refused_shape, buf_span(bytes),
            "propose_refused.counters: 9 bytes, limit 8");
}

static void a_tag_that_comes_twice_is_refused(void **state)
{
    struct fixture *f = *state;
    ASSERT_REFUSED(
            &skipped_to_shape, "\x83\x01\x05\x02\x05\x01\x06", "skipped_to.last_index: twice");
}

static void trailing_bytes_are_refused(void **state)
{
    struct fixture *f = *state;
    ASSERT_REFUSED(&skipped_to_shape, "\x82\x01\x05\x02\x05\xc0", "skipped_to: 1 bytes too many");
}

static void an_input_cut_anywhere_is_refused_by_name(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_COUNT(all_messages); i++) {
        sample_fill(&f->in, all_messages[i], true);
        buf_clear(&f->bytes);
        codec_encode(all_messages[i], &f->in.message, &f->bytes);
        for (size_t cut = 0; cut < f->bytes.bytes; cut++) {
            /* A copy of its own, so that a sanitizer sees a read beyond it. */
            uint8_t *exact = xmalloc(cut + 1);
            memcpy(exact + 1, f->bytes.data, cut);
            assert_refused(f, all_messages[i], span_of(exact + 1, cut), all_messages[i]->name);
            free(exact);
        }
    }
}

static void the_field_that_is_cut_is_named(void **state)
{
    struct fixture *f = *state;
    ASSERT_REFUSED(
            &skipped_to_shape, "\x82\x01\x05\x02\xcd\x01", "skipped_to.etcd_index: cut short");
    ASSERT_REFUSED(&propose_shape, "\x81\x01\x92\xc4\x01x\xc4\x05x", "propose.ops: cut short");
    ASSERT_REFUSED(&propose_shape, "\x81\x01\xc1", "propose.ops: cut short or malformed");
    ASSERT_REFUSED(&propose_shape, "\x81\x3d\xc1", "propose, unknown tag 61");
}

static void a_count_above_the_bytes_left_is_refused_unread(void **state)
{
    struct fixture *f = *state;
    ASSERT_REFUSED(&propose_shape, "\xdd\x01\x00\x00\x00", "a count of 16777216");
    ASSERT_REFUSED(&propose_shape, "\xdf\xff\xff\xff\xff", "a count of 8589934590");
    ASSERT_REFUSED(&propose_shape, "\x81\x01\xdd\xff\xff\xff\xff", "propose.ops: a count");
    ASSERT_REFUSED(&propose_shape, "\x81\x01\xdc\x00\x02\xc0", "propose.ops: a count of 2");
    ASSERT_REFUSED(&propose_shape, "\x81\x01\xc6\xff\xff\xff\xff", "propose.ops: cut short");
    ASSERT_REFUSED(&propose_shape, "\x81\x01\xdb\xff\xff\xff\xff", "propose.ops: cut short");
    ASSERT_REFUSED(&propose_shape, "\x81\x01\xc9\xff\xff\xff\xff", "propose.ops: cut short");
    /* Each count alone is covered, both together are not. */
    ASSERT_REFUSED(&propose_shape, "\x81\x01\x94\x93\xc0\xc0\xc0\xc0", "a count");
}

static void nesting_beyond_eight_is_refused(void **state)
{
    struct fixture *f = *state;
    /* The unknown field's value may nest seven deep within the map, not eight. */
    assert_int_equal(codec_scan(SPAN_LIT("\x81\x3d\x91\x91\x91\x91\x91\x91\x91\xc0"), &f->err), 0);
    ASSERT_REFUSED(
            &propose_shape, "\x81\x3d\x91\x91\x91\x91\x91\x91\x91\x91\xc0", "nested deeper than 8");
}

static void more_than_a_million_objects_are_refused(void **state)
{
    struct fixture *f = *state;
    size_t count = SCAN_OBJECTS_MAX;
    uint8_t head[] = { 0xdd, (uint8_t)(count >> 24), (uint8_t)(count >> 16), (uint8_t)(count >> 8),
        (uint8_t)count };
    buf_append(&f->bytes, head, sizeof head);
    memset(buf_reserve(&f->bytes, count), 0xc0, count);
    f->bytes.bytes += count;
    assert_int_equal(codec_scan(buf_span(&f->bytes), &f->err), -EBADMSG);
    assert_non_null(strstr(f->err.text, "more than 1048576 objects"));
    f->bytes.data[2] = 0x0f; /* one fewer: 0x0fffff items and their list */
    f->bytes.data[3] = 0xff;
    f->bytes.data[4] = 0xff;
    f->bytes.bytes--;
    assert_int_equal(codec_scan(buf_span(&f->bytes), &f->err), 0);
}

static void an_err_is_not_needed_to_refuse(void **state)
{
    struct fixture *f = *state;
    struct span cut = SPAN_LIT("\x82\x01\x05\x02\xcd\x01");
    assert_int_equal(
            codec_decode(&skipped_to_shape, cut, &f->out.message, &f->scratch, NULL), -EBADMSG);
    assert_int_equal(codec_scan(cut, NULL), -EBADMSG);
}

/* --- neighbouring versions ----------------------------------------------------------------------------------- */

static void unknown_tags_are_skipped_and_counted(void **state)
{
    struct fixture *f = *state;
    struct span input = SPAN_LIT("\x86\x01\x05\x3d\x93\xc0\x81\x01\xca\x00\x00\x00\x00\xd4\x01\x02"
                                 "\x02\x06\x3e\xa3"
                                 "abc\xcd\x10\x00\xc3\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xe0");
    struct skipped_to *message = (void *)&f->out.message;
    if (decode(f, &skipped_to_shape, input) < 0) {
        fail_msg("%s", f->err.text);
    }
    assert_int_equal(message->last_index, 5);
    assert_int_equal(message->etcd_index, 6);
    assert_int_equal(f->scratch.unknown_tags, 4);
}

static void fields_in_any_order_and_long_forms_are_understood(void **state)
{
    struct fixture *f = *state;
    struct skipped_to *message = (void *)&f->out.message;
    assert_int_equal(decode(f, &skipped_to_shape,
                             SPAN_LIT("\xde\x00\x02\xcd\x00\x02\xcf\x00\x00\x00\x00\x00\x00\x00"
                                      "\x06\x01\xcc\x05")),
            0);
    assert_int_equal(message->last_index, 5);
    assert_int_equal(message->etcd_index, 6);
}

/* --- scratch -------------------------------------------------------------------------------------------------- */

static void encode_ops(struct buf *out, size_t count)
{
    struct span *items = xcalloc(count + 1, sizeof items[0]);
    for (size_t i = 0; i < count; i++) {
        items[i] = span_of(i % 2 == 0 ? "even" : "odd!", 4);
    }
    propose_encode(&(struct propose){ .ops = { items, count } }, out);
    free(items);
}

static void lists_stay_where_they_are_until_the_scratch_is_reset(void **state)
{
    struct fixture *f = *state;
    struct propose small;
    struct propose large;
    encode_ops(&f->bytes, 3);
    encode_ops(&f->again, 100000);
    assert_int_equal(propose_decode(buf_span(&f->bytes), &small, &f->scratch, NULL), 0);
    assert_int_equal(propose_decode(buf_span(&f->again), &large, &f->scratch, NULL), 0);
    assert_int_equal(small.ops.count, 3);
    assert_int_equal(large.ops.count, 100000);
    assert_true(span_eq(small.ops.items[1], SPAN_LIT("odd!")));
    assert_true(span_eq(large.ops.items[99999], SPAN_LIT("odd!")));
    codec_scratch_reset(&f->scratch);
    assert_int_equal(propose_decode(buf_span(&f->bytes), &small, &f->scratch, NULL), 0);
    assert_true(span_eq(small.ops.items[2], SPAN_LIT("even")));
}

static void an_empty_list_needs_no_scratch(void **state)
{
    struct fixture *f = *state;
    struct propose message;
    encode_ops(&f->bytes, 0);
    assert_int_equal(propose_decode(buf_span(&f->bytes), &message, &f->scratch, NULL), 0);
    assert_int_equal(message.ops.count, 0);
    assert_int_equal(f->scratch.capacity, 0);
}

/* --- print ----------------------------------------------------------------------------------------------------- */

static void a_message_prints_on_one_line_escaped_and_cut(void **state)
{
    struct fixture *f = *state;
    char path[70];
    struct span url = SPAN_LIT("http://a");
    memset(path, 'p', sizeof path);
    struct op op = { .kind = 2,
        .path = span_of(path, sizeof path),
        .value = SPAN_LIT("a\"b\n"),
        .dir = true,
        .peer_urls = { &url, 1 } };
    SET(&op, op_tag_path);
    SET(&op, op_tag_value);
    SET(&op, op_tag_dir);
    SET(&op, op_tag_peer_urls);
    codec_print(&op_shape, &op, &f->bytes);
    buf_append_byte(&f->bytes, 0);
    assert_string_equal((const char *)f->bytes.data,
            "op{kind=2 instance=0 counter=0 "
            "path=\"pppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp\"...(70 "
            "bytes) "
            "value=\"a\\\"b\\x0a\" dir=true peer_urls=[\"http://a\"]}");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_message_comes_back_as_it_was),
        TEST(every_message_of_every_def_is_tested),
        TEST(tags_and_frame_types_are_used_once_and_in_range),
        TEST(every_golden_message_decodes_to_what_it_meant),
        TEST(a_missing_required_field_is_named),
        TEST(a_field_of_the_wrong_type_is_named),
        TEST(what_is_no_map_of_tags_is_refused),
        TEST(an_oversized_value_is_named_with_its_limit),
        TEST(a_tag_that_comes_twice_is_refused),
        TEST(trailing_bytes_are_refused),
        TEST(an_input_cut_anywhere_is_refused_by_name),
        TEST(the_field_that_is_cut_is_named),
        TEST(a_count_above_the_bytes_left_is_refused_unread),
        TEST(nesting_beyond_eight_is_refused),
        TEST(more_than_a_million_objects_are_refused),
        TEST(an_err_is_not_needed_to_refuse),
        TEST(unknown_tags_are_skipped_and_counted),
        TEST(fields_in_any_order_and_long_forms_are_understood),
        TEST(lists_stay_where_they_are_until_the_scratch_is_reset),
        TEST(an_empty_list_needs_no_scratch),
        TEST(a_message_prints_on_one_line_escaped_and_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
