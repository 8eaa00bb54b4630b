#include "common/http/server.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/http/internal.h"
#include "common/loop.h"

enum {
    TICK_MS_MAX = 1000,
    TICK_MS_MIN = 10,
    TICKS_PER_DEADLINE = 8, /* a deadline is met late by an eighth of it at most */
    OTHER_FDS = 150,        /* files, pipes and links of the daemon beside its clients */
};

static void fill_limits(struct http_config *config)
{
    if (config->header_bytes_max == 0) {
        config->header_bytes_max = (1 << 20) + 4096;
    }
    if (config->body_bytes_max == 0) {
        config->body_bytes_max = 10 << 20;
    }
    if (config->output_bytes_max == 0) {
        config->output_bytes_max = 64 << 20;
    }
    if (config->held_bytes_max == 0) {
        config->held_bytes_max = 256 << 20;
    }
    config->held_bytes_max =
            MAX(config->held_bytes_max, 4 * (config->header_bytes_max + config->body_bytes_max));
    if (config->conn_count_max == 0) {
        struct rlimit limit = { 1024, 1024 };
        (void)getrlimit(RLIMIT_NOFILE, &limit);
        rlim_t usable = limit.rlim_cur > (rlim_t)2 * OTHER_FDS ? limit.rlim_cur - OTHER_FDS
                                                               : limit.rlim_cur / 2;
        config->conn_count_max = (unsigned)MIN(usable, (rlim_t)INT32_MAX);
    }
    if (config->request_timeout_ms == 0) {
        config->request_timeout_ms = 60000;
    }
    if (config->write_timeout_ms == 0) {
        config->write_timeout_ms = 60000;
    }
    if (config->idle_timeout_ms == 0) {
        config->idle_timeout_ms = 300000;
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct http_server *server = timer->data;
    uint64_t now_ms = uv_now(server->uv);

    for (size_t i = 0; i < HTTP_DEADLINE_COUNT; i++) {
        struct list *due = &server->deadlines[i];
        while (!list_is_empty(due)) {
            struct http_conn *conn = CONTAINER_OF(due->next, struct http_conn, deadline);
            if (conn->deadline_at_ms > now_ms) {
                break;
            }
            http_conn_on_deadline(conn);
        }
    }
    http_server_judge(server);
    http_server_resume_accepting(server);
}

static void on_awake(uv_idle_t *idle)
{
    struct http_server *server = idle->data;

    /* Here and not at the turn's end: `done` may free the server. */
    if (server->drained != NULL && server->is_draining &&
            server->stats.conn_count + server->refused_count == server->stream_count) {
        void (*done)(void *) = MOVE(server->drained);
        done(server->drained_user);
    }
}

void http_server_want_turn(struct http_server *server)
{
    if (uv_is_active((uv_handle_t *)&server->awake) == 0) {
        INVARIANT_EQ(uv_idle_start(&server->awake, on_awake), 0);
    }
}

void http_server_check_drained(struct http_server *server)
{
    if (server->is_draining && server->drained != NULL && !server->is_freed) {
        http_server_want_turn(server);
    }
}

/* The loop may sleep now, unless clients are so quick that it had better look again. */
static void rest(struct http_server *server)
{
    struct busy_poll_turn turn = {
        .asked = server->stats.requests != server->asked_before,
        .answered = server->answers != server->answered_before,
    };
    const struct http_events *events = server->config.events;

    server->asked_before = server->stats.requests;
    server->answered_before = server->answers;
    if (turn.asked || turn.answered || server->busy_poll.is_on) {
        turn.now_ns = clock_monotonic_ns();
        turn.awaits = events->awaits != NULL && events->awaits(server->config.user);
        if (busy_poll_goes_on(&server->busy_poll, &turn)) {
            http_server_want_turn(server);
            return;
        }
    }
    (void)uv_idle_stop(&server->awake);
}

/* True: there may be more to do at once. */
static bool end_turns(struct http_server *server)
{
    struct list due;

    if (list_is_empty(&server->turn)) {
        return false;
    }
    /* Taken as a whole: what they add (a pipelined request handed out now, say) is for the next
     * turn. */
    due = server->turn;
    due.next->prev = &due;
    due.prev->next = &due;
    list_init(&server->turn);
    uint64_t requests_before = server->stats.requests;
    while (!list_is_empty(&due)) {
        struct http_conn *conn = CONTAINER_OF(due.next, struct http_conn, turn);
        list_remove(&conn->turn);
        http_conn_on_turn_end(conn);
    }
    /* Requests handed out only now may wait for other turn-end callbacks: have one more turn at
     * once. */
    return !list_is_empty(&server->turn) || server->stats.requests != requests_before;
}

static void on_turn_end(void *user)
{
    struct http_server *server = user;

    if (!list_is_empty(&server->waiting)) {
        http_server_use_room(server);
    }
    bool had_turns = !list_is_empty(&server->turn);
    if (end_turns(server)) {
        return;
    }
    rest(server);
    if (had_turns) {
        http_server_check_drained(server);
    }
}

int http_server_new(struct loop *loop, const struct http_config *config,
        struct http_server **ret_server, struct err *err)
{
    int spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (spare_fd < 0) {
        return err_errno(err, "open /dev/null");
    }
    struct http_server *server = xcalloc(1, sizeof *server);
    server->loop = loop;
    server->uv = loop_uv(loop);
    server->spare_fd = spare_fd;
    server->config = *config;
    fill_limits(&server->config);
    server->rules =
            http_parser_rules_new(server->config.header_bytes_max, server->config.body_bytes_max);
    list_init(&server->conns);
    list_init(&server->turn);
    list_init(&server->waiting);
    server->deadline_ms[HTTP_DEADLINE_IDLE] = server->config.idle_timeout_ms;
    server->deadline_ms[HTTP_DEADLINE_REQUEST] = server->config.request_timeout_ms;
    server->deadline_ms[HTTP_DEADLINE_WRITE] = server->config.write_timeout_ms;
    server->deadline_ms[HTTP_DEADLINE_LINGER] = HTTP_LINGER_MS;

    uint64_t tick_ms = TICK_MS_MAX;
    for (size_t i = 0; i < HTTP_DEADLINE_COUNT; i++) {
        list_init(&server->deadlines[i]);
        if (i != HTTP_DEADLINE_NONE) {
            tick_ms = MIN(tick_ms,
                    MAX(server->deadline_ms[i] / TICKS_PER_DEADLINE, (uint64_t)TICK_MS_MIN));
        }
    }
    INVARIANT_EQ(uv_idle_init(server->uv, &server->awake), 0);
    INVARIANT_EQ(uv_timer_init(server->uv, &server->ticker), 0);
    INVARIANT_EQ(uv_timer_start(&server->ticker, on_tick, tick_ms, tick_ms), 0);
    server->awake.data = server;
    server->ticker.data = server;
    server->handle_count = 2;
    loop_on_turn_end(loop, on_turn_end, server);
    *ret_server = server;
    return 0;
}

void http_server_handle_closed(struct http_server *server)
{
    INVARIANT(server->handle_count > 0);
    server->handle_count--;
    if (server->handle_count == 0 && server->is_freed) {
        http_pool_fini(&server->pool);
        server->rules = http_parser_rules_free(server->rules);
        free(server);
    }
}

static void on_handle_closed(uv_handle_t *handle)
{
    http_server_handle_closed(handle->data);
}

struct http_server *http_server_free(struct http_server *server)
{
    if (server == NULL) {
        return NULL;
    }
    on_turn_end(server); /* answers given in this turn go out */
    loop_off_turn_end(server->loop, on_turn_end, server);
    server->is_freed = true;
    http_server_stop_accepting(server);
    while (!list_is_empty(&server->conns)) {
        http_conn_give_up(CONTAINER_OF(server->conns.next, struct http_conn, all));
    }
    if (server->spare_fd >= 0) {
        (void)close(server->spare_fd);
    }
    uv_close((uv_handle_t *)&server->awake, on_handle_closed);
    uv_close((uv_handle_t *)&server->ticker, on_handle_closed);
    return NULL;
}

void http_server_drain(struct http_server *server, void (*done)(void *user), void *user)
{
    server->is_draining = true;
    server->drained = done;
    server->drained_user = user;
    http_server_stop_accepting(server);
    LIST_FOREACH (conn, &server->conns, struct http_conn, all) {
        if (conn->state == HTTP_CONN_READING && conn->in.bytes == 0 &&
                http_conn_unsent(conn) == 0) {
            http_conn_close(conn);
        }
    }
    http_server_check_drained(server);
}

void http_server_get_stats(const struct http_server *server, struct http_stats *ret_stats)
{
    *ret_stats = server->stats;
    ret_stats->held_bytes = server->held_bytes;
}

const char *http_date(struct http_server *server)
{
    uint64_t now_ms = uv_now(server->uv);

    if (server->date_seconds == 0 || now_ms != server->date_at_ms) {
        int64_t seconds = (int64_t)(clock_wall_ns() / 1000000000U);
        server->date_at_ms = now_ms;
        if (seconds != server->date_seconds) {
            server->date_seconds = seconds;
            http_date_format(seconds, server->date);
        }
    }
    return server->date;
}
