/* test_snapshot_transfer.c: a snapshot file from one member to another: an outgoing and an incoming side, joined by a
 * queue of messages that the test carries, loses, or spoils. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sodium.h>

#include "common/list.h"
#include "common/loop.h"
#include "daemons/raftd/incoming.h"
#include "daemons/raftd/outgoing.h"
#include "tests/unit/scratch.h"
#include "tests/unit/synclog.h"

enum {
    FILE_BYTES = 3 * 1024 * 1024 + 17,
    QUIET_MS = 1000,
    GIVE_UP_MS = 30000,
    INDEX = 42,
    TERM = 3,
};

/* A message to the member that receives. */
struct letter {
    struct list node;
    unsigned type;
    struct buf body;
};

struct lab {
    char root[SCRATCH_PATH_MAX];
    char from[128]; /* the file as sent */
    char snap[80];  /* the receiver's folder */
    char arrived[160];
    struct loop *loop;
    struct outgoing *outgoing;
    struct incoming *incoming;
    struct list letters;
    struct codec_scratch scratch;
    uint64_t now_ms;
    size_t chunks; /* carried so far */
    size_t files;  /* that arrived */
    enum outgoing_state state;
    bool answers_are_lost;
};

static bool post(void *user, unsigned type, struct span body)
{
    struct lab *lab = user;
    struct letter *letter = xcalloc(1, sizeof *letter);

    letter->type = type;
    buf_append_span(&letter->body, body);
    list_append(&lab->letters, &letter->node);
    return true;
}

static void on_answer(void *user, uint64_t to, const struct snapshot_want *want)
{
    struct lab *lab = user;

    assert_int_equal(to, 1);
    if (!lab->answers_are_lost && lab->state == OUTGOING_UNDER_WAY) {
        lab->state = outgoing_on_want(lab->outgoing, want, lab->now_ms, QUIET_MS, post, lab);
    }
    if (want->done || want->refused) {
        loop_stop(lab->loop);
    }
}

static void on_file(void *user, uint64_t from, struct span message, struct span configuration)
{
    struct lab *lab = user;

    assert_int_equal(from, 1);
    assert_true(span_eq(message, SPAN_LIT("message")));
    assert_true(span_eq(configuration, SPAN_LIT("configuration")));
    lab->files++;
}

static const struct incoming_events events = { .answer = on_answer, .on_file = on_file };

static void make_file(const char *path, bool is_good)
{
    uint8_t *bytes = xmalloc(FILE_BYTES);
    crypto_generichash_state hash;

    for (size_t i = 0; i < FILE_BYTES; i++) {
        bytes[i] = (uint8_t)(i * 31 + i / 251);
    }
    (void)crypto_generichash_init(&hash, NULL, 0, TRANSFER_DIGEST_BYTES);
    (void)crypto_generichash_update(&hash, bytes, FILE_BYTES - TRANSFER_DIGEST_BYTES);
    (void)crypto_generichash_final(
            &hash, bytes + FILE_BYTES - TRANSFER_DIGEST_BYTES, TRANSFER_DIGEST_BYTES);
    bytes[1000] ^= !is_good;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, FILE_BYTES), FILE_BYTES);
    assert_int_equal(close(fd), 0);
    free(bytes);
}

static void begin_sending(struct lab *lab)
{
    struct err err = { 0 };

    lab->outgoing = outgoing_free(lab->outgoing);
    assert_int_equal(outgoing_new(lab->from, INDEX, TERM, SPAN_LIT("message"),
                             SPAN_LIT("configuration"), &lab->outgoing, &err),
            0);
    lab->state = OUTGOING_UNDER_WAY;
}

static int set_up(void **state)
{
    struct lab *lab = xcalloc(1, sizeof *lab);

    assert_true(scratch_make(lab->root));
    (void)snprintf(lab->from, sizeof lab->from, "%s/from", lab->root);
    (void)snprintf(lab->snap, sizeof lab->snap, "%s/snap", lab->root);
    (void)snprintf(
            lab->arrived, sizeof lab->arrived, "%s/%016x-%016x.snap", lab->snap, TERM, INDEX);
    assert_int_equal(mkdir(lab->snap, 0700), 0);
    list_init(&lab->letters);
    lab->loop = loop_new();
    lab->now_ms = 1000;
    lab->incoming = incoming_new(lab->loop, lab->snap, &events, lab);
    make_file(lab->from, true);
    begin_sending(lab);
    *state = lab;
    return 0;
}

static void drop_letters(struct lab *lab)
{
    LIST_FOREACH (letter, &lab->letters, struct letter, node) {
        list_remove(&letter->node);
        buf_fini(&letter->body);
        free(letter);
    }
}

static int tear_down(void **state)
{
    struct lab *lab = *state;

    drop_letters(lab);
    lab->outgoing = outgoing_free(lab->outgoing);
    lab->incoming = incoming_free(lab->incoming);
    lab->loop = loop_free(lab->loop);
    codec_scratch_fini(&lab->scratch);
    scratch_remove(lab->root);
    free(lab);
    return 0;
}

static void deliver(struct lab *lab, const struct letter *letter)
{
    struct snapshot_offer offer;
    struct snapshot_chunk chunk;

    codec_scratch_reset(&lab->scratch);
    if (letter->type == snapshot_offer_type) {
        assert_int_equal(
                snapshot_offer_decode(buf_span(&letter->body), &offer, &lab->scratch, NULL), 0);
        incoming_on_offer(lab->incoming, 1, &offer);
    } else {
        assert_int_equal(letter->type, snapshot_chunk_type);
        assert_int_equal(
                snapshot_chunk_decode(buf_span(&letter->body), &chunk, &lab->scratch, NULL), 0);
        lab->chunks++;
        incoming_on_chunk(lab->incoming, 1, &chunk);
    }
}

static struct letter *first_letter(struct lab *lab)
{
    return list_is_empty(&lab->letters) ? NULL
                                        : CONTAINER_OF(lab->letters.next, struct letter, node);
}

static void carry_first(struct lab *lab)
{
    struct letter *letter = first_letter(lab);

    list_remove(&letter->node);
    deliver(lab, letter);
    buf_fini(&letter->body);
    free(letter);
}

/* Carries letters until none is left, or chunks_max chunks have been carried. */
static void carry(struct lab *lab, size_t chunks_max)
{
    while (!list_is_empty(&lab->letters) && lab->chunks < chunks_max) {
        carry_first(lab);
    }
}

static void tick(struct lab *lab, uint64_t after_ms)
{
    lab->now_ms += after_ms;
    lab->state = outgoing_tick(lab->outgoing, lab->now_ms, QUIET_MS, GIVE_UP_MS, post, lab);
}

static void assert_arrived(struct lab *lab)
{
    char command[512];

    assert_int_equal(lab->state, OUTGOING_DONE);
    assert_int_equal(lab->files, 1);
    (void)snprintf(command, sizeof command, "cmp -s '%s' '%s'", lab->from, lab->arrived);
    assert_int_equal(system(command), 0);
}

static void a_file_arrives_as_it_was(void **state)
{
    struct lab *lab = *state;

    tick(lab, 0);
    carry(lab, SIZE_MAX);
    loop_run(lab->loop); /* until the check answers */
    assert_arrived(lab);
}

/* Only then may the log stand on it. */
static void a_file_is_on_disk_before_it_has_its_name_and_is_told_of(void **state)
{
    struct lab *lab = *state;

    tick(lab, 0);
    synclog_begin();
    carry(lab, SIZE_MAX);
    loop_run(lab->loop);
    assert_string_equal(synclog_text(),
            "write 0000000000000003-000000000000002a.part\n"
            "sync 0000000000000003-000000000000002a.part\n"
            "rename 0000000000000003-000000000000002a.part 0000000000000003-000000000000002a.snap\n"
            "sync snap\n");
    assert_int_equal(lab->files, 1);
}

static void fail_to_receive(struct lab *lab, const char *part)
{
    tick(lab, 0);
    synclog_fail_syncs(part);
    carry(lab, SIZE_MAX);
    loop_run(lab->loop);
    assert_true(synclog_failed() > 0);
    synclog_fail(NULL);
    assert_int_equal(lab->state, OUTGOING_FAILED);
    assert_int_equal(lab->files, 0);
}

/* What the kernel kept of it is unknown: a second sync would say that all is well. */
static void what_could_not_be_synced_is_received_anew(void **state)
{
    struct lab *lab = *state;
    const char *const parts[] = { ".part", "/snap/" };

    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        fail_to_receive(lab, parts[i]);
        assert_int_not_equal(access(lab->arrived, F_OK), 0);
        begin_sending(lab);
    }
    size_t before = lab->chunks;
    tick(lab, 0);
    carry(lab, SIZE_MAX);
    loop_run(lab->loop);
    assert_arrived(lab);
    assert_true((lab->chunks - before) * PEER_CHUNK_BYTES_MAX >= FILE_BYTES);
}

static unsigned threads_refused; /* by the host, from now on */

int pthread_create(
        pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *user)
{
    static int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

    if (threads_refused > 0) {
        threads_refused--;
        return EAGAIN;
    }
    if (create == NULL) {
        void *symbol = dlsym(RTLD_NEXT, "pthread_create");
        memcpy(&create, &symbol, sizeof create);
    }
    return create(thread, attributes, run, user);
}

static void what_no_thread_could_check_is_checked_when_it_is_offered_again(void **state)
{
    struct lab *lab = *state;

    tick(lab, 0);
    threads_refused = 1;
    carry(lab, SIZE_MAX);
    loop_run(lab->loop); /* ended by the refusal already */
    assert_int_equal(threads_refused, 0);
    assert_int_equal(lab->state, OUTGOING_FAILED);
    assert_int_equal(lab->files, 0);
    begin_sending(lab);
    size_t before = lab->chunks;
    tick(lab, 0);
    carry(lab, SIZE_MAX);
    loop_run(lab->loop);
    assert_arrived(lab);
    assert_int_equal(lab->chunks, before);
}

static void after_a_break_it_goes_on_where_it_was(void **state)
{
    struct lab *lab = *state;

    tick(lab, 0);
    carry(lab, 5);
    assert_int_equal(lab->chunks, 5);
    drop_letters(lab);
    tick(lab, QUIET_MS / 2);
    assert_true(list_is_empty(&lab->letters)); /* not quiet for long enough */
    tick(lab, QUIET_MS);
    carry(lab, SIZE_MAX);
    loop_run(lab->loop);
    assert_arrived(lab);
    assert_true(lab->chunks <= 5 + FILE_BYTES / (64 * 1024));
}

static void after_a_restart_of_the_receiver_it_goes_on_where_it_was(void **state)
{
    struct lab *lab = *state;

    tick(lab, 0);
    carry(lab, 20);
    drop_letters(lab);
    lab->incoming = incoming_free(lab->incoming);
    lab->incoming = incoming_new(lab->loop, lab->snap, &events, lab);
    size_t before = lab->chunks;
    tick(lab, QUIET_MS + 1);
    carry(lab, SIZE_MAX);
    loop_run(lab->loop);
    assert_arrived(lab);
    size_t after = lab->chunks - before;
    assert_true(after * PEER_CHUNK_BYTES_MAX < FILE_BYTES + (size_t)PEER_CHUNK_BYTES_MAX);
}

static void a_file_that_is_there_already_is_checked_and_not_sent_again(void **state)
{
    struct lab *lab = *state;

    tick(lab, 0);
    carry(lab, SIZE_MAX);
    loop_run(lab->loop);
    assert_arrived(lab);
    begin_sending(lab);
    lab->files = 0;
    lab->chunks = 0;
    tick(lab, 0);
    carry(lab, SIZE_MAX);
    loop_run(lab->loop);
    assert_arrived(lab);
    assert_int_equal(lab->chunks, 0);
}

static void a_spoiled_file_is_refused_and_not_kept(void **state)
{
    struct lab *lab = *state;

    make_file(lab->from, false);
    begin_sending(lab);
    tick(lab, 0);
    carry(lab, SIZE_MAX);
    loop_run(lab->loop);
    assert_int_equal(lab->state, OUTGOING_FAILED);
    assert_int_equal(lab->files, 0);
    assert_int_not_equal(access(lab->arrived, F_OK), 0);
}

static bool has_all(const struct lab *lab)
{
    char part[160];
    struct stat stat_part;

    (void)snprintf(part, sizeof part, "%s/recv/%016x-%016x.part", lab->snap, TERM, INDEX);
    return access(lab->arrived, F_OK) == 0 ||
           (stat(part, &stat_part) == 0 && stat_part.st_size == FILE_BYTES);
}

/* Letters leave one after the other, so many bytes with each tick of 100 ms. Yields how many bytes it took until
 * the file was there; more than twice its own are too many. */
static size_t carry_over_a_thin_link(struct lab *lab, size_t tick_bytes)
{
    const struct letter *letter;
    size_t carried = 0;
    size_t room = 0;

    do {
        tick(lab, 100);
        room = list_is_empty(&lab->letters) ? 0 : room + tick_bytes;
        while ((letter = first_letter(lab)) != NULL && letter->body.bytes <= room) {
            room -= letter->body.bytes;
            carried += letter->body.bytes;
            carry_first(lab);
        }
    } while (
            lab->state == OUTGOING_UNDER_WAY && carried <= 2 * (size_t)FILE_BYTES && !has_all(lab));
    return carried;
}

/* Each answer to an offer that was said again passed for news of a break, and what was under way was sent again. */
static void over_a_thin_link_it_goes_once(void **state)
{
    struct lab *lab = *state;
    static const size_t rates[] = { 12500, 3200, 1600, 800 }; /* 1 Mbit/s ... 64 kbit/s */

    for (size_t i = 0; i < ARRAY_COUNT(rates); i++) {
        size_t carried = carry_over_a_thin_link(lab, rates[i]);
        assert_true(has_all(lab));
        assert_true(carried < FILE_BYTES + FILE_BYTES / 8);
        loop_run(lab->loop);
        assert_arrived(lab);
        drop_letters(lab);
        assert_int_equal(unlink(lab->arrived), 0);
        lab->files = 0;
        begin_sending(lab);
    }
}

static void who_heard_after_the_look_at_the_clock_goes_on(void **state)
{
    struct lab *lab = *state;

    tick(lab, 1000);
    carry(lab, 3);
    tick(lab, UINT64_MAX); /* a millisecond back */
    assert_int_equal(lab->state, OUTGOING_UNDER_WAY);
}

static void who_hears_nothing_gives_up(void **state)
{
    struct lab *lab = *state;

    tick(lab, 0);
    for (uint64_t waited = 0; waited <= GIVE_UP_MS; waited += QUIET_MS + 1) {
        assert_int_equal(lab->state, OUTGOING_UNDER_WAY);
        drop_letters(lab);
        tick(lab, QUIET_MS + 1);
    }
    assert_int_equal(lab->state, OUTGOING_FAILED);
}

static void no_more_is_under_way_than_the_limit(void **state)
{
    struct lab *lab = *state;
    size_t bytes = 0;

    tick(lab, 0);
    carry(lab, 12); /* answers were quick: the window has grown */
    LIST_FOREACH (letter, &lab->letters, struct letter, node) {
        bytes += letter->body.bytes;
    }
    assert_true(bytes > 256 * 1024);
    assert_true(bytes < 1024 * 1024 + 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_arrives_as_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
                a_file_is_on_disk_before_it_has_its_name_and_is_told_of, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
                what_could_not_be_synced_is_received_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
                what_no_thread_could_check_is_checked_when_it_is_offered_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(after_a_break_it_goes_on_where_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
                after_a_restart_of_the_receiver_it_goes_on_where_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
                a_file_that_is_there_already_is_checked_and_not_sent_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_spoiled_file_is_refused_and_not_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(over_a_thin_link_it_goes_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
                who_heard_after_the_look_at_the_clock_goes_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_hears_nothing_gives_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_more_is_under_way_than_the_limit, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
