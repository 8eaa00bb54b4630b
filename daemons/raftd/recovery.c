#include "daemons/raftd/recovery.h"

#include <errno.h>
#include <stdlib.h>

#include "daemons/raftd/membership.h"

static void recover_note(struct storage_recovered *recovered, uint64_t index, struct span op)
{
    recovered->notes =
            xrealloc(recovered->notes, (recovered->note_count + 1) * sizeof *recovered->notes);
    struct storage_note *note = &recovered->notes[recovered->note_count++];
    *note = (struct storage_note){ .index = index };
    buf_append_span(&note->op, op);
}

/* Those after index are void. */
static void recover_notes_cut(struct storage_recovered *recovered, uint64_t index)
{
    while (recovered->note_count > 0 && recovered->notes[recovered->note_count - 1].index > index) {
        buf_fini(&recovered->notes[--recovered->note_count].op);
    }
}

void storage_recovered_fini(struct storage_recovered *recovered)
{
    free(recovered->entries);
    free(recovered->snapshots);
    recover_notes_cut(recovered, 0);
    free(recovered->notes);
    buf_fini(&recovered->configuration);
    *recovered = (struct storage_recovered){ 0 };
}

static void recover_entry(
        struct storage_recovered *recovered, size_t *capacity, const struct wal_entry *entry)
{
    if (recovered->entry_count == *capacity) {
        *capacity = MAX((size_t)1024, *capacity * 2);
        recovered->entries = xrealloc(recovered->entries, *capacity * sizeof *recovered->entries);
    }
    recovered->entries[recovered->entry_count++] = (struct raft_entry){
        .index = entry->index,
        .term = entry->term,
        .time_ns = entry->time_ns,
        .kind = (enum raft_entry_kind)entry->kind,
        .data = { NULL, entry->data.bytes },
    };
    if (entry->kind == RAFT_ENTRY_CONFIG) {
        recovered->entries[recovered->entry_count - 1].change = membership_change_of(entry->data);
    }
    if (membership_is_concerned(entry->data)) {
        recover_note(recovered, entry->index, entry->data);
    }
}

static void recover_cut(struct storage_recovered *recovered, uint64_t index)
{
    recover_notes_cut(recovered, index);
    while (recovered->entry_count > 0 &&
            recovered->entries[recovered->entry_count - 1].index > index) {
        recovered->entry_count--;
    }
}

static void recover_base(struct storage_recovered *recovered, const struct wal_base *base)
{
    buf_clear(&recovered->configuration);
    buf_append_span(&recovered->configuration, base->configuration);
    recovered->base = *base;
    recovered->base.configuration = buf_span(&recovered->configuration);
    if (base->reset) {
        recover_notes_cut(recovered, 0);
        recovered->entry_count = 0;
        return;
    }
    /* Entries that the base covers are of no more use. */
    size_t covered = 0;
    while (covered < recovered->entry_count && recovered->entries[covered].index <= base->index) {
        covered++;
    }
    recovered->entry_count -= covered;
    if (covered > 0 && recovered->entry_count > 0) {
        memmove(recovered->entries, recovered->entries + covered,
                recovered->entry_count * sizeof *recovered->entries);
    }
}

static void recover_snapshot(
        struct storage_recovered *recovered, const struct wal_snapshot *snapshot)
{
    for (size_t i = 0; i < recovered->snapshot_count; i++) {
        if (recovered->snapshots[i].index == snapshot->index) {
            return;
        }
    }
    recovered->snapshots = xrealloc(
            recovered->snapshots, (recovered->snapshot_count + 1) * sizeof *recovered->snapshots);
    recovered->snapshots[recovered->snapshot_count++] =
            (struct storage_snapshot){ snapshot->index, snapshot->term };
}

static int read_all(struct wal *wal, struct storage_recovered *recovered, struct err *err)
{
    struct wal_record record;
    size_t capacity = 0;
    int result;

    while ((result = wal_read(wal, &record, err)) > 0) {
        switch (record.kind) {
        case WAL_RECORD_BASE:
            recover_base(recovered, &record.base);
            break;
        case WAL_RECORD_HARD_STATE:
            recovered->hard = (struct raft_hard_state){ record.hard.term, record.hard.vote,
                record.hard.commit };
            break;
        case WAL_RECORD_CUT:
            recover_cut(recovered, record.cut_index);
            break;
        case WAL_RECORD_ENTRY:
            recover_entry(recovered, &capacity, &record.entry);
            break;
        case WAL_RECORD_SNAPSHOT:
            recover_snapshot(recovered, &record.snapshot);
            break;
        default:
            return err_set(err, -EBADMSG, "record of kind %d in the log; a newer version wrote it",
                    (int)record.kind);
        }
    }
    recovered->torn_bytes = wal_torn_bytes(wal);
    return result;
}

int recovery_read(struct wal *wal, struct storage_recovered *ret_recovered, struct err *err)
{
    struct storage_recovered recovered = { 0 };
    int result = read_all(wal, &recovered, err);

    if (result < 0) {
        storage_recovered_fini(&recovered);
        return result;
    }
    *ret_recovered = recovered;
    /* The struct was copied: its span must follow the buffer. */
    ret_recovered->base.configuration = buf_span(&ret_recovered->configuration);
    return 0;
}

void recovery_add_entry(struct storage_recovered *recovered, const struct raft_entry *entry)
{
    INVARIANT_EQ(entry->index, recovery_last_index(recovered) + 1);
    recovered->entries =
            xrealloc(recovered->entries, (recovered->entry_count + 1) * sizeof *recovered->entries);
    recovered->entries[recovered->entry_count] = *entry;
    recovered->entries[recovered->entry_count++].data.data = NULL;
    if (membership_is_concerned(entry->data)) {
        recover_note(recovered, entry->index, entry->data);
    }
}

uint64_t recovery_last_index(const struct storage_recovered *recovered)
{
    return recovered->base.index + recovered->entry_count;
}

uint64_t recovery_time_ns(const struct storage_recovered *recovered, uint64_t index)
{
    INVARIANT_LE(recovered->base.index, index);
    INVARIANT_LE(index, recovery_last_index(recovered));
    return index == recovered->base.index
                   ? recovered->base.cluster_time_ns
                   : recovered->entries[index - recovered->base.index - 1].time_ns;
}

int recovery_members(const struct storage_recovered *recovered, uint64_t index,
        struct membership *ret_membership, struct raft **ret_core, struct err *err)
{
    struct raft_options options = raft_options_default;
    struct membership membership = { 0 };
    struct raft_members roles;

    TRY(membership_decode(buf_span(&recovered->configuration), &membership, err));
    membership_roles(&membership, &roles);
    struct raft_base base = { .index = recovered->base.index,
        .term = recovered->base.term,
        .time_ns = recovered->base.cluster_time_ns,
        .members = roles };
    options.self_id = MAX(recovered->base.member_id, (uint64_t)1); /* it is never stepped */
    struct raft *core = raft_new(&options, &recovered->hard, &base);
    membership_roles_fini(&roles);
    if (raft_load_entries(
                core, (struct raft_entry_span){ recovered->entries, recovered->entry_count }) < 0) {
        (void)raft_free(core);
        membership_fini(&membership);
        return err_set(err, -EBADMSG, "the log does not continue its base at index %" PRIu64,
                recovered->base.index);
    }
    for (size_t i = 0; i < recovered->note_count && recovered->notes[i].index <= index; i++) {
        membership_note(&membership, recovered->notes[i].index, buf_span(&recovered->notes[i].op));
    }
    *ret_membership = membership;
    *ret_core = core;
    return 0;
}
