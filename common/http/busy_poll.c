#include "common/http/busy_poll.h"

enum {
    SHORT_GAPS_MIN = 4, /* of the last eight */
};

static void note_gap(struct busy_poll *poll, uint64_t now_ns)
{
    uint64_t gap_ns = now_ns - poll->answered_ns;
    uint64_t short_ns = poll->was_awake ? BUSY_POLL_NS : BUSY_POLL_NS + BUSY_POLL_WAKE_NS;

    poll->short_gaps = (uint8_t)(poll->short_gaps << 1 | (gap_ns < short_ns ? 1 : 0));
    poll->answered_ns = 0;
}

bool busy_poll_goes_on(struct busy_poll *poll, const struct busy_poll_turn *turn)
{
    if (turn->asked && poll->answered_ns != 0) {
        note_gap(poll, turn->now_ns);
    }
    if (turn->answered) {
        poll->answered_ns = turn->now_ns;
        poll->was_awake = !turn->awaits && __builtin_popcount(poll->short_gaps) >= SHORT_GAPS_MIN;
    }
    poll->is_on = poll->answered_ns != 0 && poll->was_awake && !turn->awaits &&
                  turn->now_ns - poll->answered_ns < BUSY_POLL_NS;
    return poll->is_on;
}
