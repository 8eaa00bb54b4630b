#include "common/sigbus.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/conf.h"

/* Read by the handler, on whatever thread it runs; written by the loop thread while no page can fault. */
static struct {
    const char *event;
    char file[PATH_MAX];
    char mark[PATH_MAX]; /* empty: none */
    char note[PATH_MAX]; /* empty: none */
    uint64_t note_number;
    pid_t opener;   /* the thread that opens the file */
    bool is_mapped; /* there; else it is not known where */
    const uint8_t *base;
    size_t bytes;
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
    char text[24];
    size_t bytes = put_number(text, 0, sizeof text, guarded.note_number);
    int fd = guarded.note[0] == '\0'
                     ? -1
                     : open(guarded.note, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd >= 0) {
        ssize_t written = write(fd, text, bytes);
        (void)written;
        (void)close(fd);
    }
}

static bool is_guarded(const uint8_t *at)
{
    if (!guarded.is_mapped) {
        return guarded.event != NULL && gettid() == guarded.opener;
    }
    return at >= guarded.base && at < guarded.base + guarded.bytes;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    const uint8_t *at = info->si_addr;
    char line[PATH_MAX + 256];
    size_t used;

    (void)number;
    (void)context;
    if (!is_guarded(at)) {
        (void)signal(SIGBUS, SIG_DFL); /* not ours: the access is tried again and ends us plainly */
        return;
    }
    used = put_text(line, 0, sizeof line, guarded.event);
    used = put_text(line, used, sizeof line, " file=");
    used = put_text(line, used, sizeof line, guarded.file);
    if (guarded.is_mapped) {
        used = put_text(line, used, sizeof line, " offset=");
        used = put_number(line, used, sizeof line, (uint64_t)(at - guarded.base));
    }
    used = put_text(line, used, sizeof line, " action=exit status=3\n");
    ssize_t written = write(STDERR_FILENO, line, used);
    (void)written;
    if (guarded.mark[0] != '\0') {
        (void)unlink(guarded.mark);
    }
    write_note();
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

static void copy_path(char ret_path[PATH_MAX], const char *path)
{
    (void)snprintf(ret_path, PATH_MAX, "%s", path == NULL ? "" : path);
}

void sigbus_guard(const struct sigbus_guarded *what)
{
    struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };

    sigbus_unguard();
    copy_path(guarded.file, what->file);
    copy_path(guarded.mark, what->mark);
    copy_path(guarded.note, what->note);
    guarded.note_number = what->note_number;
    guarded.opener = gettid();
    guarded.event = what->event;
    (void)sigaction(SIGBUS, &action, NULL);
}

bool sigbus_mapped(void)
{
    guarded.is_mapped = find_mapping(guarded.file, &guarded.base, &guarded.bytes);
    return guarded.is_mapped;
}

void sigbus_unguard(void)
{
    guarded.event = NULL;
    guarded.is_mapped = false;
    guarded.base = NULL;
    guarded.bytes = 0;
}
