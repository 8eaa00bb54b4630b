/* machine.h: a state machine in a temporary folder, for tests: ops in, outcomes out as one line of text.
 *
 * Ops travel as they do in life: encoded, inside entries, inside a batch. The lines:
 *
 *   set /foo 'baz' m5 c5 <- 'bar' m4 c4       an event and its prevNode; `dir` in place of a value, `+100s` a deadline
 *   101 "[9 != 2]" @12                        an error, its cause, the store's index
 *   -                                         nothing happened */
#pragma once

#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemons/stored/replica.h"
#include "proto/applied.h"
#include "proto/op.h"
#include "proto/outcome.h"
#include "tests/unit/scratch.h"

enum {
    MACHINE_START_S = 1000
};

struct machine {
    char dir[SCRATCH_PATH_MAX];
    struct replica *replica;
    struct state_history_limits history;
    uint64_t index;  /* of the last entry */
    uint64_t time_s; /* cluster time of the next */
    struct replica_result result;
    struct buf own;      /* the outcome of the last op, as text */
    struct buf others;   /* events nobody asked for, a line each */
    uint64_t etcd_index; /* as the last outcome said */
};

struct machine *machine_new(void);
struct machine *machine_free(struct machine *machine); /* removes the folder */
void machine_reopen(struct machine *machine);

/* Applies one entry; returns machine->own as text. The op's optional fields count as present where they are not empty;
 * a ttl only with TTL(). */
const char *machine_do(struct machine *machine, struct op op);
const char *machine_empty(struct machine *machine); /* an empty entry */

/* Encodes an entry for a batch. */
void machine_encode(struct op op, uint64_t index, uint64_t time_ns, struct buf *out);
/* Applies encoded entries that follow the last one; asserts that they are taken. */
void machine_apply(struct machine *machine, struct span *entries, size_t count);

/* The tree as text, a node a line. */
void machine_tree(struct machine *machine, struct buf *out);
/* Every row of every table, but for the host's clock and boot. Closes and opens the environment. */
void machine_dump(struct machine *machine, struct buf *out);

uint64_t machine_rows(struct machine *machine, enum schema_table table);

uint64_t random_next(uint64_t *seed);

#define TTL(seconds)           .ttl_s = (seconds), .present = UINT64_C(1) << op_tag_ttl_s
#define PATH(text)             .path = SPAN_LIT(text)
#define VALUE(text)            .value = SPAN_LIT(text)
#define OP(kind_, ...)         ((struct op){ .kind = (kind_), __VA_ARGS__ })
#define DO(machine, kind, ...) machine_do(machine, OP(kind, __VA_ARGS__))
