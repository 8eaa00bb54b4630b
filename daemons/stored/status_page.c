/* status_page.c: what stored says of itself, for quoratectl, metrics and tests. */
#include <unistd.h>

#include "common/clock.h"
#include "common/strangers.h"
#include "daemons/stored/stored_impl.h"
#include "proto/hello.h"
#include "proto/link.h"
#include "proto/status.h"
#include "version.h"

enum {
    LINES_MAX = 32
};

struct page {
    struct buf text;
    size_t ends[LINES_MAX];
    size_t count;
};

static void add_line(struct page *page, const char *name, uint64_t value)
{
    INVARIANT_LT(page->count, LINES_MAX);
    buf_appendf(&page->text, "%s %" PRIu64, name, value);
    page->ends[page->count++] = page->text.bytes;
}

static void fill_state(struct page *page, const struct stored *stored)
{
    struct replica *replica = generations_replica(stored->generations);

    add_line(page, "stored_generation", generations_number(stored->generations));
    if (replica != NULL) {
        const struct schema_meta *meta = replica_meta(replica);
        add_line(page, "stored_applied_index", meta->applied_index);
        add_line(page, "stored_applied_term", meta->applied_term);
        add_line(page, "stored_etcd_index", meta->etcd_index);
        add_line(page, "stored_cluster_time_ns", meta->time_ns);
        add_line(page, "stored_history_events", meta->event_count);
        add_line(page, "stored_history_bytes", meta->event_bytes);
        add_line(page, "stored_state_bytes", state_writer_file_bytes(replica_writer(replica)));
    }
}

static void fill(struct page *page, const struct stored *stored)
{
    fill_state(page, stored);
    add_line(page, "stored_phase", stored->raft.phase);
    add_line(page, "stored_batches_total", stored->batches);
    add_line(page, "stored_entries_total", stored->entries);
    add_line(page, "stored_subscribers", subscribers_count(stored));
    add_line(page, "stored_batches_skipped_total", stored->subscribers.skipped);
    add_line(page, "stored_snapshots_total", stored->snapshots.made_count);
    add_line(page, "stored_snapshot_index", stored->snapshots.newest.index);
    add_line(page, "stored_snapshot_bytes", stored->snapshots.newest.bytes);
    add_line(page, "stored_compactions_total", stored->compaction.done_count);
    add_line(page, "stored_log_bytes", stored->snapshots.log_bytes);
    add_line(page, "stored_no_space", stored->raft.no_space);
}

static void on_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct stored *stored = user;
    struct page page = { .count = 0 };
    struct span lines[LINES_MAX];
    struct buf out = BUF_INIT;

    (void)body;
    if (type != status_get_type) {
        return;
    }
    fill(&page, stored);
    for (size_t i = 0, start = 0; i < page.count; start = page.ends[i], i++) {
        lines[i] = span_of(page.text.data + start, page.ends[i] - start);
    }
    struct status status = {
        .component = SPAN_LIT("stored"),
        .version = SPAN_LIT(QUORATE_VERSION),
        .pid = (uint64_t)getpid(),
        .uptime_ms = clock_monotonic_ms() - stored->started_at_ms,
        .lines = { lines, page.count },
    };
    SET(&status, status_tag_lines);
    status_encode(&status, &out);
    (void)link_send(link, status_type, &out); /* without credit the asker has stopped listening */
    buf_fini(&out);
    buf_fini(&page.text);
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

static void fill_hello(void *user, struct hello *ret_hello)
{
    (void)user;
    ret_hello->component = SPAN_LIT("stored");
}

static const struct link_events status_events = {
    .on_up = on_up,
    .on_down = on_down,
    .on_message = on_message,
    .on_stranger = strangers_tell,
    .fill_hello = fill_hello,
};

int status_page_start(struct stored *stored, struct err *err)
{
    struct link_config config = {
        .pattern = LINK_REQREP,
        .listen = true,
        .path = "stored-status.ipc",
        .peer_uids = stored->config.peer_uids,
        .peer_uid_count = stored->config.peer_uid_count,
        .events = &status_events,
        .user = stored,
    };
    return link_hub_open(stored->loop, &config, &stored->status_hub, err);
}

void status_page_stop(struct stored *stored)
{
    stored->status_hub = link_hub_close(stored->status_hub);
}
