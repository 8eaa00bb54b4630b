/* state_fixture.h: an empty state in a folder of its own, and a reader of it. What fails is told by cmocka's asserts, so its header
 * comes first. */
#pragma once

#include "common/state/state_write.h"
#include "tests/unit/scratch.h"

#define STATE_FIXTURE_MAP_BYTES ((size_t)256 << 20)

struct state_fixture {
    char dir[SCRATCH_PATH_MAX];
    struct state_writer *writer;
    struct state *state;
    struct state_read *read;
};

static inline void state_fixture_open(struct state_fixture *f)
{
    struct err err = { 0 };

    assert_true(scratch_make(f->dir));
    if (state_writer_open(f->dir, STATE_FIXTURE_MAP_BYTES, true, &f->writer, &err) < 0) {
        fail_msg("%s", err.text);
    }
    f->state = state_writer_reader(f->writer);
    assert_int_equal(state_read_new(f->state, &f->read, &err), 0);
}

static inline void state_fixture_close(struct state_fixture *f)
{
    f->read = state_read_free(f->read);
    f->state = state_close(f->state);
    f->writer = state_writer_close(f->writer);
    scratch_remove(f->dir);
}
