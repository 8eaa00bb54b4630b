#include "tests/unit/proto/wire_faults.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
    KEPT_MAX = 512,
    DELAY_MESSAGES = 5,
    HELD = 1000000,
    LENGTH_BYTES = 4
};

struct kept {
    bool from_listener;
    unsigned behind; /* goes after this many more messages of its side */
    struct buf bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static wire_fault_fn decide_fn;
static void *decide_user;
static struct kept kept[KEPT_MAX];
static size_t kept_count;

typedef ssize_t (*sendmsg_fn)(int, const struct msghdr *, int);

static sendmsg_fn real_sendmsg(void)
{
    void *symbol = dlsym(RTLD_NEXT, "sendmsg");
    sendmsg_fn fn;
    INVARIANT(symbol != NULL);
    memcpy(&fn, &symbol, sizeof fn);
    return fn;
}

void wire_faults_set(wire_fault_fn decide, void *user)
{
    pthread_mutex_lock(&lock);
    decide_fn = decide;
    decide_user = user;
    for (size_t i = 0; i < kept_count; i++) {
        buf_fini(&kept[i].bytes);
    }
    kept_count = 0;
    pthread_mutex_unlock(&lock);
}

size_t wire_faults_release(void)
{
    size_t count = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < kept_count; i++) {
        if (kept[i].behind >= HELD) {
            kept[i].behind = 1;
            count++;
        }
    }
    pthread_mutex_unlock(&lock);
    return count;
}

/* Of the two ends of a Unix stream only the accepted one has the path for its own name. */
static bool is_listeners(int fd, bool *ret_from_listener)
{
    struct sockaddr_un name = { 0 };
    socklen_t bytes = sizeof name;
    if (getsockname(fd, (struct sockaddr *)(void *)&name, &bytes) != 0 ||
            name.sun_family != AF_UNIX) {
        return false;
    }
    *ret_from_listener = bytes > sizeof name.sun_family;
    return true;
}

/* Under lock. Appends what was waiting for one more message of this side. */
static void append_due(bool from_listener, struct buf *out)
{
    size_t left = 0;
    for (size_t i = 0; i < kept_count; i++) {
        struct kept *k = &kept[i];
        if (k->from_listener == from_listener && k->behind < HELD && --k->behind == 0) {
            buf_append_span(out, buf_span(&k->bytes));
            buf_fini(&k->bytes);
        } else {
            kept[left++] = *k;
        }
    }
    kept_count = left;
}

/* Under lock. */
static void append_decided(bool from_listener, struct span message, struct buf *out)
{
    struct link_frame frame;
    enum wire_fault fault = WIRE_PASS;

    if (message.bytes > LENGTH_BYTES && decide_fn != NULL &&
            link_frame_parse(span_from(message, LENGTH_BYTES), &frame, NULL) == 0) {
        fault = decide_fn(decide_user, from_listener, &frame);
    }
    if (fault == WIRE_PASS || fault == WIRE_DOUBLE) {
        buf_append_span(out, message);
    }
    if (fault == WIRE_DOUBLE) {
        buf_append_span(out, message);
    }
    append_due(from_listener, out);
    if ((fault == WIRE_DELAY || fault == WIRE_HOLD) && kept_count < KEPT_MAX) {
        kept[kept_count] = (struct kept){ .from_listener = from_listener,
            .behind = fault == WIRE_HOLD ? HELD : DELAY_MESSAGES };
        buf_append_span(&kept[kept_count].bytes, message);
        kept_count++;
    }
}

static ssize_t write_all(int fd, struct span bytes, int flags)
{
    while (bytes.bytes > 0) {
        struct iovec iov = { (uint8_t *)(uintptr_t)bytes.data, bytes.bytes };
        ssize_t n = real_sendmsg()(fd, &(struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1 }, flags);
        if (n < 0 && errno == EAGAIN) {
            (void)poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, -1);
        } else if (n < 0) {
            return n;
        } else {
            bytes = span_from(bytes, (size_t)n);
        }
    }
    return 0;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct buf out = BUF_INIT;
    bool from_listener = false;
    ssize_t total = 0;

    pthread_mutex_lock(&lock);
    bool mine = decide_fn != NULL && is_listeners(fd, &from_listener);
    for (size_t i = 0; mine && i < message->msg_iovlen; i++) {
        struct span bytes = span_of(message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
        append_decided(from_listener, bytes, &out);
        total += (ssize_t)bytes.bytes;
    }
    pthread_mutex_unlock(&lock);
    if (!mine) {
        return real_sendmsg()(fd, message, flags);
    }
    ssize_t r = write_all(fd, buf_span(&out), flags);
    buf_fini(&out);
    return r < 0 ? r : total;
}
