/* members.c: the ops that keep the book of members and of the cluster's version.
 *
 * They cost etcd indexes that clients can count on (the first write of a fresh member is 4): add, update, publish and
 * a new cluster version one each, remove two, promote none. Their events are internal: told to nobody. */
#include <errno.h>

#include "daemons/stored/keyspace_internal.h"

static const struct span bookkeeping_path = { (const uint8_t *)"/", 1 };

/* An event that only consumes an index. */
static int internal_event(struct keyspace *keyspace, enum event_action action)
{
    struct event event = {
        .action = action,
        .path = bookkeeping_path,
        .created_index = keyspace->meta->etcd_index + 1,
        .internal = true,
    };
    SET(&event, event_tag_internal);
    return keyspace_event(keyspace, &event);
}

static int save_member(struct keyspace *keyspace, const struct member *member)
{
    buf_clear(&keyspace->member);
    member_encode(member, &keyspace->member);
    keyspace->publication->members_changed = true;
    return state_write_member_put(
            keyspace->writer, member->id, member->removed, buf_span(&keyspace->member));
}

/* 0, or -ENOENT; the spans point into keyspace->value. */
static int load_member(struct keyspace *keyspace, uint64_t id, struct member *ret_member)
{
    struct span record;
    bool removed;

    TRY(state_write_member_find(keyspace->writer, id, &removed, &record));
    buf_clear(&keyspace->value);
    buf_append_span(&keyspace->value, record);
    return member_decode(buf_span(&keyspace->value), ret_member, &keyspace->scratch, NULL);
}

static int member_add(struct keyspace *keyspace, const struct op *op)
{
    struct member member = { .id = op->member_id, .name = op->name };
    struct member old;

    int result = load_member(keyspace, op->member_id, &old);
    if (result == 0 && old.removed) {
        return keyspace_fail(keyspace, V2_INTERNAL, SPAN_LIT("member was removed for good"));
    }
    if (result < 0 && result != -ENOENT) {
        return result;
    }
    member.peer_urls = op->peer_urls;
    member.client_urls = op->client_urls;
    member.learner = op->learner;
    SET(&member, member_tag_name);
    SET(&member, member_tag_peer_urls);
    SET(&member, member_tag_client_urls);
    if (member.learner) {
        SET(&member, member_tag_learner);
    }
    TRY(save_member(keyspace, &member));
    return internal_event(keyspace, EVENT_CREATE);
}

static int member_change(struct keyspace *keyspace, const struct op *op, struct member *member)
{
    switch (op->kind) {
    case OP_MEMBER_UPDATE:
        member->peer_urls = op->peer_urls;
        SET(member, member_tag_peer_urls);
        TRY(save_member(keyspace, member));
        return internal_event(keyspace, EVENT_UPDATE);
    case OP_MEMBER_PUBLISH:
        member->name = op->name;
        member->client_urls = op->client_urls;
        SET(member, member_tag_name);
        SET(member, member_tag_client_urls);
        TRY(save_member(keyspace, member));
        return internal_event(keyspace, EVENT_SET);
    case OP_MEMBER_REMOVE:
        member->removed = true;
        SET(member, member_tag_removed);
        TRY(save_member(keyspace, member));
        TRY(internal_event(keyspace, EVENT_DELETE));
        keyspace_publish_event(keyspace);
        return internal_event(keyspace, EVENT_CREATE);
    default:
        INVARIANT_EQ(op->kind, OP_MEMBER_PROMOTE);
        member->learner = false;
        member->present &= ~(UINT64_C(1) << member_tag_learner);
        return save_member(keyspace, member);
    }
}

static int cluster_version(struct keyspace *keyspace, const struct op *op)
{
    char version[sizeof keyspace->meta->cluster_version] = "";

    if (op->version.bytes == 0 || op->version.bytes >= sizeof version) {
        return keyspace_fail(keyspace, V2_INTERNAL, SPAN_LIT("malformed version"));
    }
    memcpy(version, op->version.data, op->version.bytes);
    if (memcmp(version, keyspace->meta->cluster_version, sizeof version) == 0) {
        return 0;
    }
    memcpy(keyspace->meta->cluster_version, version, sizeof version);
    return internal_event(keyspace, EVENT_SET);
}

int members_apply(struct keyspace *keyspace, const struct op *op)
{
    struct member member;

    if (op->kind == OP_CLUSTER_VERSION) {
        return cluster_version(keyspace, op);
    }
    if (op->kind == OP_MEMBER_ADD) {
        return member_add(keyspace, op);
    }
    int result = load_member(keyspace, op->member_id, &member);
    if (result == -ENOENT || (result == 0 && member.removed)) {
        return keyspace_fail(keyspace, V2_INTERNAL, SPAN_LIT("no such member"));
    }
    TRY(result);
    return member_change(keyspace, op, &member);
}
