#include "daemons/stored/mark.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/buf.h"
#include "daemons/stored/files.h"
#include "daemons/stored/mounted.h"

#define WORD_PREFIX "quorate-%u-"

/* The word's file: in a shared folder the state's folder stands behind it, so that a word nobody needs any more can be told. */
struct word {
    uint64_t nonce;
    uint64_t generation;
    uint64_t txn_id;
    char state_dir[1024];
};

/* What MARK says. */
struct mark_text {
    unsigned clean;
    uint64_t generation;
    char boot_id[40];
    struct mounted file;
    uint64_t nonce;
};

struct mark {
    char *state_dir;
    char path[PATH_MAX]; /* of MARK */
    char *sys_dir;
    char boot_id[40];
    char word_path[PATH_MAX]; /* empty: no tmpfs, so nothing but a clean mark is ever trusted */
    struct word *word;        /* mapped; NULL: not set */
    uint64_t nonce;           /* of the MARK that matches */
    uint64_t generation;
    bool dirty;
};

static bool is_tmpfs(const char *path)
{
    struct statfs stat;
    return statfs(path, &stat) == 0 && (uint64_t)stat.f_type == TMPFS_MAGIC;
}

/* Removes words of ours whose state is gone: of folders that were deleted after a kill. */
static void sweep_words(const char *dir)
{
    char prefix[64];
    DIR *stream = opendir(dir);
    struct dirent *entry;

    (void)snprintf(prefix, sizeof prefix, WORD_PREFIX, (unsigned)geteuid());
    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        struct word word = { .nonce = 0 };
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0) {
            continue;
        }
        int fd = openat(dirfd(stream), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        bool whole = fd >= 0 && read(fd, &word, sizeof word) == (ssize_t)sizeof word;
        if (fd >= 0) {
            (void)close(fd);
        }
        word.state_dir[sizeof word.state_dir - 1] = '\0';
        if (whole && word.state_dir[0] == '/' && access(word.state_dir, F_OK) < 0 &&
                errno == ENOENT) {
            (void)unlinkat(dirfd(stream), entry->d_name, 0);
        }
    }
    if (stream != NULL) {
        (void)closedir(stream);
    }
}

/* In a directory that is shared with strangers the state's own identity and the user make the name. */
static void choose_word_path(struct mark *mark, const struct mark_config *config)
{
    struct stat stat_;

    mark->word_path[0] = '\0';
    if (config->run_dir != NULL && is_tmpfs(config->run_dir)) {
        (void)snprintf(mark->word_path, sizeof mark->word_path, "%s/state.word", config->run_dir);
    } else if (config->shared_dir != NULL && is_tmpfs(config->shared_dir) &&
               stat(config->state_dir, &stat_) == 0) {
        sweep_words(config->shared_dir);
        (void)snprintf(mark->word_path, sizeof mark->word_path, "%s/" WORD_PREFIX "%llx-%llx.word",
                config->shared_dir, (unsigned)geteuid(), (unsigned long long)stat_.st_dev,
                (unsigned long long)stat_.st_ino);
    }
}

struct mark *mark_new(const struct mark_config *config)
{
    struct mark *mark = xcalloc(1, sizeof *mark);

    mark->state_dir = xstrdup(config->state_dir);
    (void)snprintf(mark->path, sizeof mark->path, "%s/MARK", config->state_dir);
    mark->sys_dir = xstrdup(config->sys_dir != NULL ? config->sys_dir : "/sys");
    (void)snprintf(mark->boot_id, sizeof mark->boot_id, "%s", config->boot_id);
    choose_word_path(mark, config);
    return mark;
}

static void unmap_word(struct mark *mark)
{
    if (mark->word != NULL) {
        (void)munmap(mark->word, sizeof *mark->word);
        mark->word = NULL;
    }
}

struct mark *mark_free(struct mark *mark)
{
    if (mark != NULL) {
        unmap_word(mark);
        free(mark->state_dir);
        free(mark->sys_dir);
        free(mark);
    }
    return NULL;
}

/* Maps the word, if it is a file of ours. */
static bool map_word(struct mark *mark, bool create)
{
    struct stat stat;

    if (mark->word != NULL) {
        return true;
    }
    if (mark->word_path[0] == '\0') {
        return false;
    }
    int fd = open(mark->word_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
    if (fd < 0) {
        return false;
    }
    bool usable = fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && stat.st_uid == geteuid() &&
                  (stat.st_size == (off_t)sizeof(struct word) ||
                          (create && ftruncate(fd, sizeof(struct word)) == 0));
    if (usable) {
        void *at = mmap(NULL, sizeof(struct word), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        mark->word = at == MAP_FAILED ? NULL : at;
    }
    (void)close(fd);
    return mark->word != NULL;
}

static bool read_text(const struct mark *mark, struct mark_text *ret_text)
{
    unsigned version;
    struct mark_text text = { 0 };

    FILE *file = fopen(mark->path, "re");
    if (file == NULL) {
        return false;
    }
    /* NOLINTNEXTLINE(cert-err34-c): our own words; a number too large matches nothing it is compared with. */
    int fields = fscanf(file,
            "quorate-mark %u clean %u generation %" SCNx64 " boot %39s device %" SCNu64
            " inode %" SCNu64 " mount %" SCNu64 " nonce %" SCNx64 " end",
            &version, &text.clean, &text.generation, text.boot_id, &text.file.device,
            &text.file.inode, &text.file.mount_id, &text.nonce);
    (void)fclose(file);
    *ret_text = text;
    return fields == 8 && version == 1;
}

static int write_text(struct mark *mark, const struct mark_text *text, struct err *err)
{
    char content[512];

    int bytes = snprintf(content, sizeof content,
            "quorate-mark 1\nclean %u\ngeneration %016" PRIx64 "\nboot %s\ndevice %" PRIu64
            "\ninode %" PRIu64 "\nmount %" PRIu64 "\nnonce %016" PRIx64 "\nend\n",
            text->clean, text->generation, text->boot_id[0] != '\0' ? text->boot_id : "-",
            text->file.device, text->file.inode, text->file.mount_id, text->nonce);
    INVARIANT(bytes > 0 && (size_t)bytes < sizeof content);
    return files_replace(mark->state_dir, "MARK", span_of(content, (size_t)bytes), err);
}

/* Why what MARK says does not fit what is there; NULL: it fits. */
static const char *mismatch(struct mark *mark, const struct mark_text *said, const char *data_path)
{
    struct mounted found = { 0 };

    if (mark->boot_id[0] == '\0' || strcmp(said->boot_id, mark->boot_id) != 0) {
        return "the host was started anew";
    }
    if (mounted_look(data_path, mark->sys_dir, &found) < 0) {
        return "the state's file is missing";
    }
    if (said->file.device != found.device || said->file.inode != found.inode) {
        return "the state's file is another one";
    }
    if (found.mount_id == 0) {
        return "this host does not tell one mount from the next";
    }
    if (said->file.mount_id != found.mount_id) {
        return "its file system was mounted anew";
    }
    if (!map_word(mark, false)) {
        return "the word in memory is gone";
    }
    if (mark->word->nonce != said->nonce || mark->word->generation != said->generation) {
        return "the word in memory is of another life";
    }
    return NULL;
}

enum mark_verdict mark_judge(struct mark *mark, uint64_t generation, const char *data_path,
        uint64_t *ret_txn_id, const char **ret_reason)
{
    struct mark_text text;

    if (!read_text(mark, &text)) {
        *ret_reason = "there is no readable MARK";
        return MARK_DISTRUSTED;
    }
    if (text.generation != generation) {
        *ret_reason = "MARK is of another generation";
        return MARK_DISTRUSTED;
    }
    if (text.clean == 1) {
        *ret_reason = "it was closed cleanly";
        return MARK_CLEAN;
    }
    const char *reason = mismatch(mark, &text, data_path);
    if (reason != NULL) {
        *ret_reason = reason;
        return MARK_DISTRUSTED;
    }
    mark->nonce = text.nonce;
    mark->generation = generation;
    mark->dirty = true;
    *ret_txn_id = mark->word->txn_id;
    *ret_reason = "its last transaction is not the one that was committed";
    return MARK_MATCHES;
}

int mark_set_dirty(struct mark *mark, uint64_t generation, const char *data_path, uint64_t txn_id,
        bool has_word, struct err *err)
{
    struct mark_text text = { .clean = 0, .generation = generation };

    if (mark->dirty && mark->generation == generation) {
        return 0;
    }
    int result = mounted_look(data_path, mark->sys_dir, &text.file);
    if (result < 0) {
        return err_set(err, result, "stat %s: %s", data_path, strerror(-result));
    }
    randombytes_buf(&text.nonce, sizeof text.nonce);
    memcpy(text.boot_id, mark->boot_id, sizeof text.boot_id);
    if (has_word && map_word(mark, true)) {
        *mark->word = (struct word){ text.nonce, generation, txn_id, "" };
        (void)snprintf(mark->word->state_dir, sizeof mark->word->state_dir, "%s", mark->state_dir);
    }
    TRY(write_text(mark, &text, err));
    mark->nonce = text.nonce;
    mark->generation = generation;
    mark->dirty = true;
    return 0;
}

void mark_set_txn_id(struct mark *mark, uint64_t txn_id)
{
    if (mark->word != NULL) {
        __atomic_store_n(&mark->word->txn_id, txn_id, __ATOMIC_RELEASE);
    }
}

int mark_set_clean(struct mark *mark, uint64_t generation, const char *data_path, struct err *err)
{
    struct mark_text text = { .clean = 1, .generation = generation };

    (void)mounted_look(data_path, mark->sys_dir, &text.file);
    memcpy(text.boot_id, mark->boot_id, sizeof text.boot_id);
    TRY(write_text(mark, &text, err));
    mark_drop_word(mark); /* beside a clean mark it means nothing */
    return 0;
}

const char *mark_path(const struct mark *mark)
{
    return mark->path;
}

void mark_drop_word(struct mark *mark)
{
    if (mark->word_path[0] != '\0') {
        (void)unlink(mark->word_path);
    }
    unmap_word(mark);
    mark->dirty = false;
}

void mark_distrust(struct mark *mark)
{
    /* First, or a kill in between would leave one that calls the state clean. */
    (void)unlink(mark->path);
    mark_drop_word(mark);
}
