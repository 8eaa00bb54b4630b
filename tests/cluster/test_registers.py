"""The checker itself: what it accepts, and above all what it must not."""

import random

import pytest

from registers import ANY, Operation, is_linearizable


def w(value, began, ended, replaced=ANY):
    return Operation("write", value, replaced, began, ended)


def r(result, began, ended):
    return Operation("read", None, result, began, ended)


def cas(expected, new, swapped, began, ended):
    return Operation("cas", (expected, new), swapped, began, ended)


GOOD = {
    "nothing": [],
    "a read of nothing": [r(None, 0, 1)],
    "one after the other": [w(1, 0, 1), r(1, 2, 3), w(2, 4, 5), r(2, 6, 7)],
    "reads beside a write see old or new": [w(1, 0, 10), r(None, 1, 2), r(1, 3, 4)],
    "two writes at once, either first": [w(1, 0, 10), w(2, 0, 10), r(1, 11, 12)],
    "two writes at once, the other first": [w(1, 0, 10), w(2, 0, 10), r(2, 11, 12)],
    "an unknown write that took effect late": [w(1, 0, 1), w(2, 2, None), r(1, 3, 4), r(2, 5, 6)],
    "an unknown write that never did": [w(1, 0, 1), w(2, 2, None), r(1, 3, 4), r(1, 50, 60)],
    "a swap": [w(1, 0, 1), cas(1, 2, True, 2, 3), r(2, 4, 5)],
    "a swap that failed": [w(1, 0, 1), cas(3, 2, False, 2, 3), r(1, 4, 5)],
    "of two swaps at once one": [w(1, 0, 1), cas(1, 2, True, 2, 9), cas(1, 3, False, 2, 9), r(2, 10, 11)],
    "an unknown swap that took effect": [w(1, 0, 1), cas(1, 2, None, 2, None), r(2, 3, 4)],
    "writes that say what they replaced": [w(1, 0, 9, None), w(2, 0, 9, 1), r(2, 10, 11)],
    "a failed swap that says what it found": [w(1, 0, 1), w(2, 0, None), cas(1, 3, ("was", 2), 4, 5)],
    "an unknown swap that did not": [w(1, 0, 1), cas(1, 2, None, 2, None), r(1, 3, 4)],
}

BAD = {
    "a value from nowhere": [r(1, 0, 1)],
    "a lost write": [w(1, 0, 1), r(None, 2, 3)],
    "a stale read": [w(1, 0, 1), w(2, 2, 3), r(1, 4, 5)],
    "new, then old": [w(1, 0, 1), w(2, 2, 20), r(2, 3, 4), r(1, 5, 6)],
    "new, then nothing": [w(1, 0, 20), r(1, 3, 4), r(None, 5, 6)],
    "from the future": [r(1, 0, 1), w(1, 2, 3)],
    "from an unknown write's future": [r(1, 0, 1), w(1, 2, None)],
    "an unknown write takes effect twice": [w(1, 0, 1), w(2, 2, None), r(2, 3, 4), w(3, 5, 6), r(2, 7, 8)],
    "an unknown write is undone": [w(1, 0, 1), w(2, 2, None), r(2, 3, 4), r(1, 5, 6)],
    "two readers disagree on the order": [w(1, 0, 10), w(2, 0, 10), r(1, 11, 12), r(2, 13, 14), r(1, 15, 16)],
    "both writes are gone": [w(1, 0, 10), w(2, 0, 10), r(None, 11, 12)],
    "a swap of what was not there": [w(1, 0, 1), cas(2, 3, True, 2, 3)],
    "a swap that must have worked": [w(1, 0, 1), cas(1, 3, False, 2, 3)],
    "both of two swaps": [w(1, 0, 1), cas(1, 2, True, 2, 9), cas(1, 3, True, 2, 9)],
    "none of two swaps": [w(1, 0, 1), cas(1, 2, False, 2, 9), cas(1, 3, False, 2, 9)],
    "a swap whose effect is not seen": [w(1, 0, 1), cas(1, 2, True, 2, 3), r(1, 4, 5)],
    "a failed swap whose effect is seen": [w(1, 0, 1), cas(5, 2, False, 2, 3), r(2, 4, 5)],
    "a swap acknowledged and later lost": [w(1, 0, 1), cas(1, 2, True, 2, 3), cas(1, 3, True, 4, 5)],
    "a swap on a value that was overwritten": [w(1, 0, 1), w(2, 2, 3), cas(1, 9, True, 4, 5)],
    "a write lost under a later read of an older one": [w(1, 0, 1), w(2, 2, 3), w(3, 4, 5), r(2, 6, 7)],
    "a read between two acknowledged writes of neither": [w(1, 0, 1), r(3, 2, 3), w(2, 4, 5)],
    "an overlapping read of an overwritten value": [w(1, 0, 1), w(2, 2, 3), w(3, 4, 9), r(1, 5, 6)],
    "the same value back without a write": [w(1, 0, 1), w(2, 2, 3), r(2, 4, 5), r(1, 6, 7), r(2, 8, 9)],
    "nothing after a swap": [w(1, 0, 1), cas(1, 2, True, 2, 3), r(None, 4, 5)],
    "an unknown swap seen, then not": [w(1, 0, 1), cas(1, 2, None, 2, None), r(2, 3, 4), r(1, 5, 6)],
    "an unknown swap of what never was": [w(1, 0, 1), cas(7, 8, None, 2, None), r(8, 3, 4)],
    "a long overlap does not excuse a stale read": [w(9, 0, 100), w(1, 1, 2), w(2, 3, 4), r(1, 5, 6), r(2, 7, 8), r(1, 9, 10)],
    "two long overlaps neither": [w(8, 0, 100), w(9, 0, 100), w(1, 1, 2), r(1, 3, 4), r(8, 5, 6), r(9, 7, 8), r(8, 9, 10)],
    "a read of the first value after its swap failed by the second": [w(1, 0, 1), w(2, 2, 3), cas(1, 5, False, 4, 5), r(1, 6, 7)],
    "a write before all, unseen by the last": [w(1, 0, 1), r(1, 2, 3), r(None, 4, 5)],
    "acknowledged twice, counted once": [cas(None, 1, True, 0, 1), cas(None, 2, True, 2, 3)],
    "a write that replaced what was gone": [w(1, 0, 1, None), w(2, 2, 3, 1), w(3, 4, 5, 1)],
    "two writes that replaced the same": [w(1, 0, 1, None), w(2, 2, 9, 1), w(3, 2, 9, 1)],
    "a failed swap that found what was gone": [w(1, 0, 1), w(2, 2, 3), cas(5, 6, ("was", 1), 4, 5)],
    "a failed swap that found what it wanted": [w(1, 0, 1), cas(1, 6, ("was", 1), 4, 5)],
    "a write acknowledged under a pause": [w(1, 0, 1), w(2, 2, 50), r(1, 51, 52)],
}


@pytest.mark.parametrize("name", GOOD)
def test_accepts(name):
    assert is_linearizable(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_rejects(name):
    assert not is_linearizable(BAD[name])


def test_accepts_what_a_register_did_and_rejects_it_with_one_result_changed():
    for seed in range(200):
        rng = random.Random(seed)
        state, now, history, reads = None, 0.0, [], []
        for _ in range(40):
            # The effect lies at `now`; the calls reach around it, over each other.
            now += 1
            began, ended = now - rng.random() * 3, now + rng.random() * 3
            kind = rng.choice(["write", "read", "cas"])
            if kind == "write":
                state = rng.randrange(1000)
                history.append(w(state, began, ended if rng.random() < 0.9 else None))
            elif kind == "read":
                reads.append(len(history))
                history.append(r(state, began, ended))
            else:
                expected, new = rng.choice([state, 1001]), rng.randrange(1000)
                history.append(cas(expected, new, state == expected, began, ended))
                state = new if state == expected else state
        assert is_linearizable(history), seed
        if reads:
            spoiled = list(history)
            spoiled[reads[0]] = spoiled[reads[0]]._replace(result=2000)
            assert not is_linearizable(spoiled), seed
