/* test_care.c: readers that hold back pages, pages that cannot be read, and a disk that fails elsewhere. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/conf.h"
#include "common/sigbus.h"
#include "common/state/state.h"
#include "daemons/stored/stored_impl.h"
#include "tests/unit/stored/ring.h"
#include "tests/unit/synclog.h"

enum {
    FILE_BYTES = 1 << 20
};

/* A process that begins to read, says so, and then hangs. */
static pid_t start_stuck_reader(struct ring *f)
{
    char dir[STATE_PATH_BYTES_MAX];
    char byte;
    int pipe_ends[2];

    (void)snprintf(dir, sizeof dir, "%s/member/state/0000000000000001", f->data);
    assert_int_equal(pipe(pipe_ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct state *state = NULL;
        struct state_read *read_ = NULL;
        /* The parent's locks on the file are not ours, so this is a process like any other. */
        if (state_open_readonly(dir, 64 << 20, &state, NULL) < 0 ||
                state_read_new(state, &read_, NULL) < 0 || state_read_begin(read_, NULL) < 0 ||
                write(pipe_ends[1], "r", 1) != 1) {
            _exit(1);
        }
        for (;;) {
            (void)pause();
        }
    }
    assert_int_equal(read(pipe_ends[0], &byte, 1), 1);
    (void)close(pipe_ends[0]);
    (void)close(pipe_ends[1]);
    return child;
}

static int notify_fd = -1;
static char notify_text[256];

/* The supervisor's socket hears X_QUORATE_END_PID; writes go on meanwhile. */
static bool supervisor_is_asked(struct ring *f)
{
    char text[256];
    ssize_t bytes;

    if (ring_is_applied(f) && f->beacons > 0) {
        f->beacons = 0;
        ring_send_batch(f, f->index, 1, 0);
    }
    while ((bytes = recv(notify_fd, text, sizeof text - 1, MSG_DONTWAIT)) > 0) {
        text[bytes] = '\0';
        if (strncmp(text, "X_QUORATE_END_PID=", 18) == 0) {
            (void)snprintf(notify_text, sizeof notify_text, "%s", text + 18);
            return true;
        }
    }
    return false;
}

static void a_reader_that_stays_is_reported_to_the_supervisor(void **state)
{
    struct ring *f = *state;
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/notify", f->dir);
    assert_int_equal(bind(notify_fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(setenv("NOTIFY_SOCKET", address.sun_path, 1), 0);
    ring_go_and_apply(f, 3);
    ring_subscribe(f);
    pid_t reader = start_stuck_reader(f);
    ring_wait(f, supervisor_is_asked);
    assert_int_equal(strtol(notify_text, NULL, 10), reader);
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    assert_int_equal(kill(reader, SIGKILL), 0);
    assert_int_equal(waitpid(reader, NULL, 0), reader);
    (void)close(notify_fd);
}

static struct {
    pid_t pid;
    bool is_there;
} looked_for;

static void on_listed_reader(void *user, uint64_t pid, uint64_t txn_id)
{
    (void)user;
    (void)txn_id;
    looked_for.is_there |= pid == (uint64_t)looked_for.pid;
}

/* Whether a transaction of the process still holds pages back. */
static bool is_listed(struct ring *f)
{
    looked_for.is_there = false;
    state_writer_reader_list(
            replica_writer(generations_replica(f->stored->generations)), on_listed_reader, NULL);
    return looked_for.is_there;
}

static bool is_freed(struct ring *f)
{
    return !is_listed(f);
}

/* In the middle of a read. */
static void kill_a_reader(struct ring *f)
{
    looked_for.pid = start_stuck_reader(f);
    assert_true(is_listed(f));
    assert_int_equal(kill(looked_for.pid, SIGKILL), 0);
    assert_int_equal(waitpid(looked_for.pid, NULL, 0), looked_for.pid);
}

static void the_slots_of_a_killed_reader_are_freed_by_looking_again_and_again(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, 3);
    kill_a_reader(f);
    assert_true(is_listed(f));
    ring_wait_quietly(f, is_freed);
}

static bool is_alone(struct ring *f)
{
    return subscribers_count(f->stored) == 0;
}

/* Not a second later: by then the file may have grown by all that was written. */
static void the_slots_of_a_lost_subscriber_are_freed_at_once(void **state)
{
    struct ring *f = *state;

    ring_go_and_apply(f, 3);
    ring_subscribe(f);
    ring_wait(f, ring_has_beacon);
    kill_a_reader(f);
    f->gateway = link_hub_close(f->gateway);
    f->applied = NULL;
    ring_wait_quietly(f, is_alone);
    assert_false(is_listed(f));
}

static unsigned words(struct ring *f)
{
    DIR *stream = opendir(f->shared);
    const struct dirent *entry;
    unsigned count = 0;

    assert_non_null(stream);
    while ((entry = readdir(stream)) != NULL) {
        count += entry->d_name[0] != '.';
    }
    (void)closedir(stream);
    return count;
}

static bool has_no_word(struct ring *f)
{
    return words(f) == 0;
}

static bool has_hello_again(struct ring *f)
{
    return f->hellos > 0 && f->apply != NULL;
}

static void a_snapshot_that_the_disk_refuses_ends_the_trust_in_the_state(void **state)
{
    struct ring *f = *state;

    (void)snprintf(f->shared, sizeof f->shared, "/dev/shm/quorate-test.XXXXXX");
    assert_non_null(mkdtemp(f->shared));
    ring_restart_stored(f);
    ring_wait(f, has_hello_again);
    ring_go_and_apply(f, SNAPSHOT_COUNT);
    assert_int_equal(words(f), 1);
    synclog_fail(".snap");
    ring_send_batch(f, SNAPSHOT_COUNT, 1, 1 << 20);
    ring_wait_quietly(f, has_no_word);
    assert_true(synclog_failed() > 0);
    synclog_fail(NULL);
    /* It is written to as before. */
    ring_send_batch(f, f->index, 1, 0);
    ring_wait(f, ring_is_applied);
    assert_int_equal(words(f), 0);
    scratch_remove(f->shared);
}

enum guard {
    UNGUARDED,
    GUARDED_OPENING, /* not known yet where it is mapped */
    GUARDED,
};

/* Touches a page whose file was cut; returns the exit status. */
static int touch_lost_page(const char *path, enum guard guard, const char *mark, const char *note)
{
    int status = 0;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 || ftruncate(fd, FILE_BYTES) < 0) {
            _exit(10);
        }
        volatile uint8_t *at = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
        (void)signal(SIGBUS, SIG_DFL);
        (void)close(open("/dev/null", O_WRONLY | O_CLOEXEC));
        (void)dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
        if (guard != UNGUARDED) {
            sigbus_guard(&(struct sigbus_guarded){ "test.unreadable", path, mark, note, 77 });
        }
        if (guard == GUARDED && !sigbus_mapped()) {
            _exit(11);
        }
        if (ftruncate(fd, 0) < 0) {
            _exit(12);
        }
        _exit(at[5000] != 0 ? 13 : 14);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void a_page_that_cannot_be_read_ends_the_process_and_the_trust(void **state)
{
    struct ring *f = *state;
    char path[128];
    char mark[128];
    char note[128];
    char text[24] = "";

    (void)snprintf(path, sizeof path, "%s/page", f->dir);
    (void)snprintf(mark, sizeof mark, "%s/mark", f->dir);
    (void)snprintf(note, sizeof note, "%s/note", f->dir);
    for (enum guard guard = GUARDED_OPENING; guard <= GUARDED; guard++) {
        assert_int_equal(close(open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
        assert_int_equal(touch_lost_page(path, guard, mark, note), CONF_EXIT_STORAGE);
        assert_int_equal(access(mark, F_OK), -1);
        int fd = open(note, O_RDONLY | O_CLOEXEC);
        assert_int_equal(read(fd, text, sizeof text), 2);
        assert_string_equal(text, "77");
        (void)close(fd);
        assert_int_equal(unlink(note), 0);
        assert_int_equal(touch_lost_page(path, guard, NULL, NULL), CONF_EXIT_STORAGE);
    }
    assert_int_equal(touch_lost_page(path, UNGUARDED, NULL, NULL), -SIGBUS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ring_set_up, ring_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_reader_that_stays_is_reported_to_the_supervisor),
        TEST(the_slots_of_a_killed_reader_are_freed_by_looking_again_and_again),
        TEST(the_slots_of_a_lost_subscriber_are_freed_at_once),
        TEST(a_snapshot_that_the_disk_refuses_ends_the_trust_in_the_state),
        TEST(a_page_that_cannot_be_read_ends_the_process_and_the_trust),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
