#include "common/sigbus.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/conf.h"

/* Read by the handler, on whatever thread it runs; written by the loop thread while no page can fault. */
static struct {
    const char *event;
    char file[512];
    const uint8_t *base;
    size_t bytes;
    uint64_t *nonce;
    const char *note_path; /* NULL: none */
    char note[24];
    size_t note_bytes;
} guarded;

/* snprintf is not for signal handlers. */
static size_t put_text(char *line, size_t at, size_t bytes_max, const char *text)
{
    for (; *text != '\0' && at < bytes_max; text++) {
        line[at++] = *text;
    }
    return at;
}

static size_t put_number(char *line, size_t at, size_t bytes_max, uint64_t value)
{
    char digits[21];
    size_t first = sizeof digits - 1;

    digits[first] = '\0';
    do {
        digits[--first] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return put_text(line, at, bytes_max, digits + first);
}

static void write_note(void)
{
    int fd = guarded.note_path == NULL
                     ? -1
                     : open(guarded.note_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd >= 0) {
        ssize_t written = write(fd, guarded.note, guarded.note_bytes);
        (void)written;
        (void)close(fd);
    }
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    const uint8_t *at = info->si_addr;
    char line[1024];
    size_t used;

    (void)number;
    (void)context;
    if (at < guarded.base || at >= guarded.base + guarded.bytes) {
        (void)signal(SIGBUS, SIG_DFL); /* not ours: the access is tried again and ends us plainly */
        return;
    }
    if (guarded.nonce != NULL) {
        __atomic_store_n(guarded.nonce, 0, __ATOMIC_SEQ_CST);
    }
    write_note();
    used = put_text(line, 0, sizeof line, guarded.event);
    used = put_text(line, used, sizeof line, " file=");
    used = put_text(line, used, sizeof line, guarded.file);
    used = put_text(line, used, sizeof line, " offset=");
    used = put_number(line, used, sizeof line, (uint64_t)(at - guarded.base));
    used = put_text(line, used, sizeof line, " action=exit status=3\n");
    ssize_t written = write(STDERR_FILENO, line, used);
    (void)written;
    _exit(CONF_EXIT_STORAGE);
}

/* LMDB does not tell where it has mapped its file; the kernel does. */
static bool find_mapping(const char *file, const uint8_t **ret_base, size_t *ret_bytes)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    struct stat stat_;
    char line[4608];
    bool found = false;

    if (maps == NULL || stat(file, &stat_) < 0) {
        stat_.st_ino = 0;
    }
    while (maps != NULL && !found && fgets(line, sizeof line, maps) != NULL) {
        uintptr_t start;
        uintptr_t end;
        unsigned long long inode;
        /* NOLINTNEXTLINE(cert-err34-c): the kernel's numbers. */
        found = sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*x %*x:%*x %llu", &start, &end,
                        &inode) == 3 &&
                inode != 0 && inode == stat_.st_ino;
        if (found) {
            *ret_base = (const uint8_t *)start;
            *ret_bytes = end - start;
        }
    }
    if (maps != NULL) {
        (void)fclose(maps);
    }
    return found;
}

bool sigbus_guard(const char *event, const char *file, uint64_t *nonce)
{
    struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };

    sigbus_unguard();
    guarded.event = event;
    (void)snprintf(guarded.file, sizeof guarded.file, "%s", file);
    guarded.nonce = nonce;
    (void)sigaction(SIGBUS, &action, NULL);
    return find_mapping(file, &guarded.base, &guarded.bytes);
}

void sigbus_leave_note(const char *path, uint64_t number)
{
    guarded.note_bytes = put_number(guarded.note, 0, sizeof guarded.note, number);
    guarded.note_path = path;
}

void sigbus_unguard(void)
{
    guarded.note_path = NULL;
    guarded.base = NULL;
    guarded.bytes = 0;
    guarded.nonce = NULL;
}
