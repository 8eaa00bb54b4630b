#include "proto/status_server.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "proto/hello.h"
#include "proto/link.h"
#include "proto/status.h"
#include "version.h"

struct status_server {
    struct status_server_config config;
    struct link_hub *hub;
    uint64_t started_at_ms;
    struct status_page page; /* scratch */
};

static bool is_full(const struct status_page *page)
{
    return page->count == STATUS_LINES_MAX;
}

static void end_line(struct status_page *page, uint64_t value)
{
    buf_append_byte(&page->text, ' ');
    buf_append_u64_decimal(&page->text, value);
    page->ends[page->count++] = page->text.bytes;
}

void status_page_add(struct status_page *page, const char *name, uint64_t value)
{
    if (!is_full(page)) {
        buf_append_str(&page->text, name);
        end_line(page, value);
    }
}

void status_page_add_of(
        struct status_page *page, const char *name, const char *label, uint64_t id, uint64_t value)
{
    if (!is_full(page)) {
        buf_appendf(&page->text, "%s{%s=\"%016" PRIx64 "\"}", name, label, id);
        end_line(page, value);
    }
}

static void answer(struct status_server *server, struct link *link)
{
    struct status_page *page = &server->page;
    struct span lines[STATUS_LINES_MAX];
    CLEANUP(buf_fini) struct buf out = BUF_INIT;

    page->count = 0;
    buf_clear(&page->text);
    server->config.fill(server->config.user, page);
    for (size_t i = 0, start = 0; i < page->count; start = page->ends[i], i++) {
        lines[i] = span_of(page->text.data + start, page->ends[i] - start);
    }
    struct status status = {
        .component = span_str(server->config.component),
        .version = SPAN_LIT(QUORATE_VERSION),
        .pid = (uint64_t)getpid(),
        .uptime_ms = clock_monotonic_ms() - server->started_at_ms,
        .lines = { lines, page->count },
    };
    SET(&status, status_tag_lines);
    status_encode(&status, &out);
    (void)link_send(link, status_type, &out); /* without credit the asker has stopped listening */
}

static void on_message(void *user, struct link *link, unsigned type, struct span body)
{
    (void)body;
    if (type == status_get_type) {
        answer(user, link);
    }
}

static int on_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    (void)user;
    (void)link;
    (void)peer;
    (void)err;
    return 0;
}

static void on_down(void *user, struct link *link)
{
    (void)user;
    (void)link;
}

static void on_stranger(void *user, const char *path, int64_t uid, int64_t pid)
{
    struct status_server *server = user;

    if (server->config.on_stranger != NULL) {
        server->config.on_stranger(server->config.user, path, uid, pid);
    }
}

static void fill_hello(void *user, struct hello *ret_hello)
{
    struct status_server *server = user;
    ret_hello->component = span_str(server->config.component);
}

static const struct link_events events = {
    .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .on_stranger = on_stranger,
    .fill_hello = fill_hello,
};

int status_server_open(struct loop *loop, const struct status_server_config *config,
        struct status_server **ret_server, struct err *err)
{
    struct status_server *server = xcalloc(1, sizeof *server);
    struct link_config link_config = {
        .pattern = LINK_REQREP,
        .listen = true,
        .path = config->path,
        .frame_bytes_max = STATUS_FRAME_BYTES_MAX,
        .peer_uids = config->peer_uids,
        .peer_uid_count = config->peer_uid_count,
        .events = &events,
        .user = server,
    };

    server->config = *config;
    server->started_at_ms = clock_monotonic_ms();
    int result = link_hub_open(loop, &link_config, &server->hub, err);
    if (result < 0) {
        free(server);
        return result;
    }
    *ret_server = server;
    return 0;
}

struct status_server *status_server_close(struct status_server *server)
{
    if (server != NULL) {
        server->hub = link_hub_close(server->hub);
        buf_fini(&server->page.text);
        free(server);
    }
    return NULL;
}
