/* clusterclock.c: an anchor, a rate, and one decision per round. */
#include "daemons/raftd/raft/clusterclock.h"

uint64_t clusterclock_now(const struct clusterclock *clock, uint64_t boot_ns)
{
    if (clock->anchor_ns == 0) {
        return 0;
    }
    uint64_t elapsed_ns = boot_ns > clock->anchor_boot_ns ? boot_ns - clock->anchor_boot_ns : 0;
    uint64_t slewed_ns = elapsed_ns / CLUSTERCLOCK_SLEW_DIVISOR;
    if (clock->slew > 0) {
        elapsed_ns += slewed_ns;
    } else if (clock->slew < 0) {
        elapsed_ns -= slewed_ns;
    }
    return clock->anchor_ns + elapsed_ns;
}

static void set_anchor(struct clusterclock *clock, uint64_t time_ns, uint64_t boot_ns, int slew)
{
    clock->anchor_ns = time_ns;
    clock->anchor_boot_ns = boot_ns;
    clock->slew = slew;
}

void clusterclock_observe(struct clusterclock *clock, uint64_t time_ns, uint64_t boot_ns)
{
    if (time_ns >= clock->anchor_ns && time_ns > 0) {
        set_anchor(clock, time_ns, boot_ns, 0);
    }
}

void clusterclock_follow(struct clusterclock *clock, uint64_t time_ns, uint64_t boot_ns)
{
    if (time_ns > 0) {
        set_anchor(clock, time_ns, boot_ns, 0);
    }
}

void clusterclock_step(struct clusterclock *clock, uint64_t time_ns, uint64_t boot_ns)
{
    if (time_ns > clusterclock_now(clock, boot_ns)) {
        set_anchor(clock, time_ns, boot_ns, 0);
    }
}

static void sort(int64_t *items, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        int64_t item = items[i];
        size_t j = i;
        for (; j > 0 && items[j - 1] > item; j--) {
            items[j] = items[j - 1];
        }
        items[j] = item;
    }
}

/* The lower one of an even count: a single clock that is far ahead must not decide. */
static int64_t median_of(int64_t *offsets_ns, size_t count)
{
    sort(offsets_ns, count);
    return offsets_ns[(count - 1) / 2];
}

void clusterclock_lead(struct clusterclock *clock, int64_t *offsets_ns, size_t count, size_t voters,
        uint64_t boot_ns)
{
    uint64_t now_ns = clusterclock_now(clock, boot_ns);
    clock->ahead_rounds = 0;
    clock->begin_rounds = 0;
    clock->is_disputed = false;
    set_anchor(clock, now_ns, boot_ns, 0);
    if (now_ns == 0 || voters < 2 || count < voters / 2 + 1) {
        return;
    }
    int64_t median_ns = median_of(offsets_ns, count);
    int64_t step_ns = median_ns > CLUSTERCLOCK_STEP_NS ? median_ns : 0;
    set_anchor(clock, now_ns + (uint64_t)step_ns, boot_ns, 0);
    clock->is_disputed = offsets_ns[count - 1] - step_ns > CLUSTERCLOCK_STEP_NS;
}

bool clusterclock_is_settled(const struct clusterclock *clock)
{
    return clock->anchor_ns != 0 && !clock->is_disputed;
}

/* Whether a beginning leader has heard enough clocks: all, or a quorum for a while. */
static bool has_heard_enough(struct clusterclock *clock, size_t count, size_t voters)
{
    bool is_quorum = count >= voters / 2 + 1;
    return is_quorum && (count >= voters || ++clock->begin_rounds >= CLUSTERCLOCK_STEP_ROUNDS);
}

void clusterclock_settle(struct clusterclock *clock, int64_t *offsets_ns, size_t count,
        size_t voters, uint64_t boot_ns)
{
    if (!has_heard_enough(clock, count, voters)) {
        return;
    }
    int64_t median_ns = median_of(offsets_ns, count);
    if (median_ns > CLUSTERCLOCK_STEP_NS) {
        set_anchor(clock, clusterclock_now(clock, boot_ns) + (uint64_t)median_ns, boot_ns, 0);
    }
    clock->is_disputed = false;
}

void clusterclock_begin(struct clusterclock *clock, int64_t *walls_ns, size_t count, size_t voters,
        uint64_t boot_ns)
{
    if (!has_heard_enough(clock, count, voters)) {
        return;
    }
    sort(walls_ns, count);
    set_anchor(clock, (uint64_t)walls_ns[count / 2], boot_ns, 0);
}

void clusterclock_round(struct clusterclock *clock, int64_t *offsets_ns, size_t count,
        size_t voters, uint64_t boot_ns)
{
    uint64_t now_ns = clusterclock_now(clock, boot_ns);
    if (count == 0 || count < voters / 2 + 1) {
        clock->ahead_rounds = 0;
        set_anchor(clock, now_ns, boot_ns, 0);
        return;
    }
    int64_t median_ns = median_of(offsets_ns, count);
    if (median_ns > CLUSTERCLOCK_STEP_NS) {
        bool is_step = voters > 1 && ++clock->ahead_rounds >= CLUSTERCLOCK_STEP_ROUNDS;
        set_anchor(clock, is_step ? now_ns + (uint64_t)median_ns : now_ns, boot_ns, 0);
        clock->ahead_rounds = is_step ? 0 : clock->ahead_rounds;
        return;
    }
    clock->ahead_rounds = 0;
    int slew = median_ns > CLUSTERCLOCK_DEADBAND_NS
                       ? 1
                       : (median_ns < -CLUSTERCLOCK_DEADBAND_NS ? -1 : 0);
    set_anchor(clock, now_ns, boot_ns, slew);
}
