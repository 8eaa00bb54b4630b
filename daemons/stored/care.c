/* care.c: readers of the state that hold back its pages.
 *
 * An open read transaction keeps all pages freed since from being used again, and a killed process leaves its own open. So
 * each second, and whenever a subscriber is lost, the slots of dead processes are freed; one that stays on the same
 * transaction for two seconds while others were committed is reported, and whoever started it is asked to end it. */
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/notify.h"
#include "daemons/stored/stored_impl.h"

enum {
    CARE_MS = 1000,
    OLD_MS = 2000,
    READERS_MAX = 256
};

struct seen_reader {
    uint64_t pid;
    uint64_t txn_id;
    uint64_t since_ms;
    bool still_there;
};

struct readers {
    struct seen_reader seen[READERS_MAX];
    size_t count;
    uint64_t now_ms;
    uint64_t last_txn_id;
};

static void report(const struct seen_reader *reader, uint64_t now_ms, uint64_t last_txn_id)
{
    log_warning("stored.reader.old",
            "pid=%" PRIu64 " age_ms=%" PRIu64 " transactions_behind=%" PRIu64
            " action=ask_supervisor_to_end_it",
            reader->pid, now_ms - reader->since_ms, last_txn_id - reader->txn_id);
    notify_end_process((long)reader->pid);
}

static void on_reader(void *user, uint64_t pid, uint64_t txn_id)
{
    struct readers *readers = user;

    if (pid == (uint64_t)getpid() || txn_id >= readers->last_txn_id) {
        return; /* our own copy, or nothing is held back */
    }
    for (size_t i = 0; i < readers->count; i++) {
        struct seen_reader *reader = &readers->seen[i];
        if (reader->pid == pid && reader->txn_id == txn_id) {
            reader->still_there = true;
            return;
        }
    }
    if (readers->count < READERS_MAX) {
        readers->seen[readers->count++] = (struct seen_reader){
            .pid = pid, .txn_id = txn_id, .since_ms = readers->now_ms, .still_there = true
        };
    }
}

static void look_at_readers(struct stored *stored, struct state_writer *writer)
{
    struct readers *readers = stored->readers;
    size_t kept = 0;

    readers->now_ms = clock_monotonic_ms();
    readers->last_txn_id = state_writer_txn_id(writer);
    for (size_t i = 0; i < readers->count; i++) {
        readers->seen[i].still_there = false;
    }
    state_writer_reader_list(writer, on_reader, readers);
    for (size_t i = 0; i < readers->count; i++) {
        struct seen_reader reader = readers->seen[i];
        if (!reader.still_there) {
            continue;
        }
        if (readers->now_ms - reader.since_ms >= OLD_MS) {
            report(&reader, readers->now_ms, readers->last_txn_id);
        }
        readers->seen[kept++] = reader;
    }
    readers->count = kept;
}

void care_check_readers(struct stored *stored)
{
    struct replica *replica = generations_replica(stored->generations);

    if (replica != NULL) {
        int dead = state_writer_reader_check(replica_writer(replica));
        if (dead > 0) {
            log_info("stored.reader.dead", "slots_freed=%d", dead);
        }
    }
}

static void on_care_timer(void *user)
{
    struct stored *stored = user;
    struct replica *replica = generations_replica(stored->generations);

    notify_watchdog();
    care_check_readers(stored);
    if (replica != NULL) {
        look_at_readers(stored, replica_writer(replica));
        compaction_consider(stored);
        fold_counters(stored);
    }
}

int care_start(struct stored *stored, struct err *err)
{
    (void)err;
    stored->readers = xcalloc(1, sizeof *stored->readers);
    stored->care_timer = loop_timer_new(stored->loop, on_care_timer, stored);
    loop_timer_start(stored->care_timer, CARE_MS, CARE_MS);
    return 0;
}

void care_stop(struct stored *stored)
{
    stored->care_timer = loop_timer_free(stored->care_timer);
    free(stored->readers);
    stored->readers = NULL;
}
