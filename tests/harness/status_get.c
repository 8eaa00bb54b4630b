/* status_get.c: asks a daemon for its status: status_get SOCKET. For tests; harness/server.py calls it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/status_ask.h"

enum {
    PATIENCE_MS = 5000
};

/* Socket names are short; folders need not be. */
static const char *enter_folder(char *path)
{
    char *slash = strrchr(path, '/');

    if (slash == NULL) {
        return path;
    }
    *slash = '\0';
    return chdir(path) == 0 ? slash + 1 : NULL;
}

int main(int argc, char **argv)
{
    struct status_answer answer;
    struct err err = { 0 };
    const char *name = argc == 2 ? enter_folder(argv[1]) : NULL;

    if (name == NULL) {
        (void)fprintf(stderr, "usage: status_get SOCKET\n");
        return 2;
    }
    if (status_ask(name, PATIENCE_MS, &answer, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    (void)printf("component %s\nversion %s\npid %" PRIu64 "\nuptime_ms %" PRIu64 "\n%.*s",
            answer.component, answer.version, answer.pid, answer.uptime_ms,
            (int)answer.lines.bytes, (const char *)answer.lines.data);
    buf_fini(&answer.lines);
    return 0;
}
