#include "daemons/raftd/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/lockfile.h"
#include "common/log.h"
#include "common/snapshot_file.h"
#include "common/sync_dir.h"
#include "daemons/raftd/recovery.h"

enum {
    PATH_BYTES = SNAPSHOT_PATH_BYTES_MAX,
    COPY_BYTES = 1 << 20,
    READ_BYTES = 8 << 20,
    ATTEMPTS_MAX = 20,   /* with a member that goes on writing */
    SAME_ERRORS_MAX = 3, /* the same place twice more is damage, and no log in motion */
    ATTEMPT_SPACING_US = 50000,
    SEGMENT_BYTES = 16 << 20,
};

/* What is being copied, and where to. */
struct backup {
    const struct backup_config *config;
    char snap_dir[PATH_BYTES]; /* of the target */
    char wal_dir[PATH_BYTES];
    char wal_part_dir[PATH_BYTES]; /* its name until it is whole */
    bool is_ours;                  /* the target was found empty: what is in it now may go again */
    bool made_dir;
    bool is_named; /* the log bears its name */
    struct wal *from;
    struct storage_recovered recovered;
    struct membership membership;
    struct raft *core;
    struct snapshot_info snapshot; /* index 0: none */
    uint64_t entry_bytes;
};

/* ---- The target ----------------------------------------------------------------------------------------------- */

static int refuse_existing(const char *dir, struct err *err)
{
    return err_set(err, -EEXIST,
            "%s: file already exists; name a folder that is empty or not there, or remove it", dir);
}

/* 1: empty, 0: not there. */
static int check_empty(const char *dir, struct err *err)
{
    DIR *stream = opendir(dir);
    struct dirent *entry;
    int result = 1;

    if (stream == NULL) {
        return errno == ENOENT    ? 0
               : errno == ENOTDIR ? refuse_existing(dir, err)
                                  : err_errno(err, "open %s", dir);
    }
    while (result > 0 && (entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            result = refuse_existing(dir, err);
        }
    }
    (void)closedir(stream);
    return result;
}

static int make_dir(const char *path, struct err *err)
{
    return mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : err_errno(err, "create %s", path);
}

static int sync_parent(const char *path, struct err *err)
{
    char parent[PATH_BYTES];

    (void)snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    INVARIANT(slash != NULL); /* paths of a conf are absolute */
    slash[slash == parent ? 1 : 0] = '\0';
    return sync_dir(parent, err);
}

static int open_target(struct backup *backup, struct err *err)
{
    const struct backup_config *config = backup->config;
    bool has_wal_dir = config->backup_wal_dir[0] != '\0';
    char member[PATH_BYTES];
    int used = snprintf(member, sizeof member, "%s/member", config->backup_dir);

    if (used < 0 || (size_t)used + 64 > sizeof member) {
        return err_set(err, -ENAMETOOLONG, "%s", config->backup_dir);
    }
    (void)snprintf(backup->snap_dir, PATH_BYTES, "%.*s/snap", used, member);
    if (has_wal_dir) {
        (void)snprintf(backup->wal_dir, PATH_BYTES, "%s", config->backup_wal_dir);
    } else {
        (void)snprintf(backup->wal_dir, PATH_BYTES, "%.*s/wal", used, member);
    }
    used = snprintf(
            backup->wal_part_dir, PATH_BYTES, "%.*s.part", PATH_BYTES - 64, backup->wal_dir);
    if (used < 0 || used >= PATH_BYTES - 64) {
        return err_set(err, -ENAMETOOLONG, "%s", backup->wal_dir);
    }
    int is_there = check_empty(config->backup_dir, err);
    TRY(is_there);
    if (has_wal_dir) {
        TRY(check_empty(backup->wal_dir, err));
        TRY(check_empty(backup->wal_part_dir, err));
    }
    backup->is_ours = true;
    TRY(make_dir(config->backup_dir, err));
    backup->made_dir = is_there == 0;
    TRY(make_dir(member, err));
    return make_dir(backup->snap_dir, err);
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *walk)
{
    (void)stat;
    (void)type;
    (void)walk;
    (void)remove(path);
    return 0;
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void remove_target(const struct backup *backup)
{
    char member[PATH_BYTES];

    INVARIANT(backup->is_ours);
    remove_tree(backup->wal_part_dir);
    if (backup->is_named) {
        remove_tree(backup->wal_dir);
    }
    (void)snprintf(
            member, sizeof member, "%.*s/member", PATH_BYTES - 64, backup->config->backup_dir);
    remove_tree(member);
    if (backup->made_dir) {
        (void)rmdir(backup->config->backup_dir);
    }
}

/* ---- The source's snapshot ------------------------------------------------------------------------------------ */

static int write_all(int fd, const char *path, const uint8_t *data, size_t bytes, struct err *err)
{
    while (bytes > 0) {
        ssize_t written = write(fd, data, bytes);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return err_errno(err, "write %s", path);
        }
        data += written;
        bytes -= (size_t)written;
    }
    return 0;
}

static int read_exactly(int fd, const char *path, uint8_t *data, size_t bytes, struct err *err)
{
    size_t used = 0;

    while (used < bytes) {
        ssize_t got = read(fd, data + used, bytes - used);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return err_errno(err, "read %s", path);
        }
        if (got == 0) {
            return err_set(err, -EUCLEAN, "%s: it was cut while it was read", path);
        }
        used += (size_t)got;
    }
    return 0;
}

static int copy_data(int from, const char *path, uint64_t data_bytes, int to, const char *to_path,
        crypto_generichash_state *hash, struct err *err)
{
    CLEANUP(buf_fini) struct buf chunk = BUF_INIT;
    uint8_t *data = buf_reserve(&chunk, COPY_BYTES);

    for (uint64_t left = data_bytes; left > 0;) {
        size_t bytes = (size_t)MIN(left, (uint64_t)COPY_BYTES);
        TRY(read_exactly(from, path, data, bytes, err));
        (void)crypto_generichash_update(hash, data, bytes);
        TRY(write_all(to, to_path, data, bytes, err));
        left -= bytes;
    }
    return 0;
}

/* The copy says that it is of no cluster: its trailer is another, and with it its hash. */
static int copy_open_snapshot(int from, const char *path, int to, const char *to_path,
        struct snapshot_info *ret_info, struct err *err)
{
    uint8_t trailer[SNAPSHOT_TRAILER_BYTES];
    crypto_generichash_state hash;
    uint64_t data_bytes;

    TRY(snapshot_data_bytes(from, path, &data_bytes, err));
    snapshot_hash_init(&hash);
    TRY(copy_data(from, path, data_bytes, to, to_path, &hash, err));
    TRY(read_exactly(from, path, trailer, sizeof trailer, err));
    TRY(snapshot_trailer_check(path, trailer, data_bytes, hash, ret_info, err));
    ret_info->cluster_id = 0;
    snapshot_trailer_encode(ret_info, data_bytes, hash, trailer);
    TRY(write_all(to, to_path, trailer, sizeof trailer, err));
    return fsync(to) < 0 ? err_errno(err, "sync %s", to_path) : 0;
}

static int copy_snapshot(
        struct backup *backup, const struct storage_snapshot *snapshot, struct err *err)
{
    char dir[PATH_BYTES];
    char from_path[PATH_BYTES];
    char to_path[PATH_BYTES];

    (void)snprintf(dir, sizeof dir, "%.*s/member/snap", PATH_BYTES - 64, backup->config->data_dir);
    snapshot_path(dir, snapshot->term, snapshot->index, from_path);
    snapshot_path(backup->snap_dir, snapshot->term, snapshot->index, to_path);
    int from = open(from_path, O_RDONLY | O_CLOEXEC);
    if (from < 0) {
        return err_errno(err, "open %s", from_path);
    }
    int to = open(to_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int result = to < 0 ? err_errno(err, "create %s", to_path)
                        : copy_open_snapshot(from, from_path, to, to_path, &backup->snapshot, err);
    (void)close(from);
    if (to >= 0) {
        (void)close(to);
    }
    if (result == 0 && (backup->snapshot.index != snapshot->index ||
                               backup->snapshot.term != snapshot->term)) {
        result = err_set(err, -EUCLEAN, "%s: it is of other entries than its name says", from_path);
    }
    if (result < 0) {
        (void)unlink(to_path);
        backup->snapshot = (struct snapshot_info){ 0 };
    }
    return result;
}

/* The newest that the log knows, and that is whole. */
static int find_snapshot(struct backup *backup, struct err *err)
{
    const struct storage_recovered *recovered = &backup->recovered;
    struct err last = { 0 };

    for (size_t i = recovered->snapshot_count; i > 0; i--) {
        const struct storage_snapshot *snapshot = &recovered->snapshots[i - 1];
        bool fits = snapshot->index >= recovered->base.index &&
                    snapshot->index <= recovery_last_index(recovered) &&
                    raft_term_at(backup->core, snapshot->index) == snapshot->term;
        int result = fits ? copy_snapshot(backup, snapshot, &last) : -ENOENT;
        if (fits && result == 0) {
            return 0;
        }
        if (fits && result == -EUCLEAN) {
            log_warning_err(&last, "backup.snapshot.broken", "action=take_the_one_before");
        } else if (result != -ENOENT) {
            *err = last;
            return result;
        }
    }
    if (recovered->base.index == 0) {
        return 0;
    }
    return err_set(err, -EUCLEAN,
            "no snapshot in %s/member/snap fits the log, which begins behind index %" PRIu64
            "%s%s; bring a .snap file of that index or later back, or take a backup of another "
            "member",
            backup->config->data_dir, recovered->base.index, last.code < 0 ? ": " : "", last.text);
}

/* ---- The source's log ----------------------------------------------------------------------------------------- */

static void close_source(struct backup *backup)
{
    backup->core = raft_free(backup->core);
    membership_fini(&backup->membership);
    storage_recovered_fini(&backup->recovered);
    backup->from = wal_close(backup->from);
}

static int open_source(struct backup *backup, struct err *err)
{
    struct wal_config config = { .dir = backup->config->wal_dir, .is_foreign = true };

    TRY(wal_open(&config, &backup->from, err));
    TRY(recovery_read(backup->from, &backup->recovered, err));
    TRY(recovery_members(&backup->recovered, 0, &backup->membership, &backup->core, err));
    struct raft_members roles;
    raft_get_members(backup->core, &roles);
    if (roles.voters.count == 0) {
        return err_set(err, -ENOENT,
                "%s has not got its cluster's data yet; take the backup of a member that has",
                backup->config->data_dir);
    }
    return 0;
}

/* ---- The target's log ----------------------------------------------------------------------------------------- */

static int create_log(struct backup *backup, struct wal **ret_to, struct err *err)
{
    const struct storage_recovered *recovered = &backup->recovered;
    CLEANUP(buf_fini) struct buf configuration = BUF_INIT;
    uint64_t index = backup->snapshot.index;
    uint64_t begin = MAX(index, recovered->base.index);
    struct raft_members members;

    bool is_known = raft_get_members_at(backup->core, begin, &members);
    INVARIANT(is_known);
    for (size_t i = 0; i < recovered->note_count && recovered->notes[i].index <= begin; i++) {
        membership_note(
                &backup->membership, recovered->notes[i].index, buf_span(&recovered->notes[i].op));
    }
    membership_encode(&backup->membership, &members, &configuration);
    struct wal_base base = {
        .index = begin,
        .term = raft_term_at(backup->core, begin),
        .cluster_time_ns = recovery_time_ns(recovered, begin),
        .configuration = buf_span(&configuration),
    };
    uint64_t commit = MAX(recovered->hard.commit, begin);
    struct wal_hard_state hard = { recovered->hard.term, 0, commit };
    struct wal_config config = { .dir = backup->wal_part_dir, .segment_bytes = SEGMENT_BYTES };
    TRY(wal_create(&config, &base, &hard, ret_to, err));
    if (index == 0) {
        return 0;
    }
    struct wal_snapshot snapshot = { .index = index, .term = backup->snapshot.term };
    struct wal_write write = { .snapshot = &snapshot };
    return wal_append(*ret_to, &write, 1, err);
}

struct entry_copy {
    struct backup *backup;
    struct wal *to;
    struct err *err;
    uint64_t next;
};

static int copy_entry(void *user, const struct wal_entry *entry)
{
    struct entry_copy *copy = user;
    struct wal_write write = { .entries = entry, .entry_count = 1 };

    TRY(wal_append(copy->to, &write, 1, copy->err));
    copy->next = entry->index + 1;
    copy->backup->entry_bytes += entry->data.bytes;
    return 0;
}

static int copy_entries(struct backup *backup, struct wal *to, struct err *err)
{
    uint64_t last_index = recovery_last_index(&backup->recovered);
    struct entry_copy copy = { .backup = backup, .to = to, .err = err };

    copy.next = MAX(backup->snapshot.index, backup->recovered.base.index) + 1;
    while (copy.next <= last_index) {
        TRY(wal_read_entries(
                backup->from, copy.next, last_index, READ_BYTES, copy_entry, &copy, err));
    }
    return wal_sync(to, err);
}

static int write_log(struct backup *backup, struct err *err)
{
    struct wal *to = NULL;
    char path[PATH_BYTES];

    int result = create_log(backup, &to, err);
    if (result == 0) {
        result = copy_entries(backup, to, err);
    }
    to = wal_close(to);
    (void)snprintf(path, sizeof path, "%.*s/LOCK", PATH_BYTES - 64, backup->wal_part_dir);
    (void)unlink(path);
    return result;
}

/* ---- All of it ------------------------------------------------------------------------------------------------ */

static int copy_all(struct backup *backup, struct err *err)
{
    TRY(open_source(backup, err));
    TRY(find_snapshot(backup, err));
    return write_log(backup, err);
}

/* Whether it can be the source's own life that stood in the way. */
static bool may_pass(int result)
{
    return result == -EBADMSG || result == -ENOENT || result == -ENODATA || result == -EUCLEAN;
}

static bool is_running(const struct backup *backup)
{
    char path[PATH_BYTES];

    (void)snprintf(path, sizeof path, "%.*s/LOCK", PATH_BYTES - 64, backup->config->wal_dir);
    return lockfile_holder(path) != 0;
}

/* Segments and snapshots come and go, and the last batch may be half there: what is wrong for good is so again. */
static int copy_patiently(struct backup *backup, struct err *err)
{
    struct err before = { 0 };
    int result = 0;
    int same = 0;

    for (int i = 0; i < ATTEMPTS_MAX && same < SAME_ERRORS_MAX; i++) {
        backup->entry_bytes = 0;
        backup->snapshot = (struct snapshot_info){ 0 };
        result = copy_all(backup, err);
        if (result == 0 || !may_pass(result) || !is_running(backup)) {
            return result;
        }
        close_source(backup);
        remove_tree(backup->wal_part_dir);
        remove_tree(backup->snap_dir);
        TRY(make_dir(backup->snap_dir, err));
        same = strcmp(before.text, err->text) == 0 ? same + 1 : 1;
        before = *err;
        (void)usleep(ATTEMPT_SPACING_US);
    }
    return result;
}

/* The log gets its name last: without one it is no data folder. */
static int finish(struct backup *backup, struct err *err)
{
    char member[PATH_BYTES];

    (void)snprintf(
            member, sizeof member, "%.*s/member", PATH_BYTES - 64, backup->config->backup_dir);
    TRY(sync_dir(backup->snap_dir, err));
    TRY(sync_dir(member, err));
    TRY(sync_dir(backup->config->backup_dir, err));
    TRY(sync_parent(backup->config->backup_dir, err));
    TRY(sync_dir(backup->wal_part_dir, err));
    if (rename(backup->wal_part_dir, backup->wal_dir) < 0) {
        return err_errno(err, "rename %s to %s", backup->wal_part_dir, backup->wal_dir);
    }
    backup->is_named = true;
    return sync_parent(backup->wal_dir, err);
}

int backup_make(
        const struct backup_config *config, struct backup_report *ret_report, struct err *err)
{
    struct backup backup = { .config = config };
    int exists = wal_exists(config->wal_dir, err);

    TRY(exists);
    if (exists == 0) {
        return err_set(err, -ENOENT,
                "there is no log in %s; name a member's data folder with --data-dir, and the "
                "folder of its log with --wal-dir where it has one of its own",
                config->wal_dir);
    }
    int result = open_target(&backup, err);
    if (result == 0) {
        result = copy_patiently(&backup, err);
    }
    if (result == 0) {
        result = finish(&backup, err);
    }
    if (result == 0) {
        uint64_t last_index = recovery_last_index(&backup.recovered);
        *ret_report = (struct backup_report){ .snapshot_index = backup.snapshot.index,
            .snapshot_term = backup.snapshot.term,
            .last_index = last_index,
            .last_term = raft_term_at(backup.core, last_index),
            .bytes = backup.snapshot.bytes + backup.entry_bytes };
    } else if (backup.is_ours) {
        remove_target(&backup);
    }
    close_source(&backup);
    return result;
}
