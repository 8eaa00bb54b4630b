/* check.c: one book of what is true, kept from what any member says, and every member held against it. */
#include "tests/sim/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

void check_fini(struct check *check)
{
    free(check->entries);
    free(check->leaders);
    free(check->committed);
    free(check->committed_in);
    free(check->states);
    free(check->members);
    *check = (struct check){ 0 };
}

static void print_node(const struct node *node)
{
    static const char roles[] = "fpcL";
    static const char states[] = "PRS";
    struct raft_status status;
    struct raft_peer_status peer;
    (void)printf("  node %" PRIu64 " disk=%" PRIu64 "..%" PRIu64 " queued=%zu state=%" PRIu64,
            node->id, node->store.ledger.base.index, ledger_last_index(&node->store.ledger),
            node->store.ledger.queued, node->state.index);
    if (!node->up) {
        (void)printf(" %s\n", node->gone ? "removed" : "down");
        return;
    }
    raft_get_status(node->raft, &status);
    (void)printf(" stored=%d %c term=%" PRIu64 " leader=%" PRIu64 " base=%" PRIu64
                 " snapshot=%" PRIu64 " commit=%" PRIu64 " handed=%" PRIu64 " applied=%" PRIu64
                 " durable=%" PRIu64 " last=%" PRIu64 " reads=%zu\n",
            node->stored_up, roles[status.role], status.term, status.leader_id, status.base_index,
            status.snapshot_index, status.commit_index, status.handed_index, status.applied_index,
            status.durable_index, status.last_index, node->read_count);
    for (size_t i = 0; raft_get_peer_status(node->raft, i, &peer); i++) {
        (void)printf("    peer %" PRIu64 "%s %c match=%" PRIu64 " next=%" PRIu64 " active=%d\n",
                peer.id, peer.is_learner ? " (learner)" : "", states[peer.state], peer.match_index,
                peer.next_index, peer.is_active);
    }
}

void check_fail(const struct sim *sim, const char *format, ...)
{
    va_list args;
    (void)printf("FAILED seed=%" PRIu64 " at_ms=%" PRIu64 ": ", sim->seed, sim->now_ns / SIM_MS);
    va_start(args, format);
    (void)vprintf(format, args);
    va_end(args);
    (void)printf("\n");
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        if (sim->nodes[i].id != 0) {
            print_node(&sim->nodes[i]);
        }
    }
    (void)fflush(stdout);
    exit(1);
}

static uint64_t digest_entry(const struct raft_entry *entry)
{
    uint64_t hash = machine_mix(1, entry->index);
    hash = machine_mix(hash, entry->term);
    hash = machine_mix(hash, entry->time_ns);
    hash = machine_mix(hash, (uint64_t)entry->kind);
    if (entry->kind == RAFT_ENTRY_CONFIG) {
        hash = machine_mix(
                machine_mix(hash, (uint64_t)entry->change.kind), entry->change.member_id);
    }
    for (size_t i = 0; i < entry->data.bytes; i++) {
        hash = machine_mix(hash, entry->data.data[i]);
    }
    return hash;
}

/* ---- Log matching --------------------------------------------------------------------------------------------- */

static struct check_entry *find_entry(struct check *check, uint64_t index, uint64_t term)
{
    size_t slot = (size_t)machine_mix(index, term) & (check->entry_capacity - 1);
    while (check->entries[slot].index != 0 &&
            (check->entries[slot].index != index || check->entries[slot].term != term)) {
        slot = (slot + 1) & (check->entry_capacity - 1);
    }
    return &check->entries[slot];
}

static void grow_entries(struct check *check)
{
    struct check bigger = { .entry_capacity =
                                    check->entry_capacity == 0 ? 4096 : check->entry_capacity * 2 };
    bigger.entries = xcalloc(bigger.entry_capacity, sizeof *bigger.entries);
    for (size_t i = 0; i < check->entry_capacity; i++) {
        const struct check_entry *entry = &check->entries[i];
        if (entry->index != 0) {
            *find_entry(&bigger, entry->index, entry->term) = *entry;
        }
    }
    free(check->entries);
    check->entries = bigger.entries;
    check->entry_capacity = bigger.entry_capacity;
}

/* A leader begins a change. */
static void check_change(
        struct sim *sim, const struct node *leader, const struct raft_entry *change)
{
    struct raft_status status;
    raft_get_status(leader->raft, &status);
    if (raft_term_at(leader->raft, status.commit_index) != status.term) {
        check_fail(sim,
                "leader %" PRIu64 " changes the members at %" PRIu64
                " before it has committed an entry of its term",
                leader->id, change->index);
    }
    for (uint64_t index = status.commit_index + 1; index < change->index; index++) {
        if (find_entry(&sim->check, index, raft_term_at(leader->raft, index))->is_change) {
            check_fail(sim,
                    "leader %" PRIu64 " changes the members at %" PRIu64
                    " while the change at %" PRIu64 " is not committed",
                    leader->id, change->index, index);
        }
    }
}

static void check_append(struct sim *sim, const struct node *node, struct raft_entry_span entries)
{
    struct check *check = &sim->check;
    for (size_t i = 0; i < entries.count; i++) {
        const struct raft_entry *entry = &entries.items[i];
        if (2 * (check->entry_count + 1) > check->entry_capacity) {
            grow_entries(check);
        }
        uint64_t prev_term = raft_term_at(node->raft, entry->index - 1);
        uint64_t content = digest_entry(entry);
        struct check_entry *known = find_entry(check, entry->index, entry->term);
        if (known->index == 0) {
            *known = (struct check_entry){ .index = entry->index,
                .term = entry->term,
                .prev_term = prev_term,
                .content = content,
                .time_ns = entry->time_ns,
                .is_change = entry->kind == RAFT_ENTRY_CONFIG,
                .stamped_at_ns = sim->now_ns };
            if (known->is_change) {
                check_change(sim, node, entry);
            }
            check->entry_count++;
        } else if (known->content != content || known->prev_term != prev_term) {
            check_fail(sim,
                    "node %" PRIu64 " appended another entry at index %" PRIu64 " term %" PRIu64
                    " than there is already",
                    node->id, entry->index, entry->term);
        }
        if (prev_term != 0 && entry->index > 1 &&
                find_entry(check, entry->index - 1, prev_term)->time_ns > entry->time_ns) {
            check_fail(sim, "cluster time falls at index %" PRIu64, entry->index);
        }
    }
}

/* ---- Leaders -------------------------------------------------------------------------------------------------- */

static void check_leader(struct sim *sim, const struct node *node, const struct raft_status *status)
{
    struct check *check = &sim->check;
    if (status->term >= check->leader_capacity) {
        size_t capacity = (size_t)status->term * 2 + 64;
        check->leaders = xrealloc(check->leaders, capacity * sizeof *check->leaders);
        memset(check->leaders + check->leader_capacity, 0,
                (capacity - check->leader_capacity) * sizeof *check->leaders);
        check->leader_capacity = capacity;
    }
    if (check->leaders[status->term] != 0 && check->leaders[status->term] != node->id) {
        check_fail(sim, "two leaders in term %" PRIu64 ": %" PRIu64 " and %" PRIu64, status->term,
                check->leaders[status->term], node->id);
    }
    check->leaders[status->term] = node->id;
    struct raft_members members;
    raft_get_members(node->raft, &members);
    sim->was_alone |= members.voters.count == 1;
    sim->totals[SIM_ELECTIONS]++;
    for (uint64_t index = status->base_index + 1; index <= check->committed_last; index++) {
        if (check->committed_in[index] < status->term &&
                raft_term_at(node->raft, index) != check->committed[index]) {
            check_fail(sim, "leader %" PRIu64 " of term %" PRIu64 " lacks committed %" PRIu64,
                    node->id, status->term, index);
        }
    }
}

/* ---- Committed ------------------------------------------------------------------------------------------------ */

static void reserve_committed(struct check *check, uint64_t index)
{
    if (index < check->committed_capacity) {
        return;
    }
    size_t known = check->committed_capacity;
    check->committed_capacity = (size_t)index * 2 + 1024;
    check->committed =
            xrealloc(check->committed, check->committed_capacity * sizeof *check->committed);
    check->committed_in =
            xrealloc(check->committed_in, check->committed_capacity * sizeof *check->committed_in);
    check->states = xrealloc(check->states, check->committed_capacity * sizeof *check->states);
    check->members = xrealloc(check->members, check->committed_capacity * sizeof *check->members);
    memset(check->members + known, 0, (check->committed_capacity - known) * sizeof *check->members);
    check->committed[0] = 0;
    check->states[0] = 1;
}

/* A leader says that index is committed: is it where a power cut would leave it? */
static void check_quorum_has(struct sim *sim, const struct node *leader, uint64_t index)
{
    struct raft_members members;
    raft_get_members(leader->raft, &members);
    uint64_t term = raft_term_at(leader->raft, index);
    size_t have = 0;
    for (size_t i = 0; i < members.voters.count; i++) {
        const struct node *voter = sim_find_node(sim, members.voters.items[i]);
        have += voter != NULL && (ledger_term(&voter->store.ledger, index) == term ||
                                         voter->store.ledger.base.index > index);
    }
    if (have < members.voters.count / 2 + 1) {
        check_fail(sim, "leader %" PRIu64 " committed %" PRIu64 " which only %zu of %zu disks have",
                leader->id, index, have, members.voters.count);
    }
}

static uint64_t digest_ids(uint64_t hash, struct raft_ids ids)
{
    hash = machine_mix(hash, ids.count);
    for (size_t i = 0; i < ids.count; i++) {
        hash = machine_mix(hash, ids.items[i]);
    }
    return hash;
}

/* Who is a member at an index that is committed. */
static void check_members(struct sim *sim, const struct node *node, uint64_t index)
{
    struct raft_members members;
    if (index == 0 || !raft_get_members_at(node->raft, index, &members)) {
        return;
    }
    uint64_t digest = digest_ids(
            digest_ids(digest_ids(1, members.voters), members.learners), members.removed);
    uint64_t *known = &sim->check.members[index];
    if (*known != 0 && *known != digest) {
        check_fail(sim, "node %" PRIu64 " has other members at %" PRIu64, node->id, index);
    }
    *known = digest;
}

static void check_commit(struct sim *sim, struct node *node, const struct raft_status *status)
{
    struct check *check = &sim->check;
    uint64_t index = MAX(node->commit_seen, status->base_index);
    if (status->commit_index < node->commit_seen) {
        check_fail(sim, "node %" PRIu64 ": commit fell from %" PRIu64 " to %" PRIu64, node->id,
                node->commit_seen, status->commit_index);
    }
    if (status->commit_index > check->committed_last) {
        if (status->role != RAFT_ROLE_LEADER && node->role_seen != RAFT_ROLE_LEADER) {
            check_fail(sim, "node %" PRIu64 " commits %" PRIu64 " before any leader did", node->id,
                    status->commit_index);
        }
        if (raft_term_at(node->raft, status->commit_index) != status->term) {
            check_fail(sim,
                    "leader %" PRIu64 " of term %" PRIu64 " committed %" PRIu64
                    ", which is of another term",
                    node->id, status->term, status->commit_index);
        }
        check_quorum_has(sim, node, status->commit_index);
    }
    reserve_committed(check, status->commit_index);
    if (status->base_index > node->commit_seen) {
        check_members(sim, node, status->base_index);
    }
    while (++index <= status->commit_index) {
        check_members(sim, node, index);
        uint64_t term = raft_term_at(node->raft, index);
        if (index > check->committed_last) {
            check->committed[index] = term;
            check->committed_in[index] = status->term;
            check->committed_last = index;
            sim->totals[SIM_COMMITTED]++;
        } else if (check->committed[index] != term) {
            check_fail(sim,
                    "node %" PRIu64 " committed %" PRIu64 " with term %" PRIu64
                    ", but it was term %" PRIu64,
                    node->id, index, term, check->committed[index]);
        }
    }
    node->commit_seen = status->commit_index;
}

/* What the core takes for durable is on the disk, whatever part of the queue a power cut lets through. */
static void check_durable(
        struct sim *sim, const struct node *node, const struct raft_status *status)
{
    uint64_t index = status->durable_index;
    bool is_safe = index == 0 ||
                   ledger_term(&node->store.ledger, index) == raft_term_at(node->raft, index);
    for (const struct ledger_write *write = node->store.ledger.queue; write != NULL;
            write = write->next) {
        is_safe &= !write->cut || write->cut_index >= index;
        is_safe &= !write->rebased || write->is_snapshot || index == 0;
    }
    if (!is_safe) {
        check_fail(sim, "node %" PRIu64 " takes %" PRIu64 " for durable, which is not", node->id,
                index);
    }
}

void check_step(struct sim *sim, struct node *node, const struct raft_ready *ready)
{
    struct raft_status status;
    raft_get_status(node->raft, &status);
    check_append(sim, node, ready->write.append);
    check_durable(sim, node, &status);
    if (status.term < node->term_seen) {
        check_fail(sim, "node %" PRIu64 ": term fell", node->id);
    }
    if (status.role == RAFT_ROLE_LEADER &&
            (node->role_seen != RAFT_ROLE_LEADER || node->term_seen != status.term)) {
        check_leader(sim, node, &status);
    }
    if (sim->verbose && ready->state_changed) {
        (void)printf("%8" PRIu64 " ms node %" PRIu64 ": role %d term %" PRIu64 " leader %" PRIu64
                     " last %" PRIu64 " commit %" PRIu64 " base %" PRIu64 "\n",
                sim->now_ns / SIM_MS, node->id, (int)status.role, status.term, status.leader_id,
                status.last_index, status.commit_index, status.base_index);
    }
    check_commit(sim, node, &status); /* one that commits its own removal leads no more */
    node->role_seen = status.role;
    node->term_seen = status.term;
}

/* ---- Messages ------------------------------------------------------------------------------------------------- */

/* A vote leaves, or the candidacy that is the vote for oneself. */
static void check_vote(struct sim *sim, struct node *node, const struct raft_message *message)
{
    bool is_own = message->kind == RAFT_MESSAGE_VOTE;
    uint64_t voted_for = is_own ? node->id : message->to;
    if (!is_own && (message->kind != RAFT_MESSAGE_VOTE_REPLY || message->reject)) {
        return;
    }
    if (node->voted_term == message->term && node->voted_for != voted_for) {
        check_fail(sim,
                "node %" PRIu64 " votes in term %" PRIu64 " for %" PRIu64 " and for %" PRIu64,
                node->id, message->term, node->voted_for, voted_for);
    }
    if (message->term >= node->voted_term) {
        node->voted_term = message->term;
        node->voted_for = voted_for;
    }
}

void check_sent(struct sim *sim, struct node *node, const struct raft_message *message)
{
    check_vote(sim, node, message);
    const struct node *leader = sim_find_node(sim, message->to);
    struct raft_status status;
    if (message->kind != RAFT_MESSAGE_APPEND_REPLY || message->reject || leader == NULL ||
            !leader->up) {
        return;
    }
    raft_get_status(leader->raft, &status);
    if (status.role != RAFT_ROLE_LEADER || status.term != message->term ||
            message->index <= MAX(status.base_index, node->store.ledger.base.index)) {
        return;
    }
    uint64_t has = ledger_term(&node->store.ledger, message->index);
    if (has != raft_term_at(leader->raft, message->index)) {
        check_fail(sim,
                "node %" PRIu64 " acknowledges %" PRIu64 " which on its disk is of term %" PRIu64
                ", at leader %" PRIu64 " of term %" PRIu64,
                node->id, message->index, has, leader->id,
                raft_term_at(leader->raft, message->index));
    }
}

void check_grant(struct sim *sim, const struct node *leader, uint64_t asked_at_ns)
{
    struct raft_members members;
    raft_get_members(leader->raft, &members);
    size_t heard = 0;
    for (size_t i = 0; i < members.voters.count; i++) {
        const struct node *voter = sim_find_node(sim, members.voters.items[i]);
        /* One that follows a later leader by now may have heard: unknown. */
        heard += voter == leader ||
                 (voter != NULL && (voter->beat_term > leader->term_seen ||
                                           (voter->beat_from == leader->id &&
                                                   voter->beat_term == leader->term_seen &&
                                                   voter->beat_sent_ns >= asked_at_ns)));
    }
    if (heard < members.voters.count / 2 + 1) {
        check_fail(sim,
                "leader %" PRIu64 " granted a read, and only %zu of %zu voters heard from it since",
                leader->id, heard, members.voters.count);
    }
}

void check_followed(struct sim *sim, const struct node *node, const struct raft_message *message,
        uint64_t commit_before)
{
    struct raft_status status;
    raft_get_status(node->raft, &status);
    uint64_t matched = message->index + message->entries.count;
    if (message->kind == RAFT_MESSAGE_APPEND && status.commit_index > MAX(commit_before, matched)) {
        check_fail(sim,
                "node %" PRIu64 " committed %" PRIu64 " by an append that reaches to %" PRIu64,
                node->id, status.commit_index, matched);
    }
}

/* ---- Members -------------------------------------------------------------------------------------------------- */

void check_promotion(struct sim *sim, const struct node *leader, uint64_t learner_id)
{
    const struct node *learner = sim_find_node(sim, learner_id);
    struct raft_status status;
    raft_get_status(leader->raft, &status);
    uint64_t has = learner == NULL ? 0 : ledger_last_index(&learner->store.ledger);
    if (has + sim->core.promote_within < status.last_index) {
        check_fail(sim,
                "leader %" PRIu64 " would promote %" PRIu64 ", which has %" PRIu64 " of %" PRIu64
                " entries",
                leader->id, learner_id, has, status.last_index);
    }
}

/* ---- Applied -------------------------------------------------------------------------------------------------- */

struct applying {
    struct sim *sim;
    const struct node *node;
};

/* What may make a key go early in truth: the leader's clock, fast by what clocks drift and by its slewing of 1 %; and the
 * errors of good wall clocks, which cluster time follows when it has to step: by up to a second it may have been behind
 * without a step, when the key was set. A lone voter trusts its own, whatever it says. And after a time without any leader one
 * that is behind can hold cluster time back, in a quorum of two, until the others are heard: the step that then comes is right
 * for what was set before, and early for what was set since: histories with such a clock are left out. */
static void on_expired(void *user, const struct machine_key *key, const struct raft_entry *entry)
{
    const struct applying *applying = user;
    struct check *check = &applying->sim->check;
    const struct check_entry *set = find_entry(check, key->set_index, key->set_term);
    const struct check_entry *passed = find_entry(check, entry->index, entry->term);
    if (set->index == 0 || passed->index == 0) {
        check_fail(applying->sim, "node %" PRIu64 " expires what nobody set", applying->node->id);
    }
    uint64_t ttl_ns = key->deadline_ns - set->time_ns;
    uint64_t lived_ns = passed->stamped_at_ns - set->stamped_at_ns;
    uint64_t tolerance_ns = ttl_ns / 50 + (1000 + 3 * CLOCKS_WALL_ERROR_MS) * SIM_MS;
    applying->sim->totals[SIM_EXPIRED]++;
    bool is_sure = applying->sim->liar_is_ahead && !applying->sim->was_alone;
    if (is_sure && lived_ns + tolerance_ns < ttl_ns) {
        check_fail(applying->sim,
                "a key set at index %" PRIu64 " for %" PRIu64 " ms was expired by %" PRIu64
                " after %" PRIu64 " ms: cluster time went from %" PRIu64 " to %" PRIu64
                " ms, the wall clock of slot %zu is wrong by %" PRId64 " ms",
                key->set_index, ttl_ns / SIM_MS, entry->index, lived_ns / SIM_MS,
                (set->time_ns - UINT64_C(1700000000000000000)) / SIM_MS,
                (passed->time_ns - UINT64_C(1700000000000000000)) / SIM_MS, applying->sim->liar,
                applying->sim->nodes[applying->sim->liar].clocks.wall_error_ns / (int64_t)SIM_MS);
    }
}

void check_apply(struct sim *sim, struct node *node, const struct raft_entry *entry)
{
    struct check *check = &sim->check;
    struct applying applying = { sim, node };
    if (entry->index > check->committed_last || check->committed[entry->index] != entry->term) {
        check_fail(sim, "node %" PRIu64 " applied %" PRIu64 ", which is not committed", node->id,
                entry->index);
    }
    machine_apply(&node->state, entry, digest_entry(entry), on_expired, &applying);
    if (entry->index == check->states_last + 1) {
        check->states_last = entry->index;
        check->states[entry->index] = node->state.digest;
    } else if (entry->index > check->states_last ||
               check->states[entry->index] != node->state.digest) {
        check_fail(sim, "node %" PRIu64 " has another state at %" PRIu64, node->id, entry->index);
    }
}
