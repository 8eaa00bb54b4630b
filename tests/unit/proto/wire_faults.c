#include "tests/unit/proto/wire_faults.h"

#include <dlfcn.h>
#include <nng/nng.h>
#include <pthread.h>
#include <stdlib.h>

enum {
    KEPT_MAX = 256,
    DELAY_MESSAGES = 5
};

struct kept {
    nng_socket socket;
    nng_msg *msg;
    unsigned behind; /* this many more messages; 0: held */
};

struct injection {
    nng_aio *aio;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static wire_fault_fn decide_fn;
static void *decide_user;
static struct kept kept[KEPT_MAX];
static size_t kept_count;

typedef void (*send_fn)(nng_socket, nng_aio *);

static send_fn real_send(void)
{
    void *symbol = dlsym(RTLD_NEXT, "nng_send_aio");
    send_fn fn;
    INVARIANT(symbol != NULL);
    memcpy(&fn, &symbol, sizeof fn);
    return fn;
}

static void on_injected(void *user)
{
    struct injection *injection = user;
    if (nng_aio_result(injection->aio) != 0) {
        nng_msg_free(nng_aio_get_msg(injection->aio));
    }
    nng_aio_reap(injection->aio);
    free(injection);
}

static void inject(nng_socket socket, nng_msg *msg)
{
    struct injection *injection = xcalloc(1, sizeof *injection);
    INVARIANT_EQ(nng_aio_alloc(&injection->aio, on_injected, injection), 0);
    nng_aio_set_msg(injection->aio, msg);
    real_send()(socket, injection->aio);
}

static void forget(void)
{
    for (size_t i = 0; i < kept_count; i++) {
        nng_msg_free(kept[i].msg);
    }
    kept_count = 0;
}

void wire_faults_set(wire_fault_fn decide, void *user)
{
    pthread_mutex_lock(&lock);
    decide_fn = decide;
    decide_user = user;
    forget();
    pthread_mutex_unlock(&lock);
}

/* Under lock. Moves what is due into ret_due. */
static size_t take_due(bool held, struct kept ret_due[KEPT_MAX])
{
    size_t due = 0;
    size_t left = 0;

    for (size_t i = 0; i < kept_count; i++) {
        bool is_due = held ? kept[i].behind == 0 : kept[i].behind == 1;
        if (is_due) {
            ret_due[due++] = kept[i];
        } else {
            kept[left] = kept[i];
            kept[left].behind -= !held && kept[left].behind > 0;
            left++;
        }
    }
    kept_count = left;
    return due;
}

size_t wire_faults_release(void)
{
    struct kept due[KEPT_MAX];

    pthread_mutex_lock(&lock);
    size_t count = take_due(true, due);
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < count; i++) {
        inject(due[i].socket, due[i].msg);
    }
    return count;
}

static enum wire_fault decide(nng_msg *msg)
{
    struct link_frame frame;
    struct span body = span_of(nng_msg_body(msg), nng_msg_len(msg));

    if (decide_fn == NULL || link_frame_parse(body, &frame, NULL) < 0) {
        return WIRE_PASS;
    }
    return decide_fn(decide_user, &frame);
}

static nng_msg *copy_of(nng_msg *msg)
{
    nng_msg *copy = NULL;
    INVARIANT_EQ(nng_msg_dup(&copy, msg), 0);
    return copy;
}

/* Completes an aio as if nng had taken its message. */
static void pretend(nng_aio *aio)
{
    nng_msg_free(nng_aio_get_msg(aio));
    nng_aio_set_msg(aio, NULL);
    if (nng_aio_begin(aio)) {
        nng_aio_finish(aio, 0);
    }
}

void nng_send_aio(nng_socket socket, nng_aio *aio)
{
    nng_msg *msg = nng_aio_get_msg(aio);
    struct kept due[KEPT_MAX];
    nng_msg *twin = NULL;

    pthread_mutex_lock(&lock);
    size_t due_count = take_due(false, due);
    enum wire_fault fault = decide(msg);
    if (fault == WIRE_DOUBLE) {
        twin = copy_of(msg);
    } else if ((fault == WIRE_DELAY || fault == WIRE_HOLD) && kept_count < KEPT_MAX) {
        kept[kept_count++] =
                (struct kept){ socket, copy_of(msg), fault == WIRE_DELAY ? DELAY_MESSAGES : 0 };
    }
    pthread_mutex_unlock(&lock);

    if (fault == WIRE_PASS || fault == WIRE_DOUBLE) {
        real_send()(socket, aio);
    } else {
        pretend(aio);
    }
    if (twin != NULL) {
        inject(socket, twin);
    }
    for (size_t i = 0; i < due_count; i++) {
        inject(due[i].socket, due[i].msg);
    }
}
