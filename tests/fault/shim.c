/* shim.c: faults on demand, for processes that were started with LD_PRELOAD=shim.so.
 *
 * QUORATE_SHIM_RULES names a file of rules, one a line, looked at again whenever it changes:
 *
 *   proc=raftd call=fdatasync path=.wal nth=3 count=1 do=error:EIO
 *
 *   proc   the process's name; left out: any             call   one or more of the names below, with commas; or any
 *   path   a part of the file's or the socket's path     nth    the first matching call that is hit, from 1 (default)
 *   count  how many calls are hit (default: all)         do     error:NAME | delay:MS | nop | short | drop | hold
 *
 * nop answers success and does nothing (a disk that lies). short writes half. drop answers as if all had been written
 * (a message that is lost). hold waits until the rule is gone from the file, then does the call. Every hit appends
 * "PROC CALL PATH" to the file QUORATE_SHIM_LOG, if that is set.
 *
 * Calls: write pwrite writev pwritev fsync fdatasync msync ftruncate fallocate rename sendmsg pthread_create, of which
 * `any` leaves out the last two. For sendmsg only Unix
 * sockets are looked at: the links between the daemons; their path is the one that was bound or dialled. Counts are
 * a process's own and begin anew with each reading of the file.
 *
 * Everything in here uses bare system calls, since libc's would lead back here. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    RULES_MAX = 16,
    RULE_TEXT_MAX = 64,
    FILE_BYTES_MAX = 4096,
};

enum deed {
    DEED_NONE,
    DEED_ERROR,
    DEED_DELAY,
    DEED_NOP,
    DEED_SHORT,
    DEED_DROP,
    DEED_HOLD,
};

struct rule {
    char proc[RULE_TEXT_MAX];
    char call[RULE_TEXT_MAX];
    char path[RULE_TEXT_MAX];
    unsigned long nth;
    unsigned long count; /* 0: all */
    unsigned long seen;
    enum deed deed;
    int number; /* errno or milliseconds */
};

static struct rule rules[RULES_MAX];
static size_t rule_count;
static struct timespec rules_at;
static off_t rules_bytes;
static ino_t rules_inode;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const struct {
    const char *name;
    int number;
} errors[] = { { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "EDQUOT", EDQUOT }, { "EINTR", EINTR },
    { "EAGAIN", EAGAIN }, { "EROFS", EROFS }, { "ENOMEM", ENOMEM }, { "EMFILE", EMFILE } };

static char process_name[32];

/* The main thread's name: what a daemon calls itself, whatever it was started as. */
static void read_name(void)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/comm", O_RDONLY | O_CLOEXEC);
    long got = fd < 0 ? 0 : syscall(SYS_read, fd, process_name, sizeof(process_name) - 1);

    process_name[got > 0 ? got - 1 : 0] = '\0';
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
}

static void parse_deed(struct rule *rule, const char *text)
{
    if (strncmp(text, "error:", 6) == 0) {
        rule->deed = DEED_ERROR;
        rule->number = EIO;
        for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
            if (strcmp(errors[i].name, text + 6) == 0) {
                rule->number = errors[i].number;
            }
        }
    } else if (strncmp(text, "delay:", 6) == 0) {
        rule->deed = DEED_DELAY;
        rule->number = atoi(text + 6);
    } else {
        rule->deed = strcmp(text, "nop") == 0     ? DEED_NOP
                     : strcmp(text, "short") == 0 ? DEED_SHORT
                     : strcmp(text, "drop") == 0  ? DEED_DROP
                     : strcmp(text, "hold") == 0  ? DEED_HOLD
                                                  : DEED_NONE;
    }
}

static void parse_rule(char *line)
{
    struct rule rule = { .call = "any", .nth = 1 };
    char *rest = NULL;

    for (char *word = strtok_r(line, " \t", &rest); word != NULL;
            word = strtok_r(NULL, " \t", &rest)) {
        char *value = strchr(word, '=');

        if (value == NULL) {
            continue;
        }
        *value++ = '\0';
        if (strcmp(word, "proc") == 0) {
            snprintf(rule.proc, sizeof(rule.proc), "%s", value);
        } else if (strcmp(word, "call") == 0) {
            snprintf(rule.call, sizeof(rule.call), "%s", value);
        } else if (strcmp(word, "path") == 0) {
            snprintf(rule.path, sizeof(rule.path), "%s", value);
        } else if (strcmp(word, "nth") == 0) {
            rule.nth = strtoul(value, NULL, 10);
        } else if (strcmp(word, "count") == 0) {
            rule.count = strtoul(value, NULL, 10);
        } else if (strcmp(word, "do") == 0) {
            parse_deed(&rule, value);
        }
    }
    if (rule.deed != DEED_NONE && rule_count < RULES_MAX) {
        rules[rule_count++] = rule;
    }
}

/* Reads the rules again if the file is another than the one read last. Under the lock. */
static void refresh(void)
{
    const char *path = getenv("QUORATE_SHIM_RULES");
    char text[FILE_BYTES_MAX + 1];
    struct stat stat;
    char *rest = NULL;
    long got;
    int fd;

    if (path == NULL || syscall(SYS_newfstatat, AT_FDCWD, path, &stat, 0) < 0) {
        rule_count = 0;
        rules_inode = 0;
        return;
    }
    if (stat.st_ino == rules_inode && stat.st_size == rules_bytes &&
            stat.st_mtim.tv_sec == rules_at.tv_sec && stat.st_mtim.tv_nsec == rules_at.tv_nsec) {
        return;
    }
    fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    got = syscall(SYS_read, fd, text, FILE_BYTES_MAX);
    syscall(SYS_close, fd);
    if (got < 0) {
        return;
    }
    text[got] = '\0';
    rules_inode = stat.st_ino;
    rules_bytes = stat.st_size;
    rules_at = stat.st_mtim;
    rule_count = 0;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
            line = strtok_r(NULL, "\n", &rest)) {
        parse_rule(line);
    }
}

/* What fd stands for: a path, or a Unix socket's. */
static void name_of(int fd, char *ret_path, size_t bytes)
{
    struct sockaddr_un address = { 0 };
    socklen_t length = sizeof(address);
    char link[64];
    long got;

    ret_path[0] = '\0';
    if (fd < 0) {
        return;
    }
    if (getsockname(fd, (struct sockaddr *)&address, &length) == 0) {
        if (address.sun_family == AF_UNIX) {
            if (length <= offsetof(struct sockaddr_un, sun_path) || address.sun_path[0] == '\0') {
                length = sizeof(address) - 1;
                memset(&address, 0, sizeof(address));
                getpeername(fd, (struct sockaddr *)&address, &length);
            }
            snprintf(ret_path, bytes, "unix:%s", address.sun_path);
        }
        return;
    }
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    got = syscall(SYS_readlinkat, AT_FDCWD, link, ret_path, bytes - 1);
    ret_path[got > 0 ? got : 0] = '\0';
}

static bool names(const char *list, const char *call)
{
    size_t bytes = strlen(call);

    if (strcmp(list, "any") == 0) {
        return strcmp(call, "sendmsg") != 0 && strcmp(call, "pthread_create") != 0;
    }
    for (const char *at = strstr(list, call); at != NULL; at = strstr(at + 1, call)) {
        if ((at == list || at[-1] == ',') && (at[bytes] == '\0' || at[bytes] == ',')) {
            return true;
        }
    }
    return false;
}

static void note(const char *call, const char *path)
{
    const char *log = getenv("QUORATE_SHIM_LOG");
    char line[PATH_MAX + 128];
    int bytes;
    int fd;

    if (log == NULL) {
        return;
    }
    read_name();
    fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        return;
    }
    bytes = snprintf(line, sizeof(line), "%s %s %s\n", process_name, call, path);
    syscall(SYS_write, fd, line, (size_t)bytes);
    syscall(SYS_close, fd);
}

/* The rule that this call hits, copied; DEED_NONE if none does. */
static struct rule judge(const char *call, int fd, const char *path_or_null)
{
    struct rule hit = { .deed = DEED_NONE };
    char path[PATH_MAX] = "";
    int kept_errno = errno;

    pthread_mutex_lock(&lock);
    refresh();
    for (size_t i = 0; i < rule_count && hit.deed == DEED_NONE; i++) {
        struct rule *rule = &rules[i];

        if (!names(rule->call, call)) {
            continue;
        }
        if (rule->proc[0] != '\0') {
            if (process_name[0] == '\0' || strcmp(process_name, rule->proc) != 0) {
                read_name(); /* it may have got its name since */
            }
            if (strcmp(process_name, rule->proc) != 0) {
                continue;
            }
        }
        if (path[0] == '\0') {
            if (path_or_null != NULL) {
                snprintf(path, sizeof(path), "%s", path_or_null);
            } else {
                name_of(fd, path, sizeof(path));
            }
        }
        if (rule->path[0] != '\0' && strstr(path, rule->path) == NULL) {
            continue;
        }
        rule->seen++;
        if (rule->seen >= rule->nth && (rule->count == 0 || rule->seen < rule->nth + rule->count)) {
            hit = *rule;
        }
    }
    pthread_mutex_unlock(&lock);
    if (hit.deed != DEED_NONE) {
        note(call, path);
    }
    errno = kept_errno;
    return hit;
}

static void wait_ms(int ms)
{
    struct timespec span = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

    nanosleep(&span, NULL);
}

/* Sleeps until no rule holds this call any more. */
static void hold(const char *call)
{
    bool held = true;

    while (held) {
        held = false;
        wait_ms(2);
        pthread_mutex_lock(&lock);
        refresh();
        for (size_t i = 0; i < rule_count; i++) {
            held |= rules[i].deed == DEED_HOLD && names(rules[i].call, call);
        }
        pthread_mutex_unlock(&lock);
    }
}

/* Does what comes before the call. True: the call is not to be made, and ret_result is its answer. */
static bool intercept(
        const char *call, int fd, const char *path, long full, long *ret_result, bool *ret_short)
{
    struct rule hit = judge(call, fd, path);

    *ret_short = false;
    switch (hit.deed) {
    case DEED_ERROR:
        errno = hit.number;
        *ret_result = -1;
        return true;
    case DEED_NOP:
    case DEED_DROP:
        *ret_result = full;
        return true;
    case DEED_DELAY:
        wait_ms(hit.number);
        return false;
    case DEED_HOLD:
        hold(call);
        return false;
    case DEED_SHORT:
        *ret_short = true;
        return false;
    case DEED_NONE:
        return false;
    }
    return false;
}

static size_t sum(const struct iovec *parts, int count)
{
    size_t bytes = 0;

    for (int i = 0; i < count; i++) {
        bytes += parts[i].iov_len;
    }
    return bytes;
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    long result;
    bool is_short;

    if (intercept("write", fd, NULL, (long)bytes, &result, &is_short)) {
        return result;
    }
    return syscall(SYS_write, fd, data, is_short && bytes > 1 ? bytes / 2 : bytes);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    long result;
    bool is_short;

    if (intercept("pwrite", fd, NULL, (long)bytes, &result, &is_short)) {
        return result;
    }
    return syscall(SYS_pwrite64, fd, data, is_short && bytes > 1 ? bytes / 2 : bytes, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset)
        __attribute__((alias("pwrite")));

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    long result;
    bool is_short;

    if (intercept("writev", fd, NULL, (long)sum(parts, count), &result, &is_short)) {
        return result;
    }
    return is_short ? syscall(SYS_write, fd, parts[0].iov_base, (parts[0].iov_len + 1) / 2)
                    : syscall(SYS_writev, fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    long result;
    bool is_short;

    if (intercept("pwritev", fd, NULL, (long)sum(parts, count), &result, &is_short)) {
        return result;
    }
    if (is_short) {
        return syscall(SYS_pwrite64, fd, parts[0].iov_base, (parts[0].iov_len + 1) / 2, offset);
    }
    return syscall(SYS_pwritev, fd, parts, count, offset, 0);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
        __attribute__((alias("pwritev")));

int fsync(int fd)
{
    long result;
    bool is_short;

    return intercept("fsync", fd, NULL, 0, &result, &is_short) ? (int)result
                                                               : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    long result;
    bool is_short;

    return intercept("fdatasync", fd, NULL, 0, &result, &is_short)
                   ? (int)result
                   : (int)syscall(SYS_fdatasync, fd);
}

int msync(void *address, size_t bytes, int flags)
{
    long result;
    bool is_short;

    return intercept("msync", -1, "memory", 0, &result, &is_short)
                   ? (int)result
                   : (int)syscall(SYS_msync, address, bytes, flags);
}

int ftruncate(int fd, off_t bytes)
{
    long result;
    bool is_short;

    return intercept("ftruncate", fd, NULL, 0, &result, &is_short)
                   ? (int)result
                   : (int)syscall(SYS_ftruncate, fd, bytes);
}

int ftruncate64(int fd, off_t bytes) __attribute__((alias("ftruncate")));

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    long result;
    bool is_short;

    return intercept("fallocate", fd, NULL, 0, &result, &is_short)
                   ? (int)result
                   : (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

int fallocate64(int fd, int mode, off_t offset, off_t bytes) __attribute__((alias("fallocate")));

/* Answers an error number, unlike the others. */
int posix_fallocate(int fd, off_t offset, off_t bytes)
{
    return fallocate(fd, 0, offset, bytes) < 0 ? errno : 0;
}

int posix_fallocate64(int fd, off_t offset, off_t bytes) __attribute__((alias("posix_fallocate")));

int rename(const char *from, const char *to)
{
    long result;
    bool is_short;

    return intercept("rename", -1, to, 0, &result, &is_short) ? (int)result
                                                              : (int)syscall(SYS_rename, from, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    long result;
    bool is_short;

    return intercept("rename", -1, to, 0, &result, &is_short)
                   ? (int)result
                   : (int)syscall(SYS_renameat, from_fd, from, to_fd, to);
}

static bool is_unix_socket(int fd)
{
    int domain = 0;
    socklen_t bytes = sizeof(domain);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 && domain == AF_UNIX;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    long result;
    bool is_short;

    if (is_unix_socket(fd) &&
            intercept("sendmsg", fd, NULL, (long)sum(message->msg_iov, (int)message->msg_iovlen),
                    &result, &is_short)) {
        return result;
    }
    return syscall(SYS_sendmsg, fd, message, flags);
}

/* Answers with a number, and leaves errno alone. */
int pthread_create(
        pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *user)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    int kept_errno = errno;
    long result;
    bool is_short;

    if (intercept("pthread_create", -1, NULL, 0, &result, &is_short)) {
        result = errno;
        errno = kept_errno;
        return (int)result;
    }
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    }
    return real(thread, attributes, start, user);
}
