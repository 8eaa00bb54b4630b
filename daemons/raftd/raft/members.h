/* members.h: who is in the cluster, and who was at each index of the log.
 *
 * A configuration takes effect when its entry is appended and is undone when that is cut, so the history keeps one
 * epoch for the log's base and one for each configuration entry behind it. It always holds at least one epoch. */
#pragma once

#include "daemons/raftd/raft/raft.h"

struct id_set {
    uint64_t *items; /* ascending, each once */
    size_t count;
    size_t capacity;
};

bool id_set_has(const struct id_set *set, uint64_t id);
void id_set_add(struct id_set *set, uint64_t id); /* nothing if it is there */
void id_set_remove(struct id_set *set, uint64_t id);
void id_set_clear(struct id_set *set);
void id_set_fini(struct id_set *set);
static inline struct raft_ids id_set_view(const struct id_set *set)
{
    return (struct raft_ids){ set->items, set->count };
}

struct members {
    struct id_set voters;
    struct id_set learners;
    struct id_set removed;
};

static inline size_t members_quorum(const struct members *members)
{
    return members->voters.count / 2 + 1;
}
static inline struct raft_members members_view(const struct members *members)
{
    return (struct raft_members){ id_set_view(&members->voters), id_set_view(&members->learners),
        id_set_view(&members->removed) };
}
/* Whether the change would alter anything; false too for the removal of the last voter. */
bool members_allow(const struct members *members, struct raft_change change);

struct member_epoch {
    uint64_t index; /* of the entry that brought it */
    struct members members;
};

struct member_history {
    struct member_epoch *items;
    size_t count;
    size_t capacity;
};

/* Begins anew with one epoch. The view may point into this history. */
void member_history_reset(
        struct member_history *history, uint64_t index, struct raft_members members);
void member_history_fini(struct member_history *history);
const struct members *member_history_current(const struct member_history *history);
uint64_t member_history_current_index(const struct member_history *history);
/* In force at index; the oldest known for older ones. */
const struct members *member_history_at(const struct member_history *history, uint64_t index);
void member_history_append(
        struct member_history *history, uint64_t index, struct raft_change change);
/* Undoes the epochs after index; true if there were any. */
bool member_history_cut(struct member_history *history, uint64_t index);
/* Forgets epochs that no index from `index` on needs. */
void member_history_compact(struct member_history *history, uint64_t index);
