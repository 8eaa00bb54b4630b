#include "common/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

enum {
    LOG_LINE_BYTES = 4096, /* a pipe takes this much in one piece (PIPE_BUF) or none of it */
    LOG_REPEATS_PER_SECOND = 10,
    LOG_EVENTS_TRACKED = 64,
};

/* How often an event was seen in the current second. Slots are shared by hash: a collision merely ends the count
 * of the event that was there. */
struct repeat {
    char event[48];
    uint64_t second;
    unsigned count;
};

/* The log is one per process by nature; this is the only state of its kind. */
static struct {
    pthread_mutex_t lock;
    const char *component;
    enum log_level level;
    struct repeat repeats[LOG_EVENTS_TRACKED];
} logger = { .lock = PTHREAD_MUTEX_INITIALIZER, .component = "quorate", .level = LOG_LEVEL_INFO };

void log_init(const char *component, enum log_level level)
{
    logger.component = component;
    logger.level = level;
    /* A reader of our stderr that goes away must not take the daemon with it. */
    (void)signal(SIGPIPE, SIG_IGN);
}

void log_set_level(enum log_level level)
{
    __atomic_store_n(&logger.level, level, __ATOMIC_RELAXED);
}

enum log_level log_get_level(void)
{
    return __atomic_load_n(&logger.level, __ATOMIC_RELAXED);
}

struct line {
    char text[LOG_LINE_BYTES];
    size_t bytes; /* without a newline, at most LOG_LINE_BYTES - 1 */
};

static void line_append(struct line *line, const char *text)
{
    size_t room = sizeof line->text - 1 - line->bytes;
    size_t bytes = MIN(strlen(text), room);

    memcpy(line->text + line->bytes, text, bytes);
    line->bytes += bytes;
}

PRINTF_LIKE(2, 0)
static void line_vappendf(struct line *line, const char *format, va_list args)
{
    size_t room = sizeof line->text - line->bytes;
    int wanted = vsnprintf(line->text + line->bytes, room, format, args);
    if (wanted > 0) {
        line->bytes += MIN((size_t)wanted, room - 1);
    }
}

static void line_begin(struct line *line, enum log_level level, const char *package)
{
    static const char letters[] = "CEWNID";
    uint64_t now_ns = clock_wall_ns();
    time_t seconds = (time_t)(now_ns / 1000000000U);
    struct tm tm;

    line->bytes = 0;
    (void)localtime_r(&seconds, &tm);
    line->bytes = strftime(line->text, sizeof line->text, "%Y-%m-%d %H:%M:%S", &tm);
    char rest[32];
    (void)snprintf(rest, sizeof rest, ".%06u %c | ", (unsigned)(now_ns / 1000U % 1000000U),
            letters[level]);
    line_append(line, rest);
    line_append(line, package);
    line_append(line, ": ");
}

/* One write, and only when it cannot block: a reader that stopped reading loses lines, we lose nothing. */
static void line_write(struct line *line)
{
    struct pollfd pollfd = { .fd = STDERR_FILENO, .events = POLLOUT };
    int saved = errno;

    /* One line an event, and nothing that speaks to a terminal, whatever a peer managed to put into it. */
    for (size_t i = 0; i < line->bytes; i++) {
        unsigned char byte = (unsigned char)line->text[i];
        if (byte < ' ' || byte == 0x7f) {
            line->text[i] = ' ';
        }
    }
    line->text[line->bytes++] = '\n';
    if (poll(&pollfd, 1, 0) == 1 && (pollfd.revents & POLLOUT) != 0) {
        ssize_t written = write(STDERR_FILENO, line->text, line->bytes);
        (void)written;
    }
    errno = saved;
}

static struct repeat *repeat_slot(const char *event)
{
    unsigned hash = 5381;
    for (const char *c = event; *c != '\0'; c++) {
        hash = hash * 33U ^ (unsigned char)*c;
    }
    return &logger.repeats[hash % LOG_EVENTS_TRACKED];
}

/* Whether this one is to be printed; *ret_missed is how many of the same event were swallowed before it. */
static bool repeat_admit(const char *event, unsigned *ret_missed)
{
    uint64_t second = clock_monotonic_ms() / 1000U;
    struct repeat *slot = repeat_slot(event);

    *ret_missed = 0;
    if (strncmp(slot->event, event, sizeof slot->event - 1) != 0 || slot->second != second) {
        if (slot->count > LOG_REPEATS_PER_SECOND &&
                strncmp(slot->event, event, sizeof slot->event - 1) == 0) {
            *ret_missed = slot->count - LOG_REPEATS_PER_SECOND;
        }
        (void)snprintf(slot->event, sizeof slot->event, "%s", event);
        slot->second = second;
        slot->count = 0;
    }
    slot->count++;
    return slot->count <= LOG_REPEATS_PER_SECOND;
}

PRINTF_LIKE(4, 0)
static void emit(enum log_level level, const struct err *err, const char *event, const char *format,
        va_list args)
{
    struct line line;
    unsigned missed;

    if (level > log_get_level()) {
        return;
    }
    line_begin(&line, level, logger.component);
    line_append(&line, event);
    if (format[0] != '\0') {
        line_append(&line, " ");
        line_vappendf(&line, format, args);
    }
    if (err != NULL) {
        line_append(&line, " error=\"");
        line_append(&line, err->text);
        line_append(&line, "\"");
    }
    (void)pthread_mutex_lock(&logger.lock);
    if (repeat_admit(event, &missed)) {
        if (missed > 0) {
            char note[40];
            (void)snprintf(note, sizeof note, " repeats_unprinted=%u", missed);
            line_append(&line, note);
        }
        line_write(&line);
    }
    (void)pthread_mutex_unlock(&logger.lock);
}

void log_event(enum log_level level, const char *event, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    emit(level, NULL, event, format, args);
    va_end(args);
}

void log_event_err(
        enum log_level level, const struct err *err, const char *event, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    emit(level, err, event, format, args);
    va_end(args);
}

void log_line(enum log_level level, const char *package, const char *format, ...)
{
    struct line line;
    va_list args;

    if (level > log_get_level()) {
        return;
    }
    line_begin(&line, level, package);
    va_start(args, format);
    line_vappendf(&line, format, args);
    va_end(args);
    (void)pthread_mutex_lock(&logger.lock);
    line_write(&line);
    (void)pthread_mutex_unlock(&logger.lock);
}
