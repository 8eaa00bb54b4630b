/* outgoing.c: a snapshot file on its way out. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "daemons/raftd/outgoing.h"

enum {
    WINDOW_BYTES_MIN = 16 * 1024,
    WINDOW_BYTES_FIRST = 128 * 1024,
    WINDOW_BYTES_MAX = 1024 * 1024,
    UNANSWERED_QUIETS = 8, /* times quiet_ms: it is behind what is under way, and once is enough */
};

struct outgoing {
    int fd;
    uint64_t index;
    uint64_t term;
    uint64_t bytes;
    struct buf offer;
    struct buf out;
    uint8_t *chunk;
    bool is_resuming; /* offered, not answered yet: the answer says where to go on */
    bool is_asking; /* offered again although nothing broke: the answer says whether anything was lost */
    uint64_t asked_sent; /* what had been sent by then */
    bool was_offered;
    uint64_t offered_at_ms;
    uint64_t moved_at_ms;
    uint64_t sent;
    uint64_t acked;
    uint64_t window;
    uint64_t probe_offset; /* one chunk's way there and back is timed; 0: none now */
    uint64_t probe_at_ms;
};

int outgoing_new(const char *path, uint64_t index, uint64_t term, struct span message,
        struct span configuration, struct outgoing **ret_outgoing, struct err *err)
{
    struct outgoing *outgoing = xcalloc(1, sizeof *outgoing);
    uint8_t digest[TRANSFER_DIGEST_BYTES];
    struct stat stat;

    outgoing->index = index;
    outgoing->term = term;
    outgoing->window = WINDOW_BYTES_FIRST;
    outgoing->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (outgoing->fd < 0 || fstat(outgoing->fd, &stat) < 0) {
        int code = err_errno(err, "open %s", path);
        (void)outgoing_free(outgoing);
        return code;
    }
    outgoing->bytes = (uint64_t)stat.st_size;
    if (stat.st_size <= (off_t)sizeof digest ||
            pread(outgoing->fd, digest, sizeof digest, stat.st_size - (off_t)sizeof digest) !=
                    (ssize_t)sizeof digest) {
        (void)outgoing_free(outgoing);
        return err_set(err, -EUCLEAN, "%s: not a snapshot", path);
    }
    struct snapshot_offer offer = { .index = index,
        .term = term,
        .bytes = outgoing->bytes,
        .digest = span_of(digest, sizeof digest),
        .message = message,
        .configuration = configuration };
    SET(&offer, snapshot_offer_tag_configuration);
    snapshot_offer_encode(&offer, &outgoing->offer);
    outgoing->chunk = xmalloc(PEER_CHUNK_BYTES_MAX);
    *ret_outgoing = outgoing;
    return 0;
}

struct outgoing *outgoing_free(struct outgoing *outgoing)
{
    if (outgoing != NULL) {
        if (outgoing->fd >= 0) {
            (void)close(outgoing->fd);
        }
        buf_fini(&outgoing->offer);
        buf_fini(&outgoing->out);
        free(outgoing->chunk);
        free(outgoing);
    }
    return NULL;
}

bool outgoing_is_of(const struct outgoing *outgoing, uint64_t index, uint64_t term)
{
    return outgoing->index == index && outgoing->term == term;
}

static bool is_offer_due(const struct outgoing *outgoing, uint64_t now_ms, uint64_t quiet_ms)
{
    uint64_t last_ms = MAX(outgoing->moved_at_ms, outgoing->offered_at_ms);
    bool is_unanswered = outgoing->is_resuming || outgoing->is_asking;

    return !outgoing->was_offered ||
           (clock_passed(last_ms, now_ms) > quiet_ms &&
                   (!is_unanswered || clock_passed(outgoing->offered_at_ms, now_ms) >
                                              UNANSWERED_QUIETS * quiet_ms));
}

/* What is silent for long may just be slow: unless there was a break, what is under way is not taken for lost. */
static void offer(struct outgoing *outgoing, uint64_t now_ms, uint64_t quiet_ms,
        outgoing_send_fn send, void *user)
{
    bool is_first = !outgoing->was_offered || quiet_ms == 0;

    if (!send(user, snapshot_offer_type, buf_span(&outgoing->offer))) {
        return;
    }
    outgoing->was_offered = true;
    outgoing->offered_at_ms = now_ms;
    outgoing->is_resuming = outgoing->is_resuming || is_first;
    outgoing->is_asking = !outgoing->is_resuming;
    outgoing->asked_sent = outgoing->sent;
}

enum outgoing_state outgoing_tick(struct outgoing *outgoing, uint64_t now_ms, uint64_t quiet_ms,
        uint64_t give_up_ms, outgoing_send_fn send, void *user)
{
    if (!outgoing->was_offered && outgoing->moved_at_ms == 0) {
        outgoing->moved_at_ms = now_ms;
    }
    if (clock_passed(outgoing->moved_at_ms, now_ms) > give_up_ms) {
        return OUTGOING_FAILED;
    }
    if (is_offer_due(outgoing, now_ms, quiet_ms)) {
        offer(outgoing, now_ms, quiet_ms, send, user);
    }
    return OUTGOING_UNDER_WAY;
}

/* Doubles what is under way where answers come quickly, halves it where they come late. */
static void adapt(struct outgoing *outgoing, uint64_t now_ms, uint64_t quiet_ms)
{
    if (outgoing->probe_offset == 0 || outgoing->acked < outgoing->probe_offset) {
        return;
    }
    uint64_t took_ms = clock_passed(outgoing->probe_at_ms, now_ms);
    outgoing->probe_offset = 0;
    if (took_ms < quiet_ms / 8) {
        outgoing->window = MIN(outgoing->window * 2, (uint64_t)WINDOW_BYTES_MAX);
    } else if (took_ms > quiet_ms / 4) {
        outgoing->window = MAX(outgoing->window / 2, (uint64_t)WINDOW_BYTES_MIN);
    }
}

static void go_on_from(struct outgoing *outgoing, uint64_t offset)
{
    outgoing->is_resuming = false;
    outgoing->is_asking = false;
    outgoing->sent = offset;
    outgoing->acked = offset;
    outgoing->probe_offset = 0;
}

/* The answer to a chunk names more than the one before it, that to an offer does not: the offer came behind all that had been
 * sent, so what the member lacks of that is lost. */
static void take_answer(struct outgoing *outgoing, uint64_t offset)
{
    if (offset > outgoing->acked && offset <= outgoing->sent) {
        return;
    }
    outgoing->is_asking = false;
    if (offset != outgoing->asked_sent) {
        go_on_from(outgoing, offset);
    }
}

static bool send_chunk(struct outgoing *outgoing, size_t bytes, outgoing_send_fn send, void *user)
{
    ssize_t got = pread(outgoing->fd, outgoing->chunk, bytes, (off_t)outgoing->sent);

    if (got <= 0) {
        return false;
    }
    struct snapshot_chunk chunk = { .index = outgoing->index,
        .term = outgoing->term,
        .offset = outgoing->sent,
        .data = span_of(outgoing->chunk, (size_t)got) };
    buf_clear(&outgoing->out);
    snapshot_chunk_encode(&chunk, &outgoing->out);
    if (!send(user, snapshot_chunk_type, buf_span(&outgoing->out))) {
        return false;
    }
    outgoing->sent += (uint64_t)got;
    return true;
}

static void pump(struct outgoing *outgoing, uint64_t now_ms, outgoing_send_fn send, void *user)
{
    while (outgoing->sent < outgoing->bytes &&
            outgoing->sent - outgoing->acked < outgoing->window) {
        uint64_t room = outgoing->window - (outgoing->sent - outgoing->acked);
        uint64_t bytes = MIN(outgoing->window / 2, room);
        bytes = MIN(bytes, (uint64_t)PEER_CHUNK_BYTES_MAX);
        if (!send_chunk(outgoing, (size_t)bytes, send, user)) {
            return; /* the next offer finds out where to go on */
        }
        if (outgoing->probe_offset == 0) {
            outgoing->probe_offset = outgoing->sent;
            outgoing->probe_at_ms = now_ms;
        }
    }
}

enum outgoing_state outgoing_on_want(struct outgoing *outgoing, const struct snapshot_want *want,
        uint64_t now_ms, uint64_t quiet_ms, outgoing_send_fn send, void *user)
{
    if (want->done) {
        return OUTGOING_DONE;
    }
    if (want->refused || want->offset > outgoing->bytes) {
        return OUTGOING_FAILED;
    }
    if (outgoing->is_resuming) {
        go_on_from(outgoing, want->offset);
    } else if (outgoing->is_asking) {
        take_answer(outgoing, want->offset);
    } else if (want->offset > outgoing->sent) {
        return OUTGOING_UNDER_WAY; /* an answer of an earlier round */
    }
    if (want->offset > outgoing->acked || want->offset == outgoing->bytes) {
        outgoing->moved_at_ms = now_ms;
    }
    outgoing->acked = MAX(outgoing->acked, want->offset);
    adapt(outgoing, now_ms, quiet_ms);
    pump(outgoing, now_ms, send, user);
    return OUTGOING_UNDER_WAY;
}
