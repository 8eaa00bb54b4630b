/* wal_fixture.h: what the tests of the log share: a folder, a script of writes whose outcome is known after each,
 * and a disk that fails on demand.
 *
 * An entry's data follows from its index and term, so one that comes back wrong is seen whatever was expected. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "daemons/raftd/wal/internal.h"
#include "daemons/raftd/wal/wal.h"

enum {
    FIXTURE_PATH_BYTES = 256,
    MODEL_ENTRIES_MAX = 1 << 16,
    SCRIPT_ENTRIES_MAX = 6,
    SCRIPT_DATA_BYTES_MAX = 6000,
};

/* ---- A folder ---- */

struct fixture {
    char root[FIXTURE_PATH_BYTES];
    char dir[FIXTURE_PATH_BYTES + 8]; /* root/wal, not there yet */
};

int fixture_setup(void **state);
int fixture_teardown(void **state);
void fixture_copy_dir(const char *from, const char *to); /* to is emptied first */
void fixture_remove(const char *dir);

/* ---- What a log amounts to ---- */

struct model {
    uint64_t last_index;
    uint64_t base_index;
    uint64_t base_term;
    struct wal_hard_state hard;
    struct wal_snapshot snapshot;
    uint64_t terms[MODEL_ENTRIES_MAX]; /* of the entries; 0: not seen */
};

struct model *model_new(void);
void model_apply(struct model *model, const struct wal_record *record);
/* Equal in all that matters for entries after the base. */
bool model_equal(const struct model *a, const struct model *b);
uint32_t entry_data(uint64_t index, uint64_t term, uint8_t *ret_data); /* returns its bytes */
bool entry_is_right(const struct wal_entry *entry);

/* ---- A script ---- */

struct script {
    uint64_t random;
    struct model *model; /* after the writes so far */
    bool is_plain;       /* entries and hard states only */
    struct wal_hard_state hard;
    struct wal_base base;
    struct wal_snapshot snapshot;
    struct wal_entry entries[SCRIPT_ENTRIES_MAX];
    uint8_t data[SCRIPT_ENTRIES_MAX][SCRIPT_DATA_BYTES_MAX];
};

struct script *script_new(uint64_t seed);
struct script *script_free(struct script *script);
/* The next write; lives until the next call. The model already has it. */
struct wal_write script_next(struct script *script);
/* The script's model after so many writes. The caller frees it. */
struct model *script_model_after(uint64_t seed, bool is_plain, unsigned write_count);

extern const struct wal_base fixture_base;
extern const struct wal_hard_state fixture_hard;

/* ---- Whole logs ---- */

/* Reads all; *ret_model (fresh, the caller's) is what came. Ends in append mode if wanted, and hands over the log if
 * ret_wal is given. */
int fixture_recover(const struct wal_config *config, bool is_to_append, struct model *model,
        struct wal **ret_wal, struct err *err);

/* Every entry after the base reads back right. Returns 0, or what wal_read_entries returned. */
int fixture_read_back(struct wal *wal, const struct model *model, struct err *err);

/* ---- A disk that fails ---- */

struct fault {
    struct wal_io io;
    unsigned nth;   /* the call that fails, from 1; 0: none */
    unsigned calls; /* so far */
    int error;
    bool is_dead_after;       /* and all calls after it: a crash */
    bool is_short;            /* a failing write writes half of it first */
    bool is_disk_full;        /* nothing new can be created or allocated */
    bool is_write_full;       /* nor written */
    off_t allocate_bytes_max; /* larger files find no space; 0: no limit */
    bool fails_sync;          /* every sync_data fails with error */
    bool has_fired;
    unsigned sync_count;
    unsigned write_count;
};

void fault_init(struct fault *fault);
void fault_arm(struct fault *fault, unsigned nth, int error);
