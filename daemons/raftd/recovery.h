/* recovery.h: what a log held, read once from its beginning to its end. Changes nothing; any thread. */
#pragma once

#include "common/buf.h"
#include "daemons/raftd/membership.h"
#include "daemons/raftd/raft/raft.h"
#include "daemons/raftd/wal/wal.h"

/* A snapshot that the log knows: the file <term>-<index>.snap was complete and durable when this was recorded. */
struct storage_snapshot {
    uint64_t index;
    uint64_t term;
};

/* An entry that says something about members. */
struct storage_note {
    uint64_t index;
    struct buf op;
};

/* What a log held. Entries come without data (data.data NULL, data.bytes the length). */
struct storage_recovered {
    struct raft_hard_state hard;
    struct wal_base base; /* its configuration lies in `configuration` */
    struct buf configuration;
    struct raft_entry *entries;
    size_t entry_count;
    struct storage_snapshot *snapshots; /* ascending */
    size_t snapshot_count;
    struct storage_note *notes; /* ascending */
    size_t note_count;
    uint64_t torn_bytes;
};
void storage_recovered_fini(struct storage_recovered *recovered);

/* Reads an open log to its end. Nothing to free where it fails. */
int recovery_read(struct wal *wal, struct storage_recovered *ret_recovered, struct err *err);

/* One entry more, that continues those there are; its data is not kept. */
void recovery_add_entry(struct storage_recovered *recovered, const struct raft_entry *entry);

uint64_t recovery_last_index(const struct storage_recovered *recovered);
/* Cluster time at an index from the base's to the last one. */
uint64_t recovery_time_ns(const struct storage_recovered *recovered, uint64_t index);

/* What the log says about members up to an index: names and URLs, and in a core that was made for the question (the
 * caller's to free) who has which role. -EBADMSG where the log contradicts itself. */
int recovery_members(const struct storage_recovered *recovered, uint64_t index,
        struct membership *ret_membership, struct raft **ret_core, struct err *err);
