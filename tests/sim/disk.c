/* disk.c: files, their unsynced changes, and what becomes of those. */
#include "tests/sim/disk.h"

#include <errno.h>

#include "common/buf.h"

enum {
    FD_FIRST = 1 << 24, /* others are the system's: the folder */
    SECTOR_BYTES = 512,
    BLOCK_BYTES = 4096,
};

/* ---- Files ---------------------------------------------------------------------------------------------------- */

static struct disk_file *file_ref(struct disk_file *file)
{
    file->users++;
    return file;
}

static void forget_changes(struct disk_file *file)
{
    for (size_t i = 0; i < file->change_count; i++) {
        free(file->changes[i].before);
    }
    file->change_count = 0;
}

static void file_unref(struct disk_file *file)
{
    if (file == NULL || --file->users > 0) {
        return;
    }
    forget_changes(file);
    free(file->changes);
    free(file->bytes);
    free(file);
}

static void file_grow(struct disk_file *file, size_t size)
{
    if (size > file->capacity) {
        file->capacity = MAX(size, file->capacity * 2);
        file->bytes = xrealloc(file->bytes, file->capacity);
    }
    if (size > file->size) {
        memset(file->bytes + file->size, 0, size - file->size);
        file->size = size;
    }
}

/* Before bytes of the file are changed. */
static void file_note(struct disk_file *file, uint64_t offset, size_t bytes)
{
    if (file->change_count == file->change_capacity) {
        file->change_capacity = file->change_capacity == 0 ? 8 : file->change_capacity * 2;
        file->changes = xrealloc(file->changes, file->change_capacity * sizeof *file->changes);
    }
    struct disk_change *change = &file->changes[file->change_count++];
    *change = (struct disk_change){ offset, bytes, xmalloc(bytes) };
    memcpy(change->before, file->bytes + offset, bytes);
}

static void undo_sector_wise(
        struct disk *disk, struct disk_file *file, const struct disk_change *change, unsigned odds)
{
    for (size_t at = 0; at < change->bytes;) {
        size_t left = SECTOR_BYTES - (size_t)(change->offset + at) % SECTOR_BYTES;
        size_t bytes = MIN(left, change->bytes - at);
        if (rng_chance(&disk->rng, odds)) {
            memcpy(file->bytes + change->offset + at, change->before + at, bytes);
        }
        at += bytes;
    }
}

/* What lies where `fresh` was written is on the medium now. */
static void mend(
        const struct disk_file *file, struct disk_change *doomed, const struct disk_change *fresh)
{
    uint64_t first = MAX(doomed->offset, fresh->offset);
    uint64_t end = MIN(doomed->offset + doomed->bytes, fresh->offset + fresh->bytes);
    if (first < end) {
        memcpy(doomed->before + (first - doomed->offset), file->bytes + first, end - first);
    }
}

static void file_sync(struct disk_file *file)
{
    for (size_t i = file->doomed_count; i < file->change_count; i++) {
        for (size_t j = 0; j < file->doomed_count; j++) {
            mend(file, &file->changes[j], &file->changes[i]);
        }
        free(file->changes[i].before);
    }
    file->change_count = file->doomed_count;
    file->size_synced = file->size;
}

/* All may be there, nothing, so many of the oldest writes and a part of the next one, or any of the sectors. */
static void file_cut_power(struct disk *disk, struct disk_file *file)
{
    enum {
        ALL,
        NOTHING,
        OLDEST,
        ANY,
        KINDS
    };
    uint64_t kind = rng_below(&disk->rng, KINDS);
    size_t kept = kind == ALL       ? file->change_count
                  : kind == NOTHING ? 0
                                    : (size_t)rng_below(&disk->rng, file->change_count + 1);
    unsigned odds = (unsigned)rng_below(&disk->rng, 1001);
    for (size_t i = file->change_count; i > 0; i--) {
        if (kind == ANY || (kind == OLDEST && i - 1 == kept)) {
            undo_sector_wise(disk, file, &file->changes[i - 1], odds);
        } else if (i > kept) {
            undo_sector_wise(disk, file, &file->changes[i - 1], 1000);
        }
    }
    if (file->size > file->size_synced && rng_chance(&disk->rng, 500)) {
        file->size = file->size_synced;
    }
    file->size_synced = file->size;
    file->doomed_count = 0;
    forget_changes(file);
}

/* ---- Names ---------------------------------------------------------------------------------------------------- */

static struct disk_name *find_name(struct disk *disk, const char *name)
{
    for (size_t i = 0; i < disk->name_count; i++) {
        if (disk->names[i].file != NULL && strcmp(disk->names[i].name, name) == 0) {
            return &disk->names[i];
        }
    }
    return NULL;
}

/* Takes a reference that the caller holds; NULL: the name goes. */
static void set_name(struct disk *disk, const char *name, struct disk_file *take_file)
{
    struct disk_name *found = find_name(disk, name);
    for (size_t i = 0; found == NULL && i < DISK_NAMES_MAX; i++) {
        found = disk->names[i].file == NULL ? &disk->names[i] : NULL;
    }
    INVARIANT(found != NULL);
    disk->name_count = MAX(disk->name_count, (size_t)(found - disk->names) + 1);
    file_unref(found->file);
    (void)snprintf(found->name, sizeof found->name, "%s", name);
    found->file = take_file;
}

static void note_renaming(struct disk *disk, const char *name, bool is_joined)
{
    const struct disk_name *before = find_name(disk, name);
    if (disk->renaming_count == disk->renaming_capacity) {
        disk->renaming_capacity = disk->renaming_capacity == 0 ? 8 : disk->renaming_capacity * 2;
        disk->renamings =
                xrealloc(disk->renamings, disk->renaming_capacity * sizeof *disk->renamings);
    }
    struct disk_renaming *renaming = &disk->renamings[disk->renaming_count++];
    *renaming = (struct disk_renaming){ .before = before == NULL ? NULL : file_ref(before->file),
        .is_joined = is_joined };
    (void)snprintf(renaming->name, sizeof renaming->name, "%s", name);
}

static void forget_renamings(struct disk *disk)
{
    for (size_t i = 0; i < disk->renaming_count; i++) {
        file_unref(disk->renamings[i].before);
    }
    disk->renaming_count = 0;
}

static void undo_renamings(struct disk *disk)
{
    size_t kept = (size_t)rng_below(&disk->rng, disk->renaming_count + 1);
    while (kept < disk->renaming_count && kept > 0 && disk->renamings[kept].is_joined) {
        kept--; /* both or none */
    }
    for (size_t i = disk->renaming_count; i > kept; i--) {
        struct disk_renaming *renaming = &disk->renamings[i - 1];
        set_name(disk, renaming->name, renaming->before); /* with its reference */
        renaming->before = NULL;
    }
    forget_renamings(disk);
}

/* ---- Calls ---------------------------------------------------------------------------------------------------- */

/* True if there is no power for the call. */
static bool is_gone(struct disk *disk)
{
    if (disk->is_armed && disk->calls_left-- == 0) {
        disk->is_armed = false;
        disk->is_off = disk->has_failed = true;
    }
    errno = EIO;
    return disk->is_off;
}

static bool is_full(struct disk *disk)
{
    if (disk->is_full) {
        errno = ENOSPC;
    }
    return disk->is_full;
}

static struct disk_file *file_of(struct disk *disk, int fd)
{
    INVARIANT_LE(FD_FIRST, fd);
    INVARIANT_LT(fd - FD_FIRST, DISK_FDS_MAX);
    struct disk_file *file = disk->fds[fd - FD_FIRST].file;
    INVARIANT(file != NULL);
    return file;
}

static int open_file(struct disk *disk, struct disk_file *file)
{
    for (int i = 0; i < DISK_FDS_MAX; i++) {
        if (disk->fds[i].file == NULL) {
            disk->fds[i] = (struct disk_fd){ file_ref(file), file->errors };
            return FD_FIRST + i;
        }
    }
    INVARIANT(false);
    return -1;
}

static int on_create(void *user, int dir_fd UNUSED, const char *name)
{
    struct disk *disk = user;
    if (is_gone(disk) || is_full(disk)) {
        return -1;
    }
    struct disk_file *file = xcalloc(1, sizeof *file);
    note_renaming(disk, name, false);
    set_name(disk, name, file_ref(file));
    return open_file(disk, file);
}

static int on_open(void *user, int dir_fd UNUSED, const char *name, bool is_to_write UNUSED)
{
    struct disk *disk = user;
    struct disk_name *found = find_name(disk, name);
    if (found == NULL) {
        errno = ENOENT;
        return -1;
    }
    return open_file(disk, found->file);
}

static void on_close(void *user, int fd)
{
    struct disk *disk = user;
    file_unref(file_of(disk, fd));
    disk->fds[fd - FD_FIRST].file = NULL;
}

static ssize_t on_pread(void *user, int fd, void *bytes, size_t count, off_t offset)
{
    const struct disk_file *file = file_of(user, fd);
    if ((size_t)offset >= file->size) {
        return 0;
    }
    count = MIN(count, file->size - (size_t)offset);
    memcpy(bytes, file->bytes + offset, count);
    return (ssize_t)count;
}

static ssize_t on_pwritev(
        void *user, int fd, const struct iovec *parts, int part_count, off_t offset)
{
    struct disk *disk = user;
    struct disk_file *file = file_of(disk, fd);
    if (is_gone(disk)) {
        return -1;
    }
    size_t bytes = 0;
    for (int i = 0; i < part_count; i++) {
        bytes += parts[i].iov_len;
    }
    if ((size_t)offset + bytes > file->size && is_full(disk)) {
        return -1;
    }
    file_grow(file, (size_t)offset + bytes);
    file_note(file, (uint64_t)offset, bytes);
    uint8_t *at = file->bytes + offset;
    for (int i = 0; i < part_count; i++) {
        if (parts[i].iov_len > 0) {
            memcpy(at, parts[i].iov_base, parts[i].iov_len);
            at += parts[i].iov_len;
        }
    }
    return (ssize_t)bytes;
}

static int on_allocate(void *user, int fd, off_t bytes)
{
    struct disk *disk = user;
    if (is_gone(disk) || is_full(disk)) {
        return -1;
    }
    file_grow(file_of(disk, fd), (size_t)bytes);
    return 0;
}

static bool sync_strikes(struct disk *disk)
{
    if (disk->sync_fails == 0 || --disk->sync_fails > 0) {
        return false;
    }
    disk->has_failed = true;
    errno = EIO;
    return true;
}

static int on_sync(void *user, int fd)
{
    struct disk *disk = user;
    if (is_gone(disk)) {
        return -1;
    }
    if (fd < FD_FIRST) {
        forget_renamings(disk); /* the folder, or the one it is in */
        return 0;
    }
    struct disk_file *file = file_of(disk, fd);
    if (sync_strikes(disk)) {
        file->doomed_count = file->change_count;
        file->errors++;
    }
    unsigned *told = &disk->fds[fd - FD_FIRST].errors_told;
    if (*told != file->errors) {
        *told = file->errors;
        errno = EIO;
        return -1;
    }
    file_sync(file);
    return 0;
}

static int on_rename(void *user, int dir_fd UNUSED, const char *from, const char *to)
{
    struct disk *disk = user;
    if (is_gone(disk)) {
        return -1;
    }
    struct disk_name *found = find_name(disk, from);
    if (found == NULL) {
        errno = ENOENT;
        return -1;
    }
    struct disk_file *file = file_ref(found->file);
    note_renaming(disk, from, false);
    note_renaming(disk, to, true);
    set_name(disk, from, NULL);
    set_name(disk, to, file);
    return 0;
}

static int on_unlink(void *user, int dir_fd UNUSED, const char *name)
{
    struct disk *disk = user;
    if (is_gone(disk)) {
        return -1;
    }
    if (find_name(disk, name) == NULL) {
        errno = ENOENT;
        return -1;
    }
    note_renaming(disk, name, false);
    set_name(disk, name, NULL);
    return 0;
}

static off_t on_size(void *user, int fd)
{
    return (off_t)file_of(user, fd)->size;
}

/* Blocks of zeros are holes: as little is known of where a file was written as any file system has to tell. */
static off_t on_seek_data(void *user, int fd, off_t offset)
{
    static const uint8_t zeros[BLOCK_BYTES];
    const struct disk_file *file = file_of(user, fd);
    size_t at = (size_t)offset;
    while (at < file->size) {
        size_t bytes = MIN(BLOCK_BYTES - at % BLOCK_BYTES, file->size - at);
        if (memcmp(file->bytes + at, zeros, bytes) != 0) {
            return (off_t)at;
        }
        at += bytes;
    }
    errno = ENXIO;
    return -1;
}

static int on_list(
        void *user, int dir_fd UNUSED, void (*fn)(void *fn_user, const char *name), void *fn_user)
{
    const struct disk *disk = user;
    for (size_t i = 0; i < disk->name_count; i++) {
        if (disk->names[i].file != NULL) {
            fn(fn_user, disk->names[i].name);
        }
    }
    return 0;
}

/* ---- Life ----------------------------------------------------------------------------------------------------- */

void disk_init(struct disk *disk, uint64_t seed)
{
    *disk = (struct disk){
        .io = {
            .user = disk,
            .create = on_create,
            .pwritev = on_pwritev,
            .allocate = on_allocate,
            .sync_data = on_sync,
            .sync_file = on_sync,
            .rename = on_rename,
            .unlink = on_unlink,
            .open = on_open,
            .close = on_close,
            .pread = on_pread,
            .size = on_size,
            .seek_data = on_seek_data,
            .list = on_list,
        },
        .rng = { seed },
    };
}

void disk_fini(struct disk *disk)
{
    forget_renamings(disk);
    free(disk->renamings);
    disk->renamings = NULL;
    for (size_t i = 0; i < disk->name_count; i++) {
        file_unref(disk->names[i].file);
        disk->names[i].file = NULL;
    }
}

void disk_arm(struct disk *disk, unsigned calls)
{
    disk->is_armed = true;
    disk->calls_left = calls;
}

void disk_fail_sync(struct disk *disk, unsigned syncs)
{
    disk->sync_fails = syncs;
}

void disk_cut_power(struct disk *disk)
{
    for (size_t i = 0; i < DISK_FDS_MAX; i++) {
        INVARIANT(disk->fds[i].file == NULL);
    }
    undo_renamings(disk);
    for (size_t i = 0; i < disk->name_count; i++) {
        if (disk->names[i].file != NULL) {
            file_cut_power(disk, disk->names[i].file);
        }
    }
}

void disk_spare(struct disk *disk)
{
    disk->is_armed = false;
    disk->sync_fails = 0;
}

void disk_restart(struct disk *disk)
{
    disk_spare(disk);
    disk->is_off = disk->has_failed = false;
}
