/* test_care.c: readers that hold back pages, and pages that cannot be read. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/sigbus.h"
#include "common/state/state.h"
#include "tests/unit/stored/ring.h"

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

/* Touches a page whose file was cut; returns the exit status. */
static int touch_lost_page(const char *path, bool guard, uint64_t *nonce)
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
        if (guard && !sigbus_guard("test.unreadable", path, nonce)) {
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
    uint64_t *nonce = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    *nonce = 77;
    (void)snprintf(path, sizeof path, "%s/page", f->dir);
    assert_int_equal(touch_lost_page(path, true, nonce), 3);
    assert_int_equal(*nonce, 0);
    assert_int_equal(touch_lost_page(path, false, NULL), -SIGBUS);
    assert_int_equal(munmap(nonce, 4096), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ring_set_up, ring_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_reader_that_stays_is_reported_to_the_supervisor),
        TEST(a_page_that_cannot_be_read_ends_the_process_and_the_trust),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
