/* echo_server.c: a server whose handlers show what common/http made of a request; the test_http_*.py
 * drive it.
 *
 * echo_server [name=value...]     limits of struct http_config, plus unix=PATH; prints the port,
 * serves until SIGTERM
 *
 * /hello      a short fixed answer             /turn    the same, given by a turn-end callback
 * /describe   the request, a line a field      /echo    the body /json?N     N bytes by
 * http_respond_json     /big?N   N bytes by http_respond /park       answered by /unpark
 * /stream  begun and released; /push?TEXT /flood?N /share?N /end /abort act on all /parkstream a stream that
 * begins at /unpark  /late /close /connclose /refuse /empty   one http_respond_* each /stats
 * counters                         /drain   drains, then ends the process */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/http/server.h"
#include "common/list.h"
#include "common/loop.h"

struct open_request {
    struct list node;
    struct http_request *request;
    bool wants_stream;
};

struct echo {
    struct loop *loop;
    struct http_server *server;
    struct list parked;
    struct list streams;
    struct list turn;
    unsigned cancels;
};

#define TEXT SPAN_LIT("Content-Type: text/plain\r\n")

static void keep(struct list *list, struct http_request *request, bool wants_stream)
{
    struct open_request *open_request = xcalloc(1, sizeof *open_request);

    open_request->request = request;
    open_request->wants_stream = wants_stream;
    request->user = open_request;
    list_append(list, &open_request->node);
}

static struct http_request *forget(struct open_request *open_request)
{
    struct http_request *request = open_request->request;

    list_remove(&open_request->node);
    free(open_request);
    return request;
}

static void describe(struct echo *echo UNUSED, struct http_request *request)
{
    struct buf text = BUF_INIT;
    struct span thing = http_header(request, "x-thing");

    buf_appendf(&text, "method=%d %.*s\ntarget=%.*s\npath=%.*s\nquery=%s%.*s\nhost=%.*s\n",
            (int)request->method, (int)request->method_text.bytes,
            (const char *)request->method_text.data, (int)request->target.bytes,
            (const char *)request->target.data, (int)request->path.bytes,
            (const char *)request->path.data, request->query.data == NULL ? "NONE" : "",
            (int)request->query.bytes, (const char *)request->query.data, (int)request->host.bytes,
            (const char *)request->host.data);
    buf_appendf(&text, "body=%zu too_large=%d minor=%u keep_alive=%d\nthing=%s%.*s\n",
            request->body.bytes, request->body_too_large, request->minor, request->keep_alive,
            thing.data == NULL ? "NONE" : "", (int)thing.bytes, (const char *)thing.data);
    http_respond(request, 200, TEXT, buf_span(&text));
    buf_fini(&text);
}

static size_t number_of(const struct http_request *request)
{
    size_t value = 0;

    for (size_t i = 0; i < request->query.bytes; i++) {
        value = value * 10 + (size_t)(request->query.data[i] - '0');
    }
    return value;
}

static void answer_many(struct http_request *request, bool is_json)
{
    size_t bytes = number_of(request);
    struct buf body = BUF_INIT;

    memset(buf_reserve(&body, bytes), 'x', bytes);
    body.bytes = bytes;
    if (is_json) {
        http_respond_json(request, 200, TEXT, buf_span(&body));
    } else {
        http_respond(request, 200, TEXT, buf_span(&body));
    }
    buf_fini(&body);
}

static void begin_stream(struct echo *echo, struct http_request *request)
{
    keep(&echo->streams, request, true);
    http_stream_begin(request, 200, TEXT);
    http_request_release(request);
}

static void unpark(struct echo *echo)
{
    LIST_FOREACH (parked, &echo->parked, struct open_request, node) {
        bool wants_stream = parked->wants_stream;
        struct http_request *request = forget(parked);
        if (wants_stream) {
            begin_stream(echo, request);
        } else {
            http_respond(request, 200, TEXT, SPAN_LIT("unparked\n"));
        }
    }
}

static void push(struct echo *echo, struct span data)
{
    LIST_FOREACH (stream, &echo->streams, struct open_request, node) {
        http_stream_chunk(stream->request, data);
    }
}

static void end_streams(struct echo *echo, bool is_abort)
{
    LIST_FOREACH (stream, &echo->streams, struct open_request, node) {
        struct http_request *request = forget(stream);
        if (is_abort) {
            http_stream_abort(request);
        } else {
            http_stream_end(request);
        }
    }
}

static void flood(struct echo *echo, size_t bytes)
{
    struct buf data = BUF_INIT;

    memset(buf_reserve(&data, bytes), 'f', bytes);
    data.bytes = bytes;
    push(echo, buf_span(&data));
    buf_fini(&data);
}

/* As flood, the bytes held once for all. */
static void share(struct echo *echo, size_t bytes)
{
    struct buf data = BUF_INIT;

    memset(buf_reserve(&data, bytes), 's', bytes);
    data.bytes = bytes;
    struct http_body *body = http_body_new(echo->server, &data);
    LIST_FOREACH (stream, &echo->streams, struct open_request, node) {
        http_stream_share(stream->request, body);
    }
    (void)http_body_unref(body);
}

static unsigned count(const struct list *list)
{
    unsigned n = 0;

    for (const struct list *node = list->next; node != list; node = node->next) {
        n++;
    }
    return n;
}

static void answer_stats(struct echo *echo, struct http_request *request)
{
    struct http_stats stats;
    struct buf text = BUF_INIT;

    http_server_get_stats(echo->server, &stats);
    buf_appendf(&text,
            "conns=%" PRIu64 " accepted=%" PRIu64 " refused=%" PRIu64 " requests=%" PRIu64,
            stats.conn_count, stats.accepted, stats.refused, stats.requests);
    buf_appendf(&text, " parked=%u streams=%u cancels=%u cut=%" PRIu64 " held_bytes=%" PRIu64 "\n",
            count(&echo->parked), count(&echo->streams), echo->cancels, stats.cut,
            stats.held_bytes);
    http_respond(request, 200, TEXT, buf_span(&text));
    buf_fini(&text);
}

static void on_drained(void *user)
{
    struct echo *echo = user;

    loop_stop(echo->loop);
}

/* Handlers that act on others' requests. False: none of them. */
static bool act(struct echo *echo, struct http_request *request)
{
    if (span_eq(request->path, SPAN_LIT("/unpark"))) {
        unpark(echo);
    } else if (span_eq(request->path, SPAN_LIT("/push"))) {
        push(echo, request->query);
    } else if (span_eq(request->path, SPAN_LIT("/flood"))) {
        flood(echo, number_of(request));
    } else if (span_eq(request->path, SPAN_LIT("/share"))) {
        share(echo, number_of(request));
    } else if (span_eq(request->path, SPAN_LIT("/end"))) {
        end_streams(echo, false);
    } else if (span_eq(request->path, SPAN_LIT("/abort"))) {
        end_streams(echo, true);
    } else if (span_eq(request->path, SPAN_LIT("/drain"))) {
        http_server_drain(echo->server, on_drained, echo);
    } else {
        return false;
    }
    http_respond(request, 200, TEXT, SPAN_LIT("done\n"));
    return true;
}

static void on_request(void *user, struct http_request *request)
{
    struct echo *echo = user;
    struct span path = request->path;

    if (span_eq(path, SPAN_LIT("/hello"))) {
        http_respond(request, 200, TEXT, SPAN_LIT("hello\n"));
    } else if (span_eq(path, SPAN_LIT("/turn"))) {
        keep(&echo->turn, request, false);
    } else if (span_eq(path, SPAN_LIT("/echo"))) {
        http_respond(request, 200, TEXT, request->body);
    } else if (span_eq(path, SPAN_LIT("/json"))) {
        answer_many(request, true);
    } else if (span_eq(path, SPAN_LIT("/big"))) {
        answer_many(request, false);
    } else if (span_eq(path, SPAN_LIT("/park"))) {
        keep(&echo->parked, request, false);
    } else if (span_eq(path, SPAN_LIT("/parkstream"))) {
        keep(&echo->parked, request, true);
    } else if (span_eq(path, SPAN_LIT("/stream"))) {
        begin_stream(echo, request);
    } else if (span_eq(path, SPAN_LIT("/late"))) {
        http_respond_late(request, 200, SPAN_LIT("A: b\r\n"), TEXT, SPAN_LIT("late\n"));
    } else if (span_eq(path, SPAN_LIT("/close"))) {
        http_respond_close(request, 200, TEXT, SPAN_LIT("bye\n"));
    } else if (span_eq(path, SPAN_LIT("/connclose"))) {
        http_respond_close(
                request, 400, SPAN_LIT("A: b\r\nConnection: close\r\nZ: z\r\n"), SPAN_NONE);
    } else if (span_eq(path, SPAN_LIT("/refuse"))) {
        http_refuse(request, "400 Bad Request");
    } else if (span_eq(path, SPAN_LIT("/empty"))) {
        http_respond(request, 204, SPAN_NONE, SPAN_NONE);
    } else if (span_eq(path, SPAN_LIT("/stats"))) {
        answer_stats(echo, request);
    } else if (!act(echo, request)) {
        describe(echo, request);
    }
}

static void on_cancel(void *user, struct http_request *request)
{
    struct echo *echo = user;

    echo->cancels++;
    (void)forget(request->user);
}

static void on_turn_end(void *user)
{
    struct echo *echo = user;

    LIST_FOREACH (waiting, &echo->turn, struct open_request, node) {
        http_respond(forget(waiting), 200, TEXT, SPAN_LIT("hello\n"));
    }
}

static void on_signal(void *user)
{
    loop_stop(user);
}

static int listen_on(const char *unix_path, unsigned *ret_port)
{
    if (unix_path != NULL) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", unix_path);
        INVARIANT_EQ(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
        INVARIANT_EQ(listen(fd, 4096), 0);
        *ret_port = 0;
        return fd;
    }
    struct sockaddr_in address = { .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    INVARIANT_EQ(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    INVARIANT_EQ(listen(fd, 4096), 0);
    INVARIANT_EQ(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static const char *value_of(int argc, char **argv, const char *name)
{
    size_t bytes = strlen(name);

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], name, bytes) == 0 && argv[i][bytes] == '=') {
            return argv[i] + bytes + 1;
        }
    }
    return NULL;
}

static uint64_t u64_of(int argc, char **argv, const char *name)
{
    const char *value = value_of(argc, argv, name);

    return value == NULL ? 0 : strtoull(value, NULL, 10);
}

int main(int argc, char **argv)
{
    static const struct http_events events = { .on_request = on_request, .on_cancel = on_cancel };
    struct echo echo = { .loop = loop_new() };
    struct http_config config = {
        .header_bytes_max = u64_of(argc, argv, "header_bytes_max"),
        .body_bytes_max = u64_of(argc, argv, "body_bytes_max"),
        .output_bytes_max = u64_of(argc, argv, "output_bytes_max"),
        .held_bytes_max = u64_of(argc, argv, "held_bytes_max"),
        .conn_count_max = (unsigned)u64_of(argc, argv, "conn_count_max"),
        .request_timeout_ms = u64_of(argc, argv, "request_timeout_ms"),
        .write_timeout_ms = u64_of(argc, argv, "write_timeout_ms"),
        .idle_timeout_ms = u64_of(argc, argv, "idle_timeout_ms"),
        .events = &events,
        .user = &echo,
    };
    struct err err = { 0 };
    unsigned port;

    list_init(&echo.parked);
    list_init(&echo.streams);
    list_init(&echo.turn);
    loop_on_turn_end(echo.loop, on_turn_end, &echo);
    loop_on_signal(echo.loop, SIGTERM, on_signal, echo.loop);
    if (http_server_new(echo.loop, &config, &echo.server, &err) < 0 ||
            http_server_listen(echo.server, listen_on(value_of(argc, argv, "unix"), &port), &err) <
                    0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    (void)printf("%u\n", port);
    (void)fflush(stdout);
    loop_run(echo.loop);
    echo.server = http_server_free(echo.server);
    echo.loop = loop_free(echo.loop);
    INVARIANT(list_is_empty(&echo.parked));
    INVARIANT(list_is_empty(&echo.streams));
    return 0;
}
