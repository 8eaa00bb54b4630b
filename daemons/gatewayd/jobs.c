/* jobs.c: listings that are too large for a turn, each rendered by a thread with a transaction of its own, then handed to
 * the server slice by slice: copying hundreds of megabytes at once would stall everybody else.
 *
 * A job is handed to its thread and handed back by loop_post. Between, the loop touches only `call` and `retired`, which the
 * thread does not; so there is no lock. An environment that is exchanged while jobs read it is closed by the last of them. */
#include "daemons/gatewayd/shell.h"

#include <errno.h>
#include <pthread.h>

#include "common/log.h"
#include "common/loop.h"

enum {
    JOBS_RUNNING_MAX = 2,
    /* Keys are repeated in what is below them: a tree of a few hundred KB can be asked for as tens of GB. */
    ANSWER_BYTES_MAX = 1024 * 1024 * 1024,
    RENDERED_BYTES_MAX =
            ANSWER_BYTES_MAX, /* of answers being sent: above, no other is rendered ... */
    SLOW_MS = 5000, /* ... and who has not taken a slice for as long makes room for who waits */
    SLICE_BYTES = 1024 * 1024,
    PUMP_MS = 1,
    PUMP_IDLE_MS = 10, /* while no client takes anything */
};

struct job {
    struct list link;
    struct gatewayd *gw;
    struct call *call; /* its http is NULL once the client went away */
    bool retired;      /* the environment is to be closed after us */
    pthread_t thread;
    struct state *state;
    struct listing_request request;
    struct state_meta meta;
    struct buf body;
    size_t sent_bytes;    /* of body, given to the server */
    uint64_t moved_at_ms; /* when the last slice was given */
    size_t bad_bytes;
    int code;
};

struct listing_jobs {
    struct list waiting; /* calls */
    struct list running; /* jobs */
    struct list sending; /* jobs */
    struct gatewayd *gw;
    struct loop_timer *pump_timer;
    unsigned running_count;
};

struct listing_jobs *jobs_new(void)
{
    struct listing_jobs *jobs = xcalloc(1, sizeof *jobs);
    list_init(&jobs->waiting);
    list_init(&jobs->running);
    list_init(&jobs->sending);
    return jobs;
}

/* On the thread. */
static int render(struct job *job)
{
    CLEANUP(listing_fini) struct listing listing = { 0 };
    struct state_read *read = NULL;

    TRY(state_read_new(job->state, &read, NULL));
    int code = state_read_begin(read, NULL);
    if (code == 0) {
        code = state_read_meta(read, &job->meta, NULL);
    }
    if (code == 0) {
        code = listing_render(&listing, read, &job->request, &job->body, &job->bad_bytes);
    }
    (void)state_read_free(read);
    return code;
}

static void on_done(void *user);

static void *run_job(void *user)
{
    struct job *job = user;

    job->code = render(job);
    loop_post(job->gw->loop, on_done, job);
    return NULL;
}

static void free_job(struct gatewayd *gw, struct job *job);
static void answer_error(struct gatewayd *gw, struct job *job);

static void start_job(struct gatewayd *gw, struct call *call)
{
    struct job *job = xcalloc(1, sizeof *job);

    job->gw = gw;
    job->call = call;
    job->state = gw->view.state;
    job->request = (struct listing_request){
        .key = call->key,
        .recursive = call->recursive,
        .now_ns = view_time_ns(gw),
        .bytes_max = ANSWER_BYTES_MAX,
    };
    job->meta = gw->view.meta;
    list_append(&gw->jobs->running, &job->link);
    gw->jobs->running_count++;
    if (pthread_create(&job->thread, NULL, run_job, job) != 0) {
        /* Rendering it here would hold up everybody. */
        job->code = -EAGAIN;
        gw->jobs->running_count--;
        answer_error(gw, job);
        free_job(gw, job);
    }
}

/* Answers that are being sent are held in full, however slowly their clients read. */
static bool hold_too_much(struct listing_jobs *jobs)
{
    size_t bytes = 0;

    LIST_FOREACH (job, &jobs->sending, struct job, link) {
        bytes += job->body.bytes;
    }
    return bytes >= RENDERED_BYTES_MAX;
}

void jobs_start_waiting(struct gatewayd *gw)
{
    struct listing_jobs *jobs = gw->jobs;

    while (!list_is_empty(&jobs->waiting) && jobs->running_count < JOBS_RUNNING_MAX &&
            gw->view.state != NULL && !hold_too_much(jobs)) {
        struct call *call = CONTAINER_OF(jobs->waiting.next, struct call, link);
        list_remove(&call->link);
        if (call->http == NULL) {
            call_free(gw, call);
        } else {
            start_job(gw, call);
        }
    }
}

static void free_job(struct gatewayd *gw, struct job *job)
{
    list_remove(&job->link);
    call_free(gw, job->call);
    buf_fini(&job->body);
    free(job);
}

/* Gives the client its next slices while it takes them; true: something moved. */
static bool pump_job(struct gatewayd *gw, struct job *job)
{
    struct http_request *http = job->call->http;

    if (http == NULL) {
        free_job(gw, job);
        return true;
    }
    if (http_stream_unsent(http) > SLICE_BYTES) {
        return false;
    }
    size_t bytes = MIN(job->body.bytes - job->sent_bytes, (size_t)SLICE_BYTES);
    http_stream_chunk(http, span_of(job->body.data + job->sent_bytes, bytes));
    job->sent_bytes += bytes;
    job->moved_at_ms = loop_now_ms(gw->loop);
    if (job->sent_bytes == job->body.bytes) {
        http_stream_end(http);
        call_count_success(gw, job->call);
        free_job(gw, job);
    }
    return true;
}

/* Others wait for the memory of answers that nobody takes. */
static void cut_slow(struct listing_jobs *jobs)
{
    uint64_t now_ms = loop_now_ms(jobs->gw->loop);

    LIST_FOREACH (job, &jobs->sending, struct job, link) {
        if (now_ms - job->moved_at_ms >= SLOW_MS && job->call->http != NULL) {
            http_stream_abort(job->call->http);
            free_job(jobs->gw, job);
        }
    }
}

static void on_pump(void *user)
{
    struct listing_jobs *jobs = user;
    bool moved = false;

    LIST_FOREACH (job, &jobs->sending, struct job, link) {
        moved = pump_job(jobs->gw, job) || moved;
    }
    if (!list_is_empty(&jobs->waiting) && hold_too_much(jobs)) {
        cut_slow(jobs);
    }
    if (!list_is_empty(&jobs->sending)) {
        loop_timer_start(jobs->pump_timer, moved ? PUMP_MS : PUMP_IDLE_MS, 0);
    }
}

static void start_sending(struct gatewayd *gw, struct job *job, struct span head)
{
    struct listing_jobs *jobs = gw->jobs;

    if (jobs->pump_timer == NULL) {
        jobs->gw = gw;
        jobs->pump_timer = loop_timer_new(gw->loop, on_pump, jobs);
    }
    http_stream_begin(job->call->http, 200, head);
    job->moved_at_ms = loop_now_ms(gw->loop);
    list_append(&jobs->sending, &job->link);
    loop_timer_start(jobs->pump_timer, 0, 0);
}

static void answer_error(struct gatewayd *gw, struct job *job)
{
    struct call *call = job->call;
    struct api_error error = { .code = V2_RAFT_INTERNAL,
        .cause = SPAN_LIT("etcdserver: the state cannot be read") };

    if (job->code == -ENOENT || job->code == -ENOTDIR) {
        error = (struct api_error){ .code = job->code == -ENOTDIR ? 104 : 100,
            .index = job->meta.etcd_index,
            .cause = span_of(call->key.data, job->bad_bytes) };
    } else if (job->code == -EAGAIN) {
        error.cause = SPAN_LIT(
                "etcdserver: no thread to list this many keys, try again later or raise the limit "
                "of processes");
    } else if (job->code == -EFBIG) {
        error.cause = SPAN_LIT("etcdserver: the answer is too large, list what is below");
    }
    answer_keys_error(gw, call->http, &error);
    gw->values[COUNTER_GETS_FAIL]++;
    call_count_failure(gw, call, api_error_status(error.code));
}

/* True: the job lives on until its body is sent. */
static bool answer(struct gatewayd *gw, struct job *job)
{
    const struct state_meta *meta = &job->meta;
    struct http_request *http = job->call->http;

    if (job->code < 0) {
        answer_error(gw, job);
        return false;
    }
    gw->values[COUNTER_GETS_SUCCESS]++;
    if (job->call->recursive) {
        gw->values[COUNTER_READS_RECURSIVE]++;
    }
    struct span head =
            answer_keys_head(gw, http, meta->etcd_index, meta->applied_index, meta->applied_term);
    if (http->method == HTTP_HEAD) {
        http_respond_json(http, 200, head, buf_span(&job->body));
        call_count_success(gw, job->call);
        return false;
    }
    start_sending(gw, job, head);
    return true;
}

static void close_if_last(struct listing_jobs *jobs, struct job *job)
{
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): a freed job is in no list. */
    LIST_FOREACH (other, &jobs->running, struct job, link) {
        if (other->state == job->state) {
            return;
        }
    }
    if (job->retired) {
        (void)state_close(job->state);
    }
}

static void on_done(void *user)
{
    struct job *job = user;
    struct gatewayd *gw = job->gw;

    (void)pthread_join(job->thread, NULL);
    list_remove(&job->link);
    gw->jobs->running_count--;
    close_if_last(gw->jobs, job);
    if (job->call->http == NULL || !answer(gw, job)) {
        free_job(gw, job);
    }
    jobs_start_waiting(gw);
}

void jobs_add(struct gatewayd *gw, struct call *call)
{
    call->kind = CALL_LISTING;
    call_own_key(call);
    call_release_request(call);
    list_remove(&call->deadline); /* it is being answered */
    list_append(&gw->jobs->waiting, &call->link);
    jobs_start_waiting(gw);
}

bool jobs_are_busy(const struct listing_jobs *jobs)
{
    return jobs->running_count > 0 || !list_is_empty(&jobs->sending);
}

bool jobs_retire(struct gatewayd *gw, struct state *state)
{
    bool used = false;

    LIST_FOREACH (job, &gw->jobs->running, struct job, link) {
        if (job->state == state) {
            job->retired = true;
            used = true;
        }
    }
    return used;
}

/* Calls with a counter are in the table of the pending, which frees them. */
static void drop_call(struct call *call)
{
    if (call->counter == 0) {
        free(call->key_copy);
        free(call);
    }
}

struct listing_jobs *jobs_free(struct listing_jobs *jobs)
{
    if (jobs != NULL) {
        LIST_FOREACH (job, &jobs->running, struct job, link) {
            (void)pthread_join(job->thread, NULL);
            list_remove(&job->link);
            close_if_last(jobs, job);
            drop_call(job->call);
            buf_fini(&job->body);
            free(job);
        }
        LIST_FOREACH (sending, &jobs->sending, struct job, link) {
            drop_call(sending->call);
            buf_fini(&sending->body);
            free(sending);
        }
        jobs->pump_timer = loop_timer_free(jobs->pump_timer);
        LIST_FOREACH (call, &jobs->waiting, struct call, link) {
            list_remove(&call->link);
            drop_call(call);
        }
        free(jobs);
    }
    return NULL;
}
