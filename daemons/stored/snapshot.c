/* snapshot.c: making and reading a snapshot file.
 *
 * LMDB copies into a pipe, on a thread of its own, and we hash and write what comes out: one pass, as fast as memory is, since
 * while it lasts the state grows by each page that is written. Only then does it go to the disk, which is the log's first: piece by
 * piece, two on their way at most, behind whatever else is waiting, in space allocated ahead, so that no commit of the
 * file system's journal has to wait for it. */
#include "daemons/stored/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/sync_dir.h"

enum {
    CHUNK_BYTES = 1024 * 1024, /* read at once, and on its way to the disk at once */
    AHEAD_BYTES = 4 * CHUNK_BYTES,
    PAGE_BYTES = 4096,
};

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

static void free_bytes(uint8_t **bytes)
{
    free(*bytes);
}

static int write_all(int fd, const uint8_t *data, size_t bytes, const char *what, struct err *err)
{
    while (bytes > 0) {
        ssize_t written = write(fd, data, bytes);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            errno = written < 0 ? errno : ENOSPC;
            return err_errno(err, "write %s", what);
        }
        data += written;
        bytes -= (size_t)written;
    }
    return 0;
}

/* Fills the chunk as far as the input goes. */
static ssize_t read_chunk(int fd, uint8_t *chunk, size_t bytes)
{
    size_t used = 0;

    while (used < bytes) {
        ssize_t got = read(fd, chunk + used, bytes - used);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -errno;
        }
        if (got == 0) {
            break;
        }
        used += (size_t)got;
    }
    return (ssize_t)used;
}

struct copy {
    struct state_writer *writer;
    int fd;
    int result;
    struct err err;
};

static void *copy_run(void *argument)
{
    struct copy *copy = argument;

    copy->result = state_writer_copy(copy->writer, copy->fd, &copy->err);
    close_fd(&copy->fd);
    return NULL;
}

static int check_stop(const atomic_bool *stop, struct err *err)
{
    return stop != NULL && atomic_load(stop) ? err_set(err, -ECANCELED, "the copy was given up")
                                             : 0;
}

/* ---- Writing behind others -------------------------------------------------------------------------------------- */

/* A file that is written from its beginning to its end. */
struct trickle {
    int fd;
    uint64_t bytes; /* written, into memory */
    uint64_t allocated;
};

/* What this thread writes back goes behind what others wait for. A scheduler without classes ignores it. */
static void yield_disk(void)
{
    enum {
        WHO_PROCESS = 1, /* 0: the calling thread */
        CLASS_IDLE = 3,
        CLASS_SHIFT = 13,
    };
    (void)syscall(SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE << CLASS_SHIFT);
}

/* Asked for in vain where the file system cannot: then the journal may wait for us, and nothing else changes. */
static void allocate_ahead(struct trickle *trickle, size_t bytes)
{
    if (trickle->bytes + bytes > trickle->allocated) {
        (void)fallocate(
                trickle->fd, FALLOC_FL_KEEP_SIZE, (off_t)trickle->allocated, (off_t)AHEAD_BYTES);
        trickle->allocated += AHEAD_BYTES;
    }
}

static int trickle_write(struct trickle *trickle, const uint8_t *data, size_t bytes,
        const char *path, struct err *err)
{
    allocate_ahead(trickle, bytes);
    TRY(write_all(trickle->fd, data, bytes, path, err));
    trickle->bytes += bytes;
    return 0;
}

static void write_back(int fd, uint64_t from, uint64_t end, unsigned flags)
{
    (void)sync_file_range(fd, (off_t)from, (off_t)(end - from), flags);
}

/* Gives back what was allocated in vain; then to the disk, piece by piece, one on its way while the next begins. */
static int trickle_end(
        struct trickle *trickle, const char *path, const atomic_bool *stop, struct err *err)
{
    uint64_t waited = 0;

    if (ftruncate(trickle->fd, (off_t)trickle->bytes) < 0) {
        return err_errno(err, "truncate %s", path);
    }
    for (uint64_t at = 0; at < trickle->bytes; at += CHUNK_BYTES) {
        TRY(check_stop(stop, err));
        uint64_t end = MIN(at + (uint64_t)CHUNK_BYTES, trickle->bytes);
        write_back(trickle->fd, at, end, SYNC_FILE_RANGE_WRITE);
        if (at > waited) {
            write_back(trickle->fd, waited, at, SYNC_FILE_RANGE_WAIT_BEFORE);
            waited = at;
        }
    }
    return 0;
}

/* ---- Making --------------------------------------------------------------------------------------------------- */

/* Takes the copy out of the pipe. */
static int drain_copy(int from, int to, const char *path, const atomic_bool *stop,
        crypto_generichash_state *hash, uint64_t *ret_bytes, struct err *err)
{
    CLEANUP(free_bytes) uint8_t *chunk = xmalloc(CHUNK_BYTES);
    struct trickle trickle = { .fd = to };

    yield_disk();
    for (;;) {
        TRY(check_stop(stop, err));
        ssize_t got = read_chunk(from, chunk, CHUNK_BYTES);
        if (got < 0) {
            return err_set(err, (int)got, "read the copy: %s", strerror((int)-got));
        }
        if (got == 0) {
            *ret_bytes = trickle.bytes;
            return trickle_end(&trickle, path, stop, err);
        }
        (void)crypto_generichash_update(hash, chunk, (size_t)got);
        TRY(trickle_write(&trickle, chunk, (size_t)got, path, err));
    }
}

static int copy_out(struct state_writer *writer, int to, const char *path, const atomic_bool *stop,
        crypto_generichash_state *hash, uint64_t *ret_bytes, struct err *err)
{
    int ends[2];
    pthread_t thread;

    if (pipe2(ends, O_CLOEXEC) < 0) {
        return err_errno(err, "pipe");
    }
    (void)fcntl(ends[0], F_SETPIPE_SZ, CHUNK_BYTES);
    struct copy copy = { .writer = writer, .fd = ends[1] };
    int code = pthread_create(&thread, NULL, copy_run, &copy);
    if (code != 0) {
        close_fd(&ends[0]);
        close_fd(&ends[1]);
        return err_set(err, -code, "start copying: %s", strerror(code));
    }
    int result = drain_copy(ends[0], to, path, stop, hash, ret_bytes, err);
    close_fd(&ends[0]); /* a copy that is still writing gets EPIPE */
    (void)pthread_join(thread, NULL);
    if (result == 0 && copy.result < 0) {
        *err = copy.err;
        result = copy.result;
    }
    return result;
}

/* Index, term and cluster of an environment that is a single file. */
static int read_position(const char *path, struct snapshot_info *ret_info, struct err *err)
{
    struct state_read *read = NULL;
    struct state *state = NULL;
    struct state_meta meta;

    TRY(state_open_file(path, &state, err));
    int result = state_read_new(state, &read, err);
    if (result == 0) {
        result = state_read_begin(read, err);
    }
    if (result == 0) {
        result = state_read_meta(read, &meta, err);
    }
    read = state_read_free(read);
    state = state_close(state);
    if (result == 0) {
        ret_info->index = meta.applied_index;
        ret_info->term = meta.applied_term;
        ret_info->cluster_id = meta.cluster_id;
    }
    return result;
}

static int write_trailer(int fd, const char *path, uint64_t data_bytes, struct snapshot_info *info,
        const crypto_generichash_state *hash, struct err *err)
{
    uint8_t trailer[SNAPSHOT_TRAILER_BYTES];

    snapshot_trailer_encode(info, data_bytes, *hash, trailer);
    TRY(write_all(fd, trailer, sizeof trailer, path, err));
    info->bytes = data_bytes + sizeof trailer;
    return fsync(fd) == 0 ? 0 : err_errno(err, "sync %s", path);
}

static int make_at(struct state_writer *writer, const char *dir, const char *temporary,
        const atomic_bool *stop, struct snapshot_info *ret_info, struct err *err)
{
    char path[SNAPSHOT_PATH_BYTES_MAX];
    crypto_generichash_state hash;
    uint64_t data_bytes = 0;
    CLEANUP(close_fd)
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);

    if (fd < 0) {
        return err_errno(err, "create %s", temporary);
    }
    snapshot_hash_init(&hash);
    TRY(copy_out(writer, fd, temporary, stop, &hash, &data_bytes, err));
    TRY(read_position(temporary, ret_info, err));
    TRY(write_trailer(fd, temporary, data_bytes, ret_info, &hash, err));
    TRY(check_stop(stop, err)); /* raftd would not hear of it any more */
    snapshot_path(dir, ret_info->term, ret_info->index, path);
    if (rename(temporary, path) < 0) {
        return err_errno(err, "rename %s", temporary);
    }
    int result = sync_dir(dir, err);
    if (result < 0) {
        (void)unlink(path); /* its name may not last: the log must not stand on it */
    }
    return result;
}

int snapshot_copy_env(
        struct state_writer *writer, const char *dest_dir, const atomic_bool *stop, struct err *err)
{
    char data_path[SNAPSHOT_PATH_BYTES_MAX];
    crypto_generichash_state hash;
    uint64_t data_bytes = 0;

    (void)snprintf(data_path, sizeof data_path, "%s/data.mdb", dest_dir);
    CLEANUP(close_fd)
    int fd = open(data_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0) {
        return err_errno(err, "create %s", data_path);
    }
    snapshot_hash_init(&hash); /* nobody will ask: one way to copy is enough */
    TRY(copy_out(writer, fd, data_path, stop, &hash, &data_bytes, err));
    if (fsync(fd) < 0) {
        return err_errno(err, "sync %s", data_path);
    }
    return sync_dir(dest_dir, err);
}

int snapshot_make(struct state_writer *writer, const char *dir, const atomic_bool *stop,
        struct snapshot_info *ret_info, struct err *err)
{
    char temporary[SNAPSHOT_PATH_BYTES_MAX];

    (void)snprintf(temporary, sizeof temporary, "%s/making.snap.tmp", dir);
    int result = make_at(writer, dir, temporary, stop, ret_info, err);
    if (result < 0) {
        (void)unlink(temporary);
    }
    return result;
}

/* Reads data and trailer; `to` -1: nothing is written. The pages of a new state are written one by one, for the reason that
 * state_write.c gives. */
static int read_through(int from, uint64_t data_bytes, const char *path, int to,
        const char *to_path, crypto_generichash_state *hash, struct err *err)
{
    CLEANUP(free_bytes) uint8_t *chunk = xmalloc(CHUNK_BYTES);

    for (uint64_t left = data_bytes; left > 0;) {
        size_t want = left < CHUNK_BYTES ? (size_t)left : (size_t)CHUNK_BYTES;
        ssize_t got = read_chunk(from, chunk, want);
        if (got < 0) {
            return err_set(err, (int)got, "read %s: %s", path, strerror((int)-got));
        }
        if ((size_t)got != want) {
            return err_set(err, -EUCLEAN, "%s: it was cut while it was read", path);
        }
        (void)crypto_generichash_update(hash, chunk, want);
        for (size_t at = 0; to >= 0 && at < want; at += PAGE_BYTES) {
            TRY(write_all(to, chunk + at, MIN(want - at, (size_t)PAGE_BYTES), to_path, err));
        }
        left -= want;
    }
    return 0;
}

static int read_trailer(int fd, const char *path, uint64_t data_bytes,
        const crypto_generichash_state *hash, struct snapshot_info *ret_info, struct err *err)
{
    uint8_t trailer[SNAPSHOT_TRAILER_BYTES];

    if (read_chunk(fd, trailer, sizeof trailer) != (ssize_t)sizeof trailer) {
        return err_set(err, -EUCLEAN, "%s: its trailer cannot be read", path);
    }
    return snapshot_trailer_check(path, trailer, data_bytes, *hash, ret_info, err);
}

static int read_snapshot(const char *path, int to, const char *to_path,
        struct snapshot_info *ret_info, struct err *err)
{
    crypto_generichash_state hash;
    uint64_t data_bytes;
    CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return err_errno(err, "open %s", path);
    }
    TRY(snapshot_data_bytes(fd, path, &data_bytes, err));
    snapshot_hash_init(&hash);
    TRY(read_through(fd, data_bytes, path, to, to_path, &hash, err));
    return read_trailer(fd, path, data_bytes, &hash, ret_info, err);
}

int snapshot_verify(const char *path, struct snapshot_info *ret_info, struct err *err)
{
    return read_snapshot(path, -1, "", ret_info, err);
}

int snapshot_unpack(
        const char *path, const char *dest_dir, struct snapshot_info *ret_info, struct err *err)
{
    char data_path[SNAPSHOT_PATH_BYTES_MAX];
    struct snapshot_info info = { 0 };
    struct snapshot_info found = { 0 };

    (void)snprintf(data_path, sizeof data_path, "%s/data.mdb", dest_dir);
    CLEANUP(close_fd)
    int fd = open(data_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0) {
        return err_errno(err, "create %s", data_path);
    }
    TRY(read_snapshot(path, fd, data_path, &info, err));
    if (fsync(fd) < 0) {
        return err_errno(err, "sync %s", data_path);
    }
    TRY(sync_dir(dest_dir, err));
    TRY(read_position(data_path, &found, err));
    if (found.index != info.index || found.term != info.term) {
        return err_set(err, -EUCLEAN, "%s: trailer and content are of different entries", path);
    }
    *ret_info = info;
    return 0;
}
