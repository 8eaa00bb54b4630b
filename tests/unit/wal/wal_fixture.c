#define _XOPEN_SOURCE 700
#include "tests/unit/wal/wal_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

const struct wal_base fixture_base = {
    .index = 0,
    .cluster_id = 0xc1,
    .member_id = 0x3e,
    .configuration = { (const uint8_t *)"voters", 6 },
};
const struct wal_hard_state fixture_hard = { .term = 1 };

/* ---- A folder ------------------------------------------------------------------------------------------------- */

static int remove_one(
        const char *path, const struct stat *status UNUSED, int flag UNUSED, struct FTW *ftw UNUSED)
{
    return remove(path);
}

void fixture_remove(const char *dir)
{
    (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int fixture_setup(void **state)
{
    struct fixture *fixture = xcalloc(1, sizeof(*fixture));
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(fixture->root, sizeof(fixture->root), "%s/quorate-wal-XXXXXX",
            tmp == NULL ? "/tmp" : tmp);
    if (mkdtemp(fixture->root) == NULL) {
        return -1;
    }
    (void)snprintf(fixture->dir, sizeof(fixture->dir), "%s/wal", fixture->root);
    *state = fixture;
    return 0;
}

int fixture_teardown(void **state)
{
    struct fixture *fixture = *state;
    fixture_remove(fixture->root);
    free(fixture);
    return 0;
}

static void copy_file(int from_dir, int to_dir, const char *name)
{
    int from = openat(from_dir, name, O_RDONLY);
    int to = openat(to_dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    struct stat status;
    assert_true(from >= 0 && to >= 0);
    assert_int_equal(fstat(from, &status), 0);
    uint8_t *bytes = xmalloc((size_t)status.st_size);
    assert_int_equal(read(from, bytes, (size_t)status.st_size), status.st_size);
    assert_int_equal(write(to, bytes, (size_t)status.st_size), status.st_size);
    free(bytes);
    (void)close(from);
    (void)close(to);
}

void fixture_copy_dir(const char *from, const char *to)
{
    fixture_remove(to);
    assert_int_equal(mkdir(to, 0700), 0);
    int from_dir = open(from, O_RDONLY | O_DIRECTORY);
    int to_dir = open(to, O_RDONLY | O_DIRECTORY);
    assert_true(from_dir >= 0 && to_dir >= 0);
    DIR *dir = fdopendir(from_dir);
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            copy_file(from_dir, to_dir, entry->d_name);
        }
    }
    (void)closedir(dir);
    (void)close(to_dir);
}

/* ---- What a log amounts to ------------------------------------------------------------------------------------ */

struct model *model_new(void)
{
    return xcalloc(1, sizeof(struct model));
}

void model_apply(struct model *model, const struct wal_record *record)
{
    switch (record->kind) {
    case WAL_RECORD_BASE:
        model->base_index = record->base.index;
        model->base_term = record->base.term;
        if (record->base.reset || model->last_index < record->base.index) {
            model->last_index = record->base.index;
        }
        break;
    case WAL_RECORD_HARD_STATE:
        model->hard = record->hard;
        break;
    case WAL_RECORD_CUT:
        model->last_index = MIN(model->last_index, record->cut_index);
        break;
    case WAL_RECORD_ENTRY:
        assert_true(entry_is_right(&record->entry));
        assert_true(record->entry.index < MODEL_ENTRIES_MAX);
        model->last_index = record->entry.index;
        model->terms[record->entry.index] = record->entry.term;
        break;
    case WAL_RECORD_SNAPSHOT:
        model->snapshot = record->snapshot;
        break;
    }
}

bool model_equal(const struct model *a, const struct model *b)
{
    bool is_head_equal = a->last_index == b->last_index && a->base_index == b->base_index &&
                         a->base_term == b->base_term && a->hard.term == b->hard.term &&
                         a->hard.vote == b->hard.vote && a->hard.commit == b->hard.commit &&
                         a->snapshot.index == b->snapshot.index &&
                         a->snapshot.term == b->snapshot.term;
    for (uint64_t i = a->base_index + 1; is_head_equal && i <= a->last_index; i++) {
        is_head_equal = a->terms[i] != 0 && a->terms[i] == b->terms[i];
    }
    return is_head_equal;
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9;
    return x ^ x >> 32;
}

uint32_t entry_data(uint64_t index, uint64_t term, uint8_t *ret_data)
{
    uint64_t random = mix(index * 1000003 + term);
    uint32_t bytes =
            (uint32_t)(random % 100 == 0 ? SCRIPT_DATA_BYTES_MAX - random % 7 : random % 300);
    for (uint32_t i = 0; i < bytes; i++) {
        ret_data[i] = (uint8_t)(random >> (i % 8 * 8)) ^ (uint8_t)i;
    }
    return bytes;
}

bool entry_is_right(const struct wal_entry *entry)
{
    uint8_t data[SCRIPT_DATA_BYTES_MAX];
    uint32_t bytes = entry_data(entry->index, entry->term, data);
    return span_eq(entry->data, span_of(data, bytes)) && entry->time_ns == entry->index * 10 &&
           entry->kind == (uint8_t)(entry->index % 200);
}

/* ---- A script ------------------------------------------------------------------------------------------------- */

struct script *script_new(uint64_t seed)
{
    struct script *script = xcalloc(1, sizeof(*script));
    script->random = mix(seed + 1) | 1;
    script->model = model_new();
    script->model->hard = fixture_hard;
    script->model->base_index = script->model->last_index = fixture_base.index;
    return script;
}

struct script *script_free(struct script *script)
{
    free(script->model);
    free(script);
    return NULL;
}

static uint64_t draw(struct script *script, uint64_t below)
{
    script->random ^= script->random << 13;
    script->random ^= script->random >> 7;
    script->random ^= script->random << 17;
    return script->random % below;
}

static void add_base(struct script *script, struct wal_write *write)
{
    struct model *model = script->model;
    uint64_t kind = draw(script, 100);
    if (kind < 2) {
        script->base = fixture_base;
        script->base.reset = true;
        script->base.index = model->last_index + 1 + draw(script, 50);
    } else if (kind < 8) {
        script->base = fixture_base;
        script->base.index = MAX(model->base_index, MIN(model->hard.commit, model->last_index));
        script->snapshot = (struct wal_snapshot){
            .index = script->base.index, .term = model->hard.term, .is_base = draw(script, 2) == 0
        };
        if (script->snapshot.is_base) {
            script->snapshot.cluster_time_ns = script->base.index * 10;
            script->snapshot.configuration = fixture_base.configuration;
        }
        write->snapshot = &script->snapshot;
    } else {
        return;
    }
    script->base.term = model->hard.term;
    write->base = &script->base;
    model_apply(model, &(struct wal_record){ .kind = WAL_RECORD_BASE, .base = script->base });
}

static void add_hard_and_cut(struct script *script, struct wal_write *write)
{
    struct model *model = script->model;
    if (draw(script, 3) == 0) {
        script->hard = model->hard;
        script->hard.term += draw(script, 3) == 0;
        uint64_t vote = draw(script, 4);
        bool is_free = script->hard.term > model->hard.term || script->hard.vote == 0;
        script->hard.vote = is_free ? vote : script->hard.vote;
        script->hard.commit = MAX(
                model->hard.commit, model->last_index - MIN(model->last_index, draw(script, 8)));
        model->hard = script->hard;
        write->hard = &script->hard;
    }
    uint64_t floor = MAX(model->base_index, model->hard.commit);
    if (!script->is_plain && draw(script, 12) == 0 && model->last_index > floor) {
        write->has_cut = true;
        write->cut_index = model->last_index - draw(script, model->last_index - floor + 1);
        model->last_index = write->cut_index;
        if (draw(script, 2) == 0) {
            script->hard = model->hard;
            script->hard.term++;
            model->hard = script->hard;
            write->hard = &script->hard;
        }
    }
}

static void add_entries(struct script *script, struct wal_write *write)
{
    struct model *model = script->model;
    write->entry_count = draw(script, SCRIPT_ENTRIES_MAX + 1);
    write->entries = script->entries;
    for (size_t i = 0; i < write->entry_count; i++) {
        struct wal_entry *entry = &script->entries[i];
        *entry = (struct wal_entry){
            .index = model->last_index + 1,
            .term = model->hard.term,
            .time_ns = (model->last_index + 1) * 10,
            .kind = (uint8_t)((model->last_index + 1) % 200),
        };
        uint32_t bytes = entry_data(entry->index, entry->term, script->data[i]);
        entry->data = span_of(script->data[i], bytes);
        model_apply(model, &(struct wal_record){ .kind = WAL_RECORD_ENTRY, .entry = *entry });
    }
}

struct wal_write script_next(struct script *script)
{
    struct wal_write write = { .base = NULL };
    if (!script->is_plain) {
        add_base(script, &write);
    }
    add_hard_and_cut(script, &write);
    add_entries(script, &write);
    if (write.snapshot != NULL) {
        script->model->snapshot = script->snapshot;
    }
    return write;
}

struct model *script_model_after(uint64_t seed, bool is_plain, unsigned write_count)
{
    struct script *script = script_new(seed);
    script->is_plain = is_plain;
    for (unsigned i = 0; i < write_count; i++) {
        (void)script_next(script);
    }
    struct model *model = MOVE(script->model);
    (void)script_free(script);
    return model;
}

/* ---- Whole logs ----------------------------------------------------------------------------------------------- */

int fixture_recover(const struct wal_config *config, bool is_to_append, struct model *model,
        struct wal **ret_wal, struct err *err)
{
    struct wal *wal = NULL;
    TRY(wal_open(config, &wal, err));
    struct wal_record record;
    int r;
    while ((r = wal_read(wal, &record, err)) > 0) {
        model_apply(model, &record);
    }
    if (r == 0 && is_to_append) {
        r = wal_start_append(wal, err);
    }
    if (r == 0 && ret_wal != NULL) {
        *ret_wal = wal;
    } else {
        (void)wal_close(wal);
    }
    return r;
}

static int check_entry(void *user, const struct wal_entry *entry)
{
    const struct model *model = user;
    assert_true(entry_is_right(entry));
    assert_int_equal(entry->term, model->terms[entry->index]);
    return 0;
}

int fixture_read_back(struct wal *wal, const struct model *model, struct err *err)
{
    struct model *mutable_model = xmalloc(sizeof(*model));
    memcpy(mutable_model, model, sizeof(*model));
    uint64_t from = model->base_index + 1;
    int r = 0;
    while (r >= 0 && from <= model->last_index) {
        r = wal_read_entries(wal, from, UINT64_MAX, 5000, check_entry, mutable_model, err);
        assert_true(r != 0);
        from += r > 0 ? (uint64_t)r : 0;
    }
    free(mutable_model);
    return r < 0 ? r : 0;
}

/* ---- A disk that fails ---------------------------------------------------------------------------------------- */

static bool strikes(struct fault *fault)
{
    fault->calls++;
    bool is_hit = fault->nth != 0 && (fault->calls == fault->nth ||
                                             (fault->is_dead_after && fault->calls > fault->nth));
    if (is_hit) {
        fault->has_fired = true;
        errno = fault->error;
    }
    return is_hit;
}

static bool is_full(bool condition)
{
    if (condition) {
        errno = ENOSPC;
    }
    return condition;
}

static int fault_create(void *user, int dir_fd, const char *name)
{
    struct fault *fault = user;
    return strikes(fault) || is_full(fault->is_disk_full)
                   ? -1
                   : wal_io_system.create(NULL, dir_fd, name);
}

static ssize_t fault_pwritev(
        void *user, int fd, const struct iovec *parts, int part_count, off_t offset)
{
    struct fault *fault = user;
    fault->write_count++;
    if (strikes(fault)) {
        if (fault->is_short && !(fault->calls > fault->nth)) {
            INVARIANT(pwrite(fd, parts[0].iov_base, parts[0].iov_len / 2, offset) >= 0);
            errno = fault->error;
        }
        return -1;
    }
    return is_full(fault->is_write_full)
                   ? -1
                   : wal_io_system.pwritev(NULL, fd, parts, part_count, offset);
}

static int fault_allocate(void *user, int fd, off_t bytes)
{
    struct fault *fault = user;
    bool is_too_large = fault->allocate_bytes_max > 0 && bytes > fault->allocate_bytes_max;
    return strikes(fault) || is_full(fault->is_disk_full || is_too_large)
                   ? -1
                   : wal_io_system.allocate(NULL, fd, bytes);
}

/* The tests are about what is called when, not about the medium: nothing is really synced. */
static int fault_sync_data(void *user, int fd UNUSED)
{
    struct fault *fault = user;
    fault->sync_count++;
    if (fault->fails_sync) {
        errno = fault->error;
        return -1;
    }
    return strikes(fault) ? -1 : 0;
}

static int fault_sync_file(void *user, int fd UNUSED)
{
    return strikes(user) ? -1 : 0;
}

static int fault_rename(void *user, int dir_fd, const char *from, const char *to)
{
    return strikes(user) ? -1 : wal_io_system.rename(NULL, dir_fd, from, to);
}

static int fault_unlink(void *user, int dir_fd, const char *name)
{
    return strikes(user) ? -1 : wal_io_system.unlink(NULL, dir_fd, name);
}

void fault_init(struct fault *fault)
{
    *fault = (struct fault){
        .io = wal_io_system,
        .error = EIO,
    };
    fault->io.user = fault;
    fault->io.create = fault_create;
    fault->io.pwritev = fault_pwritev;
    fault->io.allocate = fault_allocate;
    fault->io.sync_data = fault_sync_data;
    fault->io.sync_file = fault_sync_file;
    fault->io.rename = fault_rename;
    fault->io.unlink = fault_unlink;
}

void fault_arm(struct fault *fault, unsigned nth, int error)
{
    fault->nth = nth;
    fault->calls = 0;
    fault->error = error;
    fault->has_fired = false;
}
