#include "daemons/raftd/incoming.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/sync_dir.h"
#include "daemons/raftd/outgoing.h"

enum {
    PATH_BYTES = 4200,
    READ_BYTES = 1024 * 1024
};

/* A check under way: the thread's own until it has posted. */
struct check {
    struct incoming *incoming;
    pthread_t thread;
    char part[PATH_BYTES];
    char whole[PATH_BYTES];
    char snap_dir[PATH_BYTES];
    uint64_t bytes;
    uint8_t digest[TRANSFER_DIGEST_BYTES];
    int result;
    struct err err;
};

struct incoming {
    struct loop *loop;
    char snap_dir[PATH_BYTES];
    char recv_dir[PATH_BYTES];
    const struct incoming_events *events;
    void *user;
    uint64_t from;
    uint64_t index;
    uint64_t term;
    uint64_t bytes;
    uint64_t offset;
    uint8_t digest[TRANSFER_DIGEST_BYTES];
    struct buf message;
    struct buf configuration;
    int fd; /* of the .part; -1: none is coming */
    struct check *check;
};

struct incoming *incoming_new(
        struct loop *loop, const char *snap_dir, const struct incoming_events *events, void *user)
{
    struct incoming *incoming = xcalloc(1, sizeof *incoming);

    incoming->loop = loop;
    incoming->events = events;
    incoming->user = user;
    incoming->fd = -1;
    (void)snprintf(incoming->snap_dir, sizeof incoming->snap_dir, "%s", snap_dir);
    (void)snprintf(incoming->recv_dir, sizeof incoming->recv_dir, "%.4096s/recv", snap_dir);
    return incoming;
}

static void close_part(struct incoming *incoming)
{
    if (incoming->fd >= 0) {
        (void)close(incoming->fd);
        incoming->fd = -1;
    }
}

struct incoming *incoming_free(struct incoming *incoming)
{
    if (incoming == NULL) {
        return NULL;
    }
    if (incoming->check != NULL) {
        (void)pthread_join(incoming->check->thread, NULL);
        free(incoming->check); /* what it posted finds the loop gone */
    }
    close_part(incoming);
    buf_fini(&incoming->message);
    buf_fini(&incoming->configuration);
    free(incoming);
    return NULL;
}

static void answer(struct incoming *incoming, bool refused, bool done)
{
    struct snapshot_want want = { .index = incoming->index,
        .term = incoming->term,
        .offset = incoming->offset,
        .refused = refused,
        .done = done };

    SET(&want, snapshot_want_tag_refused);
    SET(&want, snapshot_want_tag_done);
    incoming->events->answer(incoming->user, incoming->from, &want);
}

static void part_path(const struct incoming *incoming, char ret_path[PATH_BYTES])
{
    (void)snprintf(ret_path, PATH_BYTES, "%.4096s/%016" PRIx64 "-%016" PRIx64 ".part",
            incoming->recv_dir, incoming->term, incoming->index);
}

static void whole_path(const struct incoming *incoming, char ret_path[PATH_BYTES])
{
    (void)snprintf(ret_path, PATH_BYTES, "%.4096s/%016" PRIx64 "-%016" PRIx64 ".snap",
            incoming->snap_dir, incoming->term, incoming->index);
}

/* ---- The check ---- */

static int check_digest(struct check *check, int fd)
{
    crypto_generichash_state hash;
    uint8_t found[TRANSFER_DIGEST_BYTES];
    uint8_t said[TRANSFER_DIGEST_BYTES];
    uint64_t left = check->bytes - sizeof said;
    uint8_t *bytes = xmalloc(READ_BYTES);
    ssize_t got = 1;

    (void)crypto_generichash_init(&hash, NULL, 0, sizeof found);
    while (left > 0 && (got = read(fd, bytes, (size_t)MIN(left, (uint64_t)READ_BYTES))) > 0) {
        (void)crypto_generichash_update(&hash, bytes, (size_t)got);
        left -= (uint64_t)got;
    }
    free(bytes);
    if (got < 0) {
        return err_errno(&check->err, "read %s", check->part);
    }
    (void)crypto_generichash_final(&hash, found, sizeof found);
    if (left > 0 || read(fd, said, sizeof said) != (ssize_t)sizeof said ||
            memcmp(found, said, sizeof said) != 0 ||
            memcmp(said, check->digest, sizeof said) != 0) {
        return err_set(&check->err, -EUCLEAN, "%s: its checksum does not match", check->part);
    }
    return fsync(fd) < 0 ? err_errno(&check->err, "sync %s", check->part) : 0;
}

static int keep_file(struct check *check)
{
    if (strcmp(check->part, check->whole) != 0 && rename(check->part, check->whole) < 0) {
        return err_errno(&check->err, "rename %s", check->part);
    }
    int code = sync_dir(check->snap_dir, &check->err);
    if (code < 0) {
        (void)unlink(check->whole);
    }
    return code;
}

static void on_checked(void *user);

static void *run_check(void *user)
{
    struct check *check = user;
    int fd = open(check->part, O_RDONLY | O_CLOEXEC);

    check->result =
            fd < 0 ? err_errno(&check->err, "open %s", check->part) : check_digest(check, fd);
    if (fd >= 0) {
        (void)close(fd);
    }
    if (check->result == 0) {
        check->result = keep_file(check);
    }
    loop_post(check->incoming->loop, on_checked, check->incoming);
    return NULL;
}

static void on_checked(void *user)
{
    struct incoming *incoming = user;
    struct check *check = incoming->check;

    incoming->check = NULL;
    (void)pthread_join(check->thread, NULL);
    if (check->result == 0) {
        log_notice("raftd.snapshot.received", "index=%" PRIu64 " term=%" PRIu64 " bytes=%" PRIu64,
                incoming->index, incoming->term, incoming->bytes);
        incoming->events->on_file(incoming->user, incoming->from, buf_span(&incoming->message),
                buf_span(&incoming->configuration));
        answer(incoming, false, true);
    } else {
        log_error_err(&check->err, "raftd.snapshot.unusable", "action=ask_again");
        /* It is received anew, if a sync failed too: what the kernel kept then is unknown, and a second sync would say
         * that all is well. */
        (void)unlink(check->part);
        incoming->offset = 0;
        answer(incoming, true, false);
    }
    free(check);
}

/* The host has no thread to spare: what has come stays, for when it is offered again. */
static void refuse_unchecked(struct incoming *incoming, int code)
{
    struct check *check = MOVE(incoming->check);

    (void)err_set(
            &check->err, -code, "start a thread to check %s: %s", check->part, strerror(code));
    log_error_err(&check->err, "raftd.snapshot.not_taken", "action=refuse");
    free(check);
    incoming->offset = 0;
    answer(incoming, true, false);
}

static void begin_check(struct incoming *incoming, bool is_part)
{
    struct check *check = xcalloc(1, sizeof *check);

    close_part(incoming);
    check->incoming = incoming;
    check->bytes = incoming->bytes;
    memcpy(check->digest, incoming->digest, sizeof check->digest);
    whole_path(incoming, check->whole);
    if (is_part) {
        part_path(incoming, check->part);
    } else {
        memcpy(check->part, check->whole, sizeof check->part);
    }
    memcpy(check->snap_dir, incoming->snap_dir, sizeof check->snap_dir);
    incoming->check = check;
    int code = pthread_create(&check->thread, NULL, run_check, check);
    if (code != 0) {
        refuse_unchecked(incoming, code);
    }
}

/* ---- Receiving ---- */

/* Parts of other files are of no use any more. */
static void sweep(const struct incoming *incoming, const char *keep)
{
    DIR *dir = opendir(incoming->recv_dir);
    const struct dirent *item;
    char path[PATH_BYTES + 256];

    while (dir != NULL && (item = readdir(dir)) != NULL) {
        (void)snprintf(path, sizeof path, "%.4096s/%.255s", incoming->recv_dir, item->d_name);
        if (item->d_name[0] != '.' && strcmp(path, keep) != 0) {
            (void)unlink(path);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

static int open_part(struct incoming *incoming, struct err *err)
{
    char path[PATH_BYTES];
    struct stat stat;

    part_path(incoming, path);
    if (mkdir(incoming->recv_dir, 0770) < 0 && errno != EEXIST) {
        return err_errno(err, "make %s", incoming->recv_dir);
    }
    sweep(incoming, path);
    incoming->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (incoming->fd < 0 || fstat(incoming->fd, &stat) < 0) {
        return err_errno(err, "open %s", path);
    }
    incoming->offset = (uint64_t)stat.st_size;
    if (incoming->offset > incoming->bytes) {
        incoming->offset = 0;
        if (ftruncate(incoming->fd, 0) < 0) {
            return err_errno(err, "empty %s", path);
        }
    }
    return 0;
}

static void take_offer(struct incoming *incoming, uint64_t from, const struct snapshot_offer *offer)
{
    incoming->from = from;
    incoming->index = offer->index;
    incoming->term = offer->term;
    incoming->bytes = offer->bytes;
    memcpy(incoming->digest, offer->digest.data, sizeof incoming->digest);
    buf_clear(&incoming->message);
    buf_append_span(&incoming->message, offer->message);
    buf_clear(&incoming->configuration);
    buf_append_span(&incoming->configuration, offer->configuration);
}

void incoming_on_offer(struct incoming *incoming, uint64_t from, const struct snapshot_offer *offer)
{
    bool is_same = incoming->fd >= 0 && incoming->index == offer->index &&
                   incoming->term == offer->term && incoming->bytes == offer->bytes;
    struct err err = { 0 };
    struct stat stat_whole;
    char path[PATH_BYTES];

    if (incoming->check != NULL || offer->digest.bytes != sizeof incoming->digest ||
            offer->bytes <= sizeof incoming->digest) {
        return; /* the check's end answers */
    }
    take_offer(incoming, from, offer);
    whole_path(incoming, path);
    if (stat(path, &stat_whole) == 0 && (uint64_t)stat_whole.st_size == offer->bytes) {
        begin_check(incoming, false); /* it came in an earlier life */
        return;
    }
    if (!is_same) {
        close_part(incoming);
        log_notice("raftd.snapshot.offered", "index=%" PRIu64 " term=%" PRIu64 " bytes=%" PRIu64,
                offer->index, offer->term, offer->bytes);
        if (open_part(incoming, &err) < 0) {
            log_error_err(&err, "raftd.snapshot.not_taken", "action=refuse");
            close_part(incoming);
            answer(incoming, true, false);
            return;
        }
    }
    if (incoming->offset == incoming->bytes) {
        begin_check(incoming, true);
    } else {
        answer(incoming, false, false);
    }
}

void incoming_on_chunk(struct incoming *incoming, uint64_t from, const struct snapshot_chunk *chunk)
{
    if (incoming->fd < 0 || incoming->check != NULL || from != incoming->from ||
            chunk->index != incoming->index || chunk->term != incoming->term ||
            chunk->offset != incoming->offset ||
            chunk->data.bytes > incoming->bytes - incoming->offset) {
        return;
    }
    ssize_t written =
            pwrite(incoming->fd, chunk->data.data, chunk->data.bytes, (off_t)incoming->offset);
    if (written < 0 || (size_t)written != chunk->data.bytes) {
        struct err err = { 0 };
        errno = written < 0 ? errno : ENOSPC;
        (void)err_errno(&err, "write a chunk of %zu bytes", chunk->data.bytes);
        log_error_err(&err, "raftd.snapshot.not_taken", "action=refuse");
        close_part(incoming);
        answer(incoming, true, false);
        return;
    }
    incoming->offset += chunk->data.bytes;
    if (incoming->offset == incoming->bytes) {
        answer(incoming, false, false); /* a sign of life: the check may take a while */
        begin_check(incoming, true);
    } else {
        answer(incoming, false, false);
    }
}
