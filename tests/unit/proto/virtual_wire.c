#include "tests/unit/proto/virtual_wire.h"

#include <stdlib.h>

#include "common/list.h"
#include "common/loop.h"
#include "proto/link_wire.h"

enum {
    LATENCY_MS = 1,
    LISTENER = 0,
    DIALER = 1,
    END_COUNT = 2
};

struct loop {
    uint64_t now_ms;
    struct list timers;
};

struct loop_timer {
    struct list node;
    loop_fn fn;
    void *user;
    bool is_armed;
    uint64_t due_ms;
    uint64_t repeat_ms;
};

struct wire_message {
    struct list node; /* while it is on its way */
    unsigned to;
    uint32_t pipe;
    uint64_t due_ms;
    size_t bytes;
    uint8_t data[];
};

struct link_wire {
    struct wire_handler handler;
    unsigned end;
    uint32_t pipe;      /* 0: none */
    uint32_t told_pipe; /* the one that its hub knows of */
};

static struct loop the_loop = { .timers = { &the_loop.timers, &the_loop.timers } };
static struct link_wire *wires[END_COUNT];
static struct list under_way = { &under_way, &under_way };
static uint32_t last_pipe;
static virtual_lose_fn lose_fn;
static void *lose_user;
static size_t waiting_bytes; /* of the dialer's, for its socket */

/* --- the loop ------------------------------------------------------------------------------------------------- */

struct loop *virtual_loop(void)
{
    return &the_loop;
}

uint64_t virtual_now_ms(void)
{
    return the_loop.now_ms;
}

uint64_t loop_now_ms(const struct loop *loop)
{
    return loop->now_ms;
}

struct loop_timer *loop_timer_new(struct loop *loop, loop_fn fn, void *user)
{
    struct loop_timer *timer = xcalloc(1, sizeof *timer);

    timer->fn = fn;
    timer->user = user;
    list_append(&loop->timers, &timer->node);
    return timer;
}

void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms, uint64_t repeat_ms)
{
    timer->is_armed = true;
    timer->due_ms = the_loop.now_ms + delay_ms;
    timer->repeat_ms = repeat_ms;
}

void loop_timer_stop(struct loop_timer *timer)
{
    timer->is_armed = false;
}

struct loop_timer *loop_timer_free(struct loop_timer *timer)
{
    if (timer != NULL) {
        list_remove(&timer->node);
        free(timer);
    }
    return NULL;
}

static void run_timers(void)
{
    LIST_FOREACH (timer, &the_loop.timers, struct loop_timer, node) {
        if (!timer->is_armed || timer->due_ms > the_loop.now_ms) {
            continue;
        }
        timer->is_armed = timer->repeat_ms > 0;
        timer->due_ms = the_loop.now_ms + timer->repeat_ms;
        timer->fn(timer->user);
    }
}

/* --- the wire ------------------------------------------------------------------------------------------------- */

struct wire_message *wire_message_new(size_t bytes)
{
    struct wire_message *message = xcalloc(1, sizeof *message + bytes);

    list_init(&message->node);
    message->bytes = bytes;
    return message;
}

uint8_t *wire_message_data(struct wire_message *message)
{
    return message->data;
}

struct span wire_message_body(const struct wire_message *message)
{
    return span_of(message->data, message->bytes);
}

struct wire_message *wire_message_free(struct wire_message *message)
{
    free(message);
    return NULL;
}

int wire_open(struct loop *loop UNUSED, const struct link_config *config,
        const struct wire_handler *handler, struct link_wire **ret_wire, struct err *err UNUSED)
{
    struct link_wire *wire = xcalloc(1, sizeof *wire);

    wire->handler = *handler;
    wire->end = config->listen ? LISTENER : DIALER;
    INVARIANT(wires[wire->end] == NULL);
    wires[wire->end] = wire;
    *ret_wire = wire;
    return 0;
}

void wire_send(struct link_wire *wire, uint32_t pipe, struct span head, struct span body)
{
    struct link_frame frame;

    if (pipe != wire->pipe) {
        return;
    }
    struct wire_message *message = wire_message_new(head.bytes + body.bytes);
    memcpy(message->data, head.data, head.bytes);
    memcpy(message->data + head.bytes, body.data, body.bytes);
    INVARIANT_EQ(link_frame_parse(wire_message_body(message), &frame, NULL), 0);
    if (lose_fn != NULL && lose_fn(lose_user, wire->end == LISTENER, &frame)) {
        (void)wire_message_free(message);
        return;
    }
    message->to = wire->end == LISTENER ? DIALER : LISTENER;
    message->pipe = pipe;
    message->due_ms = the_loop.now_ms + LATENCY_MS;
    list_append(&under_way, &message->node);
}

/* What is sent has left, but for what the test says of the dialer's. */
size_t wire_waiting_bytes(struct link_wire *wire, uint32_t pipe UNUSED)
{
    return wire->end == DIALER ? waiting_bytes : 0;
}

void virtual_set_waiting(size_t bytes)
{
    bool has_taken = bytes < waiting_bytes;

    waiting_bytes = bytes;
    if (has_taken && wires[DIALER] != NULL) {
        wires[DIALER]->handler.on_drained(wires[DIALER]->handler.user);
    }
}

static void tell(struct link_wire *wire, const struct wire_event *event)
{
    wire->handler.on_event(wire->handler.user, event);
}

static void break_pipe(void)
{
    for (unsigned i = 0; i < END_COUNT; i++) {
        if (wires[i] != NULL) {
            wires[i]->pipe = 0; /* reconnect tells of it */
        }
    }
}

void wire_close_pipe(struct link_wire *wire, uint32_t pipe)
{
    if (pipe == wire->pipe) {
        break_pipe();
    }
}

struct link_wire *wire_close(struct link_wire *wire)
{
    if (wire != NULL) {
        break_pipe();
        wires[wire->end] = NULL;
        free(wire);
    }
    return NULL;
}

/* Tells both of a pipe that broke, and makes another at once. */
static void reconnect(void)
{
    for (unsigned i = 0; i < END_COUNT; i++) {
        if (wires[i] != NULL && wires[i]->pipe == 0 && wires[i]->told_pipe != 0) {
            uint32_t pipe = wires[i]->told_pipe;
            wires[i]->told_pipe = 0;
            tell(wires[i], &(struct wire_event){ .kind = WIRE_PIPE_REMOVED, .pipe = pipe });
        }
    }
    if (wires[LISTENER] == NULL || wires[DIALER] == NULL || wires[LISTENER]->pipe != 0) {
        return;
    }
    last_pipe++;
    for (unsigned i = 0; i < END_COUNT; i++) {
        wires[i]->pipe = wires[i]->told_pipe = last_pipe;
    }
    for (unsigned i = 0; i < END_COUNT; i++) {
        tell(wires[i],
                &(struct wire_event){ .kind = WIRE_PIPE_ADDED, .pipe = last_pipe, .uid = -1 });
    }
}

static void deliver(void)
{
    bool has_come[END_COUNT] = { false };

    LIST_FOREACH (message, &under_way, struct wire_message, node) {
        struct link_wire *wire = wires[message->to];
        if (message->due_ms > the_loop.now_ms) {
            continue;
        }
        list_remove(&message->node);
        if (wire == NULL || wire->pipe != message->pipe) {
            (void)wire_message_free(message);
            continue;
        }
        has_come[message->to] = true;
        tell(wire, &(struct wire_event){
                           .kind = WIRE_MESSAGE, .pipe = message->pipe, .message = message });
    }
    for (unsigned i = 0; i < END_COUNT; i++) {
        if (has_come[i] && wires[i] != NULL) {
            wires[i]->handler.on_drained(wires[i]->handler.user);
        }
    }
}

/* --- time ----------------------------------------------------------------------------------------------------- */

void virtual_begin(virtual_lose_fn lose, void *user)
{
    INVARIANT(wires[LISTENER] == NULL && wires[DIALER] == NULL);
    LIST_FOREACH (message, &under_way, struct wire_message, node) {
        list_remove(&message->node);
        (void)wire_message_free(message);
    }
    the_loop.now_ms = 1;
    waiting_bytes = 0;
    lose_fn = lose;
    lose_user = user;
}

void virtual_block(uint64_t ms)
{
    the_loop.now_ms += ms;
    run_timers();
}

void virtual_oversleep(uint64_t ms)
{
    the_loop.now_ms += ms;
    reconnect();
    deliver();
    run_timers();
}

void virtual_pass(uint64_t ms)
{
    uint64_t end_ms = the_loop.now_ms + ms;

    while (the_loop.now_ms < end_ms) {
        the_loop.now_ms++;
        reconnect();
        deliver();
        run_timers();
    }
}
