#include "daemons/raftd/passed.h"

#include <stdlib.h>

#include "common/clock.h"

enum {
    BYTES_MAX = 16 * 1024 * 1024,
    BUCKET_COUNT = 1024,
    PREFIX_BYTES = 24, /* of an op: its kind and its request id */
};

/* One op that was not seen yet, to be found by its prefix. */
struct passed_item {
    struct list node;
    struct kept_ops *of;
    size_t position;
};

struct passed {
    struct list kept; /* in the order in which they were passed on: terms never fall */
    struct list dead;
    struct list buckets[BUCKET_COUNT];
    size_t bytes;
    uint64_t last_seq;
    uint64_t suspect_seq; /* up to this one they may be lost; 0: none */
    uint64_t handed_index;
    struct { /* where the log of a leader ended; index 0: nothing asked or all seen to */
        uint64_t term;
        uint64_t seq;
        uint64_t index;
    } end;
};

struct kept_ops *kept_ops_new(
        uint64_t context, uint64_t since_ms, const struct span *ops, size_t count)
{
    struct kept_ops *kept = xcalloc(1, sizeof *kept);
    size_t bytes = 0;

    for (size_t i = 0; i < count; i++) {
        bytes += ops[i].bytes;
    }
    list_init(&kept->node);
    kept->since_ms = since_ms;
    kept->context = context;
    kept->left = count;
    (void)buf_reserve(&kept->bytes, bytes);
    kept->ops.items = xcalloc(count, sizeof *kept->ops.items);
    kept->ops.count = count;
    for (size_t i = 0; i < count; i++) {
        kept->ops.items[i] = span_of(kept->bytes.data + kept->bytes.bytes, ops[i].bytes);
        buf_append_span(&kept->bytes, ops[i]);
    }
    return kept;
}

struct kept_ops *kept_ops_free(struct kept_ops *kept)
{
    if (kept != NULL) {
        INVARIANT(kept->items == NULL);
        list_remove(&kept->node);
        buf_fini(&kept->bytes);
        free(kept->ops.items);
        free(kept);
    }
    return NULL;
}

struct passed *passed_new(void)
{
    struct passed *passed = xcalloc(1, sizeof *passed);

    list_init(&passed->kept);
    list_init(&passed->dead);
    for (size_t i = 0; i < BUCKET_COUNT; i++) {
        list_init(&passed->buckets[i]);
    }
    return passed;
}

/* FNV-1a */
static size_t bucket_of(struct span op)
{
    uint32_t hash = 2166136261U;

    for (size_t i = 0; i < MIN(op.bytes, (size_t)PREFIX_BYTES); i++) {
        hash = (hash ^ op.data[i]) * 16777619U;
    }
    return (hash ^ hash >> 16) % BUCKET_COUNT;
}

/* Takes a message out, with those of its ops that were not seen. */
static void let_go(struct passed *passed, struct kept_ops *kept)
{
    size_t left = 0;

    for (size_t i = 0; i < kept->ops.count; i++) {
        if (kept->items[i].of != NULL) {
            list_remove(&kept->items[i].node);
            kept->ops.items[left++] = kept->ops.items[i];
        }
    }
    INVARIANT_EQ(left, kept->left);
    kept->ops.count = left;
    free(kept->items);
    kept->items = NULL;
    passed->bytes -= kept->bytes.bytes;
    list_remove(&kept->node);
}

static void forget(struct passed *passed, struct kept_ops *kept)
{
    let_go(passed, kept);
    (void)kept_ops_free(kept);
}

static struct kept_ops *first_of(struct list *list)
{
    return list_is_empty(list) ? NULL : CONTAINER_OF(list->next, struct kept_ops, node);
}

static void forget_all(struct passed *passed)
{
    struct kept_ops *kept;

    while ((kept = first_of(&passed->kept)) != NULL) {
        forget(passed, kept);
    }
}

struct passed *passed_free(struct passed *passed)
{
    if (passed != NULL) {
        forget_all(passed);
        LIST_FOREACH (kept, &passed->dead, struct kept_ops, node) {
            (void)kept_ops_free(kept);
        }
        free(passed);
    }
    return NULL;
}

void passed_add(struct passed *passed, struct kept_ops *take_kept, uint64_t term)
{
    struct kept_ops *kept = take_kept;

    list_remove(&kept->node);
    kept->term = term;
    kept->seq = ++passed->last_seq;
    kept->left = kept->ops.count;
    kept->items = xcalloc(kept->ops.count, sizeof *kept->items);
    for (size_t i = 0; i < kept->ops.count; i++) {
        kept->items[i] = (struct passed_item){ .of = kept, .position = i };
        list_append(&passed->buckets[bucket_of(kept->ops.items[i])], &kept->items[i].node);
    }
    list_append(&passed->kept, &kept->node);
    passed->bytes += kept->bytes.bytes;
    while (passed->bytes > BYTES_MAX) {
        struct kept_ops *oldest = first_of(&passed->kept);
        INVARIANT(oldest != NULL);
        forget(passed, oldest);
    }
}

static void die(struct passed *passed, struct kept_ops *kept)
{
    let_go(passed, kept);
    list_append(&passed->dead, &kept->node);
}

/* An op was handed on: it is nobody's worry any more. */
static void see(struct passed *passed, struct span op)
{
    LIST_FOREACH (item, &passed->buckets[bucket_of(op)], struct passed_item, node) {
        struct kept_ops *kept = item->of;
        if (span_eq(kept->ops.items[item->position], op)) {
            list_remove(&item->node);
            item->of = NULL;
            if (--kept->left == 0) {
                forget(passed, kept);
            }
            return;
        }
    }
}

/* What the leader said to be the end of its log was handed on: what came before the question and is not in there is lost. */
static void check_end(struct passed *passed)
{
    if (passed->end.index == 0 || passed->handed_index < passed->end.index) {
        return;
    }
    passed->end.index = 0;
    LIST_FOREACH (kept, &passed->kept, struct kept_ops, node) {
        if (kept->term == passed->end.term && kept->seq <= passed->end.seq) {
            die(passed, kept);
        }
    }
}

void passed_on_entries(struct passed *passed, struct raft_entry_span entries)
{
    for (size_t i = 0; i < entries.count; i++) {
        const struct raft_entry *entry = &entries.items[i];
        if (entry->index <= passed->handed_index) {
            continue; /* handed on before: stored lost it */
        }
        if (entry->index != passed->handed_index + 1) {
            forget_all(passed);
            passed->end.index = 0;
        }
        passed->handed_index = entry->index;
        struct kept_ops *first;
        while ((first = first_of(&passed->kept)) != NULL && first->term < entry->term) {
            die(passed, first);
        }
        if (first != NULL && entry->kind == RAFT_ENTRY_OP) {
            see(passed, entry->data);
        }
    }
    check_end(passed);
}

void passed_suspect(struct passed *passed)
{
    passed->suspect_seq = list_is_empty(&passed->kept) ? 0 : passed->last_seq;
}

bool passed_ask(const struct passed *passed, uint64_t term, uint64_t *ret_seq)
{
    /* Terms never fall and neither do numbers: if any is suspect the first is. One of an older term need not be asked for, the
     * newer term will tell; and then those behind it are of that term. */
    *ret_seq = passed->suspect_seq;
    LIST_FOREACH (kept, &passed->kept, struct kept_ops, node) {
        if (kept->seq > passed->suspect_seq) {
            return false;
        }
        if (kept->term == term) {
            return true;
        }
    }
    return false;
}

void passed_on_end(struct passed *passed, uint64_t term, uint64_t seq, uint64_t index)
{
    if (seq > passed->last_seq || index == 0) {
        return; /* of an earlier life of ours */
    }
    if (seq == passed->suspect_seq) {
        passed->suspect_seq = 0;
    }
    passed->end.term = term;
    passed->end.seq = seq;
    passed->end.index = index;
    check_end(passed);
}

struct kept_ops *passed_take(struct passed *passed, uint64_t context)
{
    LIST_FOREACH (kept, &passed->kept, struct kept_ops, node) {
        if (kept->context == context) {
            let_go(passed, kept);
            return kept;
        }
    }
    return NULL;
}

struct kept_ops *passed_take_dead(struct passed *passed)
{
    struct kept_ops *kept = first_of(&passed->dead);

    if (kept != NULL) {
        list_remove(&kept->node);
    }
    return kept;
}

void passed_expire(struct passed *passed, uint64_t now_ms, uint64_t wait_ms_max)
{
    LIST_FOREACH (kept, &passed->kept, struct kept_ops, node) {
        if (clock_passed(kept->since_ms, now_ms) > wait_ms_max) {
            forget(passed, kept);
        }
    }
}
