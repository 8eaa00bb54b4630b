/* metrics.c: /metrics in Prometheus' text format 0.0.4: etcd 3.4's names, and 2.3's where they differ. Counters are those of
 * all gatewayds of the member together; process_* are this process's. */
#include "daemons/gatewayd/shell.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/ids.h"
#include "common/json.h"
#include "proto/propose.h"
#include "version.h"

static const char *const method_names[COUNTERS_METHOD_COUNT] = {
    [COUNTERS_GET] = "GET",
    [COUNTERS_QGET] = "QGET",
    [COUNTERS_PUT] = "PUT",
    [COUNTERS_POST] = "POST",
    [COUNTERS_DELETE] = "DELETE",
    [COUNTERS_HEAD] = "HEAD",
};

static void append_header(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_appendf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void append_single(
        struct buf *out, const char *name, const char *type, const char *help, uint64_t value)
{
    append_header(out, name, type, help);
    buf_appendf(out, "%s %" PRIu64 "\n", name, value);
}

static void append_received(struct buf *out, const uint64_t *values)
{
    append_header(out, "etcd_http_received_total", "counter",
            "Counter of requests received into the system (successfully parsed and authd).");
    for (unsigned method = 0; method < COUNTERS_METHOD_COUNT; method++) {
        uint64_t count = values[COUNTER_HTTP_RECEIVED + method];
        if (count > 0) {
            buf_appendf(out, "etcd_http_received_total{method=\"%s\"} %" PRIu64 "\n",
                    method_names[method], count);
        }
    }
}

static void append_failed(struct buf *out, const uint64_t *values)
{
    append_header(out, "etcd_http_failed_total", "counter",
            "Counter of handle failures of requests (non-watches), by method (GET/PUT etc.) and "
            "code "
            "(400, 500 etc.).");
    for (unsigned method = 0; method < COUNTERS_METHOD_COUNT; method++) {
        for (unsigned slot = 0; slot < COUNTERS_CODE_COUNT; slot++) {
            uint64_t count = values[COUNTER_HTTP_FAILED + method * COUNTERS_CODE_COUNT + slot];
            if (count > 0) {
                buf_appendf(out, "etcd_http_failed_total{code=\"%u\",method=\"%s\"} %" PRIu64 "\n",
                        counters_slot_code(slot), method_names[method], count);
            }
        }
    }
}

static void append_histogram(
        struct buf *out, const char *name, unsigned method, const uint64_t *values)
{
    const uint64_t *buckets =
            values + COUNTER_HTTP_BUCKETS + (size_t)method * COUNTERS_BUCKET_COUNT;
    uint64_t count = 0;
    double bound_s = 0.0005;

    for (unsigned i = 0; i < COUNTERS_BUCKET_COUNT; i++) {
        count += buckets[i];
        buf_appendf(out, "%s_bucket{method=\"%s\",le=\"", name, method_names[method]);
        if (i == COUNTERS_BUCKET_COUNT - 1) {
            buf_append_str(out, "+Inf");
        } else {
            json_append_double(out, bound_s);
        }
        buf_appendf(out, "\"} %" PRIu64 "\n", count);
        bound_s *= 2;
    }
    buf_appendf(out, "%s_sum{method=\"%s\"} ", name, method_names[method]);
    json_append_double(out, (double)values[COUNTER_HTTP_SUM_NS + method] / 1e9);
    buf_appendf(out, "\n%s_count{method=\"%s\"} %" PRIu64 "\n", name, method_names[method], count);
}

static void append_durations(struct buf *out, const char *name, const uint64_t *values)
{
    append_header(out, name, "histogram",
            "Bucketed histogram of processing time (s) of successfully handled requests "
            "(non-watches), "
            "by method (GET/PUT etc.).");
    for (unsigned method = 0; method < COUNTERS_METHOD_COUNT; method++) {
        uint64_t count = 0;
        for (unsigned i = 0; i < COUNTERS_BUCKET_COUNT; i++) {
            count += values[COUNTER_HTTP_BUCKETS + method * COUNTERS_BUCKET_COUNT + i];
        }
        if (count > 0) {
            append_histogram(out, name, method, values);
        }
    }
}

struct action {
    const char *name;
    enum counter success; /* the failures stand next to it */
};

static const struct action writes[] = {
    { "compareAndDelete", COUNTER_COMPARE_AND_DELETE_SUCCESS },
    { "compareAndSwap", COUNTER_COMPARE_AND_SWAP_SUCCESS },
    { "create", COUNTER_CREATE_SUCCESS },
    { "delete", COUNTER_DELETE_SUCCESS },
    { "set", COUNTER_SETS_SUCCESS },
    { "update", COUNTER_UPDATE_SUCCESS },
};

static void append_actions(
        struct buf *out, const char *prefix, const char *name, bool failed, const uint64_t *values)
{
    char full[128];

    (void)snprintf(full, sizeof full, "%s_%s", prefix, name);
    append_header(out, full, "counter",
            failed ? "Failed write actions (e.g. set/compareAndDelete) seen by this member."
                   : "Total number of writes (e.g. set/compareAndDelete) seen by this member.");
    for (size_t i = 0; i < ARRAY_COUNT(writes); i++) {
        buf_appendf(out, "%s{action=\"%s\"} %" PRIu64 "\n", full, writes[i].name,
                values[(unsigned)writes[i].success + (failed ? 1 : 0)]);
    }
}

static void append_store(struct buf *out, const char *prefix, const uint64_t *values)
{
    char name[128];

    (void)snprintf(name, sizeof name, "%s_reads_total", prefix);
    append_header(out, name, "counter",
            "Total number of reads action by (get/getRecursive), local to this member.");
    buf_appendf(out, "%s{action=\"get\"} %" PRIu64 "\n%s{action=\"getRecursive\"} %" PRIu64 "\n",
            name, values[COUNTER_GETS_SUCCESS] - values[COUNTER_READS_RECURSIVE], name,
            values[COUNTER_READS_RECURSIVE]);
    (void)snprintf(name, sizeof name, "%s_reads_failed_total", prefix);
    append_header(out, name, "counter",
            "Failed read actions by (get/getRecursive), local to this member.");
    buf_appendf(out, "%s{action=\"get\"} %" PRIu64 "\n", name, values[COUNTER_GETS_FAIL]);
    append_actions(out, prefix, "writes_total", false, values);
    append_actions(out, prefix, "writes_failed_total", true, values);
    (void)snprintf(name, sizeof name, "%s_expires_total", prefix);
    append_single(
            out, name, "counter", "Total number of expired keys.", values[COUNTER_EXPIRE_COUNT]);
    (void)snprintf(name, sizeof name, "%s_watch_requests_total", prefix);
    append_single(out, name, "counter",
            "Total number of incoming watch requests (new or reestablished).",
            values[COUNTER_WATCH_REQUESTS]);
    (void)snprintf(name, sizeof name, "%s_watchers", prefix);
    append_single(
            out, name, "gauge", "Count of currently active watchers.", values[COUNTER_WATCHERS]);
}

static void append_server(struct gatewayd *gw, struct buf *out, const uint64_t *values)
{
    const struct raft_view *raft = &gw->raft;
    char id[IDS_TEXT_BYTES];

    append_single(out, "etcd_server_has_leader", "gauge",
            "Whether or not a leader exists. 1 is existence, 0 is not.", raft->leader_id != 0);
    append_single(out, "etcd_server_is_leader", "gauge",
            "Whether or not this member is a leader. 1 if is, 0 otherwise.",
            raft->up && raft->role == RAFT_STATE_LEADER);
    append_single(out, "etcd_server_leader_changes_seen_total", "counter",
            "The number of leader changes seen.", raft->leader_changes);
    append_single(out, "etcd_server_proposals_committed_total", "gauge",
            "The total number of consensus proposals committed.",
            MAX(raft->commit_index, gw->applied_index));
    append_single(out, "etcd_server_proposals_applied_total", "gauge",
            "The total number of consensus proposals applied.", gw->applied_index);
    append_single(out, "etcd_server_proposals_pending", "gauge",
            "The current number of pending proposals to commit.", raft->proposals_pending);
    append_single(out, "etcd_server_pending_proposal_total", "gauge",
            "The current number of pending proposals to commit.", raft->proposals_pending);
    append_single(out, "etcd_server_proposals_failed_total", "counter",
            "The total number of failed proposals seen.", raft->proposals_failed);
    append_single(out, "etcd_server_proposal_failed_total", "counter",
            "The total number of failed proposals seen.", raft->proposals_failed);
    append_single(out, "etcd_server_health_success", "counter",
            "The total number of successful health checks", values[COUNTER_HEALTH_SUCCESS]);
    append_single(out, "etcd_server_health_failures", "counter",
            "The total number of failed health checks", values[COUNTER_HEALTH_FAIL]);
    append_header(out, "etcd_server_id", "gauge",
            "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.");
    buf_appendf(out, "etcd_server_id{server_id=\"%s\"} 1\n",
            ids_text(raft->member_id != 0 ? raft->member_id : gw->view.meta.member_id, id));
    append_header(out, "etcd_server_version", "gauge",
            "Which version is running. 1 for 'server_version' label with current version.");
    buf_appendf(out, "etcd_server_version{server_version=\"%s\"} 1\n", ETCD_VERSION);
    append_header(out, "quorate_build_info", "gauge", "Our own version. Always 1.");
    buf_appendf(out, "quorate_build_info{version=\"%s\"} 1\n", QUORATE_VERSION);
    append_single(out, "quorate_wal_syncs_total", "counter",
            "Syncs of the write-ahead log since raftd started.", raft->wal_syncs);
    append_single(out, "quorate_wal_bytes_total", "counter",
            "Bytes written to the write-ahead log since raftd started.", raft->wal_bytes);
    append_single(out, "quorate_no_space", "gauge",
            "1 while writes are refused because the disk is full.", raft->no_space);
    append_single(out, "quorate_writes_wait", "gauge",
            "1 while writes wait because too much of the log is not applied yet.",
            raft->writes_wait);
}

static void append_cluster_version(struct gatewayd *gw, struct buf *out)
{
    const char *version = gw->view.meta.cluster_version;
    const char *minor_end = strchr(version, '.');

    if (minor_end == NULL) {
        return; /* not decided yet */
    }
    minor_end = strchr(minor_end + 1, '.');
    int bytes = (int)(minor_end == NULL ? strlen(version) : (size_t)(minor_end - version));
    append_header(out, "etcd_cluster_version", "gauge",
            "Which version is running. 1 for 'cluster_version' label with current cluster version");
    buf_appendf(out, "etcd_cluster_version{cluster_version=\"%.*s\"} 1\n", bytes, version);
}

static uint64_t count_open_fds(void)
{
    uint64_t count = 0;
    DIR *dir = opendir("/proc/self/fd");

    if (dir != NULL) {
        while (readdir(dir) != NULL) {
            count++;
        }
        (void)closedir(dir);
    }
    return count > 3 ? count - 3 : 0; /* without ".", "..", and the directory's own */
}

/* Pages of virtual and resident memory. */
static void read_memory(uint64_t *ret_virtual, uint64_t *ret_resident)
{
    FILE *file = fopen("/proc/self/statm", "re");

    *ret_virtual = 0;
    *ret_resident = 0;
    if (file != NULL) {
        /* NOLINTNEXTLINE(cert-err34-c): the kernel's numbers. */
        if (fscanf(file, "%" SCNu64 " %" SCNu64, ret_virtual, ret_resident) != 2) {
            *ret_resident = 0;
        }
        (void)fclose(file);
    }
}

static void append_process(struct gatewayd *gw, struct buf *out)
{
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t virtual_pages;
    uint64_t resident_pages;
    struct rusage usage;
    struct rlimit files;

    (void)getrusage(RUSAGE_SELF, &usage);
    (void)getrlimit(RLIMIT_NOFILE, &files);
    read_memory(&virtual_pages, &resident_pages);
    append_header(out, "process_cpu_seconds_total", "counter",
            "Total user and system CPU time spent in seconds.");
    buf_append_str(out, "process_cpu_seconds_total ");
    long hundredths = (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 10000;
    json_append_double(out,
            (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)hundredths / 100);
    buf_append_byte(out, '\n');
    append_single(out, "process_max_fds", "gauge", "Maximum number of open file descriptors.",
            (uint64_t)files.rlim_cur);
    append_single(
            out, "process_open_fds", "gauge", "Number of open file descriptors.", count_open_fds());
    append_single(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.",
            resident_pages * page_bytes);
    append_single(out, "process_start_time_seconds", "gauge",
            "Start time of the process since unix epoch in seconds.",
            gw->start_wall_ns / 1000000000);
    append_single(out, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.",
            virtual_pages * page_bytes);
}

void metrics_serve(struct gatewayd *gw, struct call *call)
{
    uint64_t values[COUNTER_COUNT];
    struct buf *out = &gw->body;

    counters_sum(".", state_read_counters(gw->view.read), values);
    append_cluster_version(gw, out);
    append_store(out, "etcd_debugging_store", values);
    append_store(out, "etcd_store", values);
    append_received(out, values);
    append_failed(out, values);
    append_durations(out, "etcd_http_successful_duration_seconds", values);
    append_durations(out, "etcd_http_successful_duration_second", values);
    append_server(gw, out, values);
    append_process(gw, out);
    answer_begin(gw, call->http);
    buf_append_str(&gw->head, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n");
    http_respond_json(call->http, 200, buf_span(&gw->head), buf_span(out));
    call_free(gw, call);
}
