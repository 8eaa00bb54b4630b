#include "tests/unit/wal/wal_damage.h"

#include <fcntl.h>
#include <unistd.h>

int damage_setup(void **state)
{
    struct damage *damage = xcalloc(1, sizeof(*damage));
    void *fixture = NULL;
    if (fixture_setup(&fixture) != 0) {
        return -1;
    }
    damage->fixture = fixture;
    damage->model = model_new();
    damage->config = (struct wal_config){ .dir = damage->fixture->dir,
        .segment_bytes = DAMAGE_SEGMENT_BYTES };
    (void)snprintf(damage->copy, sizeof(damage->copy), "%.240s/copy", damage->fixture->root);
    damage->copy_config = damage->config;
    damage->copy_config.dir = damage->copy;
    *state = damage;
    return 0;
}

static void forget_log(struct damage *damage)
{
    damage->wal = wal_close(damage->wal);
    if (damage->script != NULL) {
        damage->script = script_free(damage->script);
    }
    free(damage->before);
    free(damage->after);
    damage->before = damage->after = NULL;
}

int damage_teardown(void **state)
{
    struct damage *damage = *state;
    void *fixture = damage->fixture;
    forget_log(damage);
    free(damage->model);
    free(damage);
    return fixture_teardown(&fixture);
}

void damage_create(struct damage *damage)
{
    forget_log(damage);
    fixture_remove(damage->config.dir);
    damage->script = script_new(DAMAGE_SEED);
    damage->script->is_plain = true;
    assert_int_equal(
            wal_create(&damage->config, &fixture_base, &fixture_hard, &damage->wal, NULL), 0);
}

void damage_append(struct damage *damage, const struct wal_write *write, bool is_to_sync)
{
    assert_int_equal(wal_append(damage->wal, write, 1, NULL), 0);
    if (is_to_sync) {
        assert_int_equal(wal_sync(damage->wal, NULL), 0);
    }
}

void damage_write(struct damage *damage, unsigned synced)
{
    struct model *before = model_new();
    struct wal_write write;

    damage_create(damage);
    for (unsigned i = 0;; i++) {
        memcpy(before, damage->script->model, sizeof(*before));
        damage->start = damage->wal->end;
        write = script_next(damage->script);
        if (i >= synced && write.entry_count >= 2) { /* worth tearing */
            break;
        }
        damage_append(damage, &write, true);
    }
    damage_append(damage, &write, false);
    damage->end = damage->wal->end;
    damage->before = before;
    damage->after = MOVE(damage->script->model);
    damage->segment = wal_last_segment(damage->wal).name;
    assert_true(damage->start < damage->end);
}

void damage_close(struct damage *damage)
{
    damage->wal = wal_close(damage->wal);
}

void damage_copy(struct damage *damage, const struct names_segment *segment)
{
    char name[NAMES_SEGMENT_BYTES];
    fixture_copy_dir(damage->config.dir, damage->copy);
    names_format(segment, name);
    (void)snprintf(damage->file, sizeof(damage->file), "%s/%s", damage->copy, name);
}

void damage_put(const struct damage *damage, uint64_t offset, const void *data, size_t bytes)
{
    int fd = open(damage->file, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, bytes, (off_t)offset), bytes);
    (void)close(fd);
}

void damage_flip_bit(const struct damage *damage, uint64_t offset, unsigned bit)
{
    int fd = open(damage->file, O_RDWR);
    uint8_t byte;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= (uint8_t)(1u << bit);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    (void)close(fd);
}

void damage_tear(const struct damage *damage, enum tear how, uint64_t offset, uint64_t end)
{
    static uint8_t bytes[DAMAGE_SEGMENT_BYTES];
    size_t left = (size_t)(end - offset);
    switch (how) {
    case TEAR_CUT:
        assert_int_equal(truncate(damage->file, (off_t)offset), 0);
        break;
    case TEAR_ZEROS:
        memset(bytes, 0, left);
        damage_put(damage, offset, bytes, left);
        break;
    case TEAR_GARBAGE:
        memset(bytes, 0xa5, left);
        damage_put(damage, offset, bytes, left);
        break;
    case TEAR_HOLE:
        memset(bytes, 0xff, 8);
        damage_put(damage, offset, bytes, MIN(left, (size_t)8));
        break;
    case TEAR_COUNT:
        break;
    }
}

static int recover(
        struct damage *damage, const struct wal_io *io, bool is_to_append, struct wal **ret_wal)
{
    struct wal_config config = damage->copy_config;
    config.io = io;
    memset(damage->model, 0, sizeof(*damage->model));
    damage->err = (struct err){ .code = 0 };
    return fixture_recover(&config, is_to_append, damage->model, ret_wal, &damage->err);
}

int damage_recover(struct damage *damage)
{
    return recover(damage, NULL, false, NULL);
}

int damage_restart(struct damage *damage, const struct wal_io *io, struct wal **ret_wal)
{
    return recover(damage, io, true, ret_wal);
}
