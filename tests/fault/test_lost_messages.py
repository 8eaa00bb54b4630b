"""A message lost on a link of the ring: noticed by itself and made good, nothing applied or answered twice.

What the links are made for is shown in virtual time, tests/unit/proto/test_link_time.c: 310 ms after one loss, 610 ms after two.
Here the real ring loses messages, and how long that took is printed.
"""

import time

import pytest

import harness
from harness import Keys, comes_true
from harness.faults import Writers
from sizes import sized

pytestmark = [pytest.mark.ours, pytest.mark.limit(1200)]

LINKS = [("gatewayd", "raftd.ipc"), ("raftd", "raftd.ipc"), ("raftd", "apply.ipc"), ("stored", "apply.ipc"),
         ("stored", "applied.ipc"), ("gatewayd", "applied.ipc")]

# A loss that nobody noticed would end in a time-out after 7 s. A machine that stands still for a moment does not do so at the same
# message again and again; a link that does not notice a loss does.
TOO_LONG_S = 2.5
TRIES = 8


def one_loss(keys, shim, sender, path, nth, writes):
    """The sender's nth message on that link from now on is lost, with a write, a watch and a quorum read one after the
    other. Returns how long the slowest of them took, in seconds, or None where the message was never sent."""
    before = keys.index()
    with keys.watch("/k", "stream=true") as watch:
        shim.forget()
        shim.set("proc=%s call=sendmsg path=%s nth=%d count=1 do=drop" % (sender, path, nth))
        moments = [time.monotonic()]
        for number in range(1, writes + 1):
            answer = keys.put("/k", "%d.%d" % (nth, number))
            moments.append(time.monotonic())
            assert answer.status == 200, answer
            assert answer.index == before + number, "applied twice, or answered for another"
        # Told without any further write.
        for number in range(1, writes + 1):
            assert watch.event()["node"]["modifiedIndex"] == before + number
        moments.append(time.monotonic())
        read = keys.get("/k", "quorum=true")
        moments.append(time.monotonic())
        assert read.json["node"]["modifiedIndex"] == before + writes
        comes_true(shim.hits, 0.3)  # Acknowledgements and beacons come by themselves.
        shim.set()
        assert watch.silent(0.02), "told twice"
    assert keys.get("/k", "quorum=true").status == 200  # What is lost now was lost in this trial, not in the next.
    return max(late - early for early, late in zip(moments, moments[1:])) if shim.hits() else None


@pytest.mark.parametrize("sender, path", LINKS, ids=["%s-to-%s" % link for link in LINKS])
def test_a_lost_message_is_made_good_long_before_the_time_out(shim, measured, sender, path):
    """Whichever it is, with nothing behind it that could show the loss: the last one before an idle time."""
    with harness.new_server(env=shim.env) as server:
        server.start()
        keys = Keys(server.port)
        keys.put("/k", "start")
        slowest = []
        for nth in range(1, sized(3, 9, 40)):
            for writes in (1, 4):
                took = []
                for _ in range(TRIES):
                    seconds = one_loss(keys, shim, sender, path, nth, writes)
                    took += [seconds] if seconds is not None else []
                    if not took or took[-1] < TOO_LONG_S:
                        break  # Never sent, or made good; one that was too late once has to be made good.
                assert not took or took[-1] < TOO_LONG_S, "%s s with message %d lost" % (took, nth)
                slowest += took
        shim.set()
        assert slowest, "no message was lost: the test saw nothing"
        keys.close()
        measured.times("a message of %s lost on %s, slowest of write, watch and quorum read" % (sender, path), slowest)


@pytest.mark.full
def test_the_last_message_before_an_idle_minute_is_made_good(shim):
    """Each link loses one, all is made good, and then nothing happens for a minute: no session ends, no event comes."""
    with harness.new_server(env=shim.env) as server:
        server.start()
        keys = Keys(server.port, timeout=90)
        keys.put("/k", "start")
        shim.set(*["proc=%s call=sendmsg path=%s nth=2 count=1 do=drop" % link for link in LINKS])
        with keys.watch("/k", "stream=true") as watch:
            index = keys.put("/k", "last").index
            assert watch.event()["node"]["modifiedIndex"] == index
            told = len(server.log())
            assert watch.silent(60)
        assert shim.hits() and "lost" not in server.log()[told:], server.log()[told:]
        assert keys.index() == index and keys.put("/k", "again").index == index + 1
        keys.close()


@pytest.mark.slow
def test_messages_lost_at_random_under_load(shim):
    """Each 50th message of every daemon is lost; nothing is lost or applied twice for it."""
    with harness.new_server(env=shim.env) as server:
        server.start()
        with Writers(server.port, "/w", count=16, timeout=20) as writers:
            writers.wait_for(100)
            for number in range(sized(10, 40, 400)):
                shim.set(*["proc=%s call=sendmsg nth=%d count=1 do=drop" % (name, 5 + number % 40) for name in ("raftd", "stored", "gatewayd")])
                writers.wait_for(30, timeout=30)
            shim.set()
            writers.wait_for(50)
        assert writers.problems() == []
