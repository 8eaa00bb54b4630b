#include "common/notify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void send_text(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    if (path == NULL || (path[0] != '/' && path[0] != '@')) {
        return;
    }
    size_t path_bytes = strlen(path);
    if (path_bytes < 2 || path_bytes >= sizeof address.sun_path) {
        return;
    }
    memcpy(address.sun_path, path, path_bytes);
    if (path[0] == '@') {
        address.sun_path[0] = '\0'; /* a name in the abstract namespace */
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return;
    }
    ssize_t sent = sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&address,
            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes));
    (void)sent;
    (void)close(fd);
}

void notify_ready(void)
{
    send_text("READY=1");
}

void notify_stopping(void)
{
    send_text("STOPPING=1");
}

void notify_watchdog(void)
{
    send_text("WATCHDOG=1");
}

void notify_status(const char *text)
{
    char line[512];
    (void)snprintf(line, sizeof line, "STATUS=%s", text);
    send_text(line);
}

void notify_end_process(long pid)
{
    char line[48];
    (void)snprintf(line, sizeof line, "X_QUORATE_END_PID=%ld", pid);
    send_text(line);
}
