#include "tests/unit/stored/machine.h"

#include <ftw.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/state/state.h"

enum {
    MAP_BYTES = 1 << 30
};

static const uint64_t second_ns = UINT64_C(1000000000);

static void machine_open(struct machine *machine, bool create)
{
    struct err err = { 0 };
    struct replica_config config = {
        .dir = machine->dir,
        .map_bytes = MAP_BYTES,
        .create = create,
        .history = machine->history,
        .boot_id = "boot",
    };
    if (replica_open(&config, &machine->replica, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

struct machine *machine_new(void)
{
    struct machine *machine = xcalloc(1, sizeof *machine);

    assert_true(scratch_make(machine->dir));
    machine->time_s = MACHINE_START_S;
    machine->history =
            (struct state_history_limits){ .window = 1000, .count = 65536, .bytes = 64 << 20 };
    machine_open(machine, true);
    return machine;
}

struct machine *machine_free(struct machine *machine)
{
    machine->replica = replica_close(machine->replica);
    scratch_remove(machine->dir);
    buf_fini(&machine->own);
    buf_fini(&machine->others);
    free(machine);
    return NULL;
}

void machine_reopen(struct machine *machine)
{
    machine->replica = replica_close(machine->replica);
    machine_open(machine, false);
}

void machine_encode(struct op op, uint64_t index, uint64_t time_ns, struct buf *out)
{
    struct buf encoded = BUF_INIT;
    struct entry entry = { .index = index, .term = 1, .time_ns = time_ns, .kind = ENTRY_OP };
    uint64_t ttl = UINT64_C(1) << op_tag_ttl_s;

    op.present |= ~ttl;
    op_encode(&op, &encoded);
    entry.data = buf_span(&encoded);
    SET(&entry, entry_tag_data);
    entry_encode(&entry, out);
    buf_fini(&encoded);
}

static const char *action_name(uint64_t action)
{
    static const char *const names[EVENT_ACTION_COUNT] = {
        [EVENT_SET] = "set",
        [EVENT_CREATE] = "create",
        [EVENT_UPDATE] = "update",
        [EVENT_COMPARE_AND_SWAP] = "compareAndSwap",
        [EVENT_DELETE] = "delete",
        [EVENT_COMPARE_AND_DELETE] = "compareAndDelete",
        [EVENT_EXPIRE] = "expire",
    };
    assert_in_range(action, EVENT_SET, EVENT_ACTION_COUNT - 1);
    return names[action];
}

/* A deadline relative to the machine's time. */
static void append_deadline(struct machine *machine, uint64_t deadline_ns, struct buf *out)
{
    if (deadline_ns != 0) {
        int64_t left = (int64_t)(deadline_ns - machine->time_s * second_ns);
        buf_appendf(out, " %+" PRId64 "s", left / (int64_t)second_ns);
    }
}

static void append_event(struct machine *machine, struct span encoded, struct buf *out)
{
    struct codec_scratch scratch = { 0 };
    struct event event;

    assert_int_equal(event_decode(encoded, &event, &scratch, NULL), 0);
    buf_appendf(out, "%s %.*s", action_name(event.action), (int)event.path.bytes,
            (const char *)event.path.data);
    if (HAS(&event, event_tag_value)) {
        buf_appendf(out, " '%.*s'", (int)event.value.bytes, (const char *)event.value.data);
    }
    buf_append_str(out, event.dir ? " dir" : "");
    append_deadline(machine, event.deadline_ns, out);
    buf_appendf(out, " m%" PRIu64 " c%" PRIu64, event.etcd_index, event.created_index);
    buf_append_str(out, event.silent ? " silent" : "");
    buf_append_str(out, event.internal ? " internal" : "");
    if (event.prev) {
        buf_append_str(out, " <-");
        if (HAS(&event, event_tag_prev_value)) {
            buf_appendf(out, " '%.*s'", (int)event.prev_value.bytes,
                    (const char *)event.prev_value.data);
        }
        buf_append_str(out, event.prev_dir ? " dir" : "");
        append_deadline(machine, event.prev_deadline_ns, out);
        buf_appendf(out, " m%" PRIu64 " c%" PRIu64, event.prev_modified_index,
                event.prev_created_index);
    }
    codec_scratch_fini(&scratch);
}

static void append_outcome(struct machine *machine, const struct outcome *outcome, struct buf *out)
{
    if (outcome->error_code != 0) {
        buf_appendf(out, "%" PRIu64, outcome->error_code);
        if (HAS(outcome, outcome_tag_cause)) {
            buf_appendf(
                    out, " \"%.*s\"", (int)outcome->cause.bytes, (const char *)outcome->cause.data);
        }
        buf_appendf(out, " @%" PRIu64, outcome->etcd_index);
    } else if (HAS(outcome, outcome_tag_event)) {
        append_event(machine, outcome->event, out);
    } else {
        buf_append_byte(out, '-');
    }
}

static void read_publication(struct machine *machine)
{
    struct codec_scratch scratch = { 0 };
    struct codec_scratch inner = { 0 };
    struct batch batch;

    assert_int_equal(
            batch_decode(replica_publication(machine->replica), &batch, &scratch, NULL), 0);
    assert_int_equal(batch.last_index, machine->index);
    machine->etcd_index = batch.etcd_index;
    for (size_t i = 0; i < batch.outcomes.count; i++) {
        struct outcome outcome;
        codec_scratch_reset(&inner);
        assert_int_equal(outcome_decode(batch.outcomes.items[i], &outcome, &inner, NULL), 0);
        if (outcome.instance != 0) {
            append_outcome(machine, &outcome, &machine->own);
        } else {
            append_outcome(machine, &outcome, &machine->others);
            buf_append_byte(&machine->others, '\n');
        }
    }
    codec_scratch_fini(&scratch);
    codec_scratch_fini(&inner);
}

void machine_apply(struct machine *machine, struct span *entries, size_t count)
{
    struct err err = { 0 };
    const struct schema_meta *meta = replica_meta(machine->replica);
    struct apply batch = {
        .prev_index = meta->applied_index,
        .prev_term = meta->applied_term,
        .entries = { entries, count },
    };

    do {
        if (replica_apply(machine->replica, &batch, 1, &machine->result, &err) < 0) {
            fail_msg("%s", err.text);
        }
        assert_false(machine->result.refused);
    } while (machine->result.more);
    machine->index = replica_meta(machine->replica)->applied_index;
}

static const char *apply_one(struct machine *machine, struct buf *encoded)
{
    struct span entry = buf_span(encoded);

    buf_clear(&machine->own);
    buf_clear(&machine->others);
    machine_apply(machine, &entry, 1);
    read_publication(machine);
    if (machine->own.bytes == 0) {
        buf_append_byte(&machine->own, '-');
    }
    buf_append_byte(&machine->own, '\0');
    buf_append_byte(&machine->others, '\0');
    buf_fini(encoded);
    return (const char *)machine->own.data;
}

const char *machine_do(struct machine *machine, struct op op)
{
    struct buf encoded = BUF_INIT;

    op.instance = 77;
    op.counter = machine->index + 1;
    machine_encode(op, machine->index + 1, machine->time_s * second_ns, &encoded);
    return apply_one(machine, &encoded);
}

const char *machine_empty(struct machine *machine)
{
    struct buf encoded = BUF_INIT;
    struct entry entry = { .index = machine->index + 1, .term = 1, .kind = ENTRY_EMPTY };

    entry.time_ns = machine->time_s * second_ns;
    entry_encode(&entry, &encoded);
    return apply_one(machine, &encoded);
}

static void append_children(
        struct state_read *read, uint64_t dir_id, struct span path, struct buf *out)
{
    struct state_children children;
    struct state_node node;

    state_children_begin(read, dir_id, SPAN_NONE, &children);
    while (state_children_next(&children, &node)) {
        struct buf child = BUF_INIT;
        buf_append_span(&child, path);
        buf_append_byte(&child, '/');
        buf_append_span(&child, node.name);
        buf_append_span(out, buf_span(&child));
        if (node.dir) {
            buf_append_str(out, " dir");
        } else {
            buf_append_str(out, " '");
            buf_append_span(out, node.value);
            buf_append_byte(out, '\'');
        }
        buf_appendf(out, " m%" PRIu64 " c%" PRIu64 " d%" PRIu64 "\n", node.modified_index,
                node.created_index, node.deadline_ns);
        if (node.dir) {
            append_children(read, node.dir_id, buf_span(&child), out);
        }
        buf_fini(&child);
    }
    state_children_end(&children);
}

void machine_tree(struct machine *machine, struct buf *out)
{
    struct state *state = state_writer_reader(replica_writer(machine->replica));
    struct state_read *read = NULL;

    assert_int_equal(state_read_new(state, &read, NULL), 0);
    assert_int_equal(state_read_begin(read, NULL), 0);
    append_children(read, STATE_ROOT_ID, SPAN_NONE, out);
    read = state_read_free(read);
    state = state_close(state);
}

static void append_hex(struct span bytes, struct buf *out)
{
    for (size_t i = 0; i < bytes.bytes; i++) {
        buf_appendf(out, "%02x", bytes.data[i]);
    }
}

static void append_row(const char *table, const MDB_val *key, const MDB_val *value, struct buf *out)
{
    struct span content = span_of(value->mv_data, value->mv_size);
    bool is_meta = strcmp(table, "meta") == 0;

    if (is_meta && key->mv_size == strlen("publication")) {
        return; /* of the last batch, however the entries were cut */
    }
    buf_appendf(out, "%s ", table);
    append_hex(span_of(key->mv_data, key->mv_size), out);
    buf_append_byte(out, ' ');
    if (is_meta && key->mv_size == strlen("state")) {
        struct schema_meta meta;
        assert_int_equal(content.bytes, sizeof meta);
        memcpy(&meta, content.data, sizeof meta);
        meta.boottime_ns = 0;
        memset(meta.boot_id, 0, sizeof meta.boot_id);
        append_hex(span_of(&meta, sizeof meta), out);
    } else {
        append_hex(content, out);
    }
    buf_append_byte(out, '\n');
}

void machine_dump(struct machine *machine, struct buf *out)
{
    static const char *const tables[] = { "nodes", "expiry", "events", "members", "auth", "trash",
        "meta" };
    MDB_env *env;
    MDB_txn *txn;

    machine->replica = replica_close(machine->replica);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, ARRAY_COUNT(tables)), 0);
    assert_int_equal(mdb_env_open(env, machine->dir, MDB_RDONLY, 0640), 0); /* lock.mdb is made */
    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    for (size_t i = 0; i < ARRAY_COUNT(tables); i++) {
        MDB_dbi dbi;
        MDB_cursor *cursor;
        MDB_val key;
        MDB_val value;
        assert_int_equal(mdb_dbi_open(txn, tables[i], 0, &dbi), 0);
        assert_int_equal(mdb_cursor_open(txn, dbi, &cursor), 0);
        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
            append_row(tables[i], &key, &value, out);
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    mdb_env_close(env);
    machine_open(machine, false);
}

uint64_t machine_rows(struct machine *machine, enum schema_table table)
{
    struct state_writer *writer = replica_writer(machine->replica);

    assert_int_equal(state_writer_begin(writer, NULL), 0);
    uint64_t rows = state_write_rows(writer, table);
    state_writer_abort(writer);
    return rows;
}

uint64_t random_next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}
