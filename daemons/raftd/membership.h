/* membership.h: who is in the cluster, with their peer URLs: what raft's ids mean.
 *
 * Ids that were ever seen are kept with their URLs; which of them vote is the core's to say (raft_members), and is
 * merged in where a configuration is written down. Pure. */
#pragma once

#include "common/buf.h"
#include "common/conf.h"
#include "daemons/raftd/raft/raft.h"
#include "proto/outcome.h"

struct membership_entry {
    uint64_t id;
    char *name;       /* of --initial-cluster; "" when not known */
    char **peer_urls; /* sorted */
    size_t url_count;
    char **client_urls; /* as published; none: it was never started */
    size_t client_url_count;
    bool learner;
    bool removed;
};

struct membership {
    struct membership_entry *items; /* ascending by id */
    size_t count;
    uint64_t cluster_id;
    uint64_t self_id;
    struct membership_undo *undos; /* URLs that uncommitted entries replaced, ascending by index */
    size_t undo_count;
};

void membership_fini(struct membership *membership);

/* The members of --initial-cluster, ids and cluster id computed (operations.md 2.2 as docs/configuration.md has it). */
int membership_from_conf(
        const struct conf *conf, struct membership *ret_membership, struct err *err);

/* Reads a configuration kept in a base; cluster and self id are the caller's to set. -EBADMSG. */
int membership_decode(
        struct span configuration, struct membership *ret_membership, struct err *err);

/* Writes the configuration: the members that `members` names, in the roles it gives them, with what is known of them. */
void membership_encode(
        const struct membership *membership, const struct raft_members *members, struct buf *out);

/* Ids by role, for raft's base. The arrays are allocated and the caller's: give them to membership_roles_fini. */
void membership_roles(const struct membership *membership, struct raft_members *ret_members);
void membership_roles_fini(struct raft_members *roles);

/* Whether an entry's payload has anything to say here: a look at its first bytes. */
bool membership_is_concerned(struct span op);
/* Takes notice of an entry that was appended, or (client URLs) applied. */
void membership_note(struct membership *membership, uint64_t index, struct span op);
/* Entries after index are gone; those up to index can go no more. */
void membership_note_cut(struct membership *membership, uint64_t index);
void membership_note_commit(struct membership *membership, uint64_t index);
/* Takes what another configuration knows and this one does not. */
void membership_merge(struct membership *membership, const struct membership *other);

struct membership_entry *membership_find(const struct membership *membership, uint64_t id);

/* An encoded op that registers a member: the payload of a configuration entry. */
void membership_encode_add(const struct membership_entry *entry, struct buf *out);

/* What a configuration entry's payload does to raft's configuration; unreadable: nothing. */
struct raft_change membership_change_of(struct span op);
