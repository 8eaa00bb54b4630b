/* test_keyspace_model.c: random ops do to the state what they do to a model; and to two states the same, however the
 * entries are cut into batches. A failure names its seed: QUORATE_SEED=<n> replays it. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/stored/machine.h"
#include "tests/unit/stored/model.h"

enum {
    OPS = 4000,
    SEEDS = 4,
    BATCH_OPS = 3000
};

static uint64_t first_seed(void)
{
    const char *text = getenv("QUORATE_SEED");
    return text != NULL ? strtoull(text, NULL, 10) : 20260101;
}

static const char *random_path(uint64_t *seed, char path[MODEL_PATH_BYTES])
{
    static const char *const names[] = { "a", "b", "_c", "d.e" };
    unsigned depth = (unsigned)(random_next(seed) % 4);

    path[0] = '\0';
    for (unsigned i = 0; i < depth; i++) {
        size_t used = strlen(path);
        (void)snprintf(path + used, MODEL_PATH_BYTES - used, "/%s", names[random_next(seed) % 4]);
    }
    return depth == 0 ? "/" : path;
}

static void random_op(uint64_t *seed, const struct model *model, char path[MODEL_PATH_BYTES],
        struct model_op *ret_op)
{
    static const enum op_kind kinds[] = { OP_SET, OP_SET, OP_SET, OP_CREATE, OP_CREATE_IN_ORDER,
        OP_UPDATE, OP_COMPARE_AND_SWAP, OP_DELETE, OP_COMPARE_AND_DELETE };
    static const char *const values[] = { "", "1", "2", "3" };
    struct model_op op = { .prev_value = "", .value = values[random_next(seed) % 4] };

    op.kind = kinds[random_next(seed) % ARRAY_COUNT(kinds)];
    op.path = random_path(seed, path);
    op.dir = random_next(seed) % 4 == 0;
    op.recursive = random_next(seed) % 4 == 0;
    op.has_ttl = random_next(seed) % 2 == 0;
    op.ttl_s = random_next(seed) % 40;
    op.refresh = op.has_ttl && random_next(seed) % 6 == 0;
    if (random_next(seed) % 2 == 0) {
        op.prev_value = values[random_next(seed) % 4];
    }
    if (op.prev_value[0] == '\0' || random_next(seed) % 3 == 0) {
        const struct model_node *node =
                model->count > 0 ? &model->nodes[random_next(seed) % model->count] : NULL;
        op.prev_index = node != NULL ? node->modified : 7;
    }
    *ret_op = op;
}

static struct op wire_op(const struct model_op *op)
{
    struct op wire = { .kind = op->kind,
        .path = span_str(op->path),
        .value = span_str(op->value),
        .dir = op->dir,
        .recursive = op->recursive,
        .refresh = op->refresh,
        .prev_value = span_str(op->prev_value),
        .prev_index = op->prev_index };
    if (op->has_ttl) {
        wire.ttl_s = op->ttl_s;
        SET(&wire, op_tag_ttl_s);
    }
    return wire;
}

static void compare_outcome(const struct model *model, const char *got, uint64_t seed, int step)
{
    char expected[256];

    if (model->error == 0) {
        if (got[0] >= '0' && got[0] <= '9') {
            fail_msg("seed %" PRIu64 " step %d: the state refused: %s", seed, step, got);
        }
        return;
    }
    (void)snprintf(expected, sizeof expected,
            model->cause[0] != '\0' ? "%u \"%s\" @%llu" : "%u%s @%llu", model->error, model->cause,
            (unsigned long long)model->etcd_index);
    if (strcmp(expected, got) != 0) {
        fail_msg("seed %" PRIu64 " step %d: expected %s, got %s", seed, step, expected, got);
    }
}

static void compare_trees(struct machine *machine, struct model *model, uint64_t seed, int step)
{
    struct buf real = BUF_INIT;
    struct buf wanted = BUF_INIT;

    machine_tree(machine, &real);
    model_tree(model, &wanted);
    buf_append_byte(&real, '\0');
    buf_append_byte(&wanted, '\0');
    if (strcmp((char *)real.data, (char *)wanted.data) != 0 ||
            model->etcd_index != machine->etcd_index) {
        fail_msg("seed %" PRIu64 " step %d: state\n%s\nmodel\n%s", seed, step, real.data,
                wanted.data);
    }
    buf_fini(&real);
    buf_fini(&wanted);
}

static void run_seed(uint64_t seed)
{
    struct machine *machine = machine_new();
    struct model *model = xcalloc(1, sizeof *model);
    uint64_t random = seed;

    for (int step = 0; step < OPS; step++) {
        char path[MODEL_PATH_BYTES];
        struct model_op op;
        random_op(&random, model, path, &op);
        machine->time_s += random_next(&random) % 3;
        const char *got = machine_do(machine, wire_op(&op));
        model_apply(model, &op, machine->time_s);
        compare_outcome(model, got, seed, step);
        if (step % 20 == 0) {
            compare_trees(machine, model, seed, step);
        }
    }
    compare_trees(machine, model, seed, OPS);
    free(model);
    machine = machine_free(machine);
}

static void random_ops_do_what_the_model_says(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < SEEDS; i++) {
        run_seed(first_seed() + i * 7919);
    }
}

/* Applies the same entries in batches of random length; returns the dump of all tables. */
static void feed_in_batches(uint64_t cut_seed, size_t batch_max, struct buf *dump)
{
    struct machine *machine = machine_new();
    struct model *nothing = xcalloc(1, sizeof *nothing);
    uint64_t random = first_seed();
    uint64_t time_ns = UINT64_C(1000000000000);
    struct buf bytes[64] = { { 0 } };
    struct span entries[64];
    uint64_t index = 0;

    while (index < BATCH_OPS) {
        size_t count = 1 + random_next(&cut_seed) % batch_max;
        for (size_t i = 0; i < count; i++) {
            char path[MODEL_PATH_BYTES];
            struct model_op op;
            random_op(&random, nothing, path, &op);
            time_ns += random_next(&random) % UINT64_C(3000000000);
            struct op wire = wire_op(&op);
            if (index % 97 == 0) {
                wire = (struct op){ .kind = OP_SYNC };
            }
            buf_clear(&bytes[i]);
            machine_encode(wire, ++index, time_ns, &bytes[i]);
            entries[i] = buf_span(&bytes[i]);
            if (index == BATCH_OPS) {
                count = i + 1;
            }
        }
        machine_apply(machine, entries, count);
    }
    machine_dump(machine, dump);
    for (size_t i = 0; i < ARRAY_COUNT(bytes); i++) {
        buf_fini(&bytes[i]);
    }
    free(nothing);
    machine = machine_free(machine);
}

static void batches_do_not_matter(void **state)
{
    struct buf one = BUF_INIT;
    struct buf two = BUF_INIT;
    struct buf three = BUF_INIT;

    (void)state;
    feed_in_batches(1, 1, &one);
    feed_in_batches(2, 17, &two);
    feed_in_batches(3, 64, &three);
    assert_true(one.bytes > 10000);
    assert_true(span_eq(buf_span(&one), buf_span(&two)));
    assert_true(span_eq(buf_span(&one), buf_span(&three)));
    buf_fini(&one);
    buf_fini(&two);
    buf_fini(&three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_ops_do_what_the_model_says),
        cmocka_unit_test(batches_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
