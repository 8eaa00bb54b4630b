#include "daemons/quorate/datadir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/conf_table.h"
#include "common/lockfile.h"
#include "common/log_lost.h"

enum {
    PATH_BYTES = LOG_LOST_PATH_BYTES,
    NFS_MAGIC = 0x6969
};

PRINTF_LIKE(2, 3)
static void join(char ret_path[PATH_BYTES], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(ret_path, PATH_BYTES, format, args);
    va_end(args);
}

static bool exists(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    struct stat stat;

    join(path, "%s/%s", dir, name);
    return lstat(path, &stat) == 0;
}

/* A log of etcd's begins with a record of type 4 (crc), as protobuf behind a length of 8 bytes. */
static bool is_etcd_log(const char *path)
{
    uint8_t head[11];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return false;
    }
    ssize_t bytes = read(fd, head, sizeof head);
    (void)close(fd);
    return bytes == (ssize_t)sizeof head && head[0] != 0 && head[1] == 0 && head[8] == 0x08 &&
           head[9] == 0x04 && head[10] == 0x10;
}

static int refuse_etcd(const char *dir, const char *what, const char *version, struct err *err)
{
    return err_set(err, -EINVAL,
            "%s holds the data of etcd %s (%s); give --data-dir a new folder and import the data: "
            "nothing was changed",
            dir, version, what);
}

static int check_foreign(const struct conf *conf, struct err *err)
{
    char path[PATH_BYTES];
    const char *dir = conf->data_dir;

    if (exists(dir, "log") && exists(dir, "conf")) {
        return refuse_etcd(dir, "log, conf", "0.4", err);
    }
    if (exists(dir, "wal") && exists(dir, "snap")) {
        return refuse_etcd(dir, "wal, snap", "2.0.0", err);
    }
    if (exists(dir, "member/snap/db")) {
        return refuse_etcd(dir, "member/snap/db", "2.3 or 3", err);
    }
    if (log_lost_find_file(conf->wal_dir, ".wal", path) && is_etcd_log(path)) {
        return refuse_etcd(dir, path, "2", err);
    }
    if (exists(dir, "member/wal")) {
        char wal_dir[PATH_BYTES];
        join(wal_dir, "%s/member/wal", dir);
        if (log_lost_find_file(wal_dir, ".wal", path) && is_etcd_log(path)) {
            return refuse_etcd(dir, path, "2", err);
        }
    }
    return 0;
}

static int check_kind(const struct conf *conf, struct err *err)
{
    bool is_member = exists(conf->data_dir, "member");
    bool is_proxy = exists(conf->data_dir, "proxy");

    if (is_member && is_proxy) {
        return err_set(err, -EINVAL,
                "invalid datadir. Both member and proxy directories exist.; remove the one in %s "
                "that is not wanted, or give --data-dir another folder",
                conf->data_dir);
    }
    if (is_proxy) {
        return err_set(err, -EINVAL,
                "%s is a proxy's, and the proxy is not served by this version; give --data-dir "
                "another folder",
                conf->data_dir);
    }
    return 0;
}

static int check_locks(const struct conf *conf, struct err *err)
{
    char paths[3][PATH_BYTES];

    join(paths[0], "%s/member/LOCK", conf->data_dir);
    join(paths[1], "%s/LOCK", conf->wal_dir);
    join(paths[2], "%s/member/state/LOCK", conf->data_dir);
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++) {
        pid_t holder = lockfile_holder(paths[i]);
        if (holder != 0) {
            return err_set(err, -EWOULDBLOCK,
                    "open wal error: file already locked; data directory %s is in use by process "
                    "%ld (%s): stop that one, or give --data-dir another folder",
                    conf->data_dir, (long)holder, paths[i]);
        }
    }
    return 0;
}

static void note_strangers(struct conf *conf)
{
    static const char *const known[] = { ".", "..", "member", "proxy", "run", "lost+found" };
    DIR *stream = opendir(conf->data_dir);

    if (stream == NULL) {
        return;
    }
    for (struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        bool is_known = false;
        for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
            is_known = is_known || strcmp(entry->d_name, known[i]) == 0;
        }
        if (!is_known) {
            conf_note_add(conf, LOG_LEVEL_WARNING, "etcdmain",
                    "found invalid file/dir %s under data dir %s (Ignore this if you are upgrading "
                    "etcd)",
                    entry->d_name, conf->data_dir);
        }
    }
    (void)closedir(stream);
}

/* A folder that is there: ours to read and write. One that is not: the nearest one above it is. */
static int check_writable(const char *dir, const char *flag, bool *ret_missing, struct err *err)
{
    char path[PATH_BYTES];
    struct stat stat_;

    join(path, "%s", dir);
    *ret_missing = false;
    while (lstat(path, &stat_) < 0 && errno == ENOENT && path[1] != '\0') {
        char *slash = strrchr(path, '/');
        slash[slash == path ? 1 : 0] = '\0';
        *ret_missing = true;
    }
    if (stat(path, &stat_) < 0) {
        return err_set(err, -errno,
                "error listing data dir: %s: %s; mend its rights, or give --%s another folder",
                path, strerror(errno), flag);
    }
    if (!S_ISDIR(stat_.st_mode)) {
        return err_set(err, -EINVAL,
                "error listing data dir: %s is not a folder; give --%s another one", path, flag);
    }
    if (access(path, R_OK | W_OK | X_OK) < 0) {
        return err_set(err, -errno,
                "cannot access data directory: %s %s: %s; mend its rights, or give --%s another "
                "folder",
                *ret_missing ? "mkdir in" : "write to", path, strerror(errno), flag);
    }
    return 0;
}

static int check_file_system(const struct conf *conf, struct err *err)
{
    struct statfs fs;

    if (statfs(conf->data_dir, &fs) == 0 && fs.f_type == NFS_MAGIC) {
        return err_set(err, -EINVAL,
                "%s is on NFS, where locks cannot be relied on; give --data-dir a local disk",
                conf->data_dir);
    }
    return 0;
}

int datadir_check(struct conf *conf, struct datadir *ret_datadir, struct err *err)
{
    bool ignored;

    TRY(check_writable(conf->data_dir, "data-dir", &ret_datadir->was_missing, err));
    TRY(check_writable(conf->wal_dir, "wal-dir", &ignored, err));
    TRY(check_writable(conf->run_dir, "run-dir", &ret_datadir->run_was_missing, err));
    TRY(check_file_system(conf, err));
    TRY(check_kind(conf, err));
    TRY(check_foreign(conf, err));
    char log[PATH_BYTES];
    ret_datadir->is_new = !log_lost_find_file(conf->wal_dir, ".wal", log);
    if (ret_datadir->is_new) {
        TRY(log_lost_check(conf, err));
    }
    TRY(check_locks(conf, err));
    if (!ret_datadir->is_new) {
        conf_note_add(conf, LOG_LEVEL_NOTICE, "etcdmain",
                "the server is already initialized as member before, starting as etcd member...");
    }
    note_strangers(conf);
    return 0;
}

int datadir_open(struct datadir *datadir, const struct conf *conf, struct err *err)
{
    char path[PATH_BYTES];

    TRY(conf_make_dirs(conf, err));
    join(path, "%s/member/LOCK", conf->data_dir);
    int r = lockfile_open(path, &datadir->lock_fd, err);
    if (r < 0) {
        (void)err_prefix(err, "open wal error: file already locked");
        (void)err_mend(err, "stop that one, or give --data-dir another folder");
    }
    return r;
}

static void remove_files_in(const char *dir)
{
    char path[PATH_BYTES];
    DIR *stream = opendir(dir);

    if (stream == NULL) {
        return;
    }
    for (struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        join(path, "%s/%s", dir, entry->d_name);
        (void)unlink(path); /* a folder stays */
    }
    (void)closedir(stream);
}

/* Sockets and counters; nobody else has had time to put anything there. */
static void remove_run_dir(const struct conf *conf)
{
    char path[PATH_BYTES];

    join(path, "%s/apply", conf->run_dir);
    remove_files_in(path);
    (void)rmdir(path);
    remove_files_in(conf->run_dir);
    (void)rmdir(conf->run_dir);
}

/* Only what a start of ours leaves: the run directory, the lock, empty folders. */
static void undo_new(const struct datadir *datadir, const struct conf *conf)
{
    static const char *const empty_ones[] = { "member/wal", "member/snap", "member/state" };
    char path[PATH_BYTES];
    struct stat stat_;

    for (size_t i = 0; i < ARRAY_COUNT(empty_ones); i++) {
        join(path, "%s/%s", conf->data_dir, empty_ones[i]);
        (void)rmdir(path);
        if (stat(path, &stat_) == 0) {
            return; /* a daemon got as far as writing data */
        }
    }
    if (datadir->run_was_missing) {
        remove_run_dir(conf);
    }
    join(path, "%s/member/LOCK", conf->data_dir);
    (void)unlink(path);
    join(path, "%s/member", conf->data_dir);
    (void)rmdir(path);
    (void)rmdir(conf->data_dir);
}

void datadir_close(struct datadir *datadir, const struct conf *conf, bool undo)
{
    if (undo && datadir->was_missing && datadir->lock_fd >= 0) {
        undo_new(datadir, conf);
    }
    if (datadir->lock_fd >= 0) {
        (void)close(datadir->lock_fd);
        datadir->lock_fd = -1;
    }
}
