/* wal_damage.h: a log, and copies of it to be damaged, as a cmocka fixture.
 *
 * A test writes a log by damage_write (or damage_create and its own appends), takes a copy, damages that and has it read.
 * The log stays open meanwhile, as a kill or a power cut would find it. All is freed by damage_teardown. */
#pragma once

#include "tests/unit/wal/wal_fixture.h"

enum {
    DAMAGE_SEGMENT_BYTES = 32 << 10,
    DAMAGE_SEED = 77
};

enum tear {
    TEAR_CUT,     /* the file ends there */
    TEAR_ZEROS,   /* the rest never came */
    TEAR_GARBAGE, /* something else lies there */
    TEAR_HOLE,    /* eight bytes never came, the rest did */
    TEAR_COUNT,
};

struct damage {
    struct fixture *fixture;
    struct wal_config config; /* of the log */
    struct wal *wal;
    struct script *script;
    /* damage_write: */
    struct model *before; /* what the synced writes amount to */
    struct model *after;
    uint64_t start; /* of the last batch, which is not synced */
    uint64_t end;
    struct names_segment segment;
    /* The copy: */
    struct wal_config copy_config;
    char copy[FIXTURE_PATH_BYTES];     /* its folder */
    char file[FIXTURE_PATH_BYTES * 2]; /* of it, where damage goes */
    struct model *model;               /* what the last damage_recover read */
    struct err err;
};

int damage_setup(void **state);
int damage_teardown(void **state);
#define DAMAGE_TEST(name) cmocka_unit_test_setup_teardown(name, damage_setup, damage_teardown)

/* An empty log, and a plain script of what to write. */
void damage_create(struct damage *damage);
void damage_append(struct damage *damage, const struct wal_write *write, bool is_to_sync);
/* A log of so many synced writes, or a few more, and one of at least two entries that was not synced. */
void damage_write(struct damage *damage, unsigned synced);
void damage_close(struct damage *damage); /* the log; copies can still be taken */

/* A fresh copy; `segment` of it is the file that is damaged next. */
void damage_copy(struct damage *damage, const struct names_segment *segment);
void damage_tear(const struct damage *damage, enum tear how, uint64_t offset, uint64_t end);
void damage_flip_bit(const struct damage *damage, uint64_t offset, unsigned bit);
void damage_put(const struct damage *damage, uint64_t offset, const void *data, size_t bytes);
/* Reads the copy; what wal_open or wal_read returned. */
int damage_recover(struct damage *damage);
/* The same and on into append mode, over `io` (NULL: the system's); the log is the caller's if ret_wal is given. */
int damage_restart(struct damage *damage, const struct wal_io *io, struct wal **ret_wal);
