/* members.c: sets of ids, and their history along the log. */
#include "daemons/raftd/raft/members.h"

#include "daemons/raftd/raft/vec.h"

/* The position of id, or where it would go. */
static size_t id_set_position(const struct id_set *set, uint64_t id)
{
    size_t position = 0;
    while (position < set->count && set->items[position] < id) {
        position++;
    }
    return position;
}

bool id_set_has(const struct id_set *set, uint64_t id)
{
    size_t position = id_set_position(set, id);
    return position < set->count && set->items[position] == id;
}

void id_set_add(struct id_set *set, uint64_t id)
{
    size_t position = id_set_position(set, id);
    if (position < set->count && set->items[position] == id) {
        return;
    }
    (void)VEC_PUSH(set->items, set->count, set->capacity);
    memmove(set->items + position + 1, set->items + position,
            (set->count - 1 - position) * sizeof *set->items);
    set->items[position] = id;
}

void id_set_remove(struct id_set *set, uint64_t id)
{
    size_t position = id_set_position(set, id);
    if (position < set->count && set->items[position] == id) {
        set->count--;
        memmove(set->items + position, set->items + position + 1,
                (set->count - position) * sizeof *set->items);
    }
}

void id_set_clear(struct id_set *set)
{
    set->count = 0;
}

void id_set_fini(struct id_set *set)
{
    free(set->items);
    *set = (struct id_set){ 0 };
}

static void id_set_copy(struct id_set *set, struct raft_ids ids)
{
    for (size_t i = 0; i < ids.count; i++) {
        id_set_add(set, ids.items[i]);
    }
}

static void members_copy(struct members *members, struct raft_members view)
{
    *members = (struct members){ 0 };
    id_set_copy(&members->voters, view.voters);
    id_set_copy(&members->learners, view.learners);
    id_set_copy(&members->removed, view.removed);
}

static void members_fini(struct members *members)
{
    id_set_fini(&members->voters);
    id_set_fini(&members->learners);
    id_set_fini(&members->removed);
}

bool members_allow(const struct members *members, struct raft_change change)
{
    uint64_t id = change.member_id;
    bool is_voter = id_set_has(&members->voters, id);
    bool is_learner = id_set_has(&members->learners, id);
    switch (change.kind) {
    case RAFT_CHANGE_NOTHING:
        return true;
    case RAFT_CHANGE_ADD_LEARNER:
        return id != 0 && !is_voter && !is_learner && !id_set_has(&members->removed, id);
    case RAFT_CHANGE_PROMOTE:
        return is_learner;
    case RAFT_CHANGE_REMOVE:
        return is_learner || (is_voter && members->voters.count > 1);
    default:
        return false;
    }
}

static void members_change(struct members *members, struct raft_change change)
{
    if (!members_allow(members, change)) {
        return;
    }
    switch (change.kind) {
    case RAFT_CHANGE_ADD_LEARNER:
        id_set_add(&members->learners, change.member_id);
        break;
    case RAFT_CHANGE_PROMOTE:
        id_set_remove(&members->learners, change.member_id);
        id_set_add(&members->voters, change.member_id);
        break;
    case RAFT_CHANGE_REMOVE:
        id_set_remove(&members->voters, change.member_id);
        id_set_remove(&members->learners, change.member_id);
        id_set_add(&members->removed, change.member_id);
        break;
    case RAFT_CHANGE_NOTHING:
    default:
        break;
    }
}

void member_history_reset(
        struct member_history *history, uint64_t index, struct raft_members members)
{
    struct members copy;
    members_copy(&copy, members);
    for (size_t i = 0; i < history->count; i++) {
        members_fini(&history->items[i].members);
    }
    history->count = 0;
    *VEC_PUSH(history->items, history->count, history->capacity) =
            (struct member_epoch){ index, copy };
}

void member_history_fini(struct member_history *history)
{
    for (size_t i = 0; i < history->count; i++) {
        members_fini(&history->items[i].members);
    }
    free(history->items);
    *history = (struct member_history){ 0 };
}

const struct members *member_history_current(const struct member_history *history)
{
    INVARIANT(history->count > 0);
    return &history->items[history->count - 1].members;
}

uint64_t member_history_current_index(const struct member_history *history)
{
    INVARIANT(history->count > 0);
    return history->items[history->count - 1].index;
}

const struct members *member_history_at(const struct member_history *history, uint64_t index)
{
    INVARIANT(history->count > 0);
    size_t position = history->count - 1;
    while (position > 0 && history->items[position].index > index) {
        position--;
    }
    return &history->items[position].members;
}

void member_history_append(
        struct member_history *history, uint64_t index, struct raft_change change)
{
    INVARIANT_LT(member_history_current_index(history), index);
    struct members members;
    members_copy(&members, members_view(member_history_current(history)));
    members_change(&members, change);
    *VEC_PUSH(history->items, history->count, history->capacity) =
            (struct member_epoch){ index, members };
}

bool member_history_cut(struct member_history *history, uint64_t index)
{
    bool undone = false;
    while (history->count > 1 && history->items[history->count - 1].index > index) {
        members_fini(&history->items[--history->count].members);
        undone = true;
    }
    return undone;
}

void member_history_compact(struct member_history *history, uint64_t index)
{
    size_t gone = 0;
    while (gone + 1 < history->count && history->items[gone + 1].index <= index) {
        members_fini(&history->items[gone].members);
        gone++;
    }
    history->count -= gone;
    memmove(history->items, history->items + gone, history->count * sizeof *history->items);
}
