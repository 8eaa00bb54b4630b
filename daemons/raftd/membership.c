#include "daemons/raftd/membership.h"

#include <errno.h>
#include <stdlib.h>

#include "common/ids.h"
#include "proto/log.h"
#include "proto/op.h"

static void entry_fini(struct membership_entry *entry)
{
    for (size_t i = 0; i < entry->url_count; i++) {
        free(entry->peer_urls[i]);
    }
    free(entry->peer_urls);
    free(entry->name);
}

void membership_fini(struct membership *membership)
{
    for (size_t i = 0; i < membership->count; i++) {
        entry_fini(&membership->items[i]);
    }
    free(membership->items);
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
    qsort(membership->items, membership->count, sizeof *membership->items, compare_ids);
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

static bool contains(struct raft_ids ids, uint64_t id)
{
    for (size_t i = 0; i < ids.count; i++) {
        if (ids.items[i] == id) {
            return true;
        }
    }
    return false;
}

static void url_spans(const struct membership_entry *entry, struct span_list *ret_list)
{
    ret_list->items = xcalloc(entry->url_count, sizeof *ret_list->items);
    ret_list->count = entry->url_count;
    for (size_t i = 0; i < entry->url_count; i++) {
        ret_list->items[i] = span_str(entry->peer_urls[i]);
    }
}

void membership_encode(
        const struct membership *membership, const struct raft_members *members, struct buf *out)
{
    struct buf bytes = BUF_INIT;
    struct span *items = xcalloc(membership->count, sizeof *items);
    size_t *ends = xcalloc(membership->count, sizeof *ends);
    size_t used = 0;

    for (size_t i = 0; i < membership->count; i++) {
        const struct membership_entry *entry = &membership->items[i];
        bool learner = contains(members->learners, entry->id);
        bool removed = contains(members->removed, entry->id);
        if (!learner && !removed && !contains(members->voters, entry->id)) {
            continue; /* seen once, in an entry that was cut */
        }
        struct member member = {
            .id = entry->id, .name = span_str(entry->name), .learner = learner, .removed = removed
        };
        url_spans(entry, &member.peer_urls);
        member.present = UINT64_MAX;
        member.present &= ~(UINT64_C(1) << member_tag_client_urls);
        member_encode(&member, &bytes);
        free(member.peer_urls.items);
        ends[used++] = bytes.bytes;
    }
    for (size_t i = 0, start = 0; i < used; start = ends[i], i++) {
        items[i] = span_of(bytes.data + start, ends[i] - start);
    }
    struct configuration message = { .members = { items, used } };
    configuration_encode(&message, out);
    buf_fini(&bytes);
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

    url_spans(entry, &op.peer_urls);
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
