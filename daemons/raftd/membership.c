#include "daemons/raftd/membership.h"

#include <errno.h>
#include <stdlib.h>

#include "common/ids.h"
#include "proto/log.h"
#include "proto/op.h"

/* What an uncommitted update replaced. */
struct membership_undo {
    uint64_t index;
    uint64_t id;
    char **peer_urls;
    size_t url_count;
};

static void free_urls(char **urls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(urls[i]);
    }
    free(urls);
}

static void entry_fini(struct membership_entry *entry)
{
    free_urls(entry->peer_urls, entry->url_count);
    free_urls(entry->client_urls, entry->client_url_count);
    free(entry->name);
}

void membership_fini(struct membership *membership)
{
    for (size_t i = 0; i < membership->count; i++) {
        entry_fini(&membership->items[i]);
    }
    for (size_t i = 0; i < membership->undo_count; i++) {
        free_urls(membership->undos[i].peer_urls, membership->undos[i].url_count);
    }
    free(membership->items);
    free(membership->undos);
    *membership = (struct membership){ 0 };
}

static char *copy_text(struct span text)
{
    char *copy = xmalloc(text.bytes + 1);
    if (text.bytes > 0) {
        memcpy(copy, text.data, text.bytes);
    }
    copy[text.bytes] = '\0';
    return copy;
}

static struct membership_entry *add_entry(struct membership *membership)
{
    membership->items =
            xrealloc(membership->items, (membership->count + 1) * sizeof *membership->items);
    struct membership_entry *entry = &membership->items[membership->count++];
    *entry = (struct membership_entry){ 0 };
    return entry;
}

static void add_url(struct membership_entry *entry, char *take_url)
{
    entry->peer_urls =
            xrealloc(entry->peer_urls, (entry->url_count + 1) * sizeof *entry->peer_urls);
    entry->peer_urls[entry->url_count++] = take_url;
}

static char **copy_urls(const struct span_list *list)
{
    char **urls = xcalloc(list->count, sizeof *urls);

    for (size_t i = 0; i < list->count; i++) {
        urls[i] = copy_text(list->items[i]);
    }
    return urls;
}

/* The entry of this id, made where there is none. */
static struct membership_entry *ensure_entry(struct membership *membership, uint64_t id)
{
    size_t at = 0;

    while (at < membership->count && membership->items[at].id < id) {
        at++;
    }
    if (at == membership->count || membership->items[at].id != id) {
        (void)add_entry(membership);
        memmove(&membership->items[at + 1], &membership->items[at],
                (membership->count - 1 - at) * sizeof *membership->items);
        membership->items[at] = (struct membership_entry){ .id = id, .name = xstrdup("") };
    }
    return &membership->items[at];
}

static int compare_ids(const void *left, const void *right)
{
    const struct membership_entry *a = left;
    const struct membership_entry *b = right;
    return a->id < b->id ? -1 : a->id > b->id;
}

static int compute_ids(struct membership *membership, const struct conf *conf, struct err *err)
{
    uint64_t *ids = xcalloc(membership->count, sizeof *ids);

    for (size_t i = 0; i < membership->count; i++) {
        struct membership_entry *entry = &membership->items[i];
        entry->id = ids_member((const char *const *)entry->peer_urls, entry->url_count,
                conf->initial_cluster_token);
        if (strcmp(entry->name, conf->name) == 0) {
            membership->self_id = entry->id;
        }
    }
    if (membership->count > 0) {
        qsort(membership->items, membership->count, sizeof *membership->items, compare_ids);
    }
    for (size_t i = 0; i < membership->count; i++) {
        ids[i] = membership->items[i].id;
    }
    membership->cluster_id = ids_cluster(ids, membership->count);
    free(ids);
    if (membership->self_id == 0) {
        return err_set(err, -EINVAL,
                "couldn't find local name \"%s\" in the initial cluster configuration; "
                "add %s=<peer URL> to --initial-cluster",
                conf->name, conf->name);
    }
    return 0;
}

int membership_from_conf(
        const struct conf *conf, struct membership *ret_membership, struct err *err)
{
    struct membership membership = { 0 };

    /* The pairs are sorted by name, then URL. */
    for (size_t i = 0; i < conf->initial_cluster.count; i++) {
        const struct conf_peer *peer = &conf->initial_cluster.items[i];
        bool same = i > 0 && strcmp(peer->name, conf->initial_cluster.items[i - 1].name) == 0;
        struct membership_entry *entry =
                same ? &membership.items[membership.count - 1] : add_entry(&membership);
        if (!same) {
            entry->name = xstrdup(peer->name);
        }
        add_url(entry, xstrdup(peer->url));
    }
    int result = compute_ids(&membership, conf, err);
    if (result < 0) {
        membership_fini(&membership);
        return result;
    }
    *ret_membership = membership;
    return 0;
}

static int decode_member(struct membership *membership, struct span encoded,
        struct codec_scratch *scratch, struct err *err)
{
    struct member member;

    TRY(member_decode(encoded, &member, scratch, err));
    if (membership->count > 0 && member.id <= membership->items[membership->count - 1].id) {
        return err_set(
                err, -EBADMSG, "configuration: member ids do not ascend at %" PRIx64, member.id);
    }
    struct membership_entry *entry = add_entry(membership);
    entry->id = member.id;
    entry->name = copy_text(member.name);
    entry->learner = member.learner;
    entry->removed = member.removed;
    for (size_t i = 0; i < member.peer_urls.count; i++) {
        add_url(entry, copy_text(member.peer_urls.items[i]));
    }
    entry->client_urls = copy_urls(&member.client_urls);
    entry->client_url_count = member.client_urls.count;
    return 0;
}

int membership_decode(struct span encoded, struct membership *ret_membership, struct err *err)
{
    struct membership membership = { 0 };
    CLEANUP(codec_scratch_fini) struct codec_scratch scratch = { 0 };
    struct configuration message;
    int result = configuration_decode(encoded, &message, &scratch, err);

    for (size_t i = 0; result == 0 && i < message.members.count; i++) {
        result = decode_member(&membership, message.members.items[i], &scratch, err);
    }
    if (result < 0) {
        membership_fini(&membership);
        return result;
    }
    *ret_membership = membership;
    return 0;
}

static void url_spans(char *const *urls, size_t count, struct span_list *ret_list)
{
    ret_list->items = xcalloc(count, sizeof *ret_list->items);
    ret_list->count = count;
    for (size_t i = 0; i < count; i++) {
        ret_list->items[i] = span_str(urls[i]);
    }
}

static void encode_member(
        const struct membership_entry *entry, bool learner, bool removed, struct buf *out)
{
    struct member member = {
        .id = entry->id, .name = span_str(entry->name), .learner = learner, .removed = removed
    };

    url_spans(entry->peer_urls, entry->url_count, &member.peer_urls);
    url_spans(entry->client_urls, entry->client_url_count, &member.client_urls);
    member.present = UINT64_MAX;
    member_encode(&member, out);
    free(member.peer_urls.items);
    free(member.client_urls.items);
}

static int compare_numbers(const void *left, const void *right)
{
    const uint64_t *a = left;
    const uint64_t *b = right;
    return *a < *b ? -1 : *a > *b;
}

/* All ids of the configuration, ascending. */
static uint64_t *all_ids(const struct raft_members *members, size_t *ret_count)
{
    const struct raft_ids *sets[] = { &members->voters, &members->learners, &members->removed };
    uint64_t *ids = xcalloc(
            members->voters.count + members->learners.count + members->removed.count, sizeof *ids);
    size_t count = 0;

    for (size_t i = 0; i < ARRAY_COUNT(sets); i++) {
        for (size_t j = 0; j < sets[i]->count; j++) {
            ids[count++] = sets[i]->items[j];
        }
    }
    qsort(ids, count, sizeof *ids, compare_numbers);
    *ret_count = count;
    return ids;
}

void membership_encode(
        const struct membership *membership, const struct raft_members *members, struct buf *out)
{
    struct buf bytes = BUF_INIT;
    size_t count;
    uint64_t *ids = all_ids(members, &count);
    struct span *items = xcalloc(count, sizeof *items);
    size_t *ends = xcalloc(count, sizeof *ends);

    for (size_t i = 0; i < count; i++) {
        static char nameless[] = "";
        struct membership_entry unknown = { .id = ids[i], .name = nameless };
        const struct membership_entry *entry = membership_find(membership, ids[i]);
        encode_member(entry != NULL ? entry : &unknown, raft_ids_have(members->learners, ids[i]),
                raft_ids_have(members->removed, ids[i]), &bytes);
        ends[i] = bytes.bytes;
    }
    for (size_t i = 0, start = 0; i < count; start = ends[i], i++) {
        items[i] = span_of(bytes.data + start, ends[i] - start);
    }
    struct configuration message = { .members = { items, count } };
    configuration_encode(&message, out);
    buf_fini(&bytes);
    free(ids);
    free(items);
    free(ends);
}

static struct raft_ids ids_where(const struct membership *membership, bool learner, bool removed)
{
    uint64_t *ids = xcalloc(membership->count, sizeof *ids);
    size_t count = 0;

    for (size_t i = 0; i < membership->count; i++) {
        const struct membership_entry *entry = &membership->items[i];
        if (entry->removed == removed && (removed || entry->learner == learner)) {
            ids[count++] = entry->id;
        }
    }
    return (struct raft_ids){ ids, count };
}

void membership_roles(const struct membership *membership, struct raft_members *ret_members)
{
    ret_members->voters = ids_where(membership, false, false);
    ret_members->learners = ids_where(membership, true, false);
    ret_members->removed = ids_where(membership, false, true);
}

void membership_roles_fini(struct raft_members *roles)
{
    free((void *)(uintptr_t)roles->voters.items);
    free((void *)(uintptr_t)roles->learners.items);
    free((void *)(uintptr_t)roles->removed.items);
}

struct membership_entry *membership_find(const struct membership *membership, uint64_t id)
{
    for (size_t i = 0; i < membership->count; i++) {
        if (membership->items[i].id == id) {
            return &membership->items[i];
        }
    }
    return NULL;
}

void membership_encode_add(const struct membership_entry *entry, struct buf *out)
{
    struct op op = { .kind = OP_MEMBER_ADD, .member_id = entry->id };

    url_spans(entry->peer_urls, entry->url_count, &op.peer_urls);
    SET(&op, op_tag_member_id);
    SET(&op, op_tag_peer_urls);
    op_encode(&op, out);
    free(op.peer_urls.items);
}

struct raft_change membership_change_of(struct span encoded)
{
    CLEANUP(codec_scratch_fini) struct codec_scratch scratch = { 0 };
    struct raft_change change = { .kind = RAFT_CHANGE_NOTHING };
    struct op op;

    if (op_decode(encoded, &op, &scratch, NULL) < 0) {
        return change;
    }
    change.member_id = op.member_id;
    switch ((enum op_kind)op.kind) {
    case OP_MEMBER_ADD:
        change.kind = RAFT_CHANGE_ADD_LEARNER;
        break;
    case OP_MEMBER_PROMOTE:
        change.kind = RAFT_CHANGE_PROMOTE;
        break;
    case OP_MEMBER_REMOVE:
        change.kind = RAFT_CHANGE_REMOVE;
        break;
    case OP_SYNC:
    case OP_SET:
    case OP_CREATE:
    case OP_CREATE_IN_ORDER:
    case OP_UPDATE:
    case OP_COMPARE_AND_SWAP:
    case OP_DELETE:
    case OP_COMPARE_AND_DELETE:
    case OP_MEMBER_UPDATE:
    case OP_MEMBER_PUBLISH:
    case OP_CLUSTER_VERSION:
    default:
        break;
    }
    return change;
}

bool membership_is_concerned(struct span op)
{
    /* A msgpack map whose first key is the kind's tag. */
    return op.bytes >= 3 && (op.data[0] & 0xf0) == 0x80 && op.data[1] == op_tag_kind &&
           (op.data[2] == OP_MEMBER_ADD || op.data[2] == OP_MEMBER_UPDATE ||
                   op.data[2] == OP_MEMBER_PUBLISH);
}

static void note_update(struct membership *membership, uint64_t index,
        struct membership_entry *entry, const struct op *op)
{
    membership->undos =
            xrealloc(membership->undos, (membership->undo_count + 1) * sizeof *membership->undos);
    membership->undos[membership->undo_count++] = (struct membership_undo){ .index = index,
        .id = entry->id,
        .peer_urls = entry->peer_urls,
        .url_count = entry->url_count };
    entry->peer_urls = copy_urls(&op->peer_urls);
    entry->url_count = op->peer_urls.count;
}

void membership_note(struct membership *membership, uint64_t index, struct span encoded)
{
    CLEANUP(codec_scratch_fini) struct codec_scratch scratch = { 0 };
    struct op op;

    if (!membership_is_concerned(encoded) || op_decode(encoded, &op, &scratch, NULL) < 0 ||
            op.member_id == 0) {
        return;
    }
    struct membership_entry *entry = ensure_entry(membership, op.member_id);
    if (op.kind == OP_MEMBER_ADD) {
        free_urls(entry->peer_urls, entry->url_count);
        entry->peer_urls = copy_urls(&op.peer_urls);
        entry->url_count = op.peer_urls.count;
    } else if (op.kind == OP_MEMBER_UPDATE) {
        note_update(membership, index, entry, &op);
    } else {
        free(entry->name);
        entry->name = copy_text(op.name);
        free_urls(entry->client_urls, entry->client_url_count);
        entry->client_urls = copy_urls(&op.client_urls);
        entry->client_url_count = op.client_urls.count;
    }
}

void membership_note_cut(struct membership *membership, uint64_t index)
{
    while (membership->undo_count > 0 &&
            membership->undos[membership->undo_count - 1].index > index) {
        struct membership_undo *undo = &membership->undos[--membership->undo_count];
        struct membership_entry *entry = ensure_entry(membership, undo->id);
        free_urls(entry->peer_urls, entry->url_count);
        entry->peer_urls = undo->peer_urls;
        entry->url_count = undo->url_count;
    }
}

void membership_note_commit(struct membership *membership, uint64_t index)
{
    size_t done = 0;

    while (done < membership->undo_count && membership->undos[done].index <= index) {
        free_urls(membership->undos[done].peer_urls, membership->undos[done].url_count);
        done++;
    }
    if (done > 0) {
        membership->undo_count -= done;
        memmove(membership->undos, membership->undos + done,
                membership->undo_count * sizeof *membership->undos);
    }
}

void membership_merge(struct membership *membership, const struct membership *other)
{
    for (size_t i = 0; i < other->count; i++) {
        const struct membership_entry *from = &other->items[i];
        struct membership_entry *entry = ensure_entry(membership, from->id);
        for (size_t j = 0; entry->url_count == j && j < from->url_count; j++) {
            add_url(entry, xstrdup(from->peer_urls[j]));
        }
        if (entry->name[0] == '\0') {
            free(entry->name);
            entry->name = xstrdup(from->name);
        }
        if (entry->client_url_count == 0 && from->client_url_count > 0) {
            free(entry->client_urls);
            entry->client_urls = xcalloc(from->client_url_count, sizeof *entry->client_urls);
            for (size_t j = 0; j < from->client_url_count; j++) {
                entry->client_urls[entry->client_url_count++] = xstrdup(from->client_urls[j]);
            }
        }
    }
}
