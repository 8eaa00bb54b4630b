/* test_generations.c: what of the state is trusted after what kind of end, and that taking a new state's place can be
 * interrupted anywhere. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemons/stored/files.h"
#include "daemons/stored/generations.h"
#include "daemons/stored/snapshot.h"
#include "tests/unit/stored/machine.h"

enum {
    MAP_BYTES = 64 << 20
};

/* A kernel before 6.8 does not know of mount ids that are never given out twice. */
static bool is_old_kernel;

int statx(int dir_fd, const char *path, int flags, unsigned mask, struct statx *ret_stat)
{
    const unsigned unique = 0x4000;
    return (int)syscall(
            SYS_statx, dir_fd, path, flags, is_old_kernel ? mask & ~unique : mask, ret_stat);
}

struct fixture {
    char dir[SCRATCH_PATH_MAX]; /* the state */
    char shared[64];            /* the word: on tmpfs */
    char sys[96];               /* a sysfs of the test's own; empty: the host's */
    struct generations *generations;
    uint64_t index;
};

static struct generations_config config_of(struct fixture *f, const char *boot_id)
{
    return (struct generations_config){
        .state_dir = f->dir,
        .run_dir = f->dir, /* not on tmpfs */
        .shared_dir = f->shared,
        .boot_id = boot_id,
        .sys_dir = f->sys[0] != '\0' ? f->sys : NULL,
        .map_bytes = MAP_BYTES,
        .history = { .window = 10, .count = 100, .bytes = 1 << 20 },
    };
}

static void open_as(struct fixture *f, const char *boot_id)
{
    struct generations_config config = config_of(f, boot_id);
    struct err err = { 0 };
    if (generations_open(&config, &f->generations, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static void begin_empty(struct fixture *f)
{
    char dir[STATE_PATH_BYTES_MAX];
    uint64_t number;
    struct err err = { 0 };

    assert_int_equal(generations_prepare(f->generations, &number, dir, &err), 0);
    assert_int_equal(generations_build_empty(dir, MAP_BYTES, 0, &err), 0);
    if (generations_switch(f->generations, number, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static void write_some(struct fixture *f, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct buf bytes = BUF_INIT;
        struct replica_result result;
        machine_encode(
                (struct op){ .kind = OP_SET, .path = SPAN_LIT("/k"), .value = SPAN_LIT("v") },
                f->index + 1, 1, &bytes);
        struct span entry = buf_span(&bytes);
        struct apply batch = {
            .prev_index = f->index, .prev_term = f->index > 0, .entries = { &entry, 1 }
        };
        assert_int_equal(generations_apply(f->generations, &batch, 1, &result, NULL), 0);
        f->index++;
        buf_fini(&bytes);
    }
}

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);

    assert_true(scratch_make(f->dir));
    (void)snprintf(f->shared, sizeof f->shared, "/dev/shm/quorate-test.XXXXXX");
    assert_non_null(mkdtemp(f->shared));
    open_as(f, "boot-a");
    assert_null(generations_replica(f->generations));
    begin_empty(f);
    write_some(f, 5);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    f->generations = generations_abandon(f->generations);
    is_old_kernel = false;
    scratch_remove(f->dir);
    scratch_remove(f->shared);
    if (f->sys[0] != '\0') {
        scratch_remove(f->sys);
    }
    free(f);
    return 0;
}

static uint64_t applied(struct fixture *f)
{
    struct replica *replica = generations_replica(f->generations);
    return replica != NULL ? replica_meta(replica)->applied_index : UINT64_MAX;
}

static void expect_distrust(struct fixture *f, const char *reason)
{
    assert_null(generations_replica(f->generations));
    assert_string_equal(generations_reason(f->generations), reason);
    assert_int_equal(generations_number(f->generations), 0);
    /* Removed unopened, and what comes next has a number of its own. */
    begin_empty(f);
    assert_int_equal(applied(f), 0);
    assert_int_equal(generations_number(f->generations), 2);
}

static struct dirent *only_file(const char *dir, DIR **ret_stream)
{
    struct dirent *entry;
    *ret_stream = opendir(dir);
    assert_non_null(*ret_stream);
    while ((entry = readdir(*ret_stream)) != NULL && entry->d_name[0] == '.') {
    }
    return entry;
}

/* The word's path; empty when there is none. */
static void find_word(struct fixture *f, char path[512])
{
    DIR *stream;
    struct dirent *entry = only_file(f->shared, &stream);
    path[0] = '\0';
    if (entry != NULL) {
        (void)snprintf(path, 512, "%s/%s", f->shared, entry->d_name);
    }
    (void)closedir(stream);
}

static void a_clean_end_is_trusted_on_any_boot(void **state)
{
    struct fixture *f = *state;
    char word[512];

    f->generations = generations_close(f->generations);
    find_word(f, word);
    assert_string_equal(word, "");
    open_as(f, "boot-b");
    assert_int_equal(applied(f), 5);
    assert_string_equal(generations_reason(f->generations), "it was closed cleanly");
}

static void a_kill_is_trusted_on_the_same_boot(void **state)
{
    struct fixture *f = *state;

    f->generations = generations_abandon(f->generations);
    open_as(f, "boot-a");
    assert_int_equal(applied(f), 5);
    write_some(f, 3);
    f->generations = generations_abandon(f->generations);
    open_as(f, "boot-a");
    assert_int_equal(applied(f), 8);
}

static void a_kill_is_not_trusted_on_another_boot(void **state)
{
    struct fixture *f = *state;

    f->generations = generations_abandon(f->generations);
    open_as(f, "boot-b");
    expect_distrust(f, "the host was started anew");
}

static void an_unknown_boot_is_not_trusted(void **state)
{
    struct fixture *f = *state;

    f->generations = generations_abandon(f->generations);
    open_as(f, "");
    expect_distrust(f, "the host was started anew");
}

static void a_missing_word_is_not_trusted(void **state)
{
    struct fixture *f = *state;
    char word[512];

    f->generations = generations_abandon(f->generations);
    find_word(f, word);
    assert_int_equal(unlink(word), 0);
    open_as(f, "boot-a");
    expect_distrust(f, "the word in memory is gone");
}

static void change_word(struct fixture *f, off_t at)
{
    char word[512];
    uint64_t value;

    find_word(f, word);
    int fd = open(word, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &value, sizeof value, at), sizeof value);
    value--;
    assert_int_equal(pwrite(fd, &value, sizeof value, at), sizeof value);
    assert_int_equal(close(fd), 0);
}

/* As after a file system came back with an older transaction, or a kill between commit and word. */
static void a_word_of_another_transaction_is_not_trusted(void **state)
{
    struct fixture *f = *state;

    f->generations = generations_abandon(f->generations);
    change_word(f, 16);
    open_as(f, "boot-a");
    expect_distrust(f, "its last transaction is not the one that was committed");
}

static void a_word_of_another_life_is_not_trusted(void **state)
{
    struct fixture *f = *state;

    f->generations = generations_abandon(f->generations);
    change_word(f, 0);
    open_as(f, "boot-a");
    expect_distrust(f, "the word in memory is of another life");
}

static void a_copied_file_is_not_trusted(void **state)
{
    struct fixture *f = *state;
    char command[512];
    char dir[STATE_PATH_BYTES_MAX];

    f->generations = generations_abandon(f->generations);
    state_generation_path(f->dir, 1, dir);
    int bytes = snprintf(command, sizeof command,
            "cp %.200s/data.mdb %s/copy && mv %s/copy %.200s/data.mdb", dir, f->dir, f->dir, dir);
    assert_in_range(bytes, 1, sizeof command - 1);
    assert_int_equal(system(command), 0);
    open_as(f, "boot-a");
    expect_distrust(f, "the state's file is another one");
}

/* As after the file system was shut down and mounted again: what MARK says is of the mount before. */
static void another_mount_is_not_trusted(void **state)
{
    struct fixture *f = *state;
    char path[96];
    char text[512];

    f->generations = generations_abandon(f->generations);
    (void)snprintf(path, sizeof path, "%s/MARK", f->dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t bytes = read(fd, text, sizeof text - 1);
    assert_true(bytes > 0);
    text[bytes] = '\0';
    char *mount = strstr(text, "\nmount ");
    assert_non_null(mount);
    mount[7] = mount[7] == '9' ? '8' : (char)(mount[7] + 1);
    assert_int_equal(pwrite(fd, text, (size_t)bytes, 0), bytes);
    assert_int_equal(close(fd), 0);
    open_as(f, "boot-a");
    expect_distrust(f, "its file system was mounted anew");
}

static void make_dir(const struct fixture *f, const char *name, char ret_path[256])
{
    (void)snprintf(ret_path, 256, "%s/%s", f->sys, name);
    assert_int_equal(mkdir(ret_path, 0700), 0);
}

/* A kernel that gives mount ids out again, and a sysfs with the state's device; ret_folder is where it has that device's file
 * system when one is mounted. */
static void become_old(struct fixture *f, char ret_folder[256])
{
    struct stat stat_;
    char path[256];

    is_old_kernel = true;
    (void)snprintf(f->sys, sizeof f->sys, "%s.sys", f->dir);
    assert_int_equal(mkdir(f->sys, 0700), 0);
    make_dir(f, "dev", path);
    make_dir(f, "dev/block", path);
    make_dir(f, "fs", path);
    make_dir(f, "fs/ext4", path);
    assert_int_equal(stat(f->dir, &stat_), 0);
    (void)snprintf(path, sizeof path, "%s/dev/block/%u:%u", f->sys, major(stat_.st_dev),
            minor(stat_.st_dev));
    assert_int_equal(symlink("../../devices/block/sdq", path), 0);
    (void)snprintf(ret_folder, 256, "%s/fs/ext4/sdq", f->sys);
    assert_int_equal(mkdir(ret_folder, 0700), 0);
    f->generations = generations_close(f->generations);
    open_as(f, "boot-a");
    assert_int_equal(applied(f), 5);
    write_some(f, 3);
    f->generations = generations_abandon(f->generations);
}

static void an_old_kernels_mount_is_known_by_its_folder_in_sysfs(void **state)
{
    struct fixture *f = *state;
    char folder[256];
    char other[256];

    become_old(f, folder);
    open_as(f, "boot-a");
    assert_int_equal(applied(f), 8);
    write_some(f, 1);
    f->generations = generations_abandon(f->generations);
    /* Mounted anew: another folder of the same name. */
    make_dir(f, "fs/ext4/next", other);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(rename(other, folder), 0);
    open_as(f, "boot-a");
    expect_distrust(f, "its file system was mounted anew");
}

static void where_mounts_cannot_be_told_apart_only_a_clean_end_is_trusted(void **state)
{
    struct fixture *f = *state;
    char folder[256];

    become_old(f, folder);
    assert_int_equal(rmdir(folder), 0);
    open_as(f, "boot-a");
    expect_distrust(f, "this host does not tell one mount from the next");
    f->index = 0;
    write_some(f, 4);
    f->generations = generations_close(f->generations);
    open_as(f, "boot-a");
    assert_int_equal(applied(f), 4);
    write_some(f, 1);
    f->generations = generations_abandon(f->generations);
    open_as(f, "boot-a");
    assert_null(generations_replica(f->generations));
}

static void a_mark_that_cannot_be_read_is_not_trusted(void **state)
{
    struct fixture *f = *state;

    f->generations = generations_close(f->generations);
    assert_int_equal(files_replace(f->dir, "MARK", SPAN_LIT("quorate-mark 1\nclean 1\n"), NULL), 0);
    open_as(f, "boot-a");
    expect_distrust(f, "there is no readable MARK");
}

static void a_mark_of_another_generation_is_not_trusted(void **state)
{
    struct fixture *f = *state;

    f->generations = generations_close(f->generations);
    char from[STATE_PATH_BYTES_MAX];
    char to[STATE_PATH_BYTES_MAX];
    state_generation_path(f->dir, 1, from);
    state_generation_path(f->dir, 7, to);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(files_replace(f->dir, "CURRENT", SPAN_LIT("0000000000000007\n"), NULL), 0);
    open_as(f, "boot-a");
    assert_null(generations_replica(f->generations));
    assert_string_equal(generations_reason(f->generations), "MARK is of another generation");
    assert_int_not_equal(access(to, F_OK), 0);
}

static void without_tmpfs_only_a_clean_end_is_trusted(void **state)
{
    struct fixture *f = *state;
    char shared[64];

    memcpy(shared, f->shared, sizeof shared);
    f->generations = generations_close(f->generations);
    (void)snprintf(f->shared, sizeof f->shared, "/nonexistent");
    open_as(f, "boot-a");
    assert_int_equal(applied(f), 5);
    write_some(f, 1);
    f->generations = generations_abandon(f->generations);
    open_as(f, "boot-a");
    expect_distrust(f, "the word in memory is gone");
    memcpy(f->shared, shared, sizeof shared);
}

static void a_word_whose_state_is_gone_is_swept(void **state)
{
    struct fixture *f = *state;
    struct fixture other = *f;
    char word[512];

    other.generations = NULL;
    f->generations = generations_close(f->generations);
    (void)snprintf(other.dir, sizeof other.dir, "%.50s.other", f->dir);
    assert_int_equal(mkdir(other.dir, 0700), 0);
    open_as(&other, "boot-a");
    begin_empty(&other);
    other.generations = generations_abandon(other.generations);
    scratch_remove(other.dir);
    find_word(f, word);
    assert_string_not_equal(word, "");
    open_as(f, "boot-a");
    find_word(f, word);
    assert_string_equal(word, "");
    assert_int_equal(applied(f), 5);
}

static void an_io_error_is_never_trusted_again(void **state)
{
    struct fixture *f = *state;
    struct replica_result result;
    struct apply batch = { .prev_index = f->index, .prev_term = 1 };

    generations_distrust(f->generations);
    assert_int_equal(generations_apply(f->generations, &batch, 1, &result, NULL), -EIO);
    f->generations = generations_close(f->generations); /* does not call it clean either */
    open_as(f, "boot-a");
    expect_distrust(f, "there is no readable MARK");
}

static void a_bad_page_met_before_the_first_write_takes_the_word_of_a_clean_end_back(void **state)
{
    struct fixture *f = *state;

    f->generations = generations_close(f->generations);
    open_as(f, "boot-a");
    assert_int_equal(applied(f), 5);
    generations_distrust(f->generations);
    f->generations = generations_abandon(f->generations);
    open_as(f, "boot-a");
    expect_distrust(f, "there is no readable MARK");
}

static void a_snapshot_becomes_the_live_state_with_our_ids(void **state)
{
    struct fixture *f = *state;
    struct snapshot_info info;
    char path[SNAPSHOT_PATH_BYTES_MAX];
    char dir[STATE_PATH_BYTES_MAX];
    uint64_t number;
    struct err err = { 0 };

    assert_int_equal(generations_set_ids(f->generations, 11, 22, &err), 0);
    struct state_writer *writer = replica_writer(generations_replica(f->generations));
    assert_int_equal(snapshot_make(writer, f->dir, NULL, &info, &err), 0);
    snapshot_path(f->dir, info.term, info.index, path);
    write_some(f, 4);
    assert_int_equal(generations_prepare(f->generations, &number, dir, &err), 0);
    assert_int_equal(number, 2);
    assert_int_equal(generations_build_loaded(dir, MAP_BYTES, path, 99, 33, 0, &err),
            -EUCLEAN); /* stranger */
    if (generations_build_loaded(dir, MAP_BYTES, path, 11, 33, 0, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(generations_switch(f->generations, number, &err), 0);
    assert_int_equal(applied(f), 5);
    assert_int_equal(replica_meta(generations_replica(f->generations))->member_id, 33);
    f->index = 5;
    write_some(f, 2);
    f->generations = generations_abandon(f->generations);
    open_as(f, "boot-a");
    assert_int_equal(applied(f), 7);
    assert_int_equal(generations_number(f->generations), 2);
}

/* Kills a child, which has stopped itself, when it enters its nth system call. True: it got through before. */
static bool kill_at(pid_t child, unsigned nth)
{
    int status = 0;

    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSTOPPED(status));
    for (unsigned stops = 0; WIFSTOPPED(status); stops++) {
        if (stops == nth) {
            assert_int_equal(kill(child, SIGKILL), 0);
        } else {
            assert_int_equal(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
    }
    if (WIFEXITED(status)) {
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    return WIFEXITED(status);
}

static bool switch_killed_at(struct fixture *f, unsigned nth)
{
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        struct generations_config config = config_of(f, "boot-a");
        char dir[STATE_PATH_BYTES_MAX];
        uint64_t number;
        if (generations_open(&config, &f->generations, NULL) < 0 ||
                generations_prepare(f->generations, &number, dir, NULL) < 0 ||
                generations_build_empty(dir, MAP_BYTES, 0, NULL) < 0 ||
                ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 || raise(SIGSTOP) != 0 ||
                generations_switch(f->generations, number, NULL) < 0) {
            _exit(1);
        }
        _exit(0);
    }
    return kill_at(child, nth);
}

static unsigned folders(struct fixture *f)
{
    DIR *stream = opendir(f->dir);
    struct dirent *entry;
    unsigned count = 0;
    while ((entry = readdir(stream)) != NULL) {
        count += strlen(entry->d_name) == 16;
    }
    (void)closedir(stream);
    return count;
}

static void a_switch_may_be_killed_at_any_system_call(void **state)
{
    struct fixture *f = *state;
    bool through = false;
    unsigned old = 0;
    unsigned new_ = 0;
    unsigned rebuilt = 0;

    for (unsigned nth = 0; !through; nth++) {
        /* A live state with five entries; the child puts an empty one in its place. */
        f->generations = generations_abandon(f->generations);
        open_as(f, "boot-a");
        if (generations_replica(f->generations) == NULL || applied(f) == 0) {
            begin_empty(f);
            f->index = 0;
            write_some(f, 5);
        }
        f->generations = generations_close(f->generations);
        open_as(f, "boot-a");
        f->generations = generations_abandon(f->generations);
        through = switch_killed_at(f, nth);
        open_as(f, "boot-a");
        if (generations_replica(f->generations) == NULL) {
            rebuilt++;
        } else if (applied(f) == 5) {
            old++;
        } else {
            assert_int_equal(applied(f), 0);
            new_++;
        }
        assert_int_equal(folders(f), generations_replica(f->generations) != NULL);
    }
    assert_true(old > 5);
    assert_true(new_ > 5);
    assert_true(rebuilt > 0);
}

/* Where the disk gave an error for another file, before the first write of a life that trusted what a kill had left. */
static bool doubted_write_killed_at(struct fixture *f, unsigned nth)
{
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        struct generations_config config = config_of(f, "boot-a");
        if (generations_open(&config, &f->generations, NULL) < 0 ||
                generations_replica(f->generations) == NULL) {
            _exit(1);
        }
        generations_doubt(f->generations);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 || raise(SIGSTOP) != 0 ||
                generations_set_ids(f->generations, 1, 2, NULL) < 0) {
            _exit(2);
        }
        _exit(0);
    }
    return kill_at(child, nth);
}

static void a_doubted_state_is_trusted_after_no_kill(void **state)
{
    struct fixture *f = *state;
    bool through = false;

    for (unsigned nth = 0; !through; nth++) {
        f->generations = generations_abandon(f->generations);
        through = doubted_write_killed_at(f, nth);
        open_as(f, "boot-a");
        assert_null(generations_replica(f->generations));
        begin_empty(f);
        f->index = 0;
        write_some(f, 5);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_clean_end_is_trusted_on_any_boot),
        TEST(a_kill_is_trusted_on_the_same_boot),
        TEST(a_kill_is_not_trusted_on_another_boot),
        TEST(an_unknown_boot_is_not_trusted),
        TEST(a_missing_word_is_not_trusted),
        TEST(a_word_of_another_transaction_is_not_trusted),
        TEST(a_word_of_another_life_is_not_trusted),
        TEST(a_copied_file_is_not_trusted),
        TEST(another_mount_is_not_trusted),
        TEST(an_old_kernels_mount_is_known_by_its_folder_in_sysfs),
        TEST(where_mounts_cannot_be_told_apart_only_a_clean_end_is_trusted),
        TEST(a_mark_that_cannot_be_read_is_not_trusted),
        TEST(a_mark_of_another_generation_is_not_trusted),
        TEST(without_tmpfs_only_a_clean_end_is_trusted),
        TEST(a_word_whose_state_is_gone_is_swept),
        TEST(an_io_error_is_never_trusted_again),
        TEST(a_bad_page_met_before_the_first_write_takes_the_word_of_a_clean_end_back),
        TEST(a_snapshot_becomes_the_live_state_with_our_ids),
        TEST(a_switch_may_be_killed_at_any_system_call),
        TEST(a_doubted_state_is_trusted_after_no_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
