/* Power cuts, simulated: each write that was not synced may be lost, sector by sector, and each rename that was not
 * followed by a sync of the folder may be undone. What was synced before is there, whatever the seed. */
#include "tests/unit/wal/wal_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SEGMENT_BYTES = 16 << 10,
    SECTOR_BYTES = 512,
    CUTS = 400,
    WRITES_PER_LIFE = 60
};

/* ---- A disk with a cache -------------------------------------------------------------------------------------- */

struct change {
    ino_t inode;
    off_t offset;
    size_t bytes;
    uint8_t *before; /* of a write; NULL: a rename */
    char from[64];
    char to[64];
    bool had_target; /* the file that was replaced is kept under "<to>.kept" */
};

struct disk {
    struct wal_io io;
    int dir_fd;
    struct change *changes;
    size_t change_count;
    uint64_t random;
    unsigned calls_left; /* until the power goes */
    bool is_off;
    bool is_full; /* no new file finds space */
};

static uint64_t draw(struct disk *disk, uint64_t below)
{
    disk->random ^= disk->random << 13;
    disk->random ^= disk->random >> 7;
    disk->random ^= disk->random << 17;
    return (disk->random >> 11) % below;
}

static bool is_gone(struct disk *disk)
{
    disk->is_off |= disk->calls_left == 0;
    disk->calls_left -= disk->is_off ? 0 : 1;
    errno = EIO;
    return disk->is_off;
}

static struct change *add_change(struct disk *disk)
{
    disk->changes = xrealloc(disk->changes, (disk->change_count + 1) * sizeof(struct change));
    struct change *change = &disk->changes[disk->change_count++];
    *change = (struct change){ .before = NULL };
    return change;
}

static ino_t inode_of(int fd)
{
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    return status.st_ino;
}

static int disk_create(void *user, int dir_fd, const char *name)
{
    struct disk *disk = user;
    return is_gone(disk) ? -1 : wal_io_system.create(NULL, dir_fd, name);
}

static ssize_t disk_pwritev(
        void *user, int fd, const struct iovec *parts, int part_count, off_t offset)
{
    struct disk *disk = user;
    /* The last call before the power goes is still made: it is in the cache. */
    if (is_gone(disk)) {
        return -1;
    }
    size_t bytes = 0;
    for (int i = 0; i < part_count; i++) {
        bytes += parts[i].iov_len;
    }
    struct change *change = add_change(disk);
    change->inode = inode_of(fd);
    change->offset = offset;
    change->bytes = bytes;
    change->before = xcalloc(1, bytes);
    assert_true(pread(fd, change->before, bytes, offset) >= 0);
    return wal_io_system.pwritev(NULL, fd, parts, part_count, offset);
}

static int disk_allocate(void *user, int fd, off_t bytes)
{
    struct disk *disk = user;
    if (is_gone(disk)) {
        return -1;
    }
    errno = ENOSPC;
    return disk->is_full ? -1 : wal_io_system.allocate(NULL, fd, bytes);
}

/* A synced file's writes are safe; a synced folder's renames. */
static int disk_sync(void *user, int fd)
{
    struct disk *disk = user;
    if (is_gone(disk)) {
        return -1;
    }
    ino_t inode = inode_of(fd);
    bool is_dir = inode == inode_of(disk->dir_fd);
    size_t kept = 0;
    for (size_t i = 0; i < disk->change_count; i++) {
        struct change *change = &disk->changes[i];
        bool is_safe = change->before == NULL ? is_dir : change->inode == inode;
        if (is_safe) {
            free(change->before);
        } else {
            disk->changes[kept++] = *change;
        }
    }
    disk->change_count = kept;
    return 0;
}

static void name_kept(const struct change *change, char *ret_name, size_t bytes)
{
    (void)snprintf(ret_name, bytes, "%s.kept", change->to);
}

static int disk_rename(void *user, int dir_fd, const char *from, const char *to)
{
    struct disk *disk = user;
    if (is_gone(disk)) {
        return -1;
    }
    struct change *change = add_change(disk);
    char kept[80];
    (void)snprintf(change->from, sizeof(change->from), "%s", from);
    (void)snprintf(change->to, sizeof(change->to), "%s", to);
    name_kept(change, kept, sizeof(kept));
    (void)unlinkat(dir_fd, kept, 0);
    change->had_target = linkat(dir_fd, to, dir_fd, kept, 0) == 0;
    return wal_io_system.rename(NULL, dir_fd, from, to);
}

static int disk_unlink(void *user, int dir_fd, const char *name)
{
    return is_gone(user) ? -1 : wal_io_system.unlink(NULL, dir_fd, name);
}

static void disk_init(struct disk *disk, const char *dir, uint64_t seed, unsigned calls)
{
    *disk = (struct disk){
        .io = wal_io_system,
        .dir_fd = open(dir, O_RDONLY | O_DIRECTORY),
        .random = seed * 0x9e3779b97f4a7c15 | 1,
        .calls_left = calls,
    };
    disk->io.user = disk;
    disk->io.create = disk_create;
    disk->io.pwritev = disk_pwritev;
    disk->io.allocate = disk_allocate;
    disk->io.sync_data = disk_sync;
    disk->io.sync_file = disk_sync;
    disk->io.rename = disk_rename;
    disk->io.unlink = disk_unlink;
    assert_true(disk->dir_fd >= 0);
}

/* Each sector of a lost write comes back as it was. */
static void lose_write(struct disk *disk, const struct change *change, int fd, unsigned odds)
{
    for (size_t at = 0; at < change->bytes;) {
        size_t to_boundary = SECTOR_BYTES - (size_t)(change->offset + (off_t)at) % SECTOR_BYTES;
        size_t bytes = MIN(to_boundary, change->bytes - at);
        if (draw(disk, 100) < odds) {
            assert_int_equal(
                    pwrite(fd, change->before + at, bytes, change->offset + (off_t)at), bytes);
        }
        at += bytes;
    }
}

static int open_by_inode(const struct disk *disk, ino_t inode)
{
    struct names_segment *segments = NULL;
    size_t segment_count = 0;
    int found = -1;
    char name[NAMES_SEGMENT_BYTES];
    assert_int_equal(names_list(&wal_io_system, disk->dir_fd, &segments, &segment_count, NULL), 0);
    for (size_t i = 0; found < 0 && i < segment_count; i++) {
        names_format(&segments[i], name);
        int fd = openat(disk->dir_fd, name, O_RDWR);
        assert_true(fd >= 0);
        if (inode_of(fd) == inode) {
            found = fd;
        } else {
            (void)close(fd);
        }
    }
    free(segments);
    return found; /* -1: a file that never got its name */
}

/* The power is back: latest changes first, some of them are undone. */
static void disk_cut_power(struct disk *disk)
{
    unsigned odds = (unsigned)draw(disk, 3) * 50; /* all kept, half of it, all lost */
    for (size_t i = disk->change_count; i > 0; i--) {
        struct change *change = &disk->changes[i - 1];
        char kept[80];
        name_kept(change, kept, sizeof(kept));
        if (change->before != NULL) {
            int fd = open_by_inode(disk, change->inode);
            if (fd >= 0) {
                lose_write(disk, change, fd, odds);
                (void)close(fd);
            }
            free(change->before);
        } else if (draw(disk, 2) == 0) {
            assert_int_equal(renameat(disk->dir_fd, change->to, disk->dir_fd, change->from), 0);
            if (change->had_target) {
                assert_int_equal(renameat(disk->dir_fd, kept, disk->dir_fd, change->to), 0);
            }
        }
    }
    free(disk->changes);
    (void)close(disk->dir_fd);
}

/* ---- Lives ---------------------------------------------------------------------------------------------------- */

/* What must have survived: the script's models after each write that may be the last one. */
struct ledger {
    struct script *script;
    struct model *models[WRITES_PER_LIFE + 1]; /* [0]: what is certain */
    unsigned count;                            /* of writes that may have survived */
};

static struct model *copy_model(const struct model *model)
{
    struct model *copy = model_new();
    memcpy(copy, model, sizeof(*copy));
    return copy;
}

static void ledger_settle(struct ledger *ledger, unsigned survivor)
{
    struct model *kept = MOVE(ledger->models[survivor]);
    for (unsigned i = 0; i <= ledger->count; i++) {
        free(ledger->models[i]);
        ledger->models[i] = NULL;
    }
    ledger->models[0] = kept;
    ledger->count = 0;
}

static void live(struct ledger *ledger, struct wal *wal, struct disk *disk)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < WRITES_PER_LIFE; i++) {
        struct wal_write write = script_next(ledger->script);
        r = wal_append(wal, &write, 1, NULL);
        ledger->models[++ledger->count] = copy_model(ledger->script->model);
        if (r == 0 && draw(disk, 2) == 0) {
            r = wal_sync(wal, NULL);
            if (r == 0) {
                ledger_settle(ledger, ledger->count);
            }
        }
        if (r == 0 && draw(disk, 4) == 0) {
            if (wal_wants_prepare(wal)) {
                (void)wal_prepare_next(wal, NULL);
            }
            (void)wal_purge_before(wal, ledger->models[0]->base_index, NULL);
        }
    }
}

static void settle_on_what_came_back(
        struct ledger *ledger, const struct model *model, uint64_t seed)
{
    for (unsigned i = 0; i <= ledger->count; i++) {
        if (model_equal(model, ledger->models[i])) {
            ledger_settle(ledger, i);
            memcpy(ledger->script->model, ledger->models[0], sizeof(*model));
            return;
        }
    }
    fail_msg("seed %lu: what came back was never written, or a synced write is lost",
            (unsigned long)seed);
}

static void what_was_synced_survives_every_power_cut(void **state)
{
    const struct fixture *fixture = *state;
    struct wal_config config = {
        .dir = fixture->dir, .segment_bytes = SEGMENT_BYTES, .reserve_bytes = 2048
    };
    struct wal *wal = NULL;
    struct err err = { .code = 0 };
    struct ledger ledger = { .script = script_new(1) };
    unsigned lives_begun = 0;
    ledger.models[0] = copy_model(ledger.script->model);
    assert_int_equal(wal_create(&config, &fixture_base, &fixture_hard, &wal, &err), 0);
    wal = wal_close(wal);

    for (uint64_t seed = 1; seed <= CUTS; seed++) {
        struct disk disk;
        disk_init(&disk, fixture->dir, seed, (unsigned)(seed * 7919 % 173));
        config.io = &disk.io;
        disk.is_full = draw(&disk, 4) == 0;
        struct model *model = model_new();
        int r = fixture_recover(&config, true, model, &wal, &err);
        if (r == 0) {
            settle_on_what_came_back(&ledger, model, seed);
            if (ledger.script->model->last_index > MODEL_ENTRIES_MAX - 4000) {
                fail_msg("the script is longer than its model");
            }
            live(&ledger, wal, &disk);
            wal = wal_close(wal);
            lives_begun++;
        } else if (!disk.is_off) {
            fail_msg("seed %lu: %s", (unsigned long)seed, err.text);
        }
        free(model);
        disk_cut_power(&disk);
    }
    assert_true(lives_begun > CUTS / 2);
    ledger_settle(&ledger, 0);
    free(ledger.models[0]);
    (void)script_free(ledger.script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
                what_was_synced_survives_every_power_cut, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
