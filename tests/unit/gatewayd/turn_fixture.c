#include "tests/unit/gatewayd/turn_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/state/state_write.h"
#include "daemons/gatewayd/gatewayd.h"
#include "proto/applied.h"
#include "proto/hello.h"
#include "proto/link.h"
#include "proto/op.h"
#include "proto/outcome.h"
#include "proto/propose.h"

static void on_slice(void *user)
{
    struct fixture *f = user;
    loop_stop(f->gw->loop);
}

/* Runs the loop for a moment. */
void run_slice(struct fixture *f)
{
    loop_timer_start(f->slice, 1, 0);
    loop_run(f->gw->loop);
}

/* The raftd that is played. */
static int raftd_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct fixture *f = user;
    (void)err;
    f->raftd_link = link;
    f->instance = peer->instance;
    return 0;
}

static void raftd_down(void *user, struct link *link)
{
    struct fixture *f = user;
    (void)link;
    f->raftd_link = NULL;
}

static void raftd_message(void *user, struct link *link, unsigned type, struct span body)
{
    struct fixture *f = user;
    struct codec_scratch scratch = { 0 };
    struct propose propose;
    struct read_index question;
    struct op op;

    (void)link;
    if (type == (unsigned)propose_type && propose_decode(body, &propose, &scratch, NULL) == 0) {
        f->propose_ops[f->proposes++] = propose.ops.count;
        for (size_t i = 0; i < propose.ops.count; i++) {
            assert_int_equal(op_decode(propose.ops.items[i], &op, &scratch, NULL), 0);
            assert_true(op.instance == f->instance);
            f->counters[f->op_count++] = op.counter;
        }
    } else if (type == (unsigned)read_index_type &&
               read_index_decode(body, &question, &scratch, NULL) == 0) {
        f->questions++;
        f->question = question.counter;
    }
    codec_scratch_fini(&scratch);
}

static void fill_hello(void *user, struct hello *ret_hello)
{
    (void)user;
    ret_hello->component = SPAN_LIT("test");
    ret_hello->generation = 1; /* the state that the fixture has made may be read */
    SET(ret_hello, hello_tag_generation);
}

static const struct link_events raftd_events = {
    .on_up = raftd_up, .on_down = raftd_down, .on_message = raftd_message, .fill_hello = fill_hello
};

static int stored_up(void *user, struct link *link, const struct hello *peer, struct err *err)
{
    struct fixture *f = user;
    (void)err;
    /* Nothing is read before stored has vouched for it. */
    assert_int_equal(peer->applied_index, f->stored_ups++ == 0 ? 0 : APPLIED_INDEX);
    f->stored_link = link;
    return 0;
}

static void stored_down(void *user, struct link *link)
{
    struct fixture *f = user;
    (void)link;
    f->stored_link = NULL;
}

static void stored_message(void *user, struct link *link, unsigned type, struct span body)
{
    (void)user;
    (void)link;
    (void)type;
    (void)body;
}

const struct link_events stored_events = { .on_up = stored_up,
    .on_down = stored_down,
    .on_message = stored_message,
    .fill_hello = fill_hello };

struct link_hub *listen_as(struct fixture *f, const char *path, const struct link_events *events)
{
    struct link_config config = {
        .pattern = LINK_REQREP, .listen = true, .path = path, .events = events, .user = f
    };
    struct link_hub *hub = NULL;
    assert_int_equal(link_hub_open(f->gw->loop, &config, &hub, NULL), 0);
    return hub;
}

void start_raftd(struct fixture *f)
{
    f->raftd = listen_as(f, "raftd.ipc", &raftd_events);
    RUN_UNTIL(f, f->raftd_link != NULL);
}

void send_to_gateway(struct link *link, unsigned type, struct buf *take_body)
{
    assert_non_null(link);
    assert_int_equal(link_send(link, type, take_body), 0);
}

/* The outcome of one op: a key was set. */
static void encode_outcome(struct fixture *f, uint64_t raft_index, uint64_t etcd_index,
        uint64_t counter, struct buf *outcome_text)
{
    struct buf event_text = BUF_INIT;
    struct event event = { .action = EVENT_SET,
        .etcd_index = etcd_index,
        .path = SPAN_LIT("/k"),
        .value = SPAN_LIT("v"),
        .created_index = etcd_index };
    struct outcome outcome = { .instance = f->instance,
        .counter = counter,
        .raft_index = raft_index,
        .etcd_index = etcd_index };

    SET(&event, event_tag_value);
    event_encode(&event, &event_text);
    outcome.event = buf_span(&event_text);
    SET(&outcome, outcome_tag_event);
    outcome_encode(&outcome, outcome_text);
    buf_fini(&event_text);
}

/* What stored publishes for one op. */
void publish_outcome(struct fixture *f, uint64_t raft_index, uint64_t etcd_index, uint64_t counter)
{
    struct buf outcome_text = BUF_INIT;
    struct buf body = BUF_INIT;

    encode_outcome(f, raft_index, etcd_index, counter, &outcome_text);
    struct span item = buf_span(&outcome_text);
    struct batch batch = { .first_index = raft_index,
        .last_index = raft_index,
        .term = 2,
        .etcd_index = etcd_index,
        .outcomes = { .items = &item, .count = 1 } };
    batch_encode(&batch, &body);
    send_to_gateway(f->stored_link, batch_type, &body);
    buf_fini(&outcome_text);
}

void publish_missed(struct fixture *f, uint64_t raft_index, uint64_t etcd_index, uint64_t counter)
{
    struct buf outcome_text = BUF_INIT;
    struct buf body = BUF_INIT;

    encode_outcome(f, raft_index, etcd_index, counter, &outcome_text);
    struct span item = buf_span(&outcome_text);
    struct missed missed = {
        .last_index = raft_index, .term = 2, .outcomes = { .items = &item, .count = 1 }
    };
    missed_encode(&missed, &body);
    send_to_gateway(f->stored_link, missed_type, &body);
    struct skipped_to skipped = { .last_index = raft_index, .etcd_index = etcd_index };
    skipped_to_encode(&skipped, &body);
    send_to_gateway(f->stored_link, skipped_to_type, &body);
    buf_fini(&outcome_text);
}

static void write_events(struct state_writer *writer, uint64_t count)
{
    struct buf text = BUF_INIT;

    for (uint64_t index = 1; index <= count; index++) {
        struct event event = { .action = EVENT_SET,
            .etcd_index = index,
            .path = SPAN_LIT("/k"),
            .value = SPAN_LIT("v"),
            .created_index = index };
        SET(&event, event_tag_value);
        buf_clear(&text);
        event_encode(&event, &text);
        assert_int_equal(state_write_event(writer, index, buf_span(&text)), 0);
    }
    buf_fini(&text);
}

/* A state with one key, closed again: the gatewayd opens it. */
static void make_state(const char *data_dir, uint64_t event_count)
{
    struct state_writer *writer = NULL;
    char path[256];
    struct state_node node = {
        .name = SPAN_LIT("seen"), .created_index = 9, .modified_index = 9, .value = SPAN_LIT("1")
    };

    (void)snprintf(path, sizeof path, "%s/member", data_dir);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/member/state", data_dir);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/member/state/%016d", data_dir, 1);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(state_writer_open(path, 256 << 20, true, &writer, NULL), 0);
    assert_int_equal(state_writer_begin(writer, NULL), 0);
    assert_int_equal(state_write_put(writer, STATE_ROOT_ID, &node, 0), 0);
    struct schema_meta *meta = state_writer_meta(writer);
    meta->applied_index = APPLIED_INDEX;
    meta->applied_term = 2;
    meta->etcd_index = event_count > 0 ? event_count : ETCD_INDEX;
    meta->cluster_id = 0xc1;
    write_events(writer, event_count);
    assert_int_equal(state_writer_commit(writer, NULL), 0);
    (void)state_writer_close(writer);
    (void)snprintf(path, sizeof path, "%s/member/state/CURRENT", data_dir);
    FILE *file = fopen(path, "we");
    (void)fprintf(file, "%016x\n", 1);
    (void)fclose(file);
}

static int set_up(void **state, uint64_t event_count)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    char data_flag[128];
    char listen_flag[128];
    char advertise_flag[] = "--advertise-client-urls=http://127.0.0.1:2379";
    char name[] = "gatewayd";
    struct err err = { 0 };

    log_init("test", LOG_LEVEL_CRIT);
    assert_non_null(getcwd(f->start_dir, sizeof f->start_dir));
    assert_true(scratch_make(f->dir));
    make_state(f->dir, event_count);
    assert_int_equal(chdir(f->dir), 0);
    (void)snprintf(data_flag, sizeof data_flag, "--data-dir=%s", f->dir);
    (void)snprintf(listen_flag, sizeof listen_flag, "--listen-client-urls=unix://client.sock");
    char *argv[] = { name, data_flag, listen_flag, advertise_flag, NULL };
    if (conf_load(&f->conf, CONF_GATEWAYD, 4, argv, &err) < 0 ||
            gatewayd_new(&f->conf, &f->gw, &err) < 0) {
        fail_msg("%s", err.text);
    }
    f->slice = loop_timer_new(f->gw->loop, on_slice, f);
    f->stored = listen_as(f, "applied.ipc", &stored_events);
    loop_timer_start(f->gw->tick_timer, 0, 10);
    RUN_UNTIL(f, f->stored_link != NULL);
    memset(f->clients, -1, sizeof f->clients);
    *state = f;
    return 0;
}

int turn_set_up(void **state)
{
    return set_up(state, 0);
}

int turn_set_up_with_history(void **state)
{
    return set_up(state, LONG_HISTORY);
}

int turn_tear_down(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        if (f->clients[i] >= 0) {
            (void)close(f->clients[i]);
        }
    }
    f->slice = loop_timer_free(f->slice);
    f->raftd = link_hub_close(f->raftd);
    f->stored = link_hub_close(f->stored);
    f->gw = gatewayd_free(f->gw);
    conf_fini(&f->conf);
    assert_int_equal(chdir(f->start_dir), 0);
    scratch_remove(f->dir);
    free(f);
    return 0;
}

void open_client(struct fixture *f, size_t client)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "client.sock" };

    f->clients[client] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(f->clients[client], (struct sockaddr *)&address, sizeof address), 0);
    for (int i = 0; i < 3; i++) {
        run_slice(f); /* accepted, so that what comes next is read in one turn */
    }
}

void ask(struct fixture *f, size_t client, const char *request)
{
    ssize_t bytes = (ssize_t)strlen(request);
    assert_int_equal(send(f->clients[client], request, (size_t)bytes, MSG_NOSIGNAL), bytes);
}

void ask_put(struct fixture *f, size_t client)
{
    ask(f, client,
            "PUT /v2/keys/k HTTP/1.1\r\nHost: t\r\nContent-Type: "
            "application/x-www-form-urlencoded\r\n"
            "Content-Length: 7\r\n\r\nvalue=v");
}

/* What has come for the client so far; ret_text is a string. */
bool has_answer(struct fixture *f, size_t client, char *ret_text, size_t text_bytes)
{
    ssize_t bytes = recv(f->clients[client], ret_text, text_bytes - 1, MSG_DONTWAIT);
    ret_text[bytes > 0 ? bytes : 0] = '\0';
    return bytes > 0;
}

void assert_answer(struct fixture *f, size_t client, const char *status, const char *piece)
{
    char text[4096];

    RUN_UNTIL(f, has_answer(f, client, text, sizeof text));
    if (strstr(text, status) == NULL || strstr(text, piece) == NULL) {
        print_error("%s\n", text);
        fail();
    }
}

bool is_silent(struct fixture *f, size_t client)
{
    char byte;
    return recv(f->clients[client], &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

void publish_empty(struct fixture *f, uint64_t raft_index)
{
    struct buf body = BUF_INIT;
    struct batch batch = {
        .first_index = raft_index, .last_index = raft_index, .term = 2, .etcd_index = ETCD_INDEX
    };
    batch_encode(&batch, &body);
    send_to_gateway(f->stored_link, batch_type, &body);
}

void grant(struct fixture *f, uint64_t question, uint64_t index)
{
    struct buf body = BUF_INIT;
    struct read_index_granted granted = { .counter = question, .index = index };
    read_index_granted_encode(&granted, &body);
    send_to_gateway(f->raftd_link, read_index_granted_type, &body);
}

void tell_leader(struct fixture *f)
{
    struct buf body = BUF_INIT;
    struct raft_state raft = {
        .member_id = 7, .cluster_id = 0xc1, .leader_id = 7, .term = 2, .role = RAFT_STATE_LEADER
    };
    raft_state_encode(&raft, &body);
    send_to_gateway(f->raftd_link, raft_state_type, &body);
    RUN_UNTIL(f, f->gw->raft.leader_id == 7);
}
