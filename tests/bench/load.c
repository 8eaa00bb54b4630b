/* load.c: the load generator for what wrk cannot do: recorded latencies, filling, and many watches.
 *
 *   load run PORT SECONDS CONNECTIONS put|get|mix PREFIX KEYS VALUE_BYTES [RECORD]
 *   load fill PORT CONNECTIONS PREFIX FIRST COUNT VALUE_BYTES [QUERY]
 *   load herd PORT COUNT KEY
 *   load idle PORT COUNT PREFIX
 *
 * One thread, one epoll, closed loop: each connection sends its next request when the last one is answered.
 * Results are one line of JSON on stdout. RECORD is a file of pairs of uint64, CLOCK_REALTIME in us when a request was
 * answered and its latency in us. herd and idle print "ready" when every watch's head has come; herd then waits for a
 * byte before it writes. Both hold their connections until stdin ends.
 * Any answer but 2xx, and any broken connection, counts as an error; the first is shown. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    IN_BYTES_MAX = 1 << 16,
    VALUE_BYTES_MAX = 1 << 16,
    REQUEST_BYTES_MAX = VALUE_BYTES_MAX + 1024,
    EVENTS_MAX = 512,
    SAMPLES_MAX = 1 << 26,
};

enum work {
    WORK_PUT,
    WORK_GET,
    WORK_MIX,
};

/* An answer is read as a head up to its blank line, then a body: of a known length, or chunked. */
struct connection {
    int fd;
    uint64_t sent_at_us;
    size_t in_bytes;
    size_t body_left; /* of a Content-Length */
    bool in_body;
    bool is_chunked;
    bool is_busy;
    int status;
    char tail[8]; /* the last bytes of a chunked body: its end is 0\r\n\r\n */
    char in[2048];
};

struct load {
    int epoll_fd;
    uint16_t port;
    enum work work;
    const char *prefix;
    const char *query;
    uint64_t key_first;
    uint64_t key_count;
    uint64_t next; /* fill: the next key */
    bool is_fill;
    bool is_closing; /* no new requests */
    char *value;
    uint64_t *samples; /* pairs */
    size_t sample_count;
    uint64_t error_count;
    uint64_t busy_count;
    uint64_t random;
    char first_error[256];
};

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_us(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* xorshift: a sequence that is the same in every run. */
static uint64_t random_next(struct load *load)
{
    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    return load->random;
}

static int connect_to(uint16_t port, unsigned number)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
    };
    struct sockaddr_in from = { .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + number / 10000) };
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        die("socket");
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0) {
        die("bind");
    }
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        die("connect");
    }
    return fd;
}

static void note_error(struct load *load, const char *what, const char *text, size_t bytes)
{
    if (load->error_count++ == 0) {
        snprintf(load->first_error, sizeof(load->first_error), "%s %.*s", what,
                (int)(bytes < 120 ? bytes : 120), text);
        for (char *at = load->first_error; *at != '\0'; at++) {
            if (*at == '"' || *at == '\\' || (unsigned char)*at < 0x20) {
                *at = ' ';
            }
        }
    }
}

static void send_next(struct load *load, struct connection *connection)
{
    char request[REQUEST_BYTES_MAX];
    uint64_t key;
    bool is_put;
    int bytes;
    ssize_t sent;

    if (load->is_closing || (load->is_fill && load->next >= load->key_first + load->key_count)) {
        return;
    }
    key = load->is_fill ? load->next++ : load->key_first + random_next(load) % load->key_count;
    is_put = load->work == WORK_PUT || (load->work == WORK_MIX && random_next(load) % 2 == 0);
    if (is_put) {
        bytes = snprintf(request, sizeof(request),
                "PUT /v2/keys%s/k%07" PRIu64 "%s HTTP/1.1\r\nHost: bench\r\n"
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: "
                "%zu\r\n\r\nvalue=%s",
                load->prefix, key, load->query, strlen(load->value) + 6, load->value);
    } else {
        bytes = snprintf(request, sizeof(request),
                "GET /v2/keys%s/k%07" PRIu64 " HTTP/1.1\r\nHost: bench\r\n\r\n", load->prefix, key);
    }
    connection->sent_at_us = now_us(CLOCK_MONOTONIC);
    connection->is_busy = true;
    connection->in_bytes = 0;
    connection->in_body = false;
    sent = send(connection->fd, request, (size_t)bytes, MSG_NOSIGNAL);
    if (sent != bytes) {
        note_error(load, "send", strerror(errno), 40);
        connection->is_busy = false;
        return;
    }
    load->busy_count++;
}

static void answered(struct load *load, struct connection *connection)
{
    connection->is_busy = false;
    load->busy_count--;
    if (connection->status < 200 || connection->status > 299) {
        note_error(load, "status", connection->in, connection->in_bytes);
    } else if (load->sample_count < SAMPLES_MAX) {
        load->samples[2 * load->sample_count] = now_us(CLOCK_REALTIME);
        load->samples[2 * load->sample_count + 1] =
                now_us(CLOCK_MONOTONIC) - connection->sent_at_us;
        load->sample_count++;
    }
    send_next(load, connection);
}

/* The head is complete: finds its status and how the body is framed. False: not one we understand. */
static bool read_head(struct connection *connection, size_t head_bytes)
{
    char *length;

    connection->in[head_bytes - 1] = '\0';
    if (strncmp(connection->in, "HTTP/1.1 ", 9) != 0) {
        return false;
    }
    connection->status = atoi(connection->in + 9);
    connection->in_body = true;
    connection->is_chunked = strcasestr(connection->in, "\r\ntransfer-encoding: chunked") != NULL;
    memset(connection->tail, 0, sizeof(connection->tail));
    length = strcasestr(connection->in, "\r\ncontent-length: ");
    if (length == NULL && !connection->is_chunked) {
        return false;
    }
    connection->body_left = length != NULL ? strtoull(length + 18, NULL, 10) : 0;
    return true;
}

/* Takes body bytes; true when the body is complete. */
static bool read_body(struct connection *connection, const char *data, size_t bytes)
{
    if (!connection->is_chunked) {
        connection->body_left -= bytes < connection->body_left ? bytes : connection->body_left;
        return connection->body_left == 0;
    }
    for (size_t i = bytes < 7 ? 0 : bytes - 7; i < bytes; i++) {
        memmove(connection->tail, connection->tail + 1, 7);
        connection->tail[7] = data[i];
    }
    return memcmp(connection->tail + 1, "\r\n0\r\n\r\n", 7) == 0;
}

static void on_readable(struct load *load, struct connection *connection)
{
    static char data[IN_BYTES_MAX];
    ssize_t got = recv(connection->fd, data, sizeof(data), MSG_DONTWAIT);
    size_t room;
    size_t taken;
    char *blank;

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        note_error(load, "closed", "", 0);
        epoll_ctl(load->epoll_fd, EPOLL_CTL_DEL, connection->fd, NULL);
        if (connection->is_busy) {
            connection->is_busy = false;
            load->busy_count--;
        }
        return;
    }
    if (connection->in_body) {
        if (read_body(connection, data, (size_t)got)) {
            answered(load, connection);
        }
        return;
    }
    room = sizeof(connection->in) - 1 - connection->in_bytes;
    taken = (size_t)got < room ? (size_t)got : room;
    memcpy(connection->in + connection->in_bytes, data, taken);
    connection->in[connection->in_bytes + taken] = '\0';
    blank = strstr(connection->in, "\r\n\r\n");
    if (blank != NULL) {
        size_t head_bytes = (size_t)(blank - connection->in) + 4;
        size_t body_at = head_bytes - connection->in_bytes; /* in data */

        connection->in_bytes = head_bytes;
        if (!read_head(connection, head_bytes)) {
            note_error(load, "head", connection->in, head_bytes);
            exit(1);
        }
        if ((connection->body_left == 0 && !connection->is_chunked) ||
                ((size_t)got > body_at &&
                        read_body(connection, data + body_at, (size_t)got - body_at))) {
            answered(load, connection);
        }
        return;
    }
    connection->in_bytes += taken;
}

static struct connection *open_all(struct load *load, unsigned count)
{
    struct connection *connections = calloc(count, sizeof(*connections));

    if (connections == NULL) {
        die("calloc");
    }
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < count; i++) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = &connections[i] };

        connections[i].fd = connect_to(load->port, i);
        epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, connections[i].fd, &event);
    }
    return connections;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void report(struct load *load, double seconds)
{
    static const double points[] = { 0.5, 0.9, 0.99, 0.999 };
    uint64_t *sorted = malloc((load->sample_count + 1) * sizeof(*sorted));

    if (sorted == NULL) {
        die("malloc");
    }
    for (size_t i = 0; i < load->sample_count; i++) {
        sorted[i] = load->samples[2 * i + 1];
    }
    sorted[load->sample_count] = 0;
    if (load->sample_count > 0) {
        qsort(sorted, load->sample_count, sizeof(*sorted), compare_u64);
    }
    printf("{\"requests\":%zu,\"errors\":%" PRIu64 ",\"first_error\":\"%s\",\"seconds\":%.6f",
            load->sample_count, load->error_count, load->first_error, seconds);
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        size_t at = load->sample_count == 0
                            ? 0
                            : (size_t)(points[i] * (double)(load->sample_count - 1));

        printf(",\"p%g_us\":%" PRIu64, points[i] * 100, sorted[at]);
    }
    printf(",\"max_us\":%" PRIu64 "}\n",
            load->sample_count == 0 ? 0 : sorted[load->sample_count - 1]);
    free(sorted);
}

static void loop(
        struct load *load, struct connection *connections, unsigned count, double seconds_max)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t began_us = now_us(CLOCK_MONOTONIC);
    uint64_t end_us = began_us + (uint64_t)(seconds_max * 1e6);

    for (unsigned i = 0; i < count; i++) {
        send_next(load, &connections[i]);
    }
    while (load->busy_count > 0) {
        int ready = epoll_wait(load->epoll_fd, events, EVENTS_MAX, 100);

        for (int i = 0; i < ready; i++) {
            on_readable(load, events[i].data.ptr);
        }
        if (!load->is_closing && now_us(CLOCK_MONOTONIC) > end_us) {
            load->is_closing = true;
        }
        if (now_us(CLOCK_MONOTONIC) > end_us + 30000000) {
            note_error(load, "unanswered for 30 s", "", 0);
            break;
        }
    }
    report(load, (double)(now_us(CLOCK_MONOTONIC) - began_us) / 1e6);
}

static void load_init(struct load *load, uint16_t port, unsigned value_bytes)
{
    *load = (struct load){ .port = port, .query = "", .random = 88172645463325252u };
    load->value = malloc(value_bytes + 1);
    load->samples =
            malloc((size_t)SAMPLES_MAX * 2 * sizeof(*load->samples)); /* touched only as it fills */
    if (load->value == NULL || load->samples == NULL) {
        die("malloc");
    }
    memset(load->value, 'v', value_bytes);
    load->value[value_bytes] = '\0';
}

static int run(uint16_t port, char **arguments, int count)
{
    struct load load;
    unsigned connection_count;
    struct connection *connections;

    if (count < 6) {
        return 2;
    }
    load_init(&load, port, (unsigned)atoi(arguments[5]));
    connection_count = (unsigned)atoi(arguments[1]);
    load.work = strcmp(arguments[2], "put") == 0   ? WORK_PUT
                : strcmp(arguments[2], "get") == 0 ? WORK_GET
                                                   : WORK_MIX;
    load.prefix = arguments[3];
    load.key_count = strtoull(arguments[4], NULL, 10);
    connections = open_all(&load, connection_count);
    loop(&load, connections, connection_count, atof(arguments[0]));
    if (count > 6) {
        FILE *record = fopen(arguments[6], "wb");

        if (record == NULL ||
                fwrite(load.samples, 16, load.sample_count, record) != load.sample_count ||
                fclose(record) != 0) {
            die(arguments[6]);
        }
    }
    return load.error_count == 0 ? 0 : 1;
}

static int fill(uint16_t port, char **arguments, int count)
{
    struct load load;
    unsigned connection_count;

    if (count < 5) {
        return 2;
    }
    load_init(&load, port, (unsigned)atoi(arguments[4]));
    connection_count = (unsigned)atoi(arguments[0]);
    load.prefix = arguments[1];
    load.next = load.key_first = strtoull(arguments[2], NULL, 10);
    load.key_count = strtoull(arguments[3], NULL, 10);
    load.is_fill = true;
    load.query = count > 5 ? arguments[5] : "";
    loop(&load, open_all(&load, connection_count), connection_count, 3600);
    return load.error_count == 0 ? 0 : 1;
}

/* Opens COUNT long polls and waits until each head has come. keys differ when prefix is given. */
static int *open_watches(uint16_t port, unsigned count, const char *key, bool keys_differ)
{
    int *fds = calloc(count, sizeof(*fds));

    if (fds == NULL) {
        die("calloc");
    }
    for (unsigned i = 0; i < count; i++) {
        char request[512];
        char number[16] = "";

        if (keys_differ) {
            snprintf(number, sizeof(number), "/%u", i);
        }
        snprintf(request, sizeof(request),
                "GET /v2/keys%s%s?wait=true HTTP/1.1\r\nHost: bench\r\n\r\n", key, number);
        fds[i] = connect_to(port, i);
        if (send(fds[i], request, strlen(request), MSG_NOSIGNAL) < 0) {
            die("send");
        }
    }
    for (unsigned i = 0; i < count; i++) {
        char head[4096];
        ssize_t got = recv(fds[i], head, sizeof(head) - 1, 0);

        if (got <= 0 || strncmp(head, "HTTP/1.1 200", 12) != 0) {
            die("a watch's head");
        }
    }
    return fds;
}

/* The connections stay open until then: what a server spends on closing them is no part of what was asked for. */
static void await_end(void)
{
    char byte;

    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
}

static int herd(uint16_t port, char **arguments, int count)
{
    unsigned watch_count = count > 1 ? (unsigned)atoi(arguments[0]) : 0;
    int *fds = open_watches(port, watch_count, arguments[1], false);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int writer = connect_to(port, watch_count);
    struct epoll_event events[EVENTS_MAX];
    unsigned left = watch_count;
    uint64_t began_us;
    char request[512];
    char byte;

    for (unsigned i = 0; i < watch_count; i++) {
        struct epoll_event event = { .events = EPOLLIN, .data.fd = fds[i] };

        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fds[i], &event);
    }
    snprintf(request, sizeof(request),
            "PUT /v2/keys%s?value=now HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n",
            arguments[1]);
    puts("ready");
    fflush(stdout);
    if (read(STDIN_FILENO, &byte, 1) < 0) {
        die("stdin");
    }
    began_us = now_us(CLOCK_MONOTONIC);
    if (send(writer, request, strlen(request), MSG_NOSIGNAL) < 0) {
        die("send");
    }
    while (left > 0) {
        int ready = epoll_wait(epoll_fd, events, EVENTS_MAX, 10000);

        if (ready <= 0) {
            errno = ETIMEDOUT;
            die("a watch was not answered");
        }
        for (int i = 0; i < ready; i++) {
            char data[4096];
            ssize_t got = recv(events[i].data.fd, data, sizeof(data), 0);

            if (got <= 0 || memmem(data, (size_t)got, "\"value\":\"now\"", 13) == NULL) {
                /* The final chunk of one already counted, or the last bytes of its event. */
                if (got <= 0) {
                    die("a watch was closed");
                }
                continue;
            }
            left--;
        }
    }
    printf("{\"requests\":%u,\"errors\":0,\"ms\":%.3f}\n", watch_count,
            (double)(now_us(CLOCK_MONOTONIC) - began_us) / 1e3);
    fflush(stdout);
    await_end();
    return 0;
}

static int idle(uint16_t port, char **arguments, int count)
{
    if (count < 2) {
        return 2;
    }
    open_watches(port, (unsigned)atoi(arguments[0]), arguments[1], true);
    puts("ready");
    fflush(stdout);
    await_end();
    return 0;
}

int main(int argc, char **argv)
{
    struct rlimit files;
    int result = 2;

    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (argc >= 4) {
        uint16_t port = (uint16_t)atoi(argv[2]);

        if (strcmp(argv[1], "run") == 0) {
            result = run(port, argv + 3, argc - 3);
        } else if (strcmp(argv[1], "fill") == 0) {
            result = fill(port, argv + 3, argc - 3);
        } else if (strcmp(argv[1], "herd") == 0) {
            result = herd(port, argv + 3, argc - 3);
        } else if (strcmp(argv[1], "idle") == 0) {
            result = idle(port, argv + 3, argc - 3);
        }
    }
    if (result == 2) {
        fputs("load: run|fill|herd|idle PORT ..., see the head of load.c\n", stderr);
    }
    return result;
}
